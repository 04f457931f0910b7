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


def shot_noise(
    record: Record, shot: Record | None, dark: Record | None, electronic_sn: float, band_hz: tuple[float, float]
) -> ShotNoise:
    """1 SN = (shot - dark) in the record's own unit, with the statistical error of the two levels.

    Levels are referred to the detector, before the front end. They are taken over the whole spectrum where the shot
    record is flat, else over `band_hz` alone. The dark is never subtracted from the record. Without a dark record
    1 SN = shot/(1 + `electronic_sn`), the experiment's own electronic noise; without a shot record the record keeps
    its own unit.
    """
    if shot is None:
        return ShotNoise(1.0, np.inf, record.unit, floor_known=False)
    for other, word in ((shot, "shot"), (dark, "dark")):
        if other is None:
            continue
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
    notes: list[str] = []
    for other, word in ((shot, "shot"), (dark, "dark")):
        if other is None:
            continue
        part = other.clipped_fraction()
        if part > 1e-3:
            raise InputError(
                f"{word} record {other.name}: {100 * part:.3g} % of its samples are clipped: "
                "its level is not that of the noise"
            )
        if part > 0:
            notes.append(f"{100 * part:.2g} % of the {word} record's samples are clipped")
    spectra = {}
    for key, other in (("shot", shot), ("dark", dark)):
        if other is None:
            continue
        wide = max(record.sample_rate_hz / 400, 40 / other.duration_s)
        spectra[key] = averaged_spectrum(other, wide)
    if record.front_end_hz:
        # refer the levels to the detector: what the front end passes of white noise
        for key, s in spectra.items():
            passed = front_end_response(record.digitiser, s.frequency_hz)
            spectra[key] = replace(s, density=s.density / passed)
    s = spectra["shot"]
    flat_p = _flat_p(s)
    use = s
    if flat_p < 1e-3:
        use = s.band(*band_hz)
        notes.append(
            f"the shot-noise record is not flat (p = {flat_p:.1g}); its level is taken within {_band(band_hz)}"
        )
    level = float(np.mean(use.density))
    variance = level**2 / (use.averages * use.density.size)
    dark_level = dark_sd = 0.0
    if "dark" in spectra:
        d = spectra["dark"] if flat_p >= 1e-3 else spectra["dark"].band(*band_hz)
        dark_level = float(np.mean(d.density))
        dark_sd = dark_level / np.sqrt(d.averages * d.density.size)
        density = level - dark_level
        variance += dark_sd**2
    else:
        density = level / (1 + electronic_sn)
        notes.append("no dark record: 1 SN = shot/(1 + electronic_noise_sn of the experiment)")
    if density <= 0:
        raise InputError(f"shot record {shot.name}: not above the dark record; were they exchanged?")
    sd = float(np.sqrt(variance)) / density
    own = averaged_spectrum(record, max((band_hz[1] - band_hz[0]) / 50, 40 / record.duration_s)).band(*band_hz)
    reference = averaged_spectrum(shot, own.resolution_hz) if 40 / shot.duration_s <= own.resolution_hz else None
    if reference is not None and np.mean(own.density) < 0.8 * np.mean(reference.band(*band_hz).density):
        notes.append(
            f"{record.name} lies below the shot record {shot.name} within {_band(band_hz)}: "
            "squeezed light, or were they exchanged?"
        )
    if dark is None:
        return ShotNoise(density, sd, record.unit, flat_p=flat_p, warnings=tuple(notes))
    return ShotNoise(density, sd, record.unit, dark_level / density, dark_sd / density, flat_p, True, tuple(notes))


def calibrate(*arguments: Any, **options: Any) -> ShotNoise:
    """The former name of `shot_noise`; to go with the next release."""
    warnings.warn("backaction.calibrate is now backaction.shot_noise", DeprecationWarning, stacklevel=2)
    return shot_noise(*arguments, **options)


def _flat_p(spectrum: Spectrum) -> float:
    ratio = spectrum.density / np.mean(spectrum.density)
    return chi_square_p(gamma_normal_scores(ratio, spectrum.averages), 1)


def _band(band_hz: tuple[float, float]) -> str:
    return f"{band_hz[0]:g}..{band_hz[1]:g} Hz"
