import numpy as np
import pytest
from numpy.testing import assert_allclose

from backaction import Experiment, Homodyne, Record, SpinOscillator
from backaction.errors import InputError
from backaction.records.shot_level import ShotNoise
from backaction.records.simulation import VOLT_DENSITY, reference, simulate
from backaction.states import entanglement
from backaction.systems.poles import mode_frequencies
from backaction.systems.response import VACUUM
from backaction.systems.sampled import discretise
from backaction.systems.steady import unconditional
from backaction.tracking.run import track
from backaction.tracking.setups import sampled_filter
from backaction.tracking.tracks import load_track

CALIBRATION = ShotNoise(VOLT_DENSITY, 1e-3, "V")


@pytest.fixture(scope="module")
def made(thomas):
    return simulate(thomas, 0.02, 1e7, seed=11, paths=True)


def textbook_kalman(model, y, P0):
    """The textbook time-varying Kalman predictor with correlated noise, one sample at a time; NaN is missing."""
    x, P = np.zeros(len(model.F)), P0
    means, innovations, variances, covariances, likelihood = [], [], [], [], 0.0
    for value in y:
        S = (model.H @ P @ model.H.T + model.R)[0, 0]
        K = (model.F @ P @ model.H.T + model.N) / S
        e = value - (model.H @ x)[0]
        x, P = model.F @ x, model.F @ P @ model.F.T + model.Q
        if np.isfinite(e):
            x, P = x + K[:, 0] * e, P - S * K @ K.T
            likelihood -= 0.5 * (e * e / S + np.log(2 * np.pi * S))
        means.append(x)
        innovations.append(e)
        variances.append(S)
        covariances.append(P)
    return tuple(np.array(v) for v in (means, innovations, variances, covariances, likelihood))


@pytest.mark.parametrize("start", ["steady", "unconditional"])
def test_equals_a_textbook_kalman_loop(thomas, made, start):
    """Sample by sample, from the steady covariance and exactly from the unconditional state."""
    size = 30_000
    record = Record(made.record.source[:size] - np.mean(made.record.source[:size]), 1e7)
    found = track(thomas, record, CALIBRATION, "lab", 1, start=start)
    steady = sampled_filter(thomas.system, record)
    P0 = steady.covariance if start == "steady" else unconditional(thomas.system)
    y = record.values() * np.sqrt(VACUUM / VOLT_DENSITY)
    means, innovations, variances, covariances, likelihood = textbook_kalman(steady.model, y, P0)
    i = thomas.system.indices(thomas.modes)
    assert_allclose(found.mean, means[:, i], rtol=1e-9, atol=1e-10)
    whitened = innovations * np.sqrt(steady.innovation[0, 0] / variances)
    assert_allclose(found.innovation, whitened * np.sqrt(1e-7 / VACUUM), rtol=1e-6, atol=1e-6)
    assert_allclose(found.covariances(), covariances[:, i][:, :, i], rtol=0, atol=1e-11)
    assert_allclose(found.log_likelihood, likelihood, rtol=1e-12)


def test_random_gaps_equal_a_textbook_kalman_loop(thomas, made):
    """30 % of the samples missing at random, and one long gap: prediction through them, covariance after."""
    size = 30_000
    rng = np.random.default_rng(0)
    y = np.array(made.record.source[:size])
    y -= np.mean(y)
    y[rng.random(size) < 0.3] = np.nan
    gap = (20_000, 20_700)
    y -= np.nanmean(np.where((np.arange(size) >= gap[0]) & (np.arange(size) < gap[1]), np.nan, y))
    found = track(thomas, Record(y, 1e7, gaps=(gap,)), CALIBRATION, "lab", 1)
    y[gap[0] : gap[1]] = np.nan
    m = discretise(thomas.system, 1e7)
    means, innovations, _, covariances, likelihood = textbook_kalman(
        m, y * np.sqrt(VACUUM / VOLT_DENSITY), unconditional(thomas.system)
    )
    i = thomas.system.indices(thomas.modes)
    assert_allclose(found.mean, means[:, i], rtol=0, atol=1e-10)
    assert_allclose(found.covariances(), covariances[:, i][:, :, i], rtol=0, atol=1e-10)
    assert np.array_equal(np.isnan(found.innovation), np.isnan(innovations))
    assert_allclose(found.log_likelihood, likelihood, rtol=1e-12)
    assert found.missing == int(np.sum(np.isnan(y)))


