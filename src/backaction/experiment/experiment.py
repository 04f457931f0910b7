"""An experiment: elements on the path of the light, read from TOML or written in Python, and built into one system."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from backaction.elements.base import Element
from backaction.errors import InputError, ModelError, nearest
from backaction.experiment import network, toml
from backaction.experiment.prior import Prior
from backaction.experiment.toml import shipped_experiments
from backaction.systems.linear import LinearSystem
from backaction.systems.periodic import PeriodicSystem
from backaction.systems.view import View


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
    likelihood, start
        How `analyze` compares a record with the model (`inference.scatter`): "auto", "gamma", "thomas2021" or "innovations";
        and how modes that the record does not resolve start there: anywhere ("free"), with an occupation that is fitted
        ("fitted"), or "stationary".
    """

    elements: tuple[Element, ...]
    modes: tuple[str, ...] = ()
    connections: Mapping[str, str] = field(default_factory=dict)
    priors: Mapping[str, Prior] = field(default_factory=dict)
    band_hz: tuple[float, float] | None = None
    name: str = "experiment"
    description: str = ""
    stabilised: str = ""
    likelihood: str = "auto"
    start: str = "free"

    def __post_init__(self) -> None:
        object.__setattr__(self, "elements", tuple(self.elements))
        object.__setattr__(self, "modes", tuple(self.modes))
        if self.stabilised not in ("", "externally"):
            raise InputError(f"{self.name}: stabilised = {self.stabilised!r}: must be 'externally', or left out")
        toml.allowed(f"{self.name}: [analysis]", "likelihood", self.likelihood, toml.LIKELIHOODS)
        toml.allowed(f"{self.name}: [analysis]", "start", self.start, toml.STARTS)
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
        found = toml.read(text, where)
        priors = found.pop("priors")
        bare = cls(**found)
        out = replace(bare, priors={path: toml.read_prior(bare, path, item, where) for path, item in priors.items()})
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

    def reference_of(self, element: Element) -> Element | None:
        """The element whose effective mechanics an offset of `element` refers to: the next one on the path, or any."""
        return network.reference_of(element, self.elements)

    def resolved(self) -> Experiment:
        """The same experiment with every relative frequency replaced by its value."""
        return self._with_elements(network.resolved(self.name, self.elements))

    def rotating_wave(self) -> Experiment:
        """The same path with every spin and one-sided cavity in the rotating-wave limit (`sideband_oscillator`).

        A cavity `m` becomes an oscillator `m` between rotations `m_phase` and `m_phase_out` (the sidebands' common phase
        relative to the carrier, in and out). Detectors then have cosine and sine currents.

        Raises
        ------
        InputError
            For elements that have no such limit, or oscillators that are not resonant with one another.
        """
        elements = network.rotating_wave(self.name, self.resolved().elements)
        return replace(self, elements=elements, priors={}, band_hz=None, name=f"{self.name}, rotating wave")

    def frictional(self, frequency_hz: Any = None) -> Experiment:
        """The same with structural damping as friction of its strength at `frequency_hz` (default: at each mode's own)."""
        return replace(self, elements=tuple(e.at_frequency(frequency_hz) for e in self.elements), priors={})

    def _with_elements(self, elements: tuple[Element, ...]) -> Experiment:
        """A copy with other values; the prior of a field that is not set any more goes with it."""
        new = replace(self, elements=elements, priors={})
        return replace(new, priors={k: p for k, p in self.priors.items() if new.value(k) is not None})

    def build(self) -> LinearSystem:
        """The whole network as one `LinearSystem`; leading axes of the fields broadcast."""
        return network.network(self.name, network.resolved(self.name, self.elements), self.connections)

    def periodic(self, below_hz: float | None = None) -> PeriodicSystem:
        """The network with all that turns (slower than `below_hz`) in its one driven cavity: beyond the rotating wave.

        Raises
        ------
        InputError
            Without a `driven_cavity`, or with several.
        """
        return network.periodic(self.name, network.resolved(self.name, self.elements), self.connections, below_hz)

    spectra_only = property(lambda self: bool(self.stabilised) or any(e.spectral for e in self.elements))
    """Whether there is a `Response` alone: stabilised externally, or structural damping."""

    @functools.cached_property
    def system(self) -> LinearSystem:
        """The built system (computed once); raises ModelError for an experiment that is stabilised externally."""
        if self.stabilised:
            raise ModelError(f"{self.name}: stabilised externally: spectra only; the servo is not in the model")
        return self.build()

    @functools.cached_property
    def layout(self) -> LinearSystem:
        """A system with the names of this one: its own, or that of a batch's first point."""
        return self.system if self.single is self else self.single.system

    @functools.cached_property
    def single(self) -> Experiment:
        """The experiment itself, or the first point of a batch."""
        arrays = {k: np.asarray(self.value(k)).flat[0] for k in self.fields() if np.ndim(self.value(k)) > 0}
        return self.with_values(arrays, self.name) if arrays else self

    @functools.cached_property
    def view(self) -> View:
        """The system seen through its reported modes: what every result is a function of.

        Many points of a model of few states are solved for by compiled loops (`experiment.program`).

        Raises
        ------
        InputError
            If a reported mode does not exist, or is classical noise.
        """
        modes = self._modes()
        if self.single is self:
            return View(self.system, modes)
        from backaction.experiment.program import batch

        return batch(self, modes) or View(self.system, modes)

    def reported_modes(self) -> tuple[str, ...]:
        """`modes`, or all oscillators in path order; checked against the system."""
        return self._modes()

    def _modes(self) -> tuple[str, ...]:
        kinds = {m.name: m.kind for m in self.layout.modes}
        if not self.modes:
            found = tuple(name for name, kind in kinds.items() if kind == "oscillator")
            if not found:
                raise InputError(f"{self.name}: has no oscillator: there is no state to report")
            return found
        for name in self.modes:
            if name not in kinds:
                raise InputError(f"[state] modes: no mode '{name}'{nearest(name, list(kinds))}")
            if kinds[name] == "classical":
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
        chosen: dict[str, Any] = {"band_hz": list(self.band_hz)} if self.band_hz else {}
        words = {"likelihood": (self.likelihood, "auto"), "start": (self.start, "free")}
        chosen |= {key: word for key, (word, default) in words.items() if word != default}
        if chosen:
            out["analysis"] = chosen
        return out

    def to_toml(self) -> str:
        """The experiment as TOML text that `from_toml` reads back to the same system, digit by digit."""
        return toml.write(self.to_dict())

    def detectors(self) -> tuple[Element, ...]:
        """The detectors, in path order."""
        return tuple(e for e in self.elements if e.detects)

    @property
    def electronic_noise_sn(self) -> float:
        """Electronic noise of the first detector, 0 where there is none."""
        return float(np.real(self.detectors()[0].value("electronic_noise_sn"))) if self.detectors() else 0.0
