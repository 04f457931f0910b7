"""Systems whose drift repeats: what a driven element is before the rotating-wave approximation.

    dx/dt = A(t) x + B w,    A(t) = sum_k A_k e^{-i k W t},  A_-k = conj(A_k),    y = C x + D w

Harmonic balance on the same ports: the covariance is V(t) = sum_k V_k e^{-i k W t} with

    -i k W V_k = sum_l (A_l V_{k-l} + V_{k-l} A_l^T) + delta_k0 Q,

a linear problem for a few harmonics; V_0 is the average over a period. Spectra are time averages. The part of zero frequency
is the rotating-wave `LinearSystem`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from backaction.errors import InputError, ModelError
from backaction.numerics.matrices import Array, expm, join, symmetric, transpose
from backaction.systems.linear import LinearSystem


@dataclass(frozen=True, eq=False)
class PeriodicSystem:
    """A `LinearSystem` (the constant part) and the harmonics A_k (k > 0, complex) of its drift at `frequency_hz` k."""

    average: LinearSystem
    frequency_hz: float
    harmonics: Mapping[int, Array]

    def __post_init__(self) -> None:
        n = self.average.A.shape[-1]
        for k, A in self.harmonics.items():
            if k <= 0 or np.shape(A)[-2:] != (n, n):
                raise InputError(f"PeriodicSystem: harmonic {k} of shape {np.shape(A)}: needs k > 0 and ({n}, {n})")
        if self.average.batch_shape:
            raise InputError("PeriodicSystem: one point at a time, no arrays")

    def rotating_wave(self) -> LinearSystem:
        """The constant part alone."""
        return self.average

    def drift(self, time_s: float) -> Array:
        """A(t), real."""
        W = 2 * np.pi * self.frequency_hz
        out = self.average.A.astype(float)
        for k, A in self.harmonics.items():
            out = out + 2 * np.real(A * np.exp(-1j * k * W * time_s))
        return np.asarray(out)

    def _blocks(self, K: int) -> Array:
        """Toeplitz matrix of the harmonics, block (l, m) = A_{l-m} + i l W delta_lm, l, m = -K..K."""
        n, W = self.average.A.shape[-1], 2 * np.pi * self.frequency_hz
        size = 2 * K + 1
        out = np.zeros((size, n, size, n), dtype=complex)
        for row in range(size):
            out[row, :, row, :] = self.average.A + 1j * (row - K) * W * np.eye(n)
            for k, A in self.harmonics.items():
                if row - k >= 0:
                    out[row, :, row - k, :] = A
                if row + k < size:
                    out[row, :, row + k, :] = np.conj(A)
        return out.reshape(size * n, size * n)

    @property
    def highest(self) -> int:
        """The highest harmonic of the drift."""
        return max(self.harmonics, default=0)

    def exponents(self) -> Array:
        """Real parts of the Floquet exponents (rad/s), largest first: log |multiplier| over the period, from `monodromy`."""
        multipliers = np.abs(np.linalg.eigvals(self.monodromy()[0]))
        with np.errstate(divide="ignore"):
            return np.asarray(-np.sort(-np.log(multipliers)) * self.frequency_hz)

    def check_stable(self) -> None:
        """Raise where a solution grows.

        Raises
        ------
        ModelError
            Naming the largest Floquet exponent.
        """
        worst = float(self.exponents()[0])
        if worst >= 0:
            raise ModelError(
                f"unstable beyond the rotating wave: a Floquet exponent / 2 pi = {worst / (2 * np.pi):.4g} Hz, "
                "there is no periodic state"
            )

    def covariance_harmonics(self, K: int) -> dict[int, Array]:
        """V_k for |k| <= K (complex, V_-k = conj V_k), by one linear solve."""
        n, W = self.average.A.shape[-1], 2 * np.pi * self.frequency_hz
        eye, size = np.eye(n), 2 * K + 1
        both = {k: np.kron(A, eye) + np.kron(eye, A) for k, A in self._all().items()}
        M = np.zeros((size, n * n, size, n * n), dtype=complex)
        for row in range(size):
            M[row, :, row, :] += 1j * (row - K) * W * np.eye(n * n)
            for k, L in both.items():
                if 0 <= row - k < size:
                    M[row, :, row - k, :] += L
        rhs = np.zeros((size, n * n), dtype=complex)
        rhs[K] = -self.average.noise()[0].reshape(-1)
        V = np.linalg.solve(M.reshape(size * n * n, -1), rhs.reshape(-1)).reshape(size, n, n)
        return {k: (V[k + K] + transpose(V[k + K])) / 2 for k in range(-K, K + 1)}

    def _all(self) -> dict[int, Array]:
        out: dict[int, Array] = {0: self.average.A.astype(complex)}
        for k, A in self.harmonics.items():
            out[k], out[-k] = np.asarray(A), np.conj(A)
        return out

    def covariance(self, tolerance: float = 1e-12) -> tuple[Array, float]:
        """(V averaged over a period, largest ripple), harmonics added until the average settles (many: stepping instead).

        Raises
        ------
        ModelError
            If a solution grows.
        """
        self.check_stable()
        before = np.full(self.average.A.shape, np.nan)
        step = max(self.highest, 2)  # a chain of the highest harmonic reaches new terms only a whole step further
        most = int(1750 / self.average.A.shape[-1] ** 2)
        for K in range(max(self.highest, 1), min(10 * step, most) + 1, step):
            V = self.covariance_harmonics(K)
            now = np.real(V[0])
            if np.max(np.abs(now - before)) <= tolerance * np.max(np.abs(now)):
                ripple = max((2 * float(np.max(np.abs(V[k]))) for k in range(1, K + 1)), default=0.0)
                return symmetric(now), ripple
            before = now
        return self._over_a_period()

    def lowest_order(self) -> tuple[Array, float]:
        """(V averaged over a period, largest real part of an exponent in rad/s) from the drift's own harmonics alone.

        Hill's determinant and harmonic balance cut at the highest harmonic of the drift: milliseconds, and right to the
        next order in rate over frequency of what turns.

        Raises
        ------
        ModelError
            If there are too many harmonics for that.
        """
        K = max(self.highest, 1)
        if (2 * K + 1) * self.average.A.shape[-1] ** 2 > 1000:
            raise ModelError(f"{K} harmonics are too many for a quick look beyond the rotating wave")
        growth = float(np.max(np.linalg.eigvals(self._blocks(K + 1)).real))
        return symmetric(np.real(self.covariance_harmonics(K)[0])), growth

    def _over_a_period(self) -> tuple[Array, float]:
        """(average, ripple) by stepping through a period from its fixed point: for many harmonics."""
        fine = max(200, 600 * self.highest)
        Phi, Q = self.monodromy(fine)
        n = Phi.shape[0]
        V = symmetric(np.linalg.solve(np.eye(n * n) - np.kron(Phi, Phi), Q.reshape(-1)).reshape(n, n))
        total, low, high, steps = np.zeros((n, n)), V.copy(), V.copy(), 0
        for step, noise in self._steps(fine):
            total, steps = total + V, steps + 1
            V = step @ V @ transpose(step) + noise
            low, high = np.minimum(low, V), np.maximum(high, V)
        return symmetric(total / steps), float(np.max(high - low)) / 2

    def spectrum(self, frequency_hz: Any, outputs: list[str], tolerance: float = 1e-9) -> Array:
        """Time-averaged symmetrised spectral matrix (f, p, p) of outputs, vacuum 1/2, white inputs.

        Harmonics are added until three probing frequencies settle.

        Raises
        ------
        ModelError
            If a solution grows, or more than 200 block rows would be needed.
        """
        self.check_stable()
        f = np.atleast_1d(np.asarray(frequency_hz, dtype=float))
        probing = np.unique([f.min(), np.median(f), f.max(), 0.0])
        K = 2 * max(self.highest, 1) + 2
        before = self._spectrum(probing, outputs, K)
        while K <= 200:
            K += max(self.highest, 2)
            now = self._spectrum(probing, outputs, K)
            if np.max(np.abs(now - before)) <= tolerance * np.max(np.abs(now)):
                return self._spectrum(f, outputs, K)
            before = now
        raise ModelError("spectrum: the harmonics do not settle below 200; drop fast terms (below_hz)")

    def _spectrum(self, f: Array, outputs: list[str], K: int) -> Array:
        system = self.average
        n, size = system.A.shape[-1], 2 * K + 1
        rows = [i for name in outputs for i in range(*system.output(name).indices(system.C.shape[-2]))]
        C, D = system.C[rows], system.D[rows]
        blocks = self._blocks(K)
        middle = np.zeros((len(rows), size * n), dtype=complex)
        middle[:, K * n : (K + 1) * n] = C
        out = np.zeros((f.size, len(rows), len(rows)), dtype=complex)
        m = system.B.shape[-1]
        for i, w in enumerate(-2j * np.pi * f):
            # x_l e^{-i(W0 + l W)t}: (-i(W0 + l W) - A) x = ..., the block matrix holds + i l W
            left = np.linalg.solve((w * np.eye(size * n) - blocks).T, middle.T).T
            H = left.reshape(len(rows), size, n) @ system.B
            H[:, K] += D
            H = H.reshape(len(rows), size * m)
            S = np.einsum(
                "rki,ij,skj->rs", H.reshape(len(rows), size, m), system.S, np.conj(H.reshape(len(rows), size, m))
            )
            out[i] = S
        return out

    def monodromy(self, steps: int | None = None) -> tuple[Array, Array]:
        """(Phi, Q_T): x(T) = Phi x(0) + noise of covariance Q_T over a period, by fourth-order Magnus steps."""
        n = self.average.A.shape[-1]
        Phi, total = np.eye(n), np.zeros((n, n))
        for step, noise in self._steps(steps):
            Phi = step @ Phi
            total = step @ total @ transpose(step) + noise
        return Phi, symmetric(total)

    def _steps(self, steps: int | None = None) -> Iterator[tuple[Array, Array]]:
        """(propagator, noise) of each step; by default 80 to a turn of the highest harmonic, and finer than any rate."""
        n, T = self.average.A.shape[-1], 1 / self.frequency_hz
        size = float(np.max(np.abs(self.average.A))) + sum(
            2 * float(np.max(np.abs(A))) for A in self.harmonics.values()
        )
        count = steps or max(200, 80 * self.highest, int(np.ceil(10 * T * size)))
        h, Q = T / count, self.average.noise()[0]
        shift = np.sqrt(3) / 6
        for i in range(count):
            big = []
            for s in (-1, 1):
                a = self.drift((i + 0.5 + s * shift) * h)
                big.append(join([join([a, Q], -1), join([np.zeros((n, n)), -transpose(a)], -1)], -2))
            omega = h / 2 * (big[0] + big[1]) + np.sqrt(3) * h * h / 12 * (big[1] @ big[0] - big[0] @ big[1])
            E = expm(omega)
            step = E[:n, :n]
            yield step, E[:n, n:] @ transpose(step)
