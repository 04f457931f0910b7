"""The way from parameters to the matrices of a system, traced once and run by compiled loops: sweeps, gradients, draws.

A `Program` takes points (K, inputs) to A, Q, N, R, C of an experiment, and on to covariances of its steady states and to
gradients of anything that depends on them. What a builder decides by comparing numbers is decided once: a program is
compared with the builder where the inputs take extreme or special values, and is not used where they differ.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from backaction.elements.base import Element
from backaction.errors import BackactionError
from backaction.experiment.experiment import Experiment
from backaction.numerics.compile import library
from backaction.numerics.matrices import Array
from backaction.numerics.matrix_equations import MANY, RESIDUAL, STATES
from backaction.numerics.tracing import Trace, traced
from backaction.systems.linear import LinearSystem
from backaction.systems.view import View

SOLVED = ("unconditional", "conditional")
"""States that compiled loops solve for; the others are LAPACK's."""
AGREES = 1e-11
"""How well the entries of a program must agree with the builder's, relative to the largest of their matrix."""
KEPT = 32
"""Programs that are kept for the next batch of the same fields."""


class Program:
    """A, Q, N, R, C of a system as a function of `size` inputs, traced where they are `start`.

    `build` takes the inputs (variables, or numbers) to the system; `keep` are the states that are wanted (default: all).
    """

    def __init__(
        self, start: Sequence[float], build: Callable[[Sequence[Any]], LinearSystem], keep: Array | None = None
    ) -> None:
        trace = Trace(start)
        system = build(trace.inputs)
        self.currents = len(system.currents)
        self.states = system.A.shape[-1] if keep is None else len(keep)
        self.tape = trace.program(entries(system, keep))

    def _loops(self) -> Any:
        return library("program", "riccati", n=self.states)

    def __call__(self, points: Any) -> Array:
        """The entries (K, ...) at points (K, inputs), in the order of `entries`."""
        return self.tape(points)

    def covariances(self, points: Any, state: str) -> Array:
        """V (K, n, n) of the `unconditional` or `conditional` state at points (K, inputs); NaN where it was not found."""
        if state not in SOLVED:
            raise ValueError(f"{state}: not one of {SOLVED}")
        points, n = np.ascontiguousarray(points, dtype=float), self.states
        V, residual = np.empty((len(points), n, n)), np.empty(len(points))
        self._loops().covariances_many(
            *self.tape.arrays, self.tape.memory.copy(), points, self.tape.outputs, n, self.currents,
            state == "conditional", V, residual,
        )  # fmt: skip
        V[~(residual < RESIDUAL)] = np.nan
        return V

    def gradients(self, points: Any, state: str, V: Array, slopes: Array) -> Array:
        """D result/d input (K, inputs), where d result/dV = `slopes` (K, n, n) at the states V (K, n, n)."""
        if state not in SOLVED:
            raise ValueError(f"{state}: not one of {SOLVED}")
        points, n = np.ascontiguousarray(points, dtype=float), self.states
        out = np.zeros(points.shape)
        self._loops().gradients(
            *self.tape.arrays, self.tape.memory.copy(), points, self.tape.outputs, n, self.currents,
            state == "conditional", np.ascontiguousarray(V), np.ascontiguousarray(slopes), out,
        )  # fmt: skip
        return out


def entries(system: LinearSystem, keep: Array | None = None) -> list[Any]:
    """A, Q (n, n), N (n, q), R (q, q), C (q, n) of the q detected currents as one list, of the states `keep`."""
    d = system.detected()
    Q, N, R = system.noise()
    A, C = system.A, d.C
    if keep is not None:
        A, Q = (M[..., keep, :][..., keep] for M in (A, Q))
        N, C = N[..., keep, :], C[..., keep]
    parts = [np.broadcast_to(M, (1,) * (3 - M.ndim) + M.shape).reshape(-1) for M in (A, Q, N, R, C)]
    return [x for part in parts for x in part]