def test_error_covariance_on_the_simulators_own_paths(thomas, made):
    """Variance of (estimate - true path) of X_EPR and P_EPR equals the filter's own covariance within its error."""
    found = track(thomas, made.record, CALIBRATION, "lab", 1)
    error = (found.mean - made.paths)[20_000:]
    best = entanglement.epr(found.covariance)
    u = entanglement.basis(float(best.weight), float(best.angle_deg))[:2]
    measured = np.sum(np.var(error @ u.T, axis=0))
    # correlation time of the error is the filter's memory; two quadratures
    independent = 2 * len(error) / (2 * found.memory_s * 1e7)
    assert abs(measured / best.variance - 1) < 4 * np.sqrt(2 / independent)
    assert_allclose(best.variance, 0.802, atol=1e-3)


def test_mean_k_is_at_the_end_of_interval_k(thomas, made):
    """time_start_s is t0 + 1/fs; the estimate follows the true path best at zero shift."""
    found = track(thomas, made.record, CALIBRATION, "lab", 1)
    assert_allclose([found.time_start_s, found.time_step_s], 1e-7)
    x, truth = found.mean[20_000:-10, 0], made.paths[20_000:-10, 0]
    errors = [np.var(x[5:-5] - np.roll(truth, k)[5:-5]) for k in (-2, -1, 0, 1, 2)]
    assert int(np.argmin(errors)) == 2


def test_decimation_picks_the_same_means(thomas, made):
    full = track(thomas, made.record, CALIBRATION, "lab", 1)
    for every in (7, 64, 100, 1000):
        some = track(thomas, made.record, CALIBRATION, "lab", every)
        assert_allclose(some.mean, full.mean[every - 1 :: every][: len(some.mean)], rtol=1e-9, atol=1e-9)
        assert_allclose(some.time_start_s, every * 1e-7)
        assert len(some.mean) == made.record.size // every


def test_rotating_frame_turns_by_the_sign_of_the_mass(thomas, made):
    lab = track(thomas, made.record, CALIBRATION, "lab", 64)
    rotating = track(thomas, made.record, CALIBRATION, "rotating", 64)
    f = rotating.rotation_hz
    assert f[0] > 0 > f[1]
    z = (lab.mean[:, 2] + 1j * lab.mean[:, 3]) * np.exp(2j * np.pi * f[1] * lab.times_s)
    assert_allclose(rotating.mean[:, 2], z.real, atol=1e-8)
    # the EPR combination rotates as one: its rotating-frame spectrum is narrow
    u = entanglement.basis(0.84, 28.8)[:2]
    assert np.std(np.diff((rotating.mean @ u.T)[:, 0])) < np.std(np.diff((lab.mean @ u.T)[:, 0]))


def test_mode_frequencies_are_signed(thomas):
    membrane, spin = mode_frequencies(thomas.system, thomas.modes)
    assert_allclose([membrane, spin], [1368845.11, -1366644.16], rtol=1e-7)


def test_track_files_read_back_exactly(thomas, made, tmp_path):
    found = track(thomas, made.record, CALIBRATION)
    found.save(tmp_path / "t.h5")
    again = load_track(tmp_path / "t.h5")
    for k in ("mean", "covariance", "innovation"):
        assert np.array_equal(getattr(found, k), getattr(again, k))
    for k in ("modes", "rotation_hz", "time_start_s", "time_step_s", "frame", "innovation_variance_sn"):
        assert getattr(found, k) == getattr(again, k)
    assert [p.name for p in tmp_path.iterdir()] == ["t.h5"]


