"""The exact filter, smoother and retrodiction against dense Gaussian regression, textbook loops and 40 digits."""

import json

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from backaction import Experiment, GaussianState, Homodyne, Record, SpinOscillator
from backaction.errors import InputError, ModelError
from backaction.numerics.matrices import scaled_root
from backaction.records.shot_level import ShotNoise
from backaction.records.simulation import VOLT_DENSITY, simulate
from backaction.systems.sampled import Digitiser, discretise, steady_effect, steady_filter
from backaction.systems.steady import effect, unconditional
from backaction.tracking.inputs import Currents, Demodulation, currents
from backaction.tracking.kalman import FilterPlan, KalmanFilter, State
from backaction.tracking.run import track
from backaction.tracking.tracker import Tracker

CALIBRATION = ShotNoise(VOLT_DENSITY, 1e-3, "V")
GAIN = np.sqrt(0.5 / VOLT_DENSITY)


def textbook(models, y, x, P):
    """Kalman predictor of one model per sample, any number of currents, NaN missing: states and covariances after each."""
    means, covariances, likelihood = [], [], 0.0
    for m, value in zip(models, y, strict=True):
        there = np.isfinite(value)
        H, N, R = m.H[there], m.N[:, there], m.R[np.ix_(there, there)]
        S = H @ P @ H.T + R
        K = np.linalg.solve(S, (m.F @ P @ H.T + N).T).T
        e = value[there] - H @ x
        likelihood -= 0.5 * (e @ np.linalg.solve(S, e) + np.linalg.slogdet(2 * np.pi * S)[1]) if there.any() else 0.0
        x, P = m.F @ x + K @ e, m.F @ P @ m.F.T + m.Q - K @ S @ K.T
        means.append(x)
        covariances.append(P)
    return np.array(means), np.array(covariances), likelihood


def joint_root(m):
    """L with rows w, v and L L^T the joint noise."""
    J = np.block([[m.Q, m.N], [m.N.T, m.R]])
    size = np.sqrt(np.diag(J))
    w, U = np.linalg.eigh(J / np.outer(size, size))
    return size[:, None] * U * np.sqrt(np.clip(w, 0, None))


def dense(m, T, V):
    """Rows of all states x_0 .. x_T and of all samples in terms of independent unit normals."""
    n, q = len(V), len(m.R)
    L = joint_root(m)
    width = n + L.shape[1] * T
    X, Y = np.zeros((T + 1, n, width)), np.zeros((T, q, width))
    X[0, :, :n] = scaled_root(V)
    for k in range(T):
        own = slice(n + k * L.shape[1], n + (k + 1) * L.shape[1])
        Y[k] = m.H @ X[k]
        Y[k][:, own] += L[n:]
        X[k + 1] = m.F @ X[k]
        X[k + 1][:, own] += L[:n]
    return X, Y.reshape(T * q, width)


@pytest.fixture(scope="module")
def short(thomas):
    """A record of 160 samples with holes."""
    y = np.array(simulate(thomas, 160e-7, 1e7, seed=3).record.source)
    y -= np.mean(y)
    y[[5, 6, 70]] = np.nan
    return Record(y - np.nanmean(y), 1e7)


def test_smoother_is_gaussian_regression_on_the_whole_record(thomas, short):
    m, V = discretise(thomas.system, 1e7), unconditional(thomas.system)
    X, Y = dense(m, 160, V)
    y = short.values() * GAIN
    seen = np.isfinite(y)
    Y, y = Y[seen], y[seen]
    i = thomas.system.indices(thomas.modes)
    found = track(thomas, short, CALIBRATION, "lab", 1, estimate="smoothed")
    for k in range(160):
        C = X[k + 1][i] @ Y.T
        assert_allclose(found.mean[k], C @ np.linalg.solve(Y @ Y.T, y), atol=1e-8)
        V_k = X[k + 1][i] @ X[k + 1][i].T - C @ np.linalg.solve(Y @ Y.T, C.T)
        assert_allclose(found.covariances()[k], V_k, atol=1e-8)


