"""The figures of Huang 2018: one function each, taking the context, returning a figure."""

from __future__ import annotations

from typing import Any

import numpy as np

from backaction.papers.huang2018.context import XI, Huang
from backaction.papers.huang2018.models import loss_bound, loss_bound_dissipative, paper_scaling
from backaction.report.figures import canvas

BLUE, RED, GREEN = "#4477AA", "#EE6677", "#228833"


def fig2(c: Huang) -> Any:
    """Map of xi over both cooperativities, angles optimised; where R = 0 can do it; the optimal C_M."""
    fig, ax = canvas(6.2, 4.8)
    data, zero = c.map("R"), c.map("R0")
    x, y, xi = data["C_S"].values, data["C_M"].values, data[XI].values
    shown = np.ma.masked_where(~(xi < 1), np.log10(xi))
    image = ax.pcolormesh(x, y, shown.T, cmap="viridis_r", shading="nearest")
    ax.contour(x, y, zero[XI].values.T, levels=[1.0], colors="k")
    best = c.curve(0.0)
    ax.plot(best["C_S"], best["C_M"], "w-.", lw=2, label="optimal C$_M$")
    ax.plot([], [], "k", label="R = 0 entangles inside")
    ax.set(xscale="log", yscale="log", xlabel="C$_S$", ylabel="C$_M$", xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    ax.set_title("Fig. 2: unconditional entanglement, ε = 0", fontsize=10)
    ax.legend(fontsize=8, loc="upper left", facecolor="0.8")
    fig.colorbar(image, label="log$_{10}$ ξ$_g$")
    return fig


def fig3(c: Huang) -> Any:
    """Xi against C_S for R = 0 and R != 0, with and without loss, with the scalings; and the insets."""
    fig, axes = canvas(10, 4.4, 1, 2)
    ax = axes[0]
    for eps, style in ((0.0, "-"), (0.1, "--")):
        for kind, colour, label in (("R0", "k", "R = 0"), ("R", RED, "R ≠ 0")):
            curve = c.curve(eps, kind)
            ax.plot(
                curve["C_S"],
                curve["xi"],
                style,
                color=colour,
                lw=1 if kind == "R0" else 2,
                label=f"{label}, ε = {eps:g}",
            )
    asymptotes = paper_scaling(c.r, 1.0)
    ax.plot(c.C_S, asymptotes[0] / np.sqrt(c.C_S), ":", color=RED, lw=1, label="printed scalings, ε = 0")
    ax.plot(c.C_S, asymptotes[1] / np.sqrt(c.C_S), ":", color="k", lw=1)
    ax.axhline(loss_bound(0.1), color=RED, lw=0.7, ls=(0, (1, 4)), label="loss bounds, ε = 0.1")
    ax.axhline(loss_bound_dissipative(0.1), color="k", lw=0.7, ls=(0, (1, 4)))
    ax.set(xscale="log", yscale="log", xlabel="C$_S$", ylabel="ξ$_g$", ylim=(0.01, 1.3), title="Fig. 3")
    ax.legend(fontsize=7)
    same, qnd = c.improvement(0.1)
    ax = axes[1]
    ax.plot(c.C_S, 100 * same, "--", color=RED, label="conditional, same parameters")
    ax.plot(c.C_S, 100 * qnd, "-", color=RED, label="conditional, optimal QND")
    ax.set(
        xscale="log",
        xlabel="C$_S$",
        ylabel="improvement over unconditional (%)",
        title="Insets: ε = 0.1",
        ylim=(0, 1.4),
    )
    right = ax.twinx()
    for eps, style in ((0.0, "-"), (0.1, "--")):
        best = c.curve(eps)
        p = c.rates(best["C_S"], best["C_M"], best["theta_S"], best["theta_M"], eps)
        right.plot(
            c.C_S, -2 * np.sqrt(1 - eps) * p.R / p.gamma_M, style, color=GREEN, label=f"-2√(1-ε)R/γ$_M$, ε = {eps:g}"
        )
    right.set(ylabel="-2√(1-ε)R/γ$_M$", ylim=(0, 1.05))
    handles = [*ax.get_legend_handles_labels()[0], *right.get_legend_handles_labels()[0]]
    ax.legend(handles=handles, fontsize=7, loc="lower right")
    return fig


def figS3(c: Huang) -> Any:
    """Optimal angles and C_M, equal and free angles, eps = 0.1."""
    fig, axes = canvas(9, 4, 1, 2)
    free, equal = c.curve(0.1), c.curve(0.1, "R0")
    axes[0].plot(free["C_S"], free["theta_S"] / np.pi, color=RED, label="θ$_S$")
    axes[0].plot(free["C_S"], free["theta_M"] / np.pi, "--", color=RED, label="θ$_M$")
    axes[0].plot(equal["C_S"], equal["theta_S"] / np.pi, color=BLUE, label="θ, R = 0")
    axes[0].axhline(0.25, color="k", lw=0.7)
    axes[0].set(xscale="log", xlabel="C$_S$", ylabel="θ / π", title="Fig. S3a, ε = 0.1")
    axes[1].plot(free["C_S"], free["C_M"], color=RED, label="R ≠ 0")
    axes[1].plot(equal["C_S"], equal["C_M"], color=BLUE, label="R = 0")
    axes[1].set(xscale="log", yscale="log", xlabel="C$_S$", ylabel="C$_M$", title="Fig. S3b")
    for ax in axes:
        ax.legend(fontsize=8)
    return fig


def figS4(c: Huang) -> Any:
    """Optimal C_M, unconditional and conditional QND; and what of it converges."""
    fig, ax = canvas(6, 4.2)
    free, qnd = c.curve(0.1), c.curve(0.1, "QND")
    ax.plot(free["C_S"], free["C_M"], color=RED, label="unconditional")
    ax.plot(qnd["C_S"], qnd["C_M"], "--", color=BLUE, label="conditional (QND)")
    projected = free["C_M"] * np.cos(free["theta_M"] - np.pi / 4) ** 2
    ax.plot(free["C_S"], projected, ":", color="k", label="unconditional C$_M$ cos²(θ$_M$ - π/4)")
    ax.set(xscale="log", yscale="log", xlabel="C$_S$", ylabel="C$_M$", title="Fig. S4, ε = 0.1")
    ax.legend(fontsize=8)
    return fig


def figS5(c: Huang) -> Any:
    """Force sensing of the hybrid against the standard quantum limit, beside xi; the paper gives no signal width."""
    fig, ax = canvas(6.4, 4.4)
    ax.plot(c.C_S, c.curve(0.0)["xi"], "k--", label="ξ$_g$")
    for width, colour in ((1.0, "0.6"), (10.0, BLUE), (100.0, RED), (1000.0, GREEN)):
        ax.plot(c.C_S, c.enhancement(width), color=colour, label=f"V$_H$/V$_M$, γ$_{{sig}}$ = {width:g} γ̃$_M$")
    ax.axhline(1, color="k", lw=0.7)
    ax.set(xscale="log", yscale="log", xlabel="C$_S$", ylabel="ξ$_g$, V$_H$/V$_M$", title="Fig. S5, ε = 0")
    ax.legend(fontsize=8)
    return fig


def laboratory(c: Huang) -> Any:
    """How the rotating-wave approximation errs: lab-frame spin and cavity over their rotating-wave limit."""
    fig, ax = canvas(6.2, 4.2)
    omega = np.geomspace(1e8, 1e10, 13)
    for ratio, colour in ((0.1, "0.6"), (0.3, BLUE), (1.0, RED)):
        ax.plot(
            omega / 1e6, [c.deviation(w, ratio * w) for w in omega], "o-", ms=3, color=colour, label=f"κ = {ratio:g} ω"
        )
    ax.set(xscale="log", yscale="log", xlabel="ω / 2π (MHz)", ylabel="EPR variance, lab / rotating wave - 1")
    ax.set_title("Validity at the shipped optimum (Γ/2π ≈ 0.8 MHz)", fontsize=10)
    ax.legend(fontsize=8)
    return fig


FIGURES = {f.__name__: f for f in (fig2, fig3, figS3, figS4, figS5, laboratory)}
