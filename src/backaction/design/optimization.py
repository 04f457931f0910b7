"""Optimal parameters of an experiment: any result, over any fields, with bounds, ties and constraints.

The search is multi-start: starts spread over the box of the variables are all improved at once by a trust-region Newton
method with exact gradients (`newton`), rates on a logarithmic scale. What is reported is not only the value: arguments that
sit on a bound, directions along which nothing changes, how many starts agree, and whether there is an optimum at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from backaction.design import constrained
from backaction.design.problems import (
    Constraint,
    Objective,
    Problem,
    ResultObjective,
    Variable,
    read_ties,
    spread,
    variables,
)
from backaction.errors import InputError, ModelError, nearest
from backaction.experiment.experiment import Experiment
from backaction.experiment.results import evaluate, parse
from backaction.experiment.toml import unit_bounds
from backaction.files import provenance
from backaction.numerics import newton
from backaction.numerics.matrices import Array
from backaction.units import number
from backaction.workers import listener

FLAT = 1e-7
"""A direction is flat where the Hessian's eigenvalue is below this fraction of the largest."""
WITNESS = {
    "epr.variance": 1.0,
    "epr_readout.variance": 1.0,
    "duan": 1.0,
    "collective.duan": 1.0,
    "ppt_min": 0.5,
    "epr_at_conditional.variance": 1.0,
}
"""Measures that witness entanglement below a value."""


@dataclass(frozen=True, eq=False)
class Optimum:
    """Where the objective is best, or why it is nowhere.

    `status` is "optimum", "none" (with `reason`: no entanglement, or the search runs away) or "not converged". `at` holds
    the variables, `fields` every field that they set through ties, `on_bound` the variables at an end of their range,
    `flat` the directions (scaled variables) along which nothing changes, `eigenvalues` those of the scaled Hessian.
    """

    status: str
    reason: str
    value: float | None
    at: dict[str, float]
    fields: dict[str, float]
    on_bound: list[str]
    flat: list[dict[str, float]]
    eigenvalues: list[float]
    constraints: list[dict[str, Any]]
    starts: int
    agreeing: int
    objective: str
    experiment: Experiment = field(repr=False)

    def document(self) -> dict[str, Any]:
        """Schema `backaction/optimize/1`."""
        return {
            "schema": "backaction/optimize/1",
            "objective": self.objective,
            "status": self.status,
            "reason": self.reason,
            "value": self.value,
            "at": self.at,
            "fields": self.fields,
            "on_bound": self.on_bound,
            "flat": self.flat,
            "hessian_eigenvalues": self.eigenvalues,
            "constraints": self.constraints,
            "starts": {"tried": self.starts, "agree": self.agreeing},
            "experiment": self.experiment.to_dict(),
            "provenance": provenance(),
        }


def optimize(
    experiment: Experiment,
    objective: str | Objective,
    over: Mapping[str, tuple[float, float] | None] | Sequence[str],
    *,
    maximize: bool = False,
    ties: Mapping[str, str] | None = None,
    constraints: Sequence[str | Constraint] = (),
    starts: int = 24,
    seed: int = 0,
    progress: Callable[..., None] | None = None,
) -> Optimum:
    """The parameters at which a result is least (or greatest).

    Parameters
    ----------
    objective
        A result's name, or an object with `name` and `value_and_gradient(experiment, fields)`.
    over
        What to vary: `{"element.field": (lower, upper) or None}`, or names alone. A name without a dot is a new
        variable that `ties` use.
    ties
        `{"membrane.coupling_angle_deg": "spin.coupling_angle_deg", "spin.readout_rate_hz": "C*spin.occupation"}`:
        fields that follow others, in this order.
    constraints
        `"dynamics.margin_hz >= 100"`, ... ; any result.
    starts, seed
        Number of starts spread over the box (the experiment's own values come first) and their seed.

    Raises
    ------
    InputError
        For unknown results, fields, ranges, ties.
    ModelError
        If no start has a value.
    """
    goal: Objective = objective if not isinstance(objective, str) else ResultObjective(objective)
    if isinstance(objective, str):
        parse(objective, experiment)
    if experiment.system.batch_shape:
        raise InputError(f"optimize: '{experiment.name}' holds arrays: optimise one point at a time, or use sweep")
    bound_ties = read_ties(experiment, ties or {})
    chosen = variables(experiment, over, bound_ties)
    problem = Problem(experiment, goal, chosen, bound_ties, -1.0 if maximize else 1.0)
    limits = [Constraint.of(c) if isinstance(c, str) else c for c in constraints]
    for c in limits:
        parse(c.result, experiment)
    z = spread(len(chosen), starts, seed)
    own = [_current(experiment, v) for v in chosen]
    if all(o is not None for o in own):
        z = np.concatenate([np.array([own], dtype=float), z[:-1]])
    say = listener(progress)
    say(f"{len(z)} starts in {len(chosen)} variables", None)
    z = _with_values(problem, z, starts, seed)
    if limits:
        found = constrained.improve(problem, limits, z, say)
    else:
        found = newton.minimise(problem, z)
    return _judge(problem, found, limits, len(z))


