"""Evidence of a model: the integral of prior times likelihood, by bridge sampling between draws and a Gaussian."""

from __future__ import annotations

import numpy as np

from backaction.inference.samplers import Draws, log_densities
from backaction.inference.target import Target
from backaction.numerics.matrices import Array


def log_evidence(target: Target, draws: Draws, seed: int = 0, fine: Target | None = None) -> tuple[float, float]:
    """Ln of the evidence p(data) and its standard error, by bridge sampling against a Gaussian (Meng, Wong 1996).

    Where `target` looks at merged bins, which depend on the model, `fine` is the one of all bins: the evidence of the data
    is then Z_fine = Z <L_fine/L> over the draws, so that models may be compared.

    The prior is normalised in u, so that the posterior density's own constant is the evidence; differences between
    campaigns of the same data are log Bayes factors. Half of the draws fit the Gaussian, the other half is used.
    """
    flat = draws.flat
    half = len(flat) // 2
    rng = np.random.default_rng(seed)
    flat = flat[rng.permutation(len(flat))]
    centre, root = np.mean(flat[:half], axis=0), np.linalg.cholesky(np.atleast_2d(np.cov(flat[:half].T)))
    z = rng.standard_normal((half, target.size))
    constant = -0.5 * target.size * np.log(2 * np.pi)
    sizes = np.log(np.diag(root)).sum()

    def gaussian(u: Array) -> Array:
        v = np.linalg.solve(root, (u - centre).T).T
        return constant - sizes - 0.5 * np.sum(v * v, axis=-1)

    there = centre + z @ root.T
    log_prior = constant
    a = log_densities(target, flat[half:]) + log_prior - gaussian(flat[half:])
    b = log_densities(target, there) + log_prior - gaussian(there)
    shift = float(np.median(a))
    a, b = np.exp(a - shift), np.exp(b - shift)
    value = 1.0
    for _ in range(200):
        new = np.mean(b / (b + value)) / np.mean(1 / (a + value))
        done = abs(new - value) < 1e-10 * value
        value = new
        if done:
            break
    f, g = b / (b + value), value / (a + value)
    spread = np.var(f) / np.mean(f) ** 2 / len(f) + np.var(g) / np.mean(g) ** 2 / _effective(draws)
    more = 0.0
    if fine is not None and fine is not target:
        some = flat[half : half + 500]
        ratio = log_densities(fine, some) - log_densities(target, some)
        top = float(np.max(ratio))
        weight = np.exp(ratio - top)
        more = top + float(np.log(np.mean(weight)))
        spread += np.var(weight) / np.mean(weight) ** 2 / len(weight)
    return float(np.log(value) + shift + more), float(np.sqrt(spread))


def _effective(draws: Draws) -> float:
    """Effective number of the used half of the draws (least over the parameters)."""
    from arviz_stats.base import array_stats

    if draws.u.shape[0] == 1:
        return draws.u.shape[1] / 2
    ess = array_stats.ess(draws.u, chain_axis=0, draw_axis=1)
    return float(np.min(ess)) / 2
