"""Demodulated records and digital filters: exact models, against finer real records, closed forms and true paths."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from backaction.errors import InputError
from backaction.records.shot_level import ShotNoise
from backaction.records.simulation import VOLT_DENSITY, simulate
from backaction.systems.sampled import demodulation, discretise, filtered, lifted, steady_filter
from backaction.tracking.inputs import Demodulation
from backaction.tracking.run import track

CALIBRATION = ShotNoise(VOLT_DENSITY, 1e-3, "V")


def test_lifting_by_means_is_sampling_at_the_lower_rate(thomas):
    a = discretise(thomas.system, 2.5e6)
    b = lifted(discretise(thomas.system, 1e7), np.full((4, 1, 1), 0.25))
    for k in ("F", "H", "Q", "N", "R"):
        assert_allclose(getattr(a, k), getattr(b, k), rtol=0, atol=1e-11 * np.max(np.abs(getattr(a, k))))


def test_complex_averages_are_the_limit_of_fine_real_ones(thomas):
    """z = (1/h) int y e^{-iwt} dt as a weighted sum of 2^k real averages: second order in the sub-interval."""
    rate, f = 3e5, 1.3677e6
    exact = discretise(thomas.system, rate, reference_hz=f)
    errors = []
    for m in (64, 128):
        fine = lifted(discretise(thomas.system, m * rate), demodulation(m * rate, f, m))
        # the phase of a sub-interval is that of its middle, not of its end
        half = np.pi * f / (m * rate)
        turn = np.array([[np.cos(half), np.sin(-half)], [np.sin(half), np.cos(half)]])
        H, N, R = turn @ fine.H, fine.N @ turn.T, turn @ fine.R @ turn.T
        errors.append(
            [np.max(np.abs(u - v)) / np.max(np.abs(v)) for u, v in ((H, exact.H), (N, exact.N), (R, exact.R))]
        )
        assert_allclose(fine.F, exact.F, atol=1e-10)
        assert_allclose(fine.Q, exact.Q, atol=1e-9 * np.max(np.abs(exact.Q)))
    ratio = np.array(errors[0]) / np.array(errors[1])
    assert np.all((ratio > 3.5) & (ratio < 4.5))


def test_lock_in_filter_is_its_closed_form():
    """White noise of density 1/2 through two low-passes of a lock-in at f: the variance of each quadrature is w_c/16."""
    from backaction.systems.sampled import white_noise

    corner = 3e4
    m = discretise(white_noise(), 1e5, "instantaneous", (corner, corner), 1e6)
    from backaction.numerics.matrix_equations import discrete_lyapunov

    V = discrete_lyapunov(m.F, m.Q)
    total = m.H @ V @ m.H.T + m.R
    # int |H|^4 df S = S w_c/4 is the total power, about half of it in each quadrature
    assert_allclose(np.trace(total), 0.5 * 2 * np.pi * corner / 4, rtol=1e-9)
    assert_allclose(total[0, 0], total[1, 1], rtol=0.05)


def test_demodulated_tracking_keeps_the_conditional_variance(thomas):
    """Baseband at a 32nd of the rate: V_c's EPR variance within 1e-3 of the raw record's, the means nearly the same."""
    from backaction.states import entanglement

    made = simulate(thomas, 0.02, 1e7, seed=3, paths=True)
    raw = track(thomas, made.record, CALIBRATION, "lab", 32)
    base = track(thomas, made.record, CALIBRATION, "lab", 1, demodulate=Demodulation(1.3677e6, 32))
    a, b = (entanglement.epr(t.covariance).variance for t in (raw, base))
    assert 0 < b - a < 1e-3
    assert_allclose(base.times_s, raw.times_s, atol=1e-12)
    assert np.std(base.mean[500:] - raw.mean[500:]) < 0.05 * np.std(raw.mean)
    error = np.var((base.mean - made.paths[31::32])[500:], axis=0)
    assert_allclose(error, np.diag(base.covariance), rtol=0.35)


@pytest.mark.parametrize(("sampling", "corners"), [("average", ()), ("instantaneous", (6e4, 6e4))])
def test_lock_in_records_are_tracked(thomas, sampling, corners):
    """Complex records: the error against the true paths is the filter's own covariance; innovations white."""
    f, rate = 1.3677e6, 3e5
    made = simulate(thomas, 0.15, rate, seed=5, paths=True, sampling=sampling, front_end_hz=corners, reference_hz=f)
    assert made.record.is_complex
    found = track(thomas, made.record, CALIBRATION, "lab", 1)
    u = np.array([[0.7, 0.1, -0.6, 0.3]])
    error = float(np.mean((((found.mean - made.paths)[2000:]) @ u.T) ** 2))
    assert_allclose(error, (u @ found.covariance @ u.T)[0, 0], rtol=0.08)
    e = found.innovation[2000:] / np.sqrt(found.innovation_variance_sn)
    assert_allclose(np.cov(e.T), np.eye(2), atol=0.04)
    lag = np.abs(np.mean(e[1:, :, None] * e[:-1, None, :], axis=0))
    assert np.all(lag < 5 / np.sqrt(len(e)))


def test_an_invertible_digital_filter_loses_nothing(thomas):
    """y' = y_k + y_{k-1}/2 + y_{k-2}/5 can be undone: the same conditional state; averaged pairs cannot."""
    from backaction.states import entanglement

    m = discretise(thomas.system, 1e7)
    i = thomas.system.indices(thomas.modes)

    def epr(model):
        return entanglement.epr(steady_filter(model).covariance[np.ix_(i, i)]).variance

    assert_allclose(epr(filtered(m, np.array([1.0, 0.5, 0.2]))), epr(m), rtol=1e-9)
    assert epr(lifted(filtered(m, np.hanning(11)[1:-1]), np.array([0.0, 1.0]).reshape(2, 1, 1))) > epr(m)
    with pytest.raises(InputError, match="taps"):
        filtered(m, np.array([0.0, 1.0]))
