"""Wiener filters: correlation functions, finite-time FIR filters, the steady causal filter (Thomas 2021, Methods C).

    Q_c(t) = int_0^T K(s) i(t - s) ds,      int_0^T K(s) C_ii(u - s) ds = C_Qi(u)  for 0 < u < T

with C_ab(u) = <a(t + u) b(t)>. The current i is white plus coloured: C_ii(u) = R delta(u) + C(u). Because the light that
drives the system is also detected, C_Qi jumps at u = 0 by N = B S D^T; the filter needs the value at 0+.

For white noise this is the Kalman-Bucy filter. What it adds: the current's spectrum may be a *measured* one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from backaction.errors import InputError
from backaction.numerics.matrices import Array, expm, transpose
from backaction.systems import steady
from backaction.systems.linear import LinearSystem
from backaction.systems.response import VACUUM, Response


@dataclass(frozen=True, eq=False)
class Correlations:
    """What a Wiener filter needs, on lags (j + 1/2) h for the signals and j h for the current.

    `signal` (n, k) is C_Qi((j + 1/2) h), `current` (n,) the coloured part of C_ii(j h), `white` its delta's
    weight R, `covariance` (k, k) of Q.
    """

    signal: Array
    current: Array
    white: float
    covariance: Array
    step_s: float

    def cut(self, duration_s: float) -> Correlations:
        """The first `duration_s` of lags."""
        n = round(duration_s / self.step_s)
        if not 1 <= n <= len(self.signal):
            raise InputError(
                f"duration {duration_s:g} s: must be between {self.step_s:g} and {len(self.signal) * self.step_s:g} s"
            )
        return replace(self, signal=self.signal[:n], current=self.current[:n])


def correlations(system: LinearSystem, duration_s: float, step_s: float, modes: tuple[str, ...]) -> Correlations:
    """Correlation functions from the state space, exact.

    C_Qi(u) = e^{Au}(V C^T + N) and C_ii(u) = C e^{Au}(V C^T + N) + R delta(u) for u > 0.

    Raises
    ------
    InputError
        If the system has not exactly one current.
    """
    _one(system)
    d = system.detected()
    _, N, R = system.noise()
    V = steady.unconditional(system)
    index = system.indices(modes)
    n = round(duration_s / step_s)
    x = V @ transpose(d.C) + N
    half, whole = expm(system.A * step_s / 2), expm(system.A * step_s)
    signal, current = np.empty((n, len(index))), np.empty(n)
    for j in range(n):
        current[j] = (d.C @ x)[0, 0]
        signal[j] = (half @ x)[index, 0]
        x = whole @ x
    return Correlations(signal, current, float(R[0, 0]), V[np.ix_(index, index)], step_s)


def correlations_from_spectra(response: Response, duration_s: float, white_sn: float | None = None) -> Correlations:
    """Correlation functions by Fourier transform of spectra on a uniform grid from 0 to half the sampling rate.

    `response` has the outputs Q_1 ... Q_k and, last, the current in shot-noise units; noise measured or added anywhere is
    in it. `white_sn` is the current's level at infinite frequency (default: the last bin). Lags are multiples of h;
    values at (j + 1/2) h are taken by the shift theorem. Truncation at the grid's end rounds the jump at u = 0: agreement
    with the exact route improves with the grid's width (Gibbs), and is what limits a measured spectrum.

    Raises
    ------
    InputError
        If the grid is not uniform from zero, or too coarse for the duration.
    """
    f = response.frequency_hz
    df = f[1] - f[0]
    if f[0] != 0 or not np.allclose(np.diff(f), df, rtol=1e-6):
        raise InputError("correlations_from_spectra: needs a uniform frequency grid that starts at 0")
    if duration_s > 0.5 / df:
        raise InputError(f"grid step {df:g} Hz is too coarse for lags up to {duration_s:g} s")
    S = response.spectrum()
    Sii, SQi = S[:, -1, -1].real, S[:, :-1, -1]
    white = float(Sii[-1]) if white_sn is None else white_sn * VACUUM
    h = 0.5 / f[-1]
    n = round(duration_s / h)

    def back(values: Array, shift: float) -> Array:
        # C(u) = int df e^{-2 pi i f u} S(f) over both signs, S(-f) = S(f)*; at u = j h + shift
        turned = np.conj(values * np.exp(-2j * np.pi * f * shift).reshape((-1,) + (1,) * (values.ndim - 1)))
        turned[-1] = turned[-1].real
        return np.fft.irfft(turned, axis=0)[:n] / h

    return Correlations(back(SQi, h / 2), back((Sii - white).astype(complex), 0.0), white, response.covariance(), h)


@dataclass(frozen=True, eq=False)
class WienerFilter:
    """A finite-time Wiener filter: K((j + 1/2) h) for every signal, and the covariances that it gives."""

    kernel: Array
    step_s: float
    best_estimate: Array
    conditional: Array

    @property
    def lags_s(self) -> Array:
        """Lags of the kernel's values."""
        return self.step_s * (np.arange(len(self.kernel)) + 0.5)

    def response(self, frequency_hz: Any) -> Array:
        """K(W) = int_0^T K(s) e^{iWs} ds, shape (f, k)."""
        W = 2 * np.pi * np.atleast_1d(np.asarray(frequency_hz, dtype=float))
        return self.step_s * np.exp(1j * np.outer(W, self.lags_s)) @ self.kernel


