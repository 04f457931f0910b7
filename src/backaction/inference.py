"""Fits: the maximum of the posterior with Laplace errors, and the posterior itself with everything derived from it.

    fit = fit_spectrum(experiment, spectrum, calibration, digitiser)     # one spectrum, quick
    found = infer(campaign)                                              # any number, draws, derived quantities, checks

Errors of the quick answer are the inverse of the exact Hessian of data and priors at the maximum, never rescaled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from backaction import checkpoints, checks, derived, samplers
from backaction.campaign import Campaign, Correlated, Likelihood
from backaction.consistency import Test
from backaction.derived import Quantity
from backaction.errors import ModelError
from backaction.experiment import Experiment, Prior
from backaction.files import provenance
from backaction.matrices import Array
from backaction.posterior import SCALE, Target
from backaction.records import Digitiser, Spectrum, chi_square_p, gamma_normal_scores
from backaction.samplers import Draws, Mode, Progress, find_mode
from backaction.shot_noise import Calibration


@dataclass(frozen=True, eq=False)
class Prepared:
    """A campaign ready to be sampled: `fine` with all its bins, `target` with those merged that the model makes alike."""

    fine: Target
    target: Target
    mode: Mode


def prepare(campaign: Campaign, progress: Progress | None = None, starts: int = 3) -> Prepared:
    """Find the maximum on coarse bins, merge the fine ones by the model there, and find it again.

    Raises
    ------
    ModelError
        If the posterior has no maximum that can be found, or is not determined.
    """
    say = progress or (lambda text, part: None)
    fine = Target(campaign)
    if fine.size == 0:
        raise ModelError(f"{campaign.name}: nothing to fit: no parameter has a prior")
    rough = Target(campaign.coarse())
    mode = find_mode(rough, starts, progress=progress)
    say("merging bins", None)
    target = fine
    # scatter that does not shrink with the width of a bin has none to merge
    plain = campaign.likelihood == Likelihood()
    if plain and max(b.white.size for b in fine.bins) > 200:
        models, poles = fine.models(mode.u), [fine.poles(k, mode.u) for k in range(len(campaign.records))]
        target = Target(campaign.merged(models, poles))
    mode = samplers.improved(target, mode)
    condition = float(np.linalg.cond(mode.hessian))
    if condition > 1e14:
        raise ModelError(f"the fit is not determined: condition number {condition:.1g}; give priors to more parameters")
    return Prepared(fine, target, mode)


@dataclass(frozen=True, eq=False)
class Fit:
    """Result of `fit_spectrum`.

    `names`, `values`, `covariance` in the parameters' own units (the last is `SCALE`, relative); `experiment` at the
    maximum; `model` the spectrum there in the record's density unit; `p` the goodness of fit; `band_ratio` measured over
    model power in the band; `mean_ratio` the unweighted mean of the bins' ratios with `mean_ratio_sd`.
    """

    experiment: Experiment
    names: tuple[str, ...]
    values: Array
    covariance: Array
    priors: Mapping[str, Prior]
    spectrum: Spectrum
    model: Array
    scale: float
    p: float
    band_ratio: float
    mean_ratio: float
    mean_ratio_sd: float
    at_bound: tuple[str, ...]
    condition: float
    status: str
    evaluations: int
    prepared: Prepared = field(repr=False)

    @property
    def sd(self) -> Array:
        """Standard deviations."""
        return np.sqrt(np.diag(self.covariance))

    @property
    def correlation(self) -> Array:
        """Correlation matrix of the parameters."""
        s = self.sd
        return self.covariance / np.outer(s, s)

    def pull(self, name: str) -> float:
        """(value - prior mean)/prior sd; 0 without a normal prior."""
        prior = self.priors.get(name)
        if prior is None or prior.sd is None or prior.mean is None:
            return 0.0
        return float((self.values[self.names.index(name)] - prior.mean) / prior.sd)

    @cached_property
    def quick(self) -> Draws:
        """Draws by Laplace and importance sampling; its status says whether they may be used."""
        return samplers.importance(self.prepared.target, self.prepared.mode, 4000, seed=0)


def fit_spectrum(
    experiment: Experiment,
    spectrum: Spectrum,
    calibration: Calibration,
    digitiser: Digitiser,
    progress: Callable[[str], None] | None = None,
    correlated: Correlated = (),
) -> Fit:
    """Fit every field that has a prior, and the scale, to a measured spectrum (density in the record's own unit).

    Raises
    ------
    ModelError
        If the model has no spectrum within its priors, or the fit does not converge or is not determined.
    """
    say = progress or (lambda text: None)
    campaign = Campaign.of(experiment, spectrum, calibration, digitiser, correlated)
    ready = prepare(campaign, lambda text, part: say(text))
    return laplace_fit(ready)


def laplace_fit(ready: Prepared) -> Fit:
    """The quick answer of a campaign of one spectrum."""
    target, mode = ready.target, ready.mode
    record = ready.fine.campaign.records[0]
    values, slope = target.values(mode.u), target.slopes(mode.u)
    covariance = (slope @ mode.root) @ (slope @ mode.root).T
    mu = ready.fine.models(mode.u)[0]
    ratio, N = record.density_sn / mu, record.averages
    fitted = int(np.sum(np.diag(mode.root @ mode.root.T) < 0.5))
    best = record.experiment.with_values({k: float(v) for k, v in target.fields(0, mode.u).items()}, "fit")
    bound = [p.name for p, u in zip(target.parameters, mode.u, strict=True) if abs(u) > 0.55 * p.reach]
    scale = float(values[target.names.index(SCALE)])
    order = [i for i, n in enumerate(target.names) if n != SCALE] + [target.names.index(SCALE)]
    return Fit(
        best, tuple(target.names[i] for i in order), values[order], covariance[np.ix_(order, order)],
        {p.name: p.prior for p in target.parameters if p.name != SCALE}, record.spectrum, mu * record.calibration.density,
        scale, chi_square_p(gamma_normal_scores(ratio, N), fitted),
        float(np.sum(record.density_sn) / np.sum(mu)), float(np.average(ratio, weights=N)),
        float(1 / np.sqrt(np.sum(N))), tuple(bound), float(np.linalg.cond(mode.hessian)), "converged", mode.evaluations,
        ready,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Posterior:
    """What `infer` found: the draws, what follows from them, and how far to trust it.

    `derived` holds one `Quantity` per name (values per draw); `tests` the checks in words; `document()` the JSON of
    `fit --json`; `inference_data.write` the NetCDF.
    """

    campaign: Campaign
    ready: Prepared
    draws: Draws
    derived: Mapping[str, Quantity]
    tests: tuple[Test, ...]
    facts: Mapping[str, Any]
    warnings: tuple[str, ...] = ()

    @property
    def target(self) -> Target:
        """The sampled density."""
        return self.ready.target

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(t.passed for t in self.tests)

    @cached_property
    def values(self) -> Array:
        """Parameters theta (chains, draws, P) in their own units."""
        return self.target.values(self.draws.u)

    @cached_property
    def summary(self) -> dict[str, dict[str, float]]:
        """Mean, sd, quantiles, effective draws and R-hat of every parameter."""
        labels = self.target.labels()
        return {n: checks.summarised(self.values[..., i]) for i, n in enumerate(labels)}

    @cached_property
    def derived_summary(self) -> dict[str, dict[str, float]]:
        """The same of every derived quantity."""
        return {n: checks.summarised(q.values) | q.facts for n, q in self.derived.items()}

    def document(self) -> dict[str, Any]:
        """The JSON document of `backaction fit --json`."""
        return {
            "schema": "backaction/fit/1",
            "campaign": self.campaign.name,
            "records": [r.name for r in self.campaign.records],
            "parameters": self.summary,
            "derived": self.derived_summary,
            "checks": {
                "passed": self.passed,
                "tests": [
                    {"name": t.name, "passed": t.passed, "value": t.value, "p": t.p, "sentence": t.sentence}
                    for t in self.tests
                ],
                "sampler": {"method": self.draws.method, "status": self.draws.status, **self.draws.facts},
                "conflict": self.facts["conflict"],
                "sensitivity": self.facts["sensitivity"],
                "identifiability": self.facts["identifiability"],
                "correlation": self.facts["correlation"],
            },
            "prior": {p.name: p.described() for p in self.target.parameters},
            "warnings": list(self.warnings),
            "provenance": provenance(seed=self.draws.seed),
        }


def infer(
    campaign: Campaign,
    method: str = "nuts",
    draws: int = 1000,
    chains: int = 4,
    seed: int = 0,
    cores: int = 2,
    progress: Progress | None = None,
    keep: Path | None = None,
    ready: Prepared | None = None,
) -> Posterior:
    """The posterior of a campaign: draws by `method`, derived quantities of every draw, and all checks.

    With `keep` (a folder) every finished chain is stored there, and read instead of sampled when the same
    campaign is asked for again.

    Raises
    ------
    ModelError
        If nothing can be fitted. A sampler that did not converge is reported in the checks, not raised.
    """
    say = progress or (lambda text, part: None)
    ready = ready or prepare(campaign, progress)
    target, mode = ready.target, ready.mode
    derived.quantities(target, mode.u[None, None], campaign.derived)  # what cannot be derived is said before the work
    if method == "nuts":
        found = checkpoints.nuts(target, mode, draws, chains, seed, cores, say, keep)
    else:
        found = samplers.sample(target, mode, method, draws, chains, seed, progress=progress)
    say("derived quantities", None)
    quantities = derived.quantities(target, found.u, campaign.derived)
    say("checks", None)
    tests, facts, warnings = checks.run(ready.fine, target, mode, found, quantities)
    if mode.others:
        warnings.append(
            f"the posterior has {len(mode.others) + 1} separate maxima; draws are about the highest "
            f"({mode.others[0][1] - mode.log_density:.1f} in ln p to the next)"
        )
    return Posterior(
        campaign, ready, found, quantities, tuple(tests), facts, (*campaign.warnings, *dict.fromkeys(warnings))
    )
