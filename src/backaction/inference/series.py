"""The samples of a record as the innovations likelihood takes them: demodulated to the band, and how a model becomes theirs.

Of a real record that is much faster than its band, 2^p samples y e^{-2 pi i f t} are averaged, f in the middle of the band:
tracking's own demodulation, whose model is exact (aliases, front end, the image at 2 f, gaps: a block with a missing sample
is missing). Others stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from backaction.constants import TWO_PI
from backaction.numerics.matrices import Array
from backaction.records.record import Record
from backaction.records.shot_level import ShotNoise
from backaction.systems.linear import LinearSystem
from backaction.systems.sampled import SampledModel
from backaction.tracking.inputs import Currents, Demodulation, currents, stored

OVERSAMPLED = 1.25
"""Complex samples per second for each Hz of the band, at least: its edges are then 2.2 dB down, like the model's."""
PIECE = 1 << 20


@dataclass(frozen=True, eq=False)
class Series:
    """Currents y (T, q) of a filter in units of the calibration, `there` (T,) false where one is missing.

    `inputs` say how they were made and which sampled model is theirs.
    """

    y: Array
    there: Array
    inputs: Currents

    @property
    def interval_s(self) -> float:
        """Time between samples."""
        return self.inputs.interval_s

    def model(self, system: LinearSystem) -> SampledModel:
        """The sampled model that is theirs, as tracking has it."""
        return self.inputs.model(system)


def samples_of(record: Record, noise: ShotNoise, band_hz: tuple[float, float]) -> Series:
    """The samples of a record, reduced to `band_hz` where that saves anything.

    Raises
    ------
    InputError
        For a complex record without its reference.
    """
    demodulate = None
    span = band_hz[1] - band_hz[0]
    factor = 1 << max(0, int(np.floor(np.log2(record.sample_rate_hz / (OVERSAMPLED * span)))))
    if not record.is_complex and 2 < factor <= record.size // 64:
        demodulate = Demodulation(0.5 * (band_hz[0] + band_hz[1]), factor)
    inputs = currents((record,), (noise.density,), demodulate)
    scale, offset = inputs.affine
    length = record.size // inputs.factor
    q = 2 if inputs.complex else 1
    y, there = np.zeros((length, q)), np.ones(length, dtype=bool)
    piece = max(1, PIECE // inputs.factor)
    for start in range(0, length, piece):
        stop = min(length, start + piece)
        raw = stored((record,), start * inputs.factor, stop * inputs.factor)
        values, ok, _, _ = inputs.take(raw, start * inputs.factor)
        y[start:stop] = scale * np.asarray(values, dtype=float).reshape(stop - start, q) + offset
        if ok is not None:
            there[start:stop] = np.all(ok.reshape(stop - start, q), axis=1)
    y[~there] = 0.0
    return Series(y, there, inputs)


@dataclass(frozen=True, eq=False)
class SamplingTables:
    """What turns the matrices of a system into the sampled model of a series, as `loops.sampling.sampled` takes it."""

    fixed: Array
    into_A: Array
    into: Array
    Y: Array
    W: Array
    turning: Array
    h: float
    levels: int
    direct: bool

    @property
    def arguments(self) -> tuple[Any, ...]:
        """In the order of `sampled`."""
        return self.fixed, self.into_A, self.into, self.Y, self.W, self.turning, self.h, self.levels, self.direct

    @classmethod
    def of(cls, states: int, inputs: Currents) -> SamplingTables:
        """For a system of so many states: A = fixed + into_A [[A0], [C]], G = into [[Q0, N0], [N0^T, R0]] into^T.

        The states after the system's own are those of the front end (`systems.sampled.lowpassed`), then the integrated
        currents. Y reads a sample, W averages it, turned by the reference from one to the next.
        """
        rate, rule, corners, reference = inputs.digitiser
        c = 1 if reference is None else 2
        n, ns, h = states, states + c * len(corners), 1.0 / rate
        N = ns + c
        fixed, into = np.zeros((N, N)), np.eye(N, n + 1)
        turn = _generator(reference)
        roots = np.sqrt(TWO_PI * np.asarray(corners, dtype=float))
        for k, root in enumerate(roots):
            rows = slice(n + c * k, n + c * (k + 1))
            fixed[rows, rows] = turn - root**2 * np.eye(c)
            if k:
                fixed[rows, n + c * (k - 1) : n + c * k] = root * roots[k - 1] * np.eye(c)
        into[n, n] = roots[0] if roots.size else 1.0
        into_A = into.copy()
        Y = np.zeros((c, N))
        direct = rule == "instantaneous" and not roots.size
        last = slice(ns - c, ns)
        if rule == "average":
            fixed[ns:, ns:] = turn
            Y[:, ns:] = np.eye(c) / h
            if roots.size:
                fixed[ns:, last] = roots[-1] * np.eye(c)
        elif direct:
            into_A[n, n] = 0.0
            Y[:, ns:] = np.eye(c) / h
        else:
            Y[:, last] = roots[-1] * np.eye(c)
        levels = int(inputs.factor).bit_length() - 1
        if inputs.demodulate is not None:
            W = np.array([[1.0], [0.0]]) / inputs.factor
            angle = TWO_PI * inputs.demodulate.reference_hz * h
            turning = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        else:
            W, turning = np.eye(c), np.eye(c)
        return cls(fixed, into_A, into, Y, W, turning, h, levels, direct)


def _generator(reference_hz: float | None) -> Array:
    """Of the turning at the reference: of a pair, nothing for one real current."""
    if reference_hz is None:
        return np.zeros((1, 1))
    return TWO_PI * reference_hz * np.array([[0.0, -1.0], [1.0, 0.0]])
