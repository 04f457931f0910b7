"""The facts that `backaction show` prints."""

from __future__ import annotations

from typing import Any

import numpy as np

from backaction.elements import DrivenCavity, OptomechanicalCavity, SidebandOscillator, SpinOscillator
from backaction.elements.optomechanical_cavity import bath_quanta
from backaction.experiment import Experiment


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


def text(facts: dict[str, Any]) -> str:
    """The facts for people."""
    lines = [facts["experiment"]["name"], facts["experiment"]["description"], ""]
    for name, table in facts["resolved"].items():
        lines.append(f"{name}  ({table['kind']})")
        lines += [f"    {k:<28} {_value(v)}" for k, v in table.items() if k != "kind"]
        for k, v in facts["derived"].get(name, {}).items():
            lines.append(f"  > {k}: {_value(v)}")
    lines += ["", "poles (frequency, full linewidth, mode)"]
    lines += [f"    {p['frequency_hz']:16.6f} Hz  {p['linewidth_hz']:14.6f} Hz  {p['mode']}" for p in facts["poles"]]
    lines += ["", "sources  " + ", ".join(facts["sources"]), facts["check"]]
    return "\n".join(lines)


def _value(v: Any) -> str:
    return f"{v:.10g}" if isinstance(v, float) else str(v)
