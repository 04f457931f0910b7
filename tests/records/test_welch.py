"""Correlated bins of windowed periodograms: closed forms, exact expectations, and SciPy's own `welch` on simulated noise."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import signal, stats

from backaction.errors import InputError
from backaction.records.correlated import averages_conflict, correlated, correlated_p, correlation_matrix
from backaction.records.spectrum import Spectrum
from backaction.records.tables import Table, to_spectrum
from backaction.records.welch import Welch
from support.reference import shared


def test_closed_forms():
    """Hann 4/9, 1/36 and 35/18; rectangular windows padded by two sinc^2 at odd halves; a half overlap 1/(1 + 2/4)."""
    assert_allclose(Welch("hann", 100).neighbours, [4 / 9, 1 / 36], rtol=1e-9)
    assert Welch("hann", 100).correlation == pytest.approx(35 / 18, rel=1e-9)
    assert Welch("rectangular", 100).neighbours == ()
    padded = Welch("rectangular", 100, padding=2).neighbours
    assert_allclose(padded[:3], [(2 / np.pi) ** 2, 0.0, (2 / (3 * np.pi)) ** 2], atol=1e-5)
    assert Welch("rectangular", 1e9, 0.5).averages == pytest.approx(1e9 / 1.5, rel=1e-6)
    # a running mean over m independent bins: 1 - j/m
    assert_allclose(Welch("rectangular", 100, smoothing=4).neighbours, [0.75, 0.5, 0.25], atol=1e-12)
    assert Welch("rectangular", 100, smoothing=4).averages == pytest.approx(400)


def test_reference_table():
    """Effective averages, correlations and inflation by another program, 18 windows, overlaps and paddings."""
    table = json.loads(shared("physics/currents/numbers.json").read_text())["e"]["table"]
    for name, row in table.items():
        window, overlap, pad = name.split()
        w = Welch(window, row["segments"], float(overlap[8:]), float(pad[4:]))
        assert w.averages == pytest.approx(row["averages_effective"], rel=1e-5)
        near = np.pad(w.neighbours, (0, 5))[:5]
        assert_allclose(near, row["correlation_of_neighbours_1_to_5"], atol=1e-4)
        assert w.correlation == pytest.approx(row["variance_inflation_of_smooth_parameters"], rel=1e-3)


@pytest.mark.parametrize(("window", "overlap", "pad", "smooth"), [("hann", 0.5, 2, 1), ("flattop", 0.75, 1, 1), ("hamming", 0.5, 1, 3)])  # fmt: skip
def test_against_welch_of_white_noise(window, overlap, pad, smooth):
    rng = np.random.default_rng(1)
    L, segments, count = 64, 20, 2000
    hop = int(L * (1 - overlap))
    x = rng.standard_normal((count, L + hop * (segments - 1)))
    _, p = signal.welch(x, 1.0, window, L, L - hop, L * pad, detrend=False, return_onesided=False)
    p = p[:, 8 * pad : 24 * pad]
    p = np.apply_along_axis(np.convolve, 1, p, np.ones(smooth) / smooth, "valid") - 1
    c = [np.mean(p[:, k:] * p[:, : p.shape[1] - k]) for k in range(4)]
    w = Welch(window, segments, overlap, pad, smooth)
    assert 1 / c[0] == pytest.approx(w.averages, rel=0.03)
    assert_allclose(np.array(c[1:]) / c[0], w.neighbours[:3], atol=0.02)


@pytest.mark.parametrize(("width", "pad", "smooth"), [(0.5, 1, 1), (3.0, 1, 1), (3.0, 2, 3), (100.0, 1, 1)])
def test_a_line_as_the_window_sees_it(width, pad, smooth):
    """Against the exact expectation of Hann periodograms, sum_tau r(tau) (w*w)(tau) e^{i W tau}, with bins left out."""
    L, n = 256, 1 << 15

    def shape(f):
        return 1 + 30 / (1 + ((f - 60.3) / (width / 2)) ** 2)

    grid = np.fft.rfftfreq(n, 1 / L)  # in units of 1/L
    r = np.fft.irfft(shape(grid), n)
    w = signal.get_window("hann", L)
    both = np.correlate(w, w, "full") / np.sum(w**2)
    tau = np.arange(-L + 1, L)
    f = np.arange(30 * pad, 90 * pad) / pad
    exact = np.real(np.exp(2j * np.pi * np.outer(f, tau) / L) @ (r[tau] * both))
    if smooth > 1:
        exact, f = (np.convolve(x, np.ones(smooth) / smooth, "valid") for x in (exact, f))
    keep = np.arange(f.size) % 7 != 3
    s = Spectrum(f, exact, 10.0, f[1] - f[0], "SN", Welch("hann", 100, 0.5, pad, smooth))
    (seen,) = s.seen(lambda g: [shape(g)], f[keep], width)
    assert_allclose(seen, exact[keep], rtol=0.003)


def test_what_a_table_says_of_its_estimate():
    f = np.arange(1, 50) * 100.0
    t = Table("t.csv", ("frequency_Hz", "density"), np.column_stack([f, 1 + 0 * f]), {"unit": "SN"})
    told = {"averages": 200, "window": "hann", "overlap": 0.5, "padding": 2}
    s = to_spectrum(t, 1, told)
    assert s.averages == pytest.approx(189.52, rel=1e-4)
    assert s.correlation == pytest.approx(3.9995, rel=1e-3)
    s = to_spectrum(t, 1, {"averages": 302.3, "segments": 319, "window": "hann", "overlap": 0.5})
    assert (s.averages, s.correlation) == (302.3, pytest.approx(1.9997, rel=1e-3))
    assert to_spectrum(t, 1, {"averages": 200}).correlation == 1
    # a level per bin is that of the unpadded bin width
    power = Table("t.csv", t.names, t.values, {"unit": "Vrms^2", "sided": "two", "reference": "V"})
    assert_allclose(to_spectrum(power, 1, told).density, 1 / (100 * 2 * 1.5))
    with pytest.raises(InputError, match=r"overlap = 50: must be from 0 to 0.95"):
        to_spectrum(t, 1, told | {"overlap": 50})
    with pytest.raises(InputError, match=r"window = '': unknown.*overlap needs one"):
        to_spectrum(t, 1, {"averages": 20, "overlap": 0.5})
    # merged bins count as their mean scatters
    merged = to_spectrum(t, 1, told).coarser(800.0)
    assert merged.averages == pytest.approx(8 * 189.52 / 3.9995, rel=1e-3)
    assert merged.correlation == 1


def test_the_deviance_of_correlated_bins_against_dense_matrices():
    """Mean and variance of z^T z left by a fit, tr W D and 2 tr (W D)^2, with a gap, two kinds of blocks and a prior."""
    rng = np.random.default_rng(0)
    places = np.delete(np.arange(40), [7, 8, 21])
    rho = (0.46, 0.04)
    R = np.array([[1.0 if a == b else dict(enumerate((0, *rho))).get(abs(a - b), 0.0) for a in places] for b in places])
    order = rng.permutation(37)
    assert_allclose(correlation_matrix(places[order], rho).toarray(), R[np.ix_(order, order)])
    v = 1 + 2 * sum(rho)
    U = np.linalg.qr(rng.standard_normal((37 + 20 + 2, 4)))[0]
    G, (mean, variance) = correlated([(37, v, correlation_matrix(places, rho)), (20, 1.0, None)], U)
    T, D = np.eye(59), np.eye(59)
    T[:37, :37] = R / v
    D[:37, :37] *= v
    A = np.eye(59) - U @ U.T
    assert_allclose(G, U.T @ T @ U, atol=1e-12)
    assert_allclose([mean, variance], [np.trace(A @ T @ A @ D), 2 * np.trace(A @ T @ A @ D @ A @ T @ A @ D)])


def test_stated_averages_against_the_bins():
    """Normal scores of known correlation: their sum of squares has the right p; no conflict where it is stated, one with numbers and reason where it is not."""
    n = 300
    for kernel in ([1.0], [1.0, 0.6], [1.0, 3.0, 3.0, 1.0]):
        h = np.array(kernel) / np.linalg.norm(kernel)
        rho = tuple(np.correlate(h, h, "full")[h.size :])
        white = np.random.default_rng(4).standard_normal((n + h.size - 1, 60))
        z = np.apply_along_axis(np.convolve, 0, white, h, "valid")
        said = [averages_conflict(z[:, k], np.arange(n), rho, 100.0) for k in range(60)]
        assert sum(map(bool, said)) <= 1
        assert stats.kstest([correlated_p(x, rho) for x in z.T], "uniform").pvalue > 1e-3
        level = z - np.mean(z, axis=0)
        assert stats.kstest([correlated_p(x, rho, 1) for x in level.T], "uniform").pvalue > 1e-3
        smooth = 3 * np.sin(np.arange(n) / 40)[:, None]  # a misfit is not a conflict
        assert sum(bool(averages_conflict(x, np.arange(n), rho, 100.0)) for x in (z + smooth).T) <= 2
        if rho:
            said = [averages_conflict(z[:, k], np.arange(n), (), 100.0) for k in range(60)]
            assert all("100 averages are stated" in x and "not stated?" in x for x in said)
        twice = [averages_conflict(2**0.5 * z[:, k], np.arange(n), rho, 100.0) for k in range(60)]
        assert np.mean([bool(x) for x in twice]) > 0.9
        assert any("overlapping periodograms counted" in x for x in twice)
