"""From stored samples to the currents of a filter: units, clipped and missing samples, demodulation.

The filter's currents y have the units of the model, sqrt(1/2) per square-root shot-noise unit. Real samples stay as they
are stored (the filter takes their scale); complex ones are turned to e^{i w_0 t} z; with `demodulate` m real samples
become one complex one.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backaction.constants import TWO_PI
from backaction.errors import InputError
from backaction.numerics.matrices import Array
from backaction.records.record import Record
from backaction.systems.linear import LinearSystem
from backaction.systems.response import VACUUM
from backaction.systems.sampled import Digitiser, SampledModel, demodulation, discretise, lifted

LEVEL_SAMPLES = 1 << 24


@dataclass(frozen=True, eq=False)
class Demodulation:
    """Mean of y e^{-2 pi i reference_hz t} over `factor` samples, instead of the samples themselves."""

    reference_hz: float
    factor: int


@dataclass(frozen=True, eq=False)
class Currents:
    """How samples (T,), or (T, q) for q real currents, become inputs of a filter.

    `gain`, `offset` (q each): y = gain * sample + offset. `limits` are those of one record's stored samples. `groups`: where
    currents have different rates, how many samples of each stand for one sample of the slowest; these are the filter's
    currents, and `digitiser` is that of the fastest.
    """

    digitiser: Digitiser
    gain: Array
    offset: Array
    start_s: float = 0.0
    limits: tuple[float, float] | None = None
    demodulate: Demodulation | None = None
    groups: tuple[int, ...] = ()

    @property
    def complex(self) -> bool:
        """Whether the filter's currents are real and imaginary parts."""
        return self.digitiser.reference_hz is not None or self.demodulate is not None

    @property
    def factor(self) -> int:
        """Stored samples per sample of the filter."""
        return 1 if self.demodulate is None else self.demodulate.factor

    @property
    def interval_s(self) -> float:
        """Time between samples of the filter."""
        return self.factor * max(self.groups, default=1) / self.digitiser.sample_rate_hz

    @property
    def affine(self) -> tuple[float, float]:
        """(scale, offset) that the filter itself applies: of one real current as it is stored, else of ready ones."""
        return (float(self.gain[0]), float(self.offset[0])) if self.gain.size == 1 and not self.complex else (1.0, 0.0)

    def model(self, system: LinearSystem) -> SampledModel:
        """The sampled model of these currents."""
        if self.complex and len(system.currents) != 1:
            raise InputError(f"demodulated records: one current each, the experiment has {list(system.currents)}")
        model = discretise(system, *self.digitiser)
        if self.groups:
            return lifted(model, _groups(self.groups))
        if self.demodulate is None:
            return model
        return lifted(model, demodulation(self.digitiser.sample_rate_hz, self.demodulate.reference_hz, self.factor))

    def take(self, raw: Array, first: int) -> tuple[Array, Array | None, int, int]:
        """Inputs, their mask (None: all are there) and how many stored samples are missing and clipped.

        `raw` are whole filter samples from stored sample `first` on; NaN is missing, clipped counts as missing too.
        """
        missing, clipped, bad = 0, 0, None
        # one pass without a temporary of the chunk's size: a sum is finite where every term is
        if raw.dtype.kind in "fc" and not np.isfinite(np.sum(raw, dtype=complex if raw.dtype.kind == "c" else float)):
            bad = np.asarray(~np.isfinite(raw))
            missing = int(np.sum(bad))
        limits = self.limits
        if (
            limits is not None
            and raw.dtype.kind != "c"
            and raw.size
            and (np.fmin.reduce(raw, axis=None) <= limits[0] or np.fmax.reduce(raw, axis=None) >= limits[1])
        ):
            over = (raw <= limits[0]) | (raw >= limits[1])
            clipped = int(np.sum(over))
            bad = over if bad is None else bad | over
        ok: Array | None = None if bad is None or not np.any(bad) else np.logical_not(bad)
        if self.demodulate is not None:
            return *self._demodulated(raw, ok), missing, clipped
        if self.digitiser.reference_hz is not None:
            return *self._turned(raw, ok, first), missing, clipped
        if self.gain.size == 1:
            return raw, ok, missing, clipped
        return raw * self.gain + self.offset, ok, missing, clipped

    def _turned(self, raw: Array, ok: Array | None, first: int) -> tuple[Array, Array | None]:
        """Real and imaginary part of e^{i w_0 t} z at the ends of the intervals."""
        assert self.digitiser.reference_hz is not None
        t = self.start_s + (first + 1 + np.arange(len(raw))) / self.digitiser.sample_rate_hz
        turns = np.mod(self.digitiser.reference_hz * t, 1.0)
        z = (raw * self.gain[0] + self.offset[0]) * np.exp(1j * TWO_PI * turns)
        return np.stack([z.real, z.imag], axis=-1), None if ok is None else np.stack([ok, ok], axis=-1)

    def _demodulated(self, raw: Array, ok: Array | None) -> tuple[Array, Array | None]:
        """Blocks of `factor` samples through the weights of `sampled.demodulation`; one bad sample spoils its block."""
        assert self.demodulate is not None
        m = self.factor
        W = demodulation(self.digitiser.sample_rate_hz, self.demodulate.reference_hz, m)[:, :, 0]
        blocks = raw.reshape(-1, m)
        if ok is not None:
            blocks = np.where(ok.reshape(-1, m), blocks, 0)
            whole = np.all(ok.reshape(-1, m), axis=1, keepdims=True)
            ok = np.repeat(whole, 2, axis=1)
        kind = np.float32 if raw.dtype.itemsize <= 2 else np.float64
        y = (blocks.astype(kind, copy=False) @ (self.gain[0] * W).astype(kind)).astype(np.float64)
        return y + self.offset[0] * np.sum(W, axis=0), ok


