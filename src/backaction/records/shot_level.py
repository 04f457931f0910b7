"""The shot-noise unit of a record, from a shot and a dark record taken alike."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from backaction.errors import InputError
from backaction.numerics.matrices import Array
from backaction.records.floors import UNSHAPED, Floor, difference, of_band
from backaction.records.record import Record
from backaction.records.spectrum import Spectrum, averaged_spectrum
from backaction.records.statistics import ResidualLine
from backaction.systems.sampled import front_end_response

BINS, LEAST_AVERAGES = 2000, 40
"""Bins of the spectrum of a real shot record, of at least so many averages: polluted bins are told from the others."""
CLIPPED = 1e-3
"""Share of clipped samples beyond which a level is not that of the noise."""
BELOW = 0.8
"""A record below so much of the shot record is worth a word."""


@dataclass(frozen=True)
class ShotNoise:
    """What 1 shot-noise unit is for a record: its two-sided density, with relative error; and the dark level.

    Where the shot record is tilted, ln of the unit is linear in frequency with `slope_per_hz`, and `density` is its value at
    `reference_hz`, the middle of the band. `shot_lines` and `dark_lines` stand on the floors and are no part of the levels;
    `flat_p` is the p-value of the shot record's floor being flat, its lines left out. `floor_known` is False where no shot
    record was given: then `density` is 1 unit^2/Hz by name only.
    """

    density: float
    relative_sd: float
    unit: str
    dark_sn: float | None = None
    dark_sd_sn: float | None = None
    flat_p: float | None = None
    floor_known: bool = True
    warnings: tuple[str, ...] = ()
    slope_per_hz: float = 0.0
    reference_hz: float = 0.0
    shot_lines: tuple[ResidualLine, ...] = ()
    dark_lines: tuple[ResidualLine, ...] = ()
    reproducibility: float = 0.0

    @property
    def scale_sd(self) -> float:
        """Relative error of the unit for this record: statistics, and how well such a level repeats."""
        return float(np.hypot(self.relative_sd, self.reproducibility))

    def at(self, frequency_hz: Array) -> Array:
        """The unit at these frequencies."""
        return np.asarray(self.density * np.exp(self.slope_per_hz * (frequency_hz - self.reference_hz)))


def shot_noise(
    record: Record,
    shot: Record | None,
    dark: Record | None,
    electronic_sn: float,
    band_hz: tuple[float, float],
    spectrum: Spectrum | None = None,
) -> ShotNoise:
    """1 SN = (shot - dark) in the record's own unit, with the statistical error of the two levels.

    Levels are referred to the detector, before the front end, and are those of the floors (`level.floor_level`): lines are
    cut out and named. They are taken over the whole spectrum where it is flat or tilted, else over `band_hz` alone. The
    dark is never subtracted from the record. Without a dark record 1 SN = shot/(1 + `electronic_sn`), the experiment's own
    electronic noise; without a shot record the record keeps its own unit. `spectrum` is the record's, where it is averaged
    already.

    Raises
    ------
    InputError
        For records that were not taken alike, are clipped, or were exchanged, and for a shot record whose floor within the
        band is neither flat nor tilted by more than 1 %.
    """
    if shot is None:
        return ShotNoise(1.0, np.inf, record.unit, floor_known=False)
    others = {"shot": shot} | ({} if dark is None else {"dark": dark})
    notes: list[str] = []
    for word, other in others.items():
        _taken_alike(record, other, word)
        notes += _clipped(other, word)
    raw = _averaged(record, others)
    spectra = _at_detector(record, raw)
    floors = {k: Floor.of(s, k, band_hz) for k, s in spectra.items()}
    notes += [n for floor in floors.values() for n in floor.notes]
    level, dark_level = floors["shot"], floors.get("dark")
    density, slope, sd = level.density, level.slope, level.sd * level.density
    if level.unshaped > UNSHAPED:
        density, sd, slope = difference(shot.name, spectra, band_hz, level)
        notes.append(
            "shot and dark record have the same structure; 1 SN is the level of their difference within the band"
        )
    elif dark_level is not None:
        density -= dark_level.density
        sd = float(np.hypot(sd, dark_level.sd * dark_level.density))
        slope = (level.density * slope - dark_level.density * dark_level.slope) / density if density > 0 else slope
    else:
        density, sd = density / (1 + electronic_sn), sd / (1 + electronic_sn)
        notes.append("no dark record: 1 SN = shot/(1 + electronic_noise_sn of the experiment)")
    if density <= 0:
        raise InputError(f"shot record {shot.name}: not above the dark record; were they exchanged?")
    notes += _below(record, shot, spectrum, raw["shot"], band_hz)
    found = ShotNoise(
        density, sd / density, record.unit, flat_p=level.flat_p, warnings=tuple(notes), slope_per_hz=slope,
        reference_hz=float(np.mean(band_hz)), shot_lines=level.lines,
    )  # fmt: skip
    if dark_level is None:
        return found
    dark_sn = dark_level.density / density
    return replace(found, dark_sn=dark_sn, dark_sd_sn=dark_level.sd * dark_sn, dark_lines=dark_level.lines)


def _averaged(record: Record, others: dict[str, Record]) -> dict[str, Spectrum]:
    """Spectra fine enough that polluted bins are told from the others."""
    width = max(record.sample_rate_hz / (2 * BINS), LEAST_AVERAGES / min(o.duration_s for o in others.values()))
    raw = {k: averaged_spectrum(o, width) for k, o in others.items()}
    for word, spectrum in raw.items():
        if not spectrum.density.size:
            raise InputError(f"{word} record {others[word].name}: {others[word].size} samples: too short for a level")
    return raw


def _taken_alike(record: Record, other: Record, word: str) -> None:
    if other.sample_rate_hz != record.sample_rate_hz:
        raise InputError(
            f"{word} record {other.name}: sample rate {other.sample_rate_hz:g} Hz, the record has "
            f"{record.sample_rate_hz:g} Hz: they must be taken alike"
        )
    if other.front_end_hz != record.front_end_hz:
        raise InputError(
            f"{word} record {other.name}: front end {other.front_end_hz}, the record has {record.front_end_hz}"
        )
    if other.unit != record.unit:
        raise InputError(f"{word} record {other.name}: unit {other.unit}, the record has {record.unit}")


def _clipped(other: Record, word: str) -> list[str]:
    part = other.clipped_fraction()
    if part > CLIPPED:
        raise InputError(
            f"{word} record {other.name}: {100 * part:.3g} % of its samples are clipped: "
            "its level is not that of the noise"
        )
    return [f"{100 * part:.2g} % of the {word} record's samples are clipped"] if part > 0 else []


def _at_detector(record: Record, spectra: dict[str, Spectrum]) -> dict[str, Spectrum]:
    """Spectra referred to the detector: over what the front end passes of white noise."""
    if not record.front_end_hz:
        return spectra
    passed = {k: front_end_response(record.digitiser, s.frequency_hz) for k, s in spectra.items()}
    return {k: replace(s, density=s.density / passed[k]) for k, s in spectra.items()}


def _below(
    record: Record, shot: Record, spectrum: Spectrum | None, level: Spectrum, band_hz: tuple[float, float]
) -> list[str]:
    """A sentence where the record lies below the shot record within the band: squeezed, or exchanged."""
    wide = max((band_hz[1] - band_hz[0]) / 50, 40 / record.duration_s)
    own = (averaged_spectrum(record, wide) if spectrum is None else spectrum).band(*band_hz)
    inside = level.density[(level.frequency_hz >= band_hz[0]) & (level.frequency_hz <= band_hz[1])]
    if not inside.size:  # the shot record's bins are wider than the band
        inside = level.density[[int(np.argmin(np.abs(level.frequency_hz - np.mean(band_hz))))]]
    if np.mean(own.density) >= BELOW * np.median(inside):  # a line of the shot record is not its level
        return []
    return [
        f"{record.name} lies below the shot record {shot.name} within {of_band(band_hz)}: "
        "squeezed light, or were they exchanged?"
    ]


def calibrate(*arguments: Any, **options: Any) -> ShotNoise:
    """The former name of `shot_noise`; to go with the next release."""
    warnings.warn("backaction.calibrate is now backaction.shot_noise", DeprecationWarning, stacklevel=2)
    return shot_noise(*arguments, **options)
