"""The floor of a shot or dark record: flat, tilted, within the band alone, or without a value there; and the lines on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backaction.errors import InputError
from backaction.numerics.matrices import Array
from backaction.records.level import CLEAN, UNEVEN_P, Level, floor_level
from backaction.records.spectrum import Spectrum
from backaction.records.statistics import ResidualLine, chi_square_p, residual_lines

FLAT_P = 1e-3
"""A floor whose bins have the fitted shape with a smaller p is fitted otherwise: tilted, within the band, or not at all."""
FEW = 12
"""Fewer bins within the band are joined by their neighbours."""
UNSHAPED = 0.01
"""Structure within the band that no slope describes is an error of the unit up to so much, and refused beyond."""
NAMED = 8
"""Lines in a sentence; all of them are in `ShotNoise`."""
CUT = 4.0
"""Bins of a difference farther than so many sd are lines."""
TILTED = 0.002
"""A change of the level over the band that is worth a word."""


@dataclass(frozen=True)
class Floor:
    """The floor of one record in the middle of the band: density, relative sd, slope of its logarithm, lines on it.

    `unshaped` is the relative rms of what a slope does not describe within the band, `flat_p` the p-value of the whole
    spectrum's floor being flat.
    """

    density: float
    sd: float
    slope: float
    unshaped: float
    flat_p: float
    lines: tuple[ResidualLine, ...]
    notes: tuple[str, ...]

    @classmethod
    def of(cls, spectrum: Spectrum, word: str, band_hz: tuple[float, float]) -> Floor:
        """Flat, else tilted, over the whole spectrum; else over the band, with the rms of what no slope describes."""
        middle, width = float(np.mean(band_hz)), band_hz[1] - band_hz[0]
        level = flat = floor_level(spectrum, middle)
        own, notes, more = spectrum, list[str](), 0.0
        if flat.shape_p < FLAT_P:
            told = f"the {word}-noise record is not flat (p = {flat.shape_p:.1g})"
            level = floor_level(spectrum, middle, tilted=True)
            if level.shape_p < FLAT_P:
                own = _near(spectrum, band_hz)
                level = floor_level(own, middle)
                told += f"; its level is taken within {of_band(band_hz)}"
            if level.shape_p < FLAT_P:
                level = floor_level(own, middle, tilted=True)
            if level.shape_p < FLAT_P:
                more = _unshaped(own, level)
                told += f", where it varies by {100 * more:.2g} % about a slope"
            if abs(level.slope_per_hz) * width > TILTED:
                told += f"; it changes by {100 * np.expm1(level.slope_per_hz * width):+.3g} % over the band"
                told += ", which fits follow; a filter takes its middle" if word == "shot" else ""
            notes.append(told)
        if level.density == 0:
            return cls(0.0, 0.0, 0.0, 0.0, 1.0, (), ())
        lines = tuple(residual_lines(spectrum, _shape(spectrum, own, level), spectrum.density.size))
        notes += _said(lines, word)
        if level.scatter_p < UNEVEN_P and more == 0:
            notes.append(
                f"the {word} record's bins scatter more than a clean floor's (p = {level.scatter_p:.1g}) without standing "
                f"out one by one: weak lines may raise its level by about {100 * level.hidden:.2g} %, part of its error"
            )
        sd = float(np.hypot(level.relative_sd(width), more))
        return cls(level.density, sd, level.slope_per_hz, more, flat.shape_p, lines, tuple(notes))


def difference(
    shot: str, spectra: dict[str, Spectrum], band_hz: tuple[float, float], level: Floor
) -> tuple[float, float, float]:
    """(1 SN in the middle of the band, its sd, slope) from shot - dark, bin by bin, where both have the same structure.

    Raises
    ------
    InputError
        If there is no dark record, or its structure is another one.
    """
    out = InputError(
        f"shot record {shot}: its level within {of_band(band_hz)} is neither flat nor a slope: it varies by "
        f"{100 * level.unshaped:.2g} % about the best one, so that 1 SN has no value there; allowed: {100 * UNSHAPED:g} %: "
        "a narrower band, or a shot record without that structure"
    )
    if "dark" not in spectra:
        raise out
    own, dark = (_near(spectra[k], band_hz) for k in ("shot", "dark"))
    tilted = np.column_stack([np.ones(own.density.size), own.frequency_hz - np.mean(band_hz)])
    smooth = np.convolve(np.pad(dark.density, 5, mode="edge"), np.ones(11) / 11, "valid")
    for t in (tilted[:, :1], tilted):
        theta, sd, p = _line_through(t, own.density - dark.density, smooth, float(own.averages))
        if theta[0] > 0 and p >= FLAT_P:
            return float(theta[0]), sd, float(theta[1] / theta[0]) if theta.size > 1 else 0.0
    raise out


def _line_through(t: Array, d: Array, dark: Array, averages: float) -> tuple[Array, float, float]:
    """(coefficients, sd of the first, p-value) of the differences d = shot - dark, which scatter as the model says."""
    theta, kept = np.array([np.median(d), 0.0])[: t.shape[1]], np.ones(d.size, dtype=bool)
    for _ in range(20):
        sd = np.hypot(np.maximum(t @ theta, 0.0) + dark, dark) / np.sqrt(averages)
        kept = np.abs(d - t @ theta) < CUT * sd
        if np.mean(kept) < CLEAN:
            return theta, np.inf, 0.0
        X = t[kept] / sd[kept, None]
        covariance = np.linalg.inv(X.T @ X)
        theta = covariance @ X.T @ (d[kept] / sd[kept])
    scores = ((d - t @ theta) / sd)[kept]
    return theta, float(np.sqrt(covariance[0, 0])), chi_square_p(scores, theta.size)


def _shape(spectrum: Spectrum, own: Spectrum, level: Level) -> Array:
    """What lines stand on: the fitted floor, or a running median where that holds within the band alone."""
    if own is spectrum:
        return level.at(spectrum.frequency_hz)
    reach = min(20, spectrum.density.size // 2 - 1)
    pad = np.pad(spectrum.density, reach, mode="reflect")
    return np.asarray(np.median(np.lib.stride_tricks.sliding_window_view(pad, 2 * reach + 1), axis=-1))


def _near(spectrum: Spectrum, band_hz: tuple[float, float]) -> Spectrum:
    """The bins within the band, or the few nearest to its middle."""
    f = spectrum.frequency_hz
    inside = f[(f >= band_hz[0]) & (f <= band_hz[1])]
    if inside.size < FEW:
        inside = np.sort(f[np.argsort(np.abs(f - np.mean(band_hz)))[:FEW]])
    return spectrum.band(inside[0], inside[-1])


def _unshaped(spectrum: Spectrum, level: Level) -> float:
    """Relative rms of kept bins about the floor beyond their statistics, in groups of neighbours."""
    kept = level.kept
    ratio = (spectrum.density / level.at(spectrum.frequency_hz))[kept]
    groups = np.array_split(ratio, max(2, min(64, ratio.size // 6)))
    means = np.array([np.mean(g) for g in groups])
    statistics = 1 / (float(spectrum.averages) * ratio.size / len(groups))
    return float(np.sqrt(max(np.var(means) - statistics, 0.0)))


def _said(lines: tuple[ResidualLine, ...], word: str) -> list[str]:
    if not lines:
        return []
    named = ", ".join(f"{x.frequency_hz / 1e3:.6g} kHz ({x.excess:.3g} x)" for x in lines[:NAMED])
    named += f" and {len(lines) - NAMED} more" if len(lines) > NAMED else ""
    return [f"lines of the {word} record, left out of its level: {named}"]


def of_band(band_hz: tuple[float, float]) -> str:
    """A band, for people."""
    return f"{band_hz[0]:g}..{band_hz[1]:g} Hz"
