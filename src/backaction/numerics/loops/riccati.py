"""Compiled batches of conditional states: the Riccati equation by structure-preserving doubling, and a test of stability.

    A V + V A^T + Q - (V C^T + N) R^-1 (V C^T + N)^T = 0

for q currents after the elimination of N: A~ = A - N R^-1 C, Q~ = Q - N R^-1 N^T, G = C^T R^-1 C; doubling as in Chu, Fan,
Lin, Linear Algebra Appl. 396, 55 (2005), on matrices scaled so that V is of order one. No eigenvalue problem; sums of
positive matrices alone. `residual` says how well the equation holds, relative to its terms. The adjoints are those of
`experiment.derivatives`.
Compiled for its size: `compile.library("program", "riccati", n=6)`.
"""

import numpy as np

from backaction.numerics.loops.program import forward, reverse


def multiply(a, b, out):
    """Out = a b, all square."""
    n = len(a)
    for i in range(n):
        for j in range(n):
            out[i, j] = 0.0
        for k in range(n):
            x = a[i, k]
            for j in range(n):
                out[i, j] += x * b[k, j]


def eliminate(a, b):
    """B becomes a^-1 b (a is destroyed); False where a is singular."""
    n = len(a)
    for k in range(n):
        best = k
        for i in range(k + 1, n):
            if abs(a[i, k]) > abs(a[best, k]):
                best = i
        if not abs(a[best, k]) > 0.0:
            return False
        if best != k:
            for j in range(n):
                a[k, j], a[best, j] = a[best, j], a[k, j]
            for j in range(b.shape[1]):
                b[k, j], b[best, j] = b[best, j], b[k, j]
        inverse = 1.0 / a[k, k]
        for i in range(k + 1, n):
            factor = a[i, k] * inverse
            if factor != 0.0:
                for j in range(k + 1, n):
                    a[i, j] -= factor * a[k, j]
                for j in range(b.shape[1]):
                    b[i, j] -= factor * b[k, j]
    for k in range(n - 1, -1, -1):
        inverse = 1.0 / a[k, k]
        for j in range(b.shape[1]):
            b[k, j] *= inverse
        for i in range(k):
            factor = a[i, k]
            if factor != 0.0:
                for j in range(b.shape[1]):
                    b[i, j] -= factor * b[k, j]
    return True


def stable(A):
    """Whether every eigenvalue of A has a negative real part: powers of its Cayley transform shrink."""
    none = np.empty((0, 0))
    return lyapunov_doubling(A, none, none)


def lyapunov_doubling(A, Q, V):
    """V with A V + V A^T + Q = 0 by doubling; False where A is not stable. An empty V asks for that alone.

    With the Cayley transform F = (g - A)^-1 (g + A): V = sum_k F^k Q_F F^kT, Q_F = 2 g (g - A)^-1 Q (g - A)^-T.
    """
    n = len(A)
    wanted = len(V) > 0
    if n == 0:
        return True
    rate = 0.0
    for i in range(n):
        total = 0.0
        for j in range(n):
            total += abs(A[i, j])
        rate = max(rate, total)
    if not (rate > 0.0 and rate < 1e300):
        return False
    width = 3 * n if wanted else n
    left, B = np.empty((n, n)), np.empty((n, width))
    power, work, half = np.empty((n, n)), np.empty((n, n)), np.empty((n, n))
    for i in range(n):
        for j in range(n):
            one = 1.0 if i == j else 0.0
            left[i, j] = one - A[i, j] / rate
            B[i, j] = one + A[i, j] / rate
            if wanted:
                B[i, n + j] = Q[i, j] * (2.0 / rate)
                B[i, 2 * n + j] = one
    if not eliminate(left, B):
        return False
    for i in range(n):
        for j in range(n):
            power[i, j] = B[i, j]
            if wanted:
                total = 0.0
                for k in range(n):
                    total += B[i, n + k] * B[j, 2 * n + k]
                V[i, j] = total
    for _ in range(70):
        size = 0.0
        for i in range(n):
            total = 0.0
            for j in range(n):
                total += abs(power[i, j])
            size = max(size, total)
        if size < 1e-9 or (size < 0.9 and not wanted):
            return True
        if not size < 1e120:
            return False
        if wanted:
            multiply(power, V, half)
            for i in range(n):
                for j in range(n):
                    work[j, i] = power[i, j]
            multiply(half, work, left)
            for i in range(n):
                for j in range(i + 1):
                    V[i, j] += 0.5 * (left[i, j] + left[j, i])
                    V[j, i] = V[i, j]
        multiply(power, power, work)
        power, work = work, power
    return False


