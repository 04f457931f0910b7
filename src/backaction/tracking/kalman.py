"""The exact Kalman filter of sampled models over a long record: any start, gaps, models that change, smoothing.

Where nothing is missing and the covariance is steady the filter is a linear recursion with a constant gain
(`numerics.recursion.Recursion`); elsewhere (start, gaps, a change of model) every sample takes the exact time-varying
step until the covariance has settled. Blocks are anchored at absolute sample numbers, so that the result does not depend
on how the record was cut.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from backaction.errors import InputError, ModelError
from backaction.numerics.compile import compiled
from backaction.numerics.matrices import Array, scaled_root
from backaction.numerics.matrix_equations import discrete_lyapunov
from backaction.numerics.recursion import Recursion
from backaction.systems.sampled import SampledModel, SteadyEffect, SteadyFilter, steady_effect

_SETTLED = 1e-12
_BLOCK = 4096


@dataclass(frozen=True)
class FilterPlan:
    """What a filter returns: x^ through `read` (p, n) every `every` samples, from samples u with y = scale u + offset.

    With `single` the means and innovations of long steady stretches are written in single precision. `ahead` steps the
    state forward: the prediction for that many samples later. Without `likelihood` steady stretches skip the innovations.
    """

    read: Array
    every: int = 1
    scale: float = 1.0
    offset: float = 0.0
    ahead: int = 0
    single: bool = False
    square_root: bool = False
    likelihood: bool = True

    @property
    def block(self) -> int:
        """Samples per anchored block: a multiple of `every` where that is smaller."""
        return self.every * -(-_BLOCK // self.every) if self.every <= _BLOCK else _BLOCK


class Stage:
    """One model with everything that its steady stretches need, made when first used."""

    def __init__(self, model: SampledModel, plan: FilterPlan, first: Stage | None = None) -> None:
        self.model, self.plan, self._first = model, plan, first
        F, Q = _ahead(model.F, model.Q, plan.ahead)
        self.read = plan.read @ F
        self.added = plan.read @ Q @ plan.read.T

    @property
    def steady(self) -> SteadyFilter | None:
        """The steady filter, None where there is none."""
        return self.model.steady

    @property
    def covariance(self) -> Array:
        """Steady covariance of what is read out."""
        return self.read @ self._steady().covariance @ self.read.T + self.added

    @cached_property
    def _innovation_root(self) -> Array:
        """Cholesky factor of the steady innovations' covariance (of R where there is no steady filter)."""
        return np.linalg.cholesky(self.model.R if self.steady is None else self.steady.innovation)

    @cached_property
    def white(self) -> Array:
        """Root of the covariance that innovations are whitened to: s 1, s^2 the first model's steady variance."""
        if self._first is not None:
            return self._first.white
        return self._innovation_root[0, 0] * np.eye(len(self.model.R))

    @cached_property
    def whitening(self) -> Array:
        """From steady innovations to whitened ones: 1 for one current."""
        return self.white @ np.linalg.inv(self._innovation_root)

    @cached_property
    def root(self) -> Array:
        """Root of the joint noise, rows v, w."""
        m = self.model
        return scaled_root(np.block([[m.R, m.N.T], [m.N, m.Q]]))

    @cached_property
    def forward(self) -> Recursion:
        """Means (every sample) and innovations, or innovations and ends of `every` samples."""
        f, plan = self._steady(), self.plan
        A, B = f.closed_loop, f.gain
        outputs = [(-self.whitening @ f.model.H, self.whitening)] if plan.likelihood else []
        if plan.every == 1:
            outputs.append((self.read @ A, self.read @ B))
        kinds = [np.float32 if plan.single else np.float64] * len(outputs)
        divides = plan.every if 1 < plan.every <= plan.block else 0
        return Recursion(A, B, outputs, plan.scale, plan.offset, kinds, divides)

    @cached_property
    def full(self) -> Recursion:
        """All states x_{k+1} and innovations, for the smoother."""
        f = self._steady()
        A, B = f.closed_loop, f.gain
        outputs = [(-self.whitening @ f.model.H, self.whitening), (self.read @ A, self.read @ B)]
        return Recursion(A, B, outputs, self.plan.scale, self.plan.offset)

    @cached_property
    def backward(self) -> Recursion:
        """R of the smoother from whitened innovations in reverse order: read P r before each step."""
        f = self._steady()
        gain = np.linalg.solve(self._innovation_root, f.model.H).T / self.white[0, 0]
        return Recursion(f.closed_loop.T, gain, [(self.read @ f.covariance, np.zeros((len(self.read), gain.shape[1])))])

    @cached_property
    def information(self) -> Array:
        """Steady M of the smoother: M = L^T M L + H^T S^-1 H."""
        f = self._steady()
        H = f.model.H
        return discrete_lyapunov(f.closed_loop.T, H.T @ np.linalg.solve(f.innovation, H))

    @property
    def smoothed(self) -> Array:
        """Steady covariance of the smoothed estimate."""
        CP = self.read @ self._steady().covariance
        return CP @ self.read.T - CP @ self.information @ CP.T

    @cached_property
    def effect(self) -> SteadyEffect | None:
        """The steady effect operator, None where there is none."""
        try:
            return steady_effect(self.model)
        except ModelError:
            return None

    def steady_covariance(self, estimate: str) -> Array:
        """That of what is read out, `filtered`, `smoothed` or `retrodicted`; NaN where there is none."""
        if (self.effect if estimate == "retrodicted" else self.steady) is None:
            return np.full((len(self.read), len(self.read)), np.nan)
        if estimate == "retrodicted":
            assert self.effect is not None
            return self.read @ self.effect.covariance @ self.read.T
        return self.smoothed if estimate == "smoothed" else self.covariance

    @cached_property
    def retrodiction(self) -> Recursion:
        """Eta of the effect operator from samples in reverse order; reads x_E of x_{k+1} before step k."""
        e = self.effect
        assert e is not None
        read = self.plan.read @ e.covariance
        zero = np.zeros((len(read), e.gain.shape[1]))
        return Recursion(e.closed_loop, e.gain, [(read, zero)], self.plan.scale, self.plan.offset)

    def _steady(self) -> SteadyFilter:
        assert self.steady is not None
        return self.steady


