import mpmath as mp
import numpy as np
import pytest
import scipy.linalg
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import integrate

from backaction import Experiment
from backaction.errors import ModelError
from backaction.experiment import describe, results
from backaction.numerics.matrices import rotation_matrix, symplectic
from backaction.states import entanglement
from backaction.states.gaussian import symplectic_spectrum
from backaction.systems import steady
from backaction.systems.response import state_spectrum
from support.networks import all_ports_detected, experiments


def reported(experiment, V):
    i = experiment.system.indices(experiment.reported_modes())
    return V[..., i, :][..., i]


@pytest.mark.parametrize("name", ["TABLE", "TUNED"])
def test_headline_numbers(name, numbers, thomas, tuned):
    experiment = {"TABLE": thomas, "TUNED": tuned}[name]
    ref = numbers[name]
    head = ref["headline"]
    u, c = (results.gaussian_state(experiment, s) for s in ("unconditional", "conditional"))
    assert_allclose(u.covariance, ref["Vu"], rtol=1e-6, atol=1e-8)
    assert_allclose(c.covariance, ref["Vc"], rtol=1e-6, atol=1e-8)
    best, own = entanglement.epr(c), entanglement.epr(u)
    assert_allclose(best, [head["Vc"], head["a"], head["beta_deg"]], rtol=1e-6)
    assert_allclose(own, [head["Vu_min"], head["a_Vu"], head["beta_Vu_deg"]], rtol=1e-6)
    assert_allclose(entanglement.epr_variance(u, best.weight, best.angle_deg), head["Vu_at_Vc_optimum"], rtol=1e-6)
    nu, ebits = ref["PT_symplectic_min_and_logneg_c"]
    assert_allclose([entanglement.ppt_min(c), entanglement.log_negativity(c)], [nu, ebits], rtol=1e-6)
    assert_allclose(entanglement.ppt_min(u), ref["PT_symplectic_min_and_logneg_u"][0], rtol=1e-6)
    assert entanglement.log_negativity(u) == 0.0
    assert_allclose(np.trace(c.reduced("membrane").covariance), head["Vc_trace_M"], rtol=1e-6)


@pytest.mark.parametrize("row", range(0, 21, 5))
def test_phase_scan(row, numbers, thomas):
    """phi = 170 ... 190 degrees: whether the carrier is handled right."""
    phi, Vc, Vu, Vu_min, beta = numbers["TABLE"]["phi_scan"][row]
    e = thomas.with_values({"phase.angle_deg": phi})
    u, c = (results.gaussian_state(e, s) for s in ("unconditional", "conditional"))
    best = entanglement.epr(c)
    found = [
        best.variance,
        entanglement.epr_variance(u, best.weight, best.angle_deg),
        entanglement.epr(u).variance,
        best.angle_deg,
    ]
    assert_allclose(found, [Vc, Vu, Vu_min, beta], rtol=1e-6)


