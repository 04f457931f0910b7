"""The fit of one measured spectrum: the maximum of the posterior, its errors, and how well it describes the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from backaction.errors import ModelError
from backaction.experiment.experiment import Experiment
from backaction.experiment.prior import Prior
from backaction.inference import maximum, samplers
from backaction.inference.calibration_file import Correlated
from backaction.inference.campaign import Campaign
from backaction.inference.maximum import Maximum, find_maximum
from backaction.inference.samplers import Draws
from backaction.inference.target import SCALE, Target
from backaction.inference.whiteness import unit_innovations, whitened_spectrum
from backaction.numerics.matrices import Array
from backaction.records.correlated import correlated_p
from backaction.records.record import Record
from backaction.records.shot_level import ShotNoise
from backaction.records.spectrum import Spectrum
from backaction.records.statistics import gamma_normal_scores
from backaction.systems.sampled import Digitiser
from backaction.workers import Progress, quiet


@dataclass(frozen=True, eq=False)
class Prepared:
    """A campaign ready to be sampled: `fine` with all its bins, `target` with those merged that the model makes alike."""

    fine: Target
    target: Target
    mode: Maximum


WORTH_MERGING = 200
"""Bins of a record beyond which merging saves more than it costs."""
SINGULAR = 1e14
"""Condition number of the Hessian at which its inverse has no correct digit left."""
TOLD = 0.5
"""Posterior over prior variance below which a parameter was fitted to the data, and takes a degree of freedom."""
AT_BOUND = 0.55
"""Share of a coordinate's reach beyond which its value is said to be at a bound."""


def prepare(campaign: Campaign, progress: Progress | None = None, starts: int = 3) -> Prepared:
    """Find the maximum on coarse bins, merge the fine ones by the model there, and find it again.

    Raises
    ------
    ModelError
        If the posterior has no maximum that can be found, or is not determined.
    """
    say = progress or quiet
    fine = Target(campaign)
    if fine.size == 0:
        raise ModelError(f"{campaign.name}: nothing to fit: no parameter has a prior")
    spectral = any(r.series is None for r in campaign.records)
    rough = Target(campaign.coarse()) if spectral else fine
    mode = find_maximum(rough, starts, progress=progress)
    say("merging bins", None)
    target = fine
    # scatter that does not shrink with the width of a bin has none to merge
    if spectral and campaign.likelihood.plain and max(b.white.size for b in fine.bins) > WORTH_MERGING:
        models, poles = fine.models(mode.u), [fine.poles(k, mode.u) for k in range(len(campaign.records))]
        target = Target(campaign.merged(models, poles))
    if spectral:
        mode = maximum.improved(target, mode)
    condition = float(np.linalg.cond(mode.hessian))
    if condition > SINGULAR:
        raise ModelError(f"the fit is not determined: condition number {condition:.1g}; give priors to more parameters")
    return Prepared(fine, target, mode)


@dataclass(frozen=True, eq=False)
class SpectrumFit:
    """Result of `fit_spectrum`.

    `names`, `values`, `covariance` in the parameters' own units (the last is `SCALE`, relative); `experiment` at the
    maximum; `model` the spectrum there in the record's density unit; `p` the goodness of fit; `band_ratio` measured over
    model power in the band; `mean_ratio` the unweighted mean of the bins' ratios with `mean_ratio_sd`. Where samples were
    fitted (`in_time`) these four are of the innovations' spectrum, whose model is 1.
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
    in_time: bool = False

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

    def document(self) -> dict[str, Any]:
        """The fit as plain data, as `analyze --json` has it."""
        parameters = {
            n: {
                "mean": v,
                "sd": s,
                "prior_mean": getattr(self.priors.get(n), "mean", None),
                "prior_sd": getattr(self.priors.get(n), "sd", None),
                "pull": self.pull(n),
            }
            for n, v, s in zip(self.names, self.values, self.sd, strict=True)
        }
        return {
            "status": self.status,
            "parameters": parameters,
            "correlation": self.correlation,
            "at_bound": list(self.at_bound),
            "condition": self.condition,
            "goodness_of_fit_p": self.p,
            "band_power_ratio": self.band_ratio,
            "mean_ratio": self.mean_ratio,
            "mean_ratio_sd": self.mean_ratio_sd,
            "likelihood": self.prepared.fine.campaign.likelihoods,
        }

    @cached_property
    def quick(self) -> Draws:
        """Draws by Laplace and importance sampling; its status says whether they may be used."""
        return samplers.importance(self.prepared.target, self.prepared.mode, 4000, seed=0)


def fit_spectrum(
    experiment: Experiment,
    spectrum: Spectrum,
    calibration: ShotNoise,
    digitiser: Digitiser,
    progress: Progress | None = None,
    correlated: Correlated = (),
    record: Record | None = None,
) -> SpectrumFit:
    """Fit every field that has a prior, and the scale, to a measured spectrum (density in the record's own unit).

    With the `record` its samples are fitted where the model has lines that it does not resolve (`inference.choice`).

    Raises
    ------
    ModelError
        If the model has no spectrum within its priors, or the fit does not converge or is not determined.
    """
    campaign = Campaign.of(experiment, spectrum, calibration, digitiser, correlated, record)
    ready = prepare(campaign, progress)
    return laplace_fit(ready)


def laplace_fit(ready: Prepared) -> SpectrumFit:
    """The quick answer of a campaign of one spectrum."""
    target, mode = ready.target, ready.mode
    record = ready.fine.campaign.records[0]
    values, slope = target.values(mode.u), target.slopes(mode.u)
    covariance = (slope @ mode.root) @ (slope @ mode.root).T
    mu = ready.fine.models(mode.u)[0]
    unit = record.calibration.at(record.spectrum.frequency_hz)
    ratio, N, expected, neighbours = record.density_sn / mu, record.averages, mu, record.spectrum.neighbours
    if record.series is not None:
        band = float(record.spectrum.frequency_hz[0]), float(record.spectrum.frequency_hz[-1])
        innovations = whitened_spectrum(record.series, unit_innovations(ready.fine, 0, mode.u), band)
        ratio, expected = innovations.density, np.ones(innovations.density.size)
        N, neighbours = np.full(ratio.shape, innovations.averages), innovations.neighbours
    fitted = int(np.sum(np.diag(mode.root @ mode.root.T) < TOLD))
    best = record.experiment.with_values({k: float(v) for k, v in target.fields(0, mode.u).items()}, "fit")
    bound = [p.name for p, u in zip(target.parameters, mode.u, strict=True) if abs(u) > AT_BOUND * p.reach]
    scale = float(values[target.names.index(SCALE)])
    order = [i for i, n in enumerate(target.names) if n != SCALE] + [target.names.index(SCALE)]
    return SpectrumFit(
        best, tuple(target.names[i] for i in order), values[order], covariance[np.ix_(order, order)],
        {p.name: p.prior for p in target.parameters if p.name != SCALE}, record.spectrum, mu * unit,
        scale, correlated_p(gamma_normal_scores(ratio, N), neighbours, fitted),
        float(np.sum(ratio * expected) / np.sum(expected)), float(np.average(ratio, weights=N)),
        float(1 / np.sqrt(np.sum(N if record.series is not None else record.tempered))), tuple(bound),
        float(np.linalg.cond(mode.hessian)), "converged", mode.evaluations, ready, record.series is not None,
    )  # fmt: skip
