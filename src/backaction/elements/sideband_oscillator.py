"""An oscillator in the rotating-wave approximation, coupled to the two sidebands of a carrier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from backaction.constants import TWO_PI
from backaction.elements.base import Element, Light
from backaction.elements.baths import thermal_bath
from backaction.elements.fields import choice, quantity
from backaction.errors import ConventionError
from backaction.numerics.matrices import block_diagonal, cos_sin_deg, join, stack
from backaction.systems.labels import Frame, Mode, Port
from backaction.systems.linear import LinearSystem


@dataclass(frozen=True, kw_only=True)
class SidebandOscillator(Element):
    r"""H = sqrt(Gamma_B) a' b_B + sqrt(Gamma_P) a' b_P' + h.c., Gamma_B = Gamma sin^2 theta, Gamma_P = Gamma cos^2 theta.

    The frame rotates at the oscillator's frequency, negative for `mass = "negative"`; b_B is the sideband of the
    beam-splitter process (the upper one for a positive mass), b_P that of pair creation. In the cosine and sine parts
    of the field (DESIGN 2), with u = sqrt(Gamma)(sin theta + cos theta), v = sqrt(Gamma)(sin theta - cos theta) and
    s = +-1 the sign of the mass,

        dX = -(gamma/2) X - (s u X_s + v P_c)/sqrt 2 + F_X,      P_c,out = P_c + u X/sqrt 2,    X_c,out = X_c - v P/sqrt 2
        dP = -(gamma/2) P + (u X_c - s v P_s)/sqrt 2 + F_P,      P_s,out = P_s + s u P/sqrt 2,  X_s,out = X_s + s v X/sqrt 2
        gamma = gamma_0 + u v = gamma_0 - Gamma cos 2 theta

    which is exact quantum mechanics (commutators to rounding). theta = 45 degrees is the non-demolition readout; above it
    the light damps. It is the rotating-wave limit of the lab-frame elements with Gamma_lab (1 + zeta^2) = Gamma and
    theta = 45 degrees + arctan zeta. Source: Huang et al., PRL 121, 103602 (2018), Eqs. (2)-(5); docs: derivations.
    """

    kind: ClassVar[str] = "sideband_oscillator"

    intrinsic_linewidth_hz: Any = quantity("Hz", minimum=0.0, doc="gamma_0, without dynamical broadening")
    occupation: Any = quantity("1", 0.0, minimum=0.0, doc="of the bath")
    readout_rate_hz: Any = quantity("Hz", minimum=0.0, root=True, doc="Gamma = Gamma_B + Gamma_P")
    coupling_angle_deg: Any = quantity(
        "deg", 45.0, minimum=0.0, maximum=180.0, doc="theta; above 90 flips the sign of Gamma_P"
    )
    mass: str = choice("positive", "positive", "negative")
    frequency_hz: Any = quantity(
        "Hz", None, above=0.0, doc="of the oscillator; names the frame, needed for forces in newton"
    )

    @property
    def frame(self) -> Frame:
        """The frame of its ports: the two sidebands."""
        return Frame("sidebands", None if self.frequency_hz is None else float(np.real(self.frequency_hz)))

    @property
    def light_frame(self) -> Frame:
        """As `frame`."""
        return self.frame

    def rates(self) -> tuple[Any, Any]:
        """(u, v) = sqrt(Gamma)(sin theta +- cos theta) in sqrt(rad/s)."""
        c, s = cos_sin_deg(self.coupling_angle_deg)
        root = np.sqrt(TWO_PI * np.asarray(self.readout_rate_hz) * 1.0)
        return root * (s + c), root * (s - c)

    def effective_linewidth(self) -> Any:
        """Gamma = gamma_0 - Gamma cos 2 theta in Hz, through u v (no cancellation of its own near 45 degrees)."""
        u, v = self.rates()
        return np.asarray(self.intrinsic_linewidth_hz) + u * v / TWO_PI

    def decoherence_rate(self) -> Any:
        """gamma_0 (n + 1/2) in Hz."""
        return np.asarray(self.intrinsic_linewidth_hz) * (np.asarray(self.occupation) + 0.5)

    def facts(self, reference: Element | None) -> dict[str, Any]:
        """Mass in words, rates of beam splitter and down-conversion, cooperativity (Huang)."""
        rate, tilde = float(self.readout_rate_hz), float(self.decoherence_rate())
        c2 = float(np.cos(2 * np.radians(float(self.coupling_angle_deg))))
        return {
            "mass": f"{self.mass} mass",
            "linewidth_hz": float(self.effective_linewidth()),
            "beam_splitter_rate_hz": rate * (1 - c2) / 2,
            "down_conversion_rate_hz": rate * (1 + c2) / 2,
            "decoherence_rate_hz": tilde,
            "cooperativity Huang Gamma/[gamma_0 (n+1/2)]": rate / tilde if tilde else None,
        }

    def build(self, light: Light = Light()) -> LinearSystem:
        """LinearSystem with inputs in (X_c, P_c, X_s, P_s), bath, output out and the mode `name` in the rotating frame."""
        frame = self.frame
        if light.frame != frame:
            raise ConventionError(
                f"{self.name} (sideband_oscillator) needs light in the frame {frame}, got {light.frame}"
            )
        sign = 1.0 if self.mass == "positive" else -1.0
        u, v = (x / np.sqrt(2.0) for x in self.rates())
        gamma0 = TWO_PI * np.asarray(self.intrinsic_linewidth_hz)
        half = (gamma0 + 2 * u * v) / 2
        zero = 0.0 * half
        drift = stack([[-half, zero], [zero, -half]])
        couple = stack([[zero, -v, -sign * u, zero], [u, zero, zero, -sign * v]])
        read = stack([[zero, -v], [u, zero], [sign * v, zero], [zero, sign * u]])
        port, forces, density = thermal_bath(f"{self.name}.bath", gamma0, self.occupation, "symmetric")
        return LinearSystem(
            drift,
            join([couple, forces], -1),
            read,
            np.concatenate([np.eye(4), np.zeros((4, 2))], axis=-1),
            block_diagonal([0.5 * np.eye(4), density]),
            (Mode(self.name, frame=frame),),
            (Port(f"{self.name}.in", "field", 4, frame), port),
            (Port(f"{self.name}.out", "field", 4, frame, light.carrier),),
        )
