"""Backward passes over a record in constant memory: the smoother, and retrodiction by the effect operator.

    smoothed      x_k|T = x^_k + P_k r_k,  r_{k-1} = (F - K_k H)^T r_k + H^T S_k^-1 e_k       (Bryson-Frazier form of RTS)
    retrodicted   information filter of the future record alone with a flat prior: no past, no steady state assumed

The smoother filters forward keeping its state at chunk boundaries alone, then goes through the chunks from the last to the
first, filtering each once more. Estimates stand at the same times as the filter's: of x_{k+1} after sample k.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from backaction.numerics.compile import compiled
from backaction.numerics.matrices import Array
from backaction.systems.sampled import SampledModel
from backaction.tracking.kalman import FilterPlan, KalmanFilter, Piece, Run, State

Fetch = Callable[[int, int], tuple[Array, Array | None]]
"""Samples [start, stop) of the filter's input and their mask."""


def smooth(
    schedule: list[tuple[int, SampledModel]],
    plan: FilterPlan,
    state: State,
    fetch: Fetch,
    size: int,
    chunk: int,
    seen: Callable[[Array, int, State], None] | None = None,
) -> Iterator[Piece]:
    """Smoothed pieces from the last chunk to the first, without innovations.

    `seen` is called with the filter's innovations, their first sample and the filter's state, in time order, before that.
    """
    step = max(plan.block, chunk - chunk % plan.block)
    forward = KalmanFilter(schedule, plan, state)
    marks = []
    for start in range(0, size, step):
        marks.append(forward.state.copy())
        if start + step < size:
            u, ok = fetch(start, start + step)
            piece = forward.advance(u, ok)
            if seen is not None:
                seen(piece.innovation, start, forward.state)
    n = len(state.x)
    r, M, steady = np.zeros(n), np.zeros((n, n)), False
    for mark in reversed(marks):
        stop = min(size, mark.position + step)
        forward.state = mark.copy()
        start = mark.position
        u, ok = fetch(start, stop)
        runs = forward.trace(u, ok)
        if seen is not None and stop == size:  # the last chunk is filtered once, here
            for run in runs:
                seen(run.innovation, run.start, forward.state)
        mean, at, covariances, r, M, steady = _back(forward, plan, runs, (start, stop), r, M, steady)
        order = slice(None, None, -1)
        yield Piece(
            start, stop, mean, np.empty((0, 1)), np.concatenate(at[order]),
            np.concatenate(covariances[order]),
        )  # fmt: skip


