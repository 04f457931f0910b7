"""Prediction against retrodiction: two halves of a record that share no noise must agree about the state between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backaction.errors import InputError, ModelError
from backaction.experiment.experiment import Experiment
from backaction.numerics.matrices import Array
from backaction.records.record import Record
from backaction.records.shot_level import ShotNoise
from backaction.records.statistics import LEVEL, Check, words
from backaction.states import entanglement
from backaction.systems.sampled import discretise, steady_effect
from backaction.tracking.run import track
from backaction.tracking.tracks import Track


@dataclass(frozen=True)
class Agreement:
    """Prediction against retrodiction for one set of quadratures: measured and predicted variance of the difference."""

    name: str
    measured: float
    predicted: float
    sd: float
    share: float
    """V_c's share of the predicted variance: how much the comparison says about the filter."""

    @property
    def z(self) -> float:
        """Deviation in standard errors."""
        return (self.measured - self.predicted) / self.sd

    @property
    def power(self) -> float:
        """Relative error of V_c that would stand out at two standard errors."""
        return 2 * self.sd / (self.share * self.predicted)


def prediction_retrodiction(
    filtered: Track, retrodicted: Track, epr: tuple[float, float] | None = None
) -> list[Agreement]:
    """Variance of (prediction - retrodiction) against V_c + V_E, whose errors are independent.

    The state given the past record and the effect operator of the future record err independently, so that for any
    quadratures u the variance of the difference of their means is u (V_c + V_E) u^T. Shown for the EPR pair at
    (a, angle in degrees) = `epr` (default: V_c's own minimum) and for the directions in which V_c's share is stationary
    (generalised eigenvectors of V_c and V_c + V_E), the largest first. Standard errors are those of a Gaussian series with
    the measured correlations: var = (2/T) sum_lags sum_ab c_ab(lag)^2. It does not hold for smoothed estimates.

    What it shows: filter and noise model are consistent. The scale rests on the calibrations: a homodyne record fixes the
    state space only up to a similarity transformation.

    Raises
    ------
    InputError
        If the two tracks are not a filtered and a retrodicted one at the same times in the lab frame.
    """
    from scipy.linalg import eigh

    if (filtered.estimate, retrodicted.estimate) != ("filtered", "retrodicted"):
        raise InputError("prediction_retrodiction: needs a filtered and a retrodicted track, in this order")
    if filtered.frame != "lab" or retrodicted.frame != "lab":
        raise InputError("prediction_retrodiction: needs tracks in the lab frame, where the covariances are steady")
    same = filtered.mean.shape == retrodicted.mean.shape and filtered.modes == retrodicted.modes
    if not same or filtered.time_start_s != retrodicted.time_start_s or filtered.mean.ndim != 2:
        raise InputError("prediction_retrodiction: the two tracks are not of the same record, modes and times")
    use = _both_steady(filtered, retrodicted)
    difference = np.where(use[:, None], filtered.mean - retrodicted.mean, 0.0)
    if np.sum(use) < 100:
        raise InputError("prediction_retrodiction: the record is too short for both to be steady")
    P, E = filtered.covariance, retrodicted.covariance
    lags = int(min(20 * min(filtered.memory_s, 1e6) / filtered.time_step_s + 1, len(difference) // 4))
    out = []
    sets = []
    if len(filtered.modes) == 2:
        best = entanglement.epr(P)
        a, angle = epr if epr is not None else (float(best.weight), float(best.angle_deg))
        sets.append(("EPR variance", entanglement.basis(a, angle)[:2]))
    values, vectors = eigh(P, P + E)
    for k in range(len(values))[::-1]:
        u = vectors[:, k] / np.linalg.norm(vectors[:, k])
        names = [f"{m}.{q}" for m in filtered.modes for q in "XP"]
        label = " ".join(f"{w:+.2f} {name}" for w, name in zip(u, names, strict=True) if abs(w) > 0.15)
        sets.append((label, u[None]))
    for name, U in sets:
        d = difference @ U.T
        count = float(np.sum(use))
        measured = float(np.sum(d**2) / count)
        c = _correlations(d, lags) / count
        sd = float(np.sqrt(2 / count * (np.sum(c[0] ** 2) + np.sum(c[1:] ** 2) + np.sum(c[1:] ** 2))))
        own = float(np.trace(U @ P @ U.T))
        predicted = own + float(np.trace(U @ E @ U.T))
        out.append(Agreement(name, measured, predicted, sd, own / predicted))
    return out


def _both_steady(filtered: Track, retrodicted: Track) -> Array:
    """The rows where both covariances are the steady ones."""
    use: Array = np.all(np.isfinite(retrodicted.mean), axis=1)
    for t in (filtered, retrodicted):
        if t.exact_rows.size:
            off = np.max(np.abs(t.exact_covariance - t.covariance), axis=(1, 2))
            use[t.exact_rows[~(off < 1e-3 * np.max(np.abs(t.covariance)))]] = False
    return use


def _correlations(d: Array, lags: int) -> Array:
    """Sums of d_a(t + j) d_b(t) for lags j, shape (lags, r, r)."""
    size = 1 << int(np.ceil(np.log2(len(d) + lags)))
    F = np.fft.rfft(d, size, axis=0)
    return np.fft.irfft(F[:, :, None] * np.conj(F[:, None, :]), size, axis=0)[:lags]


def agreement_test(found: Sequence[Agreement]) -> Check:
    """All agreements as one test: the largest deviation against its chance in as many looks, where the test has power."""
    from scipy import stats

    looks = [a for a in found if a.share > 0.05] or list(found)
    worst = max(looks, key=lambda a: abs(a.z))
    p = float(min(1.0, len(looks) * 2 * stats.norm.sf(abs(worst.z))))
    first = found[0]
    good = words(p, "agree", "DISAGREE: the filter or its noise model is wrong")
    return Check(
        "prediction and retrodiction", p >= LEVEL, worst.z, p,
        f"prediction and retrodiction {good} (p = {p:.2g}): {first.name} of their difference {first.measured:.3f} +- "
        f"{first.sd:.3f}, V_c + V_E = {first.predicted:.3f}; an error of V_c by {100 * first.power:.0f} % would stand out; "
        "this tests filter and noise model, given the calibrated scale",
    )  # fmt: skip


def agreement(experiment: Experiment, record: Record, calibration: ShotNoise, **options: Any) -> Check | None:
    """Prediction against retrodiction on (at most the first 2^22 samples of) a record; options as for `track`.

    None where it cannot be done: several shots, too short a record, or no effect operator (a state that no later sample
    tells of, such as a line of no strength).
    """
    if record.shots > 1:
        return None
    try:
        steady_effect(discretise(experiment.system, *record.digitiser))
    except (ModelError, np.linalg.LinAlgError):
        return None
    head = record if record.size <= 1 << 22 else record.part(0, 1 << 22)
    every = 1 if options.get("demodulate") is not None else 16
    tracks = [
        track(experiment, head, calibration, "lab", every, estimate=e, innovations=False, **options)
        for e in ("filtered", "retrodicted")
    ]
    if _both_steady(*tracks).sum() < 100:
        return None
    return agreement_test(prediction_retrodiction(tracks[0], tracks[1]))
