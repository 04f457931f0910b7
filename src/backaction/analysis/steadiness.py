"""Whether the parameters hold still: blocks of a record against the fit of the whole, and rare large innovations."""

from __future__ import annotations

import numpy as np

from backaction.inference.data import Measured
from backaction.inference.density import Density
from backaction.inference.fit import SpectrumFit
from backaction.inference.target import Target
from backaction.numerics.matrices import Array
from backaction.records.record import Record
from backaction.records.spectrum import averaged_spectrum
from backaction.records.statistics import LEVEL, Check, chi_square_p, words
from backaction.records.taken import RAW_BINS
from backaction.systems.poles import narrowest
from backaction.tracking.innovations import settled
from backaction.tracking.tracks import Track

BLOCKS = 8
"""Blocks of a record that are compared."""
LEAST_BLOCKS = 3
"""Fewer say nothing about drifts."""
MEMORIES = 20.0
"""Width x duration of the narrowest line in a block, at least: else its spectrum is one realisation."""
MEASURED = 1.0
"""Information of the whole record (in prior units) beyond which a direction is compared between blocks."""
HEAVY = 0.05
"""Excess kurtosis of the innovations that quantisation alone may cause."""


def steady_parameters(record: Record, fit: SpectrumFit) -> Check | None:
    """Chi-square between blocks of the score s_b = d ln L_b/du at the fit, along the directions that the record measures.

    s_b ~ N(mean, F_b) over steady parameters, F_b the block's expected information: the same as refitting every block
    (du_b = F_b^-1 s_b) without the refits. None where blocks would be too short for the narrowest line.
    """
    own = fit.prepared.fine.campaign.records[0]
    f = own.spectrum.frequency_hz
    half = float(np.max(own.spectrum.resolution_hz)) / 2
    band = (float(f[0]) - half, float(f[-1]) + half)
    line = narrowest(fit.experiment.system, band) or (band[1] - band[0])
    count = min(BLOCKS, int(record.duration_s * line / MEMORIES))
    length = record.size // max(count, 1)
    width = max(2 * half, RAW_BINS * record.sample_rate_hz / max(length, 1))
    if count < LEAST_BLOCKS or width > (band[1] - band[0]) / 16 or record.shots > 1:
        return None
    target, u = fit.prepared.target, fit.prepared.mode.u
    blocks: list[Measured] = []
    for k in range(count):
        spectrum = averaged_spectrum(record.part(k * length, (k + 1) * length), width).band(*band)
        blocks.append(Measured(own.name, own.experiment, spectrum, own.calibration, own.digitiser, line_hz=line))
    density = Density(target.likelihood.program, target.likelihood.likelihood, (blocks[0],), (blocks[0].bins(),))
    scores = np.array([density.with_data((b,)).evaluator().gradient(u)[1] + u for b in blocks])
    F = Target(target.campaign.with_records((blocks[0],)), density).fisher(u, prior=False)
    w, U = np.linalg.eigh((F + F.T) / 2)
    kept = count * w > MEASURED
    if not np.any(kept):
        return None
    z = (scores - scores.mean(axis=0)) @ U[:, kept] / np.sqrt(w[kept])
    p = chi_square_p(z.ravel(), int(np.sum(kept)))
    return _drift(p, z, _steps(scores, F), target)


def _steps(scores: Array, F: Array) -> Array:
    """What each block alone would move each parameter by (prior sd), priors included."""
    return np.linalg.solve(F + np.eye(len(F)), (scores - scores.mean(axis=0)).T).T


def _drift(p: float, z: Array, steps: Array, target: Target) -> Check:
    count, directions = z.shape
    value = float(np.sum(z**2) / ((count - 1) * directions))
    good = words(p, "steady", "NOT steady: something drifts")
    moved = ""
    if p < LEVEL:
        span = np.ptp(steps, axis=0)
        i = int(np.argmax(span))
        moved = f"; most of all {target.labels()[i]}, by {span[i]:.2g} prior sd between blocks"
    return Check(
        "parameters in time", p >= LEVEL, value, p,
        f"parameters of {count} blocks are {good} (p = {p:.2g}; chi-square {value:.3f} per degree of freedom along "
        f"{directions} measured directions{moved})",
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
