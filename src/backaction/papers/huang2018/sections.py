"""Tables beside the claims: optima, thresholds by the optimiser's verdict, scaling constants, forces, the laboratory frame."""

from __future__ import annotations

import numpy as np

from backaction.experiment.results import evaluate
from backaction.papers.huang2018.context import Huang
from backaction.papers.huang2018.models import exact_scaling, exact_scaling_dissipative, paper_scaling


def optima(c: Huang) -> str:
    """Optima by C_S: what is reached, where, and what a free g or a measurement would add."""
    lines = [
        "| eps | C_S | xi | theta_S | theta_M | C_M | least over g | conditional, same | QND optimum | R = 0 |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for eps in (0.0, 0.1):
        for C_S in (1.0, 3.0, 10.0, 100.0, 1000.0):
            o = c.optimum(C_S, eps)
            free, same = (
                float(evaluate(n, o.experiment))
                for n in ("unconditional.epr.variance", "conditional.epr_readout.variance")
            )
            zero = c.optimum(C_S, eps, "R0")
            symmetric = "no entanglement" if zero.value is None else f"{zero.value:.6f}"
            angles = (o.at["spin.coupling_angle_deg"], o.at["membrane.coupling_angle_deg"])
            lines.append(
                f"| {eps:g} | {C_S:g} | {o.value:.6f} | {angles[0]:.3f} | {angles[1]:.3f} | {o.at['C_M']:.4g} | {free:.6f} | {same:.6f} "
                f"| {c.optimum(C_S, eps, 'QND').value:.6f} | {symmetric} |"
            )
    return "\n".join(lines)


def thresholds(c: Huang) -> str:
    """Least C_S for entanglement, by the optimiser's own verdict, beside r/(2(1 - eps)) where R != 0."""
    lines = ["| eps | R != 0 | r/(2(1 - eps)) | R = 0 |", "|---|---|---|---|"]
    for eps in (0.0, 0.1):
        found = [c.threshold(eps, k) for k in ("R", "R0")]
        lines.append(f"| {eps:g} | {found[0]:.4f} | {c.r / 2 / (1 - eps):.4f} | {found[1]:.4f} |")
    return "\n".join(lines)


def scaling(c: Huang) -> str:
    """The constants of sqrt(C_S) xi at eps = 0, exact and printed."""
    lines = ["| n_S | R != 0, exact K | printed | R = 0, exact | printed |", "|---|---|---|---|---|"]
    for n in (0.0, 1.0, 10.0):
        printed = paper_scaling(4 / 3, n)
        lines.append(
            f"| {n:g} | {exact_scaling(4 / 3, n)[0]:.6f} | {printed[0]:.6f} | {exact_scaling_dissipative(4 / 3, n)[0]:.6f} | {printed[1]:.6f} |"
        )
    return "\n".join(lines)


def forces(c: Huang) -> str:
    """V_H/V_M by signal width; the hybrid at the parameters that are best for entanglement."""
    at = (0, 5, 10, 15, 20, 30)
    lines = [
        "| gamma_sig/gamma~_M0 | " + " | ".join(f"C_S = {c.C_S[i]:.3g}" for i in at) + " |",
        "|---" * (len(at) + 1) + "|",
    ]
    for width in (1.0, 10.0, 100.0, 1000.0):
        values = c.enhancement(width)
        lines.append(f"| {width:g} | " + " | ".join(f"{values[i]:.4f}" for i in at) + " |")
    return "\n".join(lines)


def laboratory(c: Huang) -> str:
    """Relative excess of the EPR variance in the lab frame (spin and cavity in full) over the rotating-wave limit."""
    lines = ["| omega/2 pi | kappa = 0.3 omega | kappa = omega |", "|---|---|---|"]
    for omega in (3e7, 1e8, 1e9, 1e10):
        lines.append(
            f"| {omega:.0e} Hz | " + " | ".join(f"{c.deviation(omega, k * omega):+.2e}" for k in (0.3, 1.0)) + " |"
        )
    rates = [float(np.real(c.base.value(f"{m}.readout_rate_hz"))) for m in ("spin", "membrane")]
    return (
        "\n".join(lines)
        + f"\n\nRates Gamma/2 pi: spin {rates[0]:.3g} Hz, membrane {rates[1]:.3g} Hz. First order in Gamma/omega and gamma_M/kappa."
    )


SECTIONS = {
    "Optima": optima,
    "Thresholds": thresholds,
    "Scaling constants": scaling,
    "Forces against the standard quantum limit": forces,
    "How good the rotating-wave approximation is": laboratory,
}
