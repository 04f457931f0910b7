"""The figures of Moller 2017 that Table I determines: one function each, taking the context, returning a figure."""

from __future__ import annotations

from typing import Any

import numpy as np

from backaction.elements.homodyne import Homodyne
from backaction.experiment.experiment import Experiment
from backaction.numerics.matrices import Array
from backaction.papers.moller2017.context import Figure, Moller
from backaction.report.figures import canvas
from backaction.systems.response import Budget, budget

BLUE, RED, GREEN, BROWN = "#4477AA", "#EE6677", "#228833", "#997755"
SPAN_HZ = 25e3


def _axis(figure: Figure, half: float = SPAN_HZ, n: int = 801) -> Array:
    return figure.mechanics[0] + np.linspace(-half, half, n)


def _zpf_axis(ax: Any, figure: Figure) -> None:
    """Right-hand axis in x_zpf^2/kHz, by the thermal area of the membrane (hbar/(2 m Omega) = 1)."""
    scale = figure.x2(1e3)
    right = ax.secondary_yaxis("right", functions=(lambda s: s * scale, lambda x: x / scale))
    right.set_ylabel("x$_{zpf}^2$ / kHz")


def _finish(ax: Any, title: str, ylabel: str = "spectral density (SN)") -> None:
    ax.set(xlabel="frequency (kHz)", ylabel=ylabel)
    ax.set_title(title, fontsize=10)
    ax.legend(fontsize=7)


def _bands(ax: Any, f: Array, parts: list[tuple[str, Array, str, str | None]]) -> None:
    """Stacked areas: (label, density, colour, hatch) from the bottom."""
    base = np.zeros_like(f)
    for label, density, colour, hatch in parts:
        style: dict[str, Any] = (
            {"facecolor": "none", "edgecolor": colour, "hatch": hatch} if hatch else {"color": colour, "alpha": 0.5}
        )
        ax.fill_between(f / 1e3, base, base + density, label=label, lw=0, **style)
        base = base + density


def _light(b: Budget, e: Experiment) -> Array:
    """The light's part, shot noise subtracted."""
    fields = [p.name for p in e.system.inputs if p.kind == "field"]
    return np.asarray(sum((b.sources[k] for k in fields), np.zeros_like(b.total)) - 1)


def fig2b(c: Moller) -> Any:
    """Squeezing of the reflected amplitude, with and without the unmatched light on the photodiode."""
    fig, ax = canvas(6.4, 4.2)
    figure = c.fig3
    f = _axis(figure, 40e3)
    for light, label, style in ((False, "the beam's mode alone", "-"), (True, "all reflected light", "--")):
        for efficiency, colour in ((0.72, BLUE), (1.0, "0.6")):
            total = budget(figure.direct(efficiency, light).system, f).total
            ax.plot(f / 1e3, 10 * np.log10(total), style, color=colour, label=f"{label}, efficiency {efficiency:g}")
    ax.axhline(0, color="k", lw=0.8)
    ax.set(ylim=(-5, 12))
    _finish(ax, "Fig. 2b: amplitude of the light that the membrane reflects", "spectral density (dB of SN)")
    return fig


def fig2c(c: Moller) -> Any:
    """The spins driven by vacuum and by white noise of n_WN = 1.22."""
    fig, ax = canvas(6.4, 4.2)
    f = abs(float(c.spin.value("spin.larmor_hz"))) + np.linspace(-20e3, 20e3, 801)
    quiet = budget(c.spin.system, f)
    driven = budget(c.spin.with_values({"spin.in.excess_sn": 1.22}).system, f)
    _bands(
        ax,
        f,
        [
            ("shot noise", np.ones_like(f), "0.7", None),
            ("spin thermal", quiet.sources["spin.bath"], BROWN, None),
            ("back-action", _light(quiet, c.spin), BROWN, "///"),
        ],
    )
    ax.plot(f / 1e3, quiet.total, color=BROWN, label="driven by vacuum")
    ax.plot(f / 1e3, driven.total, color="k", label="driven by white noise, n = 1.22")
    _finish(ax, f"Fig. 2c: phase noise of the spins; C$_S$ = {c.spin_cooperativity():.2f} by (S40)")
    return fig


