"""The shot-noise unit of a record, from a shot and a dark record taken alike."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from backaction.errors import InputError
from backaction.records.record import Record
from backaction.records.spectrum import Spectrum, averaged_spectrum
from backaction.records.statistics import chi_square_p, gamma_normal_scores
from backaction.systems.sampled import front_end_response

FLAT_P = 1e-3
"""A shot record whose spectrum is white with a smaller p is used within the band alone."""
CLIPPED = 1e-3
"""Share of clipped samples beyond which a level is not that of the noise."""
BELOW = 0.8
"""A record below so much of the shot record is worth a word."""


@dataclass(frozen=True)
class ShotNoise:
    """What 1 shot-noise unit is for a record: its two-sided density, with relative error; and the dark level.

    `floor_known` is False where no shot record was given: then `density` is 1 unit^2/Hz by name only.
    """

    density: float
    relative_sd: float
    unit: str
    dark_sn: float | None = None
    dark_sd_sn: float | None = None
    flat_p: float | None = None
    floor_known: bool = True
    warnings: tuple[str, ...] = ()
    reproducibility: float = 0.0

    @property
    def scale_sd(self) -> float:
        """Relative error of the unit for this record: statistics, and how well such a level repeats."""
        return float(np.hypot(self.relative_sd, self.reproducibility))


def shot_noise(
    record: Record,
    shot: Record | None,
    dark: Record | None,
    electronic_sn: float,
    band_hz: tuple[float, float],
    spectrum: Spectrum | None = None,
) -> ShotNoise:
    """1 SN = (shot - dark) in the record's own unit, with the statistical error of the two levels.

    Levels are referred to the detector, before the front end. They are taken over the whole spectrum where the shot
    record is flat, else over `band_hz` alone. The dark is never subtracted from the record. Without a dark record
    1 SN = shot/(1 + `electronic_sn`), the experiment's own electronic noise; without a shot record the record keeps
    its own unit. `spectrum` is the record's, where it is averaged already.

    Raises
    ------
    InputError
        For records that were not taken alike, are clipped, or were exchanged.
    """
    if shot is None:
        return ShotNoise(1.0, np.inf, record.unit, floor_known=False)
    others = {"shot": shot} | ({} if dark is None else {"dark": dark})
    notes: list[str] = []
    for word, other in others.items():
        _taken_alike(record, other, word)
        notes += _clipped(other, word)
    raw = {k: averaged_spectrum(o, max(record.sample_rate_hz / 400, 40 / o.duration_s)) for k, o in others.items()}
    spectra = {k: _at_detector(record, s) for k, s in raw.items()}
    flat_p = _flat_p(spectra["shot"])
    if flat_p < FLAT_P:
        notes.append(
            f"the shot-noise record is not flat (p = {flat_p:.1g}); its level is taken within {_band(band_hz)}"
        )
    levels = {k: _level(s if flat_p >= FLAT_P else s.band(*band_hz)) for k, s in spectra.items()}
    level, variance = levels["shot"]
    if dark is not None:
        density = level - levels["dark"][0]
        variance += levels["dark"][1]
    else:
        density = level / (1 + electronic_sn)
        notes.append("no dark record: 1 SN = shot/(1 + electronic_noise_sn of the experiment)")
    if density <= 0:
        raise InputError(f"shot record {shot.name}: not above the dark record; were they exchanged?")
    sd = float(np.sqrt(variance)) / density
    notes += _below(record, shot, spectrum, raw["shot"], band_hz)
    if dark is None:
        return ShotNoise(density, sd, record.unit, flat_p=flat_p, warnings=tuple(notes))
    dark_level, dark_sd = levels["dark"][0], float(np.sqrt(levels["dark"][1]))
    return ShotNoise(density, sd, record.unit, dark_level / density, dark_sd / density, flat_p, True, tuple(notes))


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


def _at_detector(record: Record, spectrum: Spectrum) -> Spectrum:
    """The spectrum referred to the detector: over what the front end passes of white noise."""
    if not record.front_end_hz:
        return spectrum
    return replace(spectrum, density=spectrum.density / front_end_response(record.digitiser, spectrum.frequency_hz))


def _level(spectrum: Spectrum) -> tuple[float, float]:
    """Mean density and its variance."""
    level = float(np.mean(spectrum.density))
    return level, level**2 / (spectrum.averages * spectrum.density.size)


def _below(
    record: Record, shot: Record, spectrum: Spectrum | None, level: Spectrum, band_hz: tuple[float, float]
) -> list[str]:
    """A sentence where the record lies below the shot record within the band: squeezed, or exchanged."""
    wide = max((band_hz[1] - band_hz[0]) / 50, 40 / record.duration_s)
    own = (averaged_spectrum(record, wide) if spectrum is None else spectrum).band(*band_hz)
    inside = level.density[(level.frequency_hz >= band_hz[0]) & (level.frequency_hz <= band_hz[1])]
    if not inside.size:  # the shot record's bins are wider than the band
        inside = level.density[[int(np.argmin(np.abs(level.frequency_hz - np.mean(band_hz))))]]
    if np.mean(own.density) >= BELOW * np.mean(inside):
        return []
    return [
        f"{record.name} lies below the shot record {shot.name} within {_band(band_hz)}: "
        "squeezed light, or were they exchanged?"
    ]


def calibrate(*arguments: Any, **options: Any) -> ShotNoise:
    """The former name of `shot_noise`; to go with the next release."""
    warnings.warn("backaction.calibrate is now backaction.shot_noise", DeprecationWarning, stacklevel=2)
    return shot_noise(*arguments, **options)


def _flat_p(spectrum: Spectrum) -> float:
    ratio = spectrum.density / np.mean(spectrum.density)
    return chi_square_p(gamma_normal_scores(ratio, spectrum.averages), 1)


def _band(band_hz: tuple[float, float]) -> str:
    return f"{band_hz[0]:g}..{band_hz[1]:g} Hz"
