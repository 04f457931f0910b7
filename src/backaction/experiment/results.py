"""Results by name: `conditional.epr.variance`, `unconditional.log_negativity`, ... of any experiment.

`evaluate(name, experiment)` gives the value (broadcast over the experiment's leading axes); `describe_state` and
`state_document` collect all of them, the latter as the JSON of `backaction state`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from backaction.errors import InputError, nearest
from backaction.experiment.experiment import Experiment
from backaction.numerics.matrices import Array
from backaction.states import entanglement
from backaction.states.gaussian import GaussianState
from backaction.states.measures import Measure, measures
from backaction.systems import steady
from backaction.systems.linear import LinearSystem
from backaction.systems.poles import POLES, pole

STATES = ("unconditional", "conditional", "retrodicted")
DYNAMICS = "dynamics"


@dataclass(frozen=True)
class ResultName:
    """A parsed result: which state, and which measure of it."""

    state: str
    measure: str


def parse(name: str, experiment: Experiment) -> tuple[ResultName, Measure]:
    """Split and check a result's name.

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
        return ResultName(head, tail), Measure(lambda V: V)
    known = measures(experiment)
    if head not in STATES:
        raise InputError(f"unknown result '{name}'{nearest(head, (*STATES, DYNAMICS))}; a result is STATE.MEASURE")
    if tail == "epr_at_conditional.variance" and head == "unconditional":
        return ResultName(head, tail), Measure(lambda V: V)
    if tail not in known:
        raise InputError(f"unknown result '{name}'{nearest(tail, known)}")
    return ResultName(head, tail), known[tail]


def pole_names(experiment: Experiment) -> list[str]:
    """`margin_hz` (full width of the slowest pole), `linewidth_hz.MODE`, `frequency_hz.MODE` (of the mode's own pole)."""
    modes = [m.name for m in experiment.system.modes]
    return [POLES[0], *(f"{kind}.{m}" for kind in POLES[1:] for m in modes)]


def covariances(system: LinearSystem, state: str) -> Array:
    """Full covariance of one of the three steady states.

    Raises
    ------
    InputError
        For another word.
    """
    if state not in STATES:
        raise InputError(f"no state '{state}'{nearest(state, STATES)}")
    if state == "unconditional":
        return steady.unconditional(system)
    if state == "conditional":
        return steady.conditional(system).covariance
    return steady.effect(system)


def evaluate(name: str, experiment: Experiment) -> Any:
    """The value of a result such as `conditional.epr.variance`; NaN at points of a batch that have no answer."""
    which, measure = parse(name, experiment)
    system = experiment.system
    if which.state == DYNAMICS:
        return pole(system, which.measure)[0]
    index = system.indices(experiment.reported_modes())
    V = covariances(system, which.state)[..., index, :][..., index]
    if which.measure == "epr_at_conditional.variance":
        Vc = covariances(system, "conditional")[..., index, :][..., index]
        best = entanglement.epr(Vc)
        return entanglement.epr_variance(V, best.weight, best.angle_deg)
    valid = np.all(np.isfinite(V), axis=(-2, -1))
    value = measure.value(np.where(valid[..., None, None], V, np.eye(V.shape[-1])))
    return np.where(valid, value, np.nan) if np.ndim(valid) else np.asarray(value)[()]


def gaussian_state(experiment: Experiment, state: str = "conditional") -> GaussianState:
    """The reported modes' steady state: `unconditional`, `conditional` or `retrodicted`."""
    system = experiment.system
    modes = experiment.reported_modes()
    index = system.indices(modes)
    frame = next(m.frame for m in system.modes if m.name == modes[0])
    return GaussianState(covariances(system, state)[..., index, :][..., index], modes, frame)
