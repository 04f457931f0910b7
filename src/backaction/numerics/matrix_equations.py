"""Matrix equations, batched: Lyapunov and Riccati, continuous and discrete.

    A V + V A^T + Q = 0,    A V + V A^T + Q - (V C^T + N) R^-1 (V C^T + N)^T = 0

Everything broadcasts over leading axes. One door: large batches of few states go through compiled doubling
(`loops.riccati`), single equations, many states, complex steps and what doubling does not settle through LAPACK.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from backaction.errors import ModelError
from backaction.numerics.matrices import Array, solve_right, symmetric, transpose


def discrete_riccati(A: Array, G: Array, X: Array) -> Array:
    """X = A^T X (1 + G X)^-1 A + X_0 from X_0 = `X` by structure-preserving doubling (the stabilising solution)."""
    eye = np.eye(A.shape[-1])
    for _ in range(60):
        W = np.linalg.solve(eye + G @ X, np.concatenate([A, G], axis=-1))
        n = A.shape[-1]
        step = transpose(A) @ X @ W[..., :n]
        G, A = symmetric(G + A @ W[..., n:] @ transpose(A)), A @ W[..., :n]
        X = symmetric(X + step)
        change = np.max(np.abs(step)) / max(float(np.max(np.abs(X))), 1e-300)
        if change < 1e-15 or not np.all(np.isfinite(X)):
            break
    return X


def discrete_lyapunov(F: Array, Q: Array) -> Array:
    """V = F V F^T + Q by doubling (spectral radius of F below 1)."""
    V = Q
    for _ in range(64):
        V = V + F @ V @ transpose(F)
        F = F @ F
        if np.max(np.abs(F)) < 1e-20:
            break
    return symmetric(V)


# -- solvers ----------------------------------------------------------------------------------------------------------


MANY = 400
"""From this many equations on compiled loops win over NumPy's batches (250 us an equation) and the time to load them."""
STATES = 12
"""Up to this many states: loops without blocking take n^3, and lose to LAPACK beyond."""
RESIDUAL = 1e-10
"""Largest relative residual of a doubling that is believed."""


def _by_loops(shape: tuple[int, ...], n: int, *matrices: Array) -> bool:
    """Whether compiled loops are the faster way."""
    return 0 < n <= STATES and int(np.prod(shape)) >= MANY and all(m.dtype == np.float64 for m in matrices)


def _flat(M: Array, shape: tuple[int, ...]) -> Array:
    return np.ascontiguousarray(np.broadcast_to(M, (*shape, *M.shape[-2:]))).reshape(-1, *M.shape[-2:])


def lyapunov(A: Array, Q: Array) -> Array:
    """V with A V + V A^T + Q = 0 for symmetric Q, broadcasting; also exact for complex steps.

    It does not test stability: for an unstable A the V of the linear equations comes out.
    """
    n, shape = A.shape[-1], np.broadcast_shapes(A.shape[:-2], Q.shape[:-2])
    if not _by_loops(shape, n, A, Q):
        return _dense_lyapunov(A, Q)
    from backaction.numerics.compile import library

    a, q = _flat(A, shape), _flat(Q, shape)
    V, good = np.empty(a.shape), np.empty(len(a), dtype=bool)
    library("program", "riccati", n=n).lyapunov_many(a, q, V, good)
    if not np.all(good):
        V[~good] = _dense_lyapunov(a[~good], q[~good])
    return V.reshape(*shape, n, n)


def _dense_lyapunov(A: Array, Q: Array) -> Array:
    """A dense system for the n(n+1)/2 distinct entries, with one step of refinement."""
    n = A.shape[-1]
    shape = np.broadcast_shapes(A.shape[:-2], Q.shape[:-2])
    i, j = np.triu_indices(n)
    where = np.zeros((n, n), dtype=int)
    where[i, j] = where[j, i] = np.arange(len(i))
    L = np.zeros((*A.shape[:-2], len(i), len(i)), dtype=A.dtype)
    rows = np.arange(len(i))
    for k in range(n):
        # (A V)_ij + (V A^T)_ij = sum_k A_ik V_kj + A_jk V_ki
        # within one statement every row appears once, so plain fancy addition is safe
        L[..., rows, where[k, j]] += A[..., i, k]
        L[..., rows, where[k, i]] += A[..., j, k]
    rhs = -np.broadcast_to(Q, (*shape, n, n))[..., i, j][..., None]
    v = np.linalg.solve(L, rhs)
    v = v + np.linalg.solve(L, rhs - L @ v)
    return v[..., 0][..., where]


