"""Programs of a campaign's parameters: the matrices of all its records at once, and the states of one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from backaction.errors import InputError, ModelError
from backaction.experiment import technical
from backaction.experiment.experiment import Experiment
from backaction.experiment.program import Program, entries
from backaction.experiment.toml import unit_bounds
from backaction.inference.parameters import Parameters
from backaction.numerics.matrices import Array
from backaction.numerics.tracing import Trace, Var, traced
from backaction.systems.linear import LinearSystem

CHECKED_SD = 1.5
"""How far from the priors' centre, in sd, a program is compared with the builders."""


class Systems:
    """A, Q, N, R, C of one experiment at many u, and the covariances of its reported modes from them.

    `fields(u)` gives the fields that depend on the coordinates u (`size` of them); `bare`: without technical noise and
    further modes.
    """

    def __init__(
        self,
        experiment: Experiment,
        fields: Callable[[Sequence[Any]], Mapping[str, Any]],
        size: int,
        bare: bool = False,
    ) -> None:
        self.modes = experiment.reported_modes()
        sources, keep = technical.bare(experiment) if bare else ([], np.arange(experiment.system.A.shape[-1]))

        def build(u: Sequence[Any]) -> LinearSystem:
            values = {f: traced(v) for f, v in fields(u).items()}
            system = experiment.with_values(values, "trace").build()
            return technical.without(system, sources) if bare else system

        self._index = [keep.tolist().index(i) for i in experiment.view.index]
        self._program = Program([0.0] * size, build, keep)

    def conditional(self, u: Any) -> Array:
        """V_c of the reported modes at u (draws, P), shape (draws, 2m, 2m); NaN where there is none."""
        return self._of("conditional", u)

    def unconditional(self, u: Any) -> Array:
        """V_u of the reported modes at u (draws, P); NaN where there is none."""
        return self._of("unconditional", u)

    def _of(self, state: str, u: Any) -> Array:
        V = self._program.covariances(np.atleast_2d(u), state)
        return V[:, self._index][:, :, self._index]


class JointProgram:
    """One traced program from u to the matrices of all records, guarded fields, scales and the model error.

    `slots[k]` are the places of A, Q, N, R, C of record k, `starts[k]` those of its modes' occupations at the start;
    `guards` the places of fields that ties and spreads make, with their bounds (G, 2). What records share is computed once.
    """

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        name, size = parameters.campaign.name, parameters.size
        trace = Trace([0.0] * size)
        outputs: list[Any] = []
        self.states: list[int] = []
        counts: list[int] = []
        guards: list[tuple[Any, float, float]] = []
        try:
            for source in parameters.sources:
                made = parameters.fields_of(source, trace.inputs)
                values = {f: traced(v) for f, v in made.items()}
                system = source.record.experiment.with_values(values, "trace").build()
                own = entries(system)
                self.states.append(system.A.shape[-1])
                counts.append(len(own))
                outputs += own
                loose = [*source.spread, *(f for f in parameters.campaign.ties if f in made)]
                guards += [
                    (made[f], *unit_bounds(source.record.experiment, f)[1:]) for f in loose if isinstance(made[f], Var)
                ]
            outputs += [value for value, _, _ in guards]
            z = parameters.normal_scores(trace.inputs)
            outputs += [parameters.parameters[s.scale].value(z[s.scale]) for s in parameters.sources]
            starts = [i for s in parameters.sources for i in s.starts.values()]
            outputs += [parameters.parameters[i].value(z[i]) if isinstance(i, int) else i for i in starts]
            error = parameters.error
            outputs.append(error if isinstance(error, float) else parameters.parameters[error].value(z[error]))
            self.tape = trace.program(outputs)
        except (TypeError, AttributeError) as error:
            raise ModelError(f"{name}: this model cannot be traced ({error})") from None
        ends = np.cumsum([0, *counts])
        places = self.tape.outputs
        self.slots = [places[a:b] for a, b in pairwise(ends)]
        self.guards = places[ends[-1] : ends[-1] + len(guards)]
        self.bounds = np.array([[low, high] for _, low, high in guards]).reshape(-1, 2)
        after = ends[-1] + len(guards)
        self.scales, self.error = places[after : after + len(counts)], int(places[-1])
        begins = np.cumsum([after + len(counts), *(len(s.starts) for s in parameters.sources)])
        self.starts = [places[a:b] for a, b in pairwise(begins)]
        self._compare(ends)

    def _compare(self, ends: Array) -> None:
        """The program against the builders at three points of the prior."""
        parameters, rng = self.parameters, np.random.default_rng(0)
        for u in (np.zeros(parameters.size), *rng.uniform(-CHECKED_SD, CHECKED_SD, (2, parameters.size))):
            got = self.tape(u)
            for k, (a, b) in enumerate(pairwise(ends)):
                try:
                    want = np.array([float(x) for x in entries(parameters.experiment(k, u).build())])
                except (ModelError, InputError):  # no answer there, or a tied field beyond its bounds
                    continue
                n = self.states[k]
                parts = zip(*(np.split(x, np.cumsum([n * n, n * n, n, 1])) for x in (got[a:b], want)), strict=True)
                errors = [(np.max(np.abs(x - y), initial=0.0), np.max(np.abs(y), initial=0.0)) for x, y in parts]
                if not all(e <= 1e-9 * size + 1e-12 * errors[0][1] ** 0.5 for e, size in errors):
                    raise ModelError(
                        f"{parameters.campaign.name}: the model takes another form within its priors than at their centre"
                    )
