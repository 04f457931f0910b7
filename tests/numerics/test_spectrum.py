"""Compiled spectra and their adjoint: against 40-digit arithmetic, also where poles meet, and over random networks."""

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from backaction.experiment.derivatives import stepped
from backaction.numerics.compile import library
from backaction.numerics.complex_step import STEP
from backaction.systems.response import noise_spectrum_tangent
from support.networks import experiments as networks

LOOPS = library("program", "spectrum", "riccati", "likelihood", "density")
SIX = library("program", "spectrum", "riccati", "likelihood", "density", n=6)
NONE = np.empty(0)


def model(system):
    Q, N, R = system.noise()
    d = system.detected()
    A, Q, N, C = (np.ascontiguousarray(x, dtype=float) for x in (system.A, Q, N[:, 0], d.C[0]))
    return A, Q, N, float(R[0, 0]), C


def spectrum(system, f):
    A, Q, N, R, C = model(system)
    S = np.empty(f.size)
    loops = SIX if len(A) == 6 else LOOPS
    loops.noise_density(A, Q, N, R, C, np.empty((0, 0)), 2 * np.pi * f, NONE, NONE, S, NONE, np.empty((0, 0)))
    return S


def adjoint(system, f, g):
    A, Q, N, R, C = model(system)
    n = len(A)
    V, out = np.empty((n, n)), np.zeros((n + 1, 2 * n + 1))
    loops = SIX if n == 6 else LOOPS
    assert loops.lyapunov_doubling(A, Q, V)
    loops.noise_density(A, Q, N, R, C, V, 2 * np.pi * f, NONE, NONE, np.empty(f.size), g, out)
    return out


def exact(system, f):
    """S(f) with 40 digits."""
    A, Q, N, R, C = (mp.matrix(np.atleast_2d(x).tolist()) for x in model(system))
    n = A.rows
    out = []
    with mp.workdps(40):
        for x in f:
            s = -2j * mp.pi * mp.mpf(float(x))
            left = mp.lu_solve((s * mp.eye(n) - A).T, C.T).T
            cross = (left * N.T)[0]
            out.append((left * Q * left.H)[0].real + 2 * cross.real + R[0])
    return out


def at_exceptional_point(thomas):
    """The spin's effective pole on the mechanical one: the Larmor frequency and width where the two coincide."""
    cavity = thomas.element("membrane")
    f, width = cavity.effective_mechanics()
    e = thomas.with_values({"spin.larmor_offset_hz": 0.0, "spin.tensor_ratio": 0.0,
                            "spin.intrinsic_linewidth_hz": float(width)})  # fmt: skip
    # damped rotation: pole -d +- i w; the membrane's is at |p| = f, Im p = sqrt(f^2 - (width/2)^2)
    return e.with_values({"spin.larmor_hz": -float(np.sqrt(f**2 - (width / 2) ** 2))})


def test_poles_that_meet_keep_eleven_digits(thomas):
    e = at_exceptional_point(thomas)
    poles = np.sort_complex(np.linalg.eigvals(e.system.A))
    upper = poles[(poles.imag > 1e6) & (np.abs(poles.real) < 1e5)]
    assert upper.size == 2
    assert abs(upper[0] - upper[1]) < 1e-3 * abs(upper[0].real)  # they do meet
    f = np.linspace(1.30e6, 1.43e6, 40)
    want = exact(e.system, f)
    assert max(abs(float(mp.mpf(float(a)) / b - 1)) for a, b in zip(spectrum(e.system, f), want, strict=True)) < 1e-11


def test_spectrum_of_table_one_to_forty_digits(thomas):
    f = np.linspace(1.25e6, 1.49e6, 60)
    got = spectrum(thomas.system, f)
    assert max(abs(float(mp.mpf(float(a)) / b - 1)) for a, b in zip(got, exact(thomas.system, f), strict=True)) < 1e-11


