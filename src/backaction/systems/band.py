"""Power of a current in a band of frequencies, exactly and by source.

For dx/dt = A x + B w, with V_j the covariance that source j alone gives and N_j = B S_j D^T, the density is
S_j(W) = C G (V_j C^T + N_j) + h.c. + R_j with G = (-iW - A)^-1, because B S_j B^T = (-iW - A) V_j + V_j (iW - A^T).
Its integral over a band needs no grid (docs: derivations):

    int_{W1}^{W2} G dW = i log[(-i W2 - A)(-i W1 - A)^-1].

Rounding: far from all resonances the parts of single sources cancel between the two terms; a bath's part there can be off by
1e-5 of the total (never the total itself by as much).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from backaction.errors import InputError, ModelError
from backaction.numerics.matrices import Array, transpose
from backaction.numerics.matrix_equations import lyapunov
from backaction.systems.linear import LinearSystem
from backaction.systems.poles import instability
from backaction.systems.response import VACUUM, pick_current


@dataclass(frozen=True, eq=False)
class Band:
    """Power of a current between `band_hz`, on the side of positive frequencies, in SN Hz; parts by source sum to it.

    `kinds` holds the kind of each source (`field`, `bath`, `classical`). Every value has the system's leading axes.
    """

    band_hz: tuple[float, float]
    total: Any
    sources: dict[str, Any]
    kinds: dict[str, str]
    current: str

    @property
    def shot(self) -> float:
        """What vacuum alone would give: the band's width."""
        return self.band_hz[1] - self.band_hz[0]

    @property
    def thermal(self) -> Any:
        """The baths' part."""
        return sum((v for k, v in self.sources.items() if self.kinds[k] == "bath"), np.zeros(np.shape(self.total)))[()]

    @property
    def classical(self) -> Any:
        """The part of classical noise: drives, technical noise, electronics."""
        parts = (v for k, v in self.sources.items() if self.kinds[k] == "classical")
        return sum(parts, np.zeros(np.shape(self.total)))[()]

    @property
    def back_action(self) -> Any:
        """The light's part beyond shot noise: the oscillators' response to all vacuum (and squeezed) fields.

        This is the quantum back-action (QBA) of Moller 2017, total - shot noise - thermal. Where the detected light is
        squeezed in the band it can be negative.
        """
        return self.total - self.thermal - self.classical - self.shot

    def document(self) -> dict[str, Any]:
        """As plain data: what `backaction spectrum --band` prints."""
        return {
            "low_hz": self.band_hz[0],
            "high_hz": self.band_hz[1],
            "unit": "shot noise x Hz",
            "total": float(self.total),
            "shot": self.shot,
            "back_action": float(self.back_action),
            "thermal": float(self.thermal),
            "classical": float(self.classical),
            "sources": {k: float(v) for k, v in self.sources.items()},
        }


def power(system: LinearSystem, band_hz: tuple[float, float], current: str | None = None) -> Band:
    """Integral of a current's spectrum over `band_hz` = (low, high) Hz, in total and by source.

    Raises
    ------
    InputError
        For a band that is empty, or a current that is not there.
    ModelError
        If a single point is unstable; in a batch such points are NaN.
    """
    low, high = (float(f) for f in band_hz)
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise InputError(f"band {low:g}:{high:g} Hz: the lower edge must be below the upper one")
    name = pick_current(system, current)
    row = system.output(name)
    C, D = system.C[..., row, :], system.D[..., row, :]
    shape = system.batch_shape
    stable = np.max(np.linalg.eigvals(system.A).real, axis=-1, initial=-1.0) < 0
    if not shape and not stable:
        raise ModelError(instability(system))
    A = np.where(stable[..., None, None], system.A, -np.eye(system.A.shape[-1]))
    L = _resolvent_integral(A, 2 * np.pi * low, 2 * np.pi * high)
    kinds: dict[str, str] = {}
    sources: dict[str, Any] = {}
    for port in system.inputs:
        cols = system.input(port.name)
        B, Dj, S = system.B[..., cols], D[..., cols], system.S[..., cols, cols]
        V = lyapunov(A, B @ S @ transpose(B))
        N = B @ S @ transpose(Dj)
        value = np.real(C @ L @ (V @ transpose(C) + N)) / np.pi + Dj @ S @ transpose(Dj) * (high - low)
        part = np.broadcast_to(value[..., 0, 0] / VACUUM, shape)
        sources[port.name] = np.where(stable, part, np.nan)[()]
        kinds[port.name] = port.kind
    total = sum(sources.values(), np.zeros(shape))
    return Band((low, high), total[()], sources, kinds, name)


def _resolvent_integral(A: Array, low: float, high: float) -> Array:
    """Integral of (-iW - A)^-1 from `low` to `high` (rad/s); A is stable, so the principal logarithm is the right one."""
    from scipy.linalg import logm

    n = A.shape[-1]
    if n == 0:
        return np.zeros(A.shape, dtype=complex)
    eye = np.eye(n)
    ratio = np.linalg.solve(-1j * low * eye - A, -1j * high * eye - A)
    flat = ratio.reshape(-1, n, n)
    with np.errstate(all="ignore"):
        return 1j * np.stack([logm(m) for m in flat]).reshape(A.shape)
