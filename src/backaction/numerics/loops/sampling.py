"""Compiled way from a continuous system to the sampled model of a record, and its adjoint.

The states x (front end included) and the integrated currents a obey d(x, a) = A (x, a) + noise of density G, with
A = fixed + into_A [[A0], [C]], G = into [[Q0, N0], [N0^T, R0]] into^T (`inference.series` says which). e^{A t} and the
noise's covariance are built on a short step by their Taylor series and doubled up to the interval h; a sample is
y = Y (x, a); and 2^p samples are summed, turned by the reference from one to the next, by p doublings more. It is the
model of `systems.sampled`.
"""

import math

import numpy as np

from backaction.numerics.loops.innovations import evened, product_to, times, turned_to
from backaction.numerics.loops.riccati import lyapunov_doubling

TERMS = 14
"""Of the Taylor series, on steps with |A| t < 1/4: the rest is below 1e-17."""
MOST_DOUBLINGS = 60


def doubled(levels, Ts, Vs):
    """T^2 and V + T V T^T of the first of `Ts`, `Vs` (levels + 1, ...), again and again."""
    m = Ts.shape[1]
    half = np.empty((m, m))
    for k in range(levels):
        times(Ts[k], Ts[k], Ts[k + 1])
        times(Ts[k], Vs[k], half)
        Vs[k + 1] = Vs[k]
        product_to(1.0, half, Ts[k].T.copy(), Vs[k + 1])
        evened(Vs[k + 1])


def doubled_back(levels, Ts, Vs, Tb, Vb):
    """The adjoint of `doubled`: Tb and Vb become those of the first T and V."""
    m = Ts.shape[1]
    half, more = np.empty((m, m)), np.empty((m, m))
    for k in range(levels - 1, -1, -1):
        T, V = Ts[k], Vs[k]
        turn = T.T.copy()
        times(Vb, T, half)
        more[:] = 0.0
        product_to(1.0, Tb, turn, more)
        product_to(1.0, turn, Tb, more)
        product_to(2.0, half, V, more)
        Tb[:] = more
        product_to(1.0, turn, half, Vb)
        evened(Vb)


def short_step(A, G, step, Es, Xs, T, V):
    """T = e^{A t} and V = int_0^t e^{As} G e^{A^T s} ds for a short t: `Es`, `Xs` (TERMS, ...) keep the terms."""
    m = len(A)
    half = np.empty((m, m))
    for i in range(m):
        for j in range(m):
            Es[0, i, j] = 1.0 if i == j else 0.0
            Xs[0, i, j] = G[i, j] * step
    T[:], V[:] = Es[0], Xs[0]
    for k in range(1, TERMS):
        times(A, Es[k - 1], Es[k])
        times(A, Xs[k - 1], half)
        for i in range(m):
            for j in range(m):
                Es[k, i, j] *= step / k
                Xs[k, i, j] = (half[i, j] + half[j, i]) * (step / (k + 1))
        T += Es[k]
        V += Xs[k]


def short_step_back(A, step, Es, Xs, Tb, Vb, Ab, Gb):
    """The adjoint of `short_step`: adds to Ab and Gb."""
    m = len(A)
    turn = A.T.copy()
    E, X, half = Tb.copy(), Vb.copy(), np.empty((m, m))
    for k in range(TERMS - 1, 0, -1):
        product_to(step / k, E, Es[k - 1].T.copy(), Ab)
        times(turn, E, half)
        for i in range(m):
            for j in range(m):
                E[i, j] = Tb[i, j] + half[i, j] * (step / k)
        product_to(2.0 * step / (k + 1), X, Xs[k - 1], Ab)
        times(turn, X, half)
        for i in range(m):
            for j in range(m):
                X[i, j] = Vb[i, j] + (half[i, j] + half[j, i]) * (step / (k + 1))
    for i in range(m):
        for j in range(m):
            Gb[i, j] += X[i, j] * step


def halvings(A, split, h):
    """How often the interval is halved until the Taylor series is good (-1: never)."""
    size = 0.0
    for i in range(len(A)):
        total = 0.0
        for j in range(len(A)):
            if (i < split) == (j < split):
                total += abs(A[i, j])
        size = max(size, total * h)
    if not size < 1e15:
        return -1
    return int(max(0.0, math.ceil(math.log2(max(size, 1e-300) / 0.25))))


def started(A, G, pairs, occupations, scale, V, P):
    """P of the first state: unconditional (V), but for pairs of states (r, 2) with an occupation: (n + 1/2) 1, uncorrelated.

    False where the system is unstable.
    """
    if not lyapunov_doubling(A, G, V):
        return False
    P[:] = V
    for r in range(len(pairs)):
        for c in range(2):
            P[pairs[r, c], :] = 0.0
            P[:, pairs[r, c]] = 0.0
    for r in range(len(pairs)):
        for c in range(2):
            P[pairs[r, c], pairs[r, c]] = (occupations[r] + 0.5) * scale
    return True


def started_back(A, pairs, occupations, scale, V, Pb, Ab, Gb, own):
    """The adjoint of `started`: adds to Ab, Gb and `own` (of the occupations); returns that of the scale by these."""
    by_scale = 0.0
    for r in range(len(pairs)):
        s = Pb[pairs[r, 0], pairs[r, 0]] + Pb[pairs[r, 1], pairs[r, 1]]
        own[r] += s * scale
        by_scale += s * (occupations[r] + 0.5)
    for r in range(len(pairs)):
        for c in range(2):
            Pb[pairs[r, c], :] = 0.0
            Pb[:, pairs[r, c]] = 0.0
    adjoint = np.empty(A.shape)
    lyapunov_doubling(A.T.copy(), Pb, adjoint)
    product_to(2.0, adjoint, V, Ab)
    Gb += adjoint
    return by_scale


