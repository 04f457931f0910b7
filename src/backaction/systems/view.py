"""A system seen through its reported modes: where they are, and the steady states that results are made of."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from backaction.errors import InputError, nearest
from backaction.numerics.matrices import Array
from backaction.systems import steady
from backaction.systems.labels import Frame
from backaction.systems.linear import LinearSystem

STATES = ("unconditional", "conditional", "retrodicted")
"""Steady states by name, as in `conditional.epr.variance`."""


def covariances(system: LinearSystem, state: str) -> Array:
    """Covariance (..., n, n) of all modes in one of the three steady states.

    Raises
    ------
    InputError
        For another word.
    ModelError
        If a single point has no such state; a batch has NaN there.
    """
    if state == "unconditional":
        return steady.unconditional(system)
    if state == "conditional":
        return steady.conditional(system).covariance
    if state == "retrodicted":
        return steady.effect(system)
    raise InputError(f"no state '{state}'{nearest(state, STATES)}")


class View:
    """The modes of a system that are reported: their rows in its covariance, their frame, their steady states.

    `of(V)` picks their part (..., 2m, 2m) of a covariance of the whole system, `embedded` puts one back; each steady state
    is solved for once. `layout` is a system with the names of `system`.
    """

    def __init__(self, system: LinearSystem, modes: tuple[str, ...]) -> None:
        self.layout, self.modes = system, modes
        self._whole: dict[str, Array] = {}

    @property
    def system(self) -> LinearSystem:
        """The system itself."""
        return self.layout

    @cached_property
    def index(self) -> list[int]:
        """Rows of the reported modes, X and P of each."""
        return self.layout.indices(self.modes)

    @cached_property
    def frame(self) -> Frame:
        """That of the first mode: modes that are reported together share one."""
        return next(m.frame for m in self.layout.modes if m.name == self.modes[0])

    def of(self, V: Array) -> Array:
        """The reported part of a covariance (..., n, n)."""
        return V[..., self.index, :][..., self.index]

    def embedded(self, part: Array) -> Array:
        """The matrix (..., n, n) that is `part` on the reported modes and zero elsewhere."""
        n = self.layout.A.shape[-1]
        out = np.zeros((*part.shape[:-2], n, n))
        out[..., np.array(self.index)[:, None], self.index] = part
        return out

    def whole(self, state: str) -> Array:
        """Covariance (..., n, n) of all modes in a steady state; raises as `covariances`."""
        if state not in self._whole:
            self._whole[state] = covariances(self.system, state)
        return self._whole[state]

    def covariance(self, state: str) -> Array:
        """That of the reported modes, (..., 2m, 2m)."""
        return self.of(self.whole(state))
