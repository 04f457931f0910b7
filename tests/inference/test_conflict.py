"""Conflicts of data and priors, judged by the chance of so many looks; against closed forms and simulation."""

from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from backaction import Prior
from backaction.inference.conflict import conflict
from backaction.inference.maximum import Maximum
from backaction.inference.parameter import Parameter
from backaction.inference.samplers import Draws
from backaction.records.statistics import normal_p


def linear(F, t, score, draws=4000, seed=0, parameters=None, values=lambda u: u, slope=1.0):
    """The posterior of data whose log-likelihood is quadratic: information F, true coordinates t, score of the noise."""
    size = len(F)
    C = np.linalg.inv(F + np.eye(size))
    u = C @ (F @ t + score)
    root = np.linalg.cholesky(C)
    mode = Maximum(u, 0.0, root, F + np.eye(size), 1)
    drawn = u + np.random.default_rng(seed).standard_normal((4, draws // 4, size)) @ root.T
    target = SimpleNamespace(
        size=size, labels=lambda: [f"p{i}" for i in range(size)], mixing=lambda: np.eye(size),
        parameters=parameters or [Parameter(f"p{i}", Prior(0.0, 1.0)) for i in range(size)],
        values=values, slopes=lambda u: slope * np.eye(size),
    )  # fmt: skip
    return conflict(target, mode, Draws(drawn, np.zeros(drawn.shape[:2]), "nuts", 0))


def test_largest_of_sixteen():
    """Sidak: 5.8 sd of 16 is p = 1e-7; p = 1e-3 lies at 4.0 sd."""
    assert_allclose(normal_p(5.8, 16), 1.06e-7, rtol=0.01)
    assert_allclose(normal_p(3.998, 16), 1e-3, rtol=0.03)
    assert_allclose(normal_p(-1.96), 0.05, rtol=1e-3)
    assert normal_p(0.0, 3) == 1.0


def test_pull_of_one_calibration_in_closed_form():
    """Two measurements of one number: prior 0 +- 1, data x +- s: the conflict is x/sqrt(1 + s^2)."""
    s, x = 0.3, 4.2
    found = linear(np.array([[1 / s**2]]), np.array([x]), np.zeros(1))
    # the mean of the draws errs by its Monte Carlo error
    assert abs(found.pulls["p0"] - x / np.hypot(1, s)) < 5 * found.errors["p0"]
    assert_allclose(found.errors["p0"], s / np.hypot(1, s) / np.sqrt(4000) * np.hypot(1, s), rtol=0.15)


def test_one_wrong_of_many_is_not_diluted():
    """5.8 sd of one of 16 whose others are close: 2e-3 in the sum of squares, 2e-7 by itself (32 looks)."""
    t = np.full(16, 0.5)
    t[5] = 5.8
    overall, single = linear(1e4 * np.eye(16), t, np.zeros(16)).checks()
    assert overall.passed
    assert_allclose(overall.p, stats.chi2.sf(5.8**2 + 15 * 0.25, 16), rtol=0.01)
    assert not single.passed
    assert_allclose(single.p, 32 * 2 * stats.norm.sf(5.8), rtol=0.05)
    assert "p5" in single.sentence


def test_a_range_is_no_calibration():
    """A value at the very end of a uniform prior contradicts nothing; a normal one beside it does."""
    parameters = [Parameter("p0", Prior(lower=0.0, upper=1.0)), Parameter("p1", Prior(0.0, 1.0))]
    found = linear(1e4 * np.eye(2), np.array([-6.0, 2.0]), np.zeros(2), parameters=parameters)
    assert found.pulls["p0"] == 0.0
    assert_allclose(found.pulls["p1"], 2.0, rtol=0.01)
    assert found.scores.size == 1


def test_half_normal_excess_conflicts_by_too_much_only():
    parameters = [Parameter("p0", Prior(0.0, 1.0, lower=0.0))]
    assert linear(np.array([[1e4]]), np.array([-5.0]), np.zeros(1), parameters=parameters).pulls["p0"] == 0.0
    assert linear(np.array([[1e4]]), np.array([5.0]), np.zeros(1), parameters=parameters).pulls["p0"] > 4.9


def test_heavy_tails_do_not_hide_a_conflict():
    """20 stated sd are 4.1 in the normal score of a Student-t prior; the conflict says 20."""
    robust = Parameter("p0", Prior(0.0, 1.0), robust=True)
    u = float(robust.score(20.0))
    assert u < 4.2
    found = linear(
        np.array([[1e4]]), np.array([u]), np.zeros(1), parameters=[robust], values=robust.value,
        slope=(robust.value(u + 1e-4) - robust.value(u - 1e-4)) / 2e-4,
    )  # fmt: skip
    assert found.pulls["p0"] > 15


@pytest.mark.parametrize("size", [3, 12])
def test_right_models_conflict_as_often_as_stated(size):
    """Truths from the priors, noise from the data's own law: both p-values are uniform (800 posteriors)."""
    rng = np.random.default_rng(size)
    p = []
    for k in range(800):
        J = rng.standard_normal((size, size)) * 10 ** rng.uniform(-1, 1, size)
        F = J @ J.T
        score = J @ rng.standard_normal(size)
        found = linear(F, rng.standard_normal(size), score, draws=8000 if k < 3 else 64 * 4, seed=k)
        p.append([t.p for t in found.checks()])
    p = np.array(p)
    assert np.mean(p[:, 0] < 0.05) < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 800)
    # the looks are correlated (calibrations and directions): Sidak counts too many, never too few
    assert np.mean(p[:, 1] < 0.05) < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 800)
    assert stats.binomtest(int(np.sum(p[:, 0] < 0.5)), 800, 0.5).pvalue > 1e-4
