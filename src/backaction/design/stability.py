"""Where a system stays stable: the range of a parameter around a point, to rounding."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from backaction.design.problems import read_ties
from backaction.errors import InputError, ModelError
from backaction.experiment.experiment import Experiment
from backaction.experiment.results import evaluate

SCAN = 400
"""Points of the first scan; a window narrower than 1/400 of the range beside an unstable start is not seen."""


def stable_range(
    experiment: Experiment, name: str, limits: tuple[float, float], start: float, ties: Mapping[str, str] | None = None
) -> tuple[float | None, float | None]:
    """(lowest, highest) value of a field, or of a free name that `ties` use, between which the slowest pole decays.

    Scanned outwards from `start` in one batch, then refined by bisection to 1e-9 of the range; None where the range reaches
    its limit.

    Raises
    ------
    ModelError
        If `start` itself is unstable.
    """
    low, high = limits
    if not low <= start <= high:
        raise InputError(f"stable_range: {name} = {start:g} is outside {low:g}:{high:g}")
    tied = read_ties(experiment, ties or {})

    def margin(values: np.ndarray) -> np.ndarray:
        known = {name: values}

        def look_up(key: str) -> np.ndarray:
            return known[key] if key in known else np.asarray(experiment.value(key)) * 1.0

        for path, tie in tied.items():
            known[path] = np.asarray(tie(look_up)) + 0.0 * values
        moved = experiment.with_values({k: v for k, v in known.items() if "." in k}, "stable_range")
        return np.asarray(evaluate("dynamics.margin_hz", moved), dtype=float)

    if margin(np.array([start]))[0] <= 0:
        raise ModelError(f"stable_range: unstable at {name} = {start:g}")
    out: list[float | None] = []
    for end in (low, high):
        steps = np.linspace(start, end, SCAN + 1)
        bad = np.flatnonzero(margin(steps) <= 0)
        if not bad.size:
            out.append(None)
            continue
        inside, outside = steps[bad[0] - 1], steps[bad[0]]
        while abs(outside - inside) > 1e-9 * (high - low):
            grid = np.linspace(inside, outside, 65)
            first = int(np.flatnonzero(margin(grid) <= 0)[0])
            inside, outside = grid[first - 1], grid[first]
        out.append(float((inside + outside) / 2))
    return out[0], out[1]
