"""Plain loops over samples, to be compiled (`numerics.compile.compiled`): the exact Kalman recursions, sample by sample.

    x_{k+1} = F x_k + w_k,    y_k = H x_k + v_k,    cov(w, v) = [[Q, N], [N^T, R]]

Samples y (T, q) with `ok` (T, q) false where one is missing. Written with explicit loops: at these sizes (n below about
twenty) a call into a matrix library costs more than the product.
"""

import numpy as np

# Each function is compiled by itself, for its n and q, and calls no other, so that a few lines repeat.


def filter_varying(y, ok, x, P, F, H, Q, N, R, white, innovation, xs, Ps, Ls, Gs, Hs):
    """Exact filter from (x, P), both replaced by those after the last sample; returns the log-likelihood.

    `xs` (T, n) and `Ps` (T, n, n) receive mean and covariance of x_{k+1} given y_0..y_k; `innovation` (T, q) the
    innovations whitened to the covariance `white white^T`, NaN where a sample is missing. For the smoother `Ls`, `Gs`,
    `Hs` receive F - K H, H^T S^-1 e and H^T S^-1 H of each step. Arrays of length 0 are not filled.
    """
    n, q = F.shape[0], H.shape[0]
    FP, PH, G = np.empty((n, n)), np.empty((n, q)), np.empty((n, q))
    S, e, z, row = np.zeros((q, q)), np.zeros(q), np.zeros(q), np.zeros(q, np.int64)
    fresh = np.empty(n)
    total = 0.0
    for k in range(y.shape[0]):
        m = 0
        for j in range(q):
            innovation[k, j] = np.nan
            if ok[k, j]:
                row[m] = j
                m += 1
        for i in range(n):
            for j in range(n):
                s = 0.0
                for l in range(n):
                    s += F[i, l] * P[l, j]
                FP[i, j] = s
        for a in range(m):
            h = row[a]
            s = y[k, h]
            for i in range(n):
                s -= H[h, i] * x[i]
                t, g = 0.0, N[i, h]
                for l in range(n):
                    t += P[i, l] * H[h, l]
                    g += FP[i, l] * H[h, l]
                PH[i, a], G[i, a] = t, g
            e[a] = s
        for a in range(m):  # Cholesky factor of S = H P H^T + R, and z = S^{-1/2} e
            for b in range(a + 1):
                s = R[row[a], row[b]]
                for i in range(n):
                    s += H[row[a], i] * PH[i, b]
                for c in range(b):
                    s -= S[a, c] * S[b, c]
                S[a, b] = np.sqrt(s) if a == b else s / S[b, b]
            s = e[a]
            for c in range(a):
                s -= S[a, c] * z[c]
            z[a] = s / S[a, a]
            total -= 0.5 * (z[a] * z[a] + np.log(2 * np.pi)) + np.log(S[a, a])
        for i in range(n):  # G <- (F P H^T + N) S^{-T/2}: the gain times S^{1/2}
            for a in range(m):
                s = G[i, a]
                for c in range(a):
                    s -= G[i, c] * S[a, c]
                G[i, a] = s / S[a, a]
        if Ls.shape[0]:
            for i in range(n):
                Gs[k, i] = 0.0
                for j in range(n):
                    Ls[k, i, j] = F[i, j]
                    Hs[k, i, j] = 0.0
            for a in range(m):
                # row a of S^{-1/2} H
                for j in range(n):
                    s = H[row[a], j]
                    for c in range(a):
                        s -= S[a, c] * PH[j, c]
                    PH[j, a] = s / S[a, a]
            for a in range(m):
                for i in range(n):
                    Gs[k, i] += PH[i, a] * z[a]
                    for j in range(n):
                        Ls[k, i, j] -= G[i, a] * PH[j, a]
                        Hs[k, i, j] += PH[i, a] * PH[j, a]
        for i in range(n):
            s = 0.0
            for l in range(n):
                s += F[i, l] * x[l]
            for a in range(m):
                s += G[i, a] * z[a]
            fresh[i] = s
        for i in range(n):
            x[i] = fresh[i]
            for j in range(i + 1):
                s = Q[i, j]
                for l in range(n):
                    s += FP[i, l] * F[j, l]
                for a in range(m):
                    s -= G[i, a] * G[j, a]
                P[i, j] = s
                P[j, i] = s
        if m == q:
            for a in range(q):
                s = 0.0
                for c in range(a + 1):
                    s += white[a, c] * z[c]
                innovation[k, a] = s
        else:
            for a in range(m):
                innovation[k, row[a]] = white[row[a], row[a]] * z[a]
        if xs.shape[0]:
            xs[k] = x
        if Ps.shape[0]:
            Ps[k] = P
    return total


