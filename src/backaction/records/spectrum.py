"""A record as a spectrum: averaged periodograms, and the effective number of averages of each bin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from backaction.errors import InputError
from backaction.numerics.matrices import Array
from backaction.records.record import Record
from backaction.records.welch import Welch

_SEGMENT = 1 << 22


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Averaged two-sided power spectral density with its statistics.

    `density` (f,) in unit^2/Hz; each bin is distributed as Gamma with `averages` (effective number of averages, the
    inverse squared relative standard deviation); bins are `resolution_hz` wide. Both are numbers, or arrays where bins have
    been `merged`. `estimate` says how windowed periodograms were averaged, whose bins are correlated; bins of
    `averaged_spectrum` are independent.
    """

    frequency_hz: Array
    density: Array
    averages: Any
    resolution_hz: Any
    unit: str
    estimate: Welch | None = None

    @property
    def neighbours(self) -> tuple[float, ...]:
        """Correlations of bins 1, 2, ... apart; none of independent ones."""
        return () if self.estimate is None else self.estimate.neighbours

    @property
    def correlation(self) -> float:
        """Variance of a mean over many bins relative to that of independent ones (1; 1.94 for Hann windows)."""
        return 1.0 if self.estimate is None else self.estimate.correlation

    @property
    def windowed(self) -> bool:
        """Whether lines are wider in these bins than in means over them."""
        return self.estimate is not None and self.estimate.width > 0

    def seen(self, model: Callable[[Array], list[Array]], frequency_hz: Array, line_hz: float) -> list[Array]:
        """Densities of a model at some of these bins as the estimate sees them (`Welch.widened`)."""
        return model(frequency_hz) if self.estimate is None else self.estimate.widened(model, frequency_hz, line_hz)

    def merged(self, starts: Array) -> Spectrum:
        """Neighbouring bins made one: groups begin at the indices `starts`; averages and widths add up.

        Those of correlated bins are counted as their mean over many bins scatters, and the groups taken as independent.
        """
        N = np.broadcast_to(np.asarray(self.averages, dtype=float), self.density.shape) / self.correlation
        width = np.broadcast_to(np.asarray(self.resolution_hz, dtype=float), self.density.shape)
        total, wide = np.add.reduceat(N, starts), np.add.reduceat(width, starts)
        low = (self.frequency_hz - width / 2)[starts]
        density = np.add.reduceat(self.density * N, starts) / total
        return replace(
            self, frequency_hz=low + wide / 2, density=density, averages=total, resolution_hz=wide, estimate=None
        )

    def coarser(self, resolution_hz: float) -> Spectrum:
        """Bins of about `resolution_hz`: whole numbers of these, the last ones left out where they do not fill one.

        `averages` and `resolution_hz` stay numbers where they are.
        """
        own = float(np.max(self.resolution_hz))
        count = max(1, round(resolution_hz / own))
        size = self.density.size - self.density.size % count
        wide = self.band(-np.inf, self.frequency_hz[size - 1]).merged(np.arange(0, size, count))
        if np.ndim(self.averages) or np.ndim(self.resolution_hz):
            return wide
        return replace(wide, averages=self.averages * count / self.correlation, resolution_hz=own * count)

    def band(self, low_hz: float, high_hz: float) -> Spectrum:
        """The bins within [low, high]."""
        inside = (self.frequency_hz >= low_hz) & (self.frequency_hz <= high_hz)
        if not np.any(inside):
            raise InputError(
                f"no spectral bin in {low_hz:g}..{high_hz:g} Hz (spectrum reaches {self.frequency_hz[-1]:g} Hz)"
            )
        each = {k: v[inside] for k in ("averages", "resolution_hz") if np.ndim(v := getattr(self, k))}
        return replace(self, frequency_hz=self.frequency_hz[inside], density=self.density[inside], **each)

    def scaled(self, factor: float, unit: str) -> Spectrum:
        """Density multiplied by `factor`."""
        return replace(self, density=self.density * factor, unit=unit)