@pytest.mark.parametrize("where", ["table", "exceptional"])
def test_gradient_equals_forty_digit_differences(thomas, where):
    """d(sum g S)/dA_ij and d/dC_i by central differences in 40 digits, to 1e-6 of the largest."""
    system = thomas.system if where == "table" else at_exceptional_point(thomas).system
    f = np.linspace(1.35e6, 1.39e6, 7)
    g = np.array([1.0, -0.5, 0.3, 0.7, -1.2, 0.2, 0.4])
    out = adjoint(system, f, g)
    A, Q, N, R, C = model(system)
    n = len(A)

    def total(dA, dC):
        with mp.workdps(40):
            a = mp.matrix(A.tolist()) + dA
            c = mp.matrix([C.tolist()]) + dC
            q, k = mp.matrix(Q.tolist()), mp.matrix([N.tolist()]).T
            value = mp.mpf(0)
            for x, weight in zip(f, g, strict=True):
                s = -2j * mp.pi * mp.mpf(float(x))
                left = mp.lu_solve((s * mp.eye(n) - a).T, c.T).T
                value += mp.mpf(float(weight)) * ((left * q * left.H)[0].real + 2 * (left * k)[0].real + mp.mpf(R))
        return value

    size = np.max(np.abs(out[:n, :n]))
    for i, j in ((0, 1), (1, 0), (1, 1), (3, 2), (5, 5), (4, 0), (2, 5)):
        e = mp.zeros(n, n)
        with mp.workdps(40):
            e[i, j] = mp.mpf("1e-8")
            slope = (total(e, mp.zeros(1, n)) - total(-e, mp.zeros(1, n))) / mp.mpf("2e-8")
        assert abs(out[i, j] - float(slope)) < 1e-6 * max(abs(float(slope)), 1e-3 * size)
    for i in range(n):
        e = mp.zeros(1, n)
        with mp.workdps(40):
            e[0, i] = mp.mpf("1e-8")
            slope = (total(mp.zeros(n, n), e) - total(mp.zeros(n, n), -e)) / mp.mpf("2e-8")
        assert abs(out[n, i] - float(slope)) < 1e-6 * max(abs(float(slope)), 1e-9 * np.max(np.abs(out[n])))


@settings(deadline=None)
@given(networks(), st.integers(1, 200), st.integers(0, 2**31))
def test_values_and_adjoint_over_random_networks(experiment, count, seed):
    """Values against LAPACK, the adjoint in a random direction of all five matrices against the tangent route."""
    system = experiment.system
    if len(system.currents) != 1 or np.max(np.linalg.eigvals(system.A).real, initial=-1.0) >= -1e-3:
        return
    if system.A.shape[-1] == 0:
        return
    rng = np.random.default_rng(seed)
    f = rng.uniform(2e5, 3e6, count)
    Q, N, R = system.noise()
    C, s = system.detected().C, -2j * np.pi * f
    n = len(system.A)
    scale = np.max(np.abs(system.A))
    symmetric = rng.standard_normal((n, n))
    tangents = (
        scale * rng.standard_normal((1, n, n)) * (system.A != 0), ((symmetric + symmetric.T) * np.max(np.abs(Q)))[None],
        rng.standard_normal((1, n, 1)) * np.max(np.abs(N), initial=1.0), rng.standard_normal((1, 1, 1)),
        rng.standard_normal((1, 1, n)) * np.max(np.abs(C), initial=1.0),
    )  # fmt: skip
    value, slope = noise_spectrum_tangent((system.A, Q, N, R, C), tangents, s)
    assert_allclose(spectrum(system, f), value, rtol=1e-7)
    g = rng.standard_normal(count)
    out = adjoint(system, f, g)
    parts = [np.sum(out[:n, :n] * tangents[0][0]), np.sum(out[:n, n : 2 * n] * tangents[1][0]),
             out[:n, 2 * n] @ tangents[2][0, :, 0], out[n, 2 * n] * tangents[3][0, 0, 0], out[n, :n] @ tangents[4][0, 0]]  # fmt: skip
    size = np.abs(g) @ np.abs(slope[0]) + 1e-9 * sum(abs(p) for p in parts)
    assert abs(sum(parts) - slope[0] @ g) < 1e-6 * size


