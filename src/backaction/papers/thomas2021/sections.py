"""Tables beside the claims: excess noise, forecast by reading, what limits V_c, filter and retrodiction."""

from __future__ import annotations

from backaction.experiment.results import evaluate, gaussian_state
from backaction.papers.thomas2021.context import Thomas
from backaction.states import entanglement
from backaction.tracking import wiener


def excess_noise(c: Thomas) -> str:
    """How much extra white noise, at which point of the chain, would give the measured 0.83 and 2.02."""
    rows = [
        ("at the detector, after the efficiency", "detector.electronic_noise_sn"),
        ("at the output of the spins, phase quadrature", "spin.broadband_noise_sn"),
    ]
    lines = ["| where | extra white noise for V_c = 0.83 (SN) |", "|---|---|"]
    lines += [f"| {where} (`{path}`) | {c.excess_at(path, 0.83):.4f} |" for where, path in rows]
    far = c.excess_for(2.02, far=True)
    lines += ["", f"110 kHz apart, V_c = 2.02 (a = 0.85, correlations ignored) needs {far:.4f} SN at the detector."]
    return "\n".join(lines)


def forecast(c: Thomas) -> str:
    """V_c for each reading of the outlook's recipe."""
    lines = ["| reading | Gamma_S x 3 | gamma_S0 / 3 |", "|---|---|---|"]
    for name, make in (("Gamma_M left as it is", c.improved), ("Gamma_M = nu Gamma_S, zero detuning", c.rematched)):
        values = [float(evaluate("conditional.epr.variance", make(by))) for by in (True, False)]
        lines.append(f"| {name} | {values[0]:.4f} | {values[1]:.4f} |")
    best = [c.optimised(by) for by in (True, False)]
    lines.append(f"| g, phi and detuning optimised | {best[0][0]:.4f} | {best[1][0]:.4f} |")
    return "\n".join(lines)


def limits(c: Thomas) -> str:
    """D ln V_c/d ln parameter, ranked; exact gradients."""
    lines = ["| parameter | d ln V_c / d ln parameter |", "|---|---|"]
    ranked = sorted(c.sensitivities.items(), key=lambda item: -abs(item[1]))
    return "\n".join(lines + [f"| `{k}` | {v:+.4f} |" for k, v in ranked])


def three_estimates(c: Thomas) -> str:
    """Filter, effect operator and anti-causal Wiener filter at one (a, b)."""
    last = wiener.anticausal(c.resonant.system, ("membrane", "spin"))
    rows = (
        ("filter: the state given the past record", gaussian_state(c.resonant).covariance),
        ("effect operator: the future record alone, flat prior", gaussian_state(c.resonant, "retrodicted").covariance),
        ("anti-causal Wiener filter: the future record and the steady statistics", last),
    )
    lines = ["| estimate | EPR variance at V_c's (a, b) |", "|---|---|"]
    for name, V in rows:
        lines.append(f"| {name} | {float(entanglement.epr_variance(V, c.best.weight, c.best.angle_deg)):.4f} |")
    return "\n".join(lines)


SECTIONS = {
    "Excess noise": excess_noise,
    "Forecast": forecast,
    "What limits V_c": limits,
    "Three estimates that are not the same": three_estimates,
}
