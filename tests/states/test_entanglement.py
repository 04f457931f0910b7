import mpmath as mp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import optimize

from backaction import GaussianState
from backaction.errors import InputError
from backaction.states import entanglement
from backaction.states.gaussian import join_states, symplectic_spectrum


@st.composite
def physical(draw):
    """A random physical two-mode covariance: S diag(nu) S^T from rotations, squeezers and beam splitters."""
    from backaction.numerics.matrices import block_diagonal, rotation_matrix

    nu = draw(st.tuples(st.floats(0.5, 4), st.floats(0.5, 4)))
    V = np.diag(np.repeat(nu, 2))
    for _ in range(2):
        r = draw(st.tuples(st.floats(-1, 1), st.floats(-1, 1)))
        S = np.diag(np.exp([r[0], -r[0], r[1], -r[1]]))
        a, b, t = (draw(st.floats(-180, 180)) for _ in range(3))
        c, s = np.cos(np.radians(t)), np.sin(np.radians(t))
        B = np.kron(np.array([[c, s], [-s, c]]), np.eye(2))
        M = B @ block_diagonal([rotation_matrix(a), rotation_matrix(b)]) @ S
        V = M @ V @ M.T
    return V


@pytest.mark.parametrize("r", [0.0, 1e-9, 0.1, 0.5, 2.0, 6.0, 8.0, 10.0])
def test_two_mode_squeezed_vacuum(r):
    """E_N = 2r/ln 2, EPR variance e^{-2r}, exact to r = 10 with the state's square root."""
    state = GaussianState.two_mode_squeezed(r)
    assert_allclose(entanglement.log_negativity(state), 2 * r / np.log(2), rtol=1e-9, atol=1e-12)
    assert_allclose(entanglement.ppt_min(state), np.exp(-2 * r) / 2, rtol=1e-9)


@pytest.mark.parametrize("r", [0.1, 0.5, 2.0, 5.0])
def test_two_mode_squeezed_vacuum_from_the_covariance_alone(r):
    V = GaussianState.two_mode_squeezed(r).covariance
    assert_allclose(entanglement.log_negativity(V), 2 * r / np.log(2), rtol=1e-6)
    assert_allclose(entanglement.epr(V), [np.exp(-2 * r), 1.0, 0.0], rtol=1e-5, atol=1e-9)
    assert_allclose(entanglement.duan(V), np.exp(-2 * r), rtol=1e-5)
    forward, backward = entanglement.steering(V)
    # closed form for a pure state: log2 of the local symplectic eigenvalue cosh 2r
    assert_allclose([forward, backward], np.log2(np.cosh(2 * r)), rtol=1e-6)


def test_log_negativity_at_squeezing_that_a_covariance_cannot_hold():
    """r = 10 in 40 digits: the doubles of cosh 20 and sinh 20 are equal, the root still knows their difference."""
    with mp.workdps(40):
        exact = mp.mpf(20) / mp.log(2)
    assert_allclose(entanglement.log_negativity(GaussianState.two_mode_squeezed(10.0)), float(exact), rtol=1e-12)


@given(physical())
def test_closed_form_minimum_equals_bfgs(V):
    best = entanglement.epr(V)
    found = min(
        optimize.minimize(lambda x: entanglement.epr_variance(V, x[0], x[1]), [a, b], method="Nelder-Mead",
                          options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 4000}).fun
        for a, b in ((0.5, 0.0), (1.0, 120.0), (2.0, -120.0))
    )  # fmt: skip
    assert best.variance <= found + 1e-9
    if np.isfinite(best.weight):
        assert best.weight >= 0
        assert_allclose(entanglement.epr_variance(V, best.weight, best.angle_deg), best.variance, rtol=1e-8, atol=1e-10)
        assert -180 < best.angle_deg <= 180


@pytest.mark.parametrize("weight", [1e160, np.inf])
def test_a_weight_beyond_every_square_is_the_second_mode_alone(weight):
    """V(a) = (s1 + a^2 s2 - 2 a R)/(1 + a^2) tends to s2; a^2 itself overflows."""
    V = np.diag([1.0, 1.0, 0.5, 0.5])
    V[0, 2] = V[2, 0] = 0.2
    assert entanglement.epr_variance(V, weight, 30.0) == 1.0
    assert_allclose(entanglement.epr_variance(V, 3.0, 0.0), (2 + 9 * 1 - 2 * 3 * 0.2) / 10, rtol=1e-15)


@given(physical())
def test_log_negativity_against_thewalrus(V):
    """Another package: thewalrus, hbar = 1, order xxpp."""
    from thewalrus.quantum import log_negativity

    xxpp = V[[0, 2, 1, 3]][:, [0, 2, 1, 3]]
    theirs = log_negativity(xxpp, modes_A=[0], hbar=1)
    ours = entanglement.log_negativity(V) * np.log(2)
    assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)


