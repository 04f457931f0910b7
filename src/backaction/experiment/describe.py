"""An experiment in plain data for people: what `backaction show` and `backaction state --json` print."""

from __future__ import annotations

from typing import Any

import numpy as np

from backaction.elements.driven_cavity import DrivenCavity
from backaction.elements.optomechanical_cavity import OptomechanicalCavity, bath_quanta
from backaction.elements.sideband_oscillator import SidebandOscillator
from backaction.elements.spin_oscillator import SpinOscillator
from backaction.errors import InputError, ModelError
from backaction.experiment.experiment import Experiment
from backaction.experiment.results import evaluate, gaussian_state, parse
from backaction.states import entanglement
from backaction.states.gaussian import GaussianState
from backaction.states.measures import describe_state, measures, readout_map
from backaction.systems.linear import LinearSystem


def document(experiment: Experiment) -> dict[str, Any]:
    """Resolved values, poles and derived quantities as plain data: schema `backaction/show/1`."""
    resolved = experiment.resolved()
    system = resolved.frictional().build()
    values, vectors = np.linalg.eig(system.A)
    poles = []
    for k in np.argsort(-values.real):
        if values[k].imag < 0:
            continue
        weight = np.abs(vectors[:, k]) ** 2
        owner = max(system.modes, key=lambda m: float(np.sum(weight[system.mode(m.name)])))
        p = values[k] / (2 * np.pi)
        poles.append({"frequency_hz": float(p.imag), "linewidth_hz": float(-2 * p.real), "mode": owner.name})
    derived: dict[str, dict[str, Any]] = {}
    for e in resolved.elements:
        if isinstance(e, OptomechanicalCavity):
            derived[e.name] = _cavity(e)
        if isinstance(e, DrivenCavity):
            derived[e.name] = _driven(e)
        if isinstance(e, SidebandOscillator):
            derived[e.name] = _sidebands(e)
        if isinstance(e, SpinOscillator):
            derived[e.name] = _spin(e, experiment)
    return {
        "schema": "backaction/show/1",
        "experiment": experiment.to_dict(),
        "resolved": {e.name: {"kind": e.kind} | e.to_table() for e in resolved.elements},
        "poles": poles,
        "derived": derived,
        "sources": list(system.sources),
        "currents": list(system.currents),
        "check": str(system.check()),
    }


def _cavity(e: OptomechanicalCavity) -> dict[str, Any]:
    f, gamma = (float(v) for v in e.effective_mechanics())
    (ci, si), (co, so) = e.carrier_phases()
    kappa, g = float(e.cavity_linewidth_hz), float(e.coupling()) / (2 * np.pi)
    readout, asymmetry = (float(v) for v in e.readout())
    n, gamma0 = float(bath_quanta(e)), float(e.mechanical_linewidth_hz)
    photons = e.intracavity_photons()
    entry, leave, carrier = e.port_roles()
    return {
        "light enters, leaves, carrier enters at": f"{entry}, {leave}, {carrier}",
        "effective_frequency_hz": f,
        "optical_spring_hz": f - float(e.mechanical_hz),
        "effective_linewidth_hz": gamma,
        "optical_damping_hz": gamma - float(e.mechanical_linewidth_hz),
        "minimum_occupation": _finite(e.minimum_occupation()),
        "readout_rate_hz": readout,
        "sideband_asymmetry": asymmetry,
        "bath_occupation": n,
        "psi_in_deg": float(np.degrees(np.arctan2(si, ci))),
        "carrier_out_deg": float(np.degrees(np.arctan2(so, co))),
        "photons": None if photons is None else float(photons),
        "cooperativity 4 g^2/(kappa gamma_M0)": 4 * g**2 / (kappa * gamma0),
        "cooperativity Thomas/Moller Gamma_M/[gamma_M0 (2n+1)]": readout / (gamma0 * (2 * n + 1)),
        "cooperativity Huang Gamma_M/[gamma_M0 (n+1/2)]": readout / (gamma0 * (n + 0.5)),
        "cooperativity 2 g^2/(kappa gamma_M0 n) (Thomas's table, 4 g_paper^2/(kappa gamma_M0 n))": (
            2 * g**2 / (kappa * gamma0 * n) if n else float("inf")
        ),
    }


def _driven(e: DrivenCavity) -> dict[str, Any]:
    centre, w = e.frame()
    out: dict[str, Any] = {
        "cavity_linewidth_hz": float(e.linewidth_hz()),
        "frame of the fields (Hz)": float(e.frequency_hz + centre),
        "frame of the modes (Hz)": ", ".join(f"{m.name} {float(x):.9g}" for m, x in zip(e.modes, w, strict=True)),
    }
    for t in e.terms():
        word = "kept" if t.kept else f"dropped, turns at {t.frequency_hz:.9g} Hz"
        out[f"{t.tone} {t.kind} {t.mode}"] = f"{t.rate_hz:.6g} Hz, {word}"
    return out


def _sidebands(e: SidebandOscillator) -> dict[str, Any]:
    rate, tilde = float(e.readout_rate_hz), float(e.decoherence_rate())
    c2 = float(np.cos(2 * np.radians(float(e.coupling_angle_deg))))
    return {
        "mass": f"{e.mass} mass",
        "linewidth_hz": float(e.effective_linewidth()),
        "beam_splitter_rate_hz": rate * (1 - c2) / 2,
        "down_conversion_rate_hz": rate * (1 + c2) / 2,
        "decoherence_rate_hz": tilde,
        "cooperativity Huang Gamma/[gamma_0 (n+1/2)]": rate / tilde if tilde else None,
    }


def _finite(value: Any) -> float | None:
    """A number, or None where there is none."""
    return float(value) if np.isfinite(value) else None


def _spin(e: SpinOscillator, experiment: Experiment) -> dict[str, Any]:
    larmor, gamma0, rate = float(e.larmor_hz), float(e.intrinsic_linewidth_hz), float(e.readout_rate_hz)
    n = float(e.occupation)
    out: dict[str, Any] = {
        "larmor_hz": larmor,
        "mass": "negative mass" if larmor < 0 else "positive mass",
        "linewidth_hz": gamma0 + 2 * float(e.tensor_ratio) * rate,
        "cooperativity Thomas/Moller Gamma_S/[gamma_S0 (2n+1)]": rate / (gamma0 * (2 * n + 1))
        if gamma0
        else float("inf"),
        "cooperativity Huang Gamma_S/[gamma_S0 (n+1/2)]": rate / (gamma0 * (n + 0.5)) if gamma0 else float("inf"),
    }
    cavity = experiment.reference_cavity(experiment.element(e.name))
    if cavity is not None:
        f, gamma = (float(v) for v in cavity.effective_mechanics())
        out["|omega_S| - omega_M,eff (Hz)"] = abs(larmor) - f
        out["in units of gamma_M"] = (abs(larmor) - f) / gamma
    return out


def _blind_currents(system: LinearSystem, modes: tuple[str, ...]) -> list[str]:
    """Detected currents that carry nothing of the reported modes."""
    index, d = system.indices(modes), system.detected()
    n = system.A.shape[-1]
    generic = 1.37 * (np.max(np.abs(system.A), initial=0.0) + 1.0) * (0.3 + 0.7j)
    reach = np.abs(np.linalg.solve((generic * np.eye(n) - system.A).T, d.C.T.astype(complex))).T[:, index]
    blind = [name for name, row in zip(system.currents, reach, strict=True) if not np.any(row > 0)]
    return [f"the current '{name}' sees none of the modes {', '.join(modes)}" for name in blind]


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