def sampled(J, K, scale, fixed, into_A, into, Y, W, turning, h, levels, direct, pairs, occupations):
    """F, H, Q, N, R and the first covariance of a record's samples, from J = [[A0], [C]], K = [[Q0, N0], [N0^T, R0]].

    Noise is in units of `scale`. Then what `sampled_back` takes. F is empty where there is no answer.
    """
    n, N = J.shape[1], len(fixed)
    c, q = len(Y), len(W)
    ns, m = N - c, N - c + q
    A, G, IK, inner = fixed.copy(), np.zeros((N, N)), np.zeros((N, n + 1)), np.zeros((N, n))
    times(into_A, J, inner)
    A[:, :n] += inner
    times(into, K, IK)
    product_to(scale, IK, into.T.copy(), G)
    evened(G)
    V, P = np.empty((ns, ns)), np.empty((ns, ns))
    d = halvings(A, ns, h)
    good = 0 <= d <= MOST_DOUBLINGS and started(A[:ns, :ns].copy(), G[:ns, :ns].copy(), pairs, occupations, scale, V, P)
    if not good:
        d, levels = 0, 0
    Es, Xs = np.empty((TERMS, N, N)), np.empty((TERMS, N, N))
    Ts, Vs = np.empty((d + 1, N, N)), np.empty((d + 1, N, N))
    short_step(A, G, h / 2.0**d, Es, Xs, Ts[0], Vs[0])
    doubled(d, Ts, Vs)
    M = np.zeros((m, N))
    M[:ns, :ns] = np.eye(ns)
    for a in range(q):
        for b in range(c):
            M[ns + a] += W[a, b] * Y[b]
        if direct:
            M[ns + a, :n] += W[a, 0] * J[n]
    Tm, Vm, MT, MV = np.zeros((levels + 1, m, m)), np.zeros((levels + 1, m, m)), np.empty((m, N)), np.empty((m, N))
    times(M, Ts[d], MT)
    Tm[0, :, :ns] = MT[:, :ns]
    Tm[0, ns:, ns:] = turning
    times(M, Vs[d], MV)
    times(MV, M.T.copy(), Vm[0])
    evened(Vm[0])
    doubled(levels, Tm, Vm)
    T, S = Tm[levels], Vm[levels]
    F = T[:ns, :ns].copy() if good else np.empty((0, 0))
    model = (F, T[ns:, :ns].copy(), S[:ns, :ns].copy(), S[:ns, ns:].copy(), S[ns:, ns:].copy(), P)
    return model, (A, G, V, M, Es, Xs, Ts, Vs, Tm, Vm)


def sampled_back(kept, bars, scale, into_A, into, W, h, direct, pairs, occupations):
    """The adjoint of `sampled`: derivatives by J, K, the scale and the occupations, from those by F, H, Q, N, R and P."""
    A, G, V, M, Es, Xs, Ts, Vs, Tm, Vm = kept
    Fb, Hb, Qb, Nb, Rb, Pb = bars
    n, N, m, q = into.shape[1] - 1, len(A), len(M), len(W)
    ns, d, levels = m - q, len(Ts) - 1, len(Tm) - 1
    Tb, Vb = np.zeros((m, m)), np.zeros((m, m))
    Tb[:ns, :ns], Tb[ns:, :ns] = Fb, Hb
    Vb[:ns, :ns], Vb[ns:, ns:] = Qb, Rb
    Vb[:ns, ns:], Vb[ns:, :ns] = 0.5 * Nb, 0.5 * Nb.T
    evened(Vb)
    doubled_back(levels, Tm, Vm, Tb, Vb)
    MTb, VM, Ta, Va = np.zeros((m, N)), np.empty((m, N)), np.zeros((N, N)), np.zeros((N, N))
    MTb[:, :ns] = Tb[:, :ns]
    times(Vb, M, VM)
    turned_to(1.0, M, MTb, Ta)
    turned_to(1.0, M, VM, Va)
    Jb, Kb, own = np.zeros((n + 1, n)), np.zeros((n + 1, n + 1)), np.zeros(len(pairs))
    if direct:
        Mb = np.zeros((m, N))
        product_to(1.0, MTb, Ts[d].T.copy(), Mb)
        product_to(2.0, VM, Vs[d], Mb)
        for a in range(q):
            Jb[n] += W[a, 0] * Mb[ns + a, :n]
    doubled_back(d, Ts, Vs, Ta, Va)
    Ab, Gb = np.zeros((N, N)), np.zeros((N, N))
    short_step_back(A, h / 2.0**d, Es, Xs, Ta, Va, Ab, Gb)
    Aq, Gq = np.zeros((ns, ns)), np.zeros((ns, ns))
    by_scale = started_back(A[:ns, :ns].copy(), pairs, occupations, scale, V, Pb.copy(), Aq, Gq, own)
    Ab[:ns, :ns] += Aq
    Gb[:ns, :ns] += Gq
    by_scale += np.sum(Gb * G) / scale
    GI = np.zeros((N, n + 1))
    turned_to(1.0, into_A, Ab[:, :n].copy(), Jb)
    product_to(scale, Gb, into, GI)
    turned_to(1.0, into, GI, Kb)
    return Jb, Kb, by_scale, own
