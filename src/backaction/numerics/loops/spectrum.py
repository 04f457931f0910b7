"""Compiled noise spectra of one current and their exact adjoint, n^2 operations a frequency.

    S(W) = l Q l^+ + 2 Re(c l N) + R,    l = C (-i W - A)^-1,    c = 1 (or a sampling rule's phase of the white noise)

Orthogonal U with U^T A^T U = H upper Hessenberg and U^T C^T = b e_1, once; then l^T = U x with (-i W - H) x = b e_1, by
Hyman's recurrence from x_n = 1 upwards, which satisfies every row to rounding (backward stable, also where poles
coincide). It divides by the subdiagonals of H: where one vanishes, the states below it are not observed and are left out.

The adjoint of sum_k g_k S(W_k): with r = (-i W - A)^-1 (Q l^+ + c N) = V l^+ + (-i W - A)^-1 (V C^T + c N), where V is
the steady covariance, A V + V A^T + Q = 0; the second term by the same recurrence for (A^T, V C^T + N) (a solution with
H^T would run the recurrence in its unstable direction),

    Q_bar = sum g Re(l^+ l),  N_bar = 2 sum g Re(c l),  R_bar = sum g,  C_bar = 2 sum g Re r,  A_bar = 2 sum g Re(l^T r^T).

Loops run over blocks of frequencies, so that the compiler turns them into vector instructions; they release the
interpreter lock. Kept by `numerics.compile` (compiled once per machine).
"""

import numpy as np

LANES = 64
"""Frequencies in a block."""


def reduce(A, C, H, U):
    """H, U (n, n) filled; returns (b, m): U^T C^T = b e_1, and the number m of states that the output sees."""
    n = len(A)
    v = np.empty(n)
    for i in range(n):
        for j in range(n):
            H[i, j] = A[j, i]
            U[i, j] = 1.0 if i == j else 0.0
    size = 0.0
    for i in range(n):
        for j in range(n):
            size = max(size, abs(H[i, j]))
    beta = 0.0
    if n == 0:
        return 0.0, 0
    for k in range(-1, n - 2 if n > 1 else 0):
        # a reflection of rows k+1.. that leaves one entry of the column (of C^T at first)
        first = k + 1
        norm = 0.0
        for i in range(first, n):
            v[i] = C[i] if k < 0 else H[i, k]
            norm += v[i] * v[i]
        norm = np.sqrt(norm) if norm > 1e-280 else 0.0  # what squares cannot hold is nothing
        if k < 0:
            beta = -norm if v[first] > 0 else norm
        if norm == 0.0:
            continue
        v[first] += norm if v[first] > 0 else -norm
        square = 0.0
        for i in range(first, n):
            square += v[i] * v[i]
        scale = 2.0 / square
        for j in range(n):
            dot = 0.0
            for i in range(first, n):
                dot += v[i] * H[i, j]
            dot *= scale
            for i in range(first, n):
                H[i, j] -= dot * v[i]
        for i in range(n):
            dot, other = 0.0, 0.0
            for j in range(first, n):
                dot += H[i, j] * v[j]
                other += U[i, j] * v[j]
            dot *= scale
            other *= scale
            for j in range(first, n):
                H[i, j] -= dot * v[j]
                U[i, j] -= other * v[j]
    m, reach = n, 1.0
    for k in range(1, n):
        reach *= abs(H[k, k - 1]) / size if size > 0.0 else 0.0
        # not observed; or so little that the recurrence would overflow before it mattered
        if abs(H[k, k - 1]) <= 1e-15 * size or reach < 1e-60:
            m = k
            break
    if beta == 0.0:
        m = 0
    return beta, m


def some_rows(w, H, beta, xr, xi):
    """X = b (-i w - H)^-1 e_1 of one block of frequencies, into xr, xi (m, LANES); H is (m, m)."""
    m = H.shape[0]
    for k in range(LANES):
        xr[m - 1, k] = 1.0
        xi[m - 1, k] = 0.0
    ar, ai = np.empty(LANES), np.empty(LANES)
    for i in range(m - 1, -1, -1):
        h = H[i, i]
        for k in range(LANES):
            ar[k] = -w[k] * xi[i, k] + h * xr[i, k]
            ai[k] = w[k] * xr[i, k] + h * xi[i, k]
        for j in range(i + 1, m):
            h = H[i, j]
            for k in range(LANES):
                ar[k] += h * xr[j, k]
                ai[k] += h * xi[j, k]
        if i > 0:
            h = -1.0 / H[i, i - 1]
            for k in range(LANES):
                xr[i - 1, k] = ar[k] * h
                xi[i - 1, k] = ai[k] * h
    for k in range(LANES):
        scale = -beta / (ar[k] * ar[k] + ai[k] * ai[k])
        ar[k] *= scale
        ai[k] *= -scale
    for i in range(m):
        for k in range(LANES):
            re = xr[i, k] * ar[k] - xi[i, k] * ai[k]
            xi[i, k] = xr[i, k] * ai[k] + xi[i, k] * ar[k]
            xr[i, k] = re