def test_states_that_the_output_does_not_see_are_left_out(thomas):
    """No readout of the spin: its subdiagonal vanishes, the recurrence must not divide by it."""
    e = thomas.with_values({"spin.readout_rate_hz": 0.0, "spin.broadband_noise_sn": 0.0})
    f = np.linspace(1.2e6, 1.5e6, 101)
    Q, N, R = e.system.noise()
    want, _ = noise_spectrum_tangent((e.system.A, Q, N, R, e.system.detected().C), None, -2j * np.pi * f)
    assert_allclose(spectrum(e.system, f), want, rtol=1e-10)
    out = adjoint(e.system, f, np.ones(101))
    assert np.all(np.isfinite(out))
    assert np.all(out[:2, :2] == 0) or np.max(np.abs(out[:2, :2])) < 1e-12 * np.max(np.abs(out))


def test_unrolled_loops_equal_the_general_ones(thomas):
    """Six states: values, adjoint and the sampling rule's phase, with and without the code made for the size."""
    A, Q, N, R, C = model(thomas.system)
    f = np.linspace(1.2e6, 1.5e6, 150)
    V = np.empty((6, 6))
    assert SIX.lyapunov_doubling(A, Q, V)
    turn = np.exp(1j * f / 1e6)
    for phase in ((NONE, NONE), (turn.real.copy(), turn.imag.copy())):
        found = []
        for loops in (SIX, LOOPS):
            S, out = np.empty(150), np.zeros((7, 13))
            loops.noise_density(A, Q, N, R, C, V, 2 * np.pi * f, *phase, S, NONE, np.empty((0, 0)))
            loops.noise_density(A, Q, N, R, C, V, 2 * np.pi * f, *phase, S, np.cos(f), out)
            found.append((S, out))
        assert_allclose(found[0][0], found[1][0], rtol=1e-11)
        assert_allclose(found[0][1], found[1][1], rtol=1e-8, atol=1e-10 * np.max(np.abs(found[0][1])))


def test_an_output_that_sees_nothing_is_white():
    A, C = -np.eye(3) * 1e3, np.zeros(3)
    S = np.empty(5)
    LOOPS.noise_density(
        A, np.eye(3), np.zeros(3), 0.7, C, np.empty((0, 0)), np.ones(5), NONE, NONE, S, NONE, np.empty((0, 0))
    )
    assert_allclose(S, 0.7)


def test_many_states_of_a_laboratory(thomas):
    """Laser line and two further modes, 12 states: gradients of all fields to 1e-9 of LAPACK's."""
    from backaction import Experiment
    from support.experiments import HYBRID

    e = Experiment.from_toml(HYBRID)
    system, names = e.system, list(e.priors)
    f = np.linspace(1.2e6, 1.6e6, 500)
    g = np.random.default_rng(0).standard_normal(500)
    out, n = adjoint(system, f, g), len(system.A)
    step = stepped(e, names)
    Qs, Ns, Rs = step.noise()
    tangents = [
        np.broadcast_to(np.imag(x) / STEP, (len(names), *x.shape[1:])) for x in (step.A, Qs, Ns, Rs, step.detected().C)
    ]
    Q, N, R = system.noise()
    _, slope = noise_spectrum_tangent((system.A, Q, N, R, system.detected().C), tuple(tangents), -2j * np.pi * f)
    dA, dQ, dN, dR, dC = tangents
    got = np.einsum("ij,kij->k", out[:n, :n], dA) + np.einsum("ij,kij->k", out[:n, n : 2 * n], dQ)
    got = got + dN[:, :, 0] @ out[:n, 2 * n] + dC[:, 0] @ out[n, :n] + dR[:, 0, 0] * out[n, 2 * n]
    assert np.max(np.abs(got - slope @ g) / (np.abs(slope) @ np.abs(g))) < 1e-9
