"""Compiled log-likelihood of a record's samples in the innovations form, and its exact adjoint.

    e_k = y_k - H x_k,   S = H P H^T + R,   G = F P H^T + N,   K = G S^-1,   L = F - K H
    x_{k+1} = F x_k + K e_k,   P_{k+1} = F P F^T + Q - K S K^T,   ln p = -1/2 sum_k [e_k^T S^-1 e_k + ln det(2 pi S)]

Every sample takes this step until P has settled; from there on K and S are constants and a sample costs O(n^2). A missing
sample has K = 0, and what follows it settles anew. Backwards, with z = S^-1 e and bars for derivatives of ln p,

    x-_k = L^T x-_{k+1} + H^T z_k,   P-_k = L^T P-_{k+1} L + (of e and S),

and of the settled P the fixed point of the second: a discrete Lyapunov equation. P and x are kept where a piece of the
record begins and made again within it, so that memory does not grow with the record.
"""

import math

import numpy as np

from backaction.numerics.loops.riccati import multiply

CHECK = 16
"""Steps between two looks at whether P has settled."""
MOVED, ROUNDING = 1e-11, 3e-14
"""It has where it moves by so little (relative to its diagonal) with no more left to go, or by rounding alone (times n)."""
LYAPUNOV_LEVELS = 60


def times(a, b, out):
    """Out = a b."""
    for i in range(a.shape[0]):
        for j in range(b.shape[1]):
            out[i, j] = 0.0
        for k in range(a.shape[1]):
            s = a[i, k]
            for j in range(b.shape[1]):
                out[i, j] += s * b[k, j]


def product_to(weight, a, b, out):
    """Out += weight a b."""
    for i in range(a.shape[0]):
        for k in range(a.shape[1]):
            s = weight * a[i, k]
            if s != 0.0:
                for j in range(b.shape[1]):
                    out[i, j] += s * b[k, j]


def turned_to(weight, a, b, out):
    """Out += weight a^T b."""
    for k in range(a.shape[0]):
        for i in range(a.shape[1]):
            s = weight * a[k, i]
            if s != 0.0:
                for j in range(b.shape[1]):
                    out[i, j] += s * b[k, j]


def evened(a):
    """The symmetric part of a, in its place."""
    for i in range(len(a)):
        for j in range(i):
            a[i, j] = a[j, i] = 0.5 * (a[i, j] + a[j, i])


def gained(F, H, Q, N, R, P, K, inverse, L, fresh):
    """K, S^-1, L = F - K H and the next P in their places; returns ln det S (NaN where S is not positive)."""
    n, q = len(F), len(H)
    FP, G, S = np.empty((n, n)), np.empty((n, q)), np.empty((q, q))
    multiply(F, P, FP)
    for i in range(n):
        for a in range(q):
            s = N[i, a]
            for l in range(n):
                s += FP[i, l] * H[a, l]
            G[i, a] = s
    for a in range(q):
        for b in range(q):
            s = R[a, b]
            for i in range(n):
                t = 0.0
                for l in range(n):
                    t += P[i, l] * H[b, l]
                s += H[a, i] * t
            S[a, b] = s
    if q == 1:
        det = S[0, 0]
        inverse[0, 0] = 1.0 / det
    else:
        off = 0.5 * (S[0, 1] + S[1, 0])
        det = S[0, 0] * S[1, 1] - off * off
        inverse[0, 0], inverse[1, 1] = S[1, 1] / det, S[0, 0] / det
        inverse[0, 1] = inverse[1, 0] = -off / det
    if not (det > 0.0 and S[0, 0] > 0.0):
        return np.nan
    for i in range(n):
        for a in range(q):
            s = 0.0
            for b in range(q):
                s += G[i, b] * inverse[b, a]
            K[i, a] = s
        for j in range(n):
            s = F[i, j]
            for a in range(q):
                s -= K[i, a] * H[a, j]
            L[i, j] = s
    for i in range(n):
        for j in range(i + 1):
            s = Q[i, j]
            for l in range(n):
                s += FP[i, l] * F[j, l]
            for a in range(q):
                s -= K[i, a] * G[j, a]
            fresh[i, j] = fresh[j, i] = s
    return math.log(det)


def missed(F, Q, P, K, inverse, L, fresh):
    """The same of a sample that is missing."""
    n = len(F)
    FP = np.empty((n, n))
    multiply(F, P, FP)
    K[:], inverse[:], L[:] = 0.0, 0.0, F
    for i in range(n):
        for j in range(i + 1):
            s = Q[i, j]
            for l in range(n):
                s += FP[i, l] * F[j, l]
            fresh[i, j] = fresh[j, i] = s


def moved(P, before):
    """The largest change of P, relative to its diagonal."""
    most = 0.0
    for i in range(len(P)):
        for j in range(i + 1):
            size = math.sqrt(max(P[i, i] * P[j, j], 1e-300))
            most = max(most, abs(P[i, j] - before[i, j]) / size)
    return most


