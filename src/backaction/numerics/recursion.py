"""The linear recursion behind filter, smoother, retrodiction and simulation, compiled for its sizes.

    x_{k+1} = A x_k + B u_k,    o_k = C x_k + D u_k

L steps at once are one product [o_0 .. o_{L-1}] = M [x; u_0 .. u_{L-1}], which the compiler turns into vector
instructions, and one short recursion of the state in double precision. The source is text because each size needs its own
registers; it is compiled and kept by `numerics.compile`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np

from backaction.numerics.compile import OPTIONS, SUMS, kept
from backaction.numerics.matrices import Array


class Recursion:
    """x_{k+1} = A x_k + B u_k with outputs o_k = C x_k + D u_k, over long inputs.

    Parameters
    ----------
    A, B
        Shapes (n, n), (n, q).
    outputs
        Pairs (C, D) of shapes (p, n), (p, q), one for each array that `run` fills.
    scale, offset
        u = scale * sample + offset, scale not 0: integer samples are read as they are stored.
    dtypes
        Of the output arrays, float64 or float32: products for float32 outputs are made in single precision, the state
        always in double.
    divides
        A number that the block length must divide (a decimation), 0 for none.
    """

    def __init__(
        self,
        A: Array,
        B: Array,
        outputs: Sequence[tuple[Array, Array]],
        scale: float = 1.0,
        offset: float = 0.0,
        dtypes: Sequence[type] | None = None,
        divides: int = 0,
    ) -> None:
        n, q = B.shape
        self.A, self.B, self.outputs = A, B, [(np.asarray(C), np.asarray(D)) for C, D in outputs]
        self.scale, self.offset = scale, offset
        self.dtypes = tuple(dtypes or [np.float64] * len(outputs))
        self.block = L = _block(q, divides)
        powers = [np.eye(n)]
        for _ in range(L):
            powers.append(A @ powers[-1])
        step = np.concatenate([powers[L], *(powers[L - 1 - j] @ B for j in range(L))], axis=1)
        unit = np.concatenate([np.ones(n), np.full(L * q, scale)])  # the maps take samples as they are stored
        self._state = np.ascontiguousarray((step * unit).T)
        self._maps: list[Array] = []
        for (C, D), dtype in zip(self.outputs, self.dtypes, strict=True):
            p = len(C)
            M = np.zeros((L * p, n + L * q))
            for r in range(L):
                rows = slice(r * p, (r + 1) * p)
                M[rows, :n] = C @ powers[r]
                for j in range(r):
                    M[rows, n + j * q : n + (j + 1) * q] = C @ powers[r - 1 - j] @ B
                M[rows, n + r * q : n + (r + 1) * q] = D
            self._maps.append(np.ascontiguousarray((M * unit).T.astype(dtype)))
        groups = tuple((len(C), np.dtype(t).name) for (C, _), t in zip(self.outputs, self.dtypes, strict=True))
        self._kernel = _generated(n, q, L, groups)

    def run(
        self, u: Array, x: Array, outputs: Sequence[Array] = (), ends: Array | None = None, every: int = 0
    ) -> Array:
        """Fill `outputs`, each (T, p), from inputs u (T, q) or (T,) and the state x; returns the state after them.

        `ends` (T // every, n) receives the state after every `every` steps (a multiple of the block length).
        """
        steps = len(u)
        L = self.block
        flat = np.ascontiguousarray(u).reshape(-1)
        whole = steps - steps % L
        x = np.array(x, dtype=float)
        stride = every // L if ends is not None else 0
        assert stride * L == every or ends is None
        room = np.empty((0, len(x))) if ends is None else ends
        blocks = [o[:whole].reshape(whole // L, L * o.shape[1]) for o in outputs]
        part = flat[: whole * self.B.shape[1]]
        self._kernel(part, x, self.offset / self.scale, self._state, room, stride, *self._maps, *blocks)
        for k in range(whole, steps):  # fewer than a block
            value = self.scale * flat[k * self.B.shape[1] : (k + 1) * self.B.shape[1]].astype(float) + self.offset
            for (C, D), out in zip(self.outputs, outputs, strict=True):
                out[k] = C @ x + D @ value
            x = self.A @ x + self.B @ value
        return x


def _block(q: int, divides: int) -> int:
    """Steps at once: 4 for one input, fewer for more; a divisor of `divides` where that is asked."""
    best = max(1, 4 // q)
    while divides and divides % best:
        best -= 1
    if divides and best == 1 and q == 1:  # odd decimations: the smallest divisor that is worth a block
        return next((k for k in (3, 5, 7) if divides % k == 0), 1)
    return best


@functools.cache
def _generated(n: int, q: int, L: int, groups: tuple[tuple[int, str], ...]) -> Callable[..., None]:
    return kept("recursion", _source(n, q, L, groups), "kernel")


def _source(n: int, q: int, L: int, groups: tuple[tuple[int, str], ...]) -> str:
    """Source of the recursion for n states, q inputs, L steps a block and groups of (outputs per step, type)."""
    x, u = [f"x{i}" for i in range(n)], [f"u{j}" for j in range(L * q)]
    arrays = [f"M{g}" for g in range(len(groups))] + [f"o{g}" for g in range(len(groups))]
    lines = [
        "import numba", "import numpy as np", "", "", f"@numba.njit(cache=True, {OPTIONS.format(math=SUMS)})",
        f"def kernel({', '.join(['u', 'x', 'offset', 'S', 'ends', 'stride', *arrays])}):",
        *[f"    x{i} = x[{i}]" for i in range(n)],
        f"    for b in range(u.size // {L * q}):",
        *[f"        u{j} = np.float64(u[b * {L * q} + {j}]) + offset" for j in range(L * q)],
    ]  # fmt: skip
    for g, (p, kind) in enumerate(groups):
        if kind == "float32":
            lines += [f"        {v}f = np.float32({v})" for v in x + u] if g == 0 or groups[g - 1][1] != kind else []
        tail = "f" if kind == "float32" else ""
        terms = [f"M{g}[{k}, i] * {v}{tail}" for k, v in list(enumerate(x + u))[::-1]]
        lines += [f"        for i in range({L * p}):", f"            o{g}[b, i] = {' + '.join(terms)}"]
    for i in range(n):
        driven = " + ".join(f"S[{n + j}, {i}] * {v}" for j, v in enumerate(u))
        first = " + ".join(f"S[{k}, {i}] * {v}" for k, v in enumerate(x[: n // 2])) or "0.0"
        rest = " + ".join(f"S[{k + n // 2}, {i}] * {v}" for k, v in enumerate(x[n // 2 :]))
        lines.append(f"        z{i} = (({driven}) + ({first})) + ({rest})")
    lines += [f"        x{i} = z{i}" for i in range(n)]
    lines.append("        if stride > 0 and (b + 1) % stride == 0:")
    lines += [f"            ends[(b + 1) // stride - 1, {i}] = x{i}" for i in range(n)] or ["            pass"]
    lines += [f"    x[{i}] = x{i}" for i in range(n)]
    return "\n".join(lines) + "\n"
