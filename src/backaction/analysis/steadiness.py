"""Whether the parameters hold still within a record, and whether its innovations are Gaussian."""

from __future__ import annotations

import numpy as np

from backaction.inference.fit import SpectrumFit
from backaction.inference.target import SCALE
from backaction.records.record import Record
from backaction.records.statistics import LEVEL, Check, chi_square_p, words
from backaction.tracking.drift import LEAST_SEGMENTS, drift_scores, slow_p
from backaction.tracking.innovations import Monitor, settled
from backaction.tracking.tracks import Track

SEGMENTS = 20
"""Segments of a record that are compared."""
WHOLE = 0.9
"""Evenness of a segment's samples below which a gap correlates its frequencies: it is left out."""
MEASURED = 1.0
"""Information of the whole record (in prior units) beyond which a parameter or direction is compared."""
HEAVY = 0.05
"""Excess kurtosis of the innovations that quantisation alone may cause."""


def steady_parameters(followed: Track, record: Record, fit: SpectrumFit, band_hz: tuple[float, float]) -> Check | None:
    """Whether segments of the record want other values of the fitted parameters than the whole.

    Scores s_t and information I_t of every segment come from the innovations (`tracking.drift`): I_t^-1 s_t is what a
    refit of the segment would change. Their chi-square between segments along the measured directions finds any change, the
    slow cosines of one parameter's scores a drift of it; the smaller p counts twice. None where
    nothing is measured, or gaps leave too few segments.
    """
    target, u = fit.prepared.target, fit.prepared.mode.u
    own = {n: s for n, s in zip(target.names, np.diag(target.slopes(u)), strict=True) if n in fit.experiment.fields()}
    names = [*own, SCALE]
    monitor = Monitor.of(followed, band_hz, SEGMENTS)
    scores, information = drift_scores(monitor, [fit.experiment], list(own), record.digitiser, gain=True)
    size = np.array([*own.values(), 1.0])  # from theta to coordinates whose prior is standard normal
    whole = monitor.complete[np.min(monitor.evenness[monitor.complete], axis=1) > WHOLE]
    count = whole.size
    if count < LEAST_SEGMENTS:
        return None
    scores, information = (scores * size)[whole], (information * np.outer(size, size))[whole]
    w, U = np.linalg.eigh(np.mean(information, axis=0))
    kept = count * w > MEASURED
    if not np.any(kept):
        return None
    z = (scores - scores.mean(axis=0)) @ U[:, kept] / np.sqrt(w[kept])
    alone = {
        n: slow_p(scores[:, j], information[:, j, j])
        for j, n in enumerate(names)
        if np.sum(information[:, j, j]) > MEASURED
    }
    worst = min(alone, key=lambda n: alone[n])
    parts = chi_square_p(z.ravel(), int(np.sum(kept))), float(-np.expm1(len(alone) * np.log1p(-alone[worst])))
    p = min(1.0, 2 * min(parts))
    value = float(np.sum(z**2) / ((count - 1) * np.sum(kept)))
    good = words(p, "steady", f"NOT steady: something drifts, most of all {worst}")
    return Check(
        "parameters in time", p >= LEVEL, value, p,
        f"parameters are {good} (p = {p:.2g}; chi-square {value:.3f} per degree of freedom in {count} segments x "
        f"{np.sum(kept)} measured directions; slowest drift of one: p = {parts[1]:.2g}, {worst})",
    )  # fmt: skip


def regular_innovations(followed: Track) -> Check:
    """Whether innovations are Gaussian: excess kurtosis, and the largest against its chance among so many."""
    from scipy import special

    e = settled(followed)
    e = e[np.isfinite(e)] / np.sqrt(followed.innovation_variance_sn)
    kurtosis = float(np.mean(e**4) / np.mean(e**2) ** 2 - 3)
    largest = float(np.max(np.abs(e)) / np.sqrt(np.mean(e**2)))
    one = float(min(1.0, 2 * e.size * special.ndtr(-largest)))
    flat = float(2 * special.ndtr(-max(0.0, abs(kurtosis) - HEAVY) / np.sqrt(24 / e.size)))
    p = min(1.0, 2 * min(one, flat))
    good = words(p, "Gaussian", "NOT Gaussian: glitches, clipping, or a detector that is not linear")
    return Check(
        "innovation distribution", p >= LEVEL, kurtosis, p,
        f"innovations are {good} (p = {p:.2g}; excess kurtosis {kurtosis:+.3f}, the largest {largest:.1f} sd)",
    )  # fmt: skip