def varying(y, there, start, stop, F, H, Q, N, R, x, P, xs, Ps, settle):
    """Steps from sample `start` until P has settled (where `settle`) or `stop`: (ln p, where it ended, whether settled).

    x and P are replaced; `xs`, `Ps` (where they have a length) receive those before each step.
    """
    n, q = len(F), len(H)
    K, inverse, L, fresh = np.empty((n, q)), np.empty((q, q)), np.empty((n, n)), np.empty((n, n))
    before, last, good = P.copy(), np.inf, 0
    e, new = np.empty(q), np.empty(n)
    total = 0.0
    for k in range(start, stop):
        if len(xs) > 0:
            xs[k - start] = x
            Ps[k - start] = P
        if there[k]:
            log = gained(F, H, Q, N, R, P, K, inverse, L, fresh)
            good += 1
            total -= 0.5 * (log + q * 1.8378770664093453)
        else:
            missed(F, Q, P, K, inverse, L, fresh)
            good = 0
        if not math.isfinite(total):
            return np.nan, k, False
        for a in range(q):
            s = y[k, a]
            for i in range(n):
                s -= H[a, i] * x[i]
            e[a] = s
        for a in range(q):
            for b in range(q):
                total -= 0.5 * e[a] * inverse[a, b] * e[b]
        for i in range(n):
            s = 0.0
            for j in range(n):
                s += F[i, j] * x[j]
            for a in range(q):
                s += K[i, a] * e[a]
            new[i] = s
        x[:] = new
        P[:] = fresh
        if settle and (k + 1 - start) % CHECK == 0:
            now = moved(P, before)
            before[:] = P
            left = now * now / max(last - now, 1e-300) if now < last else np.inf
            last = now if good >= CHECK else np.inf
            if good >= 2 * CHECK and ((now < MOVED and left < MOVED) or now < ROUNDING * n):
                return total, k + 1, True
    return total, stop, False


def steady(y, start, stop, H, K, L, x, xs, square):
    """Settled steps, x_{k+1} = L x_k + K y_k: `square` receives sum e e^T more, `xs` the states before each step."""
    n, q = len(L), len(H)
    new, e = np.empty(n), np.empty(q)
    keep = len(xs) > 0
    columns = L.T.copy()
    for k in range(start, stop):
        if keep:
            for i in range(n):
                xs[k - start, i] = x[i]
        for a in range(q):
            s = y[k, a]
            for i in range(n):
                s -= H[a, i] * x[i]
            e[a] = s
        for i in range(n):
            new[i] = 0.0
        for j in range(n):
            s = x[j]
            for i in range(n):
                new[i] += columns[j, i] * s
        for a in range(q):
            s = y[k, a]
            for i in range(n):
                new[i] += K[i, a] * s
            for b in range(q):
                square[a, b] += e[a] * e[b]
        for i in range(n):
            x[i] = new[i]


def steady_back(y, start, stop, H, K, L, inverse, xs, bar, outer, by_e, states):
    """The adjoint of `steady` for ln p: `bar` is replaced by that of the first state.

    Adds sum x-_{k+1} x_k^T to `outer` (n, n), sum x-_{k+1} e_k^T to `by_e` (n, q), sum e_k x_k^T to `states` (q, n).
    """
    n, q = len(L), len(H)
    new, e, z = np.empty(n), np.empty(q), np.empty(q)
    for k in range(stop - 1, start - 1, -1):
        x = xs[k - start]
        for a in range(q):
            s = y[k, a]
            for i in range(n):
                s -= H[a, i] * x[i]
            e[a] = s
        for a in range(q):
            s = 0.0
            for b in range(q):
                s += inverse[a, b] * e[b]
            z[a] = s
        for i in range(n):
            new[i] = 0.0
        for j in range(n):
            s = bar[j]
            for i in range(n):
                new[i] += L[j, i] * s
                outer[j, i] += s * x[i]
        for a in range(q):
            s, t = z[a], e[a]
            for i in range(n):
                new[i] += H[a, i] * s
                by_e[i, a] += bar[i] * t
                states[a, i] += t * x[i]
        for i in range(n):
            bar[i] = new[i]


def covariance_back(Pn, Gd, Sd, P, F, H, K, L, Fb, Hb, Qb, Nb, Rb, Pb):
    """The adjoint of one step of P: from that of the next P, Pn, and those of G and S by the innovation, Gd and Sd.

    Adds to Fb, Hb, Qb, Nb, Rb; Pb is replaced by the adjoint of P.
    """
    n, q = len(F), len(H)
    M, MP = np.empty((n, n)), np.empty((n, n))
    multiply(Pn, L, M)
    multiply(M, P, MP)
    HP, KP, FG = np.zeros((q, n)), np.zeros((q, n)), np.zeros((n, q))
    product_to(1.0, H, P, HP)
    turned_to(1.0, K, Pn, KP)
    turned_to(1.0, F, Gd, FG)
    Pb[:] = 0.0
    turned_to(1.0, L, M, Pb)
    product_to(1.0, FG, H, Pb)
    SH = np.zeros((q, n))
    product_to(1.0, Sd, H, SH)
    turned_to(1.0, H, SH, Pb)
    evened(Pb)
    product_to(1.0, Gd, HP, Fb)
    product_to(2.0, Sd, HP, Hb)
    turned_to(-2.0, K, MP, Hb)
    for a in range(q):
        for j in range(n):
            s = 0.0
            for i in range(n):
                s += FG[i, a] * P[i, j]
            Hb[a, j] += s
    for i in range(n):
        for j in range(n):
            Fb[i, j] += 2.0 * MP[i, j]
            Qb[i, j] += Pn[i, j]
        for a in range(q):
            Nb[i, a] += Gd[i, a] - 2.0 * KP[a, i]
    for a in range(q):
        for b in range(q):
            s = 0.0
            for i in range(n):
                s += KP[a, i] * K[i, b]
            Rb[a, b] += Sd[a, b] + s


