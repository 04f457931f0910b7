"""Results on a grid of parameters, optionally with other parameters optimised at every point: one labelled dataset.

The grid is cut into blocks; a block is one batched evaluation (or one batch of optimisations). Blocks run on threads, or
on a Dask scheduler, and each is kept beside the output until all are there: an interrupted sweep goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backaction.design.problems import Problem, ResultObjective, Variable, read_ties, spread, variables
from backaction.errors import InputError
from backaction.experiment.experiment import Experiment
from backaction.experiment.results import evaluate, parse
from backaction.experiment.ties import Expression
from backaction.experiment.toml import unit_bounds
from backaction.files import provenance, replacing, to_json
from backaction.numerics import newton
from backaction.numerics.matrices import Array
from backaction.workers import Progress, as_they_come, executor, quiet

if TYPE_CHECKING:
    import xarray


BLOCK = 2500
"""Points of one block."""
STARTS, FOLLOWED = 16, 2
"""Starts that are looked at, and followed, at every point of an optimised sweep."""


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep computes: axes, results, and what is optimised at every point."""

    experiment: Experiment
    over: Mapping[str, Array]
    of: tuple[str, ...]
    objective: str | None = None
    variables: tuple[Variable, ...] = ()
    ties: Mapping[str, str] = field(default_factory=dict)
    sign: float = 1.0
    seed: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the grid."""
        return tuple(len(v) for v in self.over.values())

    def points(self, rows: Array) -> dict[str, Array]:
        """Values of the swept names at flat grid positions."""
        index = np.unravel_index(rows, self.shape)
        return {k: np.asarray(v, dtype=float)[i] for (k, v), i in zip(self.over.items(), index, strict=True)}

    def key(self) -> str:
        """A digest of everything that decides the values."""
        parts: list[Any] = [
            self.experiment.to_dict(),
            {k: np.asarray(v).tolist() for k, v in self.over.items()},
            self.of,
        ]
        parts += [self.objective, [str(v) for v in self.variables], dict(self.ties), self.sign, self.seed, provenance()]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def problem(self, points: Mapping[str, Array]) -> Problem:
        """The batch of optimisations at some points."""
        assert self.objective is not None
        ties = read_ties(self.experiment, self.ties)
        return Problem(self.experiment, ResultObjective(self.objective), self.variables, ties, self.sign, points)

    def block(self, rows: Array) -> dict[str, Array]:
        """All results (and arguments) at flat grid positions; NaN where a point has no answer."""
        points = self.points(rows)
        empty = Problem(
            self.experiment, ResultObjective(self.of[0]), (), read_ties(self.experiment, self.ties), 1.0, points
        )
        if self.objective is None:
            return _results(empty.at(np.zeros((rows.size, 0))), self.of, rows.size)
        problem = self.problem(points)
        z, value, good = _optimise(problem, rows.size, self.seed)
        for k, v in enumerate(self.variables):  # the end of a range that was chosen here is no optimum
            good &= ~((v.own[0] & (z[:, k] <= newton.EDGE)) | (v.own[1] & (z[:, k] >= 1 - newton.EDGE)))
        out = _results(problem.at(z), self.of, rows.size)
        shown = np.where(
            good[:, None], np.stack([v.at(z[:, k]) for k, v in enumerate(self.variables)], axis=-1), np.nan
        )
        out |= {f"at {v.name}": shown[:, k] for k, v in enumerate(self.variables)}
        return out | {"converged": good, "_z": z, "_value": value}


def _results(experiment: Experiment, of: Sequence[str], n: int) -> dict[str, Array]:
    with np.errstate(all="ignore"):
        return {name: np.array(np.broadcast_to(evaluate(name, experiment), (n,)), dtype=float) for name in of}


def _optimise(problem: Problem, n: int, seed: int) -> tuple[Array, Array, Array]:
    """Best of several starts at every point: all are looked at, the best ones followed."""
    k = len(problem.variables)
    box = spread(k, STARTS, seed)
    tried = np.stack([_values(problem, np.tile(x, (n, 1)), np.arange(n)) for x in box])
    order = np.argsort(np.where(np.isfinite(tried), tried, np.inf), axis=0)[:FOLLOWED]
    z = box[order].reshape(-1, k)
    rows = np.tile(np.arange(n), FOLLOWED)
    found = newton.minimise(lambda x, i: problem(x, rows[i]), z)
    values = np.where(np.isfinite(found.value), found.value, np.inf).reshape(FOLLOWED, n)
    best = np.argmin(values, axis=0)
    pick = best * n + np.arange(n)
    value = values[best, np.arange(n)]
    return found.z[pick], np.where(np.isfinite(value), value, np.nan), found.converged[pick] & np.isfinite(value)


def _values(problem: Problem, z: Array, rows: Array) -> Array:
    """Values alone, without gradients."""
    with np.errstate(all="ignore"):
        value = evaluate(problem.objective.name, problem.at(z, rows))
    return problem.sign * np.broadcast_to(value, (len(z),))


def sweep(
    experiment: Experiment,
    over: Mapping[str, Any],
    of: Sequence[str],
    *,
    optimize: Mapping[str, tuple[float, float] | None] | Sequence[str] = (),
    objective: str | None = None,
    maximize: bool = False,
    ties: Mapping[str, str] | None = None,
    output: str | Path | None = None,
    scheduler: str | None = None,
    workers: int = 2,
    block: int = BLOCK,
    seed: int = 0,
    progress: Progress | None = None,
) -> xarray.Dataset:
    """Results on a grid.

    Parameters
    ----------
    over
        `{"element.field": values}`; a name without a dot is a variable that `ties` use.
    of
        Names of results; one data variable each.
    optimize, objective, maximize, ties
        Fields that are optimised at every point for `objective` (default: the first of `of`), as in
        `optimization.optimize`; their optimal values are data variables `at NAME`, and `converged` says where it settled.
    output
        A NetCDF file; finished blocks are kept in `OUTPUT.partial` until it is written, and the same sweep uses them again.
    scheduler
        Address of a Dask scheduler; default: `workers` threads here.

    Returns
    -------
    xarray.Dataset
        Coordinates by name with their unit; attributes hold the experiment, version and definition. NaN: no answer there.

    Raises
    ------
    InputError
        For unknown fields or results, or an output that cannot be written.
    """
    plan = _plan(experiment, over, of, optimize, objective, maximize, ties or {}, seed)
    total = int(np.prod(plan.shape))
    pieces = [np.arange(i, min(i + block, total)) for i in range(0, total, block)]
    store = _Store(output, plan.key(), len(pieces))
    _run(plan, pieces, store, scheduler, workers, progress or quiet)
    parts = store.blocks()
    flat = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
    if optimize:
        _follow_neighbours(plan, flat, progress or quiet)
    data = _dataset(plan, {k: v for k, v in flat.items() if not k.startswith("_")})
    if output is not None:
        with replacing(output) as temporary:
            data.to_netcdf(temporary, engine="h5netcdf")
        store.remove()
    return data


def _plan(
    experiment: Experiment,
    over: Mapping[str, Any],
    of: Sequence[str],
    optimize: Mapping[str, tuple[float, float] | None] | Sequence[str],
    objective: str | None,
    maximize: bool,
    ties: Mapping[str, str],
    seed: int,
) -> SweepPlan:
    """Check what `sweep` is asked for."""
    axes = {k: np.atleast_1d(np.asarray(v, dtype=float)) for k, v in over.items()}
    tied = read_ties(experiment, ties)
    _check_axes(experiment, axes, tied)
    if not axes or not of:
        raise InputError("sweep: name at least one field to sweep and one result")
    for name in of:
        parse(name, experiment)
    chosen: tuple[Variable, ...] = ()
    if optimize:
        objective = objective or of[0]
        parse(objective, experiment)
        chosen = variables(experiment, optimize, tied, tuple(axes))
        for v in chosen:
            if v.name in axes:
                raise InputError(f"sweep: '{v.name}' is swept and cannot be optimised too")
    return SweepPlan(
        experiment,
        axes,
        tuple(of),
        objective if optimize else None,
        chosen,
        dict(ties),
        -1.0 if maximize else 1.0,
        seed,
    )


def _check_axes(experiment: Experiment, axes: Mapping[str, Array], tied: Mapping[str, Expression]) -> None:
    used = {n for t in tied.values() for n in t.names}
    for name, values in axes.items():
        if values.ndim != 1 or not np.all(np.isfinite(values)):
            raise InputError(f"sweep: {name}: expected a list of finite values")
        if "." not in name and name not in used:
            raise InputError(f"sweep: '{name}' is no field (element.field), and no tie uses it")
        if "." in name:
            experiment.with_values({name: values}, "sweep")
        if name in tied:
            raise InputError(f"sweep: '{name}' is tied and cannot be swept too")
    if np.prod([float(len(v)) for v in axes.values()]) > 2e7:
        raise InputError(f"sweep: {' x '.join(str(len(v)) for v in axes.values())} points: at most 20 million")


def _run(
    plan: SweepPlan,
    pieces: list[Array],
    store: _Store,
    scheduler: str | None,
    workers: int,
    progress: Progress,
) -> None:
    """Compute the blocks that are not there yet."""
    todo = [i for i in range(len(pieces)) if not store.has(i)]
    done = len(pieces) - len(todo)
    progress(f"{done} of {len(pieces)} blocks" + (" (from before)" if done else ""), done / len(pieces))
    with executor(scheduler, workers) as pool:
        for k, values in as_they_come(pool, plan.block, [(pieces[i],) for i in todo]):
            store.put(todo[k], values)
            done += 1
            progress(f"{done} of {len(pieces)} blocks", done / len(pieces))


class _Store:
    """Finished blocks: in memory, and beside the output while there is none."""

    def __init__(self, output: str | Path | None, key: str, count: int) -> None:
        self.count, self.memory, self.lock = count, dict[int, dict[str, Array]](), threading.Lock()
        self.folder: Path | None = None
        if output is None:
            return
        target = Path(output)
        if not target.parent.is_dir():
            raise InputError(f"{target}: the folder {target.parent} does not exist")
        self.folder = target.with_name(target.name + ".partial")
        mark = self.folder / "key"
        if self.folder.is_dir() and (not mark.is_file() or mark.read_text() != f"{key} {count}"):
            shutil.rmtree(self.folder)  # of another sweep
        self.folder.mkdir(exist_ok=True)
        mark.write_text(f"{key} {count}")

    def has(self, i: int) -> bool:
        """Whether block i is there (read if it is)."""
        if i not in self.memory and self.folder is not None and (file := self.folder / f"{i}.npz").is_file():
            with np.load(file) as stored:
                self.memory[i] = dict(stored)
        return i in self.memory

    def put(self, i: int, values: dict[str, Array]) -> None:
        """Keep block i."""
        with self.lock:
            self.memory[i] = values
            if self.folder is not None:
                with replacing(self.folder / f"{i}.npz") as temporary:
                    np.savez(temporary, **values)  # type: ignore[arg-type]

    def blocks(self) -> list[dict[str, Array]]:
        """All blocks in order."""
        return [self.memory[i] for i in range(self.count)]

    def remove(self) -> None:
        """Forget the folder."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


