"""The nearest separable model: how far data and calibrations are from it, and which of them would have to be wrong.

    d^2 = 2 [ln p(u^) - max ln p(u)], the maximum over all u whose state is separable; ln p = ln L + ln prior

d is in standard deviations (a profile likelihood with priors). For two modes a state is separable where its PPT eigenvalue
is 1/2 or more (Simon 2000). Searched by SLSQP in whitened coordinates, with the exact gradient of ln p.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from backaction.inference.maximum import Maximum
from backaction.inference.target import Target
from backaction.numerics.matrices import Array

FAR = 40.0
"""Distances beyond so many sd are not looked for: no matter of statistics."""
SETTLED = 1e-3
"""How far from the boundary a solution may lie, in sd."""


@dataclass(frozen=True)
class Separable:
    """Distance (sd) of the nearest separable model; `sd_of` how many prior sd each calibration would have to be off there.

    `kind` says what stands for separable; `status` is "nearest" or in words why there is none.
    """

    distance_sd: float
    kind: str
    sd_of: dict[str, float]
    status: str = "nearest"

    def document(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "distance_sd": self.distance_sd,
            "kind": self.kind,
            "calibrations_sd": self.sd_of,
            "status": self.status,
        }

    def __str__(self) -> str:
        if self.status != "nearest":
            return f"nearest separable model ({self.kind}): {self.status}"
        named = sorted(self.sd_of.items(), key=lambda item: -abs(item[1]))[:4]
        parts = ", ".join(f"{n} {z:+.1f}" for n, z in named)
        return f"nearest separable model ({self.kind}): {self.distance_sd:.1f} sd away, at {parts} prior sd"


def nearest_separable(
    target: Target, mode: Maximum, margin: Callable[[Array], Array], kind: str, seed: int = 0
) -> Separable:
    """The most probable u with `margin(u) >= 0`, from the maximum of the posterior and draws about it.

    `margin` takes points (k, P), is positive where the state is separable, and NaN where there is none. The distance is NaN
    where the search fails: no evidence of any.
    """
    from scipy import optimize

    run, root = target.evaluator(), mode.root
    back = np.ascontiguousarray(root.T)
    top = mode.log_density
    h = 1e-4
    P = target.size

    def edge(w: Array) -> float:
        return float(np.nan_to_num(margin(mode.place(w)[None])[0], nan=-1.0))

    def edge_slope(w: Array) -> Array:
        both = np.nan_to_num(margin(mode.place(np.concatenate([w + h * np.eye(P), w - h * np.eye(P)]))), nan=-1.0)
        return np.asarray((both[:P] - both[P:]) / (2 * h))

    def cost(w: Array) -> tuple[float, Array]:
        value, slope = run.gradient(mode.place(w))
        if not np.isfinite(value):
            return 0.5 * float(w @ w) + FAR**2, w
        return top - value, -(back @ slope)

    here = float(margin(mode.u[None])[0])
    if not np.isfinite(here):
        return Separable(np.nan, kind, {}, "not known: the fit has no state")
    if here >= 0:
        return Separable(0.0, kind, _moved(target, mode.u))
    g = edge_slope(np.zeros(P))
    size = float(np.linalg.norm(g))
    if not size > 0:
        return Separable(np.inf, kind, {}, "none: no parameter of the fit moves it")
    if -here / size > FAR:
        return Separable(FAR, kind, {}, f"more than {FAR:g} sd away")
    first = -here * g / size**2
    rng = np.random.default_rng(seed)
    spread = 0.5 * np.linalg.norm(first) / np.sqrt(P)
    starts = [first, *(first + spread * rng.standard_normal(P) for _ in range(2))]
    starts += [np.linalg.solve(root, u - mode.u) for u, _ in mode.others]
    best, place = np.inf, np.zeros(P)
    for start in starts:
        found = optimize.minimize(
            cost, start, jac=True, method="SLSQP", options={"maxiter": 200, "ftol": 1e-6},
            constraints=[{"type": "ineq", "fun": edge, "jac": edge_slope}],
        )  # fmt: skip
        value, _ = cost(found.x)
        if edge(found.x) > -SETTLED * size and value < best:
            best, place = float(value), found.x
    if not best < 0.5 * FAR**2:
        return Separable(np.nan, kind, {}, "not known: the search failed")
    return Separable(float(np.sqrt(max(0.0, 2 * best))), kind, _moved(target, mode.place(place)))


def _moved(target: Target, u: Array) -> dict[str, float]:
    """Prior sd by which every calibration is off at u."""
    scores, values = target.mixing() @ u, target.values(u)
    parts = zip(target.labels(), target.parameters, values, scores, strict=True)
    return {n: float(p.deviation(v, z)) for n, p, v, z in parts if p.calibrated}
