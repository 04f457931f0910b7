"""What limits a result, as the first block of a report and as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backaction.design.limits import Limits, find_limits
from backaction.errors import BackactionError
from backaction.experiment.experiment import Experiment
from backaction.numerics.matrices import Array
from backaction.report.figures import COLOURS, canvas
from backaction.report.page import Cell, Section, numbers

SHOWN = 6
"""Rows of each kind in a report."""


def limits_section(
    experiment: Experiment, draws: Mapping[str, Array] | None = None, advice: Sequence[Mapping[str, Any]] = ()
) -> Section:
    """What limits the main result of an experiment; empty, with the reason, where it has none."""
    try:
        found = find_limits(experiment, None, draws)
    except BackactionError as error:
        return Section("What limits it", paragraphs=[f"Cannot be said: {error}."])
    span = "" if found.interval is None else f" (5–95 %: {_span(found.interval)})"
    told_of = [*found.singles[:SHOWN], *found.together]
    rows = [[Cell(f"without {w.what}"), *numbers("none" if w.value is None else f"{w.value:.4g}", _signed(w.change)),
             *(numbers(_span(w.interval)) if found.interval else [])] for w in told_of]  # fmt: skip
    told = [s for s in found.sensitivities if s.log_derivative][:SHOWN]
    notes = [f"{found.of} = {found.value:.4g}{span} at the fitted values, for a continuous record."]
    if told:
        parts = ", ".join(f"{s.field} {s.log_derivative:+.2f}" for s in told)
        notes.append(f"One per cent more of a field changes it by so many per cent: {parts}.")
    if found.pairs:
        parts = "; ".join(
            f"{w.what} {_signed(w.change)} ({_signed(w.interaction)} beyond the sum)" for w in found.pairs[:3]
        )
        notes.append(f"Together: {parts}.")
    if advice:
        parts = "; ".join(f"{g['what']} ({g['now']:.3g} → {g['after']:.3g})" for g in advice[:3])
        notes.append(f"What to measure next, by the error of {advice[0]['of']}: {parts}.")
    head = [Cell("change"), *numbers("value", "difference", *(["5–95 %"] if found.interval else []))]
    return Section("What limits it", head if rows else (), rows, notes)


def _span(interval: tuple[float, float] | None) -> str:
    return "–" if interval is None else f"{interval[0]:.4g} – {interval[1]:.4g}"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.3g}"


def limits_figure(found: Limits) -> Any:
    """The value without each imperfection beside the value itself, and the largest sensitivities."""
    parts = [w for w in (*found.together, *found.singles, *found.pairs) if w.value is not None][:14]
    told = [s for s in found.sensitivities if s.log_derivative is not None][:14]
    rows = max(len(parts), len(told), 3)
    fig, (left, right) = canvas(11.0, 0.3 * rows + 1.3, 1, 2)
    left.barh(range(len(parts)), [w.value for w in parts], color=COLOURS[0])
    left.axvline(found.value, color=COLOURS[1], lw=1.2, label=f"as it is: {found.value:.4g}")
    left.set_yticks(range(len(parts)), [w.what for w in parts], fontsize=7)
    left.set(xlabel=f"{found.of} without it")
    left.legend(fontsize=7, loc="lower right", bbox_to_anchor=(1.0, 1.0), frameon=False)  # beside no bar
    right.barh(range(len(told)), [s.log_derivative for s in told], color=COLOURS[2])
    right.axvline(0.0, color="k", lw=0.6)
    right.set_yticks(range(len(told)), [s.field for s in told], fontsize=7)
    right.set(xlabel="d ln value / d ln field")
    for ax in (left, right):
        ax.invert_yaxis()
        ax.tick_params(axis="x", labelsize=7)
    fig.suptitle(f"{found.experiment}: what limits {found.of}", fontsize=9)
    return fig
