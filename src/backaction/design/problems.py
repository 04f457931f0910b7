"""What is optimised: an objective over variables (fields, or free names that ties use), with ties and limits."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from backaction.errors import InputError, ModelError
from backaction.experiment.derivatives import value_and_gradient
from backaction.experiment.experiment import Experiment
from backaction.experiment.ties import Expression, expression
from backaction.experiment.toml import unit_bounds
from backaction.numerics.complex_step import STEP
from backaction.numerics.matrices import Array
from backaction.units import number


class Objective(Protocol):
    """Anything with a name that gives its value and gradient over an experiment's leading axes."""

    @property
    def name(self) -> str:
        """What it is called in reports; the name of a result, or words."""

    def value_and_gradient(self, experiment: Experiment, fields: Sequence[str]) -> tuple[Any, Array]:
        """Value (...) and derivatives (..., F)."""


@dataclass(frozen=True)
class ResultObjective:
    """A named result (`conditional.epr.variance`, `dynamics.margin_hz`, ...) as an objective."""

    name: str

    def value_and_gradient(self, experiment: Experiment, fields: Sequence[str]) -> tuple[Any, Array]:
        """As `derivatives.value_and_gradient`."""
        return value_and_gradient(self.name, experiment, fields)


@dataclass(frozen=True)
class Variable:
    """What is varied: a field or a free name that ties use, within [lower, upper], searched on a log scale or linearly.

    `own` says that the bounds were chosen here and not given: an optimum there is not an optimum.
    """

    name: str
    lower: float
    upper: float
    log: bool
    own: tuple[bool, bool] = (False, False)

    def at(self, z: Any) -> Any:
        """Value at z in [0, 1]."""
        if self.log:
            return self.lower * (self.upper / self.lower) ** z
        return self.lower + (self.upper - self.lower) * z

    def z(self, value: Any) -> Any:
        """Inverse of `at`, clipped to the box."""
        if self.log:
            return np.clip(np.log(np.maximum(value, 1e-300) / self.lower) / np.log(self.upper / self.lower), 0, 1)
        return np.clip((value - self.lower) / (self.upper - self.lower), 0, 1)


@dataclass(frozen=True)
class Constraint:
    """`result >= limit` (sense +1) or `result <= limit` (-1)."""

    result: str
    sense: int
    limit: float

    @classmethod
    def of(cls, text: str) -> Constraint:
        """Parse `dynamics.margin_hz >= 100`; the limit may carry a unit."""
        match = re.fullmatch(r"\s*(.+?)\s*(>=|<=)\s*(.+?)\s*", text)
        if not match:
            raise InputError(f"constraint '{text}': expected RESULT >= NUMBER or RESULT <= NUMBER")
        name, sign, limit = match.groups()
        unit = "Hz" if "_hz" in name else "1"
        return cls(name, 1 if sign == ">=" else -1, number(limit, unit, f"constraint '{text}'"))

    def __str__(self) -> str:
        return f"{self.result} {'>=' if self.sense > 0 else '<='} {self.limit:g}"


@dataclass(frozen=True, eq=False)
class Problem:
    """An objective over variables and ties, on the unit box; `points` are fields with one value per problem of a batch."""

    experiment: Experiment
    objective: Objective
    variables: tuple[Variable, ...]
    ties: Mapping[str, Expression] = field(default_factory=dict)
    sign: float = 1.0
    points: Mapping[str, Array] = field(default_factory=dict)

    def values(self, z: Array, rows: Array | None = None) -> dict[str, Any]:
        """Every field and free name at z (..., K) (which may be complex)."""
        known: dict[str, Any] = {v.name: v.at(z[..., k]) for k, v in enumerate(self.variables)}
        known |= {k: (v if rows is None else v[rows]) for k, v in self.points.items()}

        def look_up(name: str) -> Any:
            return known[name] if name in known else np.asarray(self.experiment.value(name)) * 1.0

        for path, tie in self.ties.items():
            known[path] = tie(look_up)
        return known

    def moved(self) -> list[str]:
        """Fields that the variables move: they and the ties that follow them."""
        moving = {v.name for v in self.variables}
        for path, tie in self.ties.items():
            if moving & set(tie.names):
                moving.add(path)
        return [n for n in (*(v.name for v in self.variables), *self.ties) if n in moving and "." in n]

    def at(self, z: Array, rows: Array | None = None) -> Experiment:
        """The experiment at z."""
        found = {k: v for k, v in self.values(z, rows).items() if "." in k}
        for path, v in found.items():
            if np.iscomplexobj(v):
                raise InputError(f"tie {path} = {self.ties[path].text}: not a real number everywhere in the range")
        return self.experiment.with_values(found, "optimize")

    def __call__(self, z: Array, rows: Array | None = None) -> tuple[Array, Array]:
        """Signed value (m,) and its gradient (m, K) at z (m, K); NaN where there is none."""
        fields_ = self.moved()
        with np.errstate(all="ignore"):
            try:
                value, slopes = self.objective.value_and_gradient(self.at(z, rows), fields_)
            except (ModelError, np.linalg.LinAlgError):
                return np.full(z.shape[0], np.nan), np.full(z.shape, np.nan)
            shape = (z.shape[0],)
            value = np.broadcast_to(value, shape)
            slopes = np.broadcast_to(slopes, (*shape, len(fields_)))
            gradient = np.stack([self._along(k, z, rows, fields_, slopes) for k in range(z.shape[1])], axis=-1)
        bad = ~np.isfinite(value) | ~np.all(np.isfinite(gradient), axis=-1)
        return self.sign * np.where(bad, np.nan, value), self.sign * np.where(bad[:, None], np.nan, gradient)

    def _along(self, k: int, z: Array, rows: Array | None, fields_: list[str], slopes: Array) -> Array:
        """Derivative along variable k: the chain through the ties by a complex step."""
        moved = z.astype(complex)
        moved[:, k] += 1j * STEP
        values = self.values(moved, rows)
        parts = [np.imag(values[f]) / STEP * slopes[:, i] for i, f in enumerate(fields_) if np.iscomplexobj(values[f])]
        return np.asarray(sum(parts, np.zeros(z.shape[0])))


