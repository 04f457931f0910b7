"""Simulated records: laws, drifts, starts, converters, files; each statistic against the model's own closed form."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from backaction import Experiment, GaussianState, Homodyne, SpinOscillator
from backaction.errors import InputError
from backaction.numerics.matrix_equations import discrete_lyapunov
from backaction.records.formats import read_record
from backaction.records.formats.hdf5 import RecordFile
from backaction.records.simulation import VOLT_DENSITY, Adc, ramp, reference, simulate
from backaction.records.spectrum import averaged_spectrum
from backaction.records.statistics import chi_square_p, gamma_normal_scores
from backaction.systems.sampled import discretise


@pytest.fixture(scope="module")
def spin():
    element = SpinOscillator(name="s", larmor_hz=-1e5, intrinsic_linewidth_hz=2e3, readout_rate_hz=5e3, occupation=2.0)
    return Experiment([element, Homodyne(name="d", electronic_noise_sn=0.2)])


def test_samples_are_the_same_with_and_without_paths(spin):
    a, b = (simulate(spin, 0.1, 1e6, 3, paths=p).record.source for p in (False, True))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, simulate(spin, 0.1, 1e6, 4).record.source)


def test_a_longer_record_begins_like_a_shorter_one(spin):
    a, b = (simulate(spin, T, 1e6, 3).record.source for T in (0.1, 0.25))
    assert np.array_equal(a, b[: a.size])


def test_neighbouring_blocks_are_independent(spin):
    """The random numbers of each block of 2^16 have a seed of their own: no correlation across the seam."""
    y = np.stack([simulate(spin, 0.14, 1e6, s).record.source for s in range(300)])
    m = discretise(spin.system, 1e6)
    V = discrete_lyapunov(m.F, m.Q)
    seam = 1 << 16
    c0 = (m.H @ V @ m.H.T + m.R)[0, 0]
    c1 = (m.H @ (m.F @ V @ m.H.T + m.N))[0, 0]
    scale = VOLT_DENSITY / 0.5
    assert_allclose(np.mean(y[:, seam - 1] * y[:, seam]) / scale, c1, atol=5 * c0 / np.sqrt(300))
    assert abs(np.mean(y[:, 1000] * y[:, 1000 + seam])) / scale < 5 * c0 / np.sqrt(300)


@pytest.mark.parametrize(("sampling", "corners"), [("average", ()), ("instantaneous", (3e5,)), ("average", (2e5, 3e5))])
def test_the_spectrum_is_the_models(spin, sampling, corners):
    record = simulate(spin, 1.0, 1e6, 5, sampling, front_end_hz=corners).record
    s = averaged_spectrum(record, 500.0)
    ratio = s.density / VOLT_DENSITY / discretise(spin.system, *record.digitiser).spectrum(s.frequency_hz)
    assert chi_square_p(gamma_normal_scores(ratio, s.averages)) > 1e-3


def test_a_start_of_its_own(spin):
    """Squeezed at t = 0: variances over many seeds after one interval are F V F^T + Q."""
    start = GaussianState(np.diag([0.1, 2.5]), ("s",))
    ends = np.stack([simulate(spin, 4e-6, 1e6, s, paths=True, start=start).paths[0] for s in range(4000)])
    m = discretise(spin.system, 1e6)
    assert_allclose(np.cov(ends.T), m.F @ start.covariance @ m.F.T + m.Q, atol=5 * 2.5 / np.sqrt(2000))


def test_parameters_that_drift(spin):
    """A ramp of the Larmor frequency moves the line of each quarter; a switch at a sample inside a block is exact."""
    schedule = ramp(spin, [("s.larmor_hz", -1.0e5, -1.4e5)], 1.0, 100)
    record = simulate(spin, 1.0, 1e6, 2, schedule=schedule).record
    for quarter in range(4):
        s = averaged_spectrum(record.part(quarter * 250_000, (quarter + 1) * 250_000), 2000.0).band(8e4, 1.6e5)
        expected = 1e5 + 4e4 * (quarter + 0.5) / 4
        weight = np.maximum(s.density / np.median(s.density) - 2, 0)
        assert abs(np.sum(weight * s.frequency_hz) / np.sum(weight) - expected) < 4e3
    quiet = spin.with_values({"s.readout_rate_hz": 0.0})
    y = simulate(spin, 0.2, 1e6, 2, schedule=[(0.1000005, quiet)]).record.source
    same = simulate(spin, 0.2, 1e6, 2).record.source
    assert np.array_equal(y[:100_000], same[:100_000])
    assert not np.array_equal(y[100_001:100_100], same[100_001:100_100])
    level = 1.2 * VOLT_DENSITY * 1e6
    assert_allclose(np.var(y[101_000:]), level, rtol=5 * np.sqrt(2 / 99_000))


def test_converter_rounds_and_clips(spin):
    volts = simulate(spin, 0.05, 1e6, 1).record.source
    for bits, kind in ((8, np.int8), (12, np.int16), (16, np.int16), (24, np.int32)):
        adc = Adc(bits, 0.05)
        made = simulate(spin, 0.05, 1e6, 1, adc=adc).record
        assert made.source.dtype == kind
        assert made.limits == (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        inside = np.abs(volts) < 0.049
        assert np.max(np.abs(made.values()[inside] - volts[inside])) <= 0.5001 * adc.step_v
        assert set(np.sign(made.source[np.abs(volts) > 0.051])) <= {-1, 1}
    for bits, volt in ((1, 1.0), (40, 1.0), (12, 0.0)):
        with pytest.raises(InputError, match="ADC"):
            Adc(bits, volt)


def test_a_record_that_is_written_while_it_is_made(spin, tmp_path):
    there = simulate(spin, 0.3, 1e6, 1, adc=Adc(16, 0.1)).record
    file = tmp_path / "r.h5"
    with RecordFile(file, there, there.size, there.source.dtype, {"seed": 1}) as sink:
        made = simulate(spin, 0.3, 1e6, 1, adc=Adc(16, 0.1), sink=sink)
        assert not file.exists()
    assert made.records == ()
    again = read_record(file)
    assert np.array_equal(again.source[...], there.source)
    assert (again.scale, again.limits, again.sampling) == (there.scale, there.limits, there.sampling)


def test_a_simulation_that_fails_leaves_no_file(spin, tmp_path):
    class Stop(Exception):
        pass

    def stop(part):
        raise Stop

    like = simulate(spin, 0.001, 1e6, 1).record
    with pytest.raises(Stop), RecordFile(tmp_path / "r.h5", like, 300_000, np.dtype(float), {}) as sink:
        simulate(spin, 0.3, 1e6, 1, sink=sink, progress=stop)
    assert not list(tmp_path.iterdir())


def test_complex_records_read_back(spin, tmp_path):
    from backaction.records.formats.hdf5 import write_hdf5

    made = simulate(spin, 0.02, 1e5, 1, sampling="instantaneous", front_end_hz=(2e4,), reference_hz=9.9e4).record
    write_hdf5(tmp_path / "z.h5", made, {}, {})
    again = read_record(tmp_path / "z.h5")
    assert again.is_complex
    assert (again.reference_hz, again.front_end_hz) == (9.9e4, (2e4,))
    assert_allclose(again.values(), made.values(), rtol=1e-6, atol=1e-9)


def test_complex_spectrum_is_the_currents_about_its_reference(spin):
    """Averages of y e^{-iwt}: the continuous spectrum about the reference, folded by the interval's sinc^2."""
    from backaction import budget

    made = simulate(spin, 2.0, 1e5, 1, reference_hz=9.9e4).record
    s = averaged_spectrum(made, 500.0).band(8e4, 1.2e5)
    k = np.arange(-400, 401)
    far = budget(spin.system, [1e13]).total[0]
    g = s.frequency_hz[:, None] + k * 1e5
    spectrum = budget(spin.system, np.abs(g).ravel()).total.reshape(g.shape) - far
    expected = far + np.sum(np.sinc((g - 9.9e4) / 1e5) ** 2 * spectrum, axis=1)
    assert chi_square_p(gamma_normal_scores(s.density / VOLT_DENSITY / expected, s.averages)) > 1e-3


