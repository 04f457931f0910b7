"""Figures of calibrations: measured points and the fitted curve."""

from __future__ import annotations

from typing import Any

import numpy as np

from backaction.calibration.method import Panel, Result
from backaction.report import figures
from backaction.report.figures import COLOURS


def figure(result: Result) -> Any:
    """Measured points and model of every curve of a calibration, on one page."""
    panels = result.panels
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    fig, axes = figures.canvas(5.2 * columns, 3.4 * rows, rows, columns, squeeze=False)
    for ax, panel in zip(axes.flat, panels, strict=False):
        draw(ax, panel)
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    return fig


def draw(ax: Any, panel: Panel) -> Any:
    """One curve: points (with error bars where they show) and the fitted line."""
    order = np.argsort(panel.x)
    few = panel.x.size <= 60
    if panel.sd is not None and few:
        sd = np.broadcast_to(panel.sd, panel.y.shape)
        ax.errorbar(panel.x, panel.y, sd, fmt="o", ms=4, lw=1, color=COLOURS[0], label="measured")
    else:
        ax.plot(panel.x, panel.y, "o" if few else ".", ms=4 if few else 2.5, color=COLOURS[0], label="measured")
    ax.plot(panel.x[order], panel.model[order], "-", color=COLOURS[1], lw=1.3, label="fit")
    ax.set(xlabel=panel.x_label, ylabel=panel.y_label)
    ax.set_title(panel.title, fontsize=10)
    if panel.log:
        ax.set_yscale("log")
        _ticks(ax.yaxis, np.concatenate([panel.y, panel.model]))
    if panel.log_x:
        ax.set_xscale("log")
        _ticks(ax.xaxis, panel.x)
    ax.legend(fontsize=7)
    return ax


def _ticks(axis: Any, values: Any) -> None:
    """A logarithmic axis over less than two decades gets its labels at 1, 2, 5."""
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    shown = np.abs(values[values > 0])
    if shown.size and np.max(shown) < 100 * np.min(shown):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(ScalarFormatter())
        axis.set_minor_formatter(NullFormatter())