def averaged_spectrum(record: Record, resolution_hz: float, taper: float = 0.1) -> Spectrum:
    """Periodograms of long tapered pieces, averaged over pieces and over neighbouring frequencies.

    Pieces are the contiguous stretches between gaps (at most 2^22 samples each, their mean removed); the Tukey window's
    tapered fraction is `taper`. With K pieces of equal length and M raw bins per output bin the effective number of
    averages is K M c, 1/c = 1 + 2 sum_{m<M} (1 - m/M) rho_m with rho_m = |FT of w^2 at m|^2, normalised, the correlation of
    raw bins m apart. Frequencies are bin centres;
    the first and last bins (mean removal, Nyquist) are left out.

    Raises
    ------
    InputError
        If the record is too short for the resolution.
    """
    fs = record.sample_rate_hz
    wanted = int(np.ceil(8 * fs / resolution_hz))
    length = min(record.size, max(_SEGMENT, wanted))
    asked = resolution_hz
    # a whole number of raw bins per output bin, so that all have the same number of averages
    resolution_hz = max(1, round(resolution_hz * length / fs)) * fs / length
    if record.is_complex and record.reference_hz is None:
        raise InputError(
            f"{record.name}: complex (demodulated) samples without 'reference_hz', the lock-in's reference"
        )
    low = fs / 2 if record.is_complex else 0.0  # what is added to a frequency so that it counts from zero
    bins = int(np.floor((fs / 2 + low) / resolution_hz)) + 1
    total, count = np.zeros(bins), np.zeros(bins)
    windows: dict[int, Array] = {}
    for x in _pieces(record, length, min(wanted, length)):
        if len(x) not in windows:
            windows = {len(x): _tukey(len(x), taper)}  # one at a time: memory does not grow with the record
        w = windows[len(x)]
        if record.is_complex:
            power = np.abs(np.fft.fft(x * w)) ** 2 / (fs * np.sum(w * w))
            f = np.fft.fftfreq(len(x), 1 / fs)
        else:
            power = np.abs(np.fft.rfft((x - np.mean(x)) * w)) ** 2 / (fs * np.sum(w * w))
            f = np.fft.rfftfreq(len(x), 1 / fs)
        index = np.minimum(((f + low) / resolution_hz + 1e-9).astype(int), bins - 1)
        total += np.bincount(index, power, bins)
        count += np.bincount(index, minlength=bins)
    if not np.any(count) or length < wanted:
        raise InputError(
            f"{record.name}: too short for a resolution of {asked:g} Hz: needs {wanted} contiguous samples "
            f"({wanted / fs:.3g} s), {_has(record)}"
        )
    keep = slice(1, max(2, bins - 2))
    density = total[keep] / np.maximum(count[keep], 1)
    centres = ((np.arange(bins) + 0.5) * resolution_hz - fs / 2 / max(1, length))[keep] - low
    if record.reference_hz is not None:
        centres = centres + record.reference_hz  # of the current before it was demodulated
    raw = round(resolution_hz * length / fs)
    averages = float(np.median(count[keep])) * efficiency(_tukey(length, taper), raw)
    return Spectrum(centres, density, averages, resolution_hz, f"{record.unit}^2/Hz")


def _pieces(record: Record, length: int, least: int) -> Iterator[Array]:
    """Contiguous stretches of at most `length` and at least `least` samples, of all shots."""
    for shot in range(record.shots):
        for start in range(0, record.size, length):
            yield from _contiguous(record.values(start, start + length, shot), least)


def _contiguous(values: Array, least: int) -> list[Array]:
    good = np.isfinite(values)
    if np.all(good):
        return [values] if len(values) >= least else []
    edges = np.flatnonzero(np.diff(np.concatenate([[False], good, [False]]).astype(int)))
    return [values[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a >= least]


def _has(record: Record) -> str:
    """The longest stretch without a gap, for people."""
    longest = 0
    for shot in range(record.shots):
        run = 0
        for start in range(0, record.size, _SEGMENT):
            good = np.isfinite(record.values(start, start + _SEGMENT, shot))
            edges = np.concatenate([[-1], np.flatnonzero(~good), [good.size]])
            stretches = np.diff(edges) - 1
            longest = max(longest, run + int(stretches[0]), int(np.max(stretches)))
            run = int(stretches[-1]) + (run if stretches.size == 1 else 0)
    if longest == record.size:
        return f"has {longest}"
    return f"its longest contiguous stretch has {longest} ({longest / record.sample_rate_hz:.3g} s) of {record.size}"


def efficiency(w: Array, raw_bins: int) -> float:
    """Effective over nominal averages of `raw_bins` neighbouring bins of a periodogram with window w."""
    size = min(raw_bins, len(w) // 2)
    rho = np.abs(np.fft.rfft(w * w)[:size]) ** 2
    rho = rho / rho[0]
    m = np.arange(1, size)
    return float(1 / (1 + 2 * np.sum((1 - m / raw_bins) * rho[1:])))


def _tukey(size: int, fraction: float) -> Array:
    w = np.ones(size)
    edge = int(fraction * size / 2)
    if edge:
        rise = 0.5 * (1 - np.cos(np.pi * (np.arange(edge) + 0.5) / edge))
        w[:edge], w[-edge:] = rise, rise[::-1]
    return w
