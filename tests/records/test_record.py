import numpy as np
import pytest
from numpy.testing import assert_allclose

from backaction import Record
from backaction.errors import InputError
from backaction.records.shot_level import shot_noise
from backaction.records.spectrum import averaged_spectrum
from backaction.records.statistics import chi_square_p, gamma_normal_scores


def white(density=2.0, size=300_000, rate=1e6, seed=0):
    return Record(np.random.default_rng(seed).standard_normal(size) * np.sqrt(density * rate), rate)


def test_effective_averages_describe_the_scatter():
    """On white noise bins are Gamma(N): mean, variance and the whole distribution, over 40 records."""
    from scipy import stats

    ratios = np.concatenate([averaged_spectrum(white(seed=k), 2000.0).density / 2.0 for k in range(40)])
    N = averaged_spectrum(white(), 2000.0).averages
    assert_allclose(np.mean(ratios), 1.0, atol=4 / np.sqrt(N * ratios.size))
    assert_allclose(np.var(ratios) * N, 1.0, atol=4 * np.sqrt(2 / ratios.size) + 0.03)
    assert stats.kstest(ratios, stats.gamma(N, scale=1 / N).cdf).pvalue > 1e-3


def test_neighbouring_bins_are_independent():
    r = np.concatenate([averaged_spectrum(white(seed=k), 2000.0).density / 2 - 1 for k in range(20)])
    assert abs(np.mean(r[1:] * r[:-1]) / np.var(r)) < 4 / np.sqrt(r.size) + 0.01


def test_density_is_two_sided_and_keeps_the_variance():
    s = averaged_spectrum(white(), 2000.0)
    assert_allclose(np.mean(s.density) * 1e6, np.var(white().source), rtol=0.02)


def test_spectrum_against_scipy_welch():
    """Another package, same record: level and a sine's power."""
    from scipy import signal

    t = np.arange(300_000) / 1e6
    record = Record(white().source + 2000.0 * np.sin(2 * np.pi * 123_456.0 * t), 1e6)
    s = averaged_spectrum(record, 2000.0)
    f, p = signal.welch(record.source, 1e6, nperseg=4096, return_onesided=False, scaling="density")
    inside = (s.frequency_hz > 2e5) & (s.frequency_hz < 4e5)
    assert_allclose(np.mean(s.density[inside]), np.mean(p[(f > 2e5) & (f < 4e5)]), rtol=0.02)
    power = np.sum(s.density - 2.0) * 2000.0
    assert_allclose(power, 2000.0**2 / 4, rtol=0.02)


def test_gaps_and_nan_are_left_out():
    x = white().source.copy()
    x[100_000:110_000] = 1e6
    clean = averaged_spectrum(Record(x, 1e6, gaps=((100_000, 110_000),)), 2000.0)
    x[100_000:110_000] = np.nan
    also = averaged_spectrum(Record(x, 1e6), 2000.0)
    assert_allclose(np.mean(clean.density), 2.0, rtol=0.02)
    assert_allclose(also.density, clean.density)
    assert clean.averages < averaged_spectrum(white(), 2000.0).averages


def test_shots_are_averaged():
    x = np.random.default_rng(1).standard_normal((4, 50_000))
    many = averaged_spectrum(Record(x, 1e6), 5000.0)
    one = averaged_spectrum(Record(x[0], 1e6), 5000.0)
    assert_allclose(many.averages, 4 * one.averages, rtol=0.02)


def test_integers_are_scaled_without_losing_offset():
    r = Record(np.array([1, 2, 3], dtype="<i2"), 1e3, scale=0.5, offset=-1.0)
    assert_allclose(r.values(), [-0.5, 0.0, 0.5])
    assert r.duration_s == 0.003


def test_scores_are_standard_normal_far_into_the_tails():
    from scipy import stats

    r = stats.gamma(30, scale=1 / 30).rvs(20_000, random_state=1)
    z = gamma_normal_scores(r, 30.0)
    assert_allclose([np.mean(z), np.std(z)], [0.0, 1.0], atol=0.03)
    assert np.isfinite(gamma_normal_scores(np.array([50.0, 1e-9]), 1000.0)).all()
    assert chi_square_p(np.zeros(10) + 10.0) < 1e-100


def test_calibration_coverage():
    """The stated relative error covers the true level: pulls over 60 seeds have unit spread."""
    pulls = []
    for k in range(60):
        shot, dark = white(2.5, 60_000, seed=2 * k), white(0.5, 60_000, seed=2 * k + 1)
        c = shot_noise(shot, shot, dark, 0.0, (1e5, 4e5))
        pulls.append((c.density / 2.0 - 1) / c.relative_sd)
    assert abs(np.mean(pulls)) < 4 / np.sqrt(60)
    assert 0.7 < np.std(pulls) < 1.4


def test_calibration_takes_the_band_where_the_shot_record_is_not_flat():
    from scipy import signal

    b, a = signal.butter(1, 0.3)
    shot = Record(signal.lfilter(b, a, white(3.0).source), 1e6)
    c = shot_noise(shot, shot, None, 0.0, (1e4, 3e4))
    assert "not flat" in c.warnings[0]
    gain = np.abs(signal.freqz(b, a, [2e4], fs=1e6)[1][0]) ** 2
    assert_allclose(c.density, 3.0 * gain, rtol=0.1)


def test_without_a_dark_record_the_experiments_electronics_are_used():
    c = shot_noise(white(2.2), white(2.2), None, 0.1, (1e5, 4e5))
    assert_allclose(c.density, 2.0, rtol=0.02)
    assert "no dark record" in c.warnings[-1]


def test_exchanged_references_are_noticed():
    with pytest.raises(InputError, match="exchanged"):
        shot_noise(white(), white(0.5), white(2.5), 0.0, (1e5, 4e5))


def test_references_must_be_taken_alike():
    with pytest.raises(InputError, match="sample rate"):
        shot_noise(white(), white(rate=2e6), None, 0.0, (1e5, 4e5))


def test_too_short_for_the_resolution():
    """The resolution is the one that was asked for, also where it is no whole number of raw bins."""
    with pytest.raises(
        InputError, match=r"too short for a resolution of 98.7 Hz: needs 81054 contiguous .*, has 1000$"
    ):
        averaged_spectrum(white(size=1000), 98.7)


def test_too_many_gaps_for_the_resolution(monkeypatch):
    """The longest stretch that the record has is named, across the pieces in which it is read."""
    from backaction.records import spectrum

    monkeypatch.setattr(spectrum, "_SEGMENT", 7000)
    gaps = tuple((start, start + 3000) for start in range(8000, 100_000, 10_000))
    record = Record(white(size=100_000).source, 1e6, gaps=gaps)
    words = r"resolution of 100 Hz: needs 80000 contiguous samples \(0.08 s\), its longest contiguous stretch has 8000 \(0.008 s\)"
    with pytest.raises(InputError, match=words):
        averaged_spectrum(record, 100.0)