def riccati_doubling(A, Q, N, R, C, V):
    """Fill V (n, n) for one current (N, C vectors, R a number); returns the relative residual (inf where there is none)."""
    n = len(A)
    a, q, g = np.empty((n, n)), np.empty((n, n)), np.empty((n, n))
    if not R > 0.0:
        return np.inf
    for i in range(n):
        for j in range(n):
            a[i, j] = A[i, j] - N[i] * C[j] / R
            q[i, j] = Q[i, j] - N[i] * N[j] / R
            g[i, j] = C[i] * C[j] / R
    return eliminated_doubling(a, q, g, V)


def whitened(N, R, C):
    """N L^-T and L^-1 C in the place of N (n, q) and C (q, n), R = L L^T, and L in that of R; False if R is singular."""
    n = len(N)
    for k in range(len(R)):
        for j in range(k):
            R[k, k] -= R[k, j] * R[k, j]
        if not R[k, k] > 0.0:
            return False
        R[k, k] = np.sqrt(R[k, k])
        for i in range(k + 1, len(R)):
            for j in range(k):
                R[i, k] -= R[i, j] * R[k, j]
            R[i, k] /= R[k, k]
        for i in range(n):
            for j in range(k):
                N[i, k] -= R[k, j] * N[i, j]
                C[k, i] -= R[k, j] * C[j, i]
            N[i, k] /= R[k, k]
            C[k, i] /= R[k, k]
    return True


def riccati_whitened(A, Q, N, C, V):
    """As `riccati_doubling`, for q currents whose noise is white with unit density."""
    n = len(A)
    a, q, g = A.copy(), Q.copy(), np.zeros((n, n))
    for k in range(len(C)):
        for i in range(n):
            for j in range(n):
                a[i, j] -= N[i, k] * C[k, j]
                q[i, j] -= N[i, k] * N[j, k]
                g[i, j] += C[k, i] * C[k, j]
    return eliminated_doubling(a, q, g, V)


