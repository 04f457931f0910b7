"""Compiled log-posterior of a campaign's spectra and its gradient, in coordinates u whose prior is standard normal.

For every record: the program gives A, Q, N, R, C and the scale; the spectrum at all points (`loops.spectrum`); the
expected bins (`inference.bins.Bins`); the log-likelihood of the measured ones. The reverse goes the same way back. One
call, no Python inside, the interpreter lock released. `layout` has a row of numbers per record, in the order of the
names below.
"""

import math

import numpy as np

from backaction.numerics.loops.program import forward, reverse
from backaction.numerics.loops.riccati import lyapunov_doubling
from backaction.numerics.loops.spectrum import noise_density

(
    STATES,
    SLOTS,
    POINTS,
    COUNT,
    BINS,
    SIZE,
    QUADRATURE,
    NODES,
    ALIASES,
    WEIGHTS,
    NODE_WEIGHTS,
    ALIAS_WEIGHTS,
    SCALE,
    ERROR,
    KIND,
    TURNS,
) = range(16)


def digamma(x):
    """Derivative of ln Gamma(x), x > 0."""
    value = 0.0
    while x < 10.0:
        value -= 1.0 / x
        x += 1.0
    y = 1.0 / (x * x)
    return value + math.log(x) - 0.5 / x - y * (1 / 12 - y * (1 / 120 - y * (1 / 252 - y * (1 / 240 - y / 132))))


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


def density(
    codes,
    left,
    right,
    memory,
    bar,
    u,
    layout,
    slots,
    guarded,
    bounds,
    w,
    cr,
    ci,
    W,
    B,
    T,
    rest,
    y,
    averages,
    constant,
    S,
    g,
    mu,
    grad,
):
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
        A = np.empty((layout[r, STATES], layout[r, STATES]))
        n = len(A)
        at = layout[r, SLOTS]
        Q, N, C = np.empty((n, n)), np.empty(n), np.empty(n)
        for i in range(n):
            for j in range(n):
                A[i, j] = memory[slots[at + i * n + j]]
                Q[i, j] = memory[slots[at + n * n + i * n + j]]
            N[i] = memory[slots[at + 2 * n * n + i]]
            C[i] = memory[slots[at + 2 * n * n + n + 1 + i]]
        R = memory[slots[at + 2 * n * n + n]]
        V = np.empty((n, n)) if slopes else np.empty((0, 0))
        if not lyapunov_doubling(A, Q, V):
            return -np.inf
        p, count = layout[r, POINTS], layout[r, COUNT]
        turns = count if layout[r, TURNS] else 0
        first, size = layout[r, BINS], layout[r, SIZE]
        q, nodes, aliases = layout[r, QUADRATURE], layout[r, NODES], layout[r, ALIASES]
        iw, ib, it = layout[r, WEIGHTS], layout[r, NODE_WEIGHTS], layout[r, ALIAS_WEIGHTS]
        noise_density(
            A,
            Q,
            N,
            R,
            C,
            V,
            w[p : p + count],
            cr[p : p + turns],
            ci[p : p + turns],
            S[p : p + count],
            none,
            np.empty((0, 0)),
        )
        expected(S[p : p + count], W[iw:], B[ib:], T[it:], rest, R, first, size, q, nodes, aliases, mu)
        scale, error = memory[layout[r, SCALE]], memory[layout[r, ERROR]]
        kind = layout[r, KIND]
        slope_scale, slope_error, slope_R = 0.0, 0.0, 0.0
        sums = np.zeros(max(nodes, 1))
        for b in range(first, first + size):
            bare = mu[b]
            m = bare * scale
            mu[b] = m
            if not (m > 0.0 and m < 1e300):
                return -np.inf
            if kind == 0:
                if error == 0.0:
                    N_b = averages[b]
                    value += constant[b] - N_b * (math.log(m) + y[b] / m)
                else:
                    N_b = 1.0 / (1.0 / averages[b] + error * error)
                    value += (
                        N_b * math.log(N_b)
                        - math.lgamma(N_b)
                        + (N_b - 1.0) * math.log(y[b])
                        - N_b * (math.log(m) + y[b] / m)
                    )
                    if slopes:
                        by_N = math.log(N_b) + 1.0 - digamma(N_b) + math.log(y[b]) - math.log(m) - y[b] / m
                        slope_error -= by_N * 2.0 * error * N_b * N_b
                by_m = N_b * (y[b] / m - 1.0) / m
            else:
                sd = averages[b]  # of the Gaussian
                value -= 0.5 * ((y[b] - m) / sd) ** 2 + math.log(sd) + 0.9189385332046727
                by_m = (y[b] - m) / (sd * sd)
            if slopes:
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
            noise_density(
                A,
                Q,
                N,
                R,
                C,
                V,
                w[p : p + count],
                cr[p : p + turns],
                ci[p : p + turns],
                S[p : p + count],
                g[p : p + count],
                out,
            )
            for i in range(n):
                for j in range(n):
                    bar[slots[at + i * n + j]] += out[i, j]
                    bar[slots[at + n * n + i * n + j]] += out[i, n + j]
                bar[slots[at + 2 * n * n + i]] += out[i, 2 * n]
                bar[slots[at + 2 * n * n + n + 1 + i]] += out[n, i]
            bar[slots[at + 2 * n * n + n]] += out[n, 2 * n] + slope_R
            bar[layout[r, SCALE]] += slope_scale
            bar[layout[r, ERROR]] += slope_error
    if slopes:
        reverse(codes, left, right, memory, bar)
        for i in range(len(u)):
            grad[i] = bar[i] - u[i]
    return value
