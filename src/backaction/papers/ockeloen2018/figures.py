"""The figures of Ockeloen-Korppi 2018 with the nominal baths: one function each, taking the context, returning a figure."""

from __future__ import annotations

from typing import Any

import numpy as np

from backaction.experiment.results import evaluate
from backaction.papers.ockeloen2018.context import DATASETS, IMBALANCE, PROBE_HZ, Ockeloen
from backaction.report.figures import COLOURS, canvas

SPAN = np.linspace(-1.0e6, 2.3e6, 1651)


def _pump(c: Ockeloen, ax: Any, cases: list[tuple[str, Any]], title: str) -> None:
    for i, (label, e) in enumerate(cases):
        ax.plot(SPAN / 1e6, c.pump_spectrum(e, SPAN), color=COLOURS[i], label=label)
    ax.set(xlabel="ω - ω$_c$ (MHz)", ylabel="S$_{out}$ (quanta)", title=title)
    ax.legend(fontsize=7)


def fig2(c: Ockeloen) -> Any:
    """Pump spectra of all four panels; Fig. 2b at a common detuning where all of it is stable."""
    fig, axes = canvas(10, 7.4, 2, 2)
    a = [(f"G$_+$ = {g:g} kHz", c.at((103e3, g * 1e3), n_I=0.0, n1=41.0, n2=30.0)) for g in (82, 74, 67)]
    _pump(c, axes[0, 0], a, "Fig. 2a: G$_-$ = 103 kHz, base baths")
    axes[0, 0].set_yscale("log")
    b = [(f"Δ = {x:g} kHz", c.at((201e3, 135e3), x * 1e3, -370e3)) for x in (19.4, 9.6, 0.1)]
    _pump(c, axes[0, 1], b, "Fig. 2b at a common detuning of -370 kHz")
    axes[0, 1].set_yscale("log")
    for ax, name in ((axes[1, 0], "C"), (axes[1, 1], "D")):
        cooled = c.at((DATASETS[name][0], 0.0), n_I=0.0, n1=41.0, n2=30.0)
        _pump(c, ax, [("nominal baths", c.at(name)), ("base baths", c.at(name, n_I=0.0, n1=41.0, n2=30.0)),
                      ("red tone alone", cooled)], f"Fig. 2{'c' if name == 'C' else 'd'}: dataset {name}")  # fmt: skip
    return fig


def fig3(c: Ockeloen) -> Any:
    """Probe spectra of dataset C by phase, imbalance 1.055."""
    fig, axes = canvas(10, 6.4, 2, 3, sharex=True)
    f = np.concatenate([s * 650e3 + np.linspace(-150e3, 150e3, 601) for s in (-1, 1)])
    for ax, phi in zip(axes.flat, (90.0, 45.0, 12.0, 4.0, 0.0, -8.0), strict=True):
        N = c.probe_spectrum(c.nominal, f, PROBE_HZ, PROBE_HZ / IMBALANCE, phi)
        for part, x, colour in zip(np.split(N, 2), np.split(f, 2), (COLOURS[0], COLOURS[1]), strict=True):
            ax.plot((np.abs(x) - 650e3) / 1e3, part, color=colour, label="below" if x[0] < 0 else "above")
        V = c.state(c.nominal)
        ax.set_title(f"φ = {phi:g}°: ⟨X$_+^φ$²⟩ = {float(c.x_plus(V, phi)):.2f}", fontsize=9)
    axes[0, 0].legend(fontsize=7)
    for ax in axes[1]:
        ax.set_xlabel("|ω - ω$_c$| - Ω (kHz)")
    for ax in axes[:, 0]:
        ax.set_ylabel("S$^d_{out}$ (quanta)")
    return fig