class BatchView(View):
    """A view of many points of an experiment whose reported modes are solved for by a `Program` of its array fields.

    Points where the loops find no answer are asked of LAPACK, which decides.
    """

    def __init__(
        self, experiment: Experiment, modes: tuple[str, ...], fields: tuple[str, ...], program: Program
    ) -> None:
        super().__init__(experiment.layout, modes)
        self.experiment, self.fields, self.program = experiment, fields, program
        values = np.broadcast_arrays(*(np.asarray(experiment.value(f), dtype=float) for f in fields))
        self.shape = values[0].shape
        self.points = np.stack([v.reshape(-1) for v in values], axis=-1)

    @property
    def system(self) -> LinearSystem:
        """The system of all points, where something asks for more than covariances."""
        return self.experiment.system

    def whole(self, state: str) -> Array:
        """As `View.whole`."""
        if state not in SOLVED:
            return super().whole(state)
        if state not in self._whole:
            V = self.program.covariances(self.points, state)
            lost = np.flatnonzero(~np.all(np.isfinite(V), axis=(-2, -1)))
            if lost.size:
                V[lost] = self._again(lost).whole(state)
            self._whole[state] = V.reshape(*self.shape, *V.shape[1:])
        return self._whole[state]

    def _again(self, rows: Array) -> View:
        """Some points, by NumPy."""
        values = {f: self.points[rows, k] for k, f in enumerate(self.fields)}
        return View(self.experiment.with_values(values, self.experiment.name).system, self.modes)

    def gradients(self, slopes: Mapping[str, Array]) -> Array:
        """D result/d field (..., F) of a result with d result/dV = `slopes` of the reported modes, by state."""
        total = np.zeros(self.points.shape)
        for state, part in slopes.items():
            n = self.layout.A.shape[-1]
            V = self.whole(state).reshape(-1, n, n)
            bar = np.broadcast_to(self.embedded(part), (*self.shape, n, n)).reshape(-1, n, n)
            total += self.program.gradients(self.points, state, V, bar)
        return total.reshape(*self.shape, -1)


def batch(experiment: Experiment, modes: tuple[str, ...], more: Sequence[str] = ()) -> BatchView | None:
    """A view by compiled loops of the experiment's array fields (and `more` fields); None where NumPy is as good.

    None for few points, many states, complex values, systems without a current, and builders that cannot be traced.
    """
    arrays = [f for f in experiment.fields() if np.ndim(experiment.value(f)) > 0]
    fields = tuple(dict.fromkeys([*arrays, *more]))
    values = [np.asarray(experiment.value(f)) for f in fields]
    count = int(np.prod(np.broadcast_shapes(*(v.shape for v in values))))
    plain = all(v.dtype.kind in "fiu" for v in values)
    if count < MANY or not plain or experiment.layout.A.shape[-1] > STATES or not experiment.layout.currents:
        return None
    program = _traced(experiment, fields, _special(values))
    return None if program is None else BatchView(experiment, modes, fields, program)


def _special(values: Sequence[Array]) -> Array:
    """Points (K, F) of a batch where a builder may decide otherwise: ends, extremes and zeros of every field, a few more."""
    flat = np.stack([v.reshape(-1) for v in np.broadcast_arrays(*values)], axis=-1).astype(float)
    rows = {0, len(flat) - 1, *np.linspace(0, len(flat) - 1, 5).astype(int).tolist()}
    for column in flat.T:
        rows |= {int(np.argmin(column)), int(np.argmax(column)), int(np.argmin(np.abs(column)))}
    return flat[sorted(rows)]


_PROGRAMS: OrderedDict[tuple[Any, ...], tuple[Array, tuple[Element, ...], Program]] = OrderedDict()


def _traced(experiment: Experiment, fields: tuple[str, ...], points: Array) -> Program | None:
    """A program of the fields that agrees with the builder at `points`: a former one, or a new one; None if none does."""
    base = experiment.single
    key = (fields, tuple(base.connections.items()), tuple((e.name, e.kind) for e in base.elements))
    known = _PROGRAMS.get(key)
    try:
        built = base.with_values(_columns(fields, points), base.name).build()
        if known is not None:
            start, elements, program = known
            same = base.with_values(_columns(fields, start), base.name).elements == elements
            if same and _agrees(program, points, built):
                _PROGRAMS.move_to_end(key)
                return program
        start = points[len(points) // 2]
        elements = base.with_values(_columns(fields, start), base.name).elements
        program = Program(
            start.tolist(),
            lambda x: base.with_values({f: traced(v) for f, v in zip(fields, x, strict=True)}, base.name).build(),
        )
        if not _agrees(program, points, built):
            return None
    except (BackactionError, TypeError, AttributeError):  # a builder that does more than arithmetic
        return None
    _PROGRAMS[key] = (start, elements, program)
    while len(_PROGRAMS) > KEPT:
        _PROGRAMS.popitem(last=False)
    return program


def _columns(fields: Sequence[str], points: Array) -> dict[str, Any]:
    return {f: points[..., k] if points.ndim > 1 else float(points[k]) for k, f in enumerate(fields)}


def _agrees(program: Program, points: Array, built: LinearSystem) -> bool:
    """Whether the entries at points (K, F) are those of the built systems."""
    n, q = program.states, program.currents
    Q, N, R = built.noise()
    ends = np.cumsum([n * n, n * n, n * q, q * q])
    for own, M in zip(np.split(program(points), ends, axis=-1), (built.A, Q, N, R, built.detected().C), strict=True):
        want = np.broadcast_to(M, (len(points), *M.shape[-2:])).reshape(len(points), -1)
        size = np.max(np.abs(want), axis=-1, initial=0.0, keepdims=True)
        if not np.all(np.abs(own - want) <= AGREES * size):
            return False
    return True
