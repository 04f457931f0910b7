"""Names of what a system has: frames, modes, ports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from backaction.errors import InputError, nearest
from backaction.numerics.matrices import Array, Pair, symplectic


@dataclass(frozen=True)
class Frame:
    """The frame of quadratures: `lab` (the carrier's), `rotating` at, or `sidebands` about a cyclic frequency.

    In `rotating(f)` (X + iP)/sqrt 2 = a e^{2 pi i f t} is the envelope of an annihilation operator. In `sidebands(f)` a
    field or mode is a pair of modes c, s with P_c = sqrt(2) lowpass(P cos 2 pi f t) and P_s = sqrt(2) lowpass(P sin 2 pi f
    t); quadratures are ordered X_c, P_c, X_s, P_s (DESIGN section 2). A frequency of None is unspecified.
    """

    kind: Literal["lab", "sidebands", "rotating"] = "lab"
    frequency_hz: float | None = None

    @property
    def pairs(self) -> int:
        """Number of (X, P) pairs that one field has in this frame."""
        return 2 if self.kind == "sidebands" else 1

    def __str__(self) -> str:
        if self.kind == "lab":
            return "lab"
        if self.frequency_hz is None:
            return self.kind
        digits = "g" if self.kind == "sidebands" else ".12g"
        return f"{self.kind}({self.frequency_hz:{digits}} Hz)"


LAB = Frame()


def sidebands(frequency_hz: float) -> Frame:
    """The frame of the two sidebands about `frequency_hz` (see `Frame`)."""
    return Frame("sidebands", float(frequency_hz))


@dataclass(frozen=True)
class Mode:
    """A degree of freedom of the state: two quadratures (X, P), or `size` classical variables."""

    name: str
    kind: Literal["oscillator", "cavity", "auxiliary", "classical"] = "oscillator"
    size: int = 2
    frame: Frame = LAB


@dataclass(frozen=True)
class Port:
    """A named group of inputs or outputs.

    `kind` is `field` (travelling quadratures X, P, ...), `bath` (a reservoir's quantum noise), `classical` (a
    commuting noise) or `current` (a detector's output). `carrier` is (cos, sin) of the phase of the carrier that
    travels with an output field, in the frame of that field's quadratures.
    """

    name: str
    kind: Literal["field", "bath", "classical", "current"]
    size: int = 2
    frame: Frame = LAB
    carrier: Pair = field(default=(1.0, 0.0), compare=False)


def _slices(items: Sequence[Mode] | Sequence[Port]) -> dict[str, slice]:
    out: dict[str, slice] = {}
    start = 0
    for item in items:
        if item.name in out:
            raise InputError(f"two modes or ports have the name '{item.name}'")
        out[item.name] = slice(start, start + item.size)
        start += item.size
    return out


def _commutator(items: Sequence[Mode] | Sequence[Port]) -> Array:
    """I x (commutation matrix): Omega for quantum pairs, zero for classical variables and one-sided forces."""
    size = sum(item.size for item in items)
    out = np.zeros((size, size))
    start = 0
    for item in items:
        if item.kind not in ("classical", "current") and item.size % 2 == 0:
            out[start : start + item.size, start : start + item.size] = symplectic(item.size // 2)
        start += item.size
    return out


def _find(name: str, items: Sequence[Mode] | Sequence[Port], word: str) -> slice:
    where = _slices(items)
    if name not in where:
        raise InputError(f"no {word} '{name}'{nearest(name, where)}")
    return where[name]


def _describe(item: Mode | Port) -> str:
    frame = "" if item.frame == LAB else f", {item.frame}"
    return f"{item.name} ({item.kind}{frame})"
