"""Homodyne detection of one quadrature, referred to the carrier that arrives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from backaction.elements.base import Element, Light
from backaction.elements.fields import choice, quantity
from backaction.elements.optics import static
from backaction.numerics.matrices import block_diagonal, cos_sin_deg, stack
from backaction.systems.labels import Port
from backaction.systems.linear import LinearSystem


@dataclass(frozen=True, kw_only=True)
class Homodyne(Element):
    """y = sqrt(eta) (X sin theta + P cos theta) + sqrt(1 - eta) vacuum + electronic noise, carrier turned to +X first.

    `reference = "phase"` counts theta from P, as written; `"amplitude"` counts it from X: X cos theta + P sin theta.
    Vacuum has density 1/2, which is 1 shot-noise unit; `electronic_noise_sn` is added after the efficiency.
    `excess_noise_sn` is further white noise there whose origin is not known: what an analysis allows for.
    In a `sidebands` frame there are two currents, `name.cos` and `name.sin`.
    """

    kind: ClassVar[str] = "homodyne"
    carries_on: ClassVar[bool] = False
    detects: ClassVar[bool] = True
    efficiency: Any = quantity("1", 1.0, minimum=0.0, root=True, maximum=1.0)
    angle_deg: Any = quantity("deg", 0.0)
    reference: str = choice("phase", "phase", "amplitude")
    electronic_noise_sn: Any = quantity("SN", 0.0, minimum=0.0)
    excess_noise_sn: Any = quantity("SN", 0.0, minimum=0.0)

    def in_rotating_wave(self) -> tuple[tuple[Element, ...], Any]:
        """Itself: it acts on every sideband alike."""
        return (self,), None

    def build(self, light: Light = Light()) -> LinearSystem:
        """LinearSystem with inputs in, vacuum, electronic and the current(s)."""
        pairs = light.frame.pairs
        c, s = cos_sin_deg(self.angle_deg)
        row = stack([[s, c]]) if self.reference == "phase" else stack([[c, s]])
        cc, cs = (np.asarray(v) * 1.0 for v in light.carrier)
        turned = row @ stack([[cc, cs], [-cs, cc]])
        eta = np.asarray(self.efficiency) * 1.0
        passed, lost = np.sqrt(eta)[..., None, None] * turned, np.sqrt(1.0 - eta)[..., None, None] * turned
        noise = (np.asarray(self.electronic_noise_sn) + np.asarray(self.excess_noise_sn)) / 2
        parts = [block_diagonal([passed] * pairs), block_diagonal([lost] * pairs), np.eye(pairs)]
        shape = np.broadcast_shapes(*(b.shape[:-2] for b in parts))
        D = np.concatenate([np.broadcast_to(b, shape + b.shape[-2:]) for b in parts], axis=-1)
        S = block_diagonal([0.5 * np.eye(4 * pairs), *[stack([[noise]])] * pairs])
        size = 2 * pairs
        inputs = (
            Port(f"{self.name}.in", "field", size, light.frame),
            Port(f"{self.name}.vacuum", "field", size, light.frame),
            Port(f"{self.name}.electronic", "classical", pairs),
        )
        names = [self.name] if pairs == 1 else [f"{self.name}.cos", f"{self.name}.sin"]
        return static(D, S, inputs, tuple(Port(n, "current", 1, light.frame) for n in names))
