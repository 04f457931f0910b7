"""Readers of tables and spectra: real kinds of files, and what is asked for by name when a file does not say it."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import io

from backaction.calibration.linearity import power_of
from backaction.errors import InputError
from backaction.records.tables import read_table, to_spectrum
from backaction.records.welch import Welch, enbw
from support.reference import shared

FULL = dict(unit="V^2/Hz", sided="two", averages=100, window="hann", reference="V")


def write(tmp_path, text, name="x.csv", encoding="utf-8"):
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    return path


def test_latin1_metadata(tmp_path):
    path = write(
        tmp_path,
        "# Temperatur: 20 °C\n# Averages: 50\n# Unit: V^2/Hz\nf_kHz\tdichte µ\n1\t2\n2\t3\n",
        "x.txt",
        "latin-1",
    )
    t = read_table(path)
    assert t.attributes["averages"] == "50"
    assert t.attributes["temperatur"] == "20 °C"
    assert_allclose(t.axis(0, "Hz", ""), [1e3, 2e3])
    assert_allclose(t.column(1), [2, 3])


def test_parameters_in_the_header(tmp_path):
    path = write(tmp_path, "frequency (kHz)\\ phi (degrees),-40.7,0.0,12.43\n20,1,2,3\n21,4,5,6\n")
    t = read_table(path)
    assert [t.header_number(k) for k in (1, 2, 3)] == [-40.7, 0.0, 12.43]
    assert_allclose(t.axis(0, "Hz", ""), [20e3, 21e3])
    with pytest.raises(InputError, match="holds no number"):
        t.header_number(0)


def test_separators_and_exponents(tmp_path):
    for mark in (",", ";", "\t", "  "):
        t = read_table(write(tmp_path, f"1.0e3{mark}-2\n2D3{mark}.5\n", "x.dat"))
        assert_allclose(t.values, [[1e3, -2], [2e3, 0.5]])


def test_matlab_v5(tmp_path):
    f = np.arange(5.0)
    io.savemat(
        tmp_path / "x.mat", {"f_Hz": f, "S": np.column_stack([f + 1, f + 2]), "averages": 7.0, "unit": "SN"}, format="5"
    )
    t = read_table(tmp_path / "x.mat")
    assert t.names == ("f_Hz", "S[0]", "S[1]")
    assert_allclose(t.column("S[1]"), f + 2)
    s = to_spectrum(t, 2)
    assert s.averages == 7
    assert s.unit == "SN"


def test_hdf5_string_attributes(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["frequency_Hz"] = np.arange(1.0, 9.0)
        file["density"] = np.full(8, 2.0)
        file["response"] = np.full(8, 1 + 2j)
        file["density"].attrs["unit"] = np.bytes_("V^2/Hz")
        for k, v in (("sided", "one"), ("averages", 10), ("window", "Hanning"), ("reference", "V")):
            file.attrs[k] = v
    t = read_table(tmp_path / "x.h5")
    assert t.names == ("density", "frequency_Hz", "response.re", "response.im")
    assert t.attributes["unit"] == "V^2/Hz"
    both = read_table(f"{tmp_path / 'x.h5'}:density")
    assert both.values.shape == (8, 1)


def test_sr785_pair(tmp_path):
    """Data without a header, settings in a file of its own, in a folder `meta_data`: Vrms per bin becomes a density."""
    (tmp_path / "meta_data").mkdir()
    meta = "# SR785 Noise Measurement\n#Unit: Vrms\n#Number of Averages: 5000\n#Window function: BMH\n## Frequency(Hz) Disp1(Vrms) \n"
    write(tmp_path / "meta_data", meta, "300_301meta.dat", "latin-1")
    rows = "".join(f"{128.0 * k:.7e} {1e-6:.7e} \n" for k in range(20))
    t = read_table(write(tmp_path, rows, "300_301.dat"))
    s = to_spectrum(t)
    assert s.averages == 5000
    assert_allclose(s.density, 1e-12 / (128 * enbw("bmh")) / 2)
    assert power_of(t.name) == 300.5
    assert power_of("a/darknoise.dat") == 0
    assert power_of("a/run3_200mW.dat") == 200
    for name in ("a/noise.dat", "a/2021-05-04.dat", "a/run3.dat", "a/1mW_2mW.dat"):
        with pytest.raises(InputError, match="does not say one power"):
            power_of(name)


def test_windows_have_their_noise_bandwidth():
    """ENBW = N sum w^2/(sum w)^2 of SciPy's own windows."""
    from scipy.signal import get_window

    for ours, theirs in (
        ("hann", "hann"),
        ("hamming", "hamming"),
        ("bmh", "blackmanharris"),
        ("blackman", "blackman"),
        ("flattop", "flattop"),
    ):
        w = get_window(theirs, 4096)
        assert enbw(ours) == pytest.approx(4096 * np.sum(w * w) / np.sum(w) ** 2, rel=2e-3)


def test_units_and_sides(tmp_path):
    t = read_table(write(tmp_path, "f_Hz,S\n10,4\n20,4\n30,4\n"))
    assert_allclose(to_spectrum(t, 1, FULL).density, 4)
    assert_allclose(to_spectrum(t, 1, FULL | {"sided": "one"}).density, 2)
    assert_allclose(to_spectrum(t, 1, FULL | {"unit": "V/sqrt(Hz)"}).density, 16)
    assert_allclose(to_spectrum(t, 1, FULL | {"unit": "Vrms^2"}).density, 4 / 15)
    assert_allclose(to_spectrum(t, 1, {"unit": "dB", "averages": 3, "reference": "shot noise"}).density, 10**0.4)
    assert to_spectrum(t, 1, {"unit": "SN", "averages": 3}).unit == "SN"


