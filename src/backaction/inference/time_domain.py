"""The exact likelihood of a record's samples (innovations form), and posteriors that use it.

    ln L = -1/2 sum_k [e_k^2/s_k + ln(2 pi s_k)],    e_k = y_k - E[y_k | y_0 .. y_{k-1}]

It holds for records of any length, with gaps, starting in any state; the spectral likelihood is its limit for long,
stationary ones, within the band that is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from backaction.errors import InputError
from backaction.experiment.experiment import Experiment
from backaction.inference.posterior import Posterior
from backaction.inference.samplers import K_LIMIT, Draws, smoothed
from backaction.inference.target import SCALE
from backaction.records.record import Record
from backaction.records.shot_level import ShotNoise
from backaction.tracking.run import track
from backaction.workers import Progress


def log_likelihood(experiment: Experiment, record: Record, calibration: ShotNoise, scale: float = 1.0) -> float:
    """Ln of the probability density of the samples, in units of the calibrated shot noise.

    `scale` is the shot-noise level relative to the calibration; densities at different scales may be compared.

    Raises
    ------
    ModelError
        If the model has no filter.
    """
    level = replace(calibration, density=calibration.density * scale)
    found = track(experiment, record, level, "lab", every=4096, innovations=False)
    seen = record.size - found.missing - found.clipped
    return float(found.log_likelihood) - 0.5 * seen * float(np.log(scale))


def reweighted(
    found: Posterior,
    records: Sequence[Record],
    draws: int = 200,
    seed: int = 0,
    progress: Progress | None = None,
) -> Draws:
    """The posterior with the exact likelihood of the records instead of their spectra's, from draws of the spectral one.

    Importance weights are smoothed by a Pareto tail; its k says whether the two are near enough (at most 0.7): a time domain
    that sees much that the band does not needs fits of its own.

    Raises
    ------
    InputError
        If the records are not those of the campaign, in its order.
    """
    if len(records) != len(found.campaign.records):
        raise InputError(f"{len(records)} records for a campaign of {len(found.campaign.records)}")
    target, flat = found.target, found.draws.flat
    u = flat[np.linspace(0, len(flat) - 1, min(draws, len(flat))).astype(int)]
    run, names = target.evaluator(), list(target.names)
    ratio, spectral = np.empty(len(u)), np.empty(len(u))
    for i, x in enumerate(u):
        spectral[i] = run.density(x)
        values = target.values(x)
        exact = 0.0
        for k, (record, own) in enumerate(zip(records, found.campaign.records, strict=True)):
            name = SCALE if SCALE in names else f"{SCALE}[{own.calibrated_by or own.name}]"
            exact += log_likelihood(target.experiment(k, x), record, own.calibration, float(values[names.index(name)]))
        ratio[i] = exact - (spectral[i] + 0.5 * float(x @ x))
        if progress:
            progress("weighing draws", (i + 1) / len(u))
    weight, k_hat = smoothed(ratio)
    effective = float(1 / np.sum(weight**2))
    rng = np.random.default_rng(seed)
    pick = np.searchsorted(np.cumsum(weight), (np.arange(len(u)) + rng.uniform()) / len(u)).clip(0, len(u) - 1)
    good = k_hat <= K_LIMIT and effective >= 20
    status = "converged" if good else f"not usable: Pareto k = {k_hat:.2f}, {effective:.0f} effective draws"
    facts = {"pareto_k": k_hat, "effective_draws": effective}
    return Draws(u[pick][None], (ratio + spectral)[pick][None], "time domain", seed, facts, status)
