"""An experiment: elements on the path of the light, read from TOML or written in Python, and built into one system."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from backaction.elements.base import Element, Light
from backaction.elements.driven_cavity import DrivenCavity
from backaction.elements.homodyne import Homodyne
from backaction.elements.optics import BeamSplitter, Loss, Rotation, Squeezer
from backaction.elements.optomechanical_cavity import OptomechanicalCavity
from backaction.elements.sideband_oscillator import SidebandOscillator
from backaction.elements.spin_oscillator import SpinOscillator
from backaction.errors import InputError, ModelError, nearest
from backaction.experiment.prior import Prior
from backaction.experiment.toml import _element, _section, _tables, _toml, read_prior, shipped_experiments
from backaction.systems.linear import LinearSystem, connect
from backaction.systems.periodic import PeriodicSystem
from backaction.units import number


@dataclass(frozen=True)
class Experiment:
    """Elements in the order of the light, the modes to report, further connections and priors. Immutable.

    Parameters
    ----------
    elements
        Path of the light: the output `a.out` of each element feeds the input `b.in` of the next.
    modes
        Names of the reported modes; two of them are the EPR pair. Default: path order without cavity,
        auxiliary and classical modes.
    connections
        Further or other connections, `{"a.port": "b.port"}`; they replace the default ones at those ports.
    priors
        Knowledge about parameters, by path `element.field`; these are the parameters that `analyze` fits.
    band_hz
        Frequencies that the analysis of a record looks at (lowest, highest).
    stabilised
        "externally": a servo that is not in the model holds what would be unstable by itself. Spectra only.
    """

    elements: tuple[Element, ...]
    modes: tuple[str, ...] = ()
    connections: Mapping[str, str] = field(default_factory=dict)
    priors: Mapping[str, Prior] = field(default_factory=dict)
    band_hz: tuple[float, float] | None = None
    name: str = "experiment"
    description: str = ""
    stabilised: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "elements", tuple(self.elements))
        object.__setattr__(self, "modes", tuple(self.modes))
        if self.stabilised not in ("", "externally"):
            raise InputError(f"{self.name}: stabilised = {self.stabilised!r}: must be 'externally', or left out")
        names = [e.name for e in self.elements]
        if not names:
            raise InputError(f"{self.name}: an experiment needs at least one element")
        twice = {n for n in names if names.count(n) > 1}
        if twice:
            raise InputError(f"{self.name}: two elements have the name '{sorted(twice)[0]}'")
        doubled = {m for m in self.modes if self.modes.count(m) > 1}
        if doubled:
            raise InputError(f"{self.name}: [state] modes names '{sorted(doubled)[0]}' twice")
        for path in self.priors:
            self.value(path)

    # -- reading --------------------------------------------------------------------------------------------------

    @classmethod
    def load(cls, source: str | Path) -> Experiment:
        """Read a shipped experiment by name, or a TOML file.

        Raises
        ------
        InputError
            One line naming file, element, key, value and what is allowed.
        """
        path = Path(source)
        if path.suffix != ".toml" and str(source) in shipped_experiments():
            text = (resources.files("backaction") / "data" / "experiments" / f"{source}.toml").read_text("utf-8")
            return cls.from_toml(text, str(source))
        if not path.is_file():
            what = "no such file" if path.suffix == ".toml" else "no such file or shipped experiment"
            raise InputError(f"{source}: {what}{nearest(str(source), shipped_experiments())}")
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            raise InputError(f"{source}: not readable as UTF-8 text") from None
        except OSError as error:
            raise InputError(f"{source}: {error.strerror}") from None
        return cls.from_toml(text, str(source))

    @classmethod
    def from_toml(cls, text: str, where: str = "experiment") -> Experiment:
        """Read an experiment from TOML text; `where` names it in errors."""
        try:
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise InputError(f"{where}: not valid TOML: {error}") from None
        known = ("name", "description", "state", "element", "connection", "prior", "analysis", "stabilised")
        for key in table:
            if key not in known:
                raise InputError(f"{where}: unknown key '{key}'{nearest(key, known)}")
        elements = tuple(_element(item, where) for item in _tables(table, "element", where))
        connections: dict[str, str] = {}
        for item in _tables(table, "connection", where):
            if set(item) != {"from", "to"}:
                raise InputError(f"{where}: [[connection]] needs exactly the keys 'from' and 'to', got {sorted(item)}")
            connections[str(item["from"])] = str(item["to"])
        state = _section(table, "state", ("modes",), where)
        analysis = _section(table, "analysis", ("band_hz",), where)
        modes = state.get("modes", [])
        named = isinstance(modes, list) and all(isinstance(m, str) for m in modes)
        if not named or ("modes" in state and not modes):
            raise InputError(f"{where}: [state] modes = {modes!r}: expected a list of mode names")
        band = analysis.get("band_hz")
        if band is not None:
            if not isinstance(band, list) or len(band) != 2:
                raise InputError(f"{where}: [analysis] band_hz = {band!r}: expected [lowest, highest]")
            low, high = (number(v, "Hz", f"{where}: [analysis] band_hz") for v in band)
            if not 0 <= low < high:
                raise InputError(f"{where}: [analysis] band_hz = [{low:g}, {high:g}]: needs 0 <= lowest < highest")
            band = (low, high)
        name, held = str(table.get("name", Path(where).stem)), str(table.get("stabilised", ""))
        if held not in ("", "externally"):
            raise InputError(f"{where}: stabilised = {held!r}: must be 'externally', or left out")
        bare = cls(elements, tuple(modes), connections, {}, band, name, stabilised=held)
        priors = {
            path: read_prior(bare, path, item, where) for path, item in _section(table, "prior", None, where).items()
        }
        out = replace(bare, priors=priors, description=str(table.get("description", "")).strip())
        try:
            out.reported_modes() if out.modes else out.system
        except InputError as error:
            raise type(error)(f"{where}: {error}") from None
        except ModelError:  # a valid file whose model has no such system: what is asked of it will say so
            pass
        return out

    # -- values ---------------------------------------------------------------------------------------------------

    def element(self, name: str) -> Element:
        """The element `name`."""
        for e in self.elements:
            if e.name == name:
                return e
        raise InputError(f"{self.name}: no element '{name}'{nearest(name, [e.name for e in self.elements])}")

    def value(self, path: str) -> Any:
        """The value at `element.field` (or `element.part.field`); None where it is not set."""
        head, _, tail = path.partition(".")
        if not tail:
            raise InputError(f"{self.name}: '{path}' is not of the form element.field")
        return self.element(head).value(tail)

    def with_values(self, values: Mapping[str, Any], where: str = "--set") -> Experiment:
        """A copy with fields changed by path; strings may carry a unit, numbers may be arrays (they broadcast)."""
        out = {e.name: e for e in self.elements}
        for path, value in values.items():
            head, _, tail = path.partition(".")
            if head not in out or not tail:
                hint = nearest(head, out) if head not in out else "; expected element.field"
                raise InputError(f"{where}: no element '{head}' in '{path}'{hint}")
            out[head] = out[head].with_value(tail, value, where)
        return self._with_elements(tuple(out[e.name] for e in self.elements))

    def overridden(self, values: Mapping[str, Any], where: str = "--set") -> Experiment:
        """`with_values` for a user's overrides: a normal prior of an overridden field moves its mean to the new value."""
        new = self.with_values(values, where)
        moved = {k: p.moved(float(new.value(k))) if k in values else p for k, p in new.priors.items()}
        return replace(new, priors=moved)

    def fields(self) -> list[str]:
        """Paths of all numeric fields that are set, in path order."""
        return [f"{e.name}.{k}" for e in self.elements for k in e.numeric_fields()]

    # -- building -------------------------------------------------------------------------------------------------

    def reference_cavity(self, spin: Element) -> OptomechanicalCavity | None:
        """The cavity whose effective mechanical frequency a spin's offset refers to: the next one on the path, or any."""
        at = self.elements.index(spin)
        for e in (*self.elements[at:], *self.elements[:at]):
            if isinstance(e, OptomechanicalCavity):
                return e
        return None

    def resolved(self) -> Experiment:
        """The same experiment with every relative frequency replaced by its value."""
        out: list[Element] = []
        for e in self.elements:
            if isinstance(e, SpinOscillator) and e.needs_reference:
                cavity = self.reference_cavity(e)
                if cavity is None:
                    raise InputError(
                        f"{self.name}: {e.name} has a Larmor offset, but there is no optomechanical_cavity"
                    )
                e = e.resolved(*cavity.effective_mechanics())
            out.append(e)
        return self._with_elements(tuple(out))

    def rotating_wave(self) -> Experiment:
        """The same path with every spin and one-sided cavity in the rotating-wave limit (`sideband_oscillator`).

        A cavity `m` becomes an oscillator `m` between rotations `m_phase` and `m_phase_out` (the sidebands' common phase
        relative to the carrier, in and out). Detectors then have cosine and sine currents.

        Raises
        ------
        InputError
            For elements that have no such limit, or oscillators that are not resonant with one another.
        """
        out: list[Element] = []
        frequencies: list[Any] = []
        for e in self.resolved().elements:
            if isinstance(e, OptomechanicalCavity):
                angle, oscillator = e.rotating_wave()
                out += [Rotation(name=f"{e.name}_phase", angle_deg=angle), oscillator]
                out.append(Rotation(name=f"{e.name}_phase_out", angle_deg=angle))
                frequencies.append(e.effective_mechanics()[0])
            elif isinstance(e, SpinOscillator):
                frequencies.append(np.abs(np.real(e.larmor_hz)))
                out.append(e.rotating_wave())
            elif isinstance(e, (Homodyne, Loss, Rotation, BeamSplitter, Squeezer)):
                out.append(e)
            else:
                raise InputError(f"{self.name}: {e.name} ({e.kind}) has no rotating-wave limit")
        apart = [np.max(np.abs(np.real(f) / np.real(frequencies[0]) - 1)) for f in frequencies]
        if max(apart, default=0.0) > 1e-9:
            raise InputError(
                f"{self.name}: the oscillators are not resonant ({max(apart):.3g} apart): no common rotating frame"
            )
        return replace(self, elements=tuple(out), priors={}, band_hz=None, name=f"{self.name}, rotating wave")

    def frictional(self, frequency_hz: Any = None) -> Experiment:
        """The same with structural damping as friction of its strength at `frequency_hz` (default: at each mode's own)."""
        return replace(self, elements=tuple(e.at_frequency(frequency_hz) for e in self.elements), priors={})

    def _with_elements(self, elements: tuple[Element, ...]) -> Experiment:
        """A copy with other values; the prior of a field that is not set any more goes with it."""
        new = replace(self, elements=elements, priors={})
        return replace(new, priors={k: p for k, p in self.priors.items() if new.value(k) is not None})

    def build(self) -> LinearSystem:
        """The whole network as one `LinearSystem`; leading axes of the fields broadcast."""
        return self._network()

    def _network(self, beyond: bool = False) -> LinearSystem:
        """All elements built and joined; `beyond`: driven cavities by the constant part of their `periodic`."""
        built: dict[str, LinearSystem] = {}
        sources: dict[str, str] = {}
        joined: dict[str, str] = {}
        carriers: dict[str, Light] = {}
        explicit = {b: a for a, b in self.connections.items()}
        previous: str | None = None
        elements = self.resolved().elements
        for e in elements:
            entry = f"{e.name}.in"
            leaves = not isinstance(e, Homodyne)
            if entry in explicit:
                sources[e.name] = explicit[entry]
            elif previous is not None and previous not in self.connections:
                sources[e.name] = joined_from = previous
                joined[joined_from] = entry
            previous = f"{e.name}.out" if leaves else None
        frames = [e.frame for e in elements if isinstance(e, SidebandOscillator)]
        start = Light(frames[0]) if frames else Light()
        # an element is built once the light that reaches it is known; a loop starts with a real carrier in the lab frame
        waiting = list(elements)
        while waiting:
            ready = next((e for e in waiting if sources.get(e.name) is None or sources[e.name] in carriers), waiting[0])
            waiting.remove(ready)
            light = carriers.get(sources.get(ready.name, ""), start)
            constant = beyond and isinstance(ready, DrivenCavity)
            system = ready.driven(ready.periodic(light).average if constant else ready.build(light))  # type: ignore[attr-defined]
            built[ready.name] = system
            for p in system.outputs:
                if p.kind == "field":
                    carriers[p.name] = Light(p.frame, p.carrier)
        systems = [built[e.name] for e in elements]
        try:
            return connect(systems, joined | dict(self.connections))
        except InputError as error:
            raise type(error)(f"{self.name}: {error}") from None

    def periodic(self, below_hz: float | None = None) -> PeriodicSystem:
        """The network with all that turns (slower than `below_hz`) in its one driven cavity: beyond the rotating wave.

        Raises
        ------
        InputError
            Without a `driven_cavity`, or with several.
        """
        driven = [e for e in self.elements if isinstance(e, DrivenCavity)]
        if len(driven) != 1:
            raise InputError(f"{self.name}: beyond the rotating wave needs one driven_cavity, here are {len(driven)}")
        own = driven[0].periodic(below_hz=below_hz)
        whole = self._network(beyond=True)
        index = whole.indices([m.name for m in own.average.modes])
        harmonics = {}
        for k, A in own.harmonics.items():
            full = np.zeros(whole.A.shape, dtype=complex)
            full[np.ix_(index, index)] = A
            harmonics[k] = full
        return PeriodicSystem(whole, own.frequency_hz, harmonics)

    spectra_only = property(lambda self: bool(self.stabilised) or any(e.spectral for e in self.elements))
    """Whether there is a `Response` alone: stabilised externally, or structural damping."""

    @functools.cached_property
    def system(self) -> LinearSystem:
        """The built system (computed once); raises ModelError for an experiment that is stabilised externally."""
        if self.stabilised:
            raise ModelError(f"{self.name}: stabilised externally: spectra only; the servo is not in the model")
        return self.build()

    def reported_modes(self) -> tuple[str, ...]:
        """`modes`, or all oscillators in path order; checked against the system."""
        system = self.system
        known = [m.name for m in system.modes]
        if not self.modes:
            found = tuple(m.name for m in system.modes if m.kind == "oscillator")
            if not found:
                raise InputError(f"{self.name}: has no oscillator: there is no state to report")
            return found
        for name in self.modes:
            if name not in known:
                raise InputError(f"[state] modes: no mode '{name}'{nearest(name, known)}")
            if next(m for m in system.modes if m.name == name).kind == "classical":
                raise InputError(f"[state] modes: '{name}' is classical noise, not a quantum mode")
        return self.modes

    def to_dict(self) -> dict[str, Any]:
        """The experiment as plain data: what `from_toml` reads, for provenance and JSON."""
        out: dict[str, Any] = {"name": self.name, "description": self.description}
        if self.stabilised:
            out["stabilised"] = self.stabilised
        out["element"] = [{"name": e.name, "kind": e.kind} | e.to_table() for e in self.elements]
        if self.modes:
            out["state"] = {"modes": list(self.modes)}
        if self.connections:
            out["connection"] = [{"from": a, "to": b} for a, b in self.connections.items()]
        if self.priors:
            out["prior"] = {
                k: {f.name: getattr(p, f.name) for f in fields(p) if getattr(p, f.name) is not None}
                for k, p in self.priors.items()
            }
        if self.band_hz:
            out["analysis"] = {"band_hz": list(self.band_hz)}
        return out

    def to_toml(self) -> str:
        """The experiment as TOML text that `from_toml` reads back to the same system, digit by digit."""
        table = self.to_dict()
        lines = [f"name = {_toml(table['name'])}", f"description = {_toml(table['description'])}"]
        lines += [f"stabilised = {_toml(self.stabilised)}"] if self.stabilised else []
        for key in ("state", "analysis"):
            lines += ["", f"[{key}]", *(f"{k} = {_toml(v)}" for k, v in table[key].items())] if key in table else []
        for key in ("element", "connection"):
            for item in table.get(key, []):
                lines += ["", f"[[{key}]]", *(f"{k} = {_toml(v)}" for k, v in item.items())]
        if "prior" in table:
            lines += ["", "[prior]", *(f"{_toml(k)} = {_toml(v)}" for k, v in table["prior"].items())]
        return "\n".join(lines) + "\n"

    def detectors(self) -> tuple[Homodyne, ...]:
        """The homodyne detectors, in path order."""
        return tuple(e for e in self.elements if isinstance(e, Homodyne))