def fig4(c: Ockeloen) -> Any:
    """Tomography of X_+^phi, the Duan quantity by phase, and by the strength of the red tone."""
    fig, axes = canvas(10, 7.4, 2, 2)
    phi = np.linspace(-100, 100, 401)
    for name, colour in (("C", "k"), ("D", COLOURS[1])):
        e = c.at(name)
        V = c.state(e)
        x, p = c.x_plus(V, phi), c.p_minus(V, phi)
        for ax in axes[0]:
            ax.plot(phi, x, color=colour, label=f"dataset {name}")
        inferred = [c.inferred(e, 1.0, float(a)) for a in phi[::40]]
        axes[0, 0].plot(phi[::40], inferred, "o", color=colour, ms=4, label="inferred from the probe's area")
        axes[1, 0].plot(phi, x + p, color=colour, label=f"dataset {name}")
    W = c.beyond(c.nominal)
    axes[0, 1].plot(phi, c.x_plus(W, phi), ":", color="k", label="C, beyond the rotating wave")
    axes[0, 1].errorbar([4.0], [0.41], [0.04], fmt="s", color=COLOURS[2], label="measured, C")
    axes[0, 1].set(xlim=(-15, 15), ylim=(0.2, 0.9), title="Fig. 4b")
    axes[0, 0].set(title="Fig. 4a", yscale="log")
    axes[1, 0].set(title="Fig. 4c", xlim=(-15, 15), ylim=(0.5, 1.6), ylabel="⟨X$_+^2$⟩ + ⟨P$_-^2$⟩")
    red = np.linspace(120e3, 400e3, 57)
    for label, ratio, style in (
        ("G$_+$/G$_-$ = 0.597 (C)", 166 / 278, "-"),
        ("G$_+$/G$_-$ = 0.633 (D)", 210 / 332, "--"),
    ):
        e = c.at((red, ratio * red))
        V = c.state(e)
        best = [float(np.min(c.x_plus(v, np.linspace(-5, 5, 201)) + c.p_minus(v, np.linspace(-5, 5, 201)))) for v in V]
        axes[1, 1].plot(red / 1e3, best, style, color="k", label=label)
    axes[1, 1].set(xlabel="G$_-$ / 2π (kHz)", title="Fig. 4d: fixed ratio, nominal baths", ylabel="least Duan quantity")
    for ax, level in ((axes[0, 0], 0.5), (axes[0, 1], 0.5), (axes[1, 0], 1.0), (axes[1, 1], 1.0)):
        ax.axhline(level, color=COLOURS[0], lw=1)
        ax.legend(fontsize=7)
    for ax in axes[0]:
        ax.set(xlabel="φ (deg)", ylabel="⟨(X$_+^φ$)²⟩")
    axes[1, 0].set_xlabel("φ (deg)")
    return fig


def calibration(c: Ockeloen) -> Any:
    """Thermal and sideband-cooling calibrations with one red tone on drum 1: spectra, and area against occupation."""
    fig, axes = canvas(12, 3.8, 1, 3)
    near = np.linspace(-15e3, 15e3, 2001)
    areas = []
    for i, n in enumerate((10.0, 20.0, 41.0, 80.0, 160.0)):
        e = c.at((2e3, 0.0), n_I=0.0, n1=n, n2=n * 30 / 41)
        f = near / 15
        N = c.pump_spectrum(e, f)
        areas.append((n, float(np.trapezoid(N, f))))
        axes[0].plot(f / 1e3, N, color=COLOURS[i], label=f"n$_1$ = {n:g}")
    axes[0].set(title="thermal, G$_-$ = 2 kHz", xlabel="ω - ω$_c$ (kHz)", ylabel="S$_{out}$ (quanta)")
    n, area = np.array(areas).T
    slope = float(area @ n / (n @ n))
    axes[1].plot(n, area, "o", color="k", label="area of the peak")
    axes[1].plot(n, slope * n, color=COLOURS[0], label=f"{slope:.3g} quanta Hz per phonon")
    axes[1].set(title="area is the thermometer", xlabel="occupation of the bath", ylabel="area (quanta Hz)")
    for i, G in enumerate((20e3, 50e3, 100e3, 201e3, 278e3)):
        e = c.at((G, 0.0), n_I=0.0, n1=41.0, n2=30.0)
        occupation = float(evaluate("unconditional.occupation.drum1", e))
        f = near * 10
        axes[2].plot(
            f / 1e3, c.pump_spectrum(e, f), color=COLOURS[i], label=f"G$_-$ = {G / 1e3:g} kHz: n$_1$ = {occupation:.3f}"
        )
    axes[2].set(title="sideband cooling, base baths", xlabel="ω - ω$_c$ (kHz)", yscale="log")
    for ax in axes:
        ax.legend(fontsize=7)
    return fig


def stability(c: Ockeloen) -> Any:
    """Stable region of Fig. 2b in both detunings, with the stated points."""
    fig, ax = canvas(6.4, 4.4)
    Delta, dbar = np.linspace(-40e3, 40e3, 161), np.linspace(-1.3e6, 0.6e6, 121)
    e = c.at((201e3, 135e3), Delta[:, None], dbar[None, :])
    margin = np.asarray(evaluate("dynamics.margin_hz", e)) / 1e3
    image = ax.pcolormesh(
        dbar / 1e6, Delta / 1e3, np.ma.masked_less_equal(margin, 0), cmap="viridis", shading="nearest"
    )
    for x in (19.4, 9.6, 0.1):
        ax.plot(0, x, "o", color=COLOURS[1])
    ax.set(xlabel="common detuning (δ$_+$ + δ$_-$)/2 (MHz)", ylabel="Δ = (δ$_+$ - δ$_-$)/2 (kHz)")
    ax.set_title("Fig. 2b: stable region, and the stated Δ at no common detuning", fontsize=10)
    fig.colorbar(image, label="full width of the slowest pole (kHz)")
    return fig


FIGURES = {f.__name__: f for f in (fig2, fig3, fig4, calibration, stability)}
