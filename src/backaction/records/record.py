"""A record: real or complex samples of one current with all that is needed to use them, in memory or read as it goes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from backaction.errors import InputError
from backaction.numerics.matrices import Array
from backaction.systems.sampled import Digitiser, Sampling


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