def variables(
    experiment: Experiment,
    over: Mapping[str, tuple[float, float] | None] | Sequence[str],
    ties: Mapping[str, Expression] | None = None,
    known: Sequence[str] = (),
) -> tuple[Variable, ...]:
    """The variables with their ranges; where none is given, the field's own limits or four decades about its value.

    Raises
    ------
    InputError
        For unknown fields, empty ranges, or a free name without a range.
    """
    given = dict(over) if isinstance(over, Mapping) else dict.fromkeys(over)
    if not given:
        raise InputError("optimize: name at least one field to vary")
    used = {n for t in (ties or {}).values() for n in t.names}
    for path, tie in (ties or {}).items():
        for name in tie.names:
            if "." not in name and name not in given and name not in known:
                raise InputError(f"tie {path} = {tie.text}: no variable '{name}': give its range, {name}=LO:HI")
    out = []
    for name, span in given.items():
        if name in (ties or {}):
            raise InputError(f"optimize: '{name}' is tied and cannot be varied too")
        if "." not in name:
            if name not in used:
                raise InputError(f"optimize: '{name}' is no field (element.field), and no tie uses it")
            if span is None:
                raise InputError(f"optimize: '{name}' is not a field: give its range, {name}=LO:HI")
            low, high = span
            out.append(Variable(name, low, high, 0 < low < high / 100))
        else:
            out.append(_of_field(experiment, name, span))
        v = out[-1]
        if not (np.isfinite(v.lower) and np.isfinite(v.upper) and v.lower < v.upper):
            raise InputError(f"optimize: {name}={v.lower:g}:{v.upper:g}: the lower end must be below the upper one")
    return tuple(out)


def _of_field(experiment: Experiment, name: str, span: tuple[float, float] | None) -> Variable:
    value = experiment.value(name)
    unit, low, high = unit_bounds(experiment, name)
    if span is not None:
        if span[0] < low or span[1] > high:
            raise InputError(f"optimize: {name}={span[0]:g}:{span[1]:g} {unit}: allowed is {low:g} to {high:g}")
        return Variable(name, *span, 0 < span[0] < span[1] / 100)
    if value is None or np.ndim(value):
        raise InputError(
            f"optimize: '{name}' is not set to a number in '{experiment.name}': give its range, {name}=LO:HI"
        )
    value = float(value)
    if np.isfinite(low) and np.isfinite(high):
        return Variable(name, low, high, False)
    if unit == "deg":
        return Variable(name, max(low, -180.0), min(high, 180.0), False)
    if low >= 0 and value > 0:
        ends = (max(low, value / 1e4), min(high, value * 1e4))
        return Variable(name, *ends, True, (True, ends[1] < high))
    if value == 0:
        raise InputError(f"optimize: '{name}' is 0: give its range, {name}=LO:HI")
    return Variable(name, value - 10 * abs(value), value + 10 * abs(value), False, (True, True))


def read_ties(experiment: Experiment, items: Mapping[str, str]) -> dict[str, Expression]:
    """Parse ties `field = expression` and check their fields."""
    out: dict[str, Expression] = {}
    for path, text in items.items():
        unit_bounds(experiment, path)
        out[path] = expression(text)
        for name in out[path].names:
            if "." in name:
                experiment.value(name)
    return out


def spread(k: int, n: int, seed: int) -> Array:
    """N points of the unit box, one in each of n strata of every coordinate (a Latin hypercube).

    Three lines of our own: SciPy's `qmc.LatinHypercube` draws other points, and every optimum's last digits with them.
    """
    rng = np.random.default_rng(seed)
    strata = np.stack([rng.permutation(n) for _ in range(k)], axis=-1)
    return np.asarray((strata + rng.random((n, k))) / n)
