"""Results by name: `conditional.epr.variance`, `unconditional.log_negativity`, `dynamics.margin_hz`, ... of any experiment.

A result is a value of a `View` and its slopes; covariance measures, poles, and what needs two covariances are the
implementations. `evaluate(name, experiment)` gives the value, broadcast over the experiment's leading axes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from backaction.errors import InputError, nearest
from backaction.experiment.experiment import Experiment
from backaction.numerics.complex_step import STEP
from backaction.numerics.matrices import Array
from backaction.states import entanglement
from backaction.states.gaussian import GaussianState
from backaction.states.measures import Measure, measures
from backaction.systems.linear import LinearSystem
from backaction.systems.poles import POLES, pole
from backaction.systems.view import STATES, View

DYNAMICS = "dynamics"


@dataclass(frozen=True)
class Slopes:
    """Derivatives of a result: `states` d/dV (..., 2m, 2m) of the reported modes by steady state, `drift` d/dA (..., n, n).

    `direct(step)` is what a complex step of the system adds beside both.
    """

    states: Mapping[str, Array] = field(default_factory=dict)
    drift: Array | None = None
    direct: Callable[[LinearSystem], Array] | None = None


class ScalarResult(Protocol):
    """A number that can be asked of a view: its value (...) and its slopes."""

    def value(self, view: View) -> Any:
        """NaN at points of a batch that have no answer; a single point raises."""

    def slopes(self, view: View) -> Slopes:
        """At points without an answer the slopes are finite and mean nothing; the value says so."""


@dataclass(frozen=True)
class StateResult:
    """A measure of one steady state's covariance."""

    state: str
    measure: Measure

    def value(self, view: View) -> Any:
        """The measure of V of the reported modes."""
        V = view.covariance(self.state)
        valid = np.all(np.isfinite(V), axis=(-2, -1))
        value = self.measure.value(np.where(valid[..., None, None], V, np.eye(V.shape[-1])))
        return np.where(valid, value, np.nan) if np.ndim(valid) else np.asarray(value)[()]

    def slopes(self, view: View) -> Slopes:
        """D measure/dV, and what the measure takes from the system itself."""
        V = _finite(view.covariance(self.state))
        of = self.measure.of
        return Slopes(
            {self.state: slope(self.measure, V)},
            direct=None if of is None else lambda step: np.imag(of(V, step)) / STEP,
        )


@dataclass(frozen=True)
class VarianceAtConditional:
    """EPR variance of the unconditional state at the (a, b) that minimise the conditional one's."""

    def value(self, view: View) -> Any:
        """V_u(a, b) at the optimum of V_c."""
        best = entanglement.epr(view.covariance("conditional"))
        return entanglement.epr_variance(view.covariance("unconditional"), best.weight, best.angle_deg)

    def slopes(self, view: View) -> Slopes:
        """Through V_u at fixed (a, b), and through the (a, b) that V_c chooses."""
        U, V = (_finite(view.covariance(s)) for s in ("unconditional", "conditional"))
        best = entanglement.epr(V)
        fixed = Measure(lambda v: entanglement.epr_variance(v, best.weight, best.angle_deg))

        def moved(v: Array) -> Any:
            e = entanglement.epr(v)
            return entanglement.epr_variance(U, e.weight, e.angle_deg)

        return Slopes({"unconditional": slope(fixed, U), "conditional": slope(Measure(moved), V)})


@dataclass(frozen=True)
class PoleResult:
    """`margin_hz`, `linewidth_hz.MODE`, `frequency_hz.MODE` (`systems.poles.pole`)."""

    measure: str

    def value(self, view: View) -> Any:
        """The number in Hz."""
        return pole(view.system, self.measure)[0]

    def slopes(self, view: View) -> Slopes:
        """D value/dA."""
        return Slopes(drift=pole(view.system, self.measure)[1])


def parse(name: str, experiment: Experiment) -> ScalarResult:
    """The result of a name.

    Raises
    ------
    InputError
        Naming the nearest known result.
    """
    head, _, tail = name.partition(".")
    if head == DYNAMICS:
        names = pole_names(experiment)
        if tail not in names:
            raise InputError(f"unknown result '{name}'{nearest(tail, names)}; known: {', '.join(names)}")
        return PoleResult(tail)
    known = measures(experiment.view)
    if head not in STATES:
        raise InputError(f"unknown result '{name}'{nearest(head, (*STATES, DYNAMICS))}; a result is STATE.MEASURE")
    if name == "unconditional.epr_at_conditional.variance":
        return VarianceAtConditional()
    if tail not in known:
        raise InputError(f"unknown result '{name}'{nearest(tail, known)}")
    return StateResult(head, known[tail])


def pole_names(experiment: Experiment) -> list[str]:
    """`margin_hz` (full width of the slowest pole), `linewidth_hz.MODE`, `frequency_hz.MODE` (of the mode's own pole)."""
    modes = [m.name for m in experiment.layout.modes]
    return [POLES[0], *(f"{kind}.{m}" for kind in POLES[1:] for m in modes)]


def evaluate(name: str, experiment: Experiment) -> Any:
    """The value of a result such as `conditional.epr.variance`; NaN at points of a batch that have no answer."""
    return parse(name, experiment).value(experiment.view)


def gaussian_state(experiment: Experiment, state: str = "conditional") -> GaussianState:
    """The reported modes' steady state: `unconditional`, `conditional` or `retrodicted`."""
    view = experiment.view
    return GaussianState(view.covariance(state), view.modes, view.frame)


def slope(measure: Measure, V: Array) -> Array:
    """Slope d measure/dV as a symmetric matrix: given in closed form, or by a complex step through every distinct entry."""
    if measure.slope is not None:
        return measure.slope(V)
    n = V.shape[-1]
    i, j = np.triu_indices(n)
    steps = np.zeros((len(i), *(1,) * (V.ndim - 2), n, n))
    k = np.arange(len(i))
    steps[k, ..., i, j] = 1.0
    steps[k, ..., j, i] = 1.0
    entry = np.imag(measure.value(V + 1j * STEP * steps)) / STEP
    out = np.zeros(V.shape)
    for m, (a, b) in enumerate(zip(i, j, strict=True)):
        out[..., a, b] = entry[m] * (1.0 if a == b else 0.5)
        out[..., b, a] = out[..., a, b]
    return out


def _finite(V: Array) -> Array:
    """Points without an answer get the identity; their value is NaN."""
    good = np.all(np.isfinite(V), axis=(-2, -1), keepdims=True)
    return np.where(good, V, np.eye(V.shape[-1]))
