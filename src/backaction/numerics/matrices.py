"""Small matrices with leading axes that broadcast, and the exact trigonometry that goes into them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Pair = tuple[Any, Any]


def stack(rows: Sequence[Sequence[Any]]) -> Array:
    """A matrix (..., r, c) from a nested list of numbers or broadcastable arrays."""
    flat = [np.asarray(item) for row in rows for item in row]
    full = np.broadcast_arrays(*flat)
    return np.stack(full, axis=-1).reshape(full[0].shape + (len(rows), len(rows[0])))


def symplectic(pairs: int) -> Array:
    """Omega = direct sum of [[0, 1], [-1, 0]]: [x_i, x_j] = i Omega_ij."""
    return np.kron(np.eye(pairs), np.array([[0.0, 1.0], [-1.0, 0.0]]))


def block_diagonal(blocks: Sequence[Array]) -> Array:
    """Block-diagonal matrix of blocks whose leading axes broadcast."""
    shape = np.broadcast_shapes(*(b.shape[:-2] for b in blocks)) if blocks else ()
    rows, cols = sum(b.shape[-2] for b in blocks), sum(b.shape[-1] for b in blocks)
    out = np.zeros((*shape, rows, cols), dtype=np.result_type(float, *blocks))
    i = j = 0
    for block in blocks:
        r, c = block.shape[-2:]
        out[..., i : i + r, j : j + c] = block
        i, j = i + r, j + c
    return out


def join(blocks: Sequence[Array], axis: int) -> Array:
    """Concatenate matrices along rows (axis -2) or columns (axis -1) after broadcasting their leading axes."""
    shape = np.broadcast_shapes(*(b.shape[:-2] for b in blocks))
    return np.concatenate([np.broadcast_to(b, shape + b.shape[-2:]) for b in blocks], axis=axis)


def product(a: Array, b: Array) -> Array:
    """A @ b, as one large product where only one of the two has leading axes (many small ones cost ten times as much)."""
    if a.ndim > 2 and b.ndim == 2:
        return np.asarray((a.reshape(-1, a.shape[-1]) @ b).reshape((*a.shape[:-1], b.shape[-1])))
    if a.ndim == 2 and b.ndim > 2:
        return transpose(product(transpose(b), a.T))
    return a @ b


def transpose(matrix: Array) -> Array:
    """Transpose of the last two axes."""
    return np.swapaxes(matrix, -1, -2)


def symmetric(matrix: Array) -> Array:
    """(M + M^T)/2."""
    return (matrix + transpose(matrix)) / 2


def concrete(values: Any) -> Array:
    """Real parts as plain numbers: what decisions are taken by (complex steps and traced variables stripped)."""
    values = np.asarray(values)
    return np.real(values.astype(complex) if values.dtype == object else values)


def solve(M: Array, B: Array) -> Array:
    """M^-1 B; also for traced variables (dtype object), by elimination with the pivots of their values."""
    if M.dtype != object and B.dtype != object:
        return np.linalg.solve(M, B)
    n = M.shape[-1]
    shape = np.broadcast_shapes(M.shape[:-2], B.shape[:-2])
    out = np.empty((*shape, n, B.shape[-1]), dtype=object)
    M, B = np.broadcast_to(M, (*shape, n, n)), np.broadcast_to(B, (*shape, *B.shape[-2:]))
    for at in np.ndindex(*shape):
        a, b = M[at].astype(object), B[at].astype(object)
        for k in range(n):
            best = k + int(np.argmax(np.abs(concrete(a[k:, k]))))
            a[[k, best]], b[[k, best]] = a[[best, k]], b[[best, k]]
            for i in (i for i in range(n) if i != k):
                factor = a[i, k] / a[k, k]
                a[i, k:] = a[i, k:] - factor * a[k, k:]
                b[i] = b[i] - factor * b[k]
        out[at] = b / np.diag(a)[:, None]
    return out


def solve_right(M: Array, R: Array) -> Array:
    """M R^-1."""
    return transpose(np.linalg.solve(transpose(R), transpose(M)))


def cos_sin_deg(angle_deg: Any) -> Pair:
    """(cos, sin) of an angle in degrees, exact at multiples of 90 and analytic for the complex step."""
    angle = np.asarray(angle_deg) * 1.0
    quarter = np.round(np.real(angle) / 90.0)
    rest = (angle - 90.0 * quarter) * (np.pi / 180.0)
    c, s = np.cos(rest), np.sin(rest)
    k = np.mod(quarter, 4)
    cos = np.where(k == 0, c, np.where(k == 1, -s, np.where(k == 2, -c, s)))
    sin = np.where(k == 0, s, np.where(k == 1, c, np.where(k == 2, -s, -c)))
    return cos, sin


def rotation_matrix(angle_deg: Any) -> Array:
    """[[cos, -sin], [sin, cos]]: (X + iP) -> e^{i angle}(X + iP). Shape (..., 2, 2)."""
    c, s = cos_sin_deg(angle_deg)
    return stack([[c, -s], [s, c]])


def expm(matrix: Array) -> Array:
    """Matrix exponential by scaling and squaring of a Taylor series of degree 16 (broadcasting, complex steps exact)."""
    norm = np.max(np.sum(np.abs(matrix), axis=-1), axis=-1)
    squarings = int(max(0, np.ceil(np.log2(max(float(np.max(norm, initial=0.0)), 1e-300) / 0.25))))
    scaled = matrix / 2.0**squarings
    out = np.broadcast_to(np.eye(matrix.shape[-1], dtype=matrix.dtype), matrix.shape).copy()
    term = out
    for k in range(1, 17):
        term = term @ scaled / k
        out = out + term
    for _ in range(squarings):
        out = out @ out
    return out


def scaled_root(V: Array) -> Array:
    """W with V = W W^T (..., n, n), from the eigenvalues of V scaled to unit diagonal; exact zeros stay."""
    size = np.sqrt(np.maximum(np.diagonal(V, axis1=-2, axis2=-1), 0.0))
    safe = np.where(size > 0, size, 1.0)
    w, U = np.linalg.eigh(symmetric(V / safe[..., :, None] / safe[..., None, :]))
    return size[..., :, None] * U * np.sqrt(np.clip(w, 0.0, None))[..., None, :]
