"""The exact sampled model of a `LinearSystem`: what a digitiser records, its spectrum, its steady filter.

    x_{k+1} = F x_k + w_k,    y_k = H x_k + v_k,    cov(w, v) = [[Q, N], [N^T, R]]

x_k is the state at the start of interval k, y_k the sample of that interval, h its length. For `average` sampling
y_k = (1/h) int (C x + D w) dt, from the integral of the current as a further state; for `instantaneous` sampling
y_k = C x((k+1) h) + (1/h) int D w dt: the signal at the end of the interval, white noise limited to its bandwidth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from backaction.constants import TWO_PI
from backaction.derivatives import STEP, noise_spectrum_tangent
from backaction.errors import ModelError
from backaction.matrices import Array, expm, join, solve_right, symmetric, transpose
from backaction.records import Digitiser, Sampling
from backaction.response import VACUUM, Budget
from backaction.system import LinearSystem, Mode, Port


@dataclass(frozen=True, eq=False)
class SampledModel:
    """F (..., n, n), H (..., q, n), Q, N, R of the sampled system, and the interval in seconds."""

    F: Array
    H: Array
    Q: Array
    N: Array
    R: Array
    interval_s: float

    def spectrum(self, frequency_hz: Any) -> Array:
        """Two-sided density of the first current in shot-noise units, aliases included, shape (..., f)."""
        return spectrum_and_slope(self, None, frequency_hz)[0]


@dataclass(frozen=True, eq=False)
class SteadyFilter:
    """Steady Kalman filter of a `SampledModel`: x^_{k+1} = F x^_k + K (y_k - H x^_k).

    `covariance` is that of x_{k+1} given y_0..y_k: the conditional state at the end of the interval that was just
    recorded; `innovation` the covariance of y_k - H x^_k.
    """

    model: SampledModel
    gain: Array
    covariance: Array
    innovation: Array

    @property
    def closed_loop(self) -> Array:
        """F - K H."""
        return self.model.F - self.gain @ self.model.H

    @property
    def memory_s(self) -> float:
        """Time constant of the slowest pole of F - K H."""
        radius = np.max(np.abs(np.linalg.eigvals(self.closed_loop)))
        return float(-self.model.interval_s / np.log(radius)) if radius < 1 else float("inf")


def lowpassed(system: LinearSystem, corner_hz: float) -> LinearSystem:
    """The detected currents through a first-order low-pass: dz = w_c (y - z), z instead of y; one classical mode more."""
    d = system.detected()
    n, q = d.A.shape[-1], d.C.shape[-2]
    rate = TWO_PI * corner_hz
    root = np.sqrt(rate)  # the state is z/sqrt(w_c): of order one
    shape = d.batch_shape
    A = np.zeros((*shape, n + q, n + q), dtype=np.result_type(d.A, d.C))
    A[..., :n, :n], A[..., n:, :n], A[..., n:, n:] = d.A, root * d.C, -rate * np.eye(q)
    C = np.concatenate([np.zeros((q, n)), root * np.eye(q)], axis=-1)
    name = f"front end {1 + sum(m.name.startswith('front end') for m in d.modes)}"
    modes = (*d.modes, Mode(name, "classical", q))
    return replace(d, A=A, B=join([d.B, root * d.D], -2), C=C, D=0.0 * d.D, modes=modes)


def front_end_response(digitiser: Digitiser, frequency_hz: Any) -> Array:
    """Density of white noise of density 1 after the front end and the digitiser, shape (f,)."""
    port, current = Port("white", "classical", 1), Port("current", "current", 1)
    empty = np.zeros((0, 0))
    white = LinearSystem(
        empty, np.zeros((0, 1)), np.zeros((1, 0)), np.eye(1), VACUUM * np.eye(1), (), (port,), (current,)
    )
    return discretise(white, *digitiser).spectrum(frequency_hz)


def discretise(
    system: LinearSystem, sample_rate_hz: float, sampling: Sampling = "average", front_end_hz: Sequence[float] = ()
) -> SampledModel:
    """Exact sampled model, broadcasting, analytic in the system's matrices (complex steps pass through).

    `front_end_hz` are first-order low-passes before the digitiser, which become classical states after the system's own.

    The joint noise covariance int_0^h e^{As} G e^{A^T s} ds of state and integrated current is built on a short step by
    Van Loan's block exponential and doubled up to h, which stays accurate for stiff systems.
    """
    d = system.detected()
    for corner in front_end_hz:
        d = lowpassed(d, corner)
    n, q = d.A.shape[-1], d.C.shape[-2]
    h = 1.0 / sample_rate_hz
    shape = d.batch_shape
    A = np.zeros((*shape, n + q, n + q), dtype=np.result_type(d.A, d.C))
    A[..., :n, :n], A[..., n:, :n] = d.A, d.C
    L = join([d.B, d.D], -2)
    G = L @ d.S @ transpose(L)
    norm = float(np.max(np.sum(np.abs(A[..., :n, :n]), axis=-1), initial=0.0)) * h
    doublings = int(max(0, np.ceil(np.log2(max(norm, 1e-300) / 0.5))))
    step = h / 2.0**doublings
    # scale the current so that the block exponential is balanced
    size = n + q
    M = np.zeros((*shape, 2 * size, 2 * size), dtype=np.result_type(A, G))
    M[..., :size, :size], M[..., :size, size:], M[..., size:, size:] = -A * step, G * step, transpose(A) * step
    E = expm(M)
    Fa = transpose(E[..., size:, size:])
    Qa = Fa @ E[..., :size, size:]
    for _ in range(doublings):
        Qa = Qa + Fa @ Qa @ transpose(Fa)
        Fa = Fa @ Fa
    Qa = symmetric(Qa)
    F, Phi = Fa[..., :n, :n], Fa[..., n:, :n]
    Q, N, R = Qa[..., :n, :n], Qa[..., :n, n:] / h, Qa[..., n:, n:] / h**2
    if sampling == "average":
        return SampledModel(F, Phi / h, Q, N, R, h)
    # C x at the end: C (F x + w); white noise averaged over the interval, correlated with w
    white = d.D @ d.S @ transpose(d.D) / h
    cross = _integral(d.A, d.B @ d.S @ transpose(d.D), h) / h
    C = d.C
    return SampledModel(
        F,
        C @ F,
        Q,
        Q @ transpose(C) + cross,
        C @ Q @ transpose(C) + C @ cross + transpose(C @ cross) + white + 0.0 * Q[..., :1, :1],
        h,
    )


def _integral(A: Array, N: Array, h: float) -> Array:
    """int_0^h e^{A s} N ds."""
    n, q = A.shape[-1], N.shape[-1]
    shape = np.broadcast_shapes(A.shape[:-2], N.shape[:-2])
    M = np.zeros((*shape, n + q, n + q), dtype=np.result_type(A, N))
    M[..., :n, :n], M[..., :n, n:] = A * h, N * h
    return expm(M)[..., :n, n:]


def spectrum_and_slope(model: SampledModel, step: SampledModel | None, frequency_hz: Any) -> tuple[Array, Array]:
    """Density of the first current (SN) and its derivatives from a complex-stepped model (leading axis: fields)."""
    f = np.atleast_1d(np.asarray(frequency_hz, dtype=float))
    z = np.exp(-2j * np.pi * f * model.interval_s)
    one = (model.F, model.Q, model.N[..., :1], model.R[..., :1, :1], model.H[..., :1, :])
    slope = None
    if step is not None:
        parts = (step.F, step.Q, step.N[..., :1], step.R[..., :1, :1], step.H[..., :1, :])
        slope = tuple(np.imag(p) / STEP for p in parts)
    value, tangent = noise_spectrum_tangent(one, slope, z)  # type: ignore[arg-type]
    return value * model.interval_s / VACUUM, tangent * model.interval_s / VACUUM


def sampled_budget(system: LinearSystem, digitiser: Digitiser, frequency_hz: Any) -> Budget:
    """The spectrum of the sampled current by source, as `response.budget` but with the digitiser included."""
    sources = {}
    for port in system.inputs:
        only = {p.name: np.zeros((p.size, p.size)) for p in system.inputs if p.name != port.name}
        model = discretise(system.with_noise(only), *digitiser)
        sources[port.name] = model.spectrum(frequency_hz)
    total = discretise(system, *digitiser).spectrum(frequency_hz)
    return Budget(np.asarray(frequency_hz, dtype=float), total, sources, system.currents[0])


def steady_filter(model: SampledModel) -> SteadyFilter:
    """Stabilising solution of the discrete Riccati equation with cross-covariance, by structure-preserving doubling.

    P = F P F^T + Q - (F P H^T + N)(H P H^T + R)^-1 (F P H^T + N)^T, then two Newton steps.

    Raises
    ------
    ModelError
        If no stabilising solution exists (a mode that does not decay and is not seen).
    """
    F, H, Q, N, R = model.F, model.H, model.Q, model.N, model.R
    n = F.shape[-1]
    eye = np.eye(n)
    KN = solve_right(N, R)
    A, X = transpose(F - KN @ H), Q - KN @ transpose(N)
    G = transpose(H) @ np.linalg.solve(R, H)
    for _ in range(60):
        W = np.linalg.solve(eye + G @ X, np.concatenate([A, G], axis=-1))
        A_new = A @ W[..., :n]
        G = G + A @ W[..., n:] @ transpose(A)
        X_new = X + transpose(A) @ X @ W[..., :n]
        change = np.max(np.abs(X_new - X)) / max(float(np.max(np.abs(X_new))), 1e-300)
        A, X = A_new, symmetric(X_new)
        G = symmetric(G)
        if change < 1e-15 or not np.all(np.isfinite(X)):
            break
    for _ in range(2):
        S = H @ X @ transpose(H) + R
        K = solve_right(F @ X @ transpose(H) + N, S)
        closed = F - K @ H
        if not np.all(np.isfinite(closed)) or np.max(np.abs(np.linalg.eigvals(closed))) >= 1:
            raise ModelError("no steady filter: a mode that does not decay is not seen by the record")
        X = discrete_lyapunov(closed, Q + K @ R @ transpose(K) - K @ transpose(N) - N @ transpose(K))
    S = H @ X @ transpose(H) + R
    K = solve_right(F @ X @ transpose(H) + N, S)
    return SteadyFilter(model, K, X, S)


def discrete_lyapunov(F: Array, Q: Array) -> Array:
    """V = F V F^T + Q by doubling (spectral radius of F below 1)."""
    V = Q
    for _ in range(64):
        V = V + F @ V @ transpose(F)
        F = F @ F
        if np.max(np.abs(F)) < 1e-20:
            break
    return symmetric(V)


def scan(F: Array, drive: Array, start: Array, blocks: int | None = None) -> tuple[Array, Array]:
    """States x_0..x_{T-1} of x_{k+1} = F x_k + drive_k and the final x_T, for T steps; shapes (T, n), (n,).

    The record is cut into blocks that advance side by side: a first pass finds how each block ends from zero, a short
    recursion finds where each begins, a second pass fills in. The order of sums depends on T and `blocks` only.
    """
    T, n = drive.shape
    blocks = blocks or 1 << max(0, round(np.log2(2 * np.sqrt(max(T, 1)))))
    length = -(-T // blocks)
    padded = np.zeros((blocks * length, n))
    padded[:T] = drive
    U = np.ascontiguousarray(padded.reshape(blocks, length, n).transpose(1, 0, 2))
    Ft = np.ascontiguousarray(F.T)
    end = np.zeros((blocks, n))
    for k in range(length):
        end = end @ Ft + U[k]
    begin = np.empty((blocks, n))
    jump = np.linalg.matrix_power(F, length)
    x = np.array(start, dtype=float)
    for b in range(blocks):
        begin[b] = x
        x = jump @ x + end[b]
    X = np.empty_like(U)
    x_all = begin
    for k in range(length):
        X[k] = x_all
        x_all = x_all @ Ft + U[k]
    states = X.transpose(1, 0, 2).reshape(-1, n)
    last = states[T] if blocks * length > T else x
    return states[:T], last