def filter_square_root(y, ok, x, W, F, H, L, white, innovation, xs, Ps):
    """`filter_varying` with P = W W^T and the joint noise root L (q + n rows: v, w), by orthogonal transformations.

    [[H W, L_v], [F W, L_w]] = [[S^{1/2}, 0], [K S^{1/2}, W_new]] Theta: digits of a covariance whose eigenvalues lie
    up to 10^32 apart are kept. `Ps` receives W.
    """
    n, q = F.shape[0], H.shape[0]
    columns = n + L.shape[1]
    M, fresh = np.empty((q + n, columns)), np.empty(n)
    e, z, row = np.zeros(q), np.zeros(q), np.zeros(q, np.int64)
    total = 0.0
    for k in range(y.shape[0]):
        m = 0
        for j in range(q):
            innovation[k, j] = np.nan
            if ok[k, j]:
                row[m] = j
                m += 1
        for a in range(m + n):
            for j in range(n):
                s = 0.0
                for l in range(n):
                    s += (H[row[a], l] if a < m else F[a - m, l]) * W[l, j]
                M[a, j] = s
            for j in range(n, columns):
                M[a, j] = L[row[a] if a < m else q + a - m, j - n]
        for a in range(m + n):  # Householder reflections of the rows: lower triangular
            s = 0.0
            for j in range(a, columns):
                s += M[a, j] * M[a, j]
            size = np.sqrt(s)
            if size == 0.0:
                continue
            alpha = -size if M[a, a] > 0 else size
            pivot = M[a, a] - alpha
            beta = 1.0 / (alpha * pivot)  # -2 / |v|^2
            M[a, a] = pivot
            for b in range(a + 1, m + n):
                s = 0.0
                for j in range(a, columns):
                    s += M[a, j] * M[b, j]
                s *= beta
                for j in range(a, columns):
                    M[b, j] += s * M[a, j]
            M[a, a] = alpha
            for j in range(a + 1, columns):
                M[a, j] = 0.0
        for a in range(m):
            s = y[k, row[a]]
            for i in range(n):
                s -= H[row[a], i] * x[i]
            e[a] = s
            for c in range(a):
                s -= M[a, c] * z[c]
            z[a] = s / M[a, a]
            total -= 0.5 * (z[a] * z[a] + np.log(2 * np.pi)) + np.log(abs(M[a, a]))
        for i in range(n):
            s = 0.0
            for l in range(n):
                s += F[i, l] * x[l]
            for a in range(m):
                s += M[m + i, a] * z[a]
            fresh[i] = s
        for i in range(n):
            x[i] = fresh[i]
            for j in range(n):
                W[i, j] = M[m + i, m + j]
        if m == q:
            for a in range(q):
                s = 0.0
                for c in range(a + 1):
                    s += white[a, c] * z[c] * (1.0 if M[c, c] > 0 else -1.0)
                innovation[k, a] = s
        else:
            for a in range(m):
                innovation[k, row[a]] = white[row[a], row[a]] * z[a] * (1.0 if M[a, a] > 0 else -1.0)
        if xs.shape[0]:
            xs[k] = x
        if Ps.shape[0]:
            Ps[k] = W
    return total


def smooth_varying(r, M, F, H, Ls, Gs, Hs, rs, Ms):
    """Backward recursion of the smoother: r <- L^T r + H^T S^-1 e, M <- L^T M L + H^T S^-1 H.

    `rs` (T, n) and `Ms` (T, n, n) receive r and M *before* step k is absorbed: with them x_{k+1} given the whole record is
    x^_{k+1} + P_{k+1} r and its covariance P_{k+1} - P_{k+1} M P_{k+1}. r and M are replaced by those before the first step.
    """
    n, q = F.shape[0], H.shape[0]
    fresh, LM = np.empty(n), np.empty((n, n))
    for k in range(Ls.shape[0] - 1, -1, -1):
        rs[k] = r
        if Ms.shape[0]:
            Ms[k] = M
        L = Ls[k]
        for i in range(n):
            s = Gs[k, i]
            for l in range(n):
                s += L[l, i] * r[l]
            fresh[i] = s
            for j in range(n):
                s = 0.0
                for l in range(n):
                    s += L[l, i] * M[l, j]
                LM[i, j] = s
        for i in range(n):
            r[i] = fresh[i]
            for j in range(i + 1):
                s = Hs[k, i, j]
                for l in range(n):
                    s += LM[i, l] * L[l, j]
                M[i, j] = s
                M[j, i] = s


