"""Fits: the maximum of the posterior with Laplace errors, and the posterior itself with everything derived from it.

    fit = fit_spectrum(experiment, spectrum, calibration, digitiser)     # one spectrum, quick
    found = infer(campaign)                                              # any number, draws, derived quantities, checks

Errors of the quick answer are the inverse of the exact Hessian of data and priors at the maximum, never rescaled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from backaction.experiment.experiment import Experiment
from backaction.files import provenance
from backaction.inference import diagnostics, quantities, samplers
from backaction.inference.campaign import Campaign
from backaction.inference.chains import nuts
from backaction.inference.fit import Prepared, prepare
from backaction.inference.quantities import DerivedQuantity
from backaction.inference.samplers import Draws
from backaction.inference.target import Target
from backaction.numerics.matrices import Array
from backaction.records.statistics import Check
from backaction.workers import Progress, quiet


@dataclass(frozen=True, eq=False)
class Posterior:
    """What `infer` found: the draws, what follows from them, and how far to trust it.

    `derived` holds one `Quantity` per name (values per draw); `tests` the checks in words; `document()` the JSON of
    `fit --json`; `netcdf.write` the NetCDF.
    """

    campaign: Campaign
    ready: Prepared
    draws: Draws
    derived: Mapping[str, DerivedQuantity]
    tests: tuple[Check, ...]
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
        return {n: diagnostics.summarised(self.values[..., i]) for i, n in enumerate(labels)}

    @cached_property
    def derived_summary(self) -> dict[str, dict[str, float]]:
        """The same of every derived quantity."""
        return {n: diagnostics.summarised(q.values) | q.facts for n, q in self.derived.items()}

    def fields(self, record: int) -> dict[str, Array]:
        """What the draws give to one record's experiment, ties included: {field: (chains * draws,)}."""
        flat = self.draws.flat
        return {f: np.broadcast_to(v, (len(flat),)) for f, v in self.target.fields(record, flat).items()}

    def experiment_at_mean(self, record: int) -> Experiment:
        """One record's experiment at the posterior mean of its fields."""
        means = {f: float(np.mean(v)) for f, v in self.fields(record).items()}
        return self.campaign.records[record].experiment.with_values(means, "posterior mean")

    @property
    def main_record(self) -> int:
        """The record with the least EPR variance, or the first."""
        names = [r.name for r in self.campaign.records]
        size = {k: s["mean"] for k, n in enumerate(names)
                if (s := self.derived_summary.get(f"conditional.epr.fixed[{n}]")) is not None}  # fmt: skip
        return min(size, key=lambda k: size[k]) if size else 0

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
                "tests": [t.document() for t in self.tests],
                "sampler": {"method": self.draws.method, "status": self.draws.status, **self.draws.facts},
                "likelihood": self.campaign.likelihoods,
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
    say = progress or quiet
    ready = ready or prepare(campaign, progress)
    target, mode = ready.target, ready.mode
    # what cannot be derived is said before the work
    quantities.quantities(target, mode.u[None, None], campaign.derived)
    if method == "nuts":
        found = nuts(target, mode, draws, chains, seed, cores, say, keep)
        if diagnostics.nearly_converged(found):
            say(f"chains nearly agree: sampling again with {2 * draws} draws", None)
            found = nuts(target, mode, 2 * draws, chains, seed, cores, say, keep)
    else:
        found = samplers.sample(target, mode, method, draws, chains, seed, progress=progress)
    say("derived quantities", None)
    derived = quantities.quantities(target, found.u, campaign.derived)
    say("checks", None)
    tests, facts, warnings = diagnostics.diagnose(ready.fine, target, mode, found, derived)
    if mode.others:
        warnings.append(
            f"the posterior has {len(mode.others) + 1} separate maxima; draws are about the highest "
            f"({mode.others[0][1] - mode.log_density:.1f} in ln p to the next)"
        )
    return Posterior(
        campaign, ready, found, derived, tuple(tests), facts, (*campaign.warnings, *dict.fromkeys(warnings))
    )
