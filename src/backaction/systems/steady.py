"""Steady states of a `LinearSystem`: unconditional (Lyapunov), conditional (Riccati), retrodicted (effect operator).

    unconditional   A V + V A^T + Q = 0
    conditional     A V + V A^T + Q - (V C^T + N) R^-1 (V C^T + N)^T = 0,  K = (V C^T + N) R^-1
    retrodicted     the effect operator of the future record with a flat prior

with Q = B S B^T, N = B S D^T (process and measurement noise are correlated), R = D S D^T of the detected currents.
Everything broadcasts; a batch carries NaN where a point has no answer, a single point raises `ModelError`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from backaction.errors import ModelError
from backaction.numerics.matrices import Array, expm, solve_right, symmetric, transpose
from backaction.numerics.matrix_equations import care, lyapunov, riccati
from backaction.systems.linear import LinearSystem
from backaction.systems.poles import instability


class Conditional(NamedTuple):
    """Steady conditional covariance of all states, Kalman gain K (n, q) and relative residual of the Riccati equation."""

    covariance: Array
    gain: Array
    residual: Any


def unconditional(system: LinearSystem) -> Array:
    """V with A V + V A^T + B S B^T = 0, shape (..., n, n).

    Raises
    ------
    ModelError
        If a single point is unstable (the message names the eigenvalue and its mode); a batch gets NaN there.
    """
    poles = np.linalg.eigvals(system.A)
    stable = np.all(poles.real < 0, axis=-1)
    if system.batch_shape == () and not stable:
        raise ModelError(instability(system))
    A = np.where(stable[..., None, None], system.A, -np.eye(system.A.shape[-1]))
    V = lyapunov(A, system.noise()[0])
    return np.where(stable[..., None, None], V, np.nan)


def conditional(system: LinearSystem) -> Conditional:
    """Steady state conditioned on all detected currents.

    Raises
    ------
    ModelError
        If nothing is detected, a current has no noise, or no stabilising solution exists (undetectable); for a batch
        such points are NaN.
    """
    d = system.detected()
    if not system.currents:
        raise ModelError("no current is detected: there is no conditional state (add a homodyne)")
    Q, N, R = system.noise()
    V, residual, good = riccati(system.A, Q, N, R, d.C)
    if system.batch_shape == () and not good:
        raise ModelError(
            "no steady conditional state: a mode that is unstable or undamped is not seen by the detected currents"
        )
    K = solve_right(V @ transpose(d.C) + N, R)
    return Conditional(V, K, residual)


def conditional_at(system: LinearSystem, times_s: Any, start: Array | None = None) -> Array:
    """V_c(t) for a record that begins at t = 0, from `start` (default: the unconditional state); shape (T, n, n).

    Exact propagator, no integration: with Delta_0 = V(0) - V_c, the closed loop F = A - K C and
    W(t) = W - e^{F^T t} W e^{F t}, W the observability Gramian of (F, R^{-1/2} C),

        V(t) = V_c + e^{F t} Delta_0 (1 + W(t) Delta_0)^{-1} e^{F^T t}.
    """
    steady = conditional(system)
    d = system.detected()
    R = system.noise()[2]
    F = system.A - steady.gain @ d.C
    W = lyapunov(transpose(F), transpose(d.C) @ np.linalg.solve(R, d.C))
    delta = (unconditional(system) if start is None else np.asarray(start)) - steady.covariance
    n = F.shape[-1]
    out = []
    for t in np.atleast_1d(np.asarray(times_s, dtype=float)):
        E = expm(F * t)
        Wt = W - transpose(E) @ W @ E
        out.append(steady.covariance + E @ delta @ np.linalg.solve(np.eye(n) + Wt @ delta, transpose(E)))
    return symmetric(np.stack(out, axis=-3))


def effect(system: LinearSystem) -> Array:
    """Covariance of the effect operator (retrodiction): the future record alone, flat prior; shape (..., n, n).

    With A~ = A - N R^-1 C and Q~ = Q - N R^-1 N^T its inverse J solves
    J A~ + A~^T J - J Q~ J + C^T R^-1 C = 0. Not the RTS smoother and not an anti-causal Wiener filter.

    Raises
    ------
    ModelError
        If the future record does not see every state (J singular: infinite variance).
    """
    d = system.detected()
    Q, N, R = system.noise()
    KN = solve_right(N, R)
    At, Qt = system.A - KN @ d.C, symmetric(Q - KN @ transpose(N))
    info = symmetric(transpose(d.C) @ np.linalg.solve(R, d.C))
    # J is the stabilising solution of a filter equation for -A~^T with process noise info and "measurement" Q~
    w, U = np.linalg.eigh(Qt)
    J, _, good = care(transpose(At), info, U * np.sqrt(np.maximum(w, 0.0))[..., None, :])
    J = np.where(good[..., None, None], J, -np.eye(J.shape[-1]))
    eigenvalues = np.linalg.eigvalsh(J)
    seen = np.any(info != 0, axis=(-2, -1)) & (eigenvalues[..., 0] > 1e-14 * eigenvalues[..., -1])
    if system.batch_shape == () and not seen:
        raise ModelError("no steady effect operator: the future record does not determine every state variable")
    J = np.where(seen[..., None, None], J, np.eye(J.shape[-1]))
    return np.where(seen[..., None, None], symmetric(np.linalg.inv(J)), np.nan)
