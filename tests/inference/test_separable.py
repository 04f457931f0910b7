"""The nearest separable model: closed forms, and a grid that knows nothing of gradients."""

from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from backaction import Prior
from backaction.inference.maximum import Maximum
from backaction.inference.parameter import Parameter
from backaction.inference.separable import nearest_separable


def problem(log_density, slope, u, H):
    """A target of two parameters and its maximum."""
    run = SimpleNamespace(gradient=lambda x: (log_density(x), slope(x)))
    size = len(u)
    target = SimpleNamespace(
        size=size, evaluator=lambda: run, labels=lambda: [f"p{i}" for i in range(size)], mixing=lambda: np.eye(size),
        parameters=[Parameter(f"p{i}", Prior(0.0, 1.0)) for i in range(size)], values=lambda u: u,
    )  # fmt: skip
    return target, Maximum(u, log_density(u), np.linalg.inv(np.linalg.cholesky(H)).T, H, 1)


@pytest.mark.parametrize("seed", range(5))
def test_gaussian_and_a_linear_boundary(seed):
    """Distance (1 - V)/sigma(V), at u + C g (1 - V)/(g C g)."""
    rng = np.random.default_rng(seed)
    size = 6
    A = rng.standard_normal((size, size))
    H = A @ A.T + np.eye(size)
    u, g, V = rng.standard_normal(size), rng.standard_normal(size), 0.8
    target, mode = problem(lambda x: -0.5 * (x - u) @ H @ (x - u), lambda x: -H @ (x - u), u, H)
    found = nearest_separable(target, mode, lambda x: V + (x - u) @ g - 1, "V >= 1")
    C = np.linalg.inv(H)
    assert_allclose(found.distance_sd, (1 - V) / np.sqrt(g @ C @ g), rtol=1e-4)
    there = u + C @ g * (1 - V) / (g @ C @ g)
    assert_allclose([found.sd_of[f"p{i}"] for i in range(size)], there, atol=1e-3)


def test_curved_boundary_and_density_against_a_grid():
    """A banana and a circle: the best of 4 million points."""

    def log_density(x):
        return -0.5 * (x[0] ** 2 + (2 * (x[1] - 0.3 * x[0] ** 2)) ** 2)

    def slope(x):
        d = x[1] - 0.3 * x[0] ** 2
        return np.array([-x[0] + 2.4 * x[0] * d, -4 * d])

    def margin(x):
        return (x[:, 0] - 0.5) ** 2 + (x[:, 1] + 0.2) ** 2 - 2.5

    target, mode = problem(log_density, slope, np.zeros(2), np.diag([1.0, 4.0]))
    found = nearest_separable(target, mode, margin, "circle")
    x, y = np.meshgrid(np.linspace(-4, 4, 2001), np.linspace(-3, 3, 2001))
    inside = margin(np.stack([x.ravel(), y.ravel()], axis=-1)).reshape(x.shape) >= 0
    best = np.max(np.where(inside, log_density((x, y)), -np.inf))
    assert_allclose(found.distance_sd, np.sqrt(-2 * best), rtol=5e-3)


def test_a_separable_fit_is_at_no_distance_and_nothing_found_is_said():
    target, mode = problem(lambda x: -0.5 * x @ x, lambda x: -x, np.zeros(2), np.eye(2))
    assert nearest_separable(target, mode, lambda x: 1 + 0 * x[:, 0], "PPT").distance_sd == 0.0
    blind = nearest_separable(target, mode, lambda x: -1 + 0 * x[:, 0], "PPT")
    assert np.isinf(blind.distance_sd)
    assert "no parameter" in blind.status
    far = nearest_separable(target, mode, lambda x: 1e-3 * x[:, 0] - 1, "PPT")
    assert "more than 40 sd" in far.status
    failed = nearest_separable(target, mode, lambda x: -1 / (1 + np.exp(3 * x[:, 0])), "PPT")  # never reaches 0
    assert np.isnan(failed.distance_sd)
    assert "failed" in failed.status
    blind = nearest_separable(target, mode, lambda x: np.full(len(x), np.nan), "PPT")
    assert np.isnan(blind.distance_sd)