def test_simulation_is_reproducible_and_has_the_models_spectrum(thomas):
    from backaction.records.spectrum import averaged_spectrum
    from backaction.records.statistics import chi_square_p, gamma_normal_scores
    from backaction.systems.sampled import discretise

    a, b, c = (simulate(thomas, 0.05, 1e7, seed=s).record.source for s in (5, 5, 6))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
    s = averaged_spectrum(Record(a, 1e7), 500.0).band(1.2e6, 1.6e6)
    ratio = s.density / VOLT_DENSITY / discretise(thomas.system, 1e7).spectrum(s.frequency_hz)
    assert chi_square_p(gamma_normal_scores(ratio, s.averages)) > 1e-3


def test_true_paths_have_the_unconditional_covariance(thomas):
    from backaction import gaussian_state

    paths = simulate(thomas, 0.1, 2e6, seed=2, paths=True).paths
    V = gaussian_state(thomas, "unconditional").covariance
    # about 0.1 s x 2 pi x 1.4 kHz = 900 independent samples
    assert_allclose(np.cov(paths.T), V, atol=5 * np.max(V) / np.sqrt(900))


def test_reference_records_have_their_levels(thomas):
    e = thomas.with_values({"detector.electronic_noise_sn": 0.1})
    shot, dark = (reference(k, e, 0.02, 1e7, 1) for k in ("shot", "dark"))
    assert_allclose(np.var(shot.source) / 1e7 / VOLT_DENSITY, 1.1, rtol=0.02)
    assert_allclose(np.var(dark.source) / 1e7 / VOLT_DENSITY, 0.1, rtol=0.02)


def test_offset_of_the_detector_is_removed_and_said(thomas, made):
    moved = Record(np.asarray(made.record.source) + 0.5, 1e7)
    found = track(thomas, moved, CALIBRATION)
    assert_allclose(found.provenance["mean_removed"], 0.5, atol=1e-3)
    assert_allclose(found.mean, track(thomas, made.record, CALIBRATION).mean, atol=1e-6)


def test_complex_records_need_their_reference(thomas, made):
    with pytest.raises(InputError, match="reference_hz"):
        track(thomas, Record(np.asarray(made.record.source) * 1j, 1e7), CALIBRATION)


def test_one_mode_is_tracked_too():
    spin = SpinOscillator(name="s", larmor_hz=-1e5, intrinsic_linewidth_hz=500.0, readout_rate_hz=5e3, occupation=2.0)
    e = Experiment([spin, Homodyne(name="d")])
    made = simulate(e, 0.2, 1e6, seed=4, paths=True)
    found = track(e, made.record, CALIBRATION, "lab", 1)
    error = np.var((found.mean - made.paths)[10_000:], axis=0)
    assert_allclose(error, np.diag(found.covariance), rtol=0.2)


def test_front_end_is_part_of_the_model(thomas):
    """A simulated record behind two low-passes: calibrated, filtered, and the error is the filter's own covariance."""
    from backaction.records.shot_level import shot_noise

    corners = (3e6, 4e6)
    made = simulate(thomas, 0.02, 1e7, seed=3, paths=True, front_end_hz=corners)
    quiet = Experiment(
        [SpinOscillator(name="s", larmor_hz=1e6, intrinsic_linewidth_hz=1e3, readout_rate_hz=0.0), Homodyne(name="d")]
    )
    shot = simulate(quiet, 0.02, 1e7, seed=4, front_end_hz=corners).record
    calibration = shot_noise(made.record, shot, None, 0.0, (1.2e6, 1.5e6))
    assert abs(calibration.density / VOLT_DENSITY - 1) < 5 * calibration.relative_sd
    assert calibration.relative_sd < 0.01
    found = track(thomas, made.record, calibration, "lab", 1)
    e = found.innovation[20_000:]
    assert_allclose(np.var(e), found.innovation_variance_sn, rtol=0.05)
    error = np.sum(np.var((found.mean - made.paths)[20_000:] @ entanglement.basis(0.84, 28.8)[:2].T, axis=0))
    assert_allclose(error, entanglement.epr_variance(found.covariance, 0.84, 28.8), rtol=0.25)