@dataclass
class State:
    """Where a filter stands: before sample `position`; everything that a resumed run needs."""

    x: Array
    P: Array
    position: int = 0
    settled: bool = False
    since: int = 0
    log_likelihood: float = 0.0
    seen: int = 0

    def copy(self) -> State:
        """A state of its own."""
        return replace(self, x=self.x.copy(), P=self.P.copy())


@dataclass
class Piece:
    """What one advance gives: samples [start, stop), means at (k + 1) % every == 0, innovations.

    Innovations are whitened to the steady variance of the first current (`Stage.white`), NaN where a sample is missing.
    `exact` (rows of `mean`) and `covariance` (their covariances) say where the first model's steady covariance does not
    hold.
    """

    start: int
    stop: int
    mean: Array
    innovation: Array
    exact: Array
    covariance: Array


@dataclass
class Run:
    """A stretch of one kind within a chunk: what the smoother needs of it."""

    start: int
    stop: int
    stage: Stage
    kind: str
    innovation: Array
    means: Array
    xs: Array = field(default_factory=lambda: np.empty((0, 0)))
    Ps: Array = field(default_factory=lambda: np.empty((0, 0, 0)))
    steps: tuple[Array, ...] = ()


class KalmanFilter:
    """A Kalman filter that is fed a record in consecutive chunks.

    Parameters
    ----------
    schedule
        (first sample, model) in rising order, the first at sample 0.
    plan
        What is read out, how often, and how samples become currents.
    state
        Mean and covariance of x_0 (covariance: its root with `plan.square_root`).
    """

    def __init__(self, schedule: Sequence[tuple[int, SampledModel]], plan: FilterPlan, state: State) -> None:
        starts = [s for s, _ in schedule]
        if starts[0] != 0 or any(b <= a for a, b in itertools.pairwise(starts)):
            raise InputError(f"schedule of models starts at samples {starts}: must rise from 0")
        first = Stage(schedule[0][1], plan)
        self.stages = [first, *(Stage(m, plan, first) for _, m in schedule[1:])]
        self.starts, self.plan, self.state = starts, plan, state
        self._room: tuple[Array, Array, Array] | None = None  # of a block's states and covariances

    @property
    def innovation_type(self) -> type:
        """Of the innovations."""
        return np.float32 if self.plan.single else np.float64

    @property
    def mean_type(self) -> type:
        """Of the means."""
        return np.float32 if self.plan.single and self.plan.every == 1 else np.float64

    def stage_at(self, sample: int) -> Stage:
        """The model that holds at a sample."""
        return self.stages[int(np.searchsorted(self.starts, sample, side="right")) - 1]

    def advance(
        self, u: Array, ok: Array | None = None, mean: Array | None = None, innovation: Array | None = None
    ) -> Piece:
        """Filter the next samples u (T,) or (T, q), `ok` alike (None: none is missing).

        All chunks but the last must be multiples of `plan.block` long, for results that do not depend on the cuts. `mean`
        and `innovation` are filled where they are given (their types: `mean_type`, `innovation_type`).
        """
        plan, start, q = self.plan, self.state.position, self.stages[0].model.H.shape[0]
        u = u.reshape(len(u), q)
        stop = start + len(u)
        outputs = stop // plan.every - start // plan.every
        if innovation is None:
            innovation = np.empty((len(u) if plan.likelihood else 0, q), dtype=self.innovation_type)
        if mean is None:
            mean = np.empty((outputs, len(plan.read)), dtype=self.mean_type)
        rows: list[Array] = [np.empty(0, dtype=np.int64)]
        exact: list[Array] = [np.empty((0, len(plan.read), len(plan.read)))]
        for a, b, steady in self._runs(start, stop, ok):
            part = slice(a - start, b - start)
            at = slice(a // plan.every - start // plan.every, b // plan.every - start // plan.every)
            stage = self.stage_at(a)
            if steady:
                self._steady(stage, u[part], innovation[part] if plan.likelihood else None, mean[at], a)
                if stage is not self.stages[0]:
                    rows.append(np.arange(at.start, at.stop))
                    exact.append(np.broadcast_to(stage.covariance, (at.stop - at.start, *stage.covariance.shape)))
                continue
            there = None if ok is None else ok.reshape(u.shape)[part]
            xs, Ps, _ = self._varying(stage, u[part], there, innovation[part] if plan.likelihood else None)
            pick = np.flatnonzero((np.arange(a, b) + 1) % plan.every == 0)
            mean[at] = xs[pick] @ stage.read.T
            rows.append(np.arange(at.start, at.stop))
            if plan.square_root:
                root = stage.read @ Ps[pick]
                exact.append(root @ root.swapaxes(-1, -2) + stage.added)
            else:
                exact.append(stage.read @ Ps[pick] @ stage.read.T + stage.added)
        return Piece(start, stop, mean, innovation, np.concatenate(rows), np.concatenate(exact))

    def trace(self, u: Array, ok: Array | None = None) -> list[Run]:
        """Advance and keep what the smoother needs: runs with the mean of every sample."""
        start, q = self.state.position, self.stages[0].model.H.shape[0]
        u = u.reshape(len(u), q)
        out = []
        for a, b, steady in self._runs(start, start + len(u), ok):
            part = slice(a - start, b - start)
            stage = self.stage_at(a)
            innovation = np.empty((b - a, q))
            if steady:
                means = np.empty((b - a, len(self.plan.read)))
                self.state.x = stage.full.run(u[part], self.state.x, [innovation, means])
                self._count(stage, innovation, b)
                out.append(Run(a, b, stage, "steady", innovation, means))
            else:
                there = None if ok is None else ok.reshape(u.shape)[part]
                xs, Ps, steps = self._varying(stage, u[part], there, innovation, keep=True)
                out.append(Run(a, b, stage, "varying", innovation, xs @ stage.read.T, xs, Ps, steps))
        return out

    # -- pieces of an advance -------------------------------------------------------------------------------------

    def _runs(self, start: int, stop: int, ok: Array | None) -> Any:
        """(a, b, steady) of consecutive stretches; lazily, because settling is found while filtering."""
        block, a = self.plan.block, start
        switches = {s for s in self.starts if s > 0}
        good: Array | None = None if ok is None else np.all(ok.reshape(stop - start, -1), axis=1, keepdims=True)
        while a < stop:
            if a in switches:
                self._disturbed()
            b = min(stop, a - a % block + block)
            inside = [s for s in switches if a < s < b]
            b = min([b, *inside])

            def clean(low: int, high: int) -> bool:
                return good is None or bool(np.all(good[low - start : high - start]))

            whole = a % block == 0 and b - a == block
            if self.state.settled and whole and clean(a, b):
                while b < stop and b not in switches:
                    after = min(stop, b + block)
                    if after - b < block or not clean(b, after) or any(b < s < after for s in switches):
                        break
                    b = after
                yield a, b, True
            else:
                yield a, b, False
            a = b

    def _disturbed(self) -> None:
        if self.state.settled and self.plan.square_root:
            self.state.P = scaled_root(self.state.P)
        self.state.settled, self.state.since = False, 0

    def _steady(self, stage: Stage, u: Array, innovation: Array | None, mean: Array, first: int) -> None:
        plan, x = self.plan, self.state.x
        seen = [] if innovation is None else [innovation]
        if plan.every == 1:
            self.state.x = stage.forward.run(u, x, [*seen, mean])
        elif plan.every <= plan.block:
            ends = np.empty((len(u) // plan.every, len(x)))
            self.state.x = stage.forward.run(u, x, seen, ends, plan.every)
            mean[:] = ends @ stage.read.T
        else:  # few means: from one to the next, and anew from the block after it, so that cuts do not matter
            stop, row = first + len(u), 0
            for a, b in itertools.pairwise(_anchors(first, stop, plan.every, plan.block)):
                part = slice(a - first, b - first)
                x = stage.forward.run(u[part], x, [s[part] for s in seen])
                if b % plan.every == 0:
                    mean[row] = stage.read @ x
                    row += 1
            self.state.x = x
        self._count(stage, innovation, first + len(u))

    def _count(self, stage: Stage, innovation: Array | None, position: int) -> None:
        state = self.state
        size = position - state.position
        state.position, state.since = position, state.since + size
        if innovation is None:
            state.log_likelihood = np.nan
            return
        flat = innovation.reshape(-1)
        # not a dot product: waking a library's threads costs more than this sum
        square = float(np.einsum("i,i->", flat, flat, dtype=np.float64)) / float(stage.white[0, 0]) ** 2
        log_det = float(np.sum(np.log(np.diag(stage._innovation_root))))
        state.log_likelihood -= 0.5 * square + size * (log_det + 0.5 * innovation.shape[1] * np.log(2 * np.pi))
        state.seen += innovation.size

    def _varying(
        self, stage: Stage, u: Array, ok: Array | None, innovation: Array | None, keep: bool = False
    ) -> tuple[Array, Array, tuple[Array, ...]]:
        """The exact step for every sample; returns states and covariances after each, and the smoother's matrices."""
        state, m, plan = self.state, stage.model, self.plan
        T, q = u.shape
        n = len(state.x)
        present = np.ones((T, q), dtype=bool) if ok is None else np.ascontiguousarray(ok)
        whole = ok is None or bool(present.all())
        y = plan.scale * u.astype(np.float64) + plan.offset
        if not whole:
            self._disturbed()
            y = np.where(present, y, 0.0)
        if keep or self._room is None or len(self._room[0]) < T:
            room = (np.empty((T, n)), np.empty((T, n, n)), np.empty((T, q)))
            self._room = None if keep else room
        else:
            room = self._room
        xs, Ps, e = (r[:T] for r in room)
        steps: tuple[Array, ...] = (np.empty((0, n, n)), np.empty((0, n)), np.empty((0, n, n)))
        if plan.square_root and not state.settled:
            if keep:
                raise InputError("smoothing in square-root form is not available; smooth without it")
            gained = compiled("filter_square_root", n, q)(
                y, present, state.x, state.P, m.F, m.H, stage.root, stage.white, e, xs, Ps
            )
            settled = self._is_settled(stage, state.P @ state.P.T)
        else:
            if keep:
                steps = (np.empty((T, n, n)), np.empty((T, n)), np.empty((T, n, n)))
            gained = compiled("filter_varying", n, q)(
                y, present, state.x, state.P, m.F, m.H, m.Q, m.N, m.R, stage.white, e, xs, Ps, *steps
            )
            settled = self._is_settled(stage, state.P)
            if plan.square_root:  # a short last block of a settled filter
                Ps = scaled_root(Ps)
        if not np.all(np.isfinite(state.P)):
            raise ModelError(
                f"the covariance lost all its digits near sample {state.position}: use the square-root form (square_root)"
            )
        if innovation is not None:
            innovation[:] = e
        state.log_likelihood += float(gained)
        state.seen += T * q if whole else int(present.sum())
        state.position += T
        # since the last missing sample
        gone = np.flatnonzero(np.logical_not(np.all(present, axis=1))) if not whole else np.empty(0)
        quiet = T if not gone.size else T - 1 - int(gone[-1])
        state.since = state.since + T if quiet == T else quiet
        memory = np.inf if stage.steady is None else stage.steady.memory_s / m.interval_s
        if stage.steady is not None and (settled or state.since > 20 * memory):
            state.P, state.settled = stage.steady.covariance.copy(), True
        return xs, Ps, steps

    def _is_settled(self, stage: Stage, P: Array) -> bool:
        if stage.steady is None or not np.all(np.isfinite(P)):
            return False
        V = stage.steady.covariance
        size = np.sqrt(np.maximum(np.diag(V), 1e-300))
        return bool(np.max(np.abs(P - V) / size[:, None] / size[None, :]) < _SETTLED)


def _anchors(first: int, stop: int, every: int, block: int) -> list[int]:
    """first, stop, the multiples of `every` between them and the block boundaries that follow these."""
    points = {first, stop}
    for k in range(first // every + 1, stop // every + 1):
        points |= {k * every, min(stop, -(-k * every // block) * block)}
    return sorted(points)


def _ahead(F: Array, Q: Array, steps: int) -> tuple[Array, Array]:
    """F^m and sum_{k<m} F^k Q F^k^T, by doubling."""
    G, V = np.eye(len(F)), np.zeros_like(Q)
    while steps:
        if steps & 1:
            G, V = F @ G, F @ V @ F.T + Q
        F, Q = F @ F, F @ Q @ F.T + Q
        steps >>= 1
    return G, V