def test_retrodiction_is_least_squares_on_the_later_samples(thomas, short):
    """Flat prior: generalised least squares of x_{k+1} from y_{k+1} .. alone."""
    m = discretise(thomas.system, 1e7)
    i = thomas.system.indices(thomas.modes)
    found = track(thomas, short, CALIBRATION, "lab", 1, estimate="retrodicted")
    y = short.values() * GAIN
    n = len(m.F)
    for k in (40, 100, 120):
        later = y[k + 1 :]
        X, Y = dense(m, len(later), np.eye(n))
        seen = np.isfinite(later)
        A, Z = Y[seen][:, :n], Y[seen][:, n:]
        S = Z @ Z.T
        information = A.T @ np.linalg.solve(S, A)
        x = np.linalg.solve(information, A.T @ np.linalg.solve(S, later[seen]))
        V = np.linalg.inv(information)
        assert_allclose(found.mean[k], x[i], atol=1e-7 * np.max(np.abs(x)))
        assert_allclose(found.covariances()[k], V[np.ix_(i, i)], atol=1e-7 * np.max(np.abs(V)))
    assert np.isnan(found.mean[-3:]).all()  # too few samples left to determine six variables


def test_long_backward_passes_reach_the_steady_covariances(thomas):
    """In the middle of 60,000 samples: V_s = (V_c^-1 + V_E^-1)^-1 is *not* what the smoother has (correlated priors of the
    same past), but its covariance is the closed form P - P M P, and the effect operator's tends to the continuous one."""
    made = simulate(thomas, 6e-3, 1e7, seed=9, paths=True)
    smoothed, later = (
        track(thomas, made.record, CALIBRATION, "lab", 1, estimate=e) for e in ("smoothed", "retrodicted")
    )
    full = smoothed.covariances()
    assert_allclose(full[30_000], smoothed.covariance, atol=1e-10)
    assert np.max(np.abs(full[-1] - smoothed.covariance)) > 0.1  # at the end it is the filter's
    filtered_ = track(thomas, made.record, CALIBRATION, "lab", 1)
    assert_allclose(full[-1], filtered_.covariance, atol=1e-9)
    assert_allclose(smoothed.mean[-1], filtered_.mean[-1], atol=1e-9)
    # prediction and retrodiction err independently: the smoother combines them
    P, E = filtered_.covariance, later.covariance
    index = thomas.system.indices(thomas.modes)
    whole_P = steady_filter(discretise(thomas.system, 1e7)).covariance
    whole_E = steady_effect(discretise(thomas.system, 1e7)).covariance
    both = np.linalg.inv(np.linalg.inv(whole_P) + np.linalg.inv(whole_E))
    assert_allclose(smoothed.covariance, both[np.ix_(index, index)], rtol=0, atol=1e-8)
    assert np.all(np.diag(smoothed.covariance) < np.diag(P))
    assert np.all(np.diag(P) < np.diag(E))
    fast = steady_effect(discretise(thomas.system, 4e9)).covariance
    assert_allclose(fast[np.ix_(index, index)], effect(thomas.system)[np.ix_(index, index)], rtol=1e-3, atol=1e-3)


@settings(max_examples=25)
@given(st.lists(st.integers(1, 9000), max_size=12), st.integers(0, 5), st.booleans(), st.sampled_from([("lab", 64), ("rotating", 2)]))  # fmt: skip
def test_results_do_not_depend_on_how_the_record_was_cut(thomas, cuts, seed, save, kind):
    """Bit for bit, with gaps, with the state saved as JSON and restored at every cut."""
    size = 30_000
    made = simulate(thomas, size * 1e-7, 1e7, seed=1).record
    y = np.array(made.source)
    y[np.random.default_rng(seed).integers(0, size, 20)] = np.nan
    record = Record(y, 1e7)
    inputs = currents([record], [VOLT_DENSITY])
    whole = track(thomas, record, CALIBRATION, *kind)
    options = {"frame": kind[0], "every": kind[1]}
    tracker = Tracker(thomas, inputs, **options)
    pieces, at = [], 0
    for cut in [*np.cumsum(cuts).tolist(), size]:
        pieces.append(tracker.push(y[at : min(cut, size)]))
        at = min(cut, size)
        if save:
            other = Tracker(thomas, inputs, **options)
            other.restore(json.loads(json.dumps(tracker.state())))
            tracker = other
    pieces.append(tracker.flush())
    assert np.array_equal(np.concatenate([p.mean for p in pieces]), whole.mean)
    rows = np.concatenate([p.exact for p in pieces])
    assert np.array_equal(rows, whole.exact_rows)
    assert np.array_equal(np.concatenate([p.covariance for p in pieces]), whole.exact_covariance)
    assert tracker.missing == whole.missing == int(np.sum(np.isnan(y)))
    assert_allclose(tracker.log_likelihood, whole.log_likelihood, rtol=1e-13)