def currents(records: Sequence[Record], densities: Sequence[float], demodulate: Demodulation | None = None) -> Currents:
    """Of records that are tracked together, one for each current of the experiment, their mean level removed.

    `densities` of one shot-noise unit, in the records' units. The level is the mean of the first 2^24 samples.

    Raises
    ------
    InputError
        If the records do not fit together, or what is needed of a complex record is missing.
    """
    first = records[0]
    fastest = max(records, key=lambda r: r.sample_rate_hz)
    slowest = min(r.sample_rate_hz for r in records)
    groups = tuple(round(r.sample_rate_hz / slowest) for r in records)
    for other, m in zip(records, groups, strict=True):
        alike = other.digitiser._replace(sample_rate_hz=0) == first.digitiser._replace(sample_rate_hz=0)
        if not alike or other.start_s != first.start_s or other.shots != first.shots:
            raise InputError(f"{other.name}: taken otherwise than {first.name} (sampling, front end, start must agree)")
        if m == 1 and max(groups) == 1 and other.size != first.size:
            raise InputError(f"{other.name}: {other.size} samples, {first.name} has {first.size}")
        if abs(m * slowest / other.sample_rate_hz - 1) > 1e-9 or max(groups) % m:
            raise InputError(f"{other.name}: rate {other.sample_rate_hz:g} Hz is no whole multiple of {slowest:g} Hz")
    if max(groups) > 1 and (first.sampling != "average" or first.front_end_hz or first.is_complex):
        raise InputError("records of different rates: only interval averages without a front end")
    if first.is_complex and first.reference_hz is None:
        raise InputError(f"{first.name}: complex (demodulated) samples without 'reference_hz', the lock-in's reference")
    if not first.is_complex and first.reference_hz is not None:
        raise InputError(f"{first.name}: 'reference_hz' is for complex (demodulated) samples, these are real")
    if demodulate is not None:
        if first.is_complex or len(records) > 1:
            raise InputError("demodulate: takes one real record")
        if not 1 < demodulate.factor <= first.size:
            raise InputError(f"demodulate by {demodulate.factor}: must be from 2 to the {first.size} samples")
    gains, offsets = [], []
    for r, density in zip(records, densities, strict=True):
        if not (np.isfinite(density) and density > 0):
            raise InputError(f"{r.name}: density of one shot-noise unit {density}: must be > 0")
        g = np.sqrt(VACUUM / density)
        gains.append(g * r.scale)
        # a lock-in's output has no offset of its own
        offsets.append(0.0 if r.is_complex else g * (r.offset - mean_level(r)))
    several = groups if max(groups) > 1 else ()
    if several:
        gains, offsets = (np.repeat(v, groups).tolist() for v in (gains, offsets))
    limits = first.clip_limits if len(records) == 1 else None
    return Currents(fastest.digitiser, np.array(gains), np.array(offsets), first.start_s, limits, demodulate, several)