def test_reference_records_are_taken_alike(spin):
    shot = reference("shot", spin, 0.5, 1e6, 1, "instantaneous", (1e5,))
    assert shot.front_end_hz == (1e5,)
    assert_allclose(np.var(shot.source), 1.2 * VOLT_DENSITY * 2 * np.pi * 1e5 / 2, rtol=0.02)
    counted = reference("dark", spin, 0.1, 1e6, 1, adc=Adc(14, 0.1))
    assert counted.source.dtype == np.int16
    assert_allclose(np.var(counted.values()), 0.2 * VOLT_DENSITY * 1e6, rtol=0.03)
    with pytest.raises(InputError, match="'shot' or 'dark'"):
        reference("light", spin, 0.1, 1e6, 1)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"seed": -1}, "seed"),
        ({"duration_s": 0.0}, "fewer than two samples"),
        ({"sample_rate_hz": -1.0}, "sample rate"),
        ({"schedule": [(-1.0, None)]}, "times must be positive"),
        ({"adc": Adc(), "reference_hz": 1e5}, "leave out the reference"),
    ],
)
def test_refusals(spin, options, word):
    given = {"duration_s": 0.01, "sample_rate_hz": 1e6, "seed": 0} | options
    if given.get("schedule"):
        given["schedule"] = [(t, spin) for t, _ in given["schedule"]]
    with pytest.raises(InputError, match=word):
        simulate(spin, **given)
