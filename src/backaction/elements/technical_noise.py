"""Classical noise of the light at one place of its path: a white floor and resonant lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from backaction.constants import TWO_PI
from backaction.elements.base import Element, Light
from backaction.elements.fields import Part, parts, quantity
from backaction.numerics.matrices import block_diagonal, cos_sin_deg, stack
from backaction.systems.labels import Mode, Port
from backaction.systems.linear import LinearSystem


@dataclass(frozen=True, kw_only=True)
class Line(Part):
    """A line of full width `width_hz` whose density at `center_hz` is `peak_sn` times vacuum."""

    center_hz: Any = quantity("Hz", above=0.0)
    width_hz: Any = quantity("Hz", above=0.0)
    peak_sn: Any = quantity("SN", minimum=0.0)


@dataclass(frozen=True, kw_only=True)
class TechnicalNoise(Element):
    """x_out = x_in + (cos angle, sin angle)^T [white floor + sum of lines]; acts on everything that follows.

    Each line is a classical two-variable state du = -(w/2) u + omega v + a xi_1, dv = -omega u - (w/2) v + a xi_2 read
    through u, with a chosen so that the density of u at the centre is exactly `peak_sn`/2:
    S_u(omega_0) = (a^2/2) [1/(w/2)^2 + 1/((w/2)^2 + 4 omega_0^2)].
    `angle_deg` is counted from X of the field: where its carrier is real, 0 is amplitude and 90 phase noise.
    """

    kind: ClassVar[str] = "technical_noise"
    angle_deg: Any = quantity("deg", 90.0)
    floor_sn: Any = quantity("SN", 0.0, minimum=0.0)
    lines: tuple[Line, ...] = parts(Line, "resonant lines")

    def build(self, light: Light = Light()) -> LinearSystem:
        """LinearSystem with inputs in, floor and one classical state per line, output out."""
        self._lab_only(light)
        c, s = cos_sin_deg(self.angle_deg)
        direction = stack([[c], [s]])
        modes = [Mode(f"{self.name}.{line.name}", "classical") for line in self.lines]
        drifts, gains = [], []
        for line in self.lines:
            omega, half = TWO_PI * np.asarray(line.center_hz), TWO_PI * np.asarray(line.width_hz) / 2
            drifts.append(stack([[-half, omega], [-omega, -half]]))
            peak = 1 / (half * half) + 1 / (half * half + 4 * omega * omega)
            gains.append(np.sqrt(1 / peak)[..., None, None] * np.eye(2))
        n = 2 * len(modes)
        A = block_diagonal(drifts) if drifts else np.zeros((0, 0))
        G = block_diagonal(gains) if gains else np.zeros((0, 0))
        B = np.concatenate([np.zeros((*G.shape[:-2], n, 3)), G], axis=-1)
        read = np.zeros((1, n))
        read[:, 0::2] = 1.0
        C = direction @ read
        D = np.concatenate(
            [
                np.broadcast_to(np.eye(2), (*direction.shape[:-2], 2, 2)),
                direction,
                np.zeros((*direction.shape[:-2], 2, n)),
            ],
            axis=-1,
        )
        # the driving density carries the peak, so that a line of zero height is still differentiable
        peaks = [np.asarray(line.peak_sn)[..., None, None] * np.eye(2) for line in self.lines]
        S = block_diagonal([0.5 * np.eye(2), stack([[np.asarray(self.floor_sn) / 2]]), *peaks])
        inputs = (
            Port(f"{self.name}.in", "field"),
            Port(f"{self.name}.floor", "classical", 1),
            *(Port(m.name, "classical") for m in modes),
        )
        return LinearSystem(
            A, B, C, D, S, tuple(modes), inputs, (Port(f"{self.name}.out", "field", carrier=light.carrier),)
        )
