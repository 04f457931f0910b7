"""Does the model fit the record? Tests of the innovations, residual lines, and a sentence for each.

If the filter's model is right its innovations are white with the predicted variance. Spectra of innovations are averaged
periodograms without taper: independent Gamma(N) bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backaction.matrices import Array
from backaction.records import Record, Spectrum, averaged_spectrum, chi_square_p, gamma_normal_scores
from backaction.shot_noise import Calibration
from backaction.tracking import Track


@dataclass(frozen=True)
class Test:
    """One check: its name, whether it passed, its statistic, p-value (or None) and a sentence for people."""

    name: str
    passed: bool
    value: float
    p: float | None
    sentence: str


@dataclass(frozen=True)
class Line:
    """A frequency where more noise is left than the model says."""

    frequency_hz: float
    width_hz: float
    excess: float
    """Peak of measured over predicted density."""


def innovation_spectrum(track: Track, resolution_hz: float) -> Spectrum:
    """Density of the normalised innovations after the filter's start-up, 1 where the model is right."""
    e = settled(track) / np.sqrt(track.innovation_variance_sn)
    record = Record(e, track.sample_rate_hz, unit="1", name="innovations")
    spectrum = averaged_spectrum(record, resolution_hz, taper=0.0)
    return spectrum.scaled(track.sample_rate_hz, "1")


def settled(track: Track) -> Array:
    """Innovations after 20 memory times of the filter (at most half of the record)."""
    skip = min(int(20 * track.memory_s * track.sample_rate_hz), track.innovation.size // 2)
    return track.innovation[skip:].astype(float)


def innovation_tests(track: Track, calibration: Calibration, band_hz: tuple[float, float]) -> list[Test]:
    """Variance against prediction, whiteness over the whole spectrum, flatness within the band."""
    e = settled(track) / np.sqrt(track.innovation_variance_sn)
    ratio = float(np.mean(e * e))
    scale_sd = calibration.relative_sd if calibration.floor_known else 0.0
    sd = float(np.hypot(np.sqrt(2 / e.size), scale_sd))
    allowed = max(0.01, 4 * sd)
    out = [
        Test(
            "innovation variance",
            abs(ratio - 1) <= allowed,
            ratio,
            None,
            f"innovation variance is {ratio:.4f} of the prediction (statistical and calibration error {sd:.4f}; "
            f"allowed {allowed:.3f})",
        )
    ]
    duration = e.size / track.sample_rate_hz
    for name, low, high, bins in (
        ("innovation whiteness", 0.0, track.sample_rate_hz / 2, 400),
        ("innovation flatness in band", band_hz[0], band_hz[1], 200),
    ):
        width = max((high - low) / bins, 30 / duration)
        s = innovation_spectrum(track, width).band(low, high)
        level = s.density / np.mean(s.density)
        p = chi_square_p(gamma_normal_scores(level, s.averages), 1)
        spread = float(np.std(level))
        expected = float(1 / np.sqrt(s.averages))
        where = "over the whole spectrum" if low == 0 else f"within {low / 1e3:.6g}..{high / 1e3:.6g} kHz"
        good = words(p, "consistent with white", "NOT white: the model does not fit this record")
        out.append(
            Test(
                name,
                p >= 1e-3,
                spread,
                p,
                f"innovations {where} are {good} (p = {p:.2g}; scatter of {s.density.size} bins {spread:.4f}, "
                f"statistics alone {expected:.4f})",
            )
        )
    return out


def words(p: float, good: str, bad: str) -> str:
    """A test fails below p = 0.001; between that and 0.05 the words say that it is close."""
    return good if p >= 0.05 else f"marginally {good}" if p >= 1e-3 else bad


def residual_lines(spectrum: Spectrum, expected: Array, limit: int = 12) -> list[Line]:
    """Groups of bins whose excess over `expected` is significant at 1e-4 after the number of looks, strongest first.

    Looks at single bins and at running means of 4 and 16 bins, so that a low and broad bump is found too.
    """
    from scipy import special

    ratio = spectrum.density / expected
    level = float(np.median(ratio))
    threshold = -special.ndtri(1e-4 / (3 * ratio.size))
    groups: list[Array] = []
    for width in (1, 4, 16):
        if width > ratio.size:
            continue
        mean = np.convolve(ratio / level, np.ones(width) / width, "valid")
        found = np.zeros(ratio.size, dtype=bool)
        for k in np.flatnonzero(gamma_normal_scores(mean, spectrum.averages * width) > threshold):
            found[k : k + width] = True
        hot = np.flatnonzero(found)
        new = np.split(hot, np.flatnonzero(np.diff(hot) > 4) + 1) if hot.size else []
        # a broad bump counts only where no narrower line was found
        groups += [g for g in new if not any(np.intersect1d(g, other).size for other in groups)]
    lines = []
    for g in groups:
        top = g[int(np.argmax(ratio[g]))]
        width = (g[-1] - g[0] + 1) * spectrum.resolution_hz
        lines.append(Line(float(spectrum.frequency_hz[top]), float(width), float(ratio[top] / level)))
    return sorted(lines, key=lambda item: -item.excess)[:limit]
