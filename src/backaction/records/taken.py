"""A record taken in once: its band, resolution, shot-noise unit and spectrum, for everything that follows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from backaction.errors import InputError
from backaction.experiment.experiment import Experiment
from backaction.records.record import Record
from backaction.records.shot_level import ShotNoise, shot_noise
from backaction.records.spectrum import Spectrum, averaged_spectrum
from backaction.systems.poles import mode_band, mode_frequencies, narrowest

BINS_PER_LINE = 8
"""Bins over the narrowest line of the model: finer ones say nothing more, coarser ones wash the line out."""
LEAST_BINS, MOST_BINS = 200, 4000
"""Bins of a band, where the lines are wide or narrow."""
RAW_BINS = 10
"""Raw bins in a bin, at least: fewer averages than ten are far from Gaussian."""
PIECE = 1 << 20
"""Samples that are looked at together."""
USABLE, ROTATING = 0.48, 1e-6
"""The part of the sample rate whose spectrum is used; modes slower than so much of that are modes of a rotating frame."""
DARK_SD, DARK_SHARE, DARK_LEAST_SN = 5.0, 0.1, 1e-4
"""A dark record contradicts the experiment beyond so many sd, such a share of its level, and so much at least."""


@dataclass(frozen=True, eq=False)
class Taken:
    """What is known of a record before any fit: `whole` is its averaged spectrum, in its own unit, averaged once."""

    record: Record
    band_hz: tuple[float, float]
    noise: ShotNoise
    whole: Spectrum
    warnings: tuple[str, ...]

    @property
    def spectrum(self) -> Spectrum:
        """Its bins within the band."""
        return self.whole.band(*self.band_hz)

    def coarser(self, resolution_hz: float) -> Spectrum:
        """The whole spectrum in bins of about `resolution_hz`, merged from its own."""
        return self.whole.coarser(resolution_hz)


def taken(
    experiment: Experiment,
    record: Record,
    shot: Record | None = None,
    dark: Record | None = None,
    resolution_hz: float | None = None,
) -> Taken:
    """Take a record in: 1 SN from its shot and dark records, and its spectrum fine enough for the experiment's lines.

    Raises
    ------
    InputError
        For records that do not fit together, a band outside the spectrum, or a record too short for the resolution.
    """
    band = band_of(experiment, record)
    _alive(record)
    if resolution_hz is not None and not 0 < resolution_hz <= (band[1] - band[0]) / 16:
        raise InputError(
            f"{record.name}: resolution {resolution_hz:g} Hz: must be > 0 and at most a sixteenth of the band "
            f"{band[0]:g}..{band[1]:g} Hz"
        )
    width = resolution_hz or resolution(experiment, record.duration_s, band)
    if width > (band[1] - band[0]) / 16:
        raise InputError(
            f"{record.name}: too short for a resolution of {(band[1] - band[0]) / 16:.4g} Hz, a sixteenth of the band "
            f"{band[0]:g}..{band[1]:g} Hz: needs {16 * RAW_BINS / (band[1] - band[0]):.3g} s, has {record.duration_s:.3g} s"
        )
    whole = averaged_spectrum(record, width)
    noise = shot_noise(record, shot, dark, experiment.electronic_noise_sn, band, whole)
    if noise.floor_known:
        noise = replace(noise, reproducibility=experiment.assumed.shot_reproducibility)
    return Taken(record, band, noise, whole, (*noise.warnings, *dark_conflict(experiment, noise)))


def band_of(experiment: Experiment, record: Record, cut: bool = False) -> tuple[float, float]:
    """The experiment's band, else that of its modes' lines (`mode_band`), all of it for modes of a rotating frame.

    It must lie within the record's spectrum (`cut`: where it is not given, as much of it as does).
    """
    top = USABLE * record.sample_rate_hz
    if experiment.band_hz is not None:
        band = experiment.band_hz
        if cut:
            return band
    else:
        f = np.abs(mode_frequencies(experiment.system, experiment.reported_modes()))
        band = mode_band(experiment.system, experiment.reported_modes())
        if np.max(f) < ROTATING * top and experiment.view.frame.kind != "lab":
            band = (0.0, top)
        elif cut or 1.1 * np.max(f) < top:
            band = (band[0], min(band[1], top))
    centre = record.reference_hz or 0.0
    if max(abs(band[1] - centre), abs(band[0] - centre) if record.is_complex else 0.0) > top:
        raise InputError(
            f"{record.name}: sample rate {record.sample_rate_hz:g} Hz is too low for the band "
            f"{band[0]:g}..{band[1]:g} Hz of '{experiment.name}' (needs more than {band[1] / USABLE:.6g} Hz)"
        )
    return band


def resolution(experiment: Experiment, duration_s: float, band_hz: tuple[float, float]) -> float:
    """An eighth of the narrowest line in the band, at least 10 raw bins wide; from 200 to 4000 bins of the band."""
    line = narrowest(experiment.system, band_hz)
    span = band_hz[1] - band_hz[0]
    line = span / 50 if line is None else line
    return float(max(min(line / BINS_PER_LINE, span / LEAST_BINS), RAW_BINS / duration_s, span / MOST_BINS))


def dark_conflict(experiment: Experiment, noise: ShotNoise) -> list[str]:
    """A sentence where the dark record contradicts the experiment's electronic noise."""
    if noise.dark_sn is None or noise.dark_sd_sn is None:
        return []
    electronic = experiment.electronic_noise_sn
    if abs(noise.dark_sn - electronic) <= max(DARK_SD * noise.dark_sd_sn, DARK_SHARE * noise.dark_sn, DARK_LEAST_SN):
        return []
    detector = experiment.detectors()[0].name if experiment.detectors() else "detector"
    return [
        f"the dark record says electronic noise of {noise.dark_sn:.4f} SN, the experiment {electronic:g} SN; "
        f"if the dark was taken like the record, set {detector}.electronic_noise_sn = {noise.dark_sn:.4f}"
    ]


def _alive(record: Record) -> None:
    for shot in range(record.shots):
        first = record.values(0, 1, shot)[0]
        pieces = (record.values(start, start + PIECE, shot) for start in range(0, record.size, PIECE))
        if not np.isfinite(first) or not all(np.all(values == first) for values in pieces):
            return
    raise InputError(f"{record.name}: every sample is {first:g} {record.unit}: nothing was recorded")
