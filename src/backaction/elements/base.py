"""What every element shares: fields with units and bounds, validation, overrides, the light that reaches it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from backaction.elements.fields import Part, parts, quantity
from backaction.errors import InputError, nearest
from backaction.numerics.matrices import Pair, block_diagonal, cos_sin_deg, join, stack
from backaction.systems.labels import LAB, Frame, Port
from backaction.systems.linear import LinearSystem
from backaction.systems.periodic import PeriodicSystem


@dataclass(frozen=True)
class Light:
    """The field that reaches an element: its frame, and (cos, sin) of its carrier's phase in that frame."""

    frame: Frame = LAB
    carrier: Pair = (1.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class Drive(Part):
    """Classical white noise added to one quadrature of the input field `name` of an element, on top of what is there.

    The density of X cos(angle) + P sin(angle) of that field grows by `excess_sn` times the vacuum's: the n_WN of Moller
    2017 (S39). X, P are those of the field's own frame: amplitude and phase where its carrier is real, as at the entrance of
    a path; behind a detuned cavity the carrier is turned. It is a source of its own, `element.port_drive`.
    """

    excess_sn: Any = quantity("SN", 0.0, minimum=0.0, doc="added density, in units of vacuum")
    angle_deg: Any = quantity("deg", 0.0, doc="of the driven quadrature from X of the field")


@dataclass(frozen=True, kw_only=True)
class Element(Part):
    """One physical thing on the path of the light; builds a `LinearSystem` with ports `name.in`, `name.out`, ..."""

    kind: ClassVar[str] = ""
    carries_on: ClassVar[bool] = True
    """Whether light leaves at `name.out`."""
    detects: ClassVar[bool] = False
    """Whether its outputs are the currents of a detector."""
    mechanical: ClassVar[bool] = False
    """Whether offsets of other elements may refer to it: it has `effective_mechanics`."""
    turns: ClassVar[bool] = False
    """Whether its exact equations are periodic: it has `periodic` and `terms`."""

    drive: tuple[Drive, ...] = parts(Drive, "classical noise at an input field; `name` is the port, such as in")

    def build(self, light: Light = Light()) -> LinearSystem:
        """The element as a `LinearSystem`, given the light that reaches it."""
        raise InputError(f"{self.name}: elements of kind '{self.kind}' cannot be built")

    def at_frequency(self, frequency_hz: Any = None) -> Self:
        """The element that acts as this one does at each frequency alone; itself unless it is structurally damped.

        Without a frequency each mode is taken at its own, where its linewidth is the one given.
        """
        return self

    @property
    def light_frame(self) -> Frame | None:
        """The frame of light that it needs; None where it takes the lab's or any."""
        return None

    @property
    def needs_reference(self) -> bool:
        """Whether a frequency is given relative to the effective mechanics of another element."""
        return False

    def resolved(self, omega_eff_hz: Any, gamma_eff_hz: Any) -> Self:
        """The element with that frequency in Hz."""
        return self

    def effective_mechanics(self) -> tuple[Any, Any]:
        """Effective frequency and full linewidth of its mechanical mode, Hz."""
        raise InputError(f"{self.name} ({self.kind}) has no effective mechanics")

    def in_rotating_wave(self) -> tuple[tuple[Element, ...], Any] | None:
        """The elements in its place in the rotating-wave limit and |frequency| (Hz; None where it has none).

        None for an element without such a limit.
        """
        return None

    def periodic(self, light: Light = Light(), below_hz: float | None = None) -> PeriodicSystem:
        """The element with all that turns (slower than `below_hz`)."""
        raise InputError(f"{self.name} ({self.kind}) has no periodic equations")

    def terms(self) -> list[Any]:
        """What turns and what stands still in its rotating frames (`driven_cavity.Term`)."""
        return []

    def facts(self, reference: Element | None) -> dict[str, Any]:
        """Derived numbers for people (`show`), in words; `reference` is where its offsets refer to."""
        return {}

    @property
    def spectral(self) -> bool:
        """Whether the element has no state space: it is known by frequency only."""
        return getattr(self, "damping", "") == "structural"

    def driven(self, system: LinearSystem) -> LinearSystem:
        """The built element with the noise of `drive` added to its input fields."""
        for d in self.drive:
            fields_in = [p for p in system.inputs if p.kind == "field"]
            name = f"{self.name}.{d.name}"
            if name not in [p.name for p in fields_in]:
                here = [p.name.removeprefix(f"{self.name}.") for p in fields_in]
                raise InputError(
                    f"{self.name}.{d.name}: no such input field{nearest(d.name, here)}; here: {', '.join(here)}"
                )
            port = next(p for p in fields_in if p.name == name)
            c, s = cos_sin_deg(d.angle_deg)
            turn = block_diagonal([stack([[c], [s]])] * port.frame.pairs)
            columns = system.input(name)
            system = LinearSystem(
                system.A,
                join([system.B, system.B[..., columns] @ turn], -1),
                system.C,
                join([system.D, system.D[..., columns] @ turn], -1),
                block_diagonal([system.S, *[stack([[np.asarray(d.excess_sn) / 2]])] * port.frame.pairs]),
                system.modes,
                (*system.inputs, Port(f"{name}_drive", "classical", port.frame.pairs)),
                system.outputs,
            )
        return system

    def with_values(self, values: Mapping[str, Any], where: str = "--set") -> Self:
        """As `Part.with_values`; the first value of a `drive` (`in.excess_sn`) creates it."""
        known, keys = [p.name for p in self.all_parts()], Drive.keys()
        new: list[str] = []
        for path in values:
            head, _, tail = path.partition(".")
            if not tail or head in known:
                continue
            if tail in keys:
                new += [head] if head not in new else []
            elif (hint := nearest(tail, keys)) and not nearest(head, known):
                raise InputError(f"{where}: {self.name}.{head}: unknown key '{tail}'{hint}")
        if not new:
            return super().with_values(values, where)
        return replace(self, drive=(*self.drive, *[Drive(name=n) for n in new])).with_values(values, where)

    def value(self, path: str) -> Any:
        """As `Part.value`; None for a `drive` that is not there."""
        head, _, tail = path.partition(".")
        keys = Drive.keys()
        if tail in keys and not any(p.name == head for p in self.all_parts()):
            return None
        return super().value(path)

    def _lab_only(self, light: Light) -> None:
        if light.frame != LAB:
            raise InputError(f"{self.name} ({self.kind}) needs light in the lab frame, got {light.frame}")
