"""Transfer functions and noise spectra of a `LinearSystem`, in total and by source.

    H(W) = C (-iW - A)^-1 B + D,    S_out = H S_in H^dagger,    f(W) = int f(t) e^{+iWt} dt.

Spectra are symmetrised and two-sided; spectra of currents are in shot-noise units (vacuum 1/2 = 1 SN).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from backaction.errors import InputError, ModelError
from backaction.numerics.matrices import Array
from backaction.systems.labels import Port
from backaction.systems.linear import LinearSystem
from backaction.systems.poles import instability
from backaction.systems.steady import unconditional

if TYPE_CHECKING:
    import xarray


VACUUM = 0.5
"""Density of one vacuum quadrature: one shot-noise unit."""


@dataclass(frozen=True, eq=False)
class Budget:
    """A current's spectrum in shot-noise units with its parts by source.

    `total` (..., f); `sources` maps `element.input` to (..., f); the parts sum to the total because inputs are
    uncorrelated with one another.
    """

    frequency_hz: Array
    total: Array
    sources: dict[str, Array]
    current: str
    unit: str = "shot noise"

    def to_xarray(self) -> xarray.Dataset:
        """A labelled dataset with `total(frequency)` and `sources(source, frequency)` (unbatched budgets only)."""
        import xarray

        return xarray.Dataset(
            {
                "total": ("frequency_hz", self.total, {"unit": self.unit}),
                "sources": (("source", "frequency_hz"), np.stack(list(self.sources.values())), {"unit": self.unit}),
            },
            coords={"frequency_hz": self.frequency_hz, "source": list(self.sources)},
            attrs={"current": self.current},
        )

    def __repr__(self) -> str:
        f = self.frequency_hz
        span = f"{f.size} frequencies {f.min():g}..{f.max():g} Hz"
        return f"Budget of '{self.current}' at {span} from {len(self.sources)} sources"


@dataclass(frozen=True, eq=False)
class Response:
    """Transfer functions and input densities on a frequency axis only: what is measured, or has no state space.

    `transfer` (f, p, m) from `inputs` (where they are labelled) to the named outputs, `density` (f, m, m) of the inputs
    (vacuum 1/2). Quadratures of modes may be outputs too, before the currents: `quadratures` of them. `added` collects
    further noise (f, p, p) at the outputs, uncorrelated with the inputs.
    """

    frequency_hz: Array
    transfer: Array
    density: Array
    outputs: tuple[str, ...]
    added: Array | float = 0.0
    signal_covariance: Array | None = None
    inputs: tuple[Port, ...] = ()
    quadratures: int = 0

    @classmethod
    def from_system(cls, system: LinearSystem, frequency_hz: Any, modes: Sequence[str] = ()) -> Response:
        """The response of the quadratures of `modes`, then of the detected currents."""
        f = _axis(frequency_hz)
        index = system.indices(modes)
        d = system.detected()
        C = np.concatenate([np.eye(system.A.shape[-1])[index], d.C], axis=-2)
        D = np.concatenate([np.zeros((len(index), system.B.shape[-1])), d.D], axis=-2)
        H = resolvent_rows(system.A, C, -2j * np.pi * f) @ system.B + D
        names = [f"{q} {m}" for m in modes for q in ("X", "P")]
        V = unconditional(system)[np.ix_(index, index)]
        S = np.broadcast_to(system.S, (f.size, *system.S.shape))
        return cls(f, H, S, (*names, *d.currents), 0.0, V, system.inputs, len(names))

    def budget(self, current: str) -> Budget:
        """Spectrum of one output by source in shot-noise units, as `response.budget`."""
        if current not in self.outputs:
            raise InputError(f"no output '{current}'; here: {', '.join(self.outputs)}")
        k, at = self.outputs.index(current), 0
        sources = {}
        for port in self.inputs:
            cols = slice(at, at + port.size)
            h, S = self.transfer[:, k, cols], self.density[:, cols, cols]
            sources[port.name] = np.real(np.einsum("fi,fij,fj->f", h, S, np.conj(h))) / VACUUM
            at += port.size
        return Budget(self.frequency_hz, np.real(self.spectrum()[:, k, k]) / VACUUM, sources, current)

    def spectrum(self) -> Array:
        """H S H^dagger plus what was added, shape (f, p, p), vacuum 1/2."""
        return self.transfer @ self.density @ np.conj(np.swapaxes(self.transfer, -1, -2)) + self.added

    def with_noise(self, output: str, density_sn: Any) -> Response:
        """The same with noise of `density_sn` (f,) added at one output: electronics, a measured excess, a residual."""
        if output not in self.outputs:
            raise InputError(f"no output '{output}'; here: {', '.join(self.outputs)}")
        k = self.outputs.index(output)
        extra = np.zeros((self.frequency_hz.size, len(self.outputs), len(self.outputs)), dtype=complex)
        extra[:, k, k] = VACUUM * np.broadcast_to(np.asarray(density_sn, dtype=float), self.frequency_hz.shape)
        return replace(self, added=self.added + extra)

    def with_current(self, output: str, density_sn: Any) -> Response:
        """The same with the *total* density of one output replaced by a measured one, its cross-spectra kept."""
        k = self.outputs.index(output) if output in self.outputs else -1
        if k < 0:
            raise InputError(f"no output '{output}'; here: {', '.join(self.outputs)}")
        own = self.spectrum()[:, k, k].real / VACUUM
        return self.with_noise(output, np.asarray(density_sn, dtype=float) - own)

    def covariance(self) -> Array:
        """Covariance of the mode quadratures among the outputs."""
        if self.signal_covariance is None:
            raise InputError("this Response does not know the covariance of its signals")
        return self.signal_covariance


def resolvent_rows(A: Array, C: Array, s: Array) -> Array:
    """C (s_k - A)^-1 for every s_k, shape (..., K, p, n)."""
    n = A.shape[-1]
    M = s[:, None, None] * np.eye(n) - A[..., None, :, :]
    rhs = np.swapaxes(
        np.broadcast_to(C[..., None, :, :], (*np.broadcast_shapes(M.shape[:-2], C.shape[:-2] + (1,)), *C.shape[-2:])),
        -1,
        -2,
    )
    return np.swapaxes(np.linalg.solve(np.swapaxes(M, -1, -2), rhs), -1, -2)


def _axis(frequency_hz: Any) -> Array:
    f = np.atleast_1d(np.asarray(frequency_hz, dtype=float))
    if f.ndim != 1 or not np.all(np.isfinite(f)):
        raise InputError("frequency_hz: expected a one-dimensional array of finite frequencies")
    return f


def transfer(system: LinearSystem, frequency_hz: Any, outputs: Sequence[str] | None = None) -> Array:
    """H(W) from all inputs to the named outputs (default: all), shape (..., f, p, m)."""
    f = _axis(frequency_hz)
    rows = _rows(system, outputs)
    C, D = system.C[..., rows, :], system.D[..., rows, :]
    left = resolvent_rows(system.A, C, -2j * np.pi * f)
    return left @ system.B[..., None, :, :] + D[..., None, :, :]


def cross_spectrum(system: LinearSystem, frequency_hz: Any, outputs: Sequence[str] | None = None) -> Array:
    """S_out(W) = H S H^dagger between the named outputs in shot-noise units, Hermitian, shape (..., f, p, p)."""
    H = transfer(system, frequency_hz, outputs)
    return H @ system.S[..., None, :, :] @ np.conj(np.swapaxes(H, -1, -2)) / VACUUM


def state_spectrum(system: LinearSystem, frequency_hz: Any) -> Array:
    """Spectral matrix of the state, S_x(W) = G B S B^T G^dagger (1/(rad/s)); V_u is its integral over dW/2pi."""
    f = _axis(frequency_hz)
    G = resolvent_rows(system.A, np.eye(system.A.shape[-1]), -2j * np.pi * f)
    return G @ system.noise()[0][..., None, :, :] @ np.conj(np.swapaxes(G, -1, -2))


def photon_flux(system: LinearSystem, frequency_hz: Any, output: str) -> Array:
    """Normally ordered density of an output field in quanta, N(f) = int <a'(0) a(t)> e^{i 2 pi f t} dt: vacuum is 0.

    `frequency_hz` is signed, from the field's frame: +f lies above it. a = (X + iP)/sqrt 2.
    """
    stable = np.max(np.linalg.eigvals(system.A).real, axis=-1, initial=-1.0) < 0
    if not system.batch_shape and not stable:
        raise ModelError(instability(system))
    S = cross_spectrum(system, frequency_hz, [output]) * VACUUM
    return np.asarray(np.where(np.asarray(stable)[..., None], flux_of(S), np.nan))


def flux_of(S: Array) -> Array:
    """Quanta from a symmetrised spectral matrix (..., 2, 2) of X, P: [S_XX + S_PP + i (S_XP - S_PX)... ]/2 - 1/2, real."""
    turned = S[..., 0, 0] + S[..., 1, 1] - 1j * (S[..., 0, 1] - S[..., 1, 0])
    return np.real(turned) / 2 - 0.5


def flux_budget(system: LinearSystem, frequency_hz: Any, output: str) -> Budget:
    """`photon_flux` by source: |T_k|^2 n_k + |U_k|^2 (n_k + 1) with a_out = sum T_k a_k + U_k a_k', in quanta.

    For inputs with the same occupation in both quadratures (fields and two-sided baths).

    Raises
    ------
    ModelError
        If a single point is unstable.
    """
    stable = np.max(np.linalg.eigvals(system.A).real, axis=-1, initial=-1.0) < 0
    if not system.batch_shape and not stable:
        raise ModelError(instability(system))
    port = system.port(output)
    if port.kind != "field" or port.size != 2:
        raise InputError(f"'{output}' is a {port.kind} of {port.size}: quanta are of one field (X, P)")
    f = _axis(frequency_hz)
    H = transfer(system, f, [output])
    row = (H[..., 0, :] + 1j * H[..., 1, :]) / np.sqrt(2)
    sources = {}
    for p in system.inputs:
        h = row[..., system.input(p.name)]
        S = system.S[..., None, system.input(p.name), system.input(p.name)]
        both = np.real(np.sum((h[..., None, :] @ S)[..., 0, :] * np.conj(h), axis=-1))
        if p.size == 2 and p.kind != "classical":
            T, U = (h[..., 0] - 1j * h[..., 1]) / np.sqrt(2), (h[..., 0] + 1j * h[..., 1]) / np.sqrt(2)
            both = both - (np.abs(T) ** 2 - np.abs(U) ** 2) / 2
        sources[p.name] = np.where(np.asarray(stable)[..., None], both, np.nan)
    return Budget(f, photon_flux(system, f, output), sources, output, "quanta")


def budget(system: LinearSystem, frequency_hz: Any, current: str | None = None) -> Budget:
    """Spectrum of a detected current (default: the only one) by source, in shot-noise units.

    Raises
    ------
    ModelError
        If the system is unstable (it has no spectrum); in a batch such points are NaN.
    InputError
        If there is no such current, or several and none is named.
    """
    name = pick_current(system, current)
    stable = np.max(np.linalg.eigvals(system.A).real, axis=-1, initial=-1.0) < 0
    if system.batch_shape == () and not stable:
        raise ModelError(instability(system))
    f = _axis(frequency_hz)
    H = transfer(system, f, [name])
    sources = {}
    for port in system.inputs:
        cols = system.input(port.name)
        part = H[..., cols]
        block = system.S[..., None, cols, cols]
        sources[port.name] = np.real(np.sum((part @ block) * np.conj(part), axis=(-2, -1))) / VACUUM
    total = np.real(np.sum((H @ system.S[..., None, :, :]) * np.conj(H), axis=(-2, -1))) / VACUUM
    if not np.all(stable):
        total = np.where(stable[..., None], total, np.nan)
        sources = {k: np.where(stable[..., None], v, np.nan) for k, v in sources.items()}
    return Budget(f, total, sources, name)


def pick_current(system: LinearSystem, current: str | None) -> str:
    """The named current, or the only one."""
    if current is None:
        if len(system.currents) != 1:
            raise InputError(
                f"name one of the currents: {', '.join(system.currents) or 'none is detected (quanta of a field: --port)'}"
            )
        return system.currents[0]
    if current not in system.currents:
        raise InputError(f"no current '{current}'; detected: {', '.join(system.currents) or 'none'}")
    return current


def _rows(system: LinearSystem, outputs: Sequence[str] | None) -> list[int]:
    names = [p.name for p in system.outputs] if outputs is None else outputs
    return [i for n in names for i in range(*system.output(n).indices(system.C.shape[-2]))]


def noise_spectrum_tangent(
    model: tuple[Array, Array, Array, Array, Array], tangents: tuple[Array, Array, Array, Array, Array] | None, s: Array
) -> tuple[Array, Array]:
    """S(s) = l Q l^+ + l N + (l N)^+ + R with l = C (s - A)^-1 of one output, and its derivatives along `tangents`.

    `model` is (A, Q, N, R, C) of a continuous (s = -iW) or a sampled (s = e^{-iWh}) system with N (n, 1), C (1, n).
    Returns S (..., f) and dS (F, ..., f).
    """
    A, Q, N, R, C = model
    left = resolvent_rows(A, C, s)
    lQ = left @ Q[..., None, :, :]
    value = (
        np.real((lQ @ _h(left))[..., 0, 0])
        + 2 * np.real((left @ N[..., None, :, :])[..., 0, 0])
        + R[..., 0, 0][..., None]
    )
    if tangents is None:
        return value, np.zeros((0, *value.shape))
    dA, dQ, dN, dR, dC = (np.asarray(x)[..., None, :, :] for x in tangents)
    # dl = (dC + l dA)(s - A)^-1, so dl q = (dC + l dA) r with r = (s - A)^-1 (Q l^+ + N)
    r = np.linalg.solve(s[:, None, None] * np.eye(A.shape[-1]) - A[..., None, :, :], _h(lQ) + N[..., None, :, :])
    moved = 2 * np.real(((dC + left @ dA) @ r)[..., 0, 0])
    direct = np.real((left @ dQ @ _h(left))[..., 0, 0]) + 2 * np.real((left @ dN)[..., 0, 0]) + dR[..., 0, 0]
    return value, moved + direct


def _h(matrix: Array) -> Array:
    return np.conj(np.swapaxes(matrix, -1, -2))