def identity(record: Record) -> list[Any]:
    """What tells a record from another, as plain data: its fields and a checksum of 20 pieces of its samples."""
    pieces = np.linspace(0, max(0, record.size - 4096), 20).astype(int)
    check = zlib.crc32(b"")
    two = len(record.source.shape) == 2  # an axis of shots, even of one
    for shot in range(record.shots):
        for start in pieces:
            part = record.source[shot, start : start + 4096] if two else record.source[start : start + 4096]
            check = zlib.crc32(np.ascontiguousarray(part).tobytes(), check)
    own = [record.name, record.shots, record.size, list(record.digitiser), record.unit, record.scale, record.offset]
    return [*own, record.start_s, list(record.gaps), record.limits, check]


def length(records: Sequence[Record], inputs: Currents) -> int:
    """Samples of the filter that the records hold."""
    groups = inputs.groups or (1,) * len(records)
    return min(r.size // m for r, m in zip(records, groups, strict=True)) // inputs.factor


def _groups(groups: tuple[int, ...]) -> Array:
    """Weights for `lifted`: of current i, m_i means over m/m_i of the fastest's m intervals."""
    m, q = max(groups), len(groups)
    W = np.zeros((m, sum(groups), q))
    row = 0
    for i, count in enumerate(groups):
        for k in range(count):
            W[k * m // count : (k + 1) * m // count, row, i] = count / m
            row += 1
    return W


def mean_level(record: Record) -> float:
    """Mean of the first 2^24 samples that are there, in the record's unit: the detector's offset, which no model has.

    Raises
    ------
    InputError
        If none of them is there.
    """
    total, count, size = 0.0, 0, min(record.size, LEVEL_SAMPLES)
    for start in range(0, size, 1 << 20):
        stop = min(start + (1 << 20), size)
        two = len(record.source.shape) == 2
        raw = np.asarray(record.source[0, start:stop] if two else record.source[start:stop])
        part = complex(np.sum(raw, dtype=complex if record.is_complex else float))
        good = stop - start
        if not np.isfinite(part) or any(a < stop and b > start for a, b in record.gaps):  # then what is there alone
            values = record.values(start, stop)
            values = (values[np.isfinite(values)] - record.offset) / record.scale
            part, good = complex(np.sum(values)), values.size
        total, count = total + part.real, count + good
    if count == 0:
        raise InputError(f"{record.name}: every sample is missing")
    return total / count * record.scale + record.offset


def stored(records: Sequence[Record], start: int, stop: int, shot: int = 0, groups: tuple[int, ...] = ()) -> Array:
    """Samples [start, stop) as stored, (T,) or (T, q) for several records; what lies in a gap is NaN.

    With `groups` start and stop count samples of the slowest record.
    """
    parts = []
    for r, m in zip(records, groups or (1,) * len(records), strict=True):
        a, b = start * m, stop * m
        raw = np.asarray(r.source[shot, a:b] if len(r.source.shape) == 2 else r.source[a:b])
        inside = [(max(x, a) - a, min(y, b) - a) for x, y in r.gaps if x < b and y > a]
        if inside:
            raw = raw.astype(np.complex128 if r.is_complex else np.float64)
            for x, y in inside:
                raw[x:y] = np.nan
        if len(records) > 1:  # each record has limits of its own
            limits = r.clip_limits
            if limits is not None:
                raw = np.where((raw <= limits[0]) | (raw >= limits[1]), np.nan, raw)
        parts.append(raw.reshape(stop - start, m))
    return parts[0][:, 0] if len(parts) == 1 else np.concatenate(parts, axis=1)
