"""The log-likelihood of a campaign's records that are compared by their samples, under a program, with its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np

from backaction.errors import ModelError
from backaction.inference.data import Measured
from backaction.inference.innovations import Innovations, SampleModel
from backaction.inference.model import JointProgram
from backaction.inference.series import SamplingTables
from backaction.numerics.compile import library
from backaction.numerics.matrices import Array


class SamplesDensity:
    """Sum of ln p of the samples of `chosen` records at u, by a work space of its own; see `inference.innovations`."""

    def __init__(self, program: JointProgram, records: tuple[Measured, ...], chosen: list[int]) -> None:
        self.program = program
        self.parts = [_RecordSamples(program, records[k], k) for k in chosen]
        self._loops = library("program")
        self._memory, self._bar = program.tape.memory.copy(), np.zeros(len(program.tape.memory))

    def _run(self, u: Array) -> bool:
        """Fill the memory; whether guarded fields are within their bounds."""
        p = self.program
        self._memory[: len(u)] = u
        self._loops.forward(*p.tape.arrays, self._memory)
        guarded = self._memory[p.guards]
        return bool(np.all((guarded >= p.bounds[:, 0]) & (guarded <= p.bounds[:, 1])))

    def density(self, u: Array) -> float:
        """Ln p; -inf where the model has no answer."""
        if not self._run(u):
            return -np.inf
        total = 0.0
        for part in self.parts:
            total += part.value(self._memory)
            if not np.isfinite(total):
                return -np.inf
        return total

    def gradient(self, u: Array) -> tuple[float, Array]:
        """(ln p, its gradient)."""
        total = -np.inf if not self._run(u) else 0.0
        self._bar[:] = 0.0
        for part in self.parts:
            if np.isfinite(total):
                total += part.gradient(self._memory, self._bar)
        if not np.isfinite(total):
            return -np.inf, np.zeros(len(u))
        self._loops.reverse(*self.program.tape.arrays, self._memory, self._bar)
        return total, self._bar[: len(u)].copy()

    def model(self, u: Array, part: int) -> SampleModel | None:
        """The sampled model of one of the records, in units of its calibration."""
        return self.parts[part].model(self._memory) if self._run(u) else None


class _RecordSamples:
    """One record: from the program's memory to the sampled model of its series, and back."""

    def __init__(self, program: JointProgram, record: Measured, k: int) -> None:
        series = record.series
        if series is None:
            raise ModelError(f"{record.name}: has no samples to compare with")
        n = program.states[k]
        self.n, self.slots, self.scale, self.starts = n, program.slots[k], int(program.scales[k]), program.starts[k]
        self.tables = SamplingTables.of(n, series.inputs)
        system = record.experiment.system
        pairs = [(system.mode(m).start, system.mode(m).start + 1) for m in record.starts]
        self.pairs = np.array(pairs, dtype=np.int64).reshape(-1, 2)
        sampled = len(self.tables.fixed) - len(self.tables.Y)
        self.innovations = Innovations(series.y, series.there, sampled)
        self.loops = library("riccati", "innovations", "sampling")

    def _matrices(self, memory: Array) -> tuple[Array, Array]:
        """[[A], [C]] and [[Q, N], [N^T, R]]."""
        n = self.n
        A, Q, N, R, C = np.split(memory[self.slots], np.cumsum([n * n, n * n, n, 1]))
        K = np.empty((n + 1, n + 1))
        K[:n, :n], K[:n, n], K[n, :n], K[n, n] = Q.reshape(n, n), N, N, R[0]
        return np.concatenate([A, C]).reshape(n + 1, n), K

    def _sampled(self, memory: Array) -> tuple[SampleModel | None, Any]:
        J, K = self._matrices(memory)
        arguments = (*self.tables.arguments, self.pairs, memory[self.starts])
        found, kept = self.loops.sampled(J, K, memory[self.scale], *arguments)
        return (SampleModel(*found) if len(found[0]) else None), kept

    def model(self, memory: Array) -> SampleModel | None:
        """The sampled model; None where there is none."""
        return self._sampled(memory)[0]

    def value(self, memory: Array) -> float:
        """Ln p of the samples."""
        model, _ = self._sampled(memory)
        return -np.inf if model is None else self.innovations.value(model)

    def gradient(self, memory: Array, bar: Array) -> float:
        """Ln p; its derivatives by the program's results are added to `bar`."""
        model, kept = self._sampled(memory)
        if model is None:
            return -np.inf
        value, bars = self.innovations.gradient(model)
        if bars is None:
            return -np.inf
        t, n = self.tables, self.n
        J, K, by_scale, own = self.loops.sampled_back(
            kept, tuple(bars), memory[self.scale], t.into_A, t.into, t.W, t.h, t.direct, self.pairs, memory[self.starts]
        )
        parts = (J[:n], K[:n, :n], K[:n, n] + K[n, :n], K[n, n], J[n])
        np.add.at(bar, self.slots, np.concatenate([np.ravel(p) for p in parts]))
        np.add.at(bar, self.starts, own)
        bar[self.scale] += by_scale
        return value
