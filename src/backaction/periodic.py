"""Systems whose drift repeats: what a driven element is before the rotating-wave approximation.

    dx/dt = A(t) x + B w,    A(t) = sum_k A_k e^{-i k W t},  A_-k = conj(A_k),    y = C x + D w

Harmonic balance on the same ports: the covariance is V(t) = sum_k V_k e^{-i k W t} with

    -i k W V_k = sum_l (A_l V_{k-l} + V_{k-l} A_l^T) + delta_k0 Q,

a linear problem for a few harmonics; V_0 is the average over a period. Spectra are time averages. The part of zero frequency
is the rotating-wave `LinearSystem`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from backaction.errors import InputError, ModelError
from backaction.matrices import Array, block_diagonal, expm, join, symmetric, transpose
from backaction.system import LinearSystem

HARMONICS = 4
"""Default number of harmonics on each side; `covariance` adds two until the average settles."""


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

    def exponents(self, K: int = HARMONICS) -> Array:
        """Floquet exponents (rad/s), one per state variable: those of the truncated problem nearest to the real axis."""
        n, W = self.average.A.shape[-1], 2 * np.pi * self.frequency_hz
        values = np.linalg.eigvals(self._blocks(K))
        inside = values[np.argsort(np.abs(values.imag))]
        inside = inside[np.abs(inside.imag) <= W / 2 * (1 + 1e-9)]
        if inside.size < n:
            raise ModelError("Floquet exponents: too few harmonics")
        return np.asarray(inside[np.argsort(-inside.real)][:n] if inside.size > n else inside)

    def check_stable(self) -> None:
        """Raise where a solution grows.

        Raises
        ------
        ModelError
            Naming the largest Floquet exponent.
        """
        worst = float(np.max(self.exponents().real))
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
        """(V averaged over a period, largest ripple 2|V_k|), harmonics added until the average settles.

        Raises
        ------
        ModelError
            If a solution grows, or 20 harmonics do not settle.
        """
        self.check_stable()
        before = np.full(self.average.A.shape, np.nan)
        for K in range(max(self.harmonics, default=1), 21, 2):
            V = self.covariance_harmonics(K)
            now = np.real(V[0])
            if np.max(np.abs(now - before)) <= tolerance * np.max(np.abs(now)):
                ripple = max((2 * float(np.max(np.abs(V[k]))) for k in range(1, K + 1)), default=0.0)
                return symmetric(now), ripple
            before = now
        raise ModelError("harmonic balance did not settle with 20 harmonics: the drive is too strong for its frequency")

    def spectrum(self, frequency_hz: Any, outputs: list[str], K: int = HARMONICS) -> Array:
        """Time-averaged symmetrised spectral matrix (f, p, p) of outputs, vacuum 1/2, white inputs."""
        self.check_stable()
        system = self.average
        n, size = system.A.shape[-1], 2 * K + 1
        rows = [i for name in outputs for i in range(*system.output(name).indices(system.C.shape[-2]))]
        C, D = system.C[rows], system.D[rows]
        blocks = self._blocks(K)
        middle = np.zeros((len(rows), size * n), dtype=complex)
        middle[:, K * n : (K + 1) * n] = C
        f = np.atleast_1d(np.asarray(frequency_hz, dtype=float))
        out = np.zeros((f.size, len(rows), len(rows)), dtype=complex)
        B = block_diagonal([system.B] * size)
        S = block_diagonal([system.S] * size)
        direct = np.zeros((len(rows), size * system.B.shape[-1]), dtype=complex)
        direct[:, K * system.B.shape[-1] : (K + 1) * system.B.shape[-1]] = D
        for i, w in enumerate(-2j * np.pi * f):
            # x_l e^{-i(W0 + l W)t}: (-i(W0 + l W) - A) x = ..., the block matrix holds + i l W
            left = np.linalg.solve((w * np.eye(size * n) - blocks).T, middle.T).T
            H = left @ B + direct
            out[i] = H @ S @ H.conj().T
        return out

    def monodromy(self, steps: int = 400) -> tuple[Array, Array]:
        """(Phi, Q_T): x(T) = Phi x(0) + noise of covariance Q_T over a period, by fourth-order Magnus steps."""
        n, T = self.average.A.shape[-1], 1 / self.frequency_hz
        h = T / steps
        Q = self.average.noise()[0]
        Phi, total = np.eye(n), np.zeros((n, n))
        shift = np.sqrt(3) / 6
        for i in range(steps):
            a1, a2 = (self.drift((i + 0.5 + s * shift) * h) for s in (-1, 1))
            big = []
            for a in (a1, a2):
                top = join([a, Q], -1)
                big.append(join([top, join([np.zeros((n, n)), -transpose(a)], -1)], -2))
            omega = h / 2 * (big[0] + big[1]) + np.sqrt(3) * h * h / 12 * (big[1] @ big[0] - big[0] @ big[1])
            E = expm(omega)
            step = E[:n, :n]
            noise = E[:n, n:] @ transpose(step)
            Phi = step @ Phi
            total = step @ total @ transpose(step) + noise
        return Phi, symmetric(total)
