"""What a calibrated record says of the state: variances of every draw, the nearest separable model, the floor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from backaction.analysis import technical_noise
from backaction.analysis.floor import MeasuredFloor, placed, uncalibrated
from backaction.errors import ModelError
from backaction.experiment.describe import state_document
from backaction.experiment.experiment import Experiment
from backaction.experiment.results import gaussian_state
from backaction.inference.fit import SpectrumFit
from backaction.inference.model import Systems
from backaction.inference.posterior import Posterior
from backaction.inference.separable import Separable, nearest_separable
from backaction.inference.target import Target
from backaction.numerics.matrices import Array
from backaction.records.record import Record
from backaction.states import entanglement
from backaction.states.gaussian import GaussianState
from backaction.states.measures import describe_state
from backaction.tracking.tracks import Track

PREDICTED, OWN = "the priors' prediction", "this record"
"""Who chose a pair; the second is no witness."""
PRIOR_DRAWS = 400
"""Draws of the priors whose mean covariance predicts the pair (a, angle)."""


@dataclass(frozen=True)
class Pair:
    """The EPR pair (weight, angle) that a verdict is about, and who chose it: never the record that it is applied to."""

    weight: float
    angle_deg: float
    chosen_by: str


def witness_pair(experiment: Experiment, target: Target, systems: Systems, u: Array) -> Pair:
    """The declared pair, or the one that minimises the EPR variance of the mean covariance over the priors.

    What is no calibration (where the lines lie, what has no prior but a range) is taken from the fit `u`: the former a
    record tells to a small part of a width, of the latter there is no prediction. All else is the priors': their draws, or
    where most of these have no state their centre.
    """
    if experiment.assumed.epr is not None:
        return Pair(*experiment.assumed.epr, "declared")
    fixed = uncalibrated(target.parameters)
    drawn = np.random.default_rng(0).standard_normal((PRIOR_DRAWS, u.size)) @ target.mixing().T
    for others, least in ((drawn, PRIOR_DRAWS / 2), (np.zeros((1, u.size)), 1)):
        V = systems.conditional(placed(target, u, fixed, others))
        good = np.all(np.isfinite(V), axis=(-2, -1))
        if np.sum(good) >= least:
            mean = entanglement.epr(np.mean(V[good], axis=0))
            return Pair(float(mean.weight), float(mean.angle_deg), PREDICTED)
    mean = entanglement.epr(systems.conditional(u[None])[0])
    return Pair(float(mean.weight), float(mean.angle_deg), OWN)


def quantum_states(fit: SpectrumFit, posterior: Posterior, record: Record, followed: Track) -> dict[str, Any]:
    """States at the fit; for two modes the EPR variance of every draw, PPT, separable model, technical noise, floor."""
    best = fit.experiment
    document = state_document(best)
    sampled = GaussianState(followed.covariance, followed.modes)
    out: dict[str, Any] = {
        "quoted": f"the filter of this record ({record.sampling} samples at {record.sample_rate_hz:g} Hz)",
        "unconditional": document["unconditional"],
        "conditional_continuous": document["conditional"],
        "conditional_sampled": describe_state(sampled),
        "sampling_loss": technical_noise.sampling_loss(best, followed.covariance),
        "rates": document["rates"],
    }
    if len(followed.modes) != 2:
        out["occupations"] = _occupations(posterior, out)
        return out
    target = posterior.target
    systems = target.systems(0)
    V = systems.conditional(posterior.draws.flat)
    good = np.all(np.isfinite(V), axis=(-2, -1))
    effective = _effective(posterior, V)
    if not np.any(good):
        raise ModelError(f"{best.name}: no draw of the posterior has a conditional state")
    lost = 1 - float(np.mean(good))  # draws without a state count as V >= 1
    V = V[good]
    chosen = witness_pair(best, target, systems, posterior.ready.mode.u)
    own = entanglement.epr(np.mean(V, axis=0))
    continuous = gaussian_state(best)
    for key, p in (
        ("epr_variance", chosen),
        ("epr_posterior", Pair(float(own.weight), float(own.angle_deg), OWN)),
    ):
        # the sampled filter's variance moves with the parameters as the continuous one does
        ab = p.weight, p.angle_deg
        at = [float(entanglement.epr_variance(x, *ab)) for x in (sampled.covariance, continuous.covariance)]
        out[key] = _spread(entanglement.epr_variance(V, *ab) * at[0] / at[1], lost, effective) | {
            "best_fit": at[0],
            "continuous_limit": at[1],
            "weight": p.weight,
            "angle_deg": p.angle_deg,
            "chosen_by": p.chosen_by,
            "method": posterior.draws.method,
        }
    lowest = [float(entanglement.ppt_min(x)) for x in (sampled, continuous)]
    nu = entanglement.ppt_min(V) * lowest[0] / lowest[1]
    out["ppt"] = {
        "value": float(np.mean(nu)),
        "sd": float(np.std(nu)),
        "best_fit": lowest[0],
        "probability_below_half": float(np.mean(nu < 0.5)),
    }
    out["separable"] = _separable(posterior, systems, lowest[0] / lowest[1]).document()
    out["technical_cost"] = [
        {"source": c.source, "epr_variance": c.variance, "without": c.without}
        for c in technical_noise.costs(best, record.digitiser)
    ]
    out["measured_floor"] = MeasuredFloor(fit, record, chosen.weight, chosen.angle_deg).document()
    return out


def _occupations(posterior: Posterior, states: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Conditional occupation of each mode with its interval: the draws' (of a continuous record) scaled to this filter."""
    out = {}
    ends = (states[k]["by_mode"] for k in ("conditional_sampled", "conditional_continuous"))
    sampled, continuous = ({m: s["occupation"] for m, s in end.items()} for end in ends)
    for mode, value in sampled.items():
        drawn = posterior.derived_summary.get(f"conditional.occupation.{mode}")
        if drawn is not None and continuous[mode] > 0:
            ratio = value / continuous[mode]
            out[mode] = {k: drawn[k] * ratio for k in ("mean", "sd", "q05", "q50", "q95")}
    return out