@given(physical())
def test_ppt_by_the_quadratic_closed_form(V):
    with mp.workdps(40):
        M = mp.matrix(V.tolist())
        det = lambda i, j: M[i, j] * M[i + 1, j + 1] - M[i, j + 1] * M[i + 1, j]
        delta = det(0, 0) + det(2, 2) - 2 * det(0, 2)
        nu = float(mp.sqrt((delta - mp.sqrt(abs(delta**2 - 4 * mp.det(M)))) / 2))
    assert_allclose(entanglement.ppt_min(V), nu, rtol=1e-7)


@given(physical())
def test_epr_below_one_implies_ppt(V):
    if entanglement.epr(V).variance < 1 - 1e-9:
        assert entanglement.ppt_min(V) < 0.5


@given(physical())
def test_steering_is_the_conditional_variance_of_the_other_mode(V):
    """Gaussian steering A -> B: det of the Schur complement V_B - C^T V_A^-1 C below 1/4."""
    forward, backward = entanglement.steering(V)
    schur = V[2:, 2:] - V[2:, :2] @ np.linalg.solve(V[:2, :2], V[:2, 2:])
    assert_allclose(forward, max(0.0, -np.log2(4 * np.linalg.det(schur)) / 2), rtol=1e-6, atol=1e-9)
    other = V[:2, :2] - V[:2, 2:] @ np.linalg.solve(V[2:, 2:], V[2:, :2])
    assert_allclose(backward, max(0.0, -np.log2(4 * np.linalg.det(other)) / 2), rtol=1e-6, atol=1e-9)


@given(physical())
def test_local_rotations_change_only_the_angle(V):
    state = GaussianState(V, ("a", "b"))
    turned = state.rotated(a=30.0, b=-70.0)
    assert_allclose(entanglement.epr(turned).variance, entanglement.epr(state).variance, rtol=1e-9)
    assert_allclose(turned.symplectic_eigenvalues(), state.symplectic_eigenvalues(), rtol=1e-9)
    assert_allclose(turned.purity, state.purity, rtol=1e-9)


def test_uncorrelated_modes():
    """R = 0: the quieter mode alone, a = 0, or infinity when it is the second."""
    assert_allclose(entanglement.epr(np.diag([1.0, 1.0, 3.0, 3.0])), [2.0, 0.0, 0.0])
    value, weight, _ = entanglement.epr(np.diag([3.0, 3.0, 1.0, 1.0]))
    assert value == 2.0
    assert weight == np.inf


def test_gradients_are_finite_where_log_negativity_is_zero_and_eigenvalues_coincide():
    for V in (np.eye(4) / 2, np.eye(4), GaussianState.two_mode_squeezed(1e-12).covariance):
        slope = entanglement.ppt_gradient(V)
        assert np.isfinite(slope).all()
        assert_allclose(slope, slope.T)
        # Euler: ppt_min is homogeneous of degree one
        assert_allclose(np.sum(slope * V), entanglement.ppt_min(V), rtol=1e-9)


@given(physical())
def test_ppt_gradient_against_differences(V):
    transposed = np.diag([1.0, 1.0, 1.0, -1.0]) @ V @ np.diag([1.0, 1.0, 1.0, -1.0])
    low, high = symplectic_spectrum(transposed)
    assume(high - low > 1e-2 * high)
    slope = entanglement.ppt_gradient(V)
    rng = np.random.default_rng(0)
    D = rng.standard_normal((4, 4))
    D = D + D.T
    h = 1e-6 * np.min(np.linalg.eigvalsh(V))
    numeric = (entanglement.ppt_min(V + h * D) - entanglement.ppt_min(V - h * D)) / (2 * h)
    assert_allclose(np.sum(slope * D), numeric, rtol=2e-3, atol=1e-4)


def test_basis_transforms_to_epr_variables():
    V = GaussianState.two_mode_squeezed(0.6).rotated(second=40.0).covariance
    best = entanglement.epr(V)
    u = entanglement.basis(float(best.weight), float(best.angle_deg))
    turned = u @ V @ u.T
    assert_allclose(turned[0, 0] + turned[1, 1], best.variance)
    assert turned[2, 2] + turned[3, 3] > 1


def test_three_modes_are_refused():
    with pytest.raises(InputError, match="needs a 4x4 covariance"):
        entanglement.epr(np.eye(6))


def test_state_parts():
    state = join_states([GaussianState.thermal(a=1.0), GaussianState.vacuum("b")])
    assert state.occupation("a") == pytest.approx(1.0)
    assert state.reduced("b").purity == pytest.approx(1.0)
    assert state.is_physical()
    assert not GaussianState(0.4 * np.eye(2), ("x",)).is_physical()
    with pytest.raises(InputError, match="did you mean 'a'"):
        state.reduced("aa")
