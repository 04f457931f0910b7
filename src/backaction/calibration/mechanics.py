"""Mechanical calibrations by excitation: ring-down, driven force, and a phase-modulation tone for g_0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from backaction.calibration.fitting import Unknown, Values, fit
from backaction.calibration.method import Method, Panel, Result, Scatter
from backaction.calibration.thermal import ThermalOscillator
from backaction.constants import K_B, TWO_PI
from backaction.elements.baths import occupation_at
from backaction.elements.fields import choice, quantity, series
from backaction.errors import InputError, ModelError
from backaction.numerics.matrices import Array
from backaction.records.spectrum import Spectrum
from backaction.records.tables import Table, to_spectrum


@dataclass(frozen=True, kw_only=True)
class Ringdown(Method, Scatter):
    """Intrinsic mechanical linewidth (full, of energy) from a ring-down.

    Energy ~ exp(-2 pi gamma t). `power`: A exp(-2 pi gamma t) + floor; `amplitude`: sqrt of that; `quadratures`: Re
    and Im of a demodulated ring-down, A exp(-pi gamma t + i(2 pi df t + phi)), with its frequency from the reference.
    """

    kind: ClassVar[str] = "ringdown"
    reads: ClassVar[str] = "time, then power, amplitude, or Re and Im (layout)"
    stage: ClassVar[int] = 3

    layout: str = choice("power", "power", "amplitude", "quadratures")
    reference_hz: Any = quantity("Hz", None, doc="of the demodulation")
    element: str = "membrane"

    def run(self, tables: Sequence[Table], given: Mapping[str, Any] | None = None) -> Result:
        """Linewidth, quality factor where the frequency is known."""
        table = tables[0]
        t = table.axis(0, "s", self.axis_unit)
        t = t - t[0]
        y: Array = table.column(1) + 1j * table.column(2) if self.layout == "quadratures" else table.column(1)
        unknowns = self._unknowns(table.name, t, y)
        rate = unknowns[0].start
        found = self.rescaled(
            fit(
                lambda v: [self.model(v, t)],
                [self.block(y, table)],
                unknowns,
                [{"mechanical_linewidth_hz": k * rate} for k in (0.3, 3.0)],
                self.kind,
            )
        )
        warnings = []
        if t[-1] < 0.5 / (TWO_PI * found["mechanical_linewidth_hz"]):
            warnings.append(
                "the record is shorter than half a decay time: floor and linewidth are nearly the same thing"
            )
        derived: dict[str, tuple[Any, str, str]] = {}
        if self.reference_hz is not None:
            f0 = float(self.reference_hz)
            derived["mechanical_hz"] = (lambda v: f0 + v.get("offset_hz", 0.0), "Hz", "")
            derived["quality_factor"] = (
                lambda v: (f0 + v.get("offset_hz", 0.0)) / v["mechanical_linewidth_hz"],
                "1",
                "f/gamma",
            )
        mu = self.model(found.values, t)
        panel = Panel("ring-down", t, np.abs(y), np.abs(mu), None, "time (s)", "signal", True)
        return self.report(
            found, derived, {f"{self.element}.mechanical_linewidth_hz": "mechanical_linewidth_hz"}, [panel], warnings
        )

    def _unknowns(self, name: str, t: Array, y: Array) -> list[Unknown]:
        """Starts from the first and last values and the time in which the energy falls to 1/e; first the linewidth."""
        quadratures = self.layout == "quadratures"
        energy = np.abs(y) ** (1 if self.layout == "power" else 2)
        top = float(np.median(energy[: max(3, y.size // 50)]))
        floor = float(np.median(energy[-max(3, y.size // 10) :]))
        ratio = top / max(floor, 1e-12 * top)
        if not ratio > 1.05:
            raise ModelError(f"{name}: the signal does not decay (first {top:.3g}, last {floor:.3g}): no ring-down")
        within = np.flatnonzero(energy < floor + (top - floor) / np.exp(1.0))
        life = float(t[within[0]]) if within.size else float(t[-1])
        rate = 1 / (TWO_PI * max(life, float(t[1])))
        unknowns = [
            Unknown("mechanical_linewidth_hz", rate, 0.05 * rate, "Hz", lower=0.0),
            Unknown("start", top - (0 if quadratures else floor), 0.05 * top, lower=0.0),
        ]
        if not quadratures:
            return [*unknowns, Unknown("floor", floor, 0.05 * top, lower=0.0)]
        angle = np.unwrap(np.angle(y[: max(4, np.searchsorted(t, life))]))
        slope = np.polyfit(t[: angle.size], angle, 1)
        return [
            *unknowns,
            Unknown("offset_hz", float(slope[0]) / TWO_PI, 0.1 / life, "Hz"),
            Unknown("phase_rad", float(slope[1]), 0.1, "rad"),
        ]

    def model(self, v: Values, t: Array) -> Array:
        """A exp(-2 pi gamma t) + floor, its square root, or sqrt(A) exp(-pi gamma t + i(2 pi df t + phi)), by `layout`."""
        decay = v["start"] * np.exp(-TWO_PI * v["mechanical_linewidth_hz"] * t)
        if self.layout == "quadratures":
            return np.sqrt(decay) * np.exp(1j * (TWO_PI * v["offset_hz"] * t + v["phase_rad"]))
        return decay + v["floor"] if self.layout == "power" else np.sqrt(decay + v["floor"])


@dataclass(frozen=True, kw_only=True)
class PhaseTone(Method):
    """g_0 from a spectrum that holds the thermal line and a phase-modulation tone of known depth close to it.

    The tone is a frequency deviation of variance (beta f_mod)^2/2, the thermal motion one of g_0^2 (2 n + 1); one
    transduction for both, the tone's power above the fitted thermal line (`with_tone`): g_0 = beta f_mod
    sqrt(A_mech/A_tone/(2 (2 n + 1))). Gorodetsky et al., Opt. Express 18, 23236 (2010).
    """

    kind: ClassVar[str] = "phase_tone"
    reads: ClassVar[str] = "frequency and density (a spectrum file)"
    stage: ClassVar[int] = 4

    modulation_hz: Any = quantity("Hz", above=0.0, doc="frequency of the tone")
    depth_rad: Any = quantity("1", above=0.0, doc="beta, peak phase in radians")
    depth_sd_rad: Any = quantity("1", 0.0, minimum=0.0)
    mechanical_hz: Any = quantity("Hz", above=0.0, doc="about where the thermal line lies")
    temperature_k: Any = quantity(
        "K", above=0.0, doc="of the mode, with dynamical back-action negligible or counted in"
    )
    temperature_sd_k: Any = quantity("K", 0.0, minimum=0.0)
    cavity_linewidth_hz: Any = quantity("Hz", None, above=0.0, doc="to judge whether one transduction holds for both")
    axis_unit: str = choice("", "", "Hz", "kHz", "MHz")
    element: str = "membrane"

    def run(self, tables: Sequence[Table], given: Mapping[str, Any] | None = None) -> Result:
        """g_0, with the areas of both lines."""
        tone, mode = float(self.modulation_hz), float(self.mechanical_hz)
        sub = ThermalOscillator(name=self.name, frequencies_hz=(mode,), axis_unit=self.axis_unit)
        line = with_tone(sub, tone, tables, given)

        def coupling(v: Values) -> float:
            n = float(occupation_at(v["temperature"], v["frequency_1_hz"]))
            return v["depth"] * tone * np.sqrt(v["variance_1"] / v["tone_variance"] / (2 * (2 * n + 1)))

        inputs = {
            "depth": (float(self.depth_rad), float(self.depth_sd_rad)),
            "temperature": (float(self.temperature_k), float(self.temperature_sd_k)),
        }
        warnings = []
        apart = abs(tone - line["frequency_1_hz"].value)
        if self.cavity_linewidth_hz is not None and apart > 0.02 * float(self.cavity_linewidth_hz):
            warnings.append("tone and line are more than 2 % of kappa apart: their transduction differs")
        out = line.extended({"single_photon_coupling_hz": (coupling, "Hz", "g_0")}, inputs)
        path = f"{self.element}.single_photon_coupling_hz"
        return out.renamed(self.kind, self.name, {path: "single_photon_coupling_hz"}, warnings)


@dataclass(frozen=True, kw_only=True)
class DrivenForce(Method):
    """Displacement calibration by a known sinusoidal force on a known mass.

    x_rms = F/sqrt 2 |chi(f)|, chi = 1/(m [omega^2 - W^2 - i W gamma]). The spectrum holds the driven line and the
    thermal one; with the mass the driven line gives metres per unit, and the thermal variance then the mode's
    temperature. Near the thermal line the driven one is what exceeds the fitted thermal one (`with_tone`).
    """

    kind: ClassVar[str] = "driven_force"
    reads: ClassVar[str] = "frequency and density (a spectrum file)"
    stage: ClassVar[int] = 4

    force_n: Any = quantity("N", above=0.0, doc="amplitude of the force")
    force_sd_n: Any = quantity("N", 0.0, minimum=0.0)
    drive_hz: Any = quantity("Hz", above=0.0)
    mass_kg: Any = quantity("kg", above=0.0)
    mass_sd_kg: Any = quantity("kg", 0.0, minimum=0.0)
    mechanical_hz: Any = quantity("Hz", above=0.0, doc="about where the thermal line lies")
    mask_hz: tuple[float, ...] = series("Hz", "low, high, ... left out")
    axis_unit: str = choice("", "", "Hz", "kHz", "MHz")
    element: str = "particle"

    def run(self, tables: Sequence[Table], given: Mapping[str, Any] | None = None) -> Result:
        """Metres per unit of the signal, temperature of the mode."""
        sub = ThermalOscillator(
            name=self.name,
            frequencies_hz=(float(self.mechanical_hz),),
            mask_hz=self.mask_hz,
            axis_unit=self.axis_unit,
        )
        line = with_tone(sub, float(self.drive_hz), tables, given)
        W = TWO_PI * float(self.drive_hz)

        def scale(v: Values) -> float:
            w, g = TWO_PI * v["frequency_1_hz"], TWO_PI * v["linewidth_1_hz"]
            return v["force"] / np.sqrt(2 * v["tone_variance"]) / v["mass"] / np.hypot(w * w - W * W, W * g)

        def temperature(v: Values) -> float:
            return v["mass"] * (TWO_PI * v["frequency_1_hz"]) ** 2 * v["variance_1"] * scale(v) ** 2 / K_B

        inputs = {
            "force": (float(self.force_n), float(self.force_sd_n)),
            "mass": (float(self.mass_kg), float(self.mass_sd_kg)),
        }
        out = line.extended(
            {
                "displacement_m_per_unit": (scale, "m/unit", "from the force"),
                "temperature_k": (temperature, "K", "of the mode"),
            },
            inputs,
        )
        return out.renamed(self.kind, self.name, {f"{self.element}.temperature_k": "temperature_k"}, [])


VISIBLE = 5.0
"""A tone is one where its power exceeds so many standard deviations of what is there without it."""


def with_tone(line: ThermalOscillator, tone: float, tables: Sequence[Table], given: Mapping[str, Any] | None) -> Result:
    """A thermal line fitted beside a tone, and `tone_variance`, the tone's mean square above the fitted line and floor.

    The tone's bins are left out of the fit; the fit's errors enter the tone's power, with their correlation.

    Raises
    ------
    InputError
        If the tone lies outside the spectrum.
    ModelError
        If no tone stands out: its power is below `VISIBLE` standard deviations of the background.
    """
    s = to_spectrum(tables[0], 1, given, line.axis_unit)
    f, step = s.frequency_hz, float(np.median(np.diff(s.frequency_hz)))
    lobe = step * (s.estimate.padding if s.estimate else 1.0)  # zero padding widens a line in bins
    inside = np.abs(f - tone) < 4.5 * lobe
    if np.count_nonzero(inside) < 5:
        raise InputError(f"{tables[0].name}: the tone at {tone:g} Hz lies outside the spectrum {f[0]:g}..{f[-1]:g} Hz")
    found = replace(line, mask_hz=(*line.mask_hz, tone - 5 * lobe, tone + 5 * lobe)).run(tables, given)

    def excess(v: Values) -> float:
        return float(v["total"] - 2 * step * np.sum(line.model(v, f[inside], step)))

    background = line.model({k: q.value for k, q in found.quantities.items()}, f[inside], step)
    tones, noise = tone_scatter(s.density[inside], background, s)
    total = (2 * step * float(np.sum(s.density[inside])), 2 * step * tones)
    out = found.extended({"tone_variance": (excess, "unit^2", "mean square of the tone")}, {"total": total})
    power = out["tone_variance"]
    bare = float(np.hypot(2 * step * noise, np.sqrt(max(power.sd**2 - total[1] ** 2, 0.0))))
    if power.value < VISIBLE * bare:
        averages, visible = float(np.median(s.averages)), VISIBLE * bare
        short = (visible / max(power.value, bare)) ** 2
        seen = f"{power.value:.3g} +- {bare:.2g} unit^2, visible from {visible:.3g} on"
        needs = f"{'about' if power.value > bare else 'over'} {short * averages:.3g} averages, has {averages:.3g}"
        raise ModelError(f"{tables[0].name}: no tone at {tone:g} Hz stands out of the line: {seen}; needs {needs}")
    return out


def tone_scatter(density: Array, background: Array, s: Spectrum) -> tuple[float, float]:
    """Standard deviation of the sum of bins that hold a tone on a background, and of the background alone.

    A periodogram of a tone S on noise B has the variance (B^2 + 2 B S)/N, and neighbouring ones are correlated alike.
    """
    each = s.correlation / float(np.median(s.averages))
    noise = float(np.sum(background**2))
    beat = float(np.sum(2 * background * np.maximum(density - background, 0.0)))
    return float(np.sqrt(each * (noise + beat))), float(np.sqrt(each * noise))