def _effective(posterior: Posterior, V: Array) -> float:
    """Effective draws of the least EPR variance: what they can tell of its tail."""
    from arviz_stats.base import array_stats

    facts, u = posterior.draws.facts, posterior.draws.u
    if "effective_draws" in facts:
        return float(facts["effective_draws"])
    if not np.all(np.isfinite(V)):
        return float(u.shape[1])
    values = np.asarray(entanglement.epr(V).variance).reshape(u.shape[:2])
    return float(array_stats.ess(values, method="bulk", chain_axis=0, draw_axis=1))


def _spread(values: Array, lost: float, effective: float) -> dict[str, float]:
    """Mean, sd and quantiles of the EPR variance, and P(V >= 1).

    That is the larger of a normal tail and of the draws' share: k among n effective ones show no less than (k + 1)/(n + 1).
    """
    from scipy import special

    mean, sd = float(np.mean(values)), float(np.std(values))
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95]).tolist()
    share = float(np.mean(values >= 1)) * (1 - lost) + lost
    tail = float(special.ndtr((mean - 1) / sd)) if sd > 0 else float(mean >= 1)
    above = min(1.0, max((share * effective + 1) / (effective + 1), tail))
    return {
        "value": mean, "mean": mean, "sd": sd, "q05": low, "q50": middle, "q95": high,
        "probability_below_1": 1 - above, "probability_above_1": above, "draws": int(values.size),
    }  # fmt: skip


def _separable(posterior: Posterior, systems: Systems, shift: float) -> Separable:
    """The nearest model whose state, as this record's filter has it, is separable."""

    def margin(u: Array) -> Array:
        V = systems.conditional(u)
        out = np.full(len(V), np.nan)
        good = np.all(np.isfinite(V), axis=(-2, -1))
        out[good] = entanglement.ppt_min(V[good]) * shift - 0.5
        return out

    return nearest_separable(posterior.target, posterior.ready.mode, margin, "PPT")
