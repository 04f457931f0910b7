"""Thermal oscillators: spring constant, temperature or displacement scale from a resonator's or particle's spectrum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from backaction.calibration.fitting import Averaged, Unknown, Values, fit
from backaction.calibration.linearity import lines
from backaction.calibration.method import Method, Panel, Result, within
from backaction.constants import K_B, TWO_PI
from backaction.elements.fields import choice, flag, quantity, series
from backaction.elements.homodyne import Homodyne
from backaction.elements.oscillator import Oscillator
from backaction.errors import InputError, ModelError
from backaction.experiment.experiment import Experiment
from backaction.experiment.spectra import frequency_response
from backaction.numerics.matrices import Array
from backaction.records.spectrum import Spectrum
from backaction.records.tables import Table, to_spectrum


def thermal_shape(f: Array, frequency: float, linewidth: float, damping: str = "velocity") -> Array:
    """Two-sided density (1/Hz) of a thermal oscillator's displacement of unit variance, from the element `oscillator`.

    `velocity`: any ratio of linewidth to frequency, overdamped too. `structural`: a constant loss angle (its variance
    is unity near resonance; the 1/f tail below it is not counted).
    """
    x = Oscillator(
        name="x", frequency_hz=frequency, intrinsic_linewidth_hz=linewidth, occupation=0.0, gain=1.0, damping=damping
    )
    parts = frequency_response(Experiment((x, Homodyne(name="d"))), f).budget("d").sources
    return parts["x.bath"] / TWO_PI  # 2 x 2 pi gain^2 S_X in shot-noise units, S_X of variance 1/2


@dataclass(frozen=True, kw_only=True)
class ThermalOscillator(Method):
    """Spring constant, temperature or displacement scale of a resonator or trapped particle from its spectrum.

    S(f) = floor (f/f_1)^slope + thermal lines. Equipartition k <x^2> = k_B T, k = m omega^2: of temperature,
    displacement per unit of the signal, and mass (or spring constant), two known give the third. `overdamped`: a
    Lorentzian at zero frequency with corner f_c = k/(2 pi drag). The model is averaged over the bins where they are
    not narrow against the line. A line that is not one oscillator's (drift, anharmonicity) shows as p.
    """

    kind: ClassVar[str] = "thermal_oscillator"
    reads: ClassVar[str] = "frequency and density (a spectrum file), or a record with resolution_hz"
    stage: ClassVar[int] = 4

    frequencies_hz: tuple[float, ...] = series("Hz", "about where the modes lie; default the highest peak")
    band_hz: tuple[float, ...] = series("Hz", "low, high: what is fitted")
    mask_hz: tuple[float, ...] = series("Hz", "low, high, low, high, ... left out")
    resolution_hz: Any = quantity("Hz", None, above=0.0, doc="of the spectrum that is made of a record")
    damping: str = choice("velocity", "velocity", "structural")
    regime: str = choice("underdamped", "underdamped", "overdamped")
    floor_slope: bool = flag("the floor is a power law, not white")
    skip_lines: bool = flag("leave out single bins that stand out")
    temperature_k: Any = quantity("K", None, above=0.0)
    temperature_sd_k: Any = quantity("K", 0.0, minimum=0.0)
    mass_kg: Any = quantity("kg", None, above=0.0)
    mass_sd_kg: Any = quantity("kg", 0.0, minimum=0.0)
    displacement_m_per_unit: Any = quantity("1", None, above=0.0, doc="metres per unit of the signal, if known")
    displacement_sd_m_per_unit: Any = quantity("1", 0.0, minimum=0.0)
    drag_kg_per_s: Any = quantity("1", None, above=0.0, doc="overdamped: friction coefficient, if known")
    axis_unit: str = choice("", "", "Hz", "kHz", "MHz")
    element: str = "particle"

    def run(self, tables: Sequence[Table], given: Mapping[str, Any] | None = None) -> Result:
        """Modes, floor, and the calibration that the known quantities allow."""
        s = to_spectrum(tables[0], 1, given, self.axis_unit)
        if self.band_hz:
            if len(self.band_hz) != 2:
                raise InputError(f"thermal_oscillator: band_hz = {list(self.band_hz)}: expected low, high")
            s = s.band(*self.band_hz)
        keep = within(s.frequency_hz, self.mask_hz) & (s.frequency_hz > 0)
        if self.skip_lines:
            apart = [
                np.abs(s.frequency_hz - m) > max(0.02 * m, 20 * float(np.median(np.diff(s.frequency_hz))))
                for m in self._near(s)
            ]
            keep &= ~(lines(s.density, float(np.median(s.averages)), 10, 5.0) & np.all(apart, axis=0))
        f, y = s.frequency_hz[keep], s.density[keep]
        if f.size < 8:
            raise InputError(f"{tables[0].name}: {f.size} bins to fit: too few")
        unknowns, starts = self._unknowns(f, y)
        unknowns += self._known()
        block = Averaged.of(s, keep)
        step = float(np.median(np.diff(f)))

        def model(v: Values) -> list[Array]:
            if not s.windowed:
                return [self.model(v, f, step)]
            line = min((v[k] for k in v if k.startswith("linewidth")), default=v.get("corner_hz", np.inf))
            # lines narrower than the window are averaged over the steps of the axis on which it is laid over them
            return s.seen(
                lambda g: [self.model(v, np.maximum(g, 1e-3 * step), float(g[-1] - g[-2]), float(f[0]))],
                f,
                max(line, step * (s.estimate.padding if s.estimate else 1.0)),
            )

        found = fit(model, [block], unknowns, starts, self.kind)
        mu = model(found.values)[0]
        panel = Panel("spectrum", f / 1e3, y, mu, None, "frequency (kHz)", f"density ({s.unit})", True)
        ratio = Panel(
            "measured/model", f / 1e3, y / mu, np.ones(f.size), 1 / np.sqrt(block.averages), "frequency (kHz)", "ratio"
        )
        derived, notes = self._calibrated(found.values)
        warnings = self._warnings(found, s)
        e = self.element
        priors: dict[str, str] = {}
        if self.regime == "underdamped":
            one = self._modes() == 1
            for i in range(self._modes()):
                name = e if one else f"{e}_{i + 1}"
                priors |= {
                    f"{name}.frequency_hz": f"frequency_{i + 1}_hz",
                    f"{name}.intrinsic_linewidth_hz": f"linewidth_{i + 1}_hz",
                }
        return self.report(found, derived, priors, [panel, ratio], warnings, notes)

    def model(self, v: Values, f: Array, step: float, first_hz: float | None = None) -> Array:
        """Floor and lines, averaged over bins of width `step` where a line is not wide against them.

        A floor with a slope has its level at `first_hz`, the first of the frequencies by default.
        """
        out = v["floor"] * (f / (first_hz or f[0])) ** v.get("floor_exponent", 0.0)
        for i in range(self._modes()):
            if self.regime == "overdamped":
                corner = v["corner_hz"]
                friction = 1e4 * max(float(f[-1]), corner)
                frequency, width = np.sqrt(corner * friction), friction
            else:
                frequency, width = v[f"frequency_{i + 1}_hz"], v[f"linewidth_{i + 1}_hz"]
            if width < 4 * step:
                shape = thermal_shape(f, frequency, width, self.damping)
                near = np.abs(f - frequency) < 20 * (step + width)
                if np.any(near):
                    shape[near] = self._averaged(f[near], step, frequency, width)
            else:
                shape = thermal_shape(f, frequency, width, self.damping)
            out = out + v[f"variance_{i + 1}"] * shape
        return np.asarray(out)

    def _averaged(self, f: Array, step: float, frequency: float, width: float) -> Array:
        """Mean over bins by f = f_0 + (width/2) tan u: in u a line is nearly flat, however narrow."""
        x, w = np.polynomial.legendre.leggauss(8)
        low, high = (np.arctan((f + s * step / 2 - frequency) / (width / 2)) for s in (-1, 1))
        u = (low + high)[:, None] / 2 + (high - low)[:, None] / 2 * x
        points = frequency + width / 2 * np.tan(u)
        values = thermal_shape(points.ravel(), frequency, width, self.damping).reshape(u.shape) / np.cos(u) ** 2
        return np.asarray((values @ w) * (high - low) / 2 * (width / 2) / step)

    def _near(self, s: Spectrum) -> tuple[float, ...]:
        """About where the modes lie."""
        return tuple(self.frequencies_hz) or (float(s.frequency_hz[np.argmax(s.density)]),)

    def _known(self) -> list[Unknown]:
        """Known quantities with an error, as unknowns that only their priors hold: their errors reach the results."""
        pairs = {
            "temperature_k": ("temperature_sd_k", "K"),
            "mass_kg": ("mass_sd_kg", "kg"),
            "displacement_m_per_unit": ("displacement_sd_m_per_unit", "m/unit"),
        }
        out = []
        for name, (key, unit) in pairs.items():
            value, sd = getattr(self, name), float(getattr(self, key))
            if value is not None and sd:
                out.append(Unknown(f"known_{name}", float(value), sd, unit, prior=(float(value), sd)))
        return out

    def _modes(self) -> int:
        return max(1, len(self.frequencies_hz)) if self.regime == "underdamped" else 1

    def _unknowns(self, f: Array, y: Array) -> tuple[list[Unknown], list[dict[str, float]]]:
        size = max(1, f.size // 400)
        smooth = np.convolve(np.pad(y, size, mode="edge"), np.ones(2 * size + 1) / (2 * size + 1), "valid")
        floor = float(np.quantile(y, 0.2))
        span = float(f[-1] - f[0])
        unknowns = [Unknown("floor", floor, 0.05 * floor, "unit^2/Hz", lower=0.0)]
        if self.floor_slope:
            unknowns.append(Unknown("floor_exponent", 0.0, 0.2, lower=-6.0, upper=6.0))
        if self.regime == "overdamped":
            level = float(np.median(smooth[: max(3, f.size // 50)]))
            corner = float(f[np.argmin(np.abs(smooth - level / 2))])
            unknowns += [
                Unknown("corner_hz", corner, 0.1 * corner, "Hz", lower=0.0),
                Unknown("variance_1", level * np.pi * corner, 0.1 * level * np.pi * corner, "unit^2", lower=0.0),
            ]
            return unknowns, [{"corner_hz": k * corner} for k in (0.3, 3.0)]
        for i, start in enumerate(self.frequencies_hz or (float(f[np.argmax(smooth)]),)):
            if not f[0] < start < f[-1]:
                raise InputError(
                    f"thermal_oscillator: frequencies_hz holds {start:g} Hz, outside {f[0]:g}..{f[-1]:g} Hz"
                )
            near = np.abs(f - start) < max(0.02 * start, 6 * span / f.size)
            top = float(f[near][np.argmax(smooth[near])])
            height = float(np.max(smooth[near])) - floor
            half = near & (smooth - floor > height / 2)
            width = max(float(np.ptp(f[half])), 2 * span / f.size)
            area = 2 * max(height, floor / 100) * np.pi / 2 * width
            unknowns += [
                Unknown(f"frequency_{i + 1}_hz", top, 0.2 * width, "Hz", lower=0.0),
                Unknown(f"linewidth_{i + 1}_hz", width, 0.2 * width, "Hz", lower=1e-4 * width),
                Unknown(f"variance_{i + 1}", area, 0.1 * area, "unit^2", lower=0.0),
            ]
        starts = [{u.name: k * u.start for u in unknowns if u.name.startswith("linewidth")} for k in (0.3, 3.0)]
        return unknowns, starts

    def _calibrated(self, v: Values) -> tuple[dict[str, tuple[Any, str, str]], list[str]]:
        """The third of temperature, displacement scale and stiffness; known ones with errors enter by `_known`."""

        def of(name: str) -> Any:
            own = getattr(self, name)
            return None if own is None else lambda v: v.get(f"known_{name}", float(own))

        T, m, u = (of(k) for k in ("temperature_k", "mass_kg", "displacement_m_per_unit"))
        out: dict[str, tuple[Any, str, str]] = {}
        if self.regime == "underdamped" and m is not None:
            out["spring_constant_n_per_m"] = (lambda v: m(v) * (TWO_PI * v["frequency_1_hz"]) ** 2, "N/m", "m omega^2")
            if T is not None and u is None:
                out["displacement_m_per_unit"] = (
                    lambda v: np.sqrt(K_B * T(v) / (m(v) * v["variance_1"])) / (TWO_PI * v["frequency_1_hz"]),
                    "m/unit",
                    "from equipartition",
                )
            elif u is not None:
                out["temperature_k"] = (
                    lambda v: m(v) * (TWO_PI * v["frequency_1_hz"]) ** 2 * v["variance_1"] * u(v) ** 2 / K_B,
                    "K",
                    "from equipartition",
                )
        elif T is not None and u is not None:
            out["spring_constant_n_per_m"] = (
                lambda v: K_B * T(v) / (v["variance_1"] * u(v) ** 2),
                "N/m",
                "k_B T/<x^2>",
            )
            if self.regime == "overdamped":
                out["drag_kg_per_s"] = (
                    lambda v: out["spring_constant_n_per_m"][0](v) / (TWO_PI * v["corner_hz"]),
                    "kg/s",
                    "k/(2 pi f_c)",
                )
        elif self.regime == "overdamped" and self.drag_kg_per_s is not None:
            out["spring_constant_n_per_m"] = (
                lambda v: TWO_PI * v["corner_hz"] * float(self.drag_kg_per_s),
                "N/m",
                "2 pi f_c drag",
            )
            if T is not None:
                out["displacement_m_per_unit"] = (
                    lambda v: np.sqrt(
                        K_B * T(v) / (TWO_PI * v["corner_hz"] * float(self.drag_kg_per_s) * v["variance_1"])
                    ),
                    "m/unit",
                    "from equipartition",
                )
        notes = [] if out else ["give two of temperature_k, mass_kg (or drag), displacement_m_per_unit for the third"]
        return out, notes

    def _warnings(self, found: Any, s: Spectrum) -> list[str]:
        out = []
        for i in range(self._modes()) if self.regime == "underdamped" else ():
            if found[f"linewidth_{i + 1}_hz"] < float(np.min(s.resolution_hz)):
                out.append(
                    f"mode {i + 1}: the line ({found[f'linewidth_{i + 1}_hz']:.3g} Hz) is not resolved by the bins "
                    f"({np.min(s.resolution_hz):.3g} Hz)"
                )
            if found[f"variance_{i + 1}"] < 3 * found.sd(f"variance_{i + 1}"):
                raise ModelError(
                    f"thermal_oscillator: no line at {found[f'frequency_{i + 1}_hz']:.6g} Hz stands out of the floor"
                )
        if found.p < 1e-3:
            out.append(
                f"scatter {np.sqrt(found.deviance / found.dof):.3g} times the statistics: the lines are not those "
                "of single oscillators "
                "(drift, anharmonicity) or the floor has more structure; the errors hold for the model alone"
            )
        return out
