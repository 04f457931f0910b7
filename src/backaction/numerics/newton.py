"""Many bounded minimisations at once: a trust-region Newton method on the unit box, for a batch of independent problems.

Gradients are exact, Hessians are their differences. Points without an answer (NaN) are walls. Every problem of the batch
keeps its own trust radius; those that are done leave the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from backaction.numerics.matrices import Array

STEP = 1e-6
"""Displacement of the gradient differences, in units of the box."""
EDGE = 1e-12
"""A coordinate this near to the box's edge is on it."""

Function = Callable[[Array, Array], tuple[Array, Array]]
"""(z (m, K), index (m,)) -> values (m,), gradients (m, K): `index` says which problems of the batch the rows belong to."""


class Minimum(NamedTuple):
    """Positions (N, K), values, gradients, Hessians (N, K, K), and which problems converged."""

    z: Array
    value: Array
    gradient: Array
    hessian: Array
    converged: Array


def minimise(function: Function, start: Array, iterations: int = 80, tolerance: float = 1e-15) -> Minimum:
    """Local minima in [0, 1]^K from `start` (N, K), one for each row.

    Converged means: no free direction promises a decrease above `tolerance` times |value| (+ 1e-300), after a last Newton
    step on the gradient alone, which settles the arguments beyond what values can tell.
    """
    z = np.clip(np.array(start, dtype=float), 0.0, 1.0)
    n, k = z.shape
    value, gradient = function(z, np.arange(n))
    value, gradient = np.array(value, dtype=float), np.array(gradient, dtype=float)
    hessian = np.zeros((n, k, k))
    radius = np.full(n, 0.2)
    converged = np.zeros(n, dtype=bool)
    active = np.isfinite(value)
    fresh = active.copy()  # the Hessian is of another point
    for _ in range(iterations):
        rows = np.flatnonzero(active)
        if rows.size == 0:
            break
        renew = np.flatnonzero(active & fresh)
        if renew.size:
            hessian[renew] = _hessian(function, z[renew], gradient[renew], renew)
            fresh[renew] = False
        step, promised, decrement = _step(z[rows], gradient[rows], hessian[rows], radius[rows])
        small = decrement <= tolerance * np.abs(value[rows]) + 1e-300
        trial = np.clip(z[rows] + step, 0.0, 1.0)
        new, slope = function(trial, rows)
        good = np.isfinite(new) & np.all(np.isfinite(slope), axis=-1)
        with np.errstate(invalid="ignore"):
            gain = np.where(good, (value[rows] - new) / np.maximum(promised, 1e-300), -1.0)
            better = _residual(trial, slope) < _residual(z[rows], gradient[rows])
        accept = good & ((gain > 1e-4) | ((promised < 1e-11 * np.abs(value[rows])) & better))
        length = np.linalg.norm(step, axis=-1)
        shrink = ~accept | (gain < 0.25)
        radius[rows] = np.where(
            shrink, 0.25 * length, np.where(gain > 0.75, np.maximum(radius[rows], 2 * length), radius[rows])
        )
        radius[rows] = np.minimum(radius[rows], 1.0)
        taken = rows[accept]
        z[taken], value[taken], gradient[taken] = trial[accept], new[accept], slope[accept]
        fresh[taken] = True
        stuck = radius[rows] < 1e-14
        converged[rows] = small
        active[rows[small | stuck]] = False
    left = np.flatnonzero(np.isfinite(value) & fresh)
    if left.size:
        hessian[left] = _hessian(function, z[left], gradient[left], left)
    return Minimum(z, value, gradient, hessian, converged)


def on_edge(z: Array, gradient: Array) -> Array:
    """Coordinates that are held at the box's edge: the slope points outwards there. Shape (N, K)."""
    return np.asarray(((z <= EDGE) & (gradient > 0)) | ((z >= 1 - EDGE) & (gradient < 0)))


def _residual(z: Array, gradient: Array) -> Array:
    """Length of the gradient along the coordinates that are free."""
    return np.asarray(np.linalg.norm(np.where(on_edge(z, gradient), 0.0, gradient), axis=-1))


def _hessian(function: Function, z: Array, gradient: Array, rows: Array) -> Array:
    n, k = z.shape
    steps = np.where(z > 0.5, -STEP, STEP)
    moved = np.repeat(z[:, None, :], k, axis=1)
    moved[:, np.arange(k), np.arange(k)] += steps
    _, slopes = function(moved.reshape(n * k, k), np.repeat(rows, k))
    raw = (slopes.reshape(n, k, k) - gradient[:, None, :]) / steps[:, :, None]
    raw = (raw + np.swapaxes(raw, -1, -2)) / 2
    return np.where(np.all(np.isfinite(raw), axis=(-2, -1))[:, None, None], raw, np.eye(k))


def _step(z: Array, gradient: Array, hessian: Array, radius: Array) -> tuple[Array, Array, Array]:
    """Newton step on the free coordinates within radius and box, negative curvature mirrored.

    Returns the step, the decrease it promises, and the Newton decrement (the decrease without radius and box). Where the
    box turns the step uphill, it is the projected gradient's instead.
    """
    k = z.shape[-1]
    held = on_edge(z, gradient)
    free = ~held[:, :, None] & ~held[:, None, :]
    g = np.where(held, 0.0, gradient)
    w, U = np.linalg.eigh(np.where(free, hessian, np.eye(k)))
    floor = 1e-12 * np.max(np.abs(w), axis=-1, keepdims=True) + 1e-300
    along = np.einsum("nij,ni->nj", U, g)
    step = -np.einsum("nij,nj->ni", U, along / np.maximum(np.abs(w), floor))
    decrement = 0.5 * np.sum(along**2 / np.maximum(np.abs(w), floor), axis=-1)
    length = np.linalg.norm(step, axis=-1)
    step = step * np.minimum(1.0, radius / np.maximum(length, 1e-300))[:, None]
    step = np.clip(z + step, 0.0, 1.0) - z
    curve = np.einsum("ni,nij,nj->n", step, np.where(free, hessian, 0.0), step)
    promised = -(np.sum(g * step, axis=-1) + 0.5 * np.maximum(curve, 0.0))
    steep = np.linalg.norm(g, axis=-1)
    plain = np.clip(z - g * (radius / np.maximum(steep, 1e-300))[:, None], 0.0, 1.0) - z
    uphill = promised <= 0
    step = np.where(uphill[:, None], plain, step)
    promised = np.where(uphill, -np.sum(g * plain, axis=-1), promised)
    return step, promised, decrement
