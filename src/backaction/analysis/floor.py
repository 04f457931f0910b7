"""The measured floor against the model: noise that the calibrations do not explain, and what it does to the EPR variance.

The calibrated model has its calibrations (normal priors) at their centres, its lines where the fit finds them, and what was
not calibrated as fitted: a fit can absorb an excess into its parameters, the calibrations cannot. The excess e is the mean
over the outer 15 % of the band on either side; a positive one is added as white noise at the detector. With t the true
coordinates u, s ~ N(0, F) the score of the data and n the floor's statistical error (Cov(n, s) = h): u^ = C (F t + s) and
e = h.t + n, so that the difference of the two EPR variances, D = g.u^ - c e, has

    Var D = |F C g - c h|^2 + g C F C g - 2 c g C h + c^2 Var n

(g and h: slopes of V and of the floor by the calibrations, c that of V by e, C = (F + 1)^-1): what both share cancels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from backaction.inference.fit import SpectrumFit
from backaction.inference.parameter import Parameter
from backaction.inference.target import Target
from backaction.numerics.matrices import Array
from backaction.records.record import Record
from backaction.records.statistics import Check, normal_p
from backaction.states import entanglement
from backaction.systems.sampled import discretise, steady_filter

SIDES = 0.15
"""Part of the band on either side that tells the floor."""
WHERE = ("larmor", "mechanical_hz", "frequency_hz", "center_hz")
"""Fields that say where lines are: not calibrations of a floor."""
SHARE = 1e-3
"""Share of right models in which the two may differ by more: 3.3 sd."""
STEP, STEP_SN = 1e-3, 0.01
"""Steps of differences: in u, and in excess noise."""


def uncalibrated(parameters: Sequence[Parameter]) -> Array:
    """Which parameters only this record tells: where lines lie, and what has a range for a prior."""
    return np.array([not p.calibrated or any(w in p.name.rpartition(".")[2] for w in WHERE) for p in parameters])


def placed(target: Target, u: Array, fixed: Array, others: Array) -> Array:
    """Coordinates whose normal scores are those of u where `fixed`, and `others` (..., P) elsewhere."""
    M = target.mixing()
    z = np.where(fixed, M @ u, others)
    return np.asarray(np.linalg.solve(M, z[..., None])[..., 0])


class MeasuredFloor:
    """The floor of one fitted record and the EPR variance at (`weight`, `angle_deg`) that it allows."""

    def __init__(self, fit: SpectrumFit, record: Record, weight: float, angle_deg: float) -> None:
        self._fit, self._record, self._pair = fit, record, (weight, angle_deg)
        self._target, self._mode = fit.prepared.target, fit.prepared.mode
        self._fixed = uncalibrated(self._target.parameters)
        self._start = placed(self._target, self._mode.u, self._fixed, np.zeros(self._target.size))
        f = fit.spectrum.frequency_hz
        edge = SIDES * (f[-1] - f[0])
        self._sides = (f < f[0] + edge) | (f > f[-1] - edge)

    def document(self) -> dict[str, float]:
        """Excess with its error, EPR variances of floor and model, and the error of their difference, as plain data."""
        measured = self._fit.prepared.fine.campaign.records[0].density_sn[self._sides]
        centre = self._level(self._start[None])[0]
        excess = float(np.mean(measured - centre))
        slope = self._slopes(lambda u: self._level(u).mean(axis=1), self._start)
        statistics = float(np.mean(centre**2) / (np.mean(self._fit.spectrum.averages) * centre.size))
        sd = float(np.sqrt(statistics + slope @ slope))
        allowed = self._with_excess(excess)
        rise = (self._with_excess(excess + STEP_SN) - allowed) / STEP_SN if excess > 0 else 0.0
        best = self._fit.experiment
        model = best.view.of(steady_filter(discretise(best.system, *self._record.digitiser)).covariance)
        return {
            "excess_sn": excess,
            "excess_sd_sn": sd,
            "epr_variance": allowed,
            "epr_variance_upper": self._with_excess(excess + 2 * sd),
            "epr_variance_without_excess": self._with_excess(0.0),
            "model": float(entanglement.epr_variance(model, *self._pair)),
            "difference_sd": self._difference_sd(slope, statistics, rise),
        }

    def _level(self, u: Array) -> Array:
        """Expected bins beside the lines (SN of the calibration) at points u (k, P), shape (k, F)."""
        return np.asarray(self._fit.prepared.fine.models(u)[0][:, self._sides])

    def _slopes(self, of: Callable[[Array], Array], u: Array) -> Array:
        """Derivatives by all calibrations; 0 for what is none."""
        size = self._target.size
        both = of(u + STEP * np.concatenate([np.eye(size), -np.eye(size)]))
        return np.where(self._fixed, 0.0, (both[:size] - both[size:]) / (2 * STEP))

    def _with_excess(self, excess: float) -> float:
        """V of this record's filter for the calibrated model with white excess at the detector."""
        calibrated = self._target.experiment(0, self._start)
        path = f"{calibrated.detectors()[0].name}.electronic_noise_sn"
        noise = max(0.0, calibrated.electronic_noise_sn + max(0.0, excess))
        noisy = calibrated.with_values({path: noise})
        P = steady_filter(discretise(noisy.system, *self._record.digitiser)).covariance
        return float(entanglement.epr_variance(noisy.view.of(P), *self._pair))

    def _difference_sd(self, h: Array, statistics: float, c: float) -> float:
        """The module's Var D."""
        systems = self._target.systems(0)
        g = self._slopes(lambda u: entanglement.epr_variance(systems.conditional(u), *self._pair), self._mode.u)
        variance = difference_variance(self._mode.hessian - np.eye(g.size), g, h, c, statistics)
        return float(np.sqrt(variance)) if variance > 0 else float("nan")


def difference_variance(F: Array, g: Array, h: Array, c: float, statistics: float) -> float:
    """The module's Var D; `statistics` is Var n."""
    a = np.linalg.solve(F + np.eye(g.size), g)
    return float(np.sum((F @ a - c * h) ** 2) + a @ F @ a - 2 * c * (a @ h) + c * c * statistics)


def floor_check(quantum: dict[str, Any]) -> Check:
    """Whether the model's V and that of the measured floor agree within the error of their difference."""
    found = quantum["measured_floor"]
    difference = found["model"] - found["epr_variance"]
    z = difference / found["difference_sd"]
    p = normal_p(z)
    words = "agree" if p >= SHARE else "DISAGREE"
    return Check(
        "measured floor", p >= SHARE, z, p,
        f"the model and the measured floor {words} on the EPR variance ({found['model']:.3f} and "
        f"{found['epr_variance']:.3f}, difference {difference:+.3f} +- {found['difference_sd']:.3f})",
        SHARE,
    )  # fmt: skip
