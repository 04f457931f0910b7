"""Statistics of averaged spectra: scores of Gamma bins, chi-square p-values, residual lines, a check and its words."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from backaction.numerics.matrices import Array
from backaction.records.spectrum import Spectrum

LEVEL = 8e-4
"""Share of right models that each check refuses where its null distribution holds: twelve share a budget of 1 %."""
LOOKED = 2e-4
"""The same of the search for lines, which looks at two spectra."""


@dataclass(frozen=True)
class Check:
    """One check: its name, whether it passed, its statistic, p-value (or None) and a sentence for people.

    `share` is the part of right models that it may refuse.
    """

    name: str
    passed: bool
    value: float
    p: float | None
    sentence: str
    share: float = LEVEL

    def document(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


@dataclass(frozen=True)
class ResidualLine:
    """A frequency where more noise is left than the model says."""

    frequency_hz: float
    width_hz: float
    excess: float
    """Peak of measured over predicted density."""

    def document(self) -> dict[str, float]:
        """As plain data."""
        return asdict(self)


def words(p: float, good: str, bad: str) -> str:
    """A test fails below p = `LEVEL`; between that and 0.05 the words say that it is close."""
    return good if p >= 0.05 else f"marginally {good}" if p >= LEVEL else bad


def normal_p(z: float, looks: int = 1) -> float:
    """Chance that the largest of `looks` independent standard normal scores is beyond +-|z| (Sidak); NaN of NaN."""
    from scipy import special

    if np.isnan(z):
        return float("nan")
    one = 2 * special.ndtr(-abs(z))
    return float(-np.expm1(looks * np.log1p(-one))) if one < 1 else 1.0


def residual_lines(spectrum: Spectrum, expected: Array, limit: int = 12) -> list[ResidualLine]:
    """Groups of bins whose excess over `expected` is significant at 1e-4 after the number of looks, strongest first.

    Looks at single bins and at running means of 4 and 16 bins, so that a low and broad bump is found too.
    """
    from scipy import special

    ratio = spectrum.density / expected
    N = float(np.median(spectrum.averages))
    level = float(np.median(ratio) * N / special.gammaincinv(N, 0.5))  # the mean of Gamma bins with this median
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
        lines.append(ResidualLine(float(spectrum.frequency_hz[top]), float(width), float(ratio[top] / level)))
    return sorted(lines, key=lambda item: -item.excess)[:limit]


def gamma_normal_scores(ratio: Array, averages: Any) -> Array:
    """Standard-normal scores of measured/expected ratios that are Gamma(N, 1/N) under the model."""
    from scipy import stats

    low = stats.gamma.logcdf(ratio, averages, scale=1 / averages)
    high = stats.gamma.logsf(ratio, averages, scale=1 / averages)
    # the nearer tail, in logarithms: far outliers stay finite
    return np.where(low < high, _score(low), -_score(high))


def _score(log_tail: Array) -> Array:
    from scipy import special

    return np.maximum(special.ndtri_exp(log_tail), -1e3)


def chi_square_p(scores: Array, fitted: int = 0) -> float:
    """p-value of the sum of squared normal scores with len - fitted degrees of freedom."""
    from scipy import stats

    return float(stats.chi2.sf(np.sum(scores**2), max(1, scores.size - fitted)))
