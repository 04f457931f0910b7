"""Force and field sensing: how well the currents of a system resolve a signal in one of its inputs.

A signal s(t) enters like the noise of a port: w -> w + u s(t), u a direction among the port's variables. With h = H u the
transfer to all currents and S the matrix of their densities, the best (frequency-dependent) combination of the currents has

    added noise referred to the signal    N(W) = 1/(h^dagger S^-1 h),         weights  S^-1 h N
    variance of a known waveform's size    V = [ int dW/2pi |f(W)|^2 / N(W) ]^-1    (matched filter),  s(t) = A f(t)

For one current these are (S25)-(S27) of Huang et al., PRL 121, 103602 (2018). V is computed without a grid: the innovations
of the Kalman filter are the whitened currents, so 1/V is the energy of a linear system's response (docs: derivations).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from backaction.constants import HBAR, TWO_PI
from backaction.errors import InputError, ModelError, nearest
from backaction.experiment.derivatives import covariance_tangent, stepped
from backaction.experiment.experiment import Experiment
from backaction.numerics.complex_step import STEP
from backaction.numerics.matrices import Array, cos_sin_deg, product, solve_right, stack, transpose
from backaction.numerics.matrix_equations import lyapunov
from backaction.systems.labels import Port
from backaction.systems.linear import LinearSystem
from backaction.systems.poles import instability
from backaction.systems.response import Response, transfer
from backaction.systems.steady import conditional


@dataclass(frozen=True)
class Lorentzian:
    """f(t) = sqrt(w) e^{-w t/2} cos(2 pi f_0 t) for t > 0, w = 2 pi width: a kick that decays. Its energy is 1 at f_0 = 0.

    In a rotating frame (`sidebands`) the centre is 0. At f_0 >> width the energy is 1/2.
    """

    width_hz: Any
    center_hz: Any = 0.0

    def realization(self) -> tuple[Array, Array, Array]:
        """(A, x0, C) with f(t) = C e^{A t} x0."""
        half, w = np.pi * np.asarray(self.width_hz) * 1.0, TWO_PI * np.asarray(self.center_hz) * 1.0
        A = stack([[-half, w], [-w, -half]])
        x0 = stack([[np.sqrt(2 * half)], [0.0 * half]])
        return A, x0, np.array([[1.0, 0.0]])

    def spectrum(self, frequency_hz: Any) -> Array:
        """F(W) = int f(t) e^{iWt} dt."""
        A, x0, C = self.realization()
        s = -2j * np.pi * np.atleast_1d(np.asarray(frequency_hz, dtype=float))
        return np.asarray((C @ np.linalg.solve(s[:, None, None] * np.eye(2) - A, x0 + 0j))[..., 0, 0])


@dataclass(frozen=True)
class Signal:
    """Where a signal enters: an input port, and a direction in it counted from X (a one-variable port has only one)."""

    source: str
    angle_deg: Any = 90.0

    def direction(self, ports: Sequence[Port]) -> tuple[int, Array]:
        """(first column, u) of the signal among the inputs.

        Raises
        ------
        InputError
            For an input that is not there.
        """
        names = [p.name for p in ports]
        if self.source not in names:
            raise InputError(f"no input '{self.source}'{nearest(self.source, names)}; inputs: {', '.join(names)}")
        at = names.index(self.source)
        start, size = sum(p.size for p in ports[:at]), ports[at].size
        if size == 1:
            return start, np.ones((1, 1))
        c, s = cos_sin_deg(self.angle_deg)
        u = stack([[c], [s]])
        return start, np.concatenate([u, np.zeros((*u.shape[:-2], size - 2, 1))], axis=-2)


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """Added noise referred to a signal at `frequency_hz`, with its parts by source and the weights of the currents.

    `density` (..., f), two-sided, in the units of the input (vacuum and ground state 1/2); `sources` sum to it; `weights`
    (..., f, q) combine the currents so that the signal's transfer is 1.
    """

    frequency_hz: Array
    density: Array
    sources: dict[str, Array]
    weights: Array
    currents: tuple[str, ...]
    signal: Signal

    def __repr__(self) -> str:
        least = int(np.argmin(np.where(np.isfinite(self.density), self.density, np.inf)))
        return f"Sensitivity to '{self.signal.source}': least {np.ravel(self.density)[least]:.6g} (vacuum 1/2)"


def sensitivity(system: LinearSystem | Response, signal: Signal, frequency_hz: Any = None) -> Sensitivity:
    """Added noise of the best combination of all detected currents.

    Parameters
    ----------
    system
        A `LinearSystem`, or a `Response` with labelled inputs (structural damping, measured noise), on its own frequencies.

    Raises
    ------
    InputError
        For an unknown input, or a Response without labels.
    ModelError
        If nothing is detected, the signal is not seen, or the system is unstable.
    """
    if isinstance(system, Response):
        return _of_response(system, signal)
    if not system.currents:
        raise ModelError("no current is detected: nothing is sensed (add a homodyne)")
    if not system.batch_shape and np.max(np.linalg.eigvals(system.A).real, initial=-1.0) >= 0:
        raise ModelError(instability(system))
    f = np.atleast_1d(np.asarray(frequency_hz, dtype=float))
    H = transfer(system, f, list(system.currents))
    out = _combine(f, H, system.S[..., None, :, :], 0.0, system.inputs, system.currents, signal)
    stable = np.asarray(np.max(np.linalg.eigvals(system.A).real, axis=-1, initial=-1.0) < 0)[..., None]
    if np.all(stable):
        return out
    sources = {k: np.where(stable, v, np.nan) for k, v in out.sources.items()}
    return replace(out, density=np.where(stable, out.density, np.nan), sources=sources)


def _of_response(r: Response, signal: Signal) -> Sensitivity:
    if not r.inputs:
        raise InputError("this Response does not know its inputs: build it with Response.from_system, or name them")
    rows = list(range(r.quadratures, len(r.outputs)))
    added = r.added if np.isscalar(r.added) else np.asarray(r.added)[:, rows][:, :, rows]
    names = tuple(r.outputs[i] for i in rows)
    return _combine(r.frequency_hz, r.transfer[:, rows], r.density, added, r.inputs, names, signal)


def _combine(
    f: Array, H: Array, S: Array, added: Any, ports: Sequence[Port], currents: tuple[str, ...], signal: Signal
) -> Sensitivity:
    start, u = signal.direction(ports)
    h = H[..., start : start + u.shape[-2]] @ u
    noise = H @ S @ np.conj(transpose(H)) + added
    best = np.linalg.solve(noise, h)
    gain = np.real(np.sum(np.conj(h) * best, axis=(-2, -1)))
    if not np.any(gain > 0):
        raise ModelError(f"a signal in '{signal.source}' does not reach any detected current")
    with np.errstate(divide="ignore"):
        density = 1 / gain
    weights = best[..., 0] * density[..., None]
    row = np.conj(weights)[..., None, :] @ H
    sources, at = {}, 0
    for p in ports:
        part = row[..., at : at + p.size]
        block = S[..., at : at + p.size, at : at + p.size]
        sources[p.name] = np.real(np.sum((part @ block) * np.conj(part), axis=(-2, -1)))
        at += p.size
    if not np.isscalar(added):
        row = np.conj(weights)[..., None, :]
        sources["added"] = np.real((row @ added @ np.conj(transpose(row)))[..., 0, 0])
    return Sensitivity(f, density, sources, weights, currents, signal)


def waveform_variance(system: LinearSystem, signal: Signal, waveform: Lorentzian) -> Any:
    """V of the size A of a known waveform from the whole record, matched filter on all currents: (S27), exact.

    Raises
    ------
    ModelError
        As `systems.steady.conditional`, or if the signal is not seen.
    """
    value = _variance(system, conditional(system).gain, signal, waveform)
    if np.ndim(value) == 0 and not np.isfinite(value):
        raise ModelError(f"a signal in '{signal.source}' does not reach any detected current")
    return value


def _variance(system: LinearSystem, K: Array, signal: Signal, waveform: Lorentzian) -> Any:
    """1/V = x0^T O x0 with O the observability Gramian of waveform and filter, whitened by R. Analytic."""
    d = system.detected()
    start, u = signal.direction(system.inputs)
    columns = slice(start, start + u.shape[-2])
    Bs, Ds = product(system.B[..., columns], u), product(d.D[..., columns], u)
    A, x0, C = waveform.realization()
    closed = system.A - K @ d.C
    drive, direct = (Bs - K @ Ds) @ C, Ds @ C
    n, k = closed.shape[-1], A.shape[-1]
    shape = np.broadcast_shapes(closed.shape[:-2], drive.shape[:-2], A.shape[:-2])
    G = np.zeros((*shape, n + k, n + k), dtype=np.result_type(closed, drive, A))
    G[..., :n, :n], G[..., :n, n:], G[..., n:, n:] = closed, drive, A
    rows = np.broadcast_to(d.C, (*shape, *d.C.shape[-2:])), np.broadcast_to(direct, (*shape, *direct.shape[-2:]))
    Y = np.concatenate(rows, axis=-1)
    R = system.noise()[2]
    O = lyapunov(transpose(G), transpose(Y) @ np.linalg.solve(R, Y))
    gain = (transpose(x0) @ O[..., n:, n:] @ x0)[..., 0, 0]
    with np.errstate(divide="ignore"):
        return np.where(np.real(gain) > 0, 1 / gain, np.nan)[()]


@dataclass(frozen=True)
class WaveformVariance:
    """`waveform_variance` as an objective for `optimize`: exact value and gradient."""

    signal: Signal
    waveform: Lorentzian
    name: str = "sensing.variance"

    def value_and_gradient(self, experiment: Experiment, fields: Sequence[str]) -> tuple[Any, Array]:
        """Value (...) and derivatives (..., F), by the tangent of the filter's covariance."""
        system, step = experiment.system, stepped(experiment, fields)
        filtered = conditional(system)
        V, K = filtered.covariance, filtered.gain
        d, d_step = system.detected(), step.detected()
        R = system.noise()[2]
        _, Ns, Rs = step.noise()
        dV = covariance_tangent(system, step, "conditional")
        dX = dV @ transpose(d.C) + V @ transpose(np.imag(d_step.C) / STEP) + np.imag(Ns) / STEP
        dK = solve_right(dX - K @ (np.imag(Rs) / STEP), R)
        moved = _variance(step, K + 1j * STEP * dK, self.signal, self.waveform)
        value = _variance(system, K, self.signal, self.waveform)
        return value, np.moveaxis(np.imag(moved) / STEP, 0, -1)


