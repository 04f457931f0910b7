"""MORS: magneto-optical resonance of the Zeeman lines. Populations, polarisation and the spin's bath occupation n_S."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from backaction.calibration.atoms import (
    atom,
    field_at,
    line_weights,
    occupation_range,
    quadratic_splitting,
    spin_temperature,
)
from backaction.calibration.fitting import Fit, Gaussian, Unknown, Values, fit
from backaction.calibration.method import Method, Panel, Result
from backaction.elements.fields import choice, flag, quantity
from backaction.errors import InputError, ModelError
from backaction.numerics.matrices import Array
from backaction.records.tables import Table


@dataclass(frozen=True, kw_only=True)
class Mors(Method):
    """Zeeman populations, polarisation and n_S from the magneto-optical resonance of the 2F lines m <-> m+1.

    s(f) = A e^{i phi} sum_m c_m (p_{m+1} - p_m)/(w_m/2 - i(f - f_m)), a coherent sum. c_m = F(F+1) - m(m+1), f_m =
    f_0 - (m + 1/2) f_qz; `larmor_hz` gives f_qz by Breit-Rabi. A weak short pulse and a weak probe (tip below about 5
    degrees). With p_{-F} = 0 (adding one constant to all populations changes nothing) the populations, the
    polarisation <m>/F and n_S = (F(F+1) - <m^2>)/(2<m>) - 1/2 follow. Widths: common, or with the pump on w + w_pump
    (c_m + c_{m+1})/(2 max c). Julsgaard 2004; derived in docs/derivations. Populations are not forced to be >= 0
    unless `nonnegative`: that would bias p by a sigma and shrink its error.
    """

    kind: ClassVar[str] = "mors"
    reads: ClassVar[str] = "frequency, then Re and Im of the signal (layout complex) or |s|^2 (layout power)"
    stage: ClassVar[int] = 5

    layout: str = choice("complex", "complex", "power")
    species: str = choice("cs133", "cs133", "rb87", "rb85")
    hyperfine_level: Any = quantity("1", None, above=0.0, doc="F; default I + 1/2")
    larmor_hz: Any = quantity("Hz", None, above=0.0, doc="Larmor frequency: gives the quadratic Zeeman splitting")
    splitting_hz: Any = quantity(
        "Hz", None, doc="the splitting itself, instead; its sign may be changed by a light shift"
    )
    free_splitting: bool = flag("fit the splitting too (refused where lines overlap: width above 3 splittings)")
    pump: str = choice("off", "off", "on", doc="on: widths grow with the depopulation by the pump")
    nonnegative: bool = flag("bound the populations at 0")
    noise: Any = quantity("1", above=0.0, doc="standard deviation of Re s and of Im s")
    axis_unit: str = choice("", "", "Hz", "kHz", "MHz")
    element: str = "spin"

    def run(self, tables: Sequence[Table], given: Mapping[str, Any] | None = None) -> Result:
        """Populations, polarisation and n_S with their admissible range."""
        kind = atom(self.species)
        F = kind.nuclear_spin + 0.5 if self.hyperfine_level is None else float(self.hyperfine_level)
        lines = line_weights(F)
        qz = self._splitting(kind, F)
        f, s = self._data(tables[0])
        found = self._fit(f, s, F, qz, lines, self.nonnegative)
        other = None if self.nonnegative else self._fit(f, s, F, qz, lines, True)
        names = [n for n in found.names if n.startswith("a")]
        m = np.arange(-F + 1, F + 1)

        def moments(v: Values) -> tuple[float, float]:
            a = np.array([v[n] for n in names])
            total = np.sum(a)
            return float(np.sum(m * a) / total), float(np.sum(m * m * a) / total)

        def occupation(v: Values) -> float:
            first, second = moments(v)
            return (F * (F + 1) - second) / (2 * first) - 0.5

        mean = moments(found.values)[0]
        spread = float(np.sqrt(found.derived({"m": lambda v: moments(v)[0]})[1][0, 0]))
        if abs(mean) < max(3 * spread, 1e-3 * F):
            raise ModelError(f"mors: unpolarised: <m> = {mean:.2g} +- {spread:.2g}: n_S has no meaning")
        derived: dict[str, tuple[Any, str, str]] = {
            "polarisation": (lambda v: moments(v)[0] / F, "1", "<m>/F"),
            "occupation": (occupation, "1", "n_S"),
        }
        for n, mm in zip(names, m, strict=True):
            derived[f"p_{mm:+g}"] = (lambda v, n=n: v[n] / sum(v[k] for k in names), "1", f"population of m = {mm:+g}")
        warnings = self._warnings(found, F, qz)
        p = mean / F
        low, high = occupation_range(F, abs(p))
        notes = [f"with this polarisation and p_-F = 0 any n_S from {low:.4g} to {high:.4g} is possible"]
        if 0 < p < 1:
            w = spin_temperature(F, p)
            notes.append(f"a spin temperature of this polarisation has n_S = {1 / np.expm1(np.log(w[-1] / w[-2])):.4g}")
        if other is not None:
            extra = other.derived({"p": lambda v: moments(v)[0] / F, "n": occupation})
            sd = np.sqrt(np.diag(extra[1]))
            notes.append(
                f"with populations >= 0: polarisation {extra[0][0]:.5g} +- {sd[0]:.2g}, n_S {extra[0][1]:.5g} +- "
                f"{sd[1]:.2g} "
                "(biased by about one sd, errors conditional)"
            )
        if not low - 1e-9 <= occupation(found.values) <= high + 1e-9:
            warnings.append(
                f"n_S = {occupation(found.values):.4g} lies outside its admissible range {low:.4g}..{high:.4g}: no prior"
            )
        priors = {f"{self.element}.occupation": "occupation"}
        if warnings and "admissible" in warnings[-1]:
            priors = {}
        mu = self._signal(found.values, f, F, qz, lines, names)
        y = np.abs(s) ** 2 if self.layout == "complex" else s
        panel = Panel("MORS", f / 1e3, y, np.abs(mu) ** 2, None, "frequency (kHz)", "|s|²")
        if self.larmor_hz is not None:
            field, _ = field_at(kind, F, float(self.larmor_hz))
            notes.append(f"field {1e4 * field:.6g} G, splitting {qz:.5g} Hz ({kind.source})")
        return self.report(found, derived, priors, [panel], warnings, notes)

    # -- model ----------------------------------------------------------------------------------------------------

    def _splitting(self, kind: Any, F: float) -> float:
        if (self.larmor_hz is None) == (self.splitting_hz is None):
            raise InputError(
                "mors: give larmor_hz or splitting_hz: the quadratic Zeeman splitting is not found from the widths"
            )
        qz = (
            float(self.splitting_hz)
            if self.splitting_hz is not None
            else quadratic_splitting(kind, F, float(self.larmor_hz))
        )
        if qz == 0:
            raise InputError("mors: splitting_hz = 0: the lines coincide, the populations cannot be told apart")
        return qz

    def _data(self, table: Table) -> tuple[Array, Array]:
        f = table.axis(0, "Hz", self.axis_unit)
        if not np.all(np.isfinite(table.values)):
            raise InputError(f"{table.name}: the data hold values that are not finite")
        if self.layout == "complex":
            return f, table.column(1) + 1j * table.column(2)
        s = table.column(table.values.shape[1] - 1)
        return f, s

    def _signal(self, v: Values, f: Array, F: float, qz: float, lines: Array, names: Sequence[str]) -> Array:
        a = np.concatenate([[0.0], [v[n] for n in names]])
        m = np.arange(-F, F)
        width = v["width_hz"] + np.zeros(m.size)
        if "pump_width_hz" in v:
            upper = np.append(lines[1:], 0.0)
            width = width + v["pump_width_hz"] * (lines + upper) / (2 * np.max(lines))
        centre = v["centre_hz"] - (m + 0.5) * v.get("splitting_hz", qz)
        terms = lines * np.diff(a) / (width / 2 - 1j * (f[:, None] - centre))
        return np.sum(terms, axis=1) * np.exp(1j * v.get("phase_rad", 0.0))

    def _fit(self, f: Array, s: Array, F: float, qz: float, lines: Array, bounded: bool) -> Fit:
        power = np.abs(s) ** 2 if self.layout == "complex" else s
        noise = float(self.noise)
        top = int(np.argmax(power))
        reach = (2 * F - 1) / 2 * abs(qz)
        centre = float(f[top] + np.sign(qz) * reach)
        half = power > 0.5 * power[top]
        width = max(2 * float(np.median(np.diff(f))), min(np.ptp(f[half]), 2 * abs(qz)))
        size = np.sqrt(power[top]) * width / 2 / (2 * F)
        low = 0.0 if bounded else -np.inf
        names = [f"a{m:+g}" for m in np.arange(-F + 1, F + 1)]
        falling = spin_temperature(F, 0.8)[1:]
        unknowns = [
            Unknown(n, size * w, 0.1 * size, lower=low) for n, w in zip(names, falling / falling[-1], strict=True)
        ]
        unknowns.append(Unknown("width_hz", width, 0.1 * width, "Hz", lower=0.0))
        unknowns.append(Unknown("centre_hz", centre, 0.3 * abs(qz), "Hz"))
        if self.layout == "complex":
            phase = float(np.angle(s[top]))
            unknowns.append(Unknown("phase_rad", phase, 0.1, "rad"))
        if self.pump == "on":
            unknowns.append(Unknown("pump_width_hz", 0.2 * width, 0.1 * width, "Hz", lower=0.0))
        if self.free_splitting:
            unknowns.append(Unknown("splitting_hz", qz, 0.02 * abs(qz), "Hz"))

        def model(v: Values) -> list[Array]:
            z = self._signal(v, f, F, qz, lines, names)
            return [z] if self.layout == "complex" else [np.abs(z) ** 2 + 2 * noise**2]

        if self.layout == "complex":
            block: Any = Gaussian(s, noise)
        else:
            block = Gaussian(s, np.sqrt(4 * noise**2 * np.maximum(s - 2 * noise**2, 0.0) + 4 * noise**4))
        starts = [{"centre_hz": centre + k * qz, "width_hz": w} for k in (0, -1, 1, 2, 3) for w in (width, width / 2)]
        for p in (0.5, 0.95):
            shape = spin_temperature(F, p)[1:]
            scale = size * float(np.sum(falling) / np.sum(shape) / falling[-1])
            starts.append({n: scale * x for n, x in zip(names, shape, strict=True)})
        found = fit(model, [block], unknowns, starts, "mors")
        if self.layout == "power":  # the scatter of the model instead of that of the noisy data
            for _ in range(3):
                clean = model(found.values)[0] - 2 * noise**2
                block = Gaussian(s, np.sqrt(4 * noise**2 * clean + 4 * noise**4))
                again = [Unknown(u.name, found[u.name], u.scale, u.unit, u.lower, u.upper) for u in found.unknowns]
                found = fit(model, [block], again, (), "mors")
        ends = found["centre_hz"] + np.array([-1, 1]) * (2 * F - 1) / 2 * abs(qz)
        if f[0] > ends[0] or f[-1] < ends[1]:
            raise InputError(
                f"mors: frequencies {f[0]:g}..{f[-1]:g} Hz do not hold all {2 * F:g} lines ({ends[0]:.6g}..{ends[1]:.6g} Hz)"
            )
        if self.free_splitting and found["width_hz"] > 3 * abs(found["splitting_hz"]):
            raise ModelError(
                f"mors: the lines overlap (width {found['width_hz']:.3g} Hz, splitting {found['splitting_hz']:.3g} "
                "Hz): the splitting "
                "cannot be fitted; give larmor_hz and leave free_splitting out"
            )
        return found

    def _warnings(self, found: Fit, F: float, qz: float) -> list[str]:
        out = []
        if found["width_hz"] > 3 * abs(qz):
            out.append(
                f"the lines overlap (width {found['width_hz']:.3g} Hz, splitting {qz:.3g} Hz): the populations rest "
                "on the splitting"
            )
        return out
