"""The matrices of one experiment as a program of its parameters, and conditional states of many draws from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from backaction.experiment import technical
from backaction.experiment.experiment import Experiment
from backaction.numerics.compile import library
from backaction.numerics.matrices import Array
from backaction.numerics.tracing import Trace, traced
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
        trace = Trace([0.0] * size)
        values = {f: traced(v) for f, v in fields(trace.inputs).items()}
        system = experiment.with_values(values, "trace").build()
        keep: Array = np.arange(system.A.shape[-1])
        if bare:
            sources, keep = technical.bare(experiment)
            system = technical.without(system, sources)
        self._index = [keep.tolist().index(i) for i in experiment.system.indices(self.modes)]
        self.states = len(keep)
        self._program = trace.program(entries(system, keep))

    def conditional(self, u: Any) -> Array:
        """V_c of the reported modes at u (draws, P), shape (draws, 2m, 2m); NaN where there is none."""
        u = np.ascontiguousarray(np.atleast_2d(u), dtype=float)
        n = self.states
        points = self._program(u)
        V, residual = np.empty((len(u), n, n)), np.empty(len(u))
        library("riccati", n=n).riccati_many(np.arange(points.shape[1]), points, n, V, residual)
        good = residual < 1e-8
        out = V[:, self._index][:, :, self._index]
        return np.where(good[:, None, None], out, np.nan)

    def unconditional(self, u: Any) -> Array:
        """V_u of the reported modes at u (draws, P); NaN where there is none."""
        u = np.ascontiguousarray(np.atleast_2d(u), dtype=float)
        n = self.states
        points = self._program(u)
        V, good = np.empty((len(u), n, n)), np.empty(len(u), dtype=bool)
        for k, x in enumerate(points):
            A, Q = x[: n * n].reshape(n, n), x[n * n : 2 * n * n].reshape(n, n)
            good[k] = library("riccati", n=n).lyapunov_doubling(A, Q, V[k])
        return np.where(good[:, None, None], V[:, self._index][:, :, self._index], np.nan)


def entries(system: LinearSystem, keep: Array | None = None) -> list[Any]:
    """A, Q, N, R, C of the first current as one list (the order of `loops.likelihood`), of the states `keep`."""
    d = system.detected()
    Q, N, R = system.noise()
    A, C = system.A, d.C[..., :1, :]
    N, R = N[..., :1], R[..., :1, :1]
    if keep is not None:
        A, Q = (M[..., keep, :][..., keep] for M in (A, Q))
        N, C = N[..., keep, :], C[..., keep]
    parts = [np.broadcast_to(M, (1,) * (3 - M.ndim) + M.shape).reshape(-1) for M in (A, Q, N, R, C)]
    return [x for part in parts for x in part]
