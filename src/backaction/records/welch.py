"""How a spectrum was estimated, and what follows: bins that are correlated, and lines that are widened.

Averages of M windowed periodograms of length L, one every D samples, have away from 0 and Nyquist
    Cov(P_a, P_b) = S_a S_b c(delta),  c(delta) = (1/M) sum_{|k| < M} (1 - |k|/M) |rho(k D, delta)|^2,
    rho(s, delta) = sum_t w_t w_{t+s} e^{2 pi i delta t/L} / sum_t w_t^2,
with delta the distance in units of 1/L (exact for white noise, and where S is smooth over the window's width). 1/c(0)
is the effective number of averages. <P> is S convolved with |W|^2, the window's power response. Zero padding by Z puts
Z bins into 1/L, a running mean over m bins convolves c with a triangle. A quantity that is smooth over bins has sum_j rho_j
times the variance that independent bins would give it. P. D. Welch, IEEE Trans. Audio Electroacoust. 15, 70 (1967).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from backaction.numerics.matrices import Array

COSINES = {
    "rectangular": (1.0,),
    "uniform": (1.0,),
    "hann": (0.5, 0.5),
    "hanning": (0.5, 0.5),
    "hamming": (0.54, 0.46),
    "bmh": (0.35875, 0.48829, 0.14128, 0.01168),
    "blackman-harris": (0.35875, 0.48829, 0.14128, 0.01168),
    "blackmanharris": (0.35875, 0.48829, 0.14128, 0.01168),
    "blackman": (0.42, 0.5, 0.08),
    "flattop": (0.21557895, 0.41663158, 0.277263158, 0.083578947, 0.006947368),
    "flat top": (0.21557895, 0.41663158, 0.277263158, 0.083578947, 0.006947368),
}
"""Windows sum_k (-1)^k a_k cos 2 pi k t/L by name: BMH is the four-term Blackman-Harris window, flattop the five-term one of
spectrum analysers."""
LENGTH = 256
"""Samples by which a window's shape is taken."""
LEAST = 1e-4
"""Correlations below this, and those of bins still farther apart, are none."""
SIDE, FAR_SIDE, TAILS = 6, 60, 3.0
"""Widths 1/L to both sides over which |W|^2 is taken, that of a rectangular window, and what its tails count as a width."""


def enbw(window: str) -> float:
    """Equivalent noise bandwidth in bins: a line's level and a noise level divide by different numbers."""
    a = np.array(COSINES[window])
    return float(1 + 0.5 * np.sum((a[1:] / a[0]) ** 2))


@dataclass(frozen=True)
class Welch:
    """A spectrum of `segments` periodograms that overlap by a part `overlap`, padded to `padding` times their length.

    `smoothing` is the number of neighbouring bins in a running mean. `segments` are 1/c(0) times the independent
    averages only where nothing overlaps; see the module's text.
    """

    window: str = "rectangular"
    segments: float = 1.0
    overlap: float = 0.0
    padding: float = 1.0
    smoothing: int = 1

    @property
    def averages(self) -> float:
        """Effective averages 1/c(0) of a bin."""
        return float(1 / _covariance(self)[0])

    @property
    def neighbours(self) -> tuple[float, ...]:
        """Correlations of bins 1, 2, ... apart, to the last that counts."""
        c = _covariance(self)
        return tuple((c[1:] / c[0]).tolist())

    @property
    def correlation(self) -> float:
        """1 + 2 sum_j rho_j: a mean over many bins has so many times the variance of one over independent bins."""
        return float(1 + 2 * sum(self.neighbours))

    def widened(self, model: Callable[[Array], list[Array]], frequency_hz: Array, line_hz: float) -> list[Array]:
        """Densities of a model as this estimate sees them: convolved with |W|^2 and the running mean.

        `model` gives densities on any axis, `frequency_hz` is the uniform one of the bins, `line_hz` the width of the
        narrowest line: a model that is smooth over the window is taken at the bins alone, as it is on an axis that no Welch
        estimate has (not uniform but for bins left out). Frequencies from 0 on are those of a real current.
        """
        bin_hz = float(np.median(np.diff(frequency_hz)))
        inverse = bin_hz * self.padding  # 1/L
        place = (frequency_hz - frequency_hz[0]) / bin_hz
        index = np.round(place).astype(int)
        if line_hz > SMOOTH * inverse * self.width or np.max(np.abs(place - index)) > 0.1:
            return model(frequency_hz)
        fine = int(np.ceil(max(POINTS / self.padding, LINE_POINTS * bin_hz / max(line_hz, inverse / MOST))))
        weights = _response(self, fine)
        side = (weights.size - 1) // 2
        axis = frequency_hz[0] + bin_hz / fine * np.arange(-side, index[-1] * fine + side + 1)
        axis = np.abs(axis) if frequency_hz[0] >= 0 else axis
        return [np.convolve(np.asarray(S), weights, "valid")[index * fine] for S in model(axis)]

    @property
    def width(self) -> float:
        """What it adds to a bin's width, in units of 1/L.

        0 for a rectangular window alone, which is taken to say that bins are means over their widths; with overlap or
        padding it is a window with the tails of sinc^2.
        """
        own = np.sqrt(enbw(self.window) ** 2 - 1)
        if own == 0 and (self.overlap or self.padding > 1):
            own = TAILS
        return float(own + (self.smoothing - 1) / self.padding)