def eliminated_doubling(a, q, g, V):
    """Fill V with the stabilising solution of a V + V a^T + q - V g V = 0 (all three are overwritten); the residual."""
    n = len(a)
    rate, most_q, most_g = 0.0, 0.0, 0.0
    for i in range(n):
        for j in range(n):
            rate = max(rate, abs(a[i, j]))
            most_q = max(most_q, abs(q[i, j]))
            most_g = max(most_g, abs(g[i, j]))
    if not rate > 0.0:
        return np.inf
    size = np.sqrt(most_q / most_g) if most_q > 0.0 and most_g > 0.0 else 1.0
    X, W, Y, B = np.empty((n, n)), np.empty((n, n)), np.empty((n, n)), np.empty((n, 2 * n))
    F, G, H, T = np.empty((n, n)), np.empty((n, n)), np.empty((n, n)), np.empty((n, n))
    for i in range(n):
        for j in range(n):
            a[i, j] /= rate
            q[i, j] /= rate * size
            g[i, j] *= size / rate
    gamma = 0.5  # of the order of the largest rate
    # the filter equation is that of a control problem with a^T: K = (a^T - gamma)^-1, W = (a - gamma + q K g)^-1
    for i in range(n):
        for j in range(n):
            X[i, j] = a[j, i] - (gamma if i == j else 0.0)
            T[i, j] = g[i, j]
    if not eliminate(X, T):  # T = K g
        return np.inf
    multiply(q, T, X)
    for i in range(n):
        for j in range(n):
            X[i, j] += a[i, j] - (gamma if i == j else 0.0)
            W[i, j] = 1.0 if i == j else 0.0
    if not eliminate(X, W):
        return np.inf
    multiply(T, W, G)
    # H = 2 gamma W q K: (W q) K = ((K^T (W q)^T))^T
    multiply(W, q, H)
    for i in range(n):
        for j in range(n):
            X[i, j] = a[i, j] - (gamma if i == j else 0.0)
            T[i, j] = H[j, i]
    if not eliminate(X, T):
        return np.inf
    for i in range(n):
        for j in range(n):
            H[i, j] = 2.0 * gamma * T[j, i]
            G[i, j] *= 2.0 * gamma
            F[i, j] = (1.0 if i == j else 0.0) + 2.0 * gamma * W[j, i]
    for _ in range(70):
        multiply(G, H, X)
        for i in range(n):
            X[i, i] += 1.0
            for j in range(n):
                B[i, j] = F[i, j]
                total = 0.0
                for k in range(n):
                    total += G[i, k] * F[j, k]
                B[i, n + j] = total
        if not eliminate(X, B):
            return np.inf
        for i in range(n):
            for j in range(n):
                W[i, j], Y[i, j] = B[i, j], B[i, n + j]
        multiply(H, W, T)
        change, most = 0.0, 0.0
        for i in range(n):
            for j in range(i + 1):
                total = 0.0
                for k in range(n):
                    total += F[k, i] * T[k, j] + F[k, j] * T[k, i]
                X[i, j] = 0.5 * total
        for i in range(n):
            for j in range(i + 1):
                H[i, j] += X[i, j]
                H[j, i] = H[i, j]
                change = max(change, abs(X[i, j]))
                most = max(most, abs(H[i, j]))
        if not most < 1e150:
            return np.inf
        multiply(F, Y, X)
        for i in range(n):
            for j in range(n):
                G[i, j] += 0.5 * (X[i, j] + X[j, i])
        multiply(F, W, X)
        for i in range(n):
            for j in range(n):
                F[i, j] = X[i, j]
        if change <= 1e-9 * most:  # convergence is quadratic
            break
    # the residual of a V + V a^T + q - V g V, of the solution that stabilises a - V g
    multiply(H, g, X)
    left = 0.0
    for i in range(n):
        for j in range(n):
            left = max(left, abs(F[i, j]))  # F = (1 + G H) times a high power of the closed loop's Cayley transform
            W[i, j] = a[i, j] - X[i, j]
    if not (left < 1e-4 or stable(W)):
        return np.inf
    multiply(a, H, T)
    multiply(X, H, W)
    worst, scale = 0.0, 1e-300
    for i in range(n):
        for j in range(n):
            worst = max(worst, abs(T[i, j] + T[j, i] + q[i, j] - W[i, j]))
            scale = max(scale, abs(T[i, j]), abs(q[i, j]), abs(W[i, j]))
            V[i, j] = H[i, j] * size
    return worst / scale


def eliminated_many(a, q, g, V, residual):
    """Residuals by `eliminated_doubling` of many equations (K, n, n); `residual` (K,)."""
    for k in range(len(a)):
        residual[k] = eliminated_doubling(a[k].copy(), q[k].copy(), g[k].copy(), V[k])


def lyapunov_many(A, Q, V, good):
    """V by `lyapunov_doubling` of many equations (K, n, n); `good` (K,) where A is stable."""
    for k in range(len(A)):
        good[k] = lyapunov_doubling(A[k], Q[k], V[k])


def matrices(values, places, A, Q, N, R, C):
    """A, Q (n, n), N (n, q), R (q, q), C (q, n) from `values[places]`, in this order."""
    n = len(A)
    q = len(R)
    at = n * n
    for i in range(n):
        for j in range(n):
            A[i, j] = values[places[i * n + j]]
            Q[i, j] = values[places[at + i * n + j]]
    at += n * n
    for i in range(n):
        for k in range(q):
            N[i, k] = values[places[at + i * q + k]]
            C[k, i] = values[places[at + n * q + q * q + k * n + i]]
    for i in range(q):
        for k in range(q):
            R[i, k] = values[places[at + n * q + i * q + k]]