def test_full_conditional_covariance_with_the_cavity(numbers, thomas):
    """Vc_full6: the paper's cavity quadratures are ours turned to the input's phase (psi_in), in units of 1/sqrt(2)."""
    s = thomas.system
    i = s.indices(("membrane", "spin", "membrane.cavity"))
    scale = np.eye(6)
    scale[4:, 4:] = rotation_matrix(numbers["TABLE"]["headline"]["psi_in_deg"]) / 2**0.5
    V = scale @ steady.conditional(s).covariance[np.ix_(i, i)] @ scale.T
    assert_allclose(V, numbers["TABLE"]["Vc_full6"], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("offset", ["-50", "-5", "0", "10", "50"])
def test_detuning_sweep(offset, numbers, thomas):
    Vc, a, beta = numbers["TABLE"]["detuning_sweep_selected"][offset][:3]
    e = thomas.with_values({"spin.larmor_offset_hz": 1e3 * float(offset)})
    assert_allclose(entanglement.epr(results.gaussian_state(e)), [Vc, a, beta], rtol=1e-6)


def test_conditional_variance_in_time(numbers, thomas):
    """V_c(t) from V_u against the Riccati column of the notes, 5 to 110 us."""
    best = entanglement.epr(results.gaussian_state(thomas))
    for row in numbers["crosschecks_TABLE"]["Vc_of_t_FIR_vs_Riccati"]:
        V = reported(thomas, steady.conditional_at(thomas.system, [row[0] * 1e-6]))[0]
        assert_allclose(entanglement.epr_variance(V, best.weight, best.angle_deg), row[1], rtol=1e-7)


def test_conditional_in_time_starts_at_the_unconditional_state_and_solves_the_riccati_equation(thomas):
    """Second route: integrate dV/dt = A V + V A^T + Q - K R K^T with an ODE solver."""
    s = thomas.system
    Q, N, R = s.noise()
    C = s.detected().C
    V0 = steady.unconditional(s)
    assert_allclose(steady.conditional_at(s, [0.0])[0], V0, atol=1e-9)

    def slope(t, v):
        V = v.reshape(6, 6)
        K = (V @ C.T + N) / R
        return (s.A @ V + V @ s.A.T + Q - K @ R @ K.T).ravel()

    end = 3e-6
    found = integrate.solve_ivp(slope, (0, end), V0.ravel(), rtol=1e-10, atol=1e-12).y[:, -1].reshape(6, 6)
    assert_allclose(steady.conditional_at(s, [end])[0], found, rtol=1e-6, atol=1e-7)


def test_effect_operator(thomas):
    """The retrodiction table: EPR variance of the effect operator 1.742 at V_c's (a, b)."""
    best = entanglement.epr(results.gaussian_state(thomas))
    E = results.gaussian_state(thomas, "retrodicted")
    assert_allclose(entanglement.epr_variance(E, best.weight, best.angle_deg), 1.742, atol=5e-4)


def information_equation(system, rate=1e6):
    """A, Q, I of J A + A^T J - J Q J + I = 0 in units of `rate`, noise cross-correlation eliminated."""
    Q, N, R = system.noise()
    C = system.detected().C
    KN = N / R
    return (system.A - KN @ C) / rate, (Q - KN @ N.T) / rate, C.T @ C / R / rate


@given(experiments())
def test_effect_operator_against_scipy(experiment):
    """Second solver for the information matrix: generalised Schur (SciPy), with one Newton step.

    Without the step SciPy's smallest eigenvalue is wrong by 1e-5 where two modes of one frequency leave a combination nearly dark.
    """
    A, Q, info = information_equation(experiment.system)
    w, U = np.linalg.eigh(Q)
    root = U * np.sqrt(np.clip(w, 0, None))
    try:
        J = scipy.linalg.solve_continuous_are(A, root, info, np.eye(len(A)))
    except np.linalg.LinAlgError:
        J = np.zeros_like(A)
    assume(np.any(info != 0) and np.linalg.cond(J) < 1e9)  # else the future record does not determine every state
    rest = J @ A + A.T @ J - J @ Q @ J + info
    J = J + scipy.linalg.solve_continuous_lyapunov((A - Q @ J).T, -rest)
    assert_allclose(steady.effect(experiment.system) @ J, np.eye(len(A)), atol=1e-5 + 1e-11 * np.linalg.cond(J))


@pytest.mark.parametrize("linewidth", [0.75, 0.99])
def test_effect_operator_of_a_nearly_dark_mode(linewidth):
    """Two membrane modes at one frequency in one cavity: the difference is seen by their linewidths alone. 40 digits, by Newton."""
    from backaction import Homodyne, OptomechanicalCavity
    from backaction.elements import MechanicalMode

    second = MechanicalMode(name="second", mechanical_hz=5e5, mechanical_linewidth_hz=1.0, bath_occupation=0.0, coupling_hz=1e3)  # fmt: skip
    cavity = OptomechanicalCavity(
        name="membrane", mechanical_hz=5e5, mechanical_linewidth_hz=linewidth, bath_occupation=0.0, cavity_linewidth_hz=5e5,
        overcoupling=1.0, detuning_hz=-1e5, coupling_hz=1e3, mode_matching=0.25, damping="symmetric", modes=(second,),
    )  # fmt: skip
    s = Experiment([cavity, Homodyne(name="d", efficiency=0.05, electronic_noise_sn=1.0)]).system
    V = steady.effect(s)
    with mp.workdps(40):
        A, Q, N, R, C = (mp.matrix(np.asarray(M).tolist()) for M in (s.A, *s.noise(), s.detected().C))
        rate = mp.mpf(10) ** 6
        A, Q, info = (A - N * C / R[0]) / rate, (Q - N * N.T / R[0]) / rate, C.T * C / R[0] / rate
        n, J = A.rows, mp.matrix(np.linalg.inv(V).tolist())
        for _ in range(4):
            F, rest = A - Q * J, J * A + A.T * J - J * Q * J + info
            L, b = mp.zeros(n * n), mp.zeros(n * n, 1)  # D F + F^T D + rest = 0
            for i, j in np.ndindex(n, n):
                b[i * n + j] = -rest[i, j]
                for k in range(n):
                    L[i * n + j, i * n + k] += F[k, j]
                    L[i * n + j, k * n + j] += F[k, i]
            D = mp.lu_solve(L, b)
            J += mp.matrix([[D[i * n + j] for j in range(n)] for i in range(n)])
            step = mp.norm(D) / mp.mnorm(J, "f")
        assert step < mp.mpf(10) ** -30
        assert max(mp.re(e) for e in mp.eig(A - Q * J, left=False, right=False)) < 0  # the stabilising one
        off = float(mp.mnorm(mp.matrix(V.tolist()) * J - mp.eye(n), mp.inf))
    assert off < 1e-8 + 1e-11 * np.linalg.cond(V)


@pytest.mark.slow
def test_frequency_integral_equals_lyapunov(thomas):
    """int S_x dW/2pi by adaptive quadrature over resonances and tails, to 1e-8."""
    s = thomas.system
    V = steady.unconditional(s)
    poles = np.linalg.eigvals(s.A)

    total = np.zeros_like(V)
    nodes, weights = np.polynomial.legendre.leggauss(64)
    edges = {0.0}
    for p in poles:
        centre, width = abs(p.imag), -p.real
        for k in np.arange(-6.0, 26.0):
            for sign in (-1, 1):
                edges.add(max(0.0, centre + sign * width * 2.0**k))
    grid = np.array(sorted(edges))
    for a, b in zip(grid[:-1], grid[1:], strict=True):
        W = (a + b) / 2 + (b - a) / 2 * nodes
        S = state_spectrum(s, W / (2 * np.pi)).real
        total += np.tensordot(weights * (b - a) / 2, S, axes=1)
    # beyond the last edge S falls as Q/W^2 (white forces): its tail integral is Q/W_max
    total += s.noise()[0] / grid[-1]
    assert_allclose(total / np.pi, V, rtol=0, atol=1e-8 * np.max(np.abs(V)))


@given(experiments())
def test_lyapunov_and_riccati_against_scipy(experiment):
    """Other solvers (Bartels-Stewart; generalised Schur) on random valid systems, and residuals of 1e-10."""
    s = experiment.system
    Q, N, R = s.noise()
    V = steady.unconditional(s)
    assert_allclose(V, scipy.linalg.solve_continuous_lyapunov(s.A, -Q), rtol=1e-6, atol=1e-7 * np.max(np.abs(V)))
    c = steady.conditional(s)
    assert c.residual < 1e-10
    assert np.max(np.linalg.eigvals(s.A - c.gain @ s.detected().C).real) < 0
    rate = 1e6
    other = scipy.linalg.solve_continuous_are(
        (s.A / rate).T, s.detected().C.T / rate**0.5, Q / rate, R, s=N / rate**0.5
    )
    assert_allclose(c.covariance, other, rtol=1e-5, atol=1e-6 * np.max(np.abs(V)))


@given(experiments())
def test_conditioning_never_adds_uncertainty_and_states_are_physical(experiment):
    s = experiment.system
    u, c = steady.unconditional(s), steady.conditional(s).covariance
    assert np.linalg.eigvalsh(u - c)[0] > -1e-9 * np.max(np.abs(u))
    quantum = [i for m in s.modes if m.kind != "classical" for i in range(s.mode(m.name).start, s.mode(m.name).stop)]
    for V in (u, c):
        part = V[np.ix_(quantum, quantum)]
        low = np.linalg.eigvalsh(part + 0.5j * symplectic(len(quantum) // 2))[0]
        assert low > -1e-8 * np.max(np.abs(part))


@given(experiments(), st.floats(0.05, 1.0), st.floats(-90, 90), st.floats(0, 2))
def test_unconditional_does_not_depend_on_the_detector(experiment, efficiency, angle, noise):
    other = experiment.with_values(
        {"detector.efficiency": efficiency, "detector.angle_deg": angle, "detector.electronic_noise_sn": noise}
    )
    assert_allclose(steady.unconditional(other.system), steady.unconditional(experiment.system), rtol=1e-12, atol=1e-12)


@given(
    st.tuples(*[st.floats(-90, 90)] * 3),
    st.floats(0.01, 0.3),
    st.floats(0.1, 0.95),
    st.floats(0.1, 0.95),
    st.floats(-6, 6),
)
def test_all_ports_detected_is_pure(angles, zeta, transmission, overcoupling, squeezing):
    """The purity oracle: every conditional symplectic eigenvalue is 1/2 to 1e-7 (DESIGN section 2)."""
    state = all_ports_detected(angles, zeta, transmission, overcoupling, squeezing)
    assert_allclose(state.symplectic_eigenvalues(), 0.5, atol=1e-7)


def test_pure_limit_of_the_notes(numbers, thomas):
    """Table parameters without baths and broadband noise, all ports detected: pure, as the notes find."""
    from backaction import Homodyne

    quiet = thomas.resolved().with_values(
        {"spin.intrinsic_linewidth_hz": 0.0, "spin.broadband_noise_sn": 0.0, "membrane.mechanical_linewidth_hz": 1e-9,
         "membrane.bath_occupation": 0.0, "detector.efficiency": 1.0}
    )  # fmt: skip
    e = Experiment(
        [*quiet.elements, Homodyne(name="a"), Homodyne(name="b")], thomas.modes,
        {"link.lost": "a.in", "membrane.loss_out": "b.in"},
    )  # fmt: skip
    assert_allclose(symplectic_spectrum(steady.conditional(e.system).covariance), 0.5, atol=1e-8)


def test_ideal_single_oscillator(numbers):
    """Corrected single-oscillator formula, exact RWA: [-g + sqrt(g^2 + 4 eta G g V_u)]/(2 eta G) (notes, misprint 5)."""
    from backaction import Homodyne, Loss, Oscillator

    for row in numbers["ideal_single"]:
        scale = 1.0 / (2 * np.pi)  # the notes' rates are angular
        o = Oscillator(
            name="o", frequency_hz=row["w"] * scale, intrinsic_linewidth_hz=row["gamma"] * scale, occupation=row["n"],
            readout_rate_hz=row["Gamma"] * scale,
        )  # fmt: skip
        e = Experiment([o, Loss(name="l", transmission=1.0), Homodyne(name="d", efficiency=row["eta"])])
        assert_allclose(np.trace(steady.unconditional(e.system)), row["Vu"], rtol=1e-6)
        assert_allclose(np.trace(steady.conditional(e.system).covariance), row["Vc"], rtol=1e-6)


def test_unstable_system_is_refused_by_name(thomas):
    blue = thomas.with_values({"membrane.detuning_hz": 0.7e6, "spin.larmor_hz": -1.37e6})
    with pytest.raises(ModelError, match="unstable: mode 'membrane' grows at"):
        steady.unconditional(blue.system)
    # measurement stabilises it: there is a conditional state, and the document says what is missing
    document = describe.state_document(blue)
    assert document["unconditional"] is None
    assert document["conditional"]["epr"]["variance"] > 0
    assert "unstable" in document["warnings"][0]


def test_batch_carries_nan_where_a_point_has_no_answer(thomas):
    detuning = np.array([-0.7e6, 0.7e6, -0.6e6])
    batch = thomas.with_values({"membrane.detuning_hz": detuning, "spin.larmor_hz": -1.37e6})
    V = steady.unconditional(batch.system)
    assert np.isnan(V[1]).all()
    assert np.isfinite(V[[0, 2]]).all()
    values = results.evaluate("unconditional.epr.variance", batch)
    assert np.isnan(values[1])
    assert np.isfinite(values[[0, 2]]).all()


def test_undetected_undamped_mode_has_no_conditional_state():
    from backaction import Homodyne, Loss, Oscillator

    o = Oscillator(name="o", frequency_hz=1e3, intrinsic_linewidth_hz=0.0, occupation=0.0, readout_rate_hz=1.0)
    e = Experiment([o, Loss(name="l", transmission=0.0), Homodyne(name="d")])
    with pytest.raises(ModelError, match="no steady conditional state"):
        steady.conditional(e.system)


def test_blind_detector_has_no_effect_operator(thomas):
    with pytest.raises(ModelError, match="no steady effect operator"):
        steady.effect(thomas.with_values({"detector.efficiency": 0.0}).system)


def test_nothing_detected_has_no_conditional_state(thomas):
    with pytest.raises(ModelError, match="no current is detected"):
        steady.conditional(Experiment(thomas.elements[:4], thomas.modes).system)


def test_poles_that_coincide(thomas):
    """Spin exactly on the mechanical pole: the eigenbasis degenerates, the answers are smooth."""
    f, gamma = thomas.element("membrane").effective_mechanics()
    pole = -gamma / 2 + 1j * np.sqrt(f**2 - (gamma / 2) ** 2)
    at = thomas.with_values({"spin.larmor_hz": -pole.imag, "spin.tensor_ratio": (gamma - 1700.0) / 2 / 20e3})
    near = [at.with_values({"spin.larmor_hz": -pole.imag + d}) for d in (-1e-3, 1e-3)]
    values = [results.evaluate("conditional.epr.variance", e) for e in (*near, at)]
    assert_allclose(values[2], (values[0] + values[1]) / 2, rtol=1e-9)
