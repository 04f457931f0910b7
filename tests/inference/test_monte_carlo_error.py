"""The Monte Carlo error of the conflict number: what many independent runs scatter by."""

import numpy as np
import pytest

from backaction.inference.diagnostics import monte_carlo_error


def chains(rng, runs, draws, memory, mean, sd):
    """First-order autoregressive chains (runs, 2, draws) with that stationary law."""
    x = np.empty((runs, 2, draws))
    x[..., 0] = rng.standard_normal((runs, 2))
    for t in range(1, draws):
        x[..., t] = memory * x[..., t - 1] + np.sqrt(1 - memory**2) * rng.standard_normal((runs, 2))
    return mean + sd * x


@pytest.mark.parametrize(
    ("memory", "mean", "sd"), [(0.0, -1.5, 0.85), (0.8, -1.5, 0.6), (0.8, 0.1, 0.3), (-0.4, 3.0, 0.6)]
)
def test_runs_scatter_by_it(memory, mean, sd):
    rng = np.random.default_rng(0)
    x = chains(rng, 400, 500, memory, mean, sd)
    z = np.mean(x, axis=(1, 2)) / np.sqrt(1 - np.var(x, axis=(1, 2)))
    claimed = [monte_carlo_error(run[..., None])[0] for run in x[:60]]
    assert np.mean(claimed) == pytest.approx(np.std(z), rel=0.12)


def test_of_skewed_draws_and_of_none():
    """Mean and variance of skewed draws move together; a parameter that is not drawn, or wider than its prior, has no number."""
    rng = np.random.default_rng(1)
    x = -2.0 + 0.5 * (rng.exponential(size=(400, 2, 500)) - 1)
    z = np.mean(x, axis=(1, 2)) / np.sqrt(1 - np.var(x, axis=(1, 2)))
    claimed = [monte_carlo_error(run[..., None])[0] for run in x[:60]]
    assert np.mean(claimed) == pytest.approx(np.std(z), rel=0.12)
    both = np.stack([np.ones((2, 500)), 3 * rng.standard_normal((2, 500)), x[0]], axis=-1)
    assert list(np.isfinite(monte_carlo_error(both))) == [False, False, True]
