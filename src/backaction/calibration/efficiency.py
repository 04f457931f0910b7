"""Efficiency and power budgets: detection from its factors, visibility, intracavity photons, g_0 from geometry."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from backaction.calibration.fitting import Values
from backaction.calibration.method import Method, Result
from backaction.constants import C_LIGHT, HBAR, TWO_PI
from backaction.elements.fields import choice, quantity, series
from backaction.errors import InputError, nearest
from backaction.records.tables import Table

KINDS = ("power", "amplitude")


@dataclass(frozen=True, kw_only=True)
class Efficiency(Method):
    """Detection efficiency from factors that each say whether they are powers or amplitudes.

    eta = product of power factors x product of amplitude factors squared. Each factor is "name = value : sd : kind".
    A visibility or a mode overlap of amplitudes enters squared; a quantum efficiency or a transmission of power does
    not: a factor that does not say its kind is refused. A number that was fitted with the product in it (a posterior)
    must not be multiplied again.
    """

    kind: ClassVar[str] = "efficiency"
    reads: ClassVar[str] = "no file: factors"
    stage: ClassVar[int] = 1
    files: ClassVar[tuple[int, int]] = (0, 0)

    factors: tuple[str, ...] = series("", '"visibility = 0.96 : 0.01 : amplitude", ...')
    clearance_db: Any = quantity(
        "dB", None, above=0.0, doc="shot noise over electronic noise, if that is left in the spectra"
    )
    field: str = "detector.efficiency"

    def run(self, tables: Sequence[Table] = (), given: Mapping[str, Any] | None = None) -> Result:
        """The efficiency with its error."""
        if not self.factors:
            raise InputError(f'{self.name} (efficiency): missing factors = ["name = value : sd : kind", ...]')
        inputs: dict[str, tuple[float, float]] = {}
        powers: dict[str, int] = {}
        for text in self.factors:
            name, value, sd, kind = _factor(text)
            if name in inputs:
                raise InputError(f"efficiency: two factors '{name}'")
            inputs[name], powers[name] = (value, sd), 2 if kind == "amplitude" else 1
        if self.clearance_db is not None:
            clear = 10 ** (float(self.clearance_db) / 10)
            inputs["electronics"], powers["electronics"] = (1 - 1 / clear, 0.0), 1
            if clear <= 1:
                raise InputError(f"efficiency: clearance_db = {float(self.clearance_db):g}: must be > 0")

        def product(v: Values) -> float:
            return float(np.prod([v[k] ** p for k, p in powers.items()]))

        return self.direct({"efficiency": (product, "1", "as a power")}, inputs, {self.field: "efficiency"})


def _factor(text: str) -> tuple[str, float, float, str]:
    name, _, rest = text.partition("=")
    parts = [p.strip() for p in rest.split(":")]
    name = name.strip()
    if not name or len(parts) != 3:
        raise InputError(f"efficiency: factor '{text}': expected name = value : sd : kind, kind of {', '.join(KINDS)}")
    if not all(re.fullmatch(r"[-+]?\d*\.?\d+([eE][-+]?\d+)?", p) for p in parts[:2]):
        raise InputError(f"efficiency: factor '{text}': value and sd must be numbers")
    value, sd = float(parts[0]), float(parts[1])
    if parts[2] not in KINDS:
        raise InputError(
            f"efficiency: {name}: kind = '{parts[2]}': must be power or amplitude{nearest(parts[2], KINDS)}"
        )
    if not 0 < value <= 1:
        raise InputError(f"efficiency: {name} = {value:g}: must be in (0, 1]")
    if not 0 <= sd < 1:
        raise InputError(f"efficiency: {name}: sd = {sd:g}: must be in [0, 1)")
    return name, value, sd, parts[2]


@dataclass(frozen=True, kw_only=True)
class Visibility(Method):
    """Amplitude overlap of two beams from their fringe.

    V (P1 + P2)/(2 sqrt(P1 P2)), V = (Imax - Imin)/(Imax + Imin) with the dark voltage subtracted; its square is a power.
    """

    kind: ClassVar[str] = "visibility"
    reads: ClassVar[str] = "no file: fringe and powers"
    stage: ClassVar[int] = 0
    files: ClassVar[tuple[int, int]] = (0, 0)

    maximum: Any = quantity("1", above=0.0)
    minimum: Any = quantity("1")
    dark: Any = quantity("1", 0.0, doc="detector voltage without light")
    signal_noise: Any = quantity("1", 0.0, minimum=0.0, doc="standard deviation of each of the two")
    power_1: Any = quantity("1", above=0.0)
    power_2: Any = quantity("1", above=0.0)
    relative_power_noise: Any = quantity("1", 0.0, minimum=0.0)

    def run(self, tables: Sequence[Table] = (), given: Mapping[str, Any] | None = None) -> Result:
        """The overlap, an amplitude: its square is the power factor."""
        high, low, dark = (float(x) for x in (self.maximum, self.minimum, self.dark))
        if not high > low or low < dark:
            raise InputError(
                f"visibility: need maximum > minimum >= dark, got {high:g}, {low:g}, {dark:g} (subtract the dark voltage)"
            )
        p1, p2 = float(self.power_1), float(self.power_2)

        def overlap(v: Values) -> float:
            fringe = (v["max"] - v["min"]) / (v["max"] + v["min"] - 2 * dark)
            return fringe * (v["p1"] + v["p2"]) / (2 * np.sqrt(v["p1"] * v["p2"]))

        sd, rel = float(self.signal_noise), float(self.relative_power_noise)
        inputs = {"max": (high, sd), "min": (low, sd), "p1": (p1, rel * p1), "p2": (p2, rel * p2)}
        greatest = 2 * np.sqrt(p1 * p2) / (p1 + p2)
        found = self.direct(
            {
                "overlap": (overlap, "1", "amplitude"),
                "efficiency": (lambda v: overlap(v) ** 2, "1", "its square: a power factor"),
            },
            inputs,
            {},
            (),
            [f"with these powers no fringe exceeds {greatest:.4g}"],
        )
        value = found["overlap"]
        if value.value - 2 * value.sd > 1:
            raise InputError(
                f"visibility: overlap {value.value:.4g} > 1: powers exchanged, saturated or wrong dark voltage?"
            )
        return found


@dataclass(frozen=True, kw_only=True)
class PowerBudget(Method):
    """Intracavity photons from power, g_0 from mass and geometry, g = g_0 sqrt N (textbook).

    N = kappa_in P/(hbar omega_L)/(kappa^2/4 + Delta^2), x_zpf = sqrt(hbar/(2 m omega_m)). `end_mirror`: g_0 =
    omega_c/L x_zpf. `membrane`: 2 r omega_c/L x_zpf overlap at the best position, with amplitude reflectivity r: the
    largest possible.
    """

    kind: ClassVar[str] = "power_budget"
    reads: ClassVar[str] = "no file: power, cavity, geometry"
    stage: ClassVar[int] = 4
    files: ClassVar[tuple[int, int]] = (0, 0)

    power_w: Any = quantity("W", None, minimum=0.0, doc="in the mode that enters, mode matching counted")
    relative_power_noise: Any = quantity("1", 0.0, minimum=0.0)
    wavelength_m: Any = quantity("m", above=0.0)
    cavity_linewidth_hz: Any = quantity("Hz", None, above=0.0)
    overcoupling: Any = quantity(
        "1", 1.0, above=0.0, maximum=1.0, doc="share of kappa of the port where the carrier enters"
    )
    cavity_linewidth_sd_hz: Any = quantity("Hz", 0.0, minimum=0.0)
    overcoupling_sd: Any = quantity("1", 0.0, minimum=0.0)
    detuning_hz: Any = quantity("Hz", 0.0)
    detuning_sd_hz: Any = quantity("Hz", 0.0, minimum=0.0)
    geometry: str = choice("", "", "end_mirror", "membrane")
    length_m: Any = quantity("m", None, above=0.0, doc="of the cavity")
    mass_kg: Any = quantity("kg", None, above=0.0, doc="effective mass")
    mechanical_hz: Any = quantity("Hz", None, above=0.0)
    reflectivity: Any = quantity("1", None, above=0.0, maximum=1.0, doc="amplitude reflectivity of the membrane")
    overlap: Any = quantity("1", 1.0, above=0.0, maximum=1.0, doc="of the optical and mechanical mode")
    single_photon_coupling_hz: Any = quantity("Hz", None, above=0.0, doc="g_0, instead of a geometry")
    single_photon_coupling_sd_hz: Any = quantity("Hz", 0.0, minimum=0.0)
    mass_sd_kg: Any = quantity("kg", 0.0, minimum=0.0)
    element: str = "membrane"

    def run(self, tables: Sequence[Table] = (), given: Mapping[str, Any] | None = None) -> Result:
        """Photons, g_0 and g, as far as the settings go."""
        functions: dict[str, tuple[Any, str, str]] = {}
        inputs: dict[str, tuple[float, float]] = {}
        priors: dict[str, str] = {}
        optical = TWO_PI * C_LIGHT / float(self.wavelength_m)
        if self.power_w is not None:
            if self.cavity_linewidth_hz is None:
                raise InputError("power_budget: power_w needs cavity_linewidth_hz")
            inputs["P"] = (float(self.power_w), float(self.relative_power_noise) * float(self.power_w))
            inputs["kappa"] = (float(self.cavity_linewidth_hz), float(self.cavity_linewidth_sd_hz))
            inputs["delta"] = (float(self.detuning_hz), float(self.detuning_sd_hz))
            inputs["share"] = (float(self.overcoupling), float(self.overcoupling_sd))

            def photons(v: Values) -> float:
                kappa, delta = TWO_PI * v["kappa"], TWO_PI * v["delta"]
                return v["P"] * v["share"] * kappa / (HBAR * optical) / (kappa**2 / 4 + delta**2)

            functions["photons"] = (photons, "1", "in the cavity")
            priors[f"{self.element}.photons"] = "photons"
        single: Any = None
        notes = []
        if self.single_photon_coupling_hz is not None:
            inputs["g0"] = (float(self.single_photon_coupling_hz), float(self.single_photon_coupling_sd_hz))
            single = lambda v: v["g0"]  # noqa: E731
        if self.geometry:
            need = ("length_m", "mass_kg", "mechanical_hz", *(("reflectivity",) if self.geometry == "membrane" else ()))
            missing = [k for k in need if getattr(self, k) is None]
            if missing:
                raise InputError(f"power_budget: geometry = {self.geometry} needs {', '.join(missing)}")
            inputs["mass"] = (float(self.mass_kg), float(self.mass_sd_kg))
            factor = float(self.overlap) * (2 * float(self.reflectivity) if self.geometry == "membrane" else 1.0)
            if self.geometry == "membrane":
                notes.append("g_0 of a membrane at its best position: an upper bound, no prior of the coupling")

            def zero_point(v: Values) -> float:
                return float(np.sqrt(HBAR / (2 * v["mass"] * TWO_PI * float(self.mechanical_hz))))

            def single(v: Values) -> float:
                return factor * optical / float(self.length_m) * zero_point(v) / TWO_PI

            functions["zero_point_m"] = (zero_point, "m", "x_zpf")
        if single is not None:
            functions["single_photon_coupling_hz"] = (single, "Hz", "g_0")
            if "photons" in functions:
                functions["coupling_hz"] = (lambda v: single(v) * np.sqrt(photons(v)), "Hz", "g = g_0 sqrt N, textbook")
                if self.geometry != "membrane":
                    priors[f"{self.element}.coupling_hz"] = "coupling_hz"
        if not functions:
            raise InputError("power_budget: give power_w, a geometry, or both")
        return self.direct(functions, inputs, priors, (), notes)
