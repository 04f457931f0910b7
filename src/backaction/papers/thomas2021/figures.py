"""The figures of Thomas 2021 that Table I determines: one function each, taking the context, returning a figure."""

from __future__ import annotations

from typing import Any

import numpy as np

from backaction.experiment.experiment import Experiment
from backaction.numerics.matrices import Array
from backaction.papers.thomas2021.context import Thomas
from backaction.records.shot_level import ShotNoise
from backaction.records.simulation import VOLT_DENSITY, simulate
from backaction.report import figures
from backaction.report.figures import COLOURS, canvas
from backaction.states import entanglement
from backaction.systems import response, steady
from backaction.tracking import wiener
from backaction.tracking.run import growing

NAMES = {
    "spin.bath": "spin thermal",
    "membrane.bath": "mechanical thermal",
    "spin.in": "light in (QBA)",
    "link.vacuum": "link vacuum (QBA)",
    "membrane.loss": "cavity loss vacuum (QBA)",
    "detector.vacuum": "detection vacuum",
    "spin.broadband": "broadband spin",
    "laser.phase_noise": "laser phase noise",
    "detector.electronic": "electronics",
    "membrane.second_bath": "membrane mode 2",
    "membrane.third_bath": "membrane mode 3",
}
LABELS = ("X$_M$", "P$_M$", "X$_S'$", "P$_S'$")
RECORD_S = 110e-6


def _grow(e: Experiment) -> tuple[Array, Array, Array]:
    """Times, EPR means in the rotating frame at 1.37 MHz, and covariances of a record that begins at t = 0."""
    made = simulate(e, RECORD_S, 10e6, seed=8)
    return growing(e, made.record, ShotNoise(VOLT_DENSITY, 0.0, "V"), 1.37e6)


def fig1b(c: Thomas) -> Any:
    """Conditional trajectories of the EPR pair as the record grows, near resonance and 110 kHz apart."""
    fig, axes = canvas(9, 4.2, 1, 2)
    u = entanglement.basis(float(c.best.weight), float(c.best.angle_deg))[:2]
    for ax, e, title in ((axes[0], c.resonant, "near resonance"), (axes[1], c.far(), "110 kHz apart")):
        times, mean, V = _grow(e)
        x, p = (mean @ u.T).T
        lines = figures.trajectory(ax, times, x, p, u @ V[-1] @ u.T, ("X EPR (rotating)", "P EPR (rotating)"))
        lines.set_array(times[:-1] * 1e6)
        lines.set_clim(0, 1e6 * RECORD_S)
        ax.set(title=title, xlim=(-4.6, 4.6), ylim=(-4.6, 4.6))
    fig.colorbar(lines, ax=axes, label="conditioning time (µs)")
    return fig


def fig1c(c: Thomas) -> Any:
    """V_c(t) from V_u, at the (a, b) of the long-time limit; separability at 1."""
    fig, ax = canvas(6, 4)
    t = np.concatenate([[0.0], np.geomspace(0.2e-6, RECORD_S, 120)])
    for k, (e, label) in enumerate(((c.resonant, "near resonance"), (c.far(), "110 kHz apart"))):
        system = e.system
        i = system.indices(("membrane", "spin"))
        V = steady.conditional_at(system, t)[:, i][:, :, i]
        if k == 0:
            a, b = float(c.best.weight), float(c.best.angle_deg)
        else:
            a, b = 0.85, float(entanglement.epr(V[-1]).angle_deg)
        v = entanglement.epr_variance(V, a, b)
        ax.plot(t * 1e6, v, color=COLOURS[k], label=f"{label}: {v[0]:.2f} to {v[-1]:.2f}")
    ax.axhline(1, color="k", ls="--", lw=1, label="separable above")
    ax.set(xlabel="conditioning time (µs)", ylabel="EPR variance", yscale="log", xlim=(0, 110))
    ax.set_yticks([0.7, 1, 2, 3, 4, 6], ["0.7", "1", "2", "3", "4", "6"])
    ax.minorticks_off()
    ax.legend()
    return fig


def _named(b: response.Budget) -> response.Budget:
    return response.Budget(b.frequency_hz, b.total, {NAMES.get(k, k): v for k, v in b.sources.items()}, b.current)


def fig3a(c: Thomas) -> Any:
    """The two oscillators 110 kHz apart, by source."""
    fig, ax = canvas(9, 4)
    figures.draw_spectrum(ax, _named(response.budget(c.far().system, np.linspace(1.33e6, 1.52e6, 2500))))
    return fig


