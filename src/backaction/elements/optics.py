"""Passive and squeezing optics, frame-agnostic: the same 2x2 map acts on every (X, P) pair of a field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from backaction.elements.base import Element, Light
from backaction.elements.fields import quantity
from backaction.numerics.matrices import Array, block_diagonal, rotation_matrix, stack
from backaction.systems.labels import Port
from backaction.systems.linear import LinearSystem


def static(D: Array, S: Array, inputs: tuple[Port, ...], outputs: tuple[Port, ...]) -> LinearSystem:
    """A memoryless LinearSystem y = D w."""
    p, m = D.shape[-2:]
    return LinearSystem(np.zeros((0, 0)), np.zeros((0, m)), np.zeros((p, 0)), D, S, (), inputs, outputs)


def over_pairs(matrix: Array, pairs: int) -> Array:
    """Matrix (r x c blocks of scalars on pairs): each entry becomes entry x identity over the quadratures."""
    eye = np.eye(2 * pairs)
    return (matrix[..., :, None, :, None] * eye[:, None, :]).reshape(
        matrix.shape[:-2] + (matrix.shape[-2] * 2 * pairs, matrix.shape[-1] * 2 * pairs)
    )


def _mixer(transmission: Any) -> Array:
    t, r = np.sqrt(np.asarray(transmission) * 1.0), np.sqrt(1.0 - np.asarray(transmission))
    return stack([[t, r], [-r, t]])


@dataclass(frozen=True, kw_only=True)
class Loss(Element):
    """out = sqrt(T) in + sqrt(1 - T) vacuum, lost = -sqrt(1 - T) in + sqrt(T) vacuum; T is a power."""

    kind: ClassVar[str] = "loss"
    transmission: Any = quantity("1", minimum=0.0, root=True, maximum=1.0)

    def in_rotating_wave(self) -> tuple[tuple[Element, ...], Any]:
        """Itself: it acts on every sideband alike."""
        return (self,), None

    def build(self, light: Light = Light()) -> LinearSystem:
        """LinearSystem with inputs in, vacuum and outputs out, lost."""
        pairs = light.frame.pairs
        port = dict(kind="field", size=2 * pairs, frame=light.frame)
        D = over_pairs(_mixer(self.transmission), pairs)
        inputs = (Port(f"{self.name}.in", **port), Port(f"{self.name}.vacuum", **port))  # type: ignore[arg-type]
        outputs = (
            Port(f"{self.name}.out", carrier=light.carrier, **port),  # type: ignore[arg-type]
            Port(f"{self.name}.lost", carrier=light.carrier, **port),  # type: ignore[arg-type]
        )
        return static(D, 0.5 * np.eye(4 * pairs), inputs, outputs)


@dataclass(frozen=True, kw_only=True)
class BeamSplitter(Element):
    """[out; out2] = [sqrt T, sqrt(1-T); -sqrt(1-T), sqrt T] [in; in2]; the carrier is the one of `in`."""

    kind: ClassVar[str] = "beam_splitter"
    transmission: Any = quantity("1", minimum=0.0, root=True, maximum=1.0)

    def in_rotating_wave(self) -> tuple[tuple[Element, ...], Any]:
        """Itself: it acts on every sideband alike."""
        return (self,), None

    def build(self, light: Light = Light()) -> LinearSystem:
        """LinearSystem with inputs in, in2 and outputs out, out2."""
        pairs = light.frame.pairs
        port = dict(kind="field", size=2 * pairs, frame=light.frame)
        D = over_pairs(_mixer(self.transmission), pairs)
        inputs = tuple(Port(f"{self.name}.{k}", **port) for k in ("in", "in2"))  # type: ignore[arg-type]
        outputs = tuple(Port(f"{self.name}.{k}", carrier=light.carrier, **port) for k in ("out", "out2"))  # type: ignore[arg-type]
        return static(D, 0.5 * np.eye(4 * pairs), inputs, outputs)


@dataclass(frozen=True, kw_only=True)
class Rotation(Element):
    """Turns the field relative to its carrier: (X + iP) -> e^{i angle}(X + iP); the carrier is not touched."""

    kind: ClassVar[str] = "rotation"
    angle_deg: Any = quantity("deg")

    def in_rotating_wave(self) -> tuple[tuple[Element, ...], Any]:
        """Itself: it acts on every sideband alike."""
        return (self,), None

    def build(self, light: Light = Light()) -> LinearSystem:
        """LinearSystem with input in and output out."""
        pairs = light.frame.pairs
        D = block_diagonal([rotation_matrix(self.angle_deg)] * pairs)
        size = 2 * pairs
        return static(
            D,
            0.5 * np.eye(size),
            (Port(f"{self.name}.in", "field", size, light.frame),),
            (Port(f"{self.name}.out", "field", size, light.frame, light.carrier),),
        )


@dataclass(frozen=True, kw_only=True)
class Squeezer(Element):
    """Squeezes the quadrature at `angle_deg` from X: vacuum leaves with variance (1/2) 10^(-dB/10) along it.

    x_out = R(angle) diag(e^-r, e^r) R(-angle) x_in plus, for `purity` mu < 1, classical noise of density
    (1/2) e^{2r} (1/mu^2 - 1) in the anti-squeezed quadrature, so that 1/(2 sqrt(det V)) = mu.
    """

    kind: ClassVar[str] = "squeezer"
    squeezing_db: Any = quantity("dB", doc="> 0: squeezed")
    angle_deg: Any = quantity("deg", 0.0, doc="direction of the squeezed quadrature from X")
    purity: Any = quantity("1", 1.0, above=0.0, maximum=1.0)

    def in_rotating_wave(self) -> tuple[tuple[Element, ...], Any]:
        """Itself: it acts on every sideband alike."""
        return (self,), None

    def build(self, light: Light = Light()) -> LinearSystem:
        """LinearSystem with inputs in, impurity and output out."""
        pairs = light.frame.pairs
        power = np.asarray(self.squeezing_db) * (np.log(10.0) / 10.0)
        small, large = np.exp(-power / 2), np.exp(power / 2)
        R = rotation_matrix(self.angle_deg)
        M = R @ stack([[small, 0.0 * small], [0.0 * small, large]]) @ np.swapaxes(R, -1, -2)
        direction = R[..., :, 1:]
        excess = 0.5 * np.exp(power) * (1.0 / (np.asarray(self.purity) * 1.0) ** 2 - 1.0)
        maps, noise = block_diagonal([M] * pairs), block_diagonal([direction] * pairs)
        shape = np.broadcast_shapes(maps.shape[:-2], noise.shape[:-2])
        D = np.concatenate([np.broadcast_to(a, shape + a.shape[-2:]) for a in (maps, noise)], axis=-1)
        S = block_diagonal([0.5 * np.eye(2 * pairs), *[stack([[excess]])] * pairs])
        size = 2 * pairs
        inputs = (
            Port(f"{self.name}.in", "field", size, light.frame),
            Port(f"{self.name}.impurity", "classical", pairs),
        )
        return static(D, S, inputs, (Port(f"{self.name}.out", "field", size, light.frame, light.carrier),))