def retrodict_varying(y, ok, eta, J, F, H, Q, N, R, etas, Js):
    """Backward information filter of the effect operator: information J and eta = J x of x_k from y_k, y_{k+1}, ...

    With the present samples' F~ = F - N R^-1 H and Q~ = Q - N R^-1 N^T
    J_k = H^T R^-1 H + F~^T (1 + J Q~)^-1 J F~ and eta_k = H^T R^-1 y + F~^T (1 + J Q~)^-1 (eta - J N R^-1 y), from J, eta of
    x_{k+1}. `etas`, `Js` receive those of x_{k+1}, before step k; J and eta are replaced by those of the first sample.
    """
    n, q = F.shape[0], H.shape[0]
    row = np.zeros(q, np.int64)
    S, Hn, Nn, yn = np.zeros((q, q)), np.empty((q, n)), np.empty((n, q)), np.empty(q)
    Ft, Qt, M = np.empty((n, n)), np.empty((n, n)), np.empty((n, 2 * n + 1))
    for k in range(y.shape[0] - 1, -1, -1):
        etas[k] = eta
        if Js.shape[0]:
            Js[k] = J
        m = 0
        for j in range(q):
            if ok[k, j]:
                row[m] = j
                m += 1
        for a in range(m):  # everything in units of R^{1/2} of what is there
            for b in range(a + 1):
                s = R[row[a], row[b]]
                for c in range(b):
                    s -= S[a, c] * S[b, c]
                S[a, b] = np.sqrt(s) if a == b else s / S[b, b]
            yn[a] = y[k, row[a]]
            for c in range(a):
                yn[a] -= S[a, c] * yn[c]
            yn[a] /= S[a, a]
            for i in range(n):
                h, g = H[row[a], i], N[i, row[a]]
                for c in range(a):
                    h -= S[a, c] * Hn[c, i]
                    g -= S[a, c] * Nn[i, c]
                Hn[a, i], Nn[i, a] = h / S[a, a], g / S[a, a]
        for i in range(n):
            for j in range(n):
                f, w = F[i, j], Q[i, j]
                for a in range(m):
                    f -= Nn[i, a] * Hn[a, j]
                    w -= Nn[i, a] * Nn[j, a]
                Ft[i, j], Qt[i, j] = f, w
        for i in range(n):  # [1 + J Q~ | J F~ | eta - J N R^-1 y]
            g = eta[i]
            for j in range(n):
                p, f = 1.0 if i == j else 0.0, 0.0
                for l in range(n):
                    p += J[i, l] * Qt[l, j]
                    f += J[i, l] * Ft[l, j]
                M[i, j], M[i, n + j] = p, f
                for a in range(m):
                    g -= J[i, j] * Nn[j, a] * yn[a]
            M[i, 2 * n] = g
        for c in range(n):  # Gauss-Jordan with row pivots
            top = c
            for i in range(c + 1, n):
                if abs(M[i, c]) > abs(M[top, c]):
                    top = i
            if top != c:
                for j in range(c, 2 * n + 1):
                    M[c, j], M[top, j] = M[top, j], M[c, j]
            for i in range(n):
                if i != c and M[i, c] != 0.0:
                    f = M[i, c] / M[c, c]
                    for j in range(c + 1, 2 * n + 1):
                        M[i, j] -= f * M[c, j]
            for j in range(c + 1, 2 * n + 1):
                M[c, j] /= M[c, c]
        for i in range(n):
            g = 0.0
            for a in range(m):
                g += Hn[a, i] * yn[a]
            for l in range(n):
                g += Ft[l, i] * M[l, 2 * n]
            eta[i] = g
            for j in range(i + 1):
                s = 0.0
                for a in range(m):
                    s += Hn[a, i] * Hn[a, j]
                for l in range(n):  # symmetric: the mean of both orders
                    s += 0.5 * (Ft[l, i] * M[l, n + j] + Ft[l, j] * M[l, n + i])
                J[i, j] = s
                J[j, i] = s


def decay(D, F, H, out):
    """out[k] = (F^T)^k D F^k: how a difference of informations dies out, k steps back."""
    n, q = F.shape[0], H.shape[0]
    now, half = D.copy(), np.empty((n, n))
    for k in range(out.shape[0]):
        out[k] = now
        for i in range(n):
            for j in range(n):
                s = 0.0
                for l in range(n):
                    s += F[l, i] * now[l, j]
                half[i, j] = s
        for i in range(n):
            for j in range(n):
                s = 0.0
                for l in range(n):
                    s += half[i, l] * F[l, j]
                now[i, j] = s