def _back(
    forward: KalmanFilter, plan: FilterPlan, runs: list[Run], chunk: tuple[int, int], r: Array, M: Array, steady: bool
) -> tuple[Array, list[Array], list[Array], Array, Array, bool]:
    """One chunk backwards: smoothed means, rows with a covariance of their own, these; and r, M before the chunk.

    x^s = x^f + P^f r and P^s = P^f - P^f M P^f, with r and M from the later innovations (Bryson-Frazier).
    """
    start, stop = chunk
    n = len(r)
    mean = np.empty((stop // plan.every - start // plan.every, len(plan.read)))
    at: list[Array] = []
    covariances: list[Array] = []
    for run in reversed(runs):
        first = -(-(run.start + 1) // plan.every) * plan.every - 1
        near = wanted = np.arange(first, run.stop, plan.every) - run.start
        rows = slice(first - run.start, None, plan.every)
        row = (first + 1) // plan.every - 1 - start // plan.every
        out = mean[row : row + len(wanted)]
        if run.kind == "steady":
            near, covariance, r, M, steady = _back_steady(run, r, M, steady, wanted, rows, out)
            if run.stage is not forward.stages[0]:  # another model's steady covariance is an exception too
                full = np.broadcast_to(run.stage.smoothed, (len(wanted), *run.stage.smoothed.shape)).copy()
                full[np.searchsorted(wanted, near)] = covariance
                near, covariance = wanted, full
        else:
            rs, Ms = np.empty((run.stop - run.start, n)), np.empty((run.stop - run.start, n, n))
            m = run.stage.model
            compiled("smooth_varying", n, len(m.R))(r, M, m.F, m.H, *run.steps, rs, Ms)
            steady = False
            C = run.stage.read
            CP = C @ run.Ps[rows]
            out[:] = run.means[rows] + (CP @ rs[rows][:, :, None])[:, :, 0]
            covariance = CP @ C.T - CP @ Ms[rows] @ CP.swapaxes(-1, -2)
        covariances.append(covariance)
        at.append((run.start + near + 1) // plan.every - 1 - start // plan.every)
    return mean, at, covariances, r, M, steady


def _back_steady(
    run: Run, r: Array, M: Array, steady: bool, wanted: Array, rows: slice, out: Array
) -> tuple[Array, Array, Array, Array, bool]:
    """A steady stretch backwards: one linear recursion for r; M goes to its steady value in closed form.

    Fills the means `out`. Returns the samples whose covariance is not the steady one with these covariances, and r, M before
    the stretch.
    """
    stage, f, T = run.stage, run.stage.steady, len(run.means)
    assert f is not None
    added = np.empty((T, run.means.shape[1]))
    r = stage.backward.run(np.ascontiguousarray(run.innovation[::-1]), r, [added])
    np.add(added[::-1][rows], run.means[rows], out=out)
    L, limit = f.closed_loop, stage.information
    C, P = stage.read, f.covariance
    CP = C @ P

    def covariance(N: Array) -> Array:
        return CP @ C.T - CP @ N @ CP.T

    if not steady:
        steady = bool(np.max(np.abs(P @ (M - limit) @ P)) < 1e-13 * np.max(np.abs(P)))
    if steady:
        return wanted[:0], np.empty((0, len(C), len(C))), r, limit.copy(), True
    # M_j = limit + (L^T)^j (M - limit) L^j, j samples before the stretch's end, as long as the difference lives
    alive = min(T, round(17 * f.memory_s / f.model.interval_s) + 1)
    differences = np.empty((alive, len(L), len(L)))
    compiled("decay", len(L), len(f.model.R))(M - limit, L, f.model.H, differences)
    near = wanted[T - 1 - wanted < alive]
    covariances = covariance(limit + differences[T - 1 - near])
    whole = np.linalg.matrix_power(L, T)
    return near, covariances, r, limit + whole.T @ (M - limit) @ whole, False


def retrodict(
    schedule: list[tuple[int, SampledModel]], plan: FilterPlan, fetch: Fetch, size: int, chunk: int
) -> Iterator[Piece]:
    """Retrodicted pieces from the last chunk to the first; means are NaN while the future does not determine the state."""
    engine = KalmanFilter(schedule, plan, State(np.zeros(0), np.zeros((0, 0))))
    step = max(plan.block, chunk - chunk % plan.block)
    n = schedule[0][1].F.shape[-1]
    eta, J, settled, since = np.zeros(n), np.zeros((n, n)), False, 0
    for start in reversed(range(0, size, step)):
        stop = min(size, start + step)
        u, ok = fetch(start, stop)
        u = u.reshape(stop - start, -1)
        mask = None if ok is None else ok.reshape(u.shape)
        outputs = stop // plan.every - start // plan.every
        mean = np.full((outputs, len(plan.read)), np.nan)
        exact: list[tuple[Array, Array]] = [(np.empty(0, np.int64), np.empty((0, len(plan.read), len(plan.read))))]
        b = stop
        while b > start:
            a, inside = _block_before(engine, b, start, plan.block)
            stage = engine.stage_at(a)
            clean = mask is None or bool(mask[a - start : b - start].all())
            if settled and clean and not inside and b - a == plan.block:
                while a - plan.block >= start:  # as far as it stays clean
                    before, inside = _block_before(engine, a, start, plan.block)
                    if inside or a - before < plan.block or engine.stage_at(before) is not stage:
                        break
                    if mask is not None and not mask[before - start : a - start].all():
                        break
                    a = before
                x = np.empty((b - a, len(plan.read)))
                eta = stage.retrodiction.run(np.ascontiguousarray(u[a - start : b - start][::-1]), eta, [x])
                values, cov = x[::-1], None
            else:
                part = slice(a - start, b - start)
                there = np.ones((b - a, u.shape[1]), dtype=bool) if mask is None else np.ascontiguousarray(mask[part])
                y = np.where(there, plan.scale * u[part].astype(np.float64) + plan.offset, 0.0)
                etas, Js = np.empty((b - a, n)), np.empty((b - a, n, n))
                m = stage.model
                compiled("retrodict_varying", n, len(m.R))(y, there, eta, J, m.F, m.H, m.Q, m.N, m.R, etas, Js)
                values, cov = _states(plan.read, etas, Js, plan.every, a)
                since = since + (b - a) if clean and not inside else 0
                e = stage.effect
                settled = e is not None and (_close(J, e.information) or since > 20 * e.memory_s / m.interval_s)
                if settled and e is not None:
                    J = e.information.copy()
            rows = np.flatnonzero((np.arange(a, b) + 1) % plan.every == 0)
            at = (a + rows + 1) // plan.every - 1 - start // plan.every
            mean[at] = values[rows] if cov is None else values
            if cov is None and stage is not engine.stages[0]:
                assert stage.effect is not None
                own = plan.read @ stage.effect.covariance @ plan.read.T
                cov = np.broadcast_to(own, (len(rows), *own.shape))
            if cov is not None:
                exact.append((at, cov))
            b = a
            if b in engine.starts:
                settled, since = False, 0
        at, cov = (np.concatenate(x) for x in zip(*exact[::-1], strict=True))
        yield Piece(start, stop, mean, np.empty((0, u.shape[1])), at, cov)


def _block_before(engine: KalmanFilter, stop: int, start: int, block: int) -> tuple[int, bool]:
    """Start of the anchored block that ends at `stop`, and whether a change of model cut it short."""
    a = max(start, (stop - 1) - (stop - 1) % block)
    switches = [s for s in engine.starts if a < s < stop]
    return (switches[-1], True) if switches else (a, False)


def _states(read: Array, etas: Array, Js: Array, every: int, first: int) -> tuple[Array, Array]:
    """Means and covariances at the wanted rows; NaN where the information is singular."""
    rows = np.flatnonzero((np.arange(first, first + len(etas)) + 1) % every == 0)
    J, eta = Js[rows], etas[rows]
    size = np.sqrt(np.maximum(np.diagonal(J, axis1=-2, axis2=-1), 1e-300))
    scaled = J / size[:, :, None] / size[:, None, :]
    good = np.linalg.eigvalsh(scaled)[:, 0] > 1e-12 if len(rows) else np.zeros(0, dtype=bool)
    inverse = np.linalg.inv(np.where(good[:, None, None], scaled, np.eye(J.shape[-1])))
    V = inverse / size[:, :, None] / size[:, None, :]
    mean = np.where(good[:, None], np.einsum("pi,tij,tj->tp", read, V, eta), np.nan)
    return mean, np.where(good[:, None, None], read @ V @ read.T, np.nan)


def _close(J: Array, limit: Array) -> bool:
    size = np.sqrt(np.maximum(np.diag(limit), 1e-300))
    return bool(np.max(np.abs(J - limit) / size[:, None] / size[None, :]) < 1e-11)
