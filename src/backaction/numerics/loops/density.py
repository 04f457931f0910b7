"""Compiled log-posterior of a campaign's spectra and its gradient, in coordinates u whose prior is standard normal.

For every record: the program gives A, Q, N, R, C and the scale; the spectrum at all points (`loops.spectrum`); the
expected bins (`inference.bins.Bins`); the log-likelihood of the measured ones. The reverse goes the same way back. One
call, no Python inside, the interpreter lock released. `layout` has a row of numbers per record, `LAYOUT`.
"""

import numpy as np

from backaction.numerics.loops.likelihood import gamma_bin, gaussian_bin
from backaction.numerics.loops.program import forward, reverse
from backaction.numerics.loops.riccati import lyapunov_doubling
from backaction.numerics.loops.spectrum import noise_density

LAYOUT = np.dtype(
    [
        (name, np.int64)
        for name in (
            "states", "slots", "points", "count", "bins", "size", "quadrature", "nodes", "aliases", "weights",
            "node_weights", "alias_weights", "scale", "error", "gaussian", "turns",
        )
    ]
)  # fmt: skip
"""A row per record: its number of states; where its matrices, points, bins and weights begin in the flat tables and how many
there are; the places of scale and model error; whether its bins are Gaussian, and whether white noise turns."""


def expected(S, W, B, T, rest, R, first, size, q, nodes, aliases, mu):
    """Expected bins (SN) of one record: quadrature in every bin, aliases through a few nodes, white noise."""
    sums = np.zeros(max(nodes, 1))
    at = size * q
    for j in range(nodes):
        for k in range(aliases):
            sums[j] += T[j * aliases + k] * S[at + j * aliases + k]
    for b in range(size):
        total = rest[first + b] * R
        for k in range(q):
            total += W[b * q + k] * S[b * q + k]
        for j in range(nodes):
            total += B[b * nodes + j] * sums[j]
        mu[first + b] = 2.0 * total


def record_matrices(memory, slots, at, A, Q, N, C):
    """A, Q, N, C of one record from the program's memory; returns R."""
    n = len(A)
    for i in range(n):
        for j in range(n):
            A[i, j] = memory[slots[at + i * n + j]]
            Q[i, j] = memory[slots[at + n * n + i * n + j]]
        N[i] = memory[slots[at + 2 * n * n + i]]
        C[i] = memory[slots[at + 2 * n * n + n + 1 + i]]
    return memory[slots[at + 2 * n * n + n]]


def density(
    codes, left, right, memory, bar, u, layout, slots, guarded, bounds, w, cr, ci, W, B, T, rest, y, averages, constant, S,
    g, mu, grad,
):  # fmt: skip
    """Log-posterior at u (mu filled with the expected bins in SN, scale included); `grad` filled where it is not empty.

    -inf where a system is unstable, an expected bin is not positive, or a `guarded` field is outside its bounds.
    """
    for i in range(len(u)):
        memory[i] = u[i]
    forward(codes, left, right, memory)
    for i in range(len(guarded)):
        if not (memory[guarded[i]] >= bounds[i, 0] and memory[guarded[i]] <= bounds[i, 1]):
            return -np.inf
    slopes = len(grad) > 0
    if slopes:
        bar[:] = 0.0
    value = 0.0
    for i in range(len(u)):
        value -= 0.5 * u[i] * u[i]
    none = np.empty(0)
    for r in range(len(layout)):
        row = layout[r]
        A = np.empty((row["states"], row["states"]))
        n = len(A)
        at = row["slots"]
        Q, N, C = np.empty((n, n)), np.empty(n), np.empty(n)
        R = record_matrices(memory, slots, at, A, Q, N, C)
        V = np.empty((n, n)) if slopes else np.empty((0, 0))
        if not lyapunov_doubling(A, Q, V):
            return -np.inf
        p, count = row["points"], row["count"]
        turns = count if row["turns"] else 0
        first, size, q, nodes, aliases = row["bins"], row["size"], row["quadrature"], row["nodes"], row["aliases"]
        iw, ib, it = row["weights"], row["node_weights"], row["alias_weights"]
        points, real, imaginary = w[p : p + count], cr[p : p + turns], ci[p : p + turns]
        noise_density(A, Q, N, R, C, V, points, real, imaginary, S[p : p + count], none, np.empty((0, 0)))
        expected(S[p : p + count], W[iw:], B[ib:], T[it:], rest, R, first, size, q, nodes, aliases, mu)
        scale, error = memory[row["scale"]], memory[row["error"]]
        slope_scale, slope_error, slope_R = 0.0, 0.0, 0.0
        sums = np.zeros(max(nodes, 1))
        for b in range(first, first + size):
            bare = mu[b]
            m = bare * scale
            mu[b] = m
            if not (m > 0.0 and m < 1e300):
                return -np.inf
            if row["gaussian"]:
                term, by_m = gaussian_bin(y[b], m, averages[b])
                by_error = 0.0
            else:
                term, by_m, by_error = gamma_bin(y[b], m, averages[b], error, constant[b], slopes)
            value += term
            if slopes:
                slope_error += by_error
                slope_scale += by_m * bare
                weight = 2.0 * by_m * scale
                slope_R += weight * rest[b]
                local = b - first
                for k in range(q):
                    g[p + local * q + k] = weight * W[iw + local * q + k]
                for j in range(nodes):
                    sums[j] += weight * B[ib + local * nodes + j]
        if slopes:
            for j in range(nodes):
                for k in range(aliases):
                    g[p + size * q + j * aliases + k] = sums[j] * T[it + j * aliases + k]
            out = np.zeros((n + 1, 2 * n + 1))
            noise_density(A, Q, N, R, C, V, points, real, imaginary, S[p : p + count], g[p : p + count], out)
            returned(out, slots, at, slope_R, bar)
            bar[row["scale"]] += slope_scale
            bar[row["error"]] += slope_error
    if slopes:
        reverse(codes, left, right, memory, bar)
        for i in range(len(u)):
            grad[i] = bar[i] - u[i]
    return value


def returned(out, slots, at, slope_R, bar):
    """Add the adjoint of one record's spectrum (`noise_density`) to the places of its matrices."""
    n = len(out) - 1
    for i in range(n):
        for j in range(n):
            bar[slots[at + i * n + j]] += out[i, j]
            bar[slots[at + n * n + i * n + j]] += out[i, n + j]
        bar[slots[at + 2 * n * n + i]] += out[i, 2 * n]
        bar[slots[at + 2 * n * n + n + 1 + i]] += out[n, i]
    bar[slots[at + 2 * n * n + n]] += out[n, 2 * n] + slope_R