SMOOTH = 20.0
"""A line wider than so many widths of the window is seen as it is (to 3e-3 of its height)."""
POINTS, LINE_POINTS, MOST = 3, 3, 16
"""Points within 1/L, and within the narrowest line where that is narrower, down to 1/MOST of 1/L."""


@functools.lru_cache(64)
def _covariance(w: Welch) -> Array:
    """The covariance c at distances of 0, 1, 2, ... bins, cut where nothing follows."""
    shape = _shape(w.window)
    hop = max(1, round(LENGTH * (1 - w.overlap)))
    reach = LENGTH * w.padding
    bins = int(np.ceil(8 * SIDE * w.padding)) + w.smoothing
    turn = np.exp(2j * np.pi * np.outer(np.arange(bins), np.arange(LENGTH)) / reach)
    c = np.zeros(bins)
    for k in range(min(int(np.ceil(LENGTH / hop)), max(1, int(np.ceil(w.segments))))):
        s = k * hop
        if s >= LENGTH:
            break
        rho = turn[:, : LENGTH - s] @ (shape[: LENGTH - s] * shape[s:]) / np.sum(shape**2)
        c += (1 if k == 0 else 2) * max(0.0, 1 - k / w.segments) * np.abs(rho) ** 2
    c /= w.segments
    if w.smoothing > 1:
        m = w.smoothing
        both = np.concatenate([c[:0:-1], c])
        triangle = (m - np.abs(np.arange(-m + 1, m))) / m**2
        c = np.convolve(both, triangle, "same")[bins - 1 :]
    told = np.flatnonzero(c > LEAST * c[0])
    return np.asarray(c[: told[-1] + 1])


@functools.lru_cache(64)
def _response(w: Welch, fine: int) -> Array:
    """Weights of |W|^2 on a grid of 1/`fine` bins, over `SIDE` widths 1/L, with the running mean."""
    side = int(np.ceil((SIDE if enbw(w.window) > 1 else FAR_SIDE) * w.padding * fine))
    at = np.arange(-side, side + 1) / (fine * w.padding)
    shape = _shape(w.window)
    power = np.abs(np.exp(2j * np.pi * np.outer(at, np.arange(LENGTH) + 0.5) / LENGTH) @ shape) ** 2
    if w.smoothing > 1:
        comb = np.zeros((w.smoothing - 1) * fine + 1)
        comb[::fine] = 1.0
        power = np.convolve(power, comb)
        if power.size % 2 == 0:  # an even number of bins: its middle lies between two points
            power = (np.append(power, 0.0) + np.append(0.0, power)) / 2
    return np.asarray(power / np.sum(power))


def _shape(window: str) -> Array:
    turn = 2 * np.pi * (np.arange(LENGTH) + 0.5) / LENGTH
    return np.asarray(sum((-1) ** k * a * np.cos(k * turn) for k, a in enumerate(COSINES[window])))
