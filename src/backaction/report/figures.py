"""Figures: functions that take data and an `ax` and return the `ax`; nothing is shown or saved here."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from backaction.numerics.matrices import Array
from backaction.records.spectrum import Spectrum
from backaction.systems.response import Budget

# a stale font cache is no concern of the person who wants a figure
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)

COLOURS = (
    "#4477AA",
    "#EE6677",
    "#228833",
    "#CCBB44",
    "#66CCEE",
    "#AA3377",
    "#BBBBBB",
    "#332288",
    "#DDCC77",
    "#117733",
    "#882255",
    "#999933",
)
"""A palette that survives colour-blindness (Tol)."""


def canvas(width: float, height: float, rows: int = 1, columns: int = 1, **more: Any) -> Any:
    """A figure and its axes, drawn off screen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fig = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(fig)
    return fig, fig.subplots(rows, columns, **more)


def draw_spectrum(
    ax: Any, budget: Budget, measured: Spectrum | None = None, scale: float = 1.0, unit: str | None = None
) -> Any:
    """Spectrum stacked by source on a logarithmic axis, with measured points above it.

    Stacked bands on a logarithmic axis show the total at their top; the source with the highest peak lies on top.
    """
    unit_hz, axis = (1e6, "MHz") if budget.frequency_hz[-1] >= 5e5 else (1e3, "kHz")
    f = budget.frequency_hz / unit_hz
    total = budget.total * scale
    parts = {k: v * scale for k, v in budget.sources.items() if np.max(v) > 1e-4 * np.max(budget.total)}
    order = sorted(parts, key=lambda k: float(np.max(parts[k])))
    floor = 0.1 * float(np.min(total))
    base = np.zeros_like(total)
    for i, name in enumerate(order):
        top = base + parts[name]
        colour = COLOURS[i % len(COLOURS)]
        ax.fill_between(f, np.maximum(base, floor), np.maximum(top, floor), color=colour, lw=0, alpha=0.75, label=name)
        base = top
    if measured is not None:
        x, y = _thin(measured, 600)
        ax.plot(x / unit_hz, y, ".", ms=2.5, color="0.1", label="measured", rasterized=True)
    ax.plot(f, total, color="k", lw=1.0, label="model")
    ax.set(
        yscale="log",
        xlabel=f"frequency ({axis})",
        ylabel=f"power spectral density ({unit or budget.unit})",
        xlim=(f[0], f[-1]),
    )
    top_value = float(np.max(total)) if measured is None else max(float(np.max(total)), float(np.max(y)))
    ax.set_ylim(floor, 2.0 * top_value)
    handles, names = ax.get_legend_handles_labels()
    ax.legend(handles[::-1], names[::-1], fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return ax


def covariance(ax: Any, V: Array, labels: Sequence[str], title: str = "", limit: float | None = None) -> Any:
    """A covariance matrix as coloured squares with its numbers (as Thomas 2021, Fig. 9)."""
    size = limit or float(np.max(np.abs(V)))
    image = ax.imshow(V, cmap="RdBu_r", vmin=-size, vmax=size)
    for (i, j), value in np.ndenumerate(V):
        dark = abs(value) > 0.6 * size
        ax.text(
            j,
            i,
            f"{value + 0.0:.2f}".replace("-0.00", "0.00"),
            ha="center",
            va="center",
            fontsize=8,
            color="w" if dark else "k",
        )
    ax.set_xticks(range(len(labels)), labels, fontsize=8)
    ax.set_yticks(range(len(labels)), labels, fontsize=8)
    ax.set_title(title, fontsize=10)
    return image


def trajectory(ax: Any, times_s: Array, x: Array, p: Array, covariance: Array | None, labels: tuple[str, str]) -> Any:
    """A rotating-frame trajectory coloured by time, with the one-sigma ellipse of the conditional state at its end.

    The dashed circle is the one-sigma contour of a separable limit, variance 1/2 per quadrature.
    """
    from matplotlib.collections import LineCollection
    from matplotlib.patches import Ellipse

    points = np.column_stack([x, p])[:, None, :]
    lines = LineCollection(list(np.concatenate([points[:-1], points[1:]], axis=1)), cmap="viridis", lw=0.8)
    lines.set_array((times_s[:-1] - times_s[0]) * 1e3)
    ax.add_collection(lines)
    if covariance is not None:
        w, U = np.linalg.eigh(covariance)
        angle = float(np.degrees(np.arctan2(U[1, 1], U[0, 1])))
        end = (float(x[-1]), float(p[-1]))
        ax.add_patch(
            Ellipse(
                end,
                2 * np.sqrt(w[1]),
                2 * np.sqrt(w[0]),
                angle=angle,
                fill=False,
                ec="#EE6677",
                lw=2,
                label="state at the end",
            )
        )
        ax.add_patch(
            Ellipse(end, 2 * np.sqrt(0.5), 2 * np.sqrt(0.5), fill=False, ec="k", ls="--", lw=1, label="vacuum")
        )
        ax.legend(fontsize=7, loc="upper right")
    span = 1.1 * float(np.max(np.abs(points))) + 0.8
    ax.set(xlim=(-span, span), ylim=(-span, span), aspect="equal", xlabel=labels[0], ylabel=labels[1])
    return lines


def ratio(ax: Any, spectra: Sequence[tuple[str, Spectrum]], lines_hz: Sequence[float] = (), text: str = "") -> Any:
    """Densities that should be 1 against frequency, each with its statistical band."""
    for i, (label, s) in enumerate(spectra):
        x, y = _thin(s, 500)
        ax.plot(x / 1e6, y, ".", ms=3, color=COLOURS[i], label=label)
    if spectra:
        s = spectra[0][1]
        count = max(1, int(np.ceil(s.density.size / 500)))
        sd = 1 / np.sqrt(s.averages * count)
        ax.axhspan(1 - 2 * sd, 1 + 2 * sd, color="0.85", zorder=0, label="2 sigma of statistics")
    for k, f in enumerate(lines_hz):
        ax.axvline(f / 1e6, color="#EE6677", lw=0.8, ls=":", label="residual line" if k == 0 else None)
    ax.axhline(1.0, color="k", lw=0.8)
    ax.set(xlabel="frequency (MHz)", ylabel="density / prediction", title=text)
    if any(np.max(s.density) > 4 for _, s in spectra):
        ax.set_yscale("log")
    ax.legend(fontsize=8)
    return ax


def _thin(s: Spectrum, most: int) -> tuple[Array, Array]:
    """Average neighbouring bins down to at most `most` points."""
    count = max(1, int(np.ceil(s.density.size / most)))
    use = s.density.size // count * count
    return s.frequency_hz[:use].reshape(-1, count).mean(1), s.density[:use].reshape(-1, count).mean(1)
