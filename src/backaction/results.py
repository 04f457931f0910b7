"""Results by name: `conditional.epr.variance`, `unconditional.log_negativity`, ... of any experiment.

`evaluate(name, experiment)` gives the value (broadcast over the experiment's leading axes); `describe_state` and
`state_document` collect all of them, the latter as the JSON of `backaction state`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from backaction import entanglement, steady
from backaction.constants import TWO_PI
from backaction.elements import DrivenCavity
from backaction.errors import InputError, ModelError, nearest
from backaction.experiment import Experiment
from backaction.matrices import Array
from backaction.state import GaussianState
from backaction.system import LinearSystem

STATES = ("unconditional", "conditional", "retrodicted")
DYNAMICS = "dynamics"
POLES = ("margin_hz", "linewidth_hz", "frequency_hz")


class Measure(NamedTuple):
    """value(V) of the reported modes' covariance and, where a complex step cannot give it, its slope d value/dV.

    `of(V, system)` is given where the measure depends on the system beyond the state (what its currents read out).
    """

    value: Callable[[Array], Any]
    slope: Callable[[Array], Array] | None = None
    of: Callable[[Array, LinearSystem], Any] | None = None


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


def measures(experiment: Experiment) -> dict[str, Measure]:
    """Every scalar measure of the reported modes of an experiment."""
    modes = experiment.reported_modes()
    out: dict[str, Measure] = {}
    for k, m in enumerate(modes):
        out[f"occupation.{m}"] = _occupation(k)
    size = 2.0 ** len(modes)
    out["purity"] = Measure(lambda V: 1 / (size * np.sqrt(np.linalg.det(V))))
    if len(modes) == 2:
        first, second = modes
        out |= {
            "epr.variance": Measure(lambda V: entanglement.epr(V).variance),
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
        out |= _readout_measures(experiment.system, modes)
    return out


def _collective(V: Array, quadrature: int, sign: int) -> Any:
    """Variance of (Q_2 +- Q_1)/sqrt 2, vacuum 1/2; Duan's quantity is X_+ and P_-."""
    i, j = quadrature, 2 + quadrature
    return (V[..., i, i] + V[..., j, j] + 2 * sign * V[..., i, j]) / 2


def pole_names(experiment: Experiment) -> list[str]:
    """`margin_hz` (full width of the slowest pole), `linewidth_hz.MODE`, `frequency_hz.MODE` (of the mode's own pole)."""
    modes = [m.name for m in experiment.system.modes]
    return [POLES[0], *(f"{kind}.{m}" for kind in POLES[1:] for m in modes)]


def pole(system: LinearSystem, measure: str) -> tuple[Any, Array]:
    """A pole of the drift as a number in Hz, and the slope of that number with respect to A.

    `margin_hz` = -2 max Re(pole)/2 pi; `linewidth_hz.MODE` = -2 Re and `frequency_hz.MODE` = |Im| of the pole in which the
    mode takes part most (participation |R_ik L_ki| of right and left eigenvectors). Shapes (...), (..., n, n).
    """
    kind, _, mode = measure.partition(".")
    values, right = np.linalg.eig(system.A)
    left = np.linalg.pinv(right) if np.any(np.linalg.cond(right) > 1e14) else np.linalg.inv(right)
    if kind == POLES[0]:
        chosen = np.argmax(values.real, axis=-1)
    else:
        rows = system.mode(mode)
        share = np.sum(np.abs(right[..., rows, :] * np.swapaxes(left, -1, -2)[..., rows, :]), axis=-2)
        chosen = np.argmax(share, axis=-1)
    k = chosen[..., None]
    value = np.take_along_axis(values, k, axis=-1)[..., 0]
    r = np.take_along_axis(right, k[..., None], axis=-1)[..., 0]
    row = np.take_along_axis(left, k[..., None], axis=-2)[..., 0, :]
    slope = row[..., :, None] * r[..., None, :]
    if kind == POLES[2]:
        sign = np.where(value.imag < 0, -1.0, 1.0)
        return np.abs(value.imag) / TWO_PI, sign[..., None, None] * slope.imag / TWO_PI
    return -2 * value.real / TWO_PI, -2 * slope.real / TWO_PI


def readout_map(system: LinearSystem, modes: tuple[str, ...]) -> Array | None:
    """N (..., 2, 2) with (cos, sin) currents ~ (X1, P1) + N (X2, P2), where they read an EPR pair of the two modes.

    N = M1^-1 M2 of the blocks that the two currents of a sidebands detector read. They are such a pair where M1 turns or
    mirrors and N = a [[-cos b, -sin b], [-sin b, cos b]] (oscillators of opposite mass); None otherwise. Analytic.
    """
    ports = [p for p in system.outputs if p.kind == "current" and p.frame.kind == "sidebands"]
    if len(modes) != 2 or len(ports) != 2 or [p.name.rpartition(".")[2] for p in ports] != ["cos", "sin"]:
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


def _readout_measures(system: LinearSystem, modes: tuple[str, ...]) -> dict[str, Measure]:
    """`epr_readout.variance`, `.weight`, `.angle_deg`, where the currents read such a pair."""

    def of(function: Callable[[Array, Array], Any]) -> Measure:
        def on(V: Array, s: LinearSystem) -> Any:
            N = readout_map(s, modes)
            assert N is not None
            return function(V, N)

        return Measure(lambda V: on(V, system), None, on)

    if readout_map(system, modes) is None:
        return {}
    return {
        "epr_readout.variance": of(_readout_variance),
        "epr_readout.weight": of(lambda V, N: np.sqrt(N[..., 0, 0] ** 2 + N[..., 0, 1] ** 2) + 0.0 * V[..., 0, 0]),
        "epr_readout.angle_deg": of(
            lambda V, N: entanglement.direction_deg(-N[..., 0, 1], -N[..., 0, 0]) + 0.0 * V[..., 0, 0]
        ),
    }


