"""The exact sampled model of a `LinearSystem`: what a digitiser records, its spectrum, its steady filter.

    x_{k+1} = F x_k + w_k,    y_k = H x_k + v_k,    cov(w, v) = [[Q, N], [N^T, R]]

x_k is the state at the start of interval k, y_k the sample of that interval, h its length. For `average` sampling
y_k = (1/h) int (C x + D w) dt, from the integral of the current as a further state; for `instantaneous` sampling
y_k = C x((k+1) h) + (1/h) int D w dt: the signal at the end of the interval, white noise limited to its bandwidth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np

from backaction.constants import TWO_PI
from backaction.errors import InputError, ModelError
from backaction.numerics.compile import compiled
from backaction.numerics.complex_step import STEP
from backaction.numerics.matrices import Array, expm, join, solve_right, symmetric, transpose
from backaction.numerics.matrix_equations import discrete_lyapunov, discrete_riccati
from backaction.systems.labels import Mode, Port
from backaction.systems.linear import LinearSystem
from backaction.systems.response import VACUUM, Budget, noise_spectrum_tangent


@dataclass(frozen=True, eq=False)
class SampledModel:
    """F (..., n, n), H (..., q, n), Q, N, R of the sampled system, and the interval in seconds."""

    F: Array
    H: Array
    Q: Array
    N: Array
    R: Array
    interval_s: float

    @cached_property
    def steady(self) -> SteadyFilter | None:
        """The steady filter of a single model, found once; None where there is none."""
        try:
            return steady_filter(self)
        except ModelError:
            return None

    def spectrum(self, frequency_hz: Any) -> Array:
        """Two-sided density of the first current in shot-noise units, aliases included, shape (..., f)."""
        return spectrum_and_slope(self, None, frequency_hz)[0]


@dataclass(frozen=True, eq=False)
class SteadyFilter:
    """Steady Kalman filter of a `SampledModel`: x^_{k+1} = F x^_k + K (y_k - H x^_k).

    `covariance` is that of x_{k+1} given y_0..y_k: the conditional state at the end of the interval that was just
    recorded; `innovation` the covariance of y_k - H x^_k.
    """

    model: SampledModel
    gain: Array
    covariance: Array
    innovation: Array

    @property
    def closed_loop(self) -> Array:
        """F - K H."""
        return self.model.F - self.gain @ self.model.H

    @property
    def memory_s(self) -> float:
        """Time constant of the slowest pole of F - K H."""
        return memory(self.closed_loop, self.model.interval_s)


def memory(step: Array, interval_s: float) -> float:
    """Time constant of the slowest pole of a recursion."""
    radius = np.max(np.abs(np.linalg.eigvals(step)))
    return float(-interval_s / np.log(radius)) if radius < 1 else float("inf")


def lowpassed(system: LinearSystem, corner_hz: float, reference_hz: float | None = None) -> LinearSystem:
    """The detected currents through a first-order low-pass: dz = w_c (y - z), z instead of y; one classical mode more.

    With `reference_hz` the low-pass of a lock-in: of s = lowpass(y e^{-i w_0 t}) the state is s~ = e^{i w_0 t} s, with
    ds~ = w_c (y - s~) + i w_0 s~: constant coefficients, exactly. Its real and imaginary part are the currents.
    """
    d = system.detected()
    if reference_hz is not None and not d.outputs[0].name.endswith(".i"):
        d = _doubled(d)
    n, q = d.A.shape[-1], d.C.shape[-2]
    rate = TWO_PI * corner_hz
    root = np.sqrt(rate)  # the state is z/sqrt(w_c): of order one
    shape = d.batch_shape
    A = np.zeros((*shape, n + q, n + q), dtype=np.result_type(d.A, d.C))
    A[..., :n, :n], A[..., n:, :n], A[..., n:, n:] = d.A, root * d.C, -rate * np.eye(q) + _turning(reference_hz, q)
    C = np.concatenate([np.zeros((q, n)), root * np.eye(q)], axis=-1)
    name = f"front end {1 + sum(m.name.startswith('front end') for m in d.modes)}"
    modes = (*d.modes, Mode(name, "classical", q))
    return replace(d, A=A, B=join([d.B, root * d.D], -2), C=C, D=0.0 * d.D, modes=modes)


def _doubled(d: LinearSystem) -> LinearSystem:
    """Real currents as complex ones: a zero imaginary part beside each."""
    C, D = (np.repeat(M, 2, axis=-2) * np.tile([[1.0], [0.0]], (M.shape[-2], 1)) for M in (d.C, d.D))
    ports = tuple(Port(f"{p.name}.{k}", "current", 1) for p in d.outputs for k in "iq")
    return replace(d, C=C, D=D, outputs=ports)


def _turning(reference_hz: float | None, q: int) -> Array:
    """I w_0 on pairs (real, imaginary)."""
    if reference_hz is None:
        return np.zeros((q, q))
    w = TWO_PI * reference_hz
    return np.kron(np.eye(q // 2), np.array([[0.0, -w], [w, 0.0]]))


def white_noise(density_sn: float = 1.0) -> LinearSystem:
    """A current of white noise and nothing else."""
    port, current = Port("white", "classical", 1), Port("current", "current", 1)
    none = np.zeros((0, 0))
    S = np.array([[VACUUM * density_sn]])
    return LinearSystem(none, np.zeros((0, 1)), np.zeros((1, 0)), np.eye(1), S, (), (port,), (current,))


def front_end_response(digitiser: Digitiser, frequency_hz: Any) -> Array:
    """Density of white noise of density 1 after the front end and the digitiser, shape (f,).

    For a demodulated record frequencies are those of the current, before the demodulation.
    """
    if digitiser.reference_hz is not None:
        digitiser, frequency_hz = digitiser._replace(reference_hz=None), np.abs(frequency_hz - digitiser.reference_hz)
    return discretise(white_noise(), *digitiser).spectrum(frequency_hz)


def discretise(
    system: LinearSystem,
    sample_rate_hz: float,
    sampling: Sampling = "average",
    front_end_hz: Sequence[float] = (),
    reference_hz: float | None = None,
) -> SampledModel:
    """Exact sampled model, broadcasting, analytic in the system's matrices (complex steps pass through).

    `front_end_hz` are first-order low-passes before the digitiser, which become classical states after the system's own.
    `reference_hz` is that of a demodulated record z = lowpass(y e^{-i w_0 t}) (low-passes after the multiplication): the
    two currents are real and imaginary part of e^{i w_0 t} z at the interval's end t, which has constant coefficients.

    The joint noise covariance int_0^h e^{As} G e^{A^T s} ds of state and integrated current is built on a short step by
    Van Loan's block exponential and doubled up to h, which stays accurate for stiff systems.
    """
    d = system.detected()
    for corner in front_end_hz:
        d = lowpassed(d, corner, reference_hz)
    if reference_hz is not None and not front_end_hz:
        if sampling == "instantaneous":
            raise InputError("demodulated instantaneous samples of white noise have no variance: say the front end")
        d = _doubled(d)
    n, h = d.A.shape[-1], 1.0 / sample_rate_hz
    Fa, Qa = _interval(d, h, reference_hz)
    F, Phi = Fa[..., :n, :n], Fa[..., n:, :n]
    Q, N, R = Qa[..., :n, :n], Qa[..., :n, n:] / h, Qa[..., n:, n:] / h**2
    if sampling == "average":
        return SampledModel(F, Phi / h, Q, N, R, h)
    # C x at the end: C (F x + w); white noise averaged over the interval, correlated with w
    white = d.D @ d.S @ transpose(d.D) / h
    cross = _integral(d.A, d.B @ d.S @ transpose(d.D), h) / h
    C = d.C
    return SampledModel(
        F,
        C @ F,
        Q,
        Q @ transpose(C) + cross,
        C @ Q @ transpose(C) + C @ cross + transpose(C @ cross) + white + 0.0 * Q[..., :1, :1],
        h,
    )


def _interval(d: LinearSystem, h: float, reference_hz: float | None) -> tuple[Array, Array]:
    """e^{A h} and int_0^h e^{As} G e^{A^T s} ds of the state and its integrated currents together.

    Van Loan: exp [[-A, G], [0, A^T]] s holds both for a short s; then Q(2 s) = Q(s) + e^{As} Q(s) e^{A^T s}.
    """
    n, q = d.A.shape[-1], d.C.shape[-2]
    shape, size = d.batch_shape, n + q
    A = np.zeros((*shape, size, size), dtype=np.result_type(d.A, d.C))
    A[..., :n, :n], A[..., n:, :n], A[..., n:, n:] = d.A, d.C, _turning(reference_hz, q)
    L = join([d.B, d.D], -2)
    G = L @ d.S @ transpose(L)
    norm = (
        max(float(np.max(np.sum(np.abs(A[..., k, k]), axis=-1), initial=0.0)) for k in (slice(n), slice(n, size))) * h
    )
    doublings = int(max(0, np.ceil(np.log2(max(norm, 1e-300) / 0.5))))
    step = h / 2.0**doublings
    M = np.zeros((*shape, 2 * size, 2 * size), dtype=np.result_type(A, G))
    M[..., :size, :size], M[..., :size, size:], M[..., size:, size:] = -A * step, G * step, transpose(A) * step
    E = expm(M)
    Fa = transpose(E[..., size:, size:])
    Qa = Fa @ E[..., :size, size:]
    for _ in range(doublings):
        Qa = Qa + Fa @ Qa @ transpose(Fa)
        Fa = Fa @ Fa
    return Fa, symmetric(Qa)


def _integral(A: Array, N: Array, h: float) -> Array:
    """int_0^h e^{A s} N ds."""
    n, q = A.shape[-1], N.shape[-1]
    shape = np.broadcast_shapes(A.shape[:-2], N.shape[:-2])
    M = np.zeros((*shape, n + q, n + q), dtype=np.result_type(A, N))
    M[..., :n, :n], M[..., :n, n:] = A * h, N * h
    return expm(M)[..., :n, n:]


def spectrum_and_slope(model: SampledModel, step: SampledModel | None, frequency_hz: Any) -> tuple[Array, Array]:
    """Density of the first current (SN) and its derivatives from a complex-stepped model (leading axis: fields)."""
    f = np.atleast_1d(np.asarray(frequency_hz, dtype=float))
    z = np.exp(-2j * np.pi * f * model.interval_s)
    one = (model.F, model.Q, model.N[..., :1], model.R[..., :1, :1], model.H[..., :1, :])
    slope = None
    if step is not None:
        parts = (step.F, step.Q, step.N[..., :1], step.R[..., :1, :1], step.H[..., :1, :])
        slope = tuple(np.imag(p) / STEP for p in parts)
    value, tangent = noise_spectrum_tangent(one, slope, z)  # type: ignore[arg-type]
    return value * model.interval_s / VACUUM, tangent * model.interval_s / VACUUM


def sampled_budget(system: LinearSystem, digitiser: Digitiser, frequency_hz: Any) -> Budget:
    """The spectrum of the sampled current by source, as `response.budget` but with the digitiser included."""
    sources = {}
    for port in system.inputs:
        only = {p.name: np.zeros((p.size, p.size)) for p in system.inputs if p.name != port.name}
        model = discretise(system.with_noise(only), *digitiser)
        sources[port.name] = model.spectrum(frequency_hz)
    total = discretise(system, *digitiser).spectrum(frequency_hz)
    return Budget(np.asarray(frequency_hz, dtype=float), total, sources, system.currents[0])


def steady_filter(model: SampledModel) -> SteadyFilter:
    """Stabilising solution of the discrete Riccati equation with cross-covariance, by structure-preserving doubling.

    P = F P F^T + Q - (F P H^T + N)(H P H^T + R)^-1 (F P H^T + N)^T, then two Newton steps.

    Raises
    ------
    ModelError
        If no stabilising solution exists (a mode that does not decay and is not seen).
    """
    F, H, Q, N, R = model.F, model.H, model.Q, model.N, model.R
    KN = solve_right(N, R)
    X = discrete_riccati(transpose(F - KN @ H), transpose(H) @ np.linalg.solve(R, H), Q - KN @ transpose(N))
    polished = _newton(model, X)
    if polished is None and np.max(np.abs(np.linalg.eigvals(F))) < 1:
        # almost noiseless samples (digital filters, delays): the recursion itself, which needs no inverse of R
        polished = _newton(model, _iterated(model, discrete_lyapunov(F, Q)))
    if polished is None:
        raise ModelError("no steady filter: a mode that does not decay is not seen by the record")
    X = polished
    S = H @ X @ transpose(H) + R
    K = solve_right(F @ X @ transpose(H) + N, S)
    return SteadyFilter(model, K, X, S)


def _newton(model: SampledModel, X: Array) -> Array | None:
    """Two Newton steps from X; None where its gain does not stabilise."""
    F, H, Q, N, R = model.F, model.H, model.Q, model.N, model.R
    for _ in range(2):
        if not np.all(np.isfinite(X)):
            return None
        K = solve_right(F @ X @ transpose(H) + N, H @ X @ transpose(H) + R)
        closed = F - K @ H
        if not np.all(np.isfinite(closed)) or np.max(np.abs(np.linalg.eigvals(closed))) >= 1:
            return None
        X = discrete_lyapunov(closed, Q + K @ R @ transpose(K) - K @ transpose(N) - N @ transpose(K))
    return X


def _iterated(model: SampledModel, P: Array, steps: int = 1 << 16) -> Array:
    """P after so many exact filter steps, or as soon as it changes no more."""
    n, q = len(P), len(model.R)
    loop, none = compiled("filter_varying", n, q), (np.empty((0, n)), np.empty((0, n, n)))
    chunk = 1 << 10
    y, ok = np.zeros((chunk, q)), np.ones((chunk, q), dtype=bool)
    x, P = np.zeros(n), P.copy()
    for _ in range(steps // chunk):
        before = P.copy()
        loop(y, ok, x, P, model.F, model.H, model.Q, model.N, model.R, np.eye(q), np.empty((chunk, q)),
             *none, none[1], none[0], none[1])  # fmt: skip
        if np.max(np.abs(P - before)) <= 1e-14 * np.max(np.abs(P)):
            break
    return P


@dataclass(frozen=True, eq=False)
class SteadyEffect:
    """Steady backward information filter of a `SampledModel` (the effect operator: future record only, flat prior).

    eta_k = `closed_loop` eta_{k+1} + `gain` y_k; the retrodicted state x_k is `covariance` eta_k with that covariance.
    """

    closed_loop: Array
    gain: Array
    information: Array
    covariance: Array
    interval_s: float

    @property
    def memory_s(self) -> float:
        """Time constant of the slowest pole."""
        return memory(self.closed_loop, self.interval_s)


def steady_effect(model: SampledModel) -> SteadyEffect:
    """J = H^T R^-1 H + F~^T (J^-1 + Q~)^-1 F~ with F~ = F - N R^-1 H, Q~ = Q - N R^-1 N^T, by doubling.

    Raises
    ------
    ModelError
        If the future record does not determine every state (J singular) or no steady J exists.
    """
    F, H, Q, N, R = model.F, model.H, model.Q, model.N, model.R
    KN = solve_right(N, R)
    Ft, Qt = F - KN @ H, symmetric(Q - KN @ transpose(N))
    RH = np.linalg.solve(R, H)
    J = discrete_riccati(Ft, Qt, transpose(H) @ RH)
    size = np.sqrt(np.maximum(np.diagonal(J, axis1=-2, axis2=-1), 1e-300))
    scaled = J / size[..., :, None] / size[..., None, :]
    if not np.all(np.isfinite(J)) or np.min(np.linalg.eigvalsh(scaled)) < 1e-13:
        raise ModelError("no steady effect operator: the future record does not determine every state variable")
    back = transpose(np.linalg.solve(np.eye(len(F)) + Qt @ J, Ft))  # F~^T (1 + J Q~)^-1
    inverse = np.linalg.inv(scaled) / size[..., :, None] / size[..., None, :]
    return SteadyEffect(back, transpose(RH) - back @ J @ KN, J, symmetric(inverse), model.interval_s)


def lifted(model: SampledModel, weights: Array) -> SampledModel:
    """The model of m intervals as one: Y = sum_j W_j y_j of the m samples, weights (m, r, q), exactly.

    With W_j rows of an identity: m samples as m currents (records of different rates: the slower sums); with
    W_j = 1/m: a decimated average; with cos and sin: a demodulated baseband at the lower rate.
    """
    F, H = model.F, model.H
    n, q = F.shape[-1], H.shape[-2]
    m, r, _ = weights.shape
    joint = np.block([[model.Q, model.N], [model.N.T, model.R]])
    Phi, O, V = np.eye(n), np.zeros((r, n)), np.zeros((n + r, n + r))
    for W in weights:
        T = np.block([[F, np.zeros((n, r))], [W @ H, np.eye(r)]])
        G = np.block([[np.eye(n), np.zeros((n, q))], [np.zeros((r, n)), W]])
        V = symmetric(T @ V @ T.T + G @ joint @ G.T)
        O, Phi = O + W @ H @ Phi, F @ Phi
    return SampledModel(Phi, O, V[:n, :n], V[:n, n:], V[n:, n:], m * model.interval_s)


def filtered(model: SampledModel, taps: Array) -> SampledModel:
    """The model of a record after a digital FIR filter y'_k = sum_l taps[l] y_{k-l}: earlier samples become states.

    A decimating filter is `lifted(filtered(model, taps), W)` with a W that keeps the last of m samples.
    """
    F, H = model.F, model.H
    n, q = F.shape[-1], H.shape[-2]
    d = q * (len(taps) - 1)
    if taps[0] == 0:
        raise InputError("taps[0] = 0: leave out the delay of whole samples, it is a shift of the record's start")
    A = np.zeros((n + d, n + d))
    A[:n, :n] = F
    if d:
        A[n : n + q, :n] = H
        A[n + q :, n : n + d - q] = np.eye(d - q)
    C = np.concatenate([taps[0] * H, *(t * np.eye(q) for t in taps[1:])], axis=1)
    joint = np.block([[model.Q, model.N], [model.N.T, model.R]])
    G = np.zeros((n + d, n + q))
    G[:n, :n] = np.eye(n)
    if d:
        G[n : n + q, n:] = np.eye(q)
    J = np.concatenate([G, np.concatenate([np.zeros((q, n)), taps[0] * np.eye(q)], axis=1)])
    V = J @ joint @ J.T
    k = n + d
    return SampledModel(A, C, V[:k, :k], V[:k, k:], V[k:, k:], model.interval_s)


def demodulation(sample_rate_hz: float, reference_hz: float, factor: int) -> Array:
    """Weights (factor, 2, 1) for `lifted`: mean of y e^{-i w_0 (t - t_end)} over `factor` samples (real, imaginary)."""
    t = (np.arange(factor) + 1 - factor) / sample_rate_hz
    phase = TWO_PI * reference_hz * t
    return np.stack([np.cos(phase), -np.sin(phase)], axis=1)[:, :, None] / factor


Sampling = Literal["average", "instantaneous"]


class Digitiser(NamedTuple):
    """How a current becomes samples: rate, sampling rule, low-passes before it, reference of a demodulated record."""

    sample_rate_hz: float
    sampling: Sampling = "average"
    front_end_hz: tuple[float, ...] = ()
    reference_hz: float | None = None
