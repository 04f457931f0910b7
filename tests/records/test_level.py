"""The level of a floor with lines on it: known truths, drawn or simulated; and the shot-noise unit that follows."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import signal, stats

from backaction import Record, read_record
from backaction.errors import InputError
from backaction.records.level import floor_level
from backaction.records.shot_level import shot_noise
from backaction.records.spectrum import Spectrum
from support.reference import shared

N = 2000


def drawn(case, averages, seed):
    """2000 Gamma bins of level 1 with what the case puts on them."""
    rng = np.random.default_rng(seed)
    y = rng.gamma(averages, 1 / averages, N)
    some = rng.choice(N, N // 5, replace=False)
    if case == "line":
        y[700:702] += 0.25 * N / 2 * rng.gamma(averages, 1 / averages, 2)
    elif case == "polluted":
        y[some] *= rng.uniform(1.3, 5.0, some.size)
    elif case == "weak":
        y[some] *= 1 + averages**-0.5
    elif case == "tilted":
        y *= np.exp(np.linspace(-0.3, 0.3, N))
    return Spectrum(np.arange(N) * 100.0 + 50, y, averages, 100.0, "V^2/Hz")


@pytest.mark.parametrize("averages", [50, 200])
@pytest.mark.parametrize(("case", "cost"), [("clean", 1.0), ("line", 1.0), ("polluted", 1.45), ("tilted", 1.0)])
def test_level_of_a_floor(case, cost, averages):
    """Truth 1: unbiased within 0.2 %, and the scatter is the stated error, 1/sqrt(n K) where nothing is lost by cutting."""
    found = [floor_level(drawn(case, averages, k), 1e5, case == "tilted") for k in range(16)]
    values = np.array([x.density for x in found])
    ideal = 1 / np.sqrt(N * averages)
    assert abs(np.mean(values) - 1) < (0.0025 if case == "polluted" else 4 * ideal / 4)
    sd = np.mean([x.relative_sd() for x in found])
    assert_allclose(sd, cost * ideal, rtol=0.05)
    assert 0.6 < np.std(values) / sd < 1.5
    assert np.mean([x.shape_p < 1e-3 for x in found]) < 0.1


def test_pollution_that_no_bin_shows_is_said():
    """A fifth of the bins raised by one sd lifts the level by 2.8 % (K = 50): the bins' distribution shows it, the error holds it."""
    found = [floor_level(drawn("weak", 50, k), 1e5) for k in range(12)]
    seen = [x for x in found if x.hidden]
    assert len(seen) >= 8
    assert all(abs(x.density - 1) < 3 * x.relative_sd() for x in seen)
    assert sum(bool(floor_level(drawn("clean", 50, k), 1e5).hidden) for k in range(12)) == 0


def test_the_cut_against_a_numerical_likelihood():
    """The maximum of SciPy's own truncated Gamma density, and its curvature."""
    from scipy import optimize

    y = drawn("polluted", 50, 3)
    found = floor_level(y, 1e5)
    kept = y.density[found.kept]
    cut = found.density * stats.gamma.ppf(0.9, 50, scale=1 / 50)

    def loss(level):
        law = stats.gamma(50, scale=level / 50)
        return -np.sum(law.logpdf(kept)) + kept.size * law.logcdf(cut)

    best = optimize.minimize_scalar(loss, bounds=(0.8, 1.2), method="bounded", options={"xatol": 1e-9}).x
    assert found.density == pytest.approx(best, abs=2e-5)
    h = 1e-3
    curvature = (loss(best * (1 + h)) - 2 * loss(best) + loss(best * (1 - h))) / h**2
    assert found.relative_sd() == pytest.approx(curvature**-0.5, rel=0.01)


def noise(density, seed, size=300_000, rate=1e6):
    return np.random.default_rng(seed).standard_normal(size) * np.sqrt(density * rate)


def unit_of(y, dark=None, band=(9e4, 1.1e5)):
    record = Record(y, 1e6, name="shot")
    return shot_noise(record, record, None if dark is None else Record(dark, 1e6, name="dark"), 0.0, band)


def test_a_line_with_a_quarter_of_the_bands_power():
    """1.000 +- 0.010, and the line is named: in the shot record and in the dark one."""
    t = np.arange(300_000) / 1e6
    pulls = []
    for k in range(4):
        line = np.sqrt(2 * 0.25 * 2 * 2.0 * 2e4) * np.sin(2 * np.pi * 101_234.0 * t)
        c = unit_of(noise(2.0, 2 * k) + line, noise(0.2, 2 * k + 1) + line)
        pulls.append((c.density / 1.8 - 1) / c.relative_sd)
        assert abs(c.density / 1.8 - 1) < 0.010
        for lines in (c.shot_lines, c.dark_lines):
            assert_allclose([x.frequency_hz for x in lines], 101_234.0, atol=500.0)
        assert any("lines of the shot record" in w and "101." in w for w in c.warnings)
        assert c.flat_p > 1e-3
    assert np.max(np.abs(pulls)) < 3


def test_a_tilted_shot_record_gives_a_tilted_unit():
    """Two samples' sum has the density 2 |1 + a e^iw|^2: within the band the unit follows it."""
    y = signal.lfilter([1.0, 0.05], [1.0], noise(2.0, 1))
    c = unit_of(y, band=(1e5, 4e5))
    f = np.array([1e5, 2.5e5, 4e5])
    truth = 2 * np.abs(1 + 0.05 * np.exp(-2j * np.pi * f / 1e6)) ** 2
    assert_allclose(c.at(f), truth, rtol=4 * c.relative_sd)
    assert c.relative_sd < 0.01
    assert any("over the band" in w for w in c.warnings)


def test_a_level_without_a_value_is_refused():
    b, a = signal.iirpeak(2.5e5, 3, fs=1e6)
    x = noise(2.0, 1)
    with pytest.raises(InputError, match="neither flat nor a slope: it varies by [0-9.]+ %"):
        unit_of(x + 0.6 * signal.lfilter(b, a, x), band=(1e5, 4e5))


def test_the_darks_own_structure_is_taken_out():
    """Electronic noise that falls by five over the band is in both records: their difference is the unit."""
    b, a = signal.butter(1, 0.02)
    pulls, said = [], []
    for k in range(5):
        shot, dark = (signal.lfilter(b, a, noise(20.0, 3 * k + i)) for i in (1, 2))
        c = unit_of(noise(2.0, 3 * k) + shot, dark, (5e3, 3e4))
        pulls.append((c.density / 2 - 1) / c.relative_sd)
        said.append(any("difference" in w for w in c.warnings))
    assert np.max(np.abs(pulls)) < 3.5
    assert sum(said) >= 2  # the others are short enough to look like slopes


def test_a_dark_record_without_noise():
    """A digitiser that resolves nothing of it: 1 SN is the shot record's level."""
    c = unit_of(noise(2.0, 1), np.zeros(300_000))
    assert (c.dark_sn, c.dark_lines) == (0.0, ())
    assert abs(c.density / 2 - 1) < 4 * c.relative_sd


@pytest.mark.parametrize("name", ["shot_with_line", "shot_polluted"])
def test_reference_records(name):
    """Records by another program, with their true level."""
    record = read_record(shared(f"data/currents/{name}.h5"))
    truth = json.loads(shared("data/currents/truths/currents_and_levels.json").read_text())["shot_records"][name]
    c = shot_noise(record, record, None, 0.0, (9e4, 1.1e5))
    ratio = c.density / truth["true_level_v2_per_hz_two_sided"]
    assert abs(ratio - 1) < min(3 * c.relative_sd, truth["allowed"])
    assert c.shot_lines