def varying_back(y, there, start, stop, F, H, Q, N, R, xs, Ps, bar, Pb, Fb, Hb, Qb, Nb, Rb):
    """The adjoint of `varying`: bar and Pb, those of the state and P at the end, are replaced by those at the start."""
    n, q = len(F), len(H)
    K, inverse, L, fresh = np.empty((n, q)), np.empty((q, q)), np.empty((n, n)), np.empty((n, n))
    e, z, eb, new = np.empty(q), np.empty(q), np.empty(q), np.empty(n)
    Gd, Sd, Pn = np.empty((n, q)), np.empty((q, q)), np.empty((n, n))
    for k in range(stop - 1, start - 1, -1):
        x, P = xs[k - start], Ps[k - start]
        if there[k]:
            gained(F, H, Q, N, R, P, K, inverse, L, fresh)
        else:
            missed(F, Q, P, K, inverse, L, fresh)
        for a in range(q):
            s = y[k, a]
            for i in range(n):
                s -= H[a, i] * x[i]
            e[a] = s
        for a in range(q):
            s, t = 0.0, 0.0
            for b in range(q):
                s += inverse[a, b] * e[b]
            for i in range(n):
                t += K[i, a] * bar[i]
            z[a], eb[a] = s, t
        for a in range(q):
            for i in range(n):
                Gd[i, a] = bar[i] * z[a]
            for b in range(q):
                Sd[a, b] = 0.5 * (z[a] * z[b] - inverse[a, b] - eb[a] * z[b] - eb[b] * z[a])
        for i in range(n):
            new[i] = 0.0
        for j in range(n):
            s = bar[j]
            for i in range(n):
                new[i] += F[j, i] * s
                Fb[j, i] += s * x[i]
        for a in range(q):
            s = eb[a] - z[a]
            for i in range(n):
                new[i] -= H[a, i] * s
                Hb[a, i] -= s * x[i]
        bar[:] = new
        Pn[:] = Pb
        covariance_back(Pn, Gd, Sd, P, F, H, K, L, Fb, Hb, Qb, Nb, Rb, Pb)


def lyapunov_steps(L, D):
    """D becomes the X with X = L^T X L + D, by doubling."""
    n = len(L)
    power, work, half = L.copy(), np.empty((n, n)), np.empty((n, n))
    for _ in range(LYAPUNOV_LEVELS):
        multiply(D, power, half)
        turned_to(1.0, power, half, D)
        evened(D)
        multiply(power, power, work)
        power, work = work, power
        size = 0.0
        for i in range(n):
            for j in range(n):
                size = max(size, abs(power[i, j]))
        if size < 1e-18:
            break


def settled_back(by_e, states, square, count, settled_bar, P, F, H, K, inverse, L, Fb, Hb, Qb, Nb, Rb):
    """The adjoint of everything that `count` settled steps share (K, S, P itself), from the sums of `steady_back`.

    `settled_bar` is what else depends on the settled P (steps after a gap). Adds to Fb .. Rb.
    """
    n, q = len(F), len(H)
    Gd, Zx, KG, Sd = np.zeros((n, q)), np.zeros((q, n)), np.zeros((q, q)), np.zeros((q, q))
    product_to(1.0, by_e, inverse, Gd)
    product_to(1.0, inverse, states, Zx)
    product_to(0.5, inverse, square, KG)
    product_to(1.0, KG, inverse, Sd)
    KG[:] = 0.0
    turned_to(1.0, K, Gd, KG)
    for a in range(q):
        for b in range(q):
            Sd[a, b] -= 0.5 * (KG[a, b] + KG[b, a]) + 0.5 * count * inverse[a, b]
        for j in range(n):
            Hb[a, j] += Zx[a, j]
    D, rest = np.empty((n, n)), np.empty((n, n))
    covariance_back(np.zeros((n, n)), Gd, Sd, P, F, H, K, L, Fb, Hb, Qb, Nb, Rb, D)
    for i in range(n):
        for j in range(n):
            D[i, j] += settled_bar[i, j]
    lyapunov_steps(L, D)
    covariance_back(D, np.zeros((n, q)), np.zeros((q, q)), P, F, H, K, L, Fb, Hb, Qb, Nb, Rb, rest)