def some_values(w, cr, ci, H, Q, N, beta, R, S):
    """S at all w; Q holds each pair of the quadratic form once, in its lower triangle."""
    m = H.shape[0]
    b, xr, xi = np.empty(LANES), np.empty((m, LANES)), np.empty((m, LANES))
    tr, ti, total = np.empty(LANES), np.empty(LANES), np.empty(LANES)
    for start in range(0, len(w), LANES):
        left = min(LANES, len(w) - start)
        for k in range(LANES):
            b[k] = w[start + min(k, left - 1)]
            total[k] = R
        some_rows(b, H, beta, xr, xi)
        for i in range(m):
            for k in range(LANES):
                tr[k] = 0.0
                ti[k] = 0.0
            for j in range(i + 1):
                h = Q[i, j]
                for k in range(LANES):
                    tr[k] += h * xr[j, k]
                    ti[k] += h * xi[j, k]
            h = 2.0 * N[i]
            if len(cr) > 0:
                for k in range(left):
                    total[k] += h * (cr[start + k] * xr[i, k] - ci[start + k] * xi[i, k])
            else:
                for k in range(LANES):
                    total[k] += h * xr[i, k]
            for k in range(LANES):
                total[k] += xr[i, k] * tr[k] + xi[i, k] * ti[k]
        for k in range(left):
            S[start + k] = total[k]


def some_gather(ur, ui, xr, xi, yr, yi, At, Qb):
    """At += 2 Re(u y^T), Qb += Re(u x^+) (lower triangle), summed over a block."""
    m, n = ur.shape[0], yr.shape[0]
    for i in range(m):
        for j in range(n):
            total = 0.0
            for k in range(LANES):
                total += ur[i, k] * yr[j, k] - ui[i, k] * yi[j, k]
            At[i, j] += 2.0 * total
        for j in range(i + 1):
            total = 0.0
            for k in range(LANES):
                total += ur[i, k] * xr[j, k] + ui[i, k] * xi[j, k]
            Qb[i, j] += total


rows, values, gather = some_rows, some_values, some_gather
"""These are made for the system's size where that is known; `some_` take fewer states (where some are not observed)."""


def project(P, VU, zr, zi, xr, xi, yr, yi):
    """Y = P z + V U x^* of one block."""
    n, first, second = P.shape[0], P.shape[1], VU.shape[1]
    for i in range(n):
        for k in range(LANES):
            yr[i, k] = 0.0
            yi[i, k] = 0.0
        for j in range(first):
            h = P[i, j]
            for k in range(LANES):
                yr[i, k] += h * zr[j, k]
                yi[i, k] += h * zi[j, k]
        for j in range(second):
            h = VU[i, j]
            for k in range(LANES):
                yr[i, k] += h * xr[j, k]
                yi[i, k] -= h * xi[j, k]


def turned(M, U, m, out, work):
    """U^T M U, the leading (m, m) block, of a symmetric M."""
    n = len(M)
    for i in range(n):
        for j in range(m):
            total = 0.0
            for k in range(n):
                total += M[i, k] * U[k, j]
            work[i, j] = total
    for i in range(m):
        for j in range(m):
            total = 0.0
            for k in range(n):
                total += U[k, i] * work[k, j]
            out[i, j] = total


