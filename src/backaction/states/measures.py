"""What can be asked of a covariance, listed once: EPR variances, entanglement, steering, occupations, purity.

A new measure is a function from a view to named measures, in a file of its own or here, and one line in `FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from backaction.numerics.matrices import Array
from backaction.states import entanglement, one_mode
from backaction.states.gaussian import GaussianState
from backaction.systems.labels import Port
from backaction.systems.linear import LinearSystem
from backaction.systems.view import View


class Measure(NamedTuple):
    """value(V) of the reported modes' covariance and, where a complex step cannot give it, its slope d value/dV.

    `of(V, system)` is given where the measure depends on the system beyond the state (what its currents read out).
    """

    value: Callable[[Array], Any]
    slope: Callable[[Array], Array] | None = None
    of: Callable[[Array, LinearSystem], Any] | None = None


Family = Callable[[View], Mapping[str, Measure]]
"""The measures that a view has, by name."""


def measures(view: View) -> dict[str, Measure]:
    """Every scalar measure of the reported modes."""
    return {name: measure for family in FAMILIES for name, measure in family(view).items()}


def _of_modes(view: View) -> dict[str, Measure]:
    size = 2.0 ** len(view.modes)
    out = {"purity": Measure(lambda V: 1 / (size * np.sqrt(np.linalg.det(V))))}
    return out | {f"{word}.{m}": _of_one(of, k) for word, of in ONE_MODE.items() for k, m in enumerate(view.modes)}


def _of_pairs(view: View) -> dict[str, Measure]:
    if len(view.modes) != 2:
        return {}
    first, second = view.modes
    return {
        "epr.variance": Measure(lambda V: entanglement.epr(V).variance, entanglement.epr_gradient),
        "epr.weight": Measure(lambda V: entanglement.epr(V).weight),
        "epr.angle_deg": Measure(lambda V: entanglement.epr(V).angle_deg),
        "duan": Measure(entanglement.duan),
        "collective.x_plus": Measure(lambda V: _collective(V, 0, 1)),
        "collective.x_minus": Measure(lambda V: _collective(V, 0, -1)),
        "collective.p_plus": Measure(lambda V: _collective(V, 1, 1)),
        "collective.p_minus": Measure(lambda V: _collective(V, 1, -1)),
        "collective.duan": Measure(lambda V: _collective(V, 0, 1) + _collective(V, 1, -1)),
        "ppt_min": Measure(entanglement.ppt_min, entanglement.ppt_gradient),
        "log_negativity": Measure(entanglement.log_negativity, _log_negativity_slope),
        f"steering.{first}->{second}": Measure(lambda V: entanglement.steering(V)[0]),
        f"steering.{second}->{first}": Measure(lambda V: entanglement.steering(V)[1]),
    }


def _collective(V: Array, quadrature: int, sign: int) -> Any:
    """Variance of (Q_2 +- Q_1)/sqrt 2, vacuum 1/2; Duan's quantity is X_+ and P_-."""
    i, j = quadrature, 2 + quadrature
    return (V[..., i, i] + V[..., j, j] + 2 * sign * V[..., i, j]) / 2


def _pair_ports(system: LinearSystem, modes: tuple[str, ...]) -> list[Port] | None:
    """The cos and sin currents of the one sidebands detector, where two modes are reported."""
    ports = [p for p in system.outputs if p.kind == "current" and p.frame.kind == "sidebands"]
    both = [p.name.rpartition(".")[2] for p in ports] == ["cos", "sin"]
    return ports if len(modes) == 2 and both else None


def readout_map(system: LinearSystem, modes: tuple[str, ...]) -> Array | None:
    """N (..., 2, 2) with (cos, sin) currents ~ (X1, P1) + N (X2, P2), where they read an EPR pair of the two modes.

    N = M1^-1 M2 of the blocks that the two currents of a sidebands detector read. They are such a pair where M1 turns or
    mirrors and N = a [[-cos b, -sin b], [-sin b, cos b]] (oscillators of opposite mass); None otherwise. Analytic.
    """
    ports = _pair_ports(system, modes)
    if ports is None:
        return None
    C = np.concatenate([system.C[..., system.output(p.name), :] for p in ports], axis=-2)
    first, second = (C[..., system.indices([m])] for m in modes)
    seen = np.abs(np.linalg.det(np.real(first))) > 0
    if not np.any(seen):
        return None
    N: Array = np.linalg.solve(np.where(seen[..., None, None], first, np.eye(2)), second)
    for block, sign in ((first, 0.0), (N, -1.0)):
        re = np.real(np.broadcast_to(block, (*np.broadcast_shapes(block.shape[:-2], seen.shape), 2, 2)))[seen]
        size = 1e-9 * np.sum(np.abs(re), axis=(-2, -1)) + 1e-300
        turns = (np.abs(re[..., 0, 0] - re[..., 1, 1]) < size) & (np.abs(re[..., 0, 1] + re[..., 1, 0]) < size)
        mirrors = (np.abs(re[..., 0, 0] + re[..., 1, 1]) < size) & (np.abs(re[..., 0, 1] - re[..., 1, 0]) < size)
        if not np.all(mirrors | (turns if sign == 0.0 else mirrors)):
            return None
    return np.where(seen[..., None, None], N, np.nan) if seen.ndim else N