def riccati(A: Array, Q: Array, N: Array, R: Array, C: Array) -> tuple[Array, Any, Any]:
    """Stabilising V of A V + V A^T + Q - (V C^T + N) R^-1 (V C^T + N)^T = 0, its relative residual, whether it was found.

    By `care` after the elimination of N: A - N R^-1 C, Q - N R^-1 N^T.
    """
    low = np.linalg.eigvalsh(symmetric(R))[..., 0]
    noisy = low > 1e-14 * np.maximum(np.trace(R, axis1=-2, axis2=-1), 1e-300)
    if not np.all(noisy):
        if noisy.ndim == 0:
            raise ModelError(
                "a detected current carries no noise (singular R): its efficiency or noise is not physical"
            )
        R = np.where(noisy[..., None, None], R, np.eye(R.shape[-1]))
    KN = solve_right(N, R)
    At, Qt = A - KN @ C, symmetric(Q - KN @ transpose(N))
    # C^T R^-1 C = F F^T
    F = transpose(np.linalg.solve(np.linalg.cholesky(symmetric(R)), C))
    V, residual, good = care(At, Qt, F)
    return V, residual, good & noisy


def care(A: Array, Q: Array, F: Array) -> tuple[Array, Any, Any]:
    """Stabilising solution of A V + V A^T + Q - V F F^T V = 0 with its residual and a flag per point."""
    n, shape = A.shape[-1], np.broadcast_shapes(A.shape[:-2], Q.shape[:-2], F.shape[:-2])
    if not _by_loops(shape, n, A, Q, F):
        return _subspace_care(A, Q, F)
    from backaction.numerics.compile import library

    a, q, f = _flat(A, shape), _flat(Q, shape), _flat(F, shape)
    V, residual = np.empty(a.shape), np.empty(len(a))
    library("program", "riccati", n=n).eliminated_many(a, q, f @ transpose(f), V, residual)
    good = residual < RESIDUAL
    rest = ~good & np.all(np.isfinite(a) & np.isfinite(q), axis=(-2, -1)) & np.all(np.isfinite(f), axis=(-2, -1))
    V[~good], residual[~good] = np.nan, np.nan
    if np.any(rest):
        V[rest], residual[rest], good[rest] = _subspace_care(a[rest], q[rest], f[rest])
    return V.reshape(*shape, n, n), residual.reshape(shape), good.reshape(shape)


def _subspace_care(A: Array, Q: Array, F: Array) -> tuple[Array, Any, Any]:
    """From the stable invariant subspace of the Hamiltonian matrix, refined by Newton-Kleinman steps.

    Each is a Lyapunov equation; they also repair the subspace where closed-loop poles coincide.
    """
    n = A.shape[-1]
    shape = np.broadcast_shapes(A.shape[:-2], Q.shape[:-2], F.shape[:-2])
    A, Q = (np.broadcast_to(m, (*shape, n, n)) for m in (A, Q))
    F = np.broadcast_to(F, (*shape, n, F.shape[-1]))
    G = F @ transpose(F)
    rate = np.max(np.abs(A), axis=(-2, -1), keepdims=True) + 1e-300
    # balance V against 1: with V = s V', Q/s and s G have like size
    most_q, most_g = np.max(np.abs(Q), axis=(-2, -1)), np.max(np.abs(G), axis=(-2, -1))
    both = (most_q > 0) & (most_g > 0)
    size = (np.sqrt(np.where(both, most_q, 1.0)) / np.sqrt(np.where(both, most_g, 1.0)))[..., None, None]
    a, q, g, f = A / rate, Q / rate / size, G / rate * size, F * np.sqrt(size / rate)
    top = np.concatenate([transpose(a), -g], axis=-1)
    bottom = np.concatenate([-q, -a], axis=-1)
    values, vectors = np.linalg.eig(np.concatenate([top, bottom], axis=-2))
    order = np.argsort(values.real, axis=-1)[..., :n]
    stable = np.sum(values.real < 0, axis=-1) == n
    U = np.take_along_axis(vectors, order[..., None, :], axis=-1)
    with np.errstate(all="ignore"):
        try:
            V = np.real(solve_right(U[..., n:, :], U[..., :n, :]))
        except np.linalg.LinAlgError:
            V = np.full((*shape, n, n), np.nan)
    V = symmetric(V)
    usable = stable & np.all(np.isfinite(V), axis=(-2, -1))
    V = np.where(usable[..., None, None], V, 0.0)
    V, residual, good = _refined(a, q, f, V, usable)
    if not np.all(good):  # subspaces that rounding has mixed: widely different rates
        start = _doubling(a, q, g)
        other, second, better = _refined(a, q, f, start, np.any(start != 0, axis=(-2, -1)))
        better &= ~good
        V, residual = np.where(better[..., None, None], other, V), np.where(better, second, residual)
        good = good | better
    return np.where(good[..., None, None], V * size, np.nan), np.where(good, residual, np.nan), good