def noise_density(A, Q, N, R, C, V, w, cr, ci, S, g, out):
    """S (K,) at angular frequencies w; with weights g (K,) the adjoint instead, added to `out`, for which V is needed.

    `out` is (n + 1, 2 n + 1): [A_bar, Q_bar, N_bar; C_bar, 0, R_bar]. An empty g asks for the values; c = cr + i ci
    (K,) is one where these are empty.
    """
    n = len(A)
    H, U = np.empty((n, n)), np.empty((n, n))
    beta, m = reduce(A, C, H, U)
    if len(g) == 0:
        if m == 0:
            S[:] = R
            return
        Qt, Nt, work = np.empty((n, n)), np.zeros(n), np.empty((n, n))
        turned(Q, U, m, Qt, work)
        for i in range(m):
            for k in range(n):
                Nt[i] += U[k, i] * N[k]
            for j in range(i):
                Qt[i, j] *= 2.0
        if m == n:
            values(w, cr, ci, H, Qt, Nt, beta, R, S)
        else:
            some_values(w, cr, ci, H[:m, :m], Qt[:m, :m], Nt[:m], beta, R, S)
        return
    for k in range(len(w)):
        out[n, 2 * n] += g[k]
    if m == 0:
        return
    # r = V l^+ + P z, with z of the two right-hand sides V C^T + N (or V C^T alone, and N)
    parts = 2 if len(cr) > 0 else 1
    At_, k0, VU = np.empty((n, n)), np.empty(n), np.zeros((n, n))
    H2, P = np.empty((2, n, n)), np.empty((2, n, n))
    betas, sizes = np.zeros(2), np.zeros(2, dtype=np.int64)
    for i in range(n):
        for j in range(n):
            At_[i, j] = A[j, i]
        for j in range(m):
            for k in range(n):
                VU[i, j] += V[i, k] * U[k, j]
    for part in range(parts):
        for i in range(n):
            k0[i] = N[i] if part == 1 or parts == 1 else 0.0
            if part == 0:
                for j in range(n):
                    k0[i] += V[i, j] * C[j]
        betas[part], sizes[part] = reduce(At_, k0, H2[part], P[part])
    xr, xi = np.zeros((n, LANES)), np.zeros((n, LANES))
    zr, zi = np.zeros((n, LANES)), np.zeros((n, LANES))
    yr, yi = np.empty((n, LANES)), np.empty((n, LANES))
    ur, ui = np.empty((n, LANES)), np.empty((n, LANES))
    b, pr, pi, weight = np.empty(LANES), np.ones(LANES), np.zeros(LANES), np.empty(LANES)
    nothing = np.zeros((n, n))
    At, Qb, Nb, Cb = np.zeros((n, n)), np.zeros((n, n)), np.zeros(n), np.zeros(n)
    for start in range(0, len(w), LANES):
        left = min(LANES, len(w) - start)
        for k in range(LANES):
            at = start + min(k, left - 1)
            b[k] = w[at]
            weight[k] = g[at] if k < left else 0.0
            if parts == 2:
                pr[k], pi[k] = cr[at], ci[at]
        if m == n:
            rows(b, H, beta, xr, xi)
        else:
            some_rows(b, H[:m, :m], beta, xr, xi)
        for part in range(parts):
            size = sizes[part]
            if size == n:
                rows(b, H2[part], betas[part], zr, zi)
            elif size > 0:
                some_rows(b, H2[part, :size, :size], betas[part], zr, zi)
            for i in range(size, n):
                for k in range(LANES):
                    zr[i, k] = 0.0
                    zi[i, k] = 0.0
            if part == 0:
                project(P[0], VU, zr, zi, xr, xi, yr, yi)
            else:
                project(P[1], nothing, zr, zi, xr, xi, ur, ui)
                for i in range(n):
                    for k in range(LANES):
                        yr[i, k] += pr[k] * ur[i, k] - pi[k] * ui[i, k]
                        yi[i, k] += pr[k] * ui[i, k] + pi[k] * ur[i, k]
        for i in range(m):
            for k in range(LANES):
                ur[i, k] = weight[k] * xr[i, k]
                ui[i, k] = weight[k] * xi[i, k]
        for i in range(m):
            first = 0.0
            for k in range(LANES):
                first += ur[i, k] * pr[k] - ui[i, k] * pi[k]
            Nb[i] += 2.0 * first
        if m == n:
            gather(ur, ui, xr, xi, yr, yi, At, Qb)
        else:
            some_gather(ur[:m], ui[:m], xr, xi, yr, yi, At, Qb)
        for i in range(n):
            first = 0.0
            for k in range(LANES):
                first += weight[k] * yr[i, k]
            Cb[i] += 2.0 * first
    for i in range(m):
        for j in range(i):
            Qb[j, i] = Qb[i, j]
    for i in range(n):  # back: U A_bar (r is in the system's own basis), U Q_bar U^T
        for j in range(n):
            value = 0.0
            for k in range(m):
                value += U[i, k] * At[k, j]
            out[i, j] += value
        for j in range(m):
            value = 0.0
            for k in range(m):
                value += U[i, k] * Qb[k, j]
            nothing[i, j] = value
    for i in range(n):
        for j in range(n):
            value = 0.0
            for k in range(m):
                value += nothing[i, k] * U[j, k]
            out[i, n + j] += value
        for k in range(m):
            out[i, 2 * n] += U[i, k] * Nb[k]
        out[n, i] += Cb[i]
