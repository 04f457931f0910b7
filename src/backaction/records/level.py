"""The level of a noise floor that lines may stand on: maximum likelihood of the lower part of its bins.

Bins of a floor S are Gamma(K, S/K). Those above c S, c the quantile q of Gamma(K, 1/K), are cut; the rest is a truncated
Gamma whose mean is m S, m = P(K + 1, Kc)/P(K, Kc), and whose information about ln S is K^2 v for each bin, with
v = <r^2> - m^2 the variance of r = P/S. The cut follows the level until both stand still. q = 1 - 1/(2n) costs nothing
where n bins hold a few lines; where many are polluted, weak pollution stays below that cut, and q = 0.9 is taken, at 1.25
times the error. A median would be the quantile 0.5/(1 - e) of the clean bins where a part e is polluted. The floor may be
tilted, ln S linear.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backaction.numerics.matrices import Array
from backaction.records.spectrum import Spectrum
from backaction.records.statistics import chi_square_p, gamma_normal_scores

LOW_CUT = 0.9
"""Quantile of the cut where many bins are polluted."""
MANY, MANY_SHARE = 6, 0.02
"""Bins above the high cut that are many: at least so many, and such a share."""
GROUPS, GROUP = 64, 6
"""The shape of a floor is tested on so many groups of neighbouring bins at most, of so many bins at least."""
CLEAN, STARVED = 0.5, 0.1
"""A floor keeps this share of its bins at least, and at most such a share of groups (or one) keeps less than a quarter."""
UNEVEN_P = 1e-3
"""Kept bins whose scatter has a smaller p are not those of a clean floor."""


@dataclass(frozen=True, eq=False)
class Level:
    """A floor ln S(f) = ln `density` + `slope_per_hz` (f - `reference_hz`); see the module's text.

    `covariance` (2, 2) is that of ln density and the slope (zeros for a slope that was not fitted). `kept` (f,) are the bins
    below the cut, `shape_p` the p-value of their means over groups of neighbours, `scatter_p` that of their distribution.
    `hidden` is the relative excess of the level that pollution of the kept bins by one standard deviation each would make,
    0 where their scatter shows none.
    """

    density: float
    slope_per_hz: float
    reference_hz: float
    covariance: Array
    kept: Array
    shape_p: float
    scatter_p: float
    hidden: float

    def at(self, frequency_hz: Array) -> Array:
        """S(f)."""
        return np.asarray(self.density * np.exp(self.slope_per_hz * (frequency_hz - self.reference_hz)))

    def relative_sd(self, width_hz: float = 0.0) -> float:
        """Error of S, mean square over a band of this width about the reference frequency, hidden pollution included."""
        statistics = self.covariance[0, 0] + self.covariance[1, 1] * width_hz**2 / 12
        return float(np.sqrt(statistics + self.hidden**2))


def floor_level(spectrum: Spectrum, reference_hz: float, tilted: bool = False) -> Level:
    """The floor of a spectrum of equal averages, its lines cut out; `tilted`: with a slope of ln S."""
    f, y, K = spectrum.frequency_hz, spectrum.density, float(spectrum.averages)
    if np.quantile(y, 0.25) <= 0:  # a dark record without any noise
        return Level(0.0, 0.0, reference_hz, np.zeros((2, 2)), np.ones(f.size, dtype=bool), 1.0, 1.0, 0.0)
    span = float(np.ptp(f)) or 1.0
    t = np.column_stack([np.ones(f.size), (f - reference_hz) / span])[:, : 2 if tilted else 1]
    start = _start(t, y, K)
    high = 1 - 0.5 / max(f.size, 20)
    theta, cut = _truncated(t, y, K, start, high), high
    above = np.count_nonzero(~_kept(t, y, K, theta, high))
    if above >= max(MANY, MANY_SHARE * f.size):
        theta, cut = _truncated(t, y, K, start, LOW_CUT), LOW_CUT
    kept, ratio = _kept(t, y, K, theta, cut), y / np.exp(t @ theta)
    mean, variance = _moments(K, cut)
    covariance = np.zeros((2, 2))
    covariance[: t.shape[1], : t.shape[1]] = np.linalg.inv(t[kept].T @ t[kept]) / (K**2 * variance)
    scores = _scores(ratio[kept], K, cut)
    scatter_p = chi_square_p(scores, t.shape[1])
    unit = np.array([1.0, 1 / span])
    excess = float(np.mean(scores**2)) - 1
    hidden = min(max(excess, 0.0), 0.5) / np.sqrt(K) if scatter_p < UNEVEN_P else 0.0
    return Level(
        float(np.exp(theta[0])), float(theta[1] / span) if tilted else 0.0, reference_hz, covariance * np.outer(unit, unit),
        kept, _shape_p(ratio, kept, mean, variance, t.shape[1]), scatter_p, hidden,
    )  # fmt: skip


def _start(t: Array, y: Array, K: float) -> Array:
    """The lower quartile over that of Gamma(K, 1/K), of all bins or, with a slope, of eight groups of them."""
    from scipy import stats

    quartile = float(stats.gamma.ppf(0.25, K, scale=1 / K))
    if t.shape[1] == 1:
        return np.array([np.log(np.quantile(y, 0.25) / quartile)])
    groups = [g for g in np.array_split(np.arange(y.size), 8) if g.size]
    levels = [np.log(np.quantile(y[g], 0.25) / quartile) for g in groups]
    slope, level, *_ = stats.theilslopes(levels, [np.mean(t[g, 1]) for g in groups])
    return np.array([level, slope])


def _truncated(t: Array, y: Array, K: float, theta: Array, cut: float) -> Array:
    """Scoring steps of the truncated likelihood, the cut following the level, until they are far below the errors."""
    mean, variance = _moments(K, cut)
    for step in range(200):
        kept = _kept(t, y, K, theta, cut)
        if np.count_nonzero(kept) < 2 * t.shape[1]:
            break
        ratio = y[kept] / np.exp(t[kept] @ theta)
        # full steps at first; shorter ones where a bin at the cut comes and goes
        move = np.linalg.solve(t[kept].T @ t[kept], t[kept].T @ (ratio - mean)) / (K * variance) / (1 + step // 20)
        theta = theta + np.clip(move, -0.5, 0.5)
        if np.max(np.abs(move)) < 1e-4 / np.sqrt(K * y.size):
            break
    return theta


def _moments(K: float, cut: float) -> tuple[float, float]:
    """Mean and variance of Gamma(K, 1/K) below its quantile `cut`."""
    from scipy import special

    c = special.gammaincinv(K, cut)
    mean = special.gammainc(K + 1, c) / cut
    return float(mean), float((K + 1) / K * special.gammainc(K + 2, c) / cut - mean**2)


def _kept(t: Array, y: Array, K: float, theta: Array, cut: float) -> Array:
    from scipy import special

    return np.asarray(y < np.exp(t @ theta) * special.gammaincinv(K, cut) / K)


def _scores(ratio: Array, K: float, cut: float) -> Array:
    """Standard-normal scores of kept bins, which are a truncated Gamma."""
    from scipy import special

    if cut > LOW_CUT:  # what is cut away is half a bin
        return gamma_normal_scores(ratio, K)
    return np.asarray(special.ndtri(np.clip(special.gammainc(K, K * ratio) / cut, 1e-300, 1 - 1e-16)))


def _shape_p(ratio: Array, kept: Array, mean: float, variance: float, fitted: int) -> float:
    """p-value of the means of kept bins over groups of neighbours: whether the floor has the shape that was fitted."""
    count = int(np.clip(ratio.size // GROUP, 1, GROUPS))
    groups = [g for g in np.array_split(np.arange(ratio.size), count) if g.size]
    full = [g[kept[g]] for g in groups if np.mean(kept[g]) >= 0.25]
    if np.mean(kept) < CLEAN or len(groups) - len(full) > max(1, STARVED * len(groups)):
        return 0.0  # what was cut is no line on this floor: the floor is something else
    scores = np.array([(np.mean(ratio[g]) - mean) / np.sqrt(variance / g.size) for g in full])
    return chi_square_p(scores, fitted) if scores.size > fitted else 1.0
