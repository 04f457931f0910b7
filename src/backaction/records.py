"""Photocurrent records, their averaged spectra and their calibration to shot-noise units."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np

from backaction.errors import InputError
from backaction.matrices import Array

Sampling = Literal["average", "instantaneous"]
_SEGMENT = 1 << 22


class Digitiser(NamedTuple):
    """How a current becomes samples: rate, sampling rule, low-passes before it, reference of a demodulated record."""

    sample_rate_hz: float
    sampling: Sampling = "average"
    front_end_hz: tuple[float, ...] = ()
    reference_hz: float | None = None


@runtime_checkable
class Source(Protocol):
    """Anything that gives samples by slice: an array, a memory map, an HDF5 dataset."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __getitem__(self, index: Any) -> Any:
        """Samples of a slice."""


class Sink(Protocol):
    """Anything that takes chunks of results in time order."""

    def write(self, start: int, chunk: Array) -> None:
        """Store `chunk` at sample index `start`."""


@dataclass(frozen=True, eq=False)
class Record:
    """Samples of a photocurrent with what is needed to interpret them.

    Parameters
    ----------
    source
        Samples, shape (T,) or (shots, T), real or complex (demodulated); in memory or file-backed.
    sample_rate_hz
        Samples per second.
    sampling
        `average`: each sample is the mean of the current over its interval; `instantaneous`: its value at the end
        of the interval (white noise then limited to the interval's bandwidth).
    front_end_hz
        Corner frequencies of the first-order low-passes between detector and digitiser (anti-alias filter, lock-in);
        they belong to the model of the record: its noise is not white, its signal is delayed.
    scale, offset
        value = scale * sample + offset, in `unit`.
    gaps
        (start, stop) sample ranges that are missing; NaN samples count as missing too.
    reference_hz
        Of a complex record z = lowpass(y e^{-2 pi i f t}): the lock-in's reference f, phase zero at time 0; `front_end_hz`
        are then the corners of its low-passes.
    limits
        Lowest and highest stored sample that the digitiser can give: samples there are clipped. Default: the range of
        an integer type, none for others.
    """

    source: Any
    sample_rate_hz: float
    sampling: Sampling = "average"
    unit: str = "V"
    scale: float = 1.0
    offset: float = 0.0
    start_s: float = 0.0
    front_end_hz: tuple[float, ...] = ()
    gaps: tuple[tuple[int, int], ...] = ()
    reference_hz: float | None = None
    limits: tuple[float, float] | None = None
    name: str = "record"
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = tuple(self.source.shape)
        if len(shape) not in (1, 2):
            raise InputError(f"{self.name}: samples of shape {shape}; expected (T,) or (shots, T)")
        if shape[-1] < 2 or 0 in shape:
            raise InputError(f"{self.name}: {shape[-1]} samples: nothing to analyse")
        if not (np.isfinite(self.sample_rate_hz) and self.sample_rate_hz > 0):
            raise InputError(f"{self.name}: sample rate {self.sample_rate_hz} Hz: must be > 0")
        if self.sampling not in ("average", "instantaneous"):
            raise InputError(f"{self.name}: sampling = {self.sampling!r}: must be 'average' or 'instantaneous'")
        if not all(np.isfinite(f) and f > 0 for f in self.front_end_hz):
            raise InputError(f"{self.name}: front_end_hz = {self.front_end_hz}: corner frequencies must be > 0")
        if self.reference_hz is not None and not (np.isfinite(self.reference_hz) and self.reference_hz != 0):
            raise InputError(f"{self.name}: reference_hz = {self.reference_hz}: must be finite and not 0")
        if not (np.isfinite(self.scale) and self.scale != 0 and np.isfinite(self.offset)):
            raise InputError(f"{self.name}: scale {self.scale} and offset {self.offset}: must be finite, scale not 0")

    @property
    def size(self) -> int:
        """Samples per shot."""
        return int(self.source.shape[-1])

    @property
    def shots(self) -> int:
        """Number of repeated runs."""
        return int(self.source.shape[0]) if len(self.source.shape) == 2 else 1

    @property
    def digitiser(self) -> Digitiser:
        """How the current became samples."""
        return Digitiser(self.sample_rate_hz, self.sampling, self.front_end_hz, self.reference_hz)

    @property
    def clip_limits(self) -> tuple[float, float] | None:
        """Where stored samples are clipped: `limits`, or the ends of an integer type of up to 32 bits."""
        dtype = np.dtype(self.source.dtype)
        if self.limits is not None or dtype.kind not in "iu" or dtype.itemsize > 4:
            return self.limits
        return float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)

    def clipped_fraction(self, most: int = 1 << 22) -> float:
        """The part of the first `most` samples that is clipped."""
        limits = self.clip_limits
        if limits is None:
            return 0.0
        raw = np.asarray(self.source[0, :most] if self.shots > 1 else self.source[:most])
        return float(np.mean((raw <= limits[0]) | (raw >= limits[1])))

    @property
    def duration_s(self) -> float:
        """Length of one shot in seconds."""
        return self.size / self.sample_rate_hz

    @property
    def is_complex(self) -> bool:
        """Whether the samples are demodulated (complex)."""
        return bool(np.issubdtype(self.source.dtype, np.complexfloating))

    def values(self, start: int = 0, stop: int | None = None, shot: int = 0) -> Array:
        """Samples [start, stop) of one shot in `unit` as float64 (complex128); missing samples are NaN."""
        stop = self.size if stop is None else min(stop, self.size)
        raw = self.source[shot, start:stop] if len(self.source.shape) == 2 else self.source[start:stop]
        out = np.asarray(raw).astype(np.complex128 if self.is_complex else np.float64)
        out = out * self.scale + self.offset
        for a, b in self.gaps:
            if a < stop and b > start:
                out[max(a, start) - start : min(b, stop) - start] = np.nan
        return out

    def chunks(self, size: int = 1 << 20) -> Iterator[tuple[int, Array]]:
        """(start, values) of consecutive pieces of the first shot, anchored at multiples of `size`."""
        for start in range(0, self.size, size):
            yield start, self.values(start, start + size)

    def part(self, start: int, stop: int) -> Record:
        """Samples [start, stop) as a record of their own, read into memory."""
        source = self.source[:, start:stop] if len(self.source.shape) == 2 else self.source[start:stop]
        gaps = tuple((max(a, start) - start, min(b, stop) - start) for a, b in self.gaps if a < stop and b > start)
        at = self.start_s + start / self.sample_rate_hz
        return replace(self, source=np.asarray(source), start_s=at, gaps=gaps)

    def in_unit(self, unit: str, factor: float) -> Record:
        """The same record with values multiplied by `factor` and called `unit`."""
        return replace(self, unit=unit, scale=self.scale * factor, offset=self.offset * factor)

    def __repr__(self) -> str:
        shots = f"{self.shots} shots of " if self.shots > 1 else ""
        return (
            f"Record '{self.name}': {shots}{self.size} samples at {self.sample_rate_hz:g} Hz ({self.duration_s:g} s), "
            f"{self.sampling} sampling, unit {self.unit}"
        )


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Averaged two-sided power spectral density with its statistics.

    `density` (f,) in unit^2/Hz; each bin is distributed as Gamma with `averages` (effective number of averages, the
    inverse squared relative standard deviation); bins are `resolution_hz` wide. Both are numbers, or arrays where bins have
    been `merged`. `correlation` is the variance of a mean over many bins relative to that of independent ones: 1 for
    those of
    `averaged_spectrum`, 1.94 for the single bins of Hann-windowed periodograms.
    """

    frequency_hz: Array
    density: Array
    averages: Any
    resolution_hz: Any
    unit: str
    correlation: float = 1.0

    def merged(self, starts: Array) -> Spectrum:
        """Neighbouring bins made one: groups begin at the indices `starts`; averages and widths add up."""
        N = np.broadcast_to(np.asarray(self.averages, dtype=float), self.density.shape)
        width = np.broadcast_to(np.asarray(self.resolution_hz, dtype=float), self.density.shape)
        total, wide = np.add.reduceat(N, starts), np.add.reduceat(width, starts)
        low = (self.frequency_hz - width / 2)[starts]
        density = np.add.reduceat(self.density * N, starts) / total
        return replace(self, frequency_hz=low + wide / 2, density=density, averages=total, resolution_hz=wide)

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
            f"{record.name}: too short for a resolution of {resolution_hz:g} Hz: needs {wanted} contiguous samples "
            f"({wanted / fs:.3g} s), has {record.size}"
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


def _contiguous(values: Array, least: int) -> list[Array]:
    good = np.isfinite(values)
    if np.all(good):
        return [values] if len(values) >= least else []
    edges = np.flatnonzero(np.diff(np.concatenate([[False], good, [False]]).astype(int)))
    return [values[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a >= least]


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