def fir(c: Correlations) -> WienerFilter:
    """The finite-time filter by Levinson recursion, and V_be = int K C_Qi^T ds, V_c = V_u - V_be (C6)-(C8).

    Midpoint rule: (h C_ii((j-k)h) + R delta_jk) K_k = C_Qi((j + 1/2)h), a symmetric Toeplitz system for any number of
    signals; errors are of second order in h, so Richardson extrapolation removes them.
    """
    from scipy.linalg import solve_toeplitz

    column = c.step_s * c.current
    column[0] += c.white
    kernel = solve_toeplitz(column, c.signal)
    best = c.step_s * kernel.T @ c.signal
    best = (best + best.T) / 2
    return WienerFilter(kernel, c.step_s, best, c.covariance - best)


def covariance_at(system: LinearSystem, duration_s: float, step_s: float, modes: tuple[str, ...]) -> Array:
    """V_c after a record of `duration_s` by FIR filters at h and h/2, Richardson extrapolated: (4 V(h/2) - V(h))/3."""
    coarse, fine = (fir(correlations(system, duration_s, h, modes)).conditional for h in (step_s, step_s / 2))
    return (4 * fine - coarse) / 3


def steady_kernel(system: LinearSystem, lags_s: Any, modes: tuple[str, ...]) -> Array:
    """The steady causal filter in time, exact: K(s) = e^{(A - KC)s} K, shape (lags, k)."""
    _one(system)
    gain = steady.conditional(system).gain
    F = system.A - gain @ system.detected().C
    index = system.indices(modes)
    return np.stack([(expm(F * s) @ gain)[index, 0] for s in np.atleast_1d(np.asarray(lags_s, dtype=float))])


def steady_response(system: LinearSystem, frequency_hz: Any, modes: tuple[str, ...]) -> Array:
    """The steady causal filter in frequency, exact: K(W) = (-iW - A + KC)^-1 K, shape (f, k)."""
    _one(system)
    gain = steady.conditional(system).gain
    F = system.A - gain @ system.detected().C
    W = 2 * np.pi * np.atleast_1d(np.asarray(frequency_hz, dtype=float))
    index = system.indices(modes)
    return np.linalg.solve(-1j * W[:, None, None] * np.eye(len(F)) - F, gain.astype(complex))[:, index, 0]


def anticausal(system: LinearSystem, modes: tuple[str, ...]) -> Array:
    """Covariance left by the anti-causal Wiener filter: the *future* record with the unconditional state as prior.

    (J + V_u^-1)^-1 with J the effect operator's information. It is neither the state's conditional covariance (the past
    record) nor the effect operator (the future record alone, flat prior): it is what an estimate of Q(t) made only
    from later data reaches when the steady statistics are known.
    """
    index = system.indices(modes)
    J = np.linalg.inv(steady.effect(system)) + np.linalg.inv(steady.unconditional(system))
    return np.linalg.inv(J)[np.ix_(index, index)]


def _one(system: LinearSystem) -> None:
    if len(system.currents) != 1:
        raise InputError(
            f"a Wiener filter here needs exactly one detected current, the system has {list(system.currents)}"
        )
