"""Simulation-based calibration: whether the posteriors of this campaign mean what they say.

Truths are drawn from the priors, spectra from the truths, posteriors from the spectra. Over many such campaigns the rank of
the truth among the draws is uniform, and credible intervals hold the truth as often as they say (Talts et al. 2018).
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from backaction.errors import InputError, ModelError
from backaction.files import provenance
from backaction.inference import maximum, quantities, samplers
from backaction.inference.campaign import Campaign
from backaction.inference.target import Target
from backaction.numerics.matrices import Array
from backaction.workers import Progress

RANKS = 99
"""Draws that a truth is ranked among: ranks 0 .. 99."""
WATCHED = ("conditional.epr.variance", "conditional.log_negativity")


@dataclass(frozen=True, eq=False)
class RankStatistics:
    """Ranks (simulations, quantities) of the truths among RANKS draws; how the posteriors were made and what failed."""

    campaign: str
    names: tuple[str, ...]
    ranks: Array
    method: str
    seed: int
    failures: tuple[str, ...]

    def uniform_p(self, bins: int = 10) -> dict[str, float]:
        """P-value of the chi-square test that ranks are uniform, in `bins`."""
        from scipy import stats

        out = {}
        for i, name in enumerate(self.names):
            counts = np.histogram(self.ranks[:, i], bins=bins, range=(-0.5, RANKS + 0.5))[0]
            out[name] = float(stats.chisquare(counts).pvalue)
        return out

    def coverage(self, level: float) -> dict[str, tuple[float, float]]:
        """Share of truths within the central interval of `level`, and the binomial p-value of that many."""
        from scipy import stats

        # ranks lo..hi: their share of the RANKS + 1 possible ones is exactly what is expected
        half = round(level * (RANKS + 1) / 2)
        low, high = (RANKS + 1) // 2 - half, (RANKS + 1) // 2 + half - 1
        expected = (high - low + 1) / (RANKS + 1)
        out = {}
        for i, name in enumerate(self.names):
            inside = int(np.sum((self.ranks[:, i] >= low) & (self.ranks[:, i] <= high)))
            out[name] = inside / len(self.ranks), float(stats.binomtest(inside, len(self.ranks), expected).pvalue)
        return out

    @property
    def passed(self) -> bool:
        """Uniform at 1 % and covering at 1 %, after the number of quantities that are looked at."""
        p = list(self.uniform_p().values())
        q = [x[1] for level in (0.5, 0.9) for x in self.coverage(level).values()]
        return min(p) > 0.01 / len(p) and min(q) > 0.01 / len(q) and len(self.failures) <= 0.02 * len(self.ranks)

    def document(self) -> dict[str, Any]:
        """Plain data: schema backaction/sbc/1."""
        half, most = self.coverage(0.5), self.coverage(0.9)
        p = self.uniform_p()
        return {
            "schema": "backaction/sbc/1",
            "campaign": self.campaign,
            "simulations": len(self.ranks),
            "method": self.method,
            "quantities": {
                n: {
                    "uniform_p": p[n], "coverage_50": half[n][0], "coverage_50_p": half[n][1], "coverage_90": most[n][0],
                    "coverage_90_p": most[n][1], "ranks": self.ranks[:, i].astype(int).tolist(),
                }
                for i, n in enumerate(self.names)
            },
            "failures": list(self.failures),
            "passed": self.passed,
            "provenance": provenance(seed=self.seed),
        }  # fmt: skip


def rank_statistics(
    campaign: Campaign,
    count: int = 200,
    seed: int = 0,
    method: str = "nuts",
    cores: int = 2,
    progress: Progress | None = None,
    fitted: Campaign | None = None,
) -> RankStatistics:
    """Run `count` simulated campaigns with the bins of this one; only its data are replaced.

    With `fitted` another model is fitted than simulates (of the same records): to see that a wrong one is found out.

    Raises
    ------
    InputError
        If fewer than 20 simulations are asked for, or the likelihood is not that of the simulated data.
    """
    if count < 20:
        raise InputError(f"simulation-based calibration: {count} simulations are too few (at least 20)")
    if not campaign.likelihood.plain or any(r.series is not None for r in campaign.records):
        raise InputError("simulation-based calibration draws Gamma spectra: use kind = 'gamma' without a model error")
    source = Target(campaign)
    target = source if fitted is None else Target(fitted)
    shared = [n for n in target.names if n in source.names]
    own = samplers.seeds(seed, count)

    def one(k: int) -> tuple[dict[str, float], str]:
        rng = np.random.default_rng(own[k])
        truth, mu = _drawn(source, rng)
        N = [r.averages for r in campaign.records]
        data = [m * rng.gamma(n, 1 / n) for m, n in zip(mu, N, strict=True)]
        here = target.with_data(data)
        try:
            mode = maximum.find_maximum(here, starts=2, seed=own[k])
            draws = _draw(here, mode, method, own[k])
        except ModelError as error:
            return {}, str(error)
        flat = draws.flat[np.linspace(0, len(draws.flat) - 1, RANKS).astype(int)]
        at = {n: (source.names.index(n), target.names.index(n)) for n in shared}
        ranks = {n: float(np.sum(flat[:, j] < truth[i])) for n, (i, j) in at.items()}
        ranks |= _derived_ranks(source, target, truth, flat, rng)
        return ranks, "" if draws.status == "converged" else draws.status

    results: list[dict[str, float]] = []
    failures: list[str] = []
    with ThreadPoolExecutor(cores) as pool:
        for done, (ranks, problem) in enumerate(pool.map(one, range(count)), 1):
            results += [ranks] if ranks else []
            failures += [f"{done}: {problem}"] if problem else []
            if progress:
                progress(f"{done} of {count} campaigns", done / count)
    if len(results) < 20:
        raise ModelError(f"{campaign.name}: {len(failures)} of {count} simulated campaigns failed: {failures[0]}")
    names = tuple(n for n in results[0] if all(n in r for r in results))
    return RankStatistics(
        campaign.name, names, np.array([[r[n] for n in names] for r in results]), method, seed, tuple(failures)
    )


def _draw(target: Target, mode: maximum.Maximum, method: str, seed: int) -> samplers.Draws:
    if method == "importance":
        quick = samplers.importance(target, mode, 1000, seed)
        if quick.status == "converged":
            return quick
    return samplers.sample(target, mode, "nuts", 250, 2, seed, cores=1)


def _drawn(target: Target, rng: np.random.Generator) -> tuple[Array, list[Array]]:
    """A truth from the priors that has a spectrum, and its expected bins."""
    for _ in range(1000):
        u = rng.standard_normal(target.size)
        mu = target.models(u)
        if all(np.all(np.isfinite(m)) for m in mu):
            return u, mu
    raise InputError("simulation-based calibration: the priors hardly ever have a spectrum (unstable)")


def _derived_ranks(
    source: Target, target: Target, truth: Array, draws: Array, rng: np.random.Generator
) -> Mapping[str, float]:
    """Ranks of derived quantities; ties (log-negativity of separable states) are broken at random."""
    found = quantities.quantities(target, draws[None])
    true = quantities.quantities(source, truth[None, None])
    out = {}
    for name in found:
        base = name.split("[")[0]
        if base not in WATCHED or name not in true:
            continue
        x, t = found[name].values.ravel(), float(true[name].values.ravel()[0])
        below, equal = int(np.sum(x < t)), int(np.sum(x == t))
        out[name] = float(below + rng.integers(0, equal + 1))
    return out