def _with_values(problem: Problem, z: Array, starts: int, seed: int) -> Array:
    """The starts at which the objective has a value, with more of them where these are few."""
    begun = np.isfinite(problem(z)[0])
    extra = 0
    while begun.sum() < max(3, starts // 3) and extra < 8:  # much of the box has no answer: look further
        extra += 1
        z = np.concatenate([z, spread(len(problem.variables), 4 * starts, seed + extra)])
        begun = np.isfinite(problem(z)[0])
    if not np.any(begun):
        raise ModelError(
            f"optimize: {problem.objective.name} has no value anywhere in the box that was searched (unstable everywhere?)"
        )
    return z[begun][: max(starts, 3)]


def _current(experiment: Experiment, v: Variable) -> float | None:
    if "." not in v.name:
        return None
    value = experiment.value(v.name)
    return None if value is None or np.ndim(value) else float(v.z(float(value)))


def _judge(problem: Problem, found: newton.Minimum, limits: Sequence[Constraint], starts: int) -> Optimum:
    """Choose the best of the local minima and say what it is worth."""
    if not np.any(np.isfinite(found.value)):
        return _nothing_meets(problem, limits, found, starts)
    best = int(np.nanargmin(np.where(np.isfinite(found.value), found.value, np.inf)))
    z, value = found.z[best], problem.sign * float(found.value[best])
    near = np.abs(found.value - found.value[best]) <= 1e-8 * (1e-300 + abs(found.value[best]))
    values = {k: float(np.real(v)) for k, v in problem.values(z).items()}
    here = problem.at(z)
    edge = newton.on_edge(found.z[best : best + 1], found.gradient[best : best + 1])[0]
    edge |= (z <= newton.EDGE) | (z >= 1 - newton.EDGE)
    eigenvalues, flat = _flat(problem, found.hessian[best], edge)
    checked = []
    for c in limits:
        got = float(evaluate(c.result, here))
        active = abs(got - c.limit) <= 1e-6 * max(abs(c.limit), abs(got), 1e-12)
        checked.append({"constraint": str(c), "value": got, "active": bool(active)})
    status, reason = _status(problem, z, value, bool(found.converged[best]), limits, here)
    names = [v.name for v in problem.variables]
    shown = status != "none"
    return Optimum(
        status=status,
        reason=reason,
        value=value if shown else None,
        at={n: values[n] for n in names} if shown else {},
        fields={n: v for n, v in values.items() if "." in n} if shown else {},
        on_bound=[n for n, e in zip(names, edge, strict=True) if e] if shown else [],
        flat=flat if shown else [],
        eigenvalues=eigenvalues if shown else [],
        constraints=checked,
        starts=starts,
        agreeing=int(np.sum(near)),
        objective=problem.objective.name,
        experiment=replace(here, priors={}) if shown else problem.experiment,
    )


def _nothing_meets(problem: Problem, limits: Sequence[Constraint], found: newton.Minimum, starts: int) -> Optimum:
    """The verdict where no end point respects the constraints: how near each came."""
    checked = []
    for c in limits:
        got = [float(evaluate(c.result, problem.at(z))) for z in found.z]
        finite = [g for g in got if np.isfinite(g)]
        nearest_miss = (max if c.sense > 0 else min)(finite, default=float("nan"))
        checked.append({"constraint": str(c), "value": nearest_miss, "active": False})
    reason = "no point meets the constraints; nearest: " + ", ".join(
        f"{c['constraint']}: {c['value']:.4g}" for c in checked
    )
    return Optimum(
        "none", reason, None, {}, {}, [], [], [], checked, starts, 0, problem.objective.name, problem.experiment
    )


def _flat(problem: Problem, hessian: Array, edge: Array) -> tuple[list[float], list[dict[str, float]]]:
    free = np.flatnonzero(~edge)
    if not free.size:
        return [], []
    w, U = np.linalg.eigh(problem.sign * hessian[np.ix_(free, free)])
    names = [problem.variables[i].name for i in free]
    largest = float(np.max(np.abs(w)))
    flat = [
        {n: float(c) for n, c in zip(names, U[:, j], strict=True)} for j in range(w.size) if abs(w[j]) <= FLAT * largest
    ]
    return [float(x) for x in w], flat


def _status(
    problem: Problem, z: Array, value: float, converged: bool, limits: Sequence[Constraint], here: Experiment
) -> tuple[str, str]:
    """Whether this is an optimum."""
    measure = problem.objective.name.partition(".")[2]
    if problem.sign > 0 and measure in WITNESS and not value < WITNESS[measure] * (1 - 1e-12):
        return (
            "none",
            f"no entanglement: the least {problem.objective.name} found is {value:.9g}, not below {WITNESS[measure]:g}",
        )
    if problem.sign < 0 and (measure == "log_negativity" or measure.startswith("steering")) and value <= 0:
        return "none", f"no entanglement: {problem.objective.name} is 0 everywhere that was searched"
    for v, at in zip(problem.variables, z, strict=True):
        if (v.own[0] and at <= newton.EDGE) or (v.own[1] and at >= 1 - newton.EDGE):
            return "none", (
                f"no optimum: it runs to {v.name} = {float(v.at(at)):g}, the end of the range searched; give a range "
                f"({v.name}=LO:HI) if that end is a limit"
            )
    if converged:
        return "optimum", ""
    margin = float(evaluate("dynamics.margin_hz", here))
    if not limits and margin < 1e-3 * float(np.max(np.abs(np.linalg.eigvals(here.system.A)))):
        return "not converged", (
            f"the search runs to the edge of stability (slowest pole {margin:.3g} Hz): require dynamics.margin_hz >= a limit"
        )
    return "not converged", "the search did not settle: more starts, or a narrower range"


def parse_over(text: str, experiment: Experiment) -> dict[str, tuple[float, float] | None]:
    """`a.b,c.d=LO:HI` of the command line."""
    out: dict[str, tuple[float, float] | None] = {}
    for item in text.split(","):
        name, sign, span = item.strip().partition("=")
        if name.strip() in out:
            raise InputError(f"--over: '{name.strip()}' is named twice")
        if not name:
            raise InputError(f"--over {text}: expected element.field[=LO:HI], ...")
        low_high = read_range(name.strip(), span, experiment, "--over") if sign else None
        out[name.strip()] = None if low_high is None else (low_high[0], low_high[1])
    return out


def read_range(name: str, span: str, experiment: Experiment, option: str, parts: int = 2) -> tuple[float, ...]:
    """Numbers LO:HI (or LO:HI:N) in the unit of a field."""
    pieces = span.split(":")
    if len(pieces) != parts:
        raise InputError(f"{option} {name}={span}: expected {name}=" + ("LO:HI" if parts == 2 else "LO:HI:N"))
    if "." in name:
        known = experiment.fields()
        try:
            unit = unit_bounds(experiment, name)[0]
        except InputError as error:
            raise InputError(f"{option} {name}: {error}{nearest(name, known)}") from None
    else:
        unit = "1"
    return tuple(number(p, unit, f"{option} {name}") for p in pieces[:2]) + tuple(
        number(p, "1", f"{option} {name}") for p in pieces[2:]
    )
