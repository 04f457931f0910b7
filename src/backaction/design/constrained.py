"""Optimisation under inequality constraints: sequential quadratic programming from the most promising starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from backaction.design.problems import Constraint, Problem, ResultObjective
from backaction.numerics.matrices import Array
from backaction.numerics.newton import STEP, Minimum
from backaction.workers import Progress

STARTS = 4
"""How many of the starts are followed."""


def improve(problem: Problem, limits: Sequence[Constraint], z: Array, progress: Progress | None = None) -> Minimum:
    """Local minima that respect the constraints, by SLSQP with exact gradients; constraints scaled by their limits."""
    from scipy import optimize

    parts = [replace(problem, objective=ResultObjective(c.result), sign=1.0) for c in limits]
    scale = [max(abs(c.limit), 1e-12) for c in limits]

    def slack(k: int, x: Array) -> tuple[float, Array]:
        value, gradient = parts[k](x[None])
        c = limits[k]
        return c.sense * (float(value[0]) - c.limit) / scale[k], c.sense * gradient[0] / scale[k]

    values = problem(z)[0]
    order = np.argsort(values)[:STARTS]
    worst = float(np.nanmax(np.abs(values))) * 10 + 1.0
    size = float(np.nanmax(np.abs(values[order]))) + 1e-300
    out, goals, good = [], [], []
    for i, start in enumerate(order):
        if progress:
            progress(f"start {i + 1} of {len(order)}", i / len(order))

        def function(x: Array) -> tuple[float, Array]:
            value, gradient = problem(np.clip(x, 0, 1)[None])
            if not np.isfinite(value[0]):
                return worst / size, np.zeros(x.size)
            return float(value[0]) / size, gradient[0] / size

        def finite(k: int, x: Array) -> float:
            value = slack(k, np.clip(x, 0, 1))[0]
            return value if np.isfinite(value) else -1e3

        constraints = [
            {
                "type": "ineq",
                "fun": lambda x, k=k: finite(k, x),
                "jac": lambda x, k=k: np.nan_to_num(slack(k, np.clip(x, 0, 1))[1]),
            }
            for k in range(len(limits))
        ]
        done = optimize.minimize(
            function, z[start], jac=True, method="SLSQP", bounds=[(0.0, 1.0)] * z.shape[1], constraints=constraints,
            options={"ftol": 1e-14, "maxiter": 300},
        )  # fmt: skip
        x = np.clip(done.x, 0, 1)
        feasible = all(finite(k, x) >= -1e-8 for k in range(len(limits)))
        out.append(x)
        goals.append(float(problem(x[None])[0][0]) if feasible else np.inf)
        # mode 8: no further descent within rounding, the usual end at this tolerance
        good.append(feasible and (done.success or done.status == 8))
    points = np.array(out)
    _, gradient = problem(points)
    return Minimum(points, np.array(goals), gradient, _hessians(problem, points, gradient), np.array(good))


def _hessians(problem: Problem, z: Array, gradient: Array) -> Array:
    n, k = z.shape
    step = np.where(z > 0.5, -STEP, STEP)
    moved = np.repeat(z[:, None, :], k, axis=1)
    moved[:, np.arange(k), np.arange(k)] += step
    slopes = problem(moved.reshape(n * k, k))[1].reshape(n, k, k)
    raw = (slopes - gradient[:, None, :]) / step[:, :, None]
    return np.nan_to_num((raw + np.swapaxes(raw, -1, -2)) / 2)