def _readout_variance(V: Array, N: Array) -> Any:
    """[tr V11 + a^2 tr V22 + 2 tr(N V21)]/(1 + a^2): the EPR variance of the pair (X1, P1) + N (X2, P2)."""
    p, q = N[..., 0, 0], N[..., 0, 1]
    cross = p * (V[..., 2, 0] - V[..., 3, 1]) + q * (V[..., 2, 1] + V[..., 3, 0])
    square = p * p + q * q
    whole = V[..., 0, 0] + V[..., 1, 1] + square * (V[..., 2, 2] + V[..., 3, 3])
    return (whole + 2 * cross) / (1 + square)


def _of_readout(view: View) -> dict[str, Measure]:
    """`epr_readout.variance`, `.weight`, `.angle_deg`, where the currents read such a pair."""
    if _pair_ports(view.layout, view.modes) is None or readout_map(view.system, view.modes) is None:
        return {}

    def of(function: Callable[[Array, Array], Any]) -> Measure:
        def on(V: Array, system: LinearSystem) -> Any:
            N = readout_map(system, view.modes)
            if N is None:  # a step off the symmetric point reads no pair any more
                return np.full(V.shape[:-2], np.nan)
            return function(V, N)

        return Measure(lambda V: on(V, view.system), None, on)

    return {
        "epr_readout.variance": of(_readout_variance),
        "epr_readout.weight": of(lambda V, N: np.sqrt(N[..., 0, 0] ** 2 + N[..., 0, 1] ** 2) + 0.0 * V[..., 0, 0]),
        "epr_readout.angle_deg": of(
            lambda V, N: entanglement.direction_deg(-N[..., 0, 1], -N[..., 0, 0]) + 0.0 * V[..., 0, 0]
        ),
    }


ONE_MODE: dict[str, Callable[[Array], Any]] = {
    "occupation": one_mode.occupation,
    "thermal_occupation": one_mode.thermal_occupation,
    "purity": one_mode.mode_purity,
    "squeezing_db": one_mode.squeezing_db,
    "least_variance": one_mode.least_variance,
}
"""Measures of each mode alone: `occupation.MODE`, ..."""


def _of_one(of: Callable[[Array], Any], mode: int) -> Measure:
    own = slice(2 * mode, 2 * mode + 2)
    return Measure(lambda V: of(V[..., own, own]))


def _log_negativity_slope(V: Array) -> Array:
    nu = entanglement.ppt_min(V)[..., None, None]
    return np.where(nu < 0.5, -1 / (nu * np.log(2.0)), 0.0) * entanglement.ppt_gradient(V)


def describe_state(state: GaussianState, readout: Array | None = None) -> dict[str, Any]:
    """All measures of one state as plain data (the S of the JSON contract); `readout` as from `readout_map`."""
    out: dict[str, Any] = {
        "covariance": state.covariance.tolist(),
        "symplectic_eigenvalues": state.symplectic_eigenvalues().tolist(),
        "purity": float(state.purity),
        "occupations": {m: float(state.occupation(m)) for m in state.modes},
        "by_mode": one_mode.by_mode(state),
    }
    if len(state.modes) == 2:
        first, second = state.modes
        best = entanglement.epr(state)
        forward, backward = entanglement.steering(state)
        out |= {
            "epr": {k: float(v) for k, v in best._asdict().items()},
            "epr_readout": None if readout is None else _readout(state, readout),
            "duan": float(entanglement.duan(state)),
            "ppt_min": float(entanglement.ppt_min(state)),
            "log_negativity": float(entanglement.log_negativity(state)),
            "steering": {f"{first}->{second}": float(forward), f"{second}->{first}": float(backward)},
        }
    return out


def _readout(state: GaussianState, N: Array) -> dict[str, float]:
    return {
        "variance": float(_readout_variance(state.covariance, N)),
        "weight": float(np.hypot(N[0, 0], N[0, 1])),
        "angle_deg": float(entanglement.direction_deg(-N[0, 1], -N[0, 0])),
    }


FAMILIES: list[Family] = [_of_modes, _of_pairs, _of_readout]
"""Where measures come from: one function from a view to named measures each."""