@pytest.mark.parametrize("missing", sorted(FULL))
def test_what_is_missing_is_named(tmp_path, missing):
    t = read_table(write(tmp_path, "f_Hz,S\n10,4\n20,4\n30,4\n"))
    with pytest.raises(InputError, match=f"does not say {missing}: --given {missing}="):
        to_spectrum(t, 1, {k: v for k, v in FULL.items() if k != missing})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("f_Hz,S\n", "no lines of numbers"),
        ("f_Hz,S\n1,2\n2\n", "line 3: 1 columns"),
        ("f_Hz,S\n1,2\n2,abc\n", "line 3"),
        ("f_Hz,S\n1,2\n1,3\n", "must rise"),
        ("f_Hz,S\n1,2\n2,-3\n", "must be > 0"),
        ("f_Hz,S\n1,2\n2,nan\n", "not finite"),
        ("a,S\n1,2\n2,3\n", "unit of its column 0"),
    ],
)
def test_bad_tables(tmp_path, text, words):
    path = write(tmp_path, text)
    with pytest.raises(InputError, match=words) as error:
        to_spectrum(read_table(path), 1, FULL)
    assert "\n" not in str(error.value)
    assert "x.csv" in str(error.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"unit": "volts"}, "unit = 'volts'"),
        ({"sided": "three"}, "sided"),
        ({"window": "hannn"}, "did you mean 'hann'"),
        ({"averages": 0.5}, "averages = 0.5"),
    ],
)
def test_bad_words(tmp_path, given, words):
    t = read_table(write(tmp_path, "f_Hz,S\n10,4\n20,4\n30,4\n"))
    with pytest.raises(InputError, match=words):
        to_spectrum(t, 1, FULL | given)


def test_bad_files(tmp_path):
    for name, content, words in (
        ("x.mat", b"not a mat file at all", "MATLAB"),
        ("x.h5", b"nothing", "HDF5"),
        ("x.npz", b"nothing", "npz"),
        ("x.xlsx", b"nothing", "unknown kind"),
        ("y.csv", b"", "empty"),
        ("z.csv", b"\0\0\0", "not text"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=words):
            read_table(tmp_path / name)
    with pytest.raises(InputError, match="no such file"):
        read_table(tmp_path / "absent.csv")


def test_real_analyser_files():
    """Aggarwal 2020: SR785 pairs in latin-1, one of them without its meta file."""
    folder = shared("data/aggarwal2020/shot_noise/1349_1349.dat").parent
    s = to_spectrum(read_table(folder / "1349_1349.dat"))
    assert s.averages == 5000
    assert s.resolution_hz == pytest.approx(128.0)
    with pytest.raises(InputError, match="does not say unit"):
        to_spectrum(read_table(folder / "552_554.dat"), 1, {}, "Hz")
    one, two = (
        to_spectrum(read_table(folder / n), 1, {"sided": "one"}, "Hz").band(20e3, 30e3)
        for n in ("darknoise.dat", "304_303.dat")
    )
    assert np.median(one.density) < np.median(two.density)


def _periodograms(x, window):
    """One-sided density of each row, as an analyser makes it (SciPy's scaling), with the window's power in it."""
    w = window / np.sqrt(np.mean(window**2))
    return 2 * np.abs(np.fft.rfft(x * w)) ** 2 / x.shape[-1]


@pytest.mark.parametrize("name", ["hann", "hamming", "blackmanharris", "flattop"])
def test_correlation_of_bins(name):
    """The mean over 100 bins of windowed periodograms scatters by sqrt(correlation/(N bins)), not 1/sqrt(N bins)."""
    from scipy.signal import get_window

    rng = np.random.default_rng(1)
    x = rng.standard_normal((3000, 4, 512))
    levels = np.mean(_periodograms(x, get_window(name, 512))[..., 60:160], axis=(1, 2))
    claimed = np.sqrt(Welch("bmh" if name == "blackmanharris" else name).correlation / (4 * 100))
    assert np.std(levels) / np.mean(levels) == pytest.approx(claimed, rel=0.05)


@pytest.mark.parametrize("power", [0.25, 4.0, 100.0])
def test_error_of_a_tone(power):
    """A line on noise: its area scatters mostly by their interference, far more than the noise alone."""
    from backaction.calibration.mechanics import tone_scatter
    from backaction.records.tables import Table, to_spectrum

    rng = np.random.default_rng(2)
    n, averages = 512, 20
    window = np.hanning(n + 1)[:-1]
    t = np.arange(n)
    found, claimed = [], []
    for _ in range(150):
        phase = rng.uniform(0, 2 * np.pi, (averages, 1))
        x = rng.standard_normal((averages, n)) + np.sqrt(2 * power) * np.cos(2 * np.pi * 100 * t / n + phase)
        S = np.mean(_periodograms(x, window), axis=0)[1:-1]
        table_ = Table("x", ("f", "S"), np.column_stack([np.arange(1, n // 2) / n, S]))
        said = {"unit": "V^2/Hz", "sided": "one", "averages": averages, "window": "hann", "reference": "V"}
        s = to_spectrum(table_, 1, said, "Hz")
        bins = s.density[95:104]  # 100 is the line's; the noise is 1 in each
        found.append(2 / n * np.sum(bins - 1))
        claimed.append(2 / n * tone_scatter(bins, np.ones(9), s)[0])
    assert np.mean(found) == pytest.approx(power, rel=0.05)
    assert 0.6 < np.std(found) / np.mean(claimed) < 1.4
