"""The compiled log-posterior of a campaign: a program, the bins and samples it is compared with, and its exact gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np

from backaction.constants import TWO_PI
from backaction.errors import ModelError
from backaction.inference.bins import Bins
from backaction.inference.data import Measured
from backaction.inference.model import JointProgram
from backaction.inference.samples import SamplesDensity
from backaction.inference.scatter import Likelihood
from backaction.numerics.compile import library
from backaction.numerics.loops.density import LAYOUT
from backaction.numerics.matrices import Array

UNROLLED = 8
"""Up to so many states, the same in all records, the loops are made for their number: more only cost compilation."""


@dataclass(frozen=True, eq=False)
class Density:
    """ln p(u | data) of some records under a program; the data of record `chosen` alone count, or of all.

    Data are bins (SN), or the samples of the records that have a `series`.

    Several threads need an `evaluator()` each.
    """

    program: JointProgram
    likelihood: Likelihood
    records: tuple[Measured, ...]
    bins: tuple[Bins, ...]
    chosen: int | None = None

    @classmethod
    def of(cls, program: JointProgram) -> Density:
        """That of the campaign's own data."""
        campaign = program.parameters.campaign
        return cls(program, campaign.likelihood, campaign.records, tuple(r.bins() for r in campaign.records))

    def with_data(self, records: Sequence[Measured]) -> Density:
        """The same for other data; nothing is traced again."""
        return replace(self, records=tuple(records))

    def only(self, record: int) -> Density:
        """That of one record's data alone."""
        return replace(self, chosen=record)

    @property
    def counted(self) -> list[int]:
        """The records whose data count."""
        return list(range(len(self.records))) if self.chosen is None else [self.chosen]

    @property
    def in_time(self) -> list[int]:
        """Those of them that are compared by their samples."""
        return [k for k in self.counted if self.records[k].series is not None]

    @cached_property
    def layout(self) -> Array:
        """A row of numbers per record that counts, as `loops.density` reads them."""
        rows = np.zeros(len(self.records), dtype=LAYOUT)
        at = dict.fromkeys(("slots", "points", "bins", "weights", "node_weights", "alias_weights"), 0)
        for k, b in enumerate(self.bins):
            row, slots = rows[k], self.program.slots[k]
            row["states"] = self.program.states[k]
            for name, value in at.items():
                row[name] = value
            row["count"] = b.frequency_hz.size
            row["size"], row["quadrature"] = b.weights.shape
            row["nodes"], row["aliases"] = b.alias_weights.shape
            row["scale"], row["error"] = self.program.scales[k], self.program.error
            row["gaussian"], row["turns"] = not self.likelihood.gamma, np.any(b.phase != 1)
            sizes = (slots.size, b.frequency_hz.size, b.white.size, b.weights.size, b.node_weights.size)
            for name, size in zip(at, (*sizes, b.alias_weights.size), strict=True):
                at[name] += size
        return rows[self.counted]

    @cached_property
    def maps(self) -> tuple[Array, ...]:
        """Flat tables of the bins: angular frequencies, phases (real, imaginary), weights, white parts."""
        turn = np.concatenate([b.phase for b in self.bins])
        w = TWO_PI * np.concatenate([b.frequency_hz for b in self.bins])
        parts = ("weights", "node_weights", "alias_weights", "white")
        flat = [np.ascontiguousarray(np.concatenate([getattr(b, p).ravel() for b in self.bins])) for p in parts]
        return w, np.ascontiguousarray(turn.real), np.ascontiguousarray(turn.imag), *flat

    @cached_property
    def data(self) -> tuple[Array, Array, Array]:
        """Bins (SN) of all records, their N or sd, and the constants of their likelihood."""
        for r in self.records:
            if self.likelihood.gamma and np.any(r.density_sn <= 0):
                raise ModelError(f"{r.name}: a bin of the spectrum is not positive")
        y = np.concatenate([r.density_sn for r in self.records])
        return y, *self.likelihood.tables(y, np.concatenate([r.tempered for r in self.records]))

    def split(self, flat: Array) -> list[Array]:
        """A flat table of bins by record; those of records that do not count are NaN."""
        ends = np.cumsum([0, *(b.white.size for b in self.bins)])
        return [flat[..., a:b] for a, b in pairwise(ends)]

    def evaluator(self) -> Evaluator:
        """Density and gradient with work space of their own (one per thread)."""
        return Evaluator(self)


class Evaluator:
    """A `Density` with its own work space; calls release the interpreter lock."""

    def __init__(self, density: Density) -> None:
        program = density.program
        sizes = set(program.states)
        n = sizes.pop() if len(sizes) == 1 and max(sizes) <= UNROLLED else None
        self._run = library("program", "spectrum", "riccati", "likelihood", "density", n=n).density
        memory = program.tape.memory
        w, cr, ci, *maps = density.maps
        points, self.size = w.size, program.parameters.size
        self._front = (*program.tape.arrays, memory.copy(), np.zeros(len(memory)))
        self._back = (
            np.concatenate(program.slots), program.guards, program.bounds, w, cr, ci, *maps, *density.data,
            np.empty(points), np.empty(points),
        )  # fmt: skip
        self._mu, self._none = np.full(density.data[0].size, np.nan), np.empty(0)
        timed = density.in_time
        self._every = density.layout
        self._rows = density.layout[[k not in timed for k in density.counted]]
        self._samples = SamplesDensity(program, density.records, timed) if timed else None

    def _spectral(self, rows: Array, u: Array, grad: Array) -> float:
        """Prior and bins of some records."""
        if not len(rows):
            grad[:] = -u[: len(grad)]
            return -0.5 * float(u @ u)
        return float(self._run(*self._front, np.ascontiguousarray(u), rows, *self._back, self._mu, grad))

    def density(self, u: Array) -> float:
        """Log-posterior (with its constants); -inf where the model has no answer."""
        value = self._spectral(self._rows, u, self._none)
        if self._samples is not None and np.isfinite(value):
            value += self._samples.density(u)
        return value if np.isfinite(value) else -np.inf

    def gradient(self, u: Array) -> tuple[float, Array]:
        """(log-posterior, its gradient)."""
        grad = np.zeros(self.size)
        value = self._spectral(self._rows, u, grad)
        if self._samples is not None and np.isfinite(value):
            more, slope = self._samples.gradient(u)
            value, grad = value + more, grad + slope
        if not (np.isfinite(value) and np.all(np.isfinite(grad))):
            return -np.inf, np.zeros(self.size)
        return value, grad

    def model(self, u: Array) -> Array:
        """Expected bins of all records (SN), NaN where there is none."""
        found = np.isfinite(self._spectral(self._every, u, self._none))
        return self._mu.copy() if found else np.full(self._mu.size, np.nan)

    def hessian(self, u: Array, at: Array | None = None) -> Array:
        """Minus the second derivatives: central differences of exact gradients, symmetric.

        Steps are 1e-4, or a hundredth of the width that the data leave to a coordinate where that is less. With `at`, the
        gradient at u itself, one-sided differences: half the work.
        """
        H = np.empty((self.size, self.size))
        for i in range(self.size):
            step = 1e-4
            for _ in range(4):
                e = np.zeros(self.size)
                e[i] = step
                if at is not None:
                    H[i] = (at - self.gradient(u + e)[1]) / step
                else:
                    H[i] = (self.gradient(u - e)[1] - self.gradient(u + e)[1]) / (2 * step)
                wanted = 0.01 / np.sqrt(max(abs(H[i, i]), 1.0))
                if step <= 2 * wanted:
                    break
                step = wanted
        return (H + H.T) / 2