def test_two_currents_with_holes_of_their_own_equal_the_textbook():
    e = Experiment.load("huang2018")
    rate = 20 * float(np.max(np.abs(np.linalg.eigvals(e.system.A))))
    made = simulate(e, 9000 / rate, rate, seed=4)
    rng = np.random.default_rng(2)
    holed = []
    for r in made.records:
        y = np.array(r.source) - np.mean(r.source)
        y[rng.random(9000) < 0.1] = np.nan
        holed.append(Record(y - np.nanmean(y), rate))
    found = track(e, holed, [CALIBRATION, CALIBRATION], "lab", 1)
    m = discretise(e.system, rate)
    y = np.stack([r.values() for r in holed], axis=1) * GAIN
    means, covariances, likelihood = textbook([m] * 9000, y, np.zeros(4), unconditional(e.system))
    i = e.system.indices(e.modes)
    assert_allclose(found.mean, means[:, i], atol=1e-9)
    assert_allclose(found.covariances(), covariances[:, i][:, :, i], atol=1e-9)
    assert_allclose(found.log_likelihood, likelihood, rtol=1e-11)
    assert np.array_equal(np.isnan(found.innovation), np.isnan(y))


def test_currents_of_different_rates_equal_the_textbook_with_an_integrated_slow_one():
    """Second route: at the fast rate, the slow current as an integrator that is read and reset at every fourth sample."""
    e = Experiment.load("huang2018")
    rate = 20 * float(np.max(np.abs(np.linalg.eigvals(e.system.A))))
    made = simulate(e, 2400 / rate, rate, seed=4)
    fast, other = (Record(np.asarray(r.source) - np.mean(r.source), rate) for r in made.records)
    slow = Record(other.source.reshape(-1, 4).mean(axis=1), rate / 4)
    found = track(e, [fast, slow], [CALIBRATION, CALIBRATION], "lab", 1)
    m = discretise(e.system, rate)
    n = len(m.F)
    level = np.mean(fast.source), np.mean(slow.source)
    x, P = np.zeros(n + 1), np.zeros((n + 1, n + 1))
    P[:n, :n] = unconditional(e.system)
    means = []
    for k in range(2400):
        keep = 0.0 if k % 4 == 0 else 1.0
        F = np.zeros((n + 1, n + 1))
        F[:n, :n], F[n, :n], F[n, n] = m.F, m.H[1] / 4, keep
        # noise of (x, integrator; fast sample)
        G = np.zeros((n + 2, n + 2))
        G[:n, :n], G[n, n + 1], G[n + 1, n] = np.eye(n), 0.25, 1.0
        V = G @ np.block([[m.Q, m.N], [m.N.T, m.R]]) @ G.T
        H = np.append(m.H[0], 0.0)[None]
        S = H @ P @ H.T + V[n + 1 :, n + 1 :]
        K = (F @ P @ H.T + V[: n + 1, n + 1 :]) / S
        x, P = F @ x + K[:, 0] * ((fast.source[k] - level[0]) * GAIN - (H @ x)[0]), F @ P @ F.T + V[: n + 1, : n + 1] - S * K @ K.T  # fmt: skip
        if k % 4 == 3:  # the integrator is the slow sample, without further noise
            h = np.eye(n + 1)[n]
            K = P @ h / (h @ P @ h)
            x, P = x + K * ((slow.source[k // 4] - level[1]) * GAIN - x[n]), P - np.outer(K, h @ P)
            means.append(x[:n].copy())
    i = e.system.indices(e.modes)
    assert_allclose(found.mean, np.array(means)[:, i], atol=1e-7)
    assert_allclose(found.covariances()[-1], P[np.ix_(i, i)], atol=1e-7)


def test_prediction_ahead_is_the_model_applied_again(thomas):
    made = simulate(thomas, 2e-3, 1e7, seed=2).record
    now = track(thomas, made, CALIBRATION, "lab", 1, modes=["membrane", "membrane.cavity", "spin"])
    ahead = track(thomas, made, CALIBRATION, "lab", 1, ahead_s=5e-6)
    m = discretise(thomas.system, 1e7)
    F = np.linalg.matrix_power(m.F, 50)
    names = [("membrane", 0), ("membrane.cavity", 2), ("spin", 4)]
    order = np.concatenate([np.arange(*thomas.system.mode(k).indices(6)) for k, _ in names])
    full = np.empty_like(now.mean)
    full[:, order] = now.mean
    i = thomas.system.indices(thomas.modes)
    assert_allclose(ahead.mean, (full @ F.T)[:, i], atol=1e-9)
    assert_allclose(ahead.time_start_s - now.time_start_s, 5e-6)
    Q = sum(np.linalg.matrix_power(m.F, k) @ m.Q @ np.linalg.matrix_power(m.F, k).T for k in range(50))
    P = steady_filter(m).covariance
    assert_allclose(ahead.covariance, (F @ P @ F.T + Q)[np.ix_(i, i)], atol=1e-10)


def test_a_schedule_of_models_equals_the_textbook(thomas):
    """Parameters that change at samples 7,001 and 12,000: the covariance is carried over exactly."""
    other, third = (thomas.with_values({"phase.angle_deg": a}) for a in (170.0, 185.0))
    made = simulate(thomas, 2e-3, 1e7, seed=5).record
    record = Record(np.asarray(made.source) - np.mean(made.source), 1e7)
    found = track(thomas, record, CALIBRATION, "lab", 1, schedule=[(7001e-7, other), (12_000e-7, third)])
    models = [discretise(e.system, 1e7) for e in (thomas, other, third)]
    used = [models[(k >= 7001) + (k >= 12_000)] for k in range(20_000)]
    means, covariances, likelihood = textbook(
        used, record.values()[:, None] * GAIN, np.zeros(6), unconditional(thomas.system)
    )
    i = thomas.system.indices(thomas.modes)
    assert_allclose(found.mean, means[:, i], atol=1e-9)
    assert_allclose(found.covariances(), covariances[:, i][:, :, i], atol=1e-10)
    assert_allclose(found.log_likelihood, likelihood, rtol=1e-12)
    smoothed = track(
        thomas, record, CALIBRATION, "lab", 1, estimate="smoothed", schedule=[(7001e-7, other), (12_000e-7, third)]
    )
    assert_allclose(smoothed.mean[-1], means[-1, i], atol=1e-9)
    later = track(thomas, record, CALIBRATION, "lab", 1, estimate="retrodicted", schedule=[(7001e-7, other)])
    plain = track(other, record, CALIBRATION, "lab", 1, estimate="retrodicted")
    assert_allclose(later.mean[9000:15_000], plain.mean[9000:15_000], atol=1e-7)


def test_square_root_form_keeps_digits_that_the_covariance_loses():
    """A mode squeezed to 1e-9 of its width through one quiet current, 50 samples, against 40-digit arithmetic."""
    F = np.array([[np.cos(0.3), np.sin(0.3)], [-np.sin(0.3), np.cos(0.3)]])
    from backaction.systems.sampled import SampledModel

    Q, R = np.diag([1e-22, 1e-22]), np.array([[1e-20]])
    m = SampledModel(F, np.array([[1.0, 0.0]]), Q, np.zeros((2, 1)), R, 1.0)
    y = np.sin(0.3 * np.arange(50))
    start = np.diag([1e4, 1e4])
    with mp.workdps(40):
        mF, mH, mQ, mR = (mp.matrix(M.tolist()) for M in (F, m.H, Q, R))
        x, P = mp.matrix([0, 0]), mp.matrix(start.tolist())
        exact = []
        for value in y:
            S = (mH * P * mH.T + mR)[0]
            K = (mF * P * mH.T) / S
            e = mp.mpf(float(value)) - (mH * x)[0]
            x, P = mF * x + K * e, mF * P * mF.T + mQ - K * S * K.T
            exact.append(np.array(P.tolist(), dtype=float))
    plan = FilterPlan(np.eye(2), square_root=True)
    f = KalmanFilter([(0, m)], plan, State(np.zeros(2), scaled_root(start)))
    piece = f.advance(y)
    covariance = np.zeros((50, 2, 2))
    covariance[piece.exact] = piece.covariance
    for k in (5, 20, 49):
        size = np.sqrt(np.diag(exact[k]))
        assert_allclose(covariance[k] / np.outer(size, size), exact[k] / np.outer(size, size), atol=1e-6)
    assert_allclose(piece.mean[-1], np.array([float(x[0]), float(x[1])]), rtol=1e-9)
    with pytest.raises(ModelError, match="square-root form"):  # what it is for
        KalmanFilter([(0, m)], FilterPlan(np.eye(2)), State(np.zeros(2), start.copy())).advance(y)


def test_square_root_form_equals_the_covariance_form(thomas):
    made = simulate(thomas, 2e-3, 1e7, seed=2).record
    y = np.array(made.source)
    y[3000:3100] = np.nan
    a, b = (track(thomas, Record(y, 1e7), CALIBRATION, "lab", 16, square_root=s) for s in (False, True))
    assert_allclose(a.mean, b.mean, atol=1e-9)
    assert_allclose(a.covariances(), b.covariances(), atol=1e-9)
    assert_allclose(a.innovation, b.innovation, atol=1e-6)
    assert_allclose(a.log_likelihood, b.log_likelihood, rtol=1e-12)


def test_start_from_any_state(thomas):
    made = simulate(thomas, 1e-4, 1e7, seed=2).record
    record = Record(np.asarray(made.source) - np.mean(made.source), 1e7)
    start = GaussianState.thermal(membrane=0.0, spin=3.0)
    found = track(thomas, record, CALIBRATION, "lab", 1, start=start)
    i = thomas.system.indices(("membrane", "spin"))
    P = unconditional(thomas.system)
    P[i, :] = P[:, i] = 0.0
    P[np.ix_(i, i)] = start.covariance
    means, covariances, _ = textbook(
        [discretise(thomas.system, 1e7)] * 1000, record.values()[:, None] * GAIN, np.zeros(6), P
    )
    assert_allclose(found.mean, means[:, i], atol=1e-10)
    assert_allclose(found.covariances(), covariances[:, i][:, :, i], atol=1e-10)


def test_an_unstable_system_needs_a_start(thomas):
    """A cavity on the heating side, read well: no unconditional state, but a steady filter."""
    hot = thomas.with_values({"membrane.detuning_hz": 0.3e6, "membrane.coupling_hz": 3e4})
    made = simulate(thomas, 1e-4, 1e7, seed=2).record
    with pytest.raises(ModelError, match="no unconditional start"):
        track(hot, made, CALIBRATION)
    assert track(hot, made, CALIBRATION, start="steady").mean.shape[0] > 0


def test_repeated_shots_start_anew(thomas):
    runs = [np.asarray(simulate(thomas, 1e-3, 1e7, seed=s).record.source) for s in (1, 2)]
    runs = [y - np.mean(y) for y in runs]  # so that the removed level is zero in both
    record = Record(np.stack(runs), 1e7)
    found = track(thomas, record, CALIBRATION, "lab", 4)
    assert found.mean.shape == (2, 2500, 4)
    assert found.innovation.shape == (2, 10_000)
    for shot in (0, 1):
        alone = track(thomas, Record(runs[shot], 1e7), CALIBRATION, "lab", 4)
        assert_allclose(found.mean[shot], alone.mean, atol=1e-9)
        assert_allclose(found.innovation[shot], alone.innovation, atol=1e-6)


def test_clipped_samples_are_counted_and_predicted_through(thomas):
    from backaction.records.simulation import Adc

    made = simulate(thomas, 5e-3, 1e7, seed=2, adc=Adc(12, 0.15)).record
    assert made.source.dtype == np.int16
    clipped = (made.source <= -2048) | (made.source >= 2047)
    assert 5 < clipped.sum() < 5000
    found = track(thomas, made, CALIBRATION, "lab", 1)
    assert found.clipped == clipped.sum()
    assert np.array_equal(np.isnan(found.innovation), clipped)
    plain = np.where(clipped, np.nan, made.source * made.scale)
    again = track(thomas, Record(plain, 1e7), CALIBRATION, "lab", 1)
    assert_allclose(found.mean, again.mean, atol=0.01)  # the level is that of all samples


def test_integer_and_floating_samples_give_the_same_track(thomas):
    from backaction.records.simulation import Adc

    made = simulate(thomas, 5e-3, 1e7, seed=2, adc=Adc(16, 1.0)).record
    floating = Record(made.source * made.scale, 1e7)
    a, b = (track(thomas, r, CALIBRATION, "lab", 1) for r in (made, floating))
    assert_allclose(a.mean, b.mean, atol=1e-9)
    c = track(thomas, made, CALIBRATION, "lab", 1, single=True)
    assert c.mean.dtype == np.float32
    assert_allclose(c.mean, a.mean, atol=2e-6 * np.std(a.mean))


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"frame": "fixed"}, "lab or rotating"),
        ({"every": 0}, "every"),
        ({"every": 10**9}, "between 1 and"),
        ({"modes": ["membrain"]}, "did you mean 'membrane'"),
        ({"start": "yesterday"}, "unconditional, steady"),
        ({"ahead_s": -1.0}, "ahead_s"),
        ({"estimate": "guessed"}, "filtered, smoothed or retrodicted"),
        ({"estimate": "smoothed", "single": True}, "for filtered estimates"),
        ({"demodulate": Demodulation(1e6, 1)}, "demodulate by 1"),
        ({"output": "x.csv"}, "HDF5 or Zarr"),
        ({"output": "nowhere/x.h5"}, "does not exist"),
    ],
)
def test_options_are_refused_in_one_line(thomas, options, word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record = Record(np.random.default_rng(0).standard_normal(1000), 1e7)
    with pytest.raises(InputError, match=word) as error:
        track(thomas, record, CALIBRATION, **{"frame": "lab", **options})
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_records_that_do_not_fit_are_refused(thomas):
    y = np.random.default_rng(0).standard_normal(1000)
    with pytest.raises(InputError, match="was given 2 record"):
        track(thomas, [Record(y, 1e7), Record(y, 1e7)], [CALIBRATION] * 2)
    with pytest.raises(InputError, match="one for each current"):
        track(thomas, [Record(y, 1e7)], [CALIBRATION] * 2)
    with pytest.raises(InputError, match="taken otherwise"):
        currents([Record(y, 1e7), Record(y, 1e7, sampling="instantaneous")], [1.0, 1.0])
    with pytest.raises(InputError, match="whole multiple"):
        currents([Record(y, 1e7), Record(y, 4e6)], [1.0, 1.0])
    with pytest.raises(InputError, match="every sample is missing"):
        track(thomas, Record(np.full(1000, np.nan), 1e7), CALIBRATION)
    with pytest.raises(InputError, match="have no variance"):
        Currents(Digitiser(1e5, "instantaneous", (), 1e6), np.ones(1), np.zeros(1)).model(thomas.system)
    spin = SpinOscillator(name="s", larmor_hz=-1e6, intrinsic_linewidth_hz=1e3, readout_rate_hz=1e4)
    with pytest.raises(InputError, match="another number of states"):
        track(thomas, Record(y, 1e7), CALIBRATION, schedule=[(5e-5, Experiment([spin, Homodyne(name="d")]))])
