"""A plain oscillator: a levitated particle or resonator read in free space or electrically."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from backaction.constants import TWO_PI
from backaction.elements.base import Element, Light
from backaction.elements.baths import damped_rotation, occupation_at, structural, thermal_bath
from backaction.elements.fields import choice, quantity
from backaction.errors import InputError, ModelError
from backaction.numerics.matrices import block_diagonal, join, stack
from backaction.systems.labels import Mode, Port
from backaction.systems.linear import LinearSystem


@dataclass(frozen=True, kw_only=True)
class Oscillator(Element):
    """One mode: dX/dt = omega P, dP/dt = -omega X - gamma P + sqrt(2 Gamma) X_in + F, P_out = P_in + sqrt(2 Gamma) X.

    With `readout_rate_hz` (Gamma) the light that reads also drives (back-action). With `gain` instead,
    P_out = P_in + gain X and nothing acts back: an electrical or classical reading; gain in sqrt(Hz).
    `damping`: `velocity` (friction, gamma on P), `symmetric` (gamma/2 on X and P); `structural` (a constant loss
    angle gamma/f) has no state-space form: spectra only (`response.frequency_response`).
    """

    kind: ClassVar[str] = "oscillator"
    groups: ClassVar[tuple[tuple[str, ...], ...]] = (("occupation", "temperature_k"), ("readout_rate_hz", "gain"))

    frequency_hz: Any = quantity("Hz", doc="signed frequency; negative = negative mass")
    intrinsic_linewidth_hz: Any = quantity("Hz", minimum=0.0)
    occupation: Any = quantity("1", None, minimum=0.0, doc="bath occupation")
    temperature_k: Any = quantity("K", None, minimum=0.0, doc="bath temperature, instead of the occupation")
    readout_rate_hz: Any = quantity("Hz", None, minimum=0.0, root=True, doc="Gamma")
    gain: Any = quantity("sqrt(Hz)", None, doc="reading without back-action")
    damping: str = choice("velocity", "velocity", "symmetric", "structural")

    def at_frequency(self, frequency_hz: Any = None) -> Self:
        """With structural damping: friction of the same loss at each frequency (`baths.structural`)."""
        if self.damping != "structural":
            return self
        width = structural(self.intrinsic_linewidth_hz, self.frequency_hz, frequency_hz)
        return replace(self, damping="velocity", intrinsic_linewidth_hz=width)

    def build(self, light: Light = Light()) -> LinearSystem:
        """LinearSystem with inputs in, bath and output out."""
        self._lab_only(light)
        if self.damping == "structural":
            raise ModelError(
                f"{self.name}: structural damping has no state-space form: spectra only (a frequency-domain Response)"
            )
        if self.occupation is None and self.temperature_k is None:
            raise InputError(f"{self.name} (oscillator): missing occupation or temperature_k")
        if self.readout_rate_hz is None and self.gain is None:
            raise InputError(f"{self.name} (oscillator): missing readout_rate_hz or gain")
        occupation = self.occupation
        if occupation is None:
            if np.any(np.real(np.asarray(self.frequency_hz)) == 0):
                raise InputError(f"{self.name}: frequency_hz = 0 has no thermal occupation; give occupation")
            occupation = occupation_at(self.temperature_k, self.frequency_hz)
        omega, gamma = TWO_PI * np.asarray(self.frequency_hz), TWO_PI * np.asarray(self.intrinsic_linewidth_hz)
        port, couple, density = thermal_bath(f"{self.name}.bath", gamma, occupation, self.damping)
        if self.readout_rate_hz is not None:
            read = np.sqrt(2 * TWO_PI * np.asarray(self.readout_rate_hz))
            drive = read
        else:
            read = np.sqrt(TWO_PI) * np.asarray(self.gain)
            drive = 0.0 * read
        zero = 0.0 * read
        B = join([stack([[zero, zero], [drive, zero]]), couple], -1)
        C = stack([[zero, zero], [read, zero]])
        D = np.concatenate([np.eye(2), np.zeros((2, port.size))], axis=-1)
        return LinearSystem(
            damped_rotation(omega, gamma, self.damping),
            B,
            C,
            D,
            block_diagonal([0.5 * np.eye(2), density]),
            (Mode(self.name),),
            (Port(f"{self.name}.in", "field"), port),
            (Port(f"{self.name}.out", "field", carrier=light.carrier),),
        )
