"""How fast a mode loses its state and how fast the currents learn of it: rates of one mode, in quanta/s.

The mode turns at its own frequency w, a = (X + iP)/sqrt 2 ~ e^{-iwt}. What is not an oscillator (cavities, classical noise,
further mechanical modes) is eliminated there, x_o = (-iw - A_oo)^-1 (A_om x + B_o u); other oscillators are left out:

    decoherence    l B S B^+ l^+ / 2,    l = (1, i)      by input: light (back-action), baths, classical noise
    measurement    v^+ C^+ R^-1 C v / 8, v = (1, -i)     R = D S D^+, the floor of the currents at w

One ideal port with readout rate G, efficiency h, electronic noise S: back-action G/2, thermal gamma (n + 1/2), measurement
h G/2/(1 + S). A mode of full width gamma that is much slower than it turns then has

    dV/dt = -gamma V + decoherence - 4 measurement V^2   per quadrature,

so that V -> 1/(2 sqrt(eta_total)) for gamma -> 0 (Doherty and Jacobs, PRA 60, 2700 (1999)).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from backaction.numerics.matrices import Array, transpose
from backaction.systems.linear import LinearSystem
from backaction.systems.poles import pole


class Rates(NamedTuple):
    """Rates of one mode in quanta/s; `technical` is what classical noise adds, `measurement` is NaN without a current."""

    back_action: Any
    thermal: Any
    technical: Any
    measurement: Any

    @property
    def decoherence(self) -> Any:
        """Back-action, thermal and technical together."""
        return self.back_action + self.thermal + self.technical

    @property
    def eta_total(self) -> Any:
        """Total efficiency of the measurement, measurement/decoherence: 1 where all that acts back is seen."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.measurement / np.asarray(self.decoherence)

    @property
    def cooperativity(self) -> Any:
        """Back-action/thermal: G/[gamma (2n + 1)] (Thomas, Moller); Huang's G/[gamma (n + 1/2)] is twice that."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.back_action / np.asarray(self.thermal)

    def table(self) -> dict[str, float]:
        """Of one point, as plain data."""
        return {
            "back_action_rate": float(self.back_action), "thermal_rate": float(self.thermal),
            "technical_rate": float(self.technical), "decoherence_rate": float(self.decoherence),
            "measurement_rate": float(self.measurement), "eta_total": float(self.eta_total),
            "cooperativity_thomas": float(self.cooperativity), "cooperativity_huang": 2 * float(self.cooperativity),
        }  # fmt: skip


def mode_rates(system: LinearSystem, mode: str, frequency_hz: Any = None) -> Rates:
    """Rates of `mode`, each (...), at its own signed frequency or at `frequency_hz`.

    Where a cavity damps the mode, noise and signal are correlated and eta_total is a figure of merit rather than a bound.

    Raises
    ------
    InputError
        For an unknown mode.
    """
    own = system.indices([mode])
    apart = [m.name for m in system.modes if m.kind != "oscillator" and m.name != mode]
    rest = system.indices(apart)
    if frequency_hz is None:
        turning = system.A[..., own[0], own[1]] - system.A[..., own[1], own[0]]
        frequency_hz = np.where(turning < 0, -1.0, 1.0) * pole(system, f"frequency_hz.{mode}")[0]
    w = 2 * np.pi * np.asarray(frequency_hz)[..., None, None]
    currents = [i for name in system.currents for i in range(*system.output(name).indices(system.C.shape[-2]))]
    A, B, C, D = system.A, system.B, system.C[..., currents, :], system.D[..., currents, :]
    G = np.linalg.inv(-1j * w * np.eye(len(rest)) - A[..., rest, :][..., rest])
    back = A[..., own, :][..., rest] @ G
    force = B[..., own, :] + back @ B[..., rest, :]
    front = C[..., rest] @ G
    read = C[..., own] + front @ A[..., rest, :][..., own]
    floor = D + front @ B[..., rest, :]
    row = np.array([1.0, 1.0j]) @ force
    rates = {kind: _density(system, kind, row) / 2 for kind in ("field", "bath", "classical")}
    if not currents:
        return Rates(rates["field"], rates["bath"], rates["classical"], np.nan * rates["field"])
    R = floor @ system.S @ np.conj(transpose(floor))
    signal = read @ np.array([1.0, -1.0j])
    known = np.sum(np.conj(signal) * np.linalg.solve(R, signal[..., None])[..., 0], axis=-1).real / 8
    return Rates(rates["field"], rates["bath"], rates["classical"], known)


def _density(system: LinearSystem, kind: str, row: Array) -> Any:
    """Density l B S B^+ l^+ of the inputs of one kind."""
    columns = [i for p in system.inputs if p.kind == kind for i in range(*system.input(p.name).indices(row.shape[-1]))]
    part = row[..., columns]
    S = system.S[..., columns, :][..., columns]
    return np.sum(part[..., None, :] @ S * np.conj(part)[..., None, :], axis=(-2, -1)).real
