"""An experiment in plain data for people: what `backaction show` and `backaction state --json` print."""

from __future__ import annotations

from typing import Any

import numpy as np

from backaction.errors import InputError, ModelError
from backaction.experiment.experiment import Experiment
from backaction.experiment.results import evaluate, gaussian_state
from backaction.states import entanglement
from backaction.states.gaussian import GaussianState
from backaction.states.measures import describe_state, measures, readout_map
from backaction.states.one_mode import by_mode
from backaction.systems.linear import LinearSystem
from backaction.systems.rates import mode_rates
from backaction.systems.view import View

OFF = 0.1
"""Relative error of the rotating wave that is said even where it leaves the verdict."""


def document(experiment: Experiment) -> dict[str, Any]:
    """Resolved values, poles and derived quantities as plain data: schema `backaction/show/1`."""
    resolved = experiment.resolved()
    system = resolved.frictional().build()
    values, vectors = np.linalg.eig(system.A)
    left = np.linalg.pinv(vectors)
    poles = []
    for k in np.argsort(-values.real):
        if values[k].imag < 0:
            continue
        weight = np.abs(vectors[:, k] * left[k])  # participation: what drives a mode takes no part in its pole
        owner = max(system.modes, key=lambda m: float(np.sum(weight[system.mode(m.name)])))
        p = values[k] / (2 * np.pi)
        poles.append({"frequency_hz": float(p.imag), "linewidth_hz": float(-2 * p.real), "mode": owner.name})
    derived = {e.name: facts for e in resolved.elements if (facts := e.facts(resolved.reference_of(e)))}
    return {
        "schema": "backaction/show/1",
        "experiment": experiment.to_dict(),
        "resolved": {e.name: {"kind": e.kind} | e.to_table() for e in resolved.elements},
        "poles": poles,
        "derived": derived,
        "rates": {m.name: mode_rates(system, m.name).table() for m in system.modes if m.kind == "oscillator"},
        "by_mode": {which: _words(experiment, which) for which in ("unconditional", "conditional")},
        "sources": list(system.sources),
        "currents": list(system.currents),
        "check": str(system.check()),
    }


def _words(experiment: Experiment, state: str) -> dict[str, dict[str, float]] | None:
    """Occupation, purity and squeezing of each mode in a steady state; None where there is none."""
    try:
        return by_mode(gaussian_state(experiment, state))
    except (InputError, ModelError):
        return None


def _blind_currents(system: LinearSystem, modes: tuple[str, ...]) -> list[str]:
    """Detected currents that carry nothing of the reported modes."""
    index, d = system.indices(modes), system.detected()
    n = system.A.shape[-1]
    generic = 1.37 * (np.max(np.abs(system.A), initial=0.0) + 1.0) * (0.3 + 0.7j)
    reach = np.abs(np.linalg.solve((generic * np.eye(n) - system.A).T, d.C.T.astype(complex))).T[:, index]
    blind = [name for name, row in zip(system.currents, reach, strict=True) if not np.any(row > 0)]
    return [f"the current '{name}' carries no direct signal of {', '.join(modes)}" for name in blind]


def _rotating_wave(experiment: Experiment, state: GaussianState) -> dict[str, Any]:
    """Whether what the rotating wave drops would change the verdict of the unconditional `state`, to lowest order.

    `verdict_changes` is None where that cannot be told, with the `reason`.
    """
    try:
        periodic = experiment.periodic()
        V, growth = periodic.lowest_order()
    except (InputError, ModelError) as error:
        return {"verdict_changes": None, "reason": str(error)}
    if growth >= 0:
        reason = f"a solution grows at {growth / np.pi / 2:.4g} Hz: there is no steady state"
        return {"verdict_changes": True, "unstable": True, "reason": reason}
    out: dict[str, Any] = {"verdict_changes": False, "unstable": False, "reason": ""}
    if len(state.modes) == 2:
        beyond = View(periodic.average, state.modes).of(V)
        here, there = (float(entanglement.epr(v).variance) for v in (state, beyond))
        nu, nu_beyond = (float(entanglement.ppt_min(v)) for v in (state, beyond))
        off = f"it makes the EPR variance {here:.4f} where {there:.4f} is left beyond it ({100 * (here / there - 1):+.0f} %)"
        out |= {"verdict_changes": (here < 1) != (there < 1) or (nu < 0.5) != (nu_beyond < 0.5)}
        out |= {"reason": off if abs(here / there - 1) > OFF or out["verdict_changes"] else ""}
        out |= {"epr_variance": there, "ppt_min": nu_beyond}
    return out


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
    view = View(average, modes)
    state = GaussianState(view.of(V), modes, view.frame)
    error = {}
    try:
        known = measures(experiment.view)
        names = [n for n in ("collective.duan", "duan", "epr.variance", "ppt_min") if n in known]
        for name in [*names, *(f"occupation.{m}" for m in modes)]:
            exact = float(known[name].value(state.covariance))
            error[name] = float(evaluate(f"unconditional.{name}", experiment)) / exact - 1
    except ModelError:
        error = {}
    terms = [t for e in experiment.elements if e.turns for t in e.terms()]
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
    modes = experiment.view.modes
    warnings += _blind_currents(system, modes)
    out: dict[str, Any] = {
        "schema": "backaction/state/1",
        "experiment": experiment.name,
        "modes": list(modes),
        "frame": str(next(s for s in states.values() if s is not None).frame),
        "convention": "[X, P] = i, vacuum variance 1/2, order X1, P1, X2, P2",
    }
    readout = readout_map(system, modes)
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
    out["rates"] = {m: mode_rates(system, m).table() for m in modes}
    if u is not None and any(e.turns for e in experiment.elements):
        out["rotating_wave"] = wave = _rotating_wave(experiment, u)
        if wave["verdict_changes"] is not None and wave["reason"]:
            word = "does not hold" if wave["verdict_changes"] else "is far off"
            warnings.append(f"the rotating wave {word}: {wave['reason']} (see state --beyond-rwa)")
    out["warnings"] = warnings
    return out