def _occupation(mode: int) -> Measure:
    i = 2 * mode
    return Measure(lambda V: (V[..., i, i] + V[..., i + 1, i + 1] - 1) / 2)


def _log_negativity_slope(V: Array) -> Array:
    nu = entanglement.ppt_min(V)[..., None, None]
    return np.where(nu < 0.5, -1 / (nu * np.log(2.0)), 0.0) * entanglement.ppt_gradient(V)


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


def _blind_currents(system: LinearSystem, modes: tuple[str, ...]) -> list[str]:
    """Detected currents that carry nothing of the reported modes."""
    index, d = system.indices(modes), system.detected()
    n = system.A.shape[-1]
    generic = 1.37 * (np.max(np.abs(system.A), initial=0.0) + 1.0) * (0.3 + 0.7j)
    reach = np.abs(np.linalg.solve((generic * np.eye(n) - system.A).T, d.C.T.astype(complex))).T[:, index]
    blind = [name for name, row in zip(system.currents, reach, strict=True) if not np.any(row > 0)]
    return [f"the current '{name}' sees none of the modes {', '.join(modes)}" for name in blind]


def describe_state(state: GaussianState, readout: Array | None = None) -> dict[str, Any]:
    """All measures of one state as plain data (the S of the JSON contract); `readout` as from `readout_map`."""
    out: dict[str, Any] = {
        "covariance": state.covariance.tolist(),
        "symplectic_eigenvalues": state.symplectic_eigenvalues().tolist(),
        "purity": float(state.purity),
        "occupations": {m: float(state.occupation(m)) for m in state.modes},
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


def beyond_rotating_wave(experiment: Experiment, below_hz: float | None = None) -> dict[str, Any]:
    """The unconditional state with everything that turns (slower than `below_hz`), averaged over a period.

    `error` is how far the rotating wave is off, its value over this one less one; empty where it has no system.

    Raises
    ------
    InputError
        Without a driven cavity.
    ModelError
        If there is no periodic state.
    """
    periodic = experiment.periodic(below_hz)
    average = periodic.average
    modes = experiment.modes or tuple(m.name for m in average.modes if m.kind == "oscillator")
    V, ripple = periodic.covariance()
    index = average.indices(modes)
    frame = next(m.frame for m in average.modes if m.name == modes[0])
    state = GaussianState(V[np.ix_(index, index)], modes, frame)
    error = {}
    try:
        names = [n for n in ("collective.duan", "duan", "epr.variance", "ppt_min") if n in measures(experiment)]
        for name in [*names, *(f"occupation.{m}" for m in modes)]:
            exact = float(parse(f"unconditional.{name}", experiment)[1].value(state.covariance))
            error[name] = float(evaluate(f"unconditional.{name}", experiment)) / exact - 1
    except ModelError:
        error = {}
    terms = [t for e in experiment.elements if isinstance(e, DrivenCavity) for t in e.terms()]
    return {
        "unconditional": describe_state(state),
        "frequency_hz": periodic.frequency_hz,
        "ripple": ripple,
        "error": error,
        "dropped": [t._asdict() for t in terms if not t.kept],
    }


def state_without(experiment: Experiment, reason: str) -> dict[str, Any]:
    """A state document that holds no state, for an experiment whose rotating-wave system is refused."""
    return {
        "schema": "backaction/state/1", "experiment": experiment.name, "modes": list(experiment.modes), "frame": "rotating",
        "convention": "[X, P] = i, vacuum variance 1/2, order X1, P1, X2, P2", "unconditional": None, "conditional": None,
        "warnings": [reason],
    }  # fmt: skip


def state_document(experiment: Experiment) -> dict[str, Any]:
    """What `backaction state --json` prints: both steady states with every measure, and warnings.

    Raises
    ------
    ModelError
        If there is neither a steady nor a conditional state.
    """
    system = experiment.system
    if system.batch_shape:
        raise InputError(
            f"{experiment.name}: a state document needs single values, not arrays of shape {system.batch_shape}"
        )
    warnings: list[str] = []
    states: dict[str, GaussianState | None] = {}
    reasons: list[str] = []
    for which in ("unconditional", "conditional"):
        try:
            states[which] = gaussian_state(experiment, which)
        except ModelError as error:
            states[which] = None
            reasons.append(str(error))
            warnings.append(f"{which}: {error}")
    if states["unconditional"] is None and states["conditional"] is None:
        raise ModelError(f"{experiment.name}: {reasons[0]}")
    report = system.check()
    warnings += report.warnings()
    warnings += _blind_currents(system, experiment.reported_modes())
    out: dict[str, Any] = {
        "schema": "backaction/state/1",
        "experiment": experiment.name,
        "modes": list(experiment.reported_modes()),
        "frame": str(next(s for s in states.values() if s is not None).frame),
        "convention": "[X, P] = i, vacuum variance 1/2, order X1, P1, X2, P2",
    }
    readout = readout_map(system, experiment.reported_modes())
    for which, state in states.items():
        out[which] = None if state is None else describe_state(state, readout)
    u, c = states["unconditional"], states["conditional"]
    if u is not None and len(u.modes) == 2:
        at = None
        if c is not None:
            best = entanglement.epr(c)
            value = entanglement.epr_variance(u, best.weight, best.angle_deg)
            at = {"variance": float(value), "weight": float(best.weight), "angle_deg": float(best.angle_deg)}
        out["unconditional"]["epr_at_conditional"] = at
    out["warnings"] = warnings
    return out