def force_scale(system: LinearSystem, source: str, mass_kg: float, frequency_hz: float) -> float:
    """Newton squared per hertz (one-sided) for a density of 1 in a mode's bath input `source`.

    The bath drives P as dP = b w, so that F = sqrt(hbar m omega) b w and S_FF = 2 hbar m omega b^2 S_w one-sided; in a
    rotating frame, where the two quadratures of the force share its power, twice that. With S_w = n + 1/2 it is the
    thermal force noise 4 m gamma hbar omega (n + 1/2) = 4 m gamma k_B T.
    """
    ports = [p for p in system.inputs if p.name == source]
    if not ports or ports[0].kind != "bath":
        baths = [p.name for p in system.inputs if p.kind == "bath"]
        raise InputError(f"force on '{source}': name the bath of a mode: {', '.join(baths)}")
    name = source.removesuffix(".bath").removesuffix("_bath")
    rows = system.mode(name)
    b2 = float(np.max(np.sum(system.B[rows, system.input(source)] ** 2, axis=-1)))
    mode = next(m for m in system.modes if m.name == name)
    halves = 2.0 if mode.frame.kind == "sidebands" else 1.0
    return 2.0 * halves * HBAR * mass_kg * TWO_PI * frequency_hz * b2


def roc(false_alarm: Any, size: float, variance: float) -> Array:
    """Probability of detection at each probability of false alarm for a signal of known size and waveform.

    P_D = Q(Q^-1(P_FA) - A/sqrt(V)), Q the upper tail of the normal distribution: the Neyman-Pearson test on the matched
    filter's output.
    """
    from scipy.special import erfc, erfcinv

    p = np.asarray(false_alarm, dtype=float)
    if np.any((p < 0) | (p > 1)):
        raise InputError("false-alarm probability: must be in [0, 1]")
    return np.asarray(0.5 * erfc(erfcinv(2 * p) - size / np.sqrt(2 * variance)))