def covariances_many(codes, left, right, memory, points, places, n, q, conditional, V, residual):
    """V (K, n, n) of the steady states at many points (K, inputs) of a program, and residual (K,), inf where there is none.

    The unconditional states, or the `conditional` ones.
    """
    A, Q, N, R, C = np.empty((n, n)), np.empty((n, n)), np.empty((n, q)), np.empty((q, q)), np.empty((q, n))
    for k in range(len(points)):
        for i in range(points.shape[1]):
            memory[i] = points[k, i]
        forward(codes, left, right, memory)
        matrices(memory, places, A, Q, N, R, C)
        residual[k] = np.inf
        if not conditional:
            if lyapunov_doubling(A, Q, V[k]):
                residual[k] = 0.0
        elif whitened(N, R, C):
            residual[k] = riccati_whitened(A, Q, N, C, V[k])


def gradients(codes, left, right, memory, points, places, n, q, conditional, V, slopes, out):
    """Add to `out` (K, inputs) the gradients of results with d result/dV = `slopes` (K, n, n) at states V (K, n, n).

    NaN where the adjoint has no solution.
    """
    A, Q, N, R, C = np.empty((n, n)), np.empty((n, n)), np.empty((n, q)), np.empty((q, q)), np.empty((q, n))
    F, L, W, U, K = np.empty((n, n)), np.empty((n, n)), np.empty((n, n)), np.empty((n, q)), np.empty((n, q))
    bar = np.empty(len(memory))
    at = 2 * n * n
    for p in range(len(points)):
        for i in range(points.shape[1]):
            memory[i] = points[p, i]
        forward(codes, left, right, memory)
        matrices(memory, places, A, Q, N, R, C)
        if conditional:  # K = (V C^T + N) R^-1, F = (A - K C)^T
            if not gain(V[p], N, R, C, K):
                out[p, :] = np.nan
                continue
            matrices(memory, places, F, Q, N, R, C)
            for i in range(n):
                for j in range(n):
                    for k in range(q):
                        A[i, j] -= K[i, k] * C[k, j]
        for i in range(n):
            for j in range(n):
                F[i, j] = A[j, i]
        if not lyapunov_doubling(F, slopes[p], L):
            out[p, :] = np.nan
            continue
        multiply(L, V[p], W)
        bar[:] = 0.0
        for i in range(n):
            for j in range(n):
                bar[places[i * n + j]] += 2.0 * W[i, j]
                bar[places[n * n + i * n + j]] += L[i, j]
        if conditional:  # -2 L K of N, -2 (V L K)^T of C, K^T L K of R
            for i in range(n):
                for k in range(q):
                    U[i, k] = 0.0
                    total = 0.0
                    for j in range(n):
                        U[i, k] += L[i, j] * K[j, k]
                        total += W[j, i] * K[j, k]
                    bar[places[at + i * q + k]] -= 2.0 * U[i, k]
                    bar[places[at + n * q + q * q + k * n + i]] -= 2.0 * total
            for i in range(q):
                for k in range(q):
                    for j in range(n):
                        bar[places[at + n * q + i * q + k]] += K[j, i] * U[j, k]
        reverse(codes, left, right, memory, bar)
        for i in range(points.shape[1]):
            out[p, i] += bar[i]


def gain(V, N, R, C, K):
    """K = (V C^T + N) R^-1 (n, q); N, R, C are whitened in their place. False where R is singular."""
    n = len(V)
    if not whitened(N, R, C):
        return False
    q = len(R)
    for i in range(n):
        for k in range(q):
            K[i, k] = N[i, k]
            for j in range(n):
                K[i, k] += V[i, j] * C[k, j]
        for k in range(q - 1, -1, -1):
            for j in range(k + 1, q):
                K[i, k] -= K[i, j] * R[j, k]
            K[i, k] /= R[k, k]
    return True
