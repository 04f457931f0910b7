"""The matrices of one experiment as a program of its parameters, and conditional states of many draws from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from backaction.experiment import technical
from backaction.experiment.experiment import Experiment
from backaction.experiment.program import Program
from backaction.numerics.matrices import Array
from backaction.numerics.tracing import traced
from backaction.systems.linear import LinearSystem


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