def _refined(a: Array, q: Array, f: Array, V: Array, usable: Any) -> tuple[Array, Any, Any]:
    """Newton steps from V, each solved for the *correction* (its rounding is relative to the defect, not to V).

    Returns V, the relative residual, and where V is a stabilising solution.
    """
    n = a.shape[-1]
    previous = np.full(np.shape(usable), np.inf)
    for _ in range(8):
        gain = V @ f
        closed = a - gain @ transpose(f)
        settled = np.all(np.linalg.eigvals(closed).real < 0, axis=-1)
        usable = usable & settled
        closed = np.where(usable[..., None, None], closed, -np.eye(n))
        half = a @ V
        change = lyapunov(closed, symmetric(half + transpose(half) + q - gain @ transpose(gain)))
        step = np.max(np.abs(change), axis=(-2, -1)) / (np.max(np.abs(V), axis=(-2, -1)) + 1e-300)
        V = np.where((usable & (step < previous))[..., None, None], symmetric(V + change), V)
        if np.all(~usable | (step < 1e-15) | (step >= previous)):
            break
        previous = np.minimum(step, previous)
    # V f first: where the current sees a quiet combination of noisy ones, V f is small and V f f^T V would be rounding
    half, gain = a @ V, V @ f
    square = gain @ transpose(gain)
    scale = sum(np.max(np.abs(x), axis=(-2, -1)) for x in (half, half, q, square)) + 1e-300
    residual = np.max(np.abs(half + transpose(half) + q - square), axis=(-2, -1)) / scale
    return V, residual, usable & (residual < 1e-9)


def _doubling(a: Array, q: Array, g: Array) -> Array:
    """Stabilising solution by the structure-preserving doubling algorithm; 0 where it does not settle.

    No eigenvalue problem: sums of positive matrices alone, so that rates ten decades apart cost digits of the small only.
    Source: Chu, Fan, Lin, Linear Algebra Appl. 396, 55 (2005).
    """
    n = a.shape[-1]
    eye = np.eye(n)
    gamma = np.max(np.abs(a), axis=(-2, -1), keepdims=True) + 1e-300
    with np.errstate(all="ignore"):
        try:
            inverse = np.linalg.inv(transpose(a) - gamma * eye)
            W = np.linalg.inv(transpose(transpose(a) - gamma * eye) + q @ inverse @ g)
            A, G, H = eye + 2 * gamma * transpose(W), 2 * gamma * inverse @ g @ W, 2 * gamma * W @ q @ inverse
            for _ in range(60):
                S = np.linalg.inv(eye + G @ H)
                new = symmetric(H + transpose(A) @ H @ S @ A)
                A, G = A @ S @ A, symmetric(G + A @ S @ G @ transpose(A))
                change = np.max(np.abs(new - H), axis=(-2, -1)) / (np.max(np.abs(new), axis=(-2, -1)) + 1e-300)
                H = new
                if np.all(~(change > 1e-16)):
                    break
        except np.linalg.LinAlgError:
            return np.zeros_like(q + a)
    return np.where(np.all(np.isfinite(H), axis=(-2, -1), keepdims=True), H, 0.0)