def fig3b(c: Thomas) -> Any:
    """The joint spectrum near resonance, by source."""
    fig, ax = canvas(9, 4)
    figures.draw_spectrum(ax, _named(response.budget(c.resonant.system, np.linspace(1.345e6, 1.395e6, 2000))))
    return fig


def _filter(ax: Any, e: Experiment, c: Thomas, f: Array, title: str) -> None:
    K = wiener.steady_response(e.system, f, ("membrane", "spin"))
    u = entanglement.basis(float(c.best.weight), float(c.best.angle_deg))[0]
    k = K @ u
    power = np.abs(k) ** 2 / np.max(np.abs(k) ** 2)
    ax.plot(f / 1e6, power, color=COLOURS[0])
    ax.set(yscale="log", xlabel="frequency (MHz)", xlim=(f[0] / 1e6, f[-1] / 1e6), title=title)
    ax.set_ylabel("|K|², normalised", color=COLOURS[0])
    other = ax.twinx()
    other.plot(f / 1e6, np.degrees(np.unwrap(np.angle(k))), color=COLOURS[1], lw=1)
    other.set_ylabel("phase (degrees)", color=COLOURS[1])


def fig3c(c: Thomas) -> Any:
    """The steady Wiener filter of X_EPR: amplitude and phase; it notches the laser's phase noise."""
    fig, ax = canvas(7, 4)
    _filter(ax, c.laboratory, c, np.linspace(1.345e6, 1.395e6, 2000), "laser line and membrane modes: placeholders")
    return fig


def fig4(c: Thomas) -> Any:
    """Spectra against detuning (a) and V_c against detuning, (a, b) optimised per point (b), -50 to 50 kHz."""
    fig, axes = canvas(10, 5, 1, 2)
    f = np.linspace(1.33e6, 1.41e6, 1200)
    shown = np.array([-30, -20, -10, -5, -2.2, 0, 5, 10, 20, 30]) * 1e3
    colours = [COLOURS[k % len(COLOURS)] for k in range(len(shown))]
    alone = response.budget(c.mechanics.system, f).total
    for k, offset in enumerate(shown):
        e = c.resonant.with_values({"spin.larmor_offset_hz": float(offset)})
        lift = 4.0**k
        axes[0].plot(f / 1e6, alone * lift, color="k", lw=0.6)
        axes[0].plot(f / 1e6, response.budget(e.system, f).total * lift, color=colours[k], lw=1.2)
        axes[0].axvline(abs(float(e.resolved().value("spin.larmor_hz"))) / 1e6, color=colours[k], ls=":", lw=0.7)
        axes[0].text(1.4105, lift * 1.4, f"{offset / 1e3:g} kHz", fontsize=7, color=colours[k], va="center")
    axes[0].set(
        yscale="log", xlabel="frequency (MHz)", ylabel="density (shot noise, each curve × 4)", xlim=(1.33, 1.41)
    )
    axes[0].set_title("black: mechanics alone; dotted: Larmor frequency", fontsize=9)
    x = np.linspace(-50e3, 50e3, 401)
    sweep = c.resonant.with_values({"spin.larmor_offset_hz": x})
    V = c.covariance(sweep)
    best = entanglement.epr(V)
    axes[1].plot(x / 1e3, best.variance, color=COLOURS[0], label="optimised (a, b)")
    axes[1].axhline(1, color="k", ls="--", lw=1, label="separable above")
    for crossing in c.crossings_khz():
        axes[1].axvline(crossing, color="0.6", lw=0.8, ls=":")
        axes[1].text(crossing, 0.76, f"{crossing:.2f}", fontsize=8, ha="center")
    axes[1].errorbar([-2.2], [0.83], [0.02], fmt="o", color=COLOURS[1], label="paper, best point")
    axes[1].set(xlabel="|ω$_S$| − ω$_M$ (kHz)", ylabel="conditional EPR variance", xlim=(-50, 50), ylim=(0.72, 1.35))
    axes[1].legend(loc="upper center")
    return fig


def fig8(c: Thomas) -> Any:
    """Wider range with two membrane modes in the same cavity, laser phase noise before it, electronics; and the filter."""
    fig, axes = canvas(10, 7.5, 2, 1)
    f = np.union1d(np.linspace(1.3e6, 1.55e6, 2500), np.linspace(1.514e6, 1.53e6, 1500))
    figures.draw_spectrum(axes[0], _named(response.budget(c.laboratory.system, f)))
    axes[0].set_title(
        "laser line, membrane modes and electronics: placeholders, the paper gives no numbers", fontsize=9
    )
    _filter(axes[1], c.laboratory, c, f, "")
    return fig


