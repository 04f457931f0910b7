"""The fitting core: closed forms of linear least squares, Gamma likelihoods, bounds, priors, and what it refuses."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import signal, stats

from backaction.calibration.fitting import Averaged, Gaussian, Relative, Unknown, fit
from backaction.errors import InputError, ModelError
from backaction.records.spectrum import Spectrum
from backaction.records.welch import Welch

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"

seeds = st.integers(0, 10**6)


@given(seeds, st.integers(2, 5), st.booleans())
def test_linear_model_is_the_normal_equations(seed, size, prior):
    """Values, covariance and deviance of a linear model with unequal errors, with and without priors, to 1e-7."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((30, size)) * 10.0 ** rng.integers(-3, 4, size)
    sd = rng.uniform(0.1, 2.0, 30)
    truth = rng.standard_normal(size)
    y = X @ truth + sd * rng.standard_normal(30)
    known = [(0.3, 0.7) if prior and k == 0 else None for k in range(size)]
    unknowns = [Unknown(f"x{k}", 0.0, 1.0, prior=known[k]) for k in range(size)]
    found = fit(lambda v: [X @ np.array(list(v.values()))], [Gaussian(y, sd)], unknowns)
    F = (X / sd[:, None] ** 2).T @ X
    b = X.T @ (y / sd**2)
    if prior:
        F[0, 0] += 1 / 0.49
        b[0] += 0.3 / 0.49
    V = np.linalg.inv(F)
    best = V @ b
    scale = np.sqrt(np.diag(V))
    assert_allclose(found.best, best, atol=1e-6 * np.max(scale), rtol=1e-7)
    assert_allclose(found.covariance / np.outer(scale, scale), V / np.outer(scale, scale), atol=1e-6)
    deviance = np.sum(((y - X @ best) / sd) ** 2) + (((best[0] - 0.3) / 0.7) ** 2 if prior else 0.0)
    assert found.deviance == pytest.approx(deviance, rel=1e-8)
    assert found.dof == 30 + prior - size
    assert found.p == pytest.approx(stats.chi2.sf(deviance, found.dof), rel=1e-6)


@given(seeds, st.floats(5, 500))
def test_averaged_is_the_gamma_likelihood(seed, averages):
    """The maximum of SciPy's Gamma density of a two-parameter line, and its Fisher errors; the deviance is that of the density."""
    rng = np.random.default_rng(seed)
    x = np.linspace(0, 1, 60)
    y = (2 + 3 * x) * rng.gamma(averages, 1 / averages, 60)
    found = fit(
        lambda v: [v["a"] + v["b"] * x], [Averaged(y, averages)], [Unknown("a", 1.0, 0.1), Unknown("b", 1.0, 0.1)]
    )

    def log_density(a, b):
        return np.sum(stats.gamma.logpdf(y, averages, scale=(a + b * x) / averages))

    top = log_density(found["a"], found["b"])
    for name in ("a", "b"):
        for step in (-0.03, 0.03):
            moved = {k: found[k] + (step * found.sd(k) if k == name else 0.0) for k in ("a", "b")}
            assert log_density(**moved) < top
    mu = found["a"] + found["b"] * x
    assert found.deviance == pytest.approx(
        2 * (np.sum(stats.gamma.logpdf(y, averages, scale=y / averages)) - top), rel=1e-6
    )
    J = np.sqrt(averages) * np.column_stack([np.ones(60), x]) / mu[:, None]
    assert_allclose(found.covariance, np.linalg.inv(J.T @ J), rtol=1e-5)


def test_weights_from_the_data_would_bias():
    """A level of averaged periodograms: ours is the mean; weights 1/y^2 give -2/N, as the notes say."""
    rng = np.random.default_rng(1)
    y = rng.gamma(20, 1 / 20, 20000)
    found = fit(lambda v: [v["s"] * np.ones(y.size)], [Averaged(y, 20.0)], [Unknown("s", 0.5, 0.1)])
    assert found["s"] == pytest.approx(np.mean(y), rel=1e-9)
    assert np.sum(1 / y) / np.sum(1 / y**2) - 1 == pytest.approx(-2 / 20, abs=0.02)
    relative = 1 + 0.2 * rng.standard_normal(20000)
    found = fit(lambda v: [v["s"] * np.ones(y.size)], [Relative(relative, 0.2)], [Unknown("s", 0.5, 0.1)])
    assert found["s"] == pytest.approx(np.mean(relative), rel=1e-6)  # not 1 + 0.04


def test_complex_data_count_twice():
    rng = np.random.default_rng(2)
    z = (1 + 2j) * np.ones(50) + 0.1 * (rng.standard_normal(50) + 1j * rng.standard_normal(50))
    found = fit(
        lambda v: [(v["a"] + 1j * v["b"]) * np.ones(50)],
        [Gaussian(z, 0.1)],
        [Unknown("a", 0.0, 1.0), Unknown("b", 0.0, 1.0)],
    )
    assert found.dof == 98
    assert_allclose([found["a"], found["b"]], [z.real.mean(), z.imag.mean()], rtol=1e-8)
    assert found.sd("a") == pytest.approx(0.1 / np.sqrt(50), rel=1e-6)


