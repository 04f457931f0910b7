"""Dynamical back-action: optical spring and damping against detuning or power, and optomechanically induced transparency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from backaction.calibration.fitting import Fit, Gaussian, Relative, Unknown, Values, fit
from backaction.calibration.method import Method, Panel, Result
from backaction.elements.fields import choice, flag, quantity
from backaction.elements.optomechanical_cavity import OptomechanicalCavity
from backaction.errors import InputError, ModelError
from backaction.numerics.matrices import Array
from backaction.records.tables import Table
from backaction.systems.response import transfer


def weak_spring(g2: Any, kappa: Any, delta: Any, f: Any) -> tuple[Array, Array]:
    """(damping, shift) for weak coupling, all cyclic, textbook g.

    g^2 kappa [1/(k2 + (D+f)^2) - 1/(k2 + (D-f)^2)] and g^2 [(D+f)/(k2 + (D+f)^2) + (D-f)/(k2 + (D-f)^2)], k2 =
    kappa^2/4. The spring changes its sign at |D| = sqrt(f^2 - kappa^2/4) where f > kappa/2.
    """
    k2 = kappa**2 / 4
    up, down = delta + f, delta - f
    a, b = 1 / (k2 + up**2), 1 / (k2 + down**2)
    return np.asarray(g2 * kappa * (a - b)), np.asarray(g2 * (up * a + down * b))


@dataclass(frozen=True, kw_only=True)
class OpticalSpring(Method):
    """Coupling and kappa from optical damping and spring, against detuning (fixed input power) or against power.

    From the poles of the `optomechanical_cavity`, exact also for strong coupling (`weak_coupling`: the usual
    formulas). At fixed input power the coupling follows the intracavity field: g^2 = g_0^2/(1 + (2 Delta/kappa)^2);
    held constant it is wrong by tens of per cent. g is the textbook coupling, sqrt 2 times that of Thomas 2021.
    """

    kind: ClassVar[str] = "optical_spring"
    reads: ClassVar[str] = "detuning (or power), damping, frequency shift"
    stage: ClassVar[int] = 3

    against: str = choice("detuning", "detuning", "power")
    mechanical_hz: Any = quantity("Hz", above=0.0)
    intrinsic_linewidth_hz: Any = quantity("Hz", 1.0, above=0.0, doc="without light; the data hold what is added to it")
    damping_noise: Any = quantity("1", above=0.0, doc="relative standard deviation of the damping")
    damping_floor_hz: Any = quantity(
        "Hz", 0.0, minimum=0.0, doc="and its absolute part: needed where the damping nearly vanishes"
    )
    shift_noise_hz: Any = quantity("Hz", above=0.0, doc="standard deviation of the frequency shift")
    offset_sd_hz: Any = quantity("Hz", 5e4, above=0.0, doc="prior of a common offset of the detunings")
    detuning_hz: Any = quantity("Hz", None, doc="against power: the fixed detuning")
    cavity_linewidth_hz: Any = quantity("Hz", None, above=0.0, doc="against power: kappa, known")
    operating_detuning_hz: Any = quantity("Hz", None, doc="against detuning: where the coupling is wanted (a prior)")
    weak_coupling: bool = flag("use the formulas for weak coupling")
    data_unit: str = choice("kHz", "kHz", "Hz", "MHz", doc="of damping and shift")
    axis_unit: str = choice("", "", "Hz", "kHz", "MHz", "W", "mW")
    element: str = "membrane"

    def run(self, tables: Sequence[Table], given: Mapping[str, Any] | None = None) -> Result:
        """Coupling and kappa (against detuning), or the coupling per root power."""
        table = tables[0]
        scale = {"Hz": 1.0, "kHz": 1e3, "MHz": 1e6}[self.data_unit]
        damping, shift = table.column(1) * scale, table.column(2) * scale
        by_power = self.against == "power"
        if not self.damping_floor_hz and np.min(np.abs(damping)) < 0.01 * np.max(np.abs(damping)):
            raise InputError(
                f"{table.name}: the damping nearly vanishes at a point: give damping_floor_hz, its absolute error there"
            )
        axis = table.axis(0, "W" if by_power else "Hz", self.axis_unit)
        blocks: list[Any] = [
            Relative(damping, float(self.damping_noise), float(self.damping_floor_hz)),
            Gaussian(shift, float(self.shift_noise_hz)),
        ]
        unknowns, starts = self._by_power(axis, damping) if by_power else self._by_detuning(axis, damping)
        found = fit(lambda v: self.model(v, axis), blocks, unknowns, starts, self.kind)
        mu = self.model(found.values, axis)
        x, label = (axis * 1e3, "power (mW)") if by_power else (axis / 1e3, "detuning (kHz)")
        panels = [
            Panel(t, x, y / 1e3, m / 1e3, None, label, f"{t} (kHz)")
            for t, y, m in (("optical damping", damping, mu[0]), ("optical spring", shift, mu[1]))
        ]
        priors = {} if by_power else {f"{self.element}.cavity_linewidth_hz": "cavity_linewidth_hz"}
        notes = (
            []
            if by_power
            else ["coupling_hz is that on resonance, at the input power of the data; textbook convention"]
        )
        derived: dict[str, tuple[Any, str, str]] = {}
        if self.operating_detuning_hz is not None and not by_power:
            here = float(self.operating_detuning_hz)
            derived["operating_coupling_hz"] = (
                lambda v: v["coupling_hz"] / np.sqrt(1 + (2 * here / v["cavity_linewidth_hz"]) ** 2),
                "Hz",
                f"g at {here:g} Hz",
            )
            priors[f"{self.element}.coupling_hz"] = "operating_coupling_hz"
        return self.report(found, derived, priors, panels, (), notes)

    def _by_power(self, axis: Array, damping: Array) -> tuple[list[Unknown], list[dict[str, float]]]:
        """Unknown coupling per root power, from the largest damping over that of a trial coupling; no further starts."""
        if self.detuning_hz is None or self.cavity_linewidth_hz is None:
            raise InputError("optical_spring: against power needs detuning_hz and cavity_linewidth_hz")
        d, k = float(self.detuning_hz), float(self.cavity_linewidth_hz)
        unit = float(np.max(np.abs(self._pole(1e3 * np.ones(1), k, np.array([d]))[0])))
        g = float(np.sqrt(np.max(np.abs(damping)) / max(unit, 1e-300) / np.max(axis))) * 1e3
        return [Unknown("coupling_per_root_watt_hz", g, 0.02 * g, "Hz", lower=0.0)], []

    def _by_detuning(self, axis: Array, damping: Array) -> tuple[list[Unknown], list[dict[str, float]]]:
        """Unknown coupling, kappa and offset of the detunings, from the size and place of the largest damping."""
        at = int(np.argmax(np.abs(damping)))
        k = 2 * max(abs(float(axis[at])), float(self.mechanical_hz) / 2)
        g = float(np.sqrt(np.max(np.abs(damping)) * k / 2))
        sd = float(self.offset_sd_hz)
        unknowns = [
            Unknown("coupling_hz", g, 0.02 * g, "Hz", lower=0.0),
            Unknown("cavity_linewidth_hz", k, 0.05 * k, "Hz", lower=0.0),
            Unknown("detuning_offset_hz", 0.0, sd / 10, "Hz", prior=(0.0, sd)),
        ]
        starts = [{"coupling_hz": g * a, "cavity_linewidth_hz": k * b} for a in (0.5, 2.0) for b in (0.5, 1.5, 3.0)]
        return unknowns, starts

    def model(self, v: Values, axis: Array) -> tuple[Array, Array]:
        """(damping, shift) at g = c sqrt(P), or at g = g_0/sqrt(1 + (2 Delta/kappa)^2) against detuning."""
        if self.against == "power":
            g = v["coupling_per_root_watt_hz"] * np.sqrt(axis)
            return self._pole(g, float(self.cavity_linewidth_hz), float(self.detuning_hz) + 0 * axis)
        k, d = v["cavity_linewidth_hz"], axis + v["detuning_offset_hz"]
        return self._pole(v["coupling_hz"] / np.sqrt(1 + (2 * d / k) ** 2), k, d)

    def _pole(self, g: Array, kappa: float, delta: Array) -> tuple[Array, Array]:
        f, gamma = float(self.mechanical_hz), float(self.intrinsic_linewidth_hz)
        if self.weak_coupling:
            return weak_spring(g**2, kappa, delta, f)
        cavity = OptomechanicalCavity(
            name="m",
            mechanical_hz=f,
            mechanical_linewidth_hz=gamma,
            bath_occupation=0.0,
            cavity_linewidth_hz=kappa,
            overcoupling=1.0,
            detuning_hz=delta,
            coupling_hz=g,
        )
        frequency, width = cavity.effective_mechanics()
        return width - gamma, frequency - f


@dataclass(frozen=True, kw_only=True)
class Transparency(Method):
    """Coupling, widths and cooperativity from OMIT or OMIA: the complex reflection of a weak probe near a sideband.

    r(f) = 1 - kappa_ex (c_- - S)/((c_+ + S)(c_- - S) + S^2), c_+- = kappa/2 -+ i(Delta +- f), here computed from the
    `optomechanical_cavity` with both sidebands. |r|^2 cannot tell kappa_ex from kappa - kappa_ex: the complex r is
    fitted.
    """

    kind: ClassVar[str] = "transparency"
    reads: ClassVar[str] = "probe frequency from the tone, Re r, Im r"
    stage: ClassVar[int] = 3

    cavity_linewidth_hz: Any = quantity("Hz", above=0.0, doc="kappa")
    detuning_hz: Any = quantity(
        "Hz",
        None,
        doc="of the tone; default on the sideband: red for probes above it, blue for negative probe frequencies",
    )
    noise: Any = quantity("1", above=0.0, doc="standard deviation of Re r and of Im r")
    free_amplitude: bool = flag("fit a complex factor of r: a probe that is not normalised")
    axis_unit: str = choice("", "", "Hz", "kHz", "MHz")
    element: str = "membrane"

    def run(self, tables: Sequence[Table], given: Mapping[str, Any] | None = None) -> Result:
        """Coupling, mechanical frequency and width, external coupling, cooperativity."""
        table = tables[0]
        f = table.axis(0, "Hz", self.axis_unit)
        r = table.column(1) + 1j * table.column(2)
        kappa = float(self.cavity_linewidth_hz)
        if not np.all(np.isfinite(r)):
            raise InputError(f"{table.name}: the data hold values that are not finite")
        edge = (r[0] + r[-1]) / 2
        line = np.abs(r - edge)
        centre = float(f[np.argmax(line)])
        broad = max(float(np.ptp(f[line > line.max() / np.sqrt(2)])), 2 * float(np.median(np.diff(f))))
        share = float(np.clip((1 - np.real(edge)) / 2, 0.05, 0.98))
        unknowns = [
            Unknown("coupling_hz", np.sqrt(0.6 * broad * kappa / 4), 0.1 * np.sqrt(broad * kappa / 4), "Hz", lower=0.0),
            Unknown("mechanical_hz", abs(centre), 0.1 * broad, "Hz"),
            Unknown("mechanical_linewidth_hz", 0.4 * broad, 0.05 * broad, "Hz", lower=1e-3 * broad),
            Unknown("external_hz", share * kappa, 0.02 * kappa, "Hz", lower=0.0, upper=kappa),
        ]
        if self.free_amplitude:
            unknowns += [Unknown("amplitude", 1.0, 0.02, lower=0.0), Unknown("phase_rad", 0.0, 0.02, "rad")]
        starts = [
            {
                "external_hz": s * kappa,
                "coupling_hz": np.sqrt(a * broad * kappa / 4),
                "mechanical_linewidth_hz": b * broad,
            }
            for s in (share, 1 - share)
            for a, b in ((0.9, 0.1), (0.3, 0.7), (0.1, 0.9))
        ]
        found = fit(lambda v: [self.model(v, f)], [Gaussian(r, float(self.noise))], unknowns, starts, self.kind)
        self._seen(found, f, r)
        mu = self.model(found.values, f)
        x = (np.abs(f) - found["mechanical_hz"]) / 1e3
        panels = [
            Panel(f"{t} of r", x, part(r), part(mu), float(self.noise), "probe - mechanical frequency (kHz)", f"{t} r")
            for t, part in (("real part", np.real), ("imaginary part", np.imag))
        ]
        derived = {
            "cooperativity": (
                lambda v: 4 * v["coupling_hz"] ** 2 / (kappa * v["mechanical_linewidth_hz"]),
                "1",
                "4 g^2/(kappa gamma)",
            )
        }
        warnings = []
        if self.free_amplitude and abs(found.correlation("amplitude", "external_hz")) > 0.95:
            warnings.append("the span is short: the amplitude and kappa_ex are nearly the same thing")
        names = ("coupling_hz", "mechanical_linewidth_hz", "mechanical_hz")
        priors = {f"{self.element}.{k}": k for k in names}
        return self.report(found, derived, priors, panels, warnings)

    def _seen(self, found: Fit, f: Array, r: Array) -> None:
        """Refuse where a cavity without mechanics describes the data as well."""
        names = ["external_hz", "amplitude", "phase_rad"] + (["mechanical_hz"] if self.detuning_hz is None else [])
        free = [u for u in found.unknowns if u.name in names]  # the tone's detuning follows the mechanical frequency
        held = found.values | {"coupling_hz": 0.0}
        bare = fit(lambda v: [self.model(held | dict(v), f)], [Gaussian(r, float(self.noise))], free, (), self.kind)
        if bare.deviance - found.deviance < 30:
            raise ModelError(
                "transparency: no mechanical line: a bare cavity describes the data as well (chi2 larger by "
                f"{bare.deviance - found.deviance:.3g})"
            )

    def model(self, v: Values, f: Array) -> Array:
        """Complex reflection by the element: the a -> a part of its transfer between quadratures."""
        kappa = float(self.cavity_linewidth_hz)
        tone = -np.sign(f[0]) * v["mechanical_hz"] if self.detuning_hz is None else float(self.detuning_hz)
        cavity = OptomechanicalCavity(
            name="m",
            mechanical_hz=v["mechanical_hz"],
            mechanical_linewidth_hz=v["mechanical_linewidth_hz"],
            bath_occupation=0.0,
            cavity_linewidth_hz=kappa,
            overcoupling=v["external_hz"] / kappa,
            coupling_hz=v["coupling_hz"],
            damping="symmetric",
            detuning_hz=tone,
        )
        H = transfer(cavity.build(), f, ["m.out"])[:, :, :2]
        r = -(H[:, 0, 0] + H[:, 1, 1] + 1j * (H[:, 1, 0] - H[:, 0, 1])) / 2
        return r * v.get("amplitude", 1.0) * np.exp(1j * v.get("phase_rad", 0.0))