def _matrices(c: Thomas, e: Experiment, basis: bool) -> Any:
    fig, axes = canvas(9, 4.2, 1, 2)
    best = entanglement.epr(c.covariance(e))
    labels: tuple[str, ...] = LABELS
    turn = np.eye(4)
    angle = np.radians(float(best.angle_deg))
    turn[2:, 2:] = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
    if basis:
        turn = entanglement.basis(float(best.weight), float(best.angle_deg))
        labels = ("X$_{EPR}$", "P$_{EPR}$", "X$'_{EPR}$", "P$'_{EPR}$")
    states = [turn @ c.covariance(e, s) @ turn.T for s in ("unconditional", "conditional")]
    limit = float(np.max(np.abs(states[0])))
    for ax, V, title in zip(axes, states, ("unconditional", "conditional"), strict=True):
        image = figures.covariance(ax, V, labels, title, limit)
    fig.colorbar(image, ax=axes, shrink=0.85, label="covariance (vacuum 1/2)")
    return fig


def fig9(c: Thomas) -> Any:
    """Covariances of the single systems near resonance; the spin turned by b so that the anti-diagonal vanishes."""
    return _matrices(c, c.resonant, basis=False)


def fig10(c: Thomas) -> Any:
    """The same in the EPR basis: diagonal below 1/2."""
    return _matrices(c, c.resonant, basis=True)


def fig11(c: Thomas) -> Any:
    """Single systems 110 kHz apart: negligible correlations, lower mechanical occupation."""
    return _matrices(c, c.far(), basis=False)


def limits(c: Thomas) -> Any:
    """What limits V_c: logarithmic derivatives with respect to every parameter, ranked."""
    fig, ax = canvas(8, 5)
    ranked = sorted(c.sensitivities.items(), key=lambda item: abs(item[1]))
    values = [v for _, v in ranked]
    ax.barh(range(len(ranked)), values, color=[COLOURS[1] if v > 0 else COLOURS[0] for v in values])
    ax.set_yticks(range(len(ranked)), [k for k, _ in ranked], fontsize=8)
    for k, v in enumerate(values):
        ax.text(v, k, f" {v:+.3f} ", fontsize=7, va="center", ha="left" if v > 0 else "right")
    ax.set(xlabel="d ln V$_c$ / d ln parameter", xlim=(-1.0, 0.45))
    ax.axvline(0, color="k", lw=0.8)
    return fig


def wiener_check(c: Thomas) -> Any:
    """FIR Wiener filters of growing length against the Riccati equation: V_c(t) and the h² error."""
    fig, axes = canvas(9, 3.8, 1, 2)
    system = c.resonant.system
    i = system.indices(("membrane", "spin"))
    a, b = float(c.best.weight), float(c.best.angle_deg)
    t = np.geomspace(2e-6, RECORD_S, 60)
    axes[0].plot(
        t * 1e6, entanglement.epr_variance(steady.conditional_at(system, t)[:, i][:, :, i], a, b), "k", label="Riccati"
    )
    whole = wiener.correlations(system, RECORD_S, 40e-9, ("membrane", "spin"))
    marks = np.array([5, 20, 50, 110]) * 1e-6
    fir = [entanglement.epr_variance(wiener.fir(whole.cut(x)).conditional, a, b) for x in marks]
    axes[0].plot(marks * 1e6, fir, "o", color=COLOURS[1], label="FIR Wiener, h = 40 ns")
    axes[0].set(xlabel="record length (µs)", ylabel="EPR variance", xscale="log", yscale="log")
    axes[0].legend()
    steps = np.array([80, 40, 20]) * 1e-9
    exact = entanglement.epr_variance(steady.conditional_at(system, [20e-6])[0][np.ix_(i, i)], a, b)
    filters = [wiener.fir(wiener.correlations(system, 20e-6, h, ("membrane", "spin"))) for h in steps]
    error = [entanglement.epr_variance(x.conditional, a, b) - exact for x in filters]
    axes[1].loglog(steps * 1e9, error, "o-", color=COLOURS[0], label="FIR − Riccati, 20 µs")
    axes[1].loglog(steps * 1e9, error[-1] * (steps / steps[-1]) ** 2, "k--", lw=0.8, label="h²")
    axes[1].set(xlabel="step h (ns)", ylabel="error of the EPR variance")
    axes[1].legend()
    return fig


FIGURES = {
    "fig1b": fig1b, "fig1c": fig1c, "fig3a": fig3a, "fig3b": fig3b, "fig3c": fig3c, "fig4": fig4, "fig8": fig8,
    "fig9": fig9, "fig10": fig10, "fig11": fig11, "limits": limits, "wiener": wiener_check,
}  # fmt: skip