def fig2d(c: Moller) -> Any:
    """The membrane's phase noise: thermal and back-action."""
    fig, ax = canvas(6.4, 4.2)
    figure = c.fig3
    f, e = _axis(figure), figure.at(0)
    b = budget(e.system, f)
    _bands(
        ax,
        f,
        [
            ("shot noise", np.ones_like(f), "0.7", None),
            ("membrane thermal", b.sources["membrane.bath"], BLUE, None),
            ("back-action", _light(b, e), BLUE, "///"),
        ],
    )
    ax.plot(f / 1e3, b.total, color=BLUE, label="total")
    _zpf_axis(ax, figure)
    thermal, qba = (figure.x2(float(v)) for v in (figure.alone.thermal, figure.alone.back_action))
    _finish(ax, f"Fig. 2d: the membrane; thermal {thermal:.2f}, back-action {qba:.2f} x$_{{zpf}}^2$ (±100 kHz)")
    return fig


def fig3a(c: Moller) -> Any:
    """Membrane and spins apart, and the sum of the two spectra."""
    fig, ax = canvas(6.4, 4.2)
    figure = c.fig3
    f = _axis(figure)
    membrane = budget(figure.at(0).system, f).total
    spin = budget(
        _hybrid(figure, -1).with_values({"membrane.coupling_hz": 0.0, "spin.larmor_hz": _larmor(figure)}).system, f
    )
    ax.plot(f / 1e3, membrane, color=BLUE, label="membrane")
    ax.plot(f / 1e3, spin.total, color=BROWN, label="spins")
    ax.plot(f / 1e3, membrane + spin.total - 1, "k--", lw=1, label="sum (one shot noise)")
    _zpf_axis(ax, figure)
    _finish(ax, "Fig. 3a: the two oscillators apart")
    return fig


def _larmor(figure: Figure) -> float:
    return float(_hybrid(figure, -1).resolved().value("spin.larmor_hz"))


def _hybrid(figure: Figure, sign: int) -> Experiment:
    return figure.with_rate(figure.free_rate[0], sign)


def _spectra(ax: Any, figure: Figure) -> None:
    f = _axis(figure)
    for sign, colour, label in ((0, BLUE, "membrane"), (-1, RED, "negative mass"), (1, GREEN, "positive mass")):
        e = figure.at(0) if sign == 0 else _hybrid(figure, sign)
        ax.plot(f / 1e3, budget(e.system, f).total, color=colour, label=label)


def fig3b(c: Moller) -> Any:
    """Hybrid spectra for both signs of mass, and without interference."""
    fig, ax = canvas(6.4, 4.2)
    _spectra(ax, c.fig3)
    f = _axis(c.fig3)
    ax.plot(f / 1e3, c.fig3.no_interference(_hybrid(c.fig3, -1), f), "k", lw=1, label="interference left out")
    _zpf_axis(ax, c.fig3)
    _finish(ax, f"Fig. 3b: equal frequencies, Γ$_S$ = {c.fig3.free_rate[0] / 1e3:.1f} kHz (free)")
    return fig


def _parts(figure: Figure, sign: int, title: str) -> Any:
    fig, ax = canvas(6.4, 4.2)
    f, e = _axis(figure), _hybrid(figure, sign)
    b, colour = budget(e.system, f), RED if sign < 0 else GREEN
    _bands(
        ax,
        f,
        [
            ("shot noise", np.ones_like(f), "0.7", None),
            ("membrane thermal", b.sources["membrane.bath"], BLUE, None),
            ("spin thermal", b.sources["spin.bath"], BROWN, None),
            ("back-action", _light(b, e), colour, "///"),
        ],
    )
    ax.plot(f / 1e3, b.total, color=colour, label="hybrid")
    ax.plot(f / 1e3, budget(figure.at(0).system, f).total, color=BLUE, lw=1, label="membrane alone")
    _zpf_axis(ax, figure)
    ratio = float(figure.band(e).back_action / figure.alone.back_action)
    _finish(ax, f"{title}: QBA {ratio:.3f} of the membrane's ({10 * np.log10(ratio):+.2f} dB, ±100 kHz)")
    return fig