def test_bounds_are_said_and_errors_conditional():
    x = np.linspace(0, 1, 20)
    y = 1.0 - 0.3 * x
    found = fit(
        lambda v: [v["a"] + v["b"] * x], [Gaussian(y, 0.1)], [Unknown("a", 0.5, 0.1), Unknown("b", 0.5, 0.1, lower=0.0)]
    )
    assert found.at_bound == ("b",)
    assert found.sd("b") == 0
    assert found["a"] == pytest.approx(y.mean(), rel=1e-6)
    assert found.sd("a") == pytest.approx(0.1 / np.sqrt(20), rel=1e-6)
    assert found.correlation("a", "b") == 0


def test_derived_errors():
    rng = np.random.default_rng(3)
    x = np.linspace(1, 2, 40)
    y = 3 * x**2 + 0.01 * rng.standard_normal(40)
    found = fit(lambda v: [v["a"] * x ** v["n"]], [Gaussian(y, 0.01)], [Unknown("a", 1.0, 0.1), Unknown("n", 1.0, 0.1)])
    values, V = found.derived({"product": lambda v: v["a"] * v["n"], "a": lambda v: v["a"]})
    g = np.array([found["n"], found["a"]])
    assert values[0] == pytest.approx(found["a"] * found["n"])
    assert V[0, 0] == pytest.approx(g @ found.covariance @ g, rel=1e-5)
    assert V[1, 1] == pytest.approx(found.sd("a") ** 2, rel=1e-6)


def test_a_second_start_is_tried():
    """cos(w t) from far away: the first search ends in a wrong minimum, another start describes the data."""
    t = np.linspace(0, 10, 300)
    y = np.cos(5.0 * t)
    model = lambda v: [np.cos(v["w"] * t)]
    alone = fit(model, [Gaussian(y, 0.01)], [Unknown("w", 2.0, 0.1)])
    assert alone.p < 1e-6
    found = fit(model, [Gaussian(y, 0.01)], [Unknown("w", 2.0, 0.1)], [{"w": 3.0}, {"w": 4.9}])
    assert found["w"] == pytest.approx(5.0, rel=1e-6)


def test_refusals():
    x = np.linspace(0, 1, 10)
    a, b = Unknown("a", 0.0, 1.0), Unknown("b", 0.0, 1.0)
    with pytest.raises(InputError, match="not finite"):
        fit(lambda v: [v["a"] * x], [Gaussian(np.append(x[1:], np.nan), 1.0)], [a])
    with pytest.raises(InputError, match="in dB"):
        fit(lambda v: [v["a"] + x], [Averaged(x - 0.5, 10)], [a])
    with pytest.raises(InputError, match="1 data for 2 unknowns"):
        fit(lambda v: [np.array([v["a"] + v["b"]])], [Gaussian(np.array([1.0]), 1.0)], [a, b])
    with pytest.raises(ModelError, match="do not depend on 'b'"):
        fit(lambda v: [v["a"] * x], [Gaussian(x, 1.0)], [a, b])
    with pytest.raises(ModelError, match="leave a combination of a, b open|combination of b, a open"):
        fit(lambda v: [(v["a"] + v["b"]) * x], [Gaussian(x, 1.0)], [a, b])


@pytest.mark.parametrize("pad", [1, 2])
def test_correlated_bins_of_welch(pad):
    """A line of 8 bins in coloured noise through SciPy's `welch` (Hann, half overlap): errors, p-values, averages are right.

    As independent bins the pulls would scatter by 1.41 (2.0 padded): 52 % (38 %) instead of 68 %.
    """
    L, segments, count = 256, 199, 200 if LONG else 10
    n = L // 2 * (segments + 1)
    grid = np.fft.rfftfreq(2 * n, 1 / L)
    truth = {"floor": 1.0, "height": 5.0, "centre": 64.0, "width": 8.0}
    unknowns = [Unknown(k, v, 0.1 * v if k != "centre" else 0.3, lower=v / 3) for k, v in truth.items()]

    def shape(v, f):
        return v["floor"] + v["height"] / (1 + ((f - v["centre"]) / (v["width"] / 2)) ** 2)

    pulls, ps, said = [], [], 0
    for k in range(count):
        white = np.fft.rfft(np.random.default_rng(k).standard_normal(2 * n))
        x = np.fft.irfft(white * np.sqrt(shape(truth, grid)))[:n]
        f, p = signal.welch(x, L, "hann", L, L // 2, L * pad, detrend=False, return_onesided=False)
        inside = (f >= 10) & (f <= 118)
        w = Welch("hann", segments, 0.5, pad)
        s = Spectrum(f[inside], p[inside] * L, w.averages, 1 / pad, "SN", w)
        found = fit(
            lambda v, s=s: s.seen(lambda g: [shape(v, g)], s.frequency_hz, v["width"]), [Averaged.of(s)], unknowns
        )
        pulls.append([(found[k] - t) / found.sd(k) for k, t in truth.items()])
        ps.append(found.p)
        said += bool(found.conflicts)
    pulls = np.array(pulls)
    size = 1 / np.sqrt(pulls.size)
    assert abs(np.mean(np.abs(pulls) < 1) - 0.683) < 4 * 0.466 * size
    assert abs(np.std(pulls) - 1) < 3 * size
    assert np.mean(np.array(ps) < 1e-3) <= (0.015 if LONG else 0.0)
    assert stats.kstest(ps, "uniform").pvalue > 1e-3
    assert said <= (2 if LONG else 0)