def _follow_neighbours(plan: SweepPlan, flat: dict[str, Array], progress: Progress) -> None:
    """Where a neighbour's arguments are better than a point's own, go on from there; until nothing changes."""
    shape, k = plan.shape, len(plan.variables)
    rows = np.arange(int(np.prod(shape)))
    index = np.array(np.unravel_index(rows, shape))
    for _ in range(4):
        better = np.zeros(rows.size, dtype=bool)
        start = flat["_z"].copy()
        least = np.where(np.isfinite(flat["_value"]), flat["_value"], np.inf)
        for axis in range(len(shape)):
            for side in (-1, 1):
                moved = index.copy()
                moved[axis] = np.clip(index[axis] + side, 0, shape[axis] - 1)
                theirs = flat["_z"][np.ravel_multi_index(tuple(moved), shape)]
                value = np.concatenate(
                    [_values(plan.problem(plan.points(r)), theirs[r], np.arange(r.size)) for r in _cut(rows)]
                )
                gain = np.isfinite(value) & (value < least - 1e-9 * np.abs(least))
                start[gain], least[gain] = theirs[gain], value[gain]
                better |= gain
        again = rows[better]
        progress(f"{again.size} points start again from a neighbour", 1.0)
        if not again.size:
            return
        for part in _cut(again):
            problem = plan.problem(plan.points(part))
            found = newton.minimise(problem, start[part].reshape(-1, k))
            new = _results(problem.at(found.z), plan.of, part.size)
            for name, values in new.items():
                flat[name][part] = values
            for i, v in enumerate(plan.variables):
                flat[f"at {v.name}"][part] = np.where(found.converged, v.at(found.z[:, i]), np.nan)
            flat["converged"][part], flat["_z"][part], flat["_value"][part] = found.converged, found.z, found.value


def _cut(rows: Array) -> list[Array]:
    return [rows[i : i + BLOCK] for i in range(0, rows.size, BLOCK)]


def _dataset(plan: SweepPlan, flat: dict[str, Array]) -> xarray.Dataset:
    import xarray

    dims = tuple(plan.over)
    data = xarray.Dataset(
        {name: (dims, values.reshape(plan.shape)) for name, values in flat.items()},
        coords={k: (k, np.asarray(v), {"unit": _unit(plan.experiment, k)}) for k, v in plan.over.items()},
        attrs={
            "schema": "backaction/sweep/1",
            "experiment": to_json(plan.experiment.to_dict(), indent=None),
            "objective": plan.objective or "",
            "ties": to_json(dict(plan.ties), indent=None),
            "seed": plan.seed,
            **provenance(),
        },
    )
    for v in plan.variables:
        data[f"at {v.name}"].attrs["unit"] = _unit(plan.experiment, v.name)
    return data


def _unit(experiment: Experiment, name: str) -> str:
    return unit_bounds(experiment, name)[0] if "." in name else "1"