def fig3c(c: Moller) -> Any:
    """The negative-mass hybrid by source."""
    return _parts(c.fig3, -1, "Fig. 3c, negative mass")


def fig3d(c: Moller) -> Any:
    """The positive-mass hybrid by source."""
    return _parts(c.fig3, 1, "Fig. 3d, positive mass")


def fig4a(c: Moller) -> Any:
    """The detuned hybrid."""
    fig, ax = canvas(6.4, 4.2)
    figure = c.fig4
    f, e = _axis(figure), _hybrid(figure, -1)
    b = budget(e.system, f)
    _bands(
        ax,
        f,
        [
            ("shot noise", np.ones_like(f), "0.7", None),
            ("membrane thermal", b.sources["membrane.bath"], BLUE, None),
            ("spin thermal", b.sources["spin.bath"], BROWN, None),
            ("back-action, negative mass", _light(b, e), RED, "///"),
        ],
    )
    _spectra(ax, figure)
    spin = budget(e.with_values({"membrane.coupling_hz": 0.0, "spin.larmor_hz": _larmor(figure)}).system, f)
    ax.plot(f / 1e3, spin.total, color=BROWN, label="spins alone")
    _zpf_axis(ax, figure)
    _finish(ax, f"Fig. 4a: spins 5.2 kHz above, phase -7°, Γ$_S$ = {figure.free_rate[0] / 1e3:.1f} kHz (free)")
    return fig


def fig4b(c: Moller) -> Any:
    """Improvement of the displacement sensitivity: spectrum of the membrane alone over that of the hybrid."""
    fig, ax = canvas(6.4, 4.2)
    for figure, colour, label in ((c.fig4, RED, "5.2 kHz detuned, -7°"), (c.fig3, "0.5", "equal frequencies")):
        f = _axis(figure, 15e3)
        ratio = budget(figure.at(0).system, f).total / budget(_hybrid(figure, -1).system, f).total
        at = int(np.argmax(ratio))
        offset = (f - figure.mechanics[0]) / 1e3
        ax.plot(offset, ratio, color=colour, label=f"{label}: {ratio[at]:.3f} at {offset[at]:+.1f} kHz")
    ax.axhline(1, color="k", lw=0.8)
    _finish(ax, "Fig. 4b: sensitivity to displacement relative to the membrane alone", "noise power, membrane / hybrid")
    ax.set_xlabel("offset from the effective mechanical frequency (kHz)")
    return fig


def fig4c(c: Moller) -> Any:
    """Squeezed output of the spins, 7 degrees from the amplitude quadrature, for both signs of mass."""
    fig, ax = canvas(6.4, 4.2)
    detector = Homodyne(name="detector", efficiency=0.7, angle_deg=7.0, reference="amplitude")
    d = np.linspace(-30e3, 30e3, 1201)
    for sign, colour, label in ((1, "k", "positive mass"), (-1, BROWN, "negative mass")):
        spin = _hybrid(c.fig4, sign).resolved().element("spin")
        s = budget(Experiment((spin, detector), name="spin").system, abs(spin.value("larmor_hz")) + d).total
        at = int(np.argmin(s))
        text = f"{label}: {10 * np.log10(s[at]):.2f} dB at {d[at] / 1e3:+.1f} kHz"
        ax.plot(d / 1e3, 10 * np.log10(s), color=colour, label=text)
    ax.axhline(0, color="k", lw=0.8)
    ax.set(ylim=(-3, 12))
    _finish(ax, "Fig. 4c: light behind the spins, 7° from amplitude, η = 0.7", "spectral density (dB of SN)")
    ax.set_xlabel("offset from the Larmor frequency (kHz)")
    return fig


FIGURES = {f.__name__: f for f in (fig2b, fig2c, fig2d, fig3a, fig3b, fig3c, fig3d, fig4a, fig4b, fig4c)}
