"""Compiled batches of conditional states against LAPACK's subspaces and SciPy, and the test of stability."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from backaction.errors import ModelError
from backaction.numerics.compile import library
from backaction.systems import steady
from support.networks import experiments as networks


def arrays(system):
    Q, N, R = system.noise()
    d = system.detected()
    return [np.ascontiguousarray(x, dtype=float) for x in (system.A, Q, N[:, 0])] + [
        float(R[0, 0]), np.ascontiguousarray(d.C[0], dtype=float)]  # fmt: skip


def test_table_one_equals_scipy(thomas):
    from scipy.linalg import solve_continuous_are

    A, Q, N, R, C = arrays(thomas.system)
    V = np.empty((6, 6))
    assert library("riccati", n=6).riccati_doubling(A, Q, N, R, C, V) < 1e-12
    want = solve_continuous_are(A.T, C[:, None], Q, [[R]], s=N[:, None])
    assert np.max(np.abs(V - want)) < 1e-9 * np.max(np.abs(want))


@pytest.mark.parametrize("name", ["thomas2021", "moller2017", "moller2017_detuned"])
def test_the_solver_does_not_give_up(name):
    """Every one of 300 systems a fifth about a shipped experiment is solved, and as LAPACK solves it."""
    from backaction import Experiment

    e = Experiment.load(name)
    rng = np.random.default_rng(0)
    fields = [f for f in e.fields() if e.value(f) != 0 and "efficiency" not in f and "hz" in f]
    values = {f: float(e.value(f)) * rng.uniform(0.8, 1.2, 300) for f in fields}
    batch = e.with_values(values)
    residual, good = [], 0
    want = steady.conditional(batch.build()).covariance
    for k in range(300):
        one = e.with_values({f: float(v[k]) for f, v in values.items()}).build()
        n = one.A.shape[-1]
        V = np.empty((n, n))
        A, Q, N, R, C = arrays(one)
        residual.append(library("riccati", n=n).riccati_doubling(A, Q, N, R, C, V))
        if np.all(np.isfinite(want[k])):
            assert np.max(np.abs(V - want[k])) < 1e-9 * np.max(np.abs(want[k]))
            good += 1
    assert max(residual) < 1e-10
    assert good == 300


@settings(deadline=None)
@given(networks())
def test_random_networks(experiment):
    """Where the doubling claims a small residual it is the stabilising solution; Lyapunov and stability likewise."""
    system = experiment.system
    n = system.A.shape[-1]
    if len(system.currents) != 1 or n == 0:
        return
    A, Q, N, R, C = arrays(system)
    loops = library("riccati")
    stable = np.max(np.linalg.eigvals(A).real) < 0
    margin = np.max(np.linalg.eigvals(A).real) / np.max(np.abs(A))
    if abs(margin) > 1e-12:
        assert loops.stable(A) == stable
    V = np.empty((n, n))
    if stable and margin < -1e-10:
        assert loops.lyapunov_doubling(A, Q, V)
        want = steady.unconditional(system)
        assert np.max(np.abs(V - want)) < 1e-7 * np.max(np.abs(want))
    try:
        with np.errstate(all="ignore"):  # transmissions of 1e-311
            want = steady.conditional(system).covariance
    except (ModelError, np.linalg.LinAlgError):  # the second: LAPACK on couplings of 1e-155
        return
    if loops.riccati_doubling(A, Q, N, R, C, V) < 1e-9:
        assert np.max(np.abs(V - want)) < 1e-5 * np.max(np.abs(want))


@pytest.mark.parametrize("rate", [-1e-3, 1e-3])
def test_stability_at_the_edge(rate):
    """A rotation a million times faster than its decay, and its growth."""
    A = np.array([[rate, 1e4], [-1e4, rate]])
    assert library("riccati").stable(A) == (rate < 0)


@given(st.integers(1, 6), st.integers(0, 1000))
@settings(deadline=None)
def test_elimination_solves(n, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((n, n)) + 2 * np.eye(n), rng.standard_normal((n, 2 * n))
    x = b.copy()
    assert library("riccati").eliminate(a.copy(), x)
    assert_allclose(a @ x, b, atol=1e-8)
    assert not library("riccati").eliminate(np.zeros((n, n)), b.copy())
