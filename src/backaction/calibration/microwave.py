"""Microwave thermometry: thermal sweep, red-tone cooling sweep, sideband asymmetry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from backaction.calibration.fitting import Relative, Unknown, Values, fit
from backaction.calibration.method import Method, Panel, Result, Scatter
from backaction.constants import HBAR, K_B, TWO_PI
from backaction.elements.baths import occupation_at
from backaction.elements.fields import quantity
from backaction.errors import InputError, ModelError
from backaction.numerics.matrices import Array
from backaction.records.tables import Table


@dataclass(frozen=True, kw_only=True)
class ThermalSweep(Method, Scatter):
    """Gain, and the occupation of the cold mode, from sideband areas against the plate's temperature.

    Area = K n(T) + B, n(T) = 1/(exp(hf/kT) - 1), above the saturation only. Where the mode does not follow the plate
    its occupation comes out of the fit: n_base = (area - B)/K at the coldest point. Ockeloen-Korppi 2018, Methods
    (there the modes sit at 41 and 30 quanta, not the 28.7 and 25.3 of the plate).
    """

    kind: ClassVar[str] = "thermal_sweep"
    reads: ClassVar[str] = "temperature, area of the sideband"
    stage: ClassVar[int] = 3

    frequency_hz: Any = quantity("Hz", above=0.0, doc="of the mode")
    fit_above_k: Any = quantity(
        "K",
        minimum=0.0,
        doc="lowest temperature fitted: above the saturation, which data of 2 % do not show by themselves",
    )
    element: str = "drums"
    field: str = "drum1_occupation"

    def run(self, tables: Sequence[Table], given: Mapping[str, Any] | None = None) -> Result:
        """Gain K, offset B and the occupation at the coldest point."""
        if self.noise_from:
            raise InputError(
                "thermal_sweep: the saturation is told from the scatter: state it (noise, relative_noise, noise_column)"
            )
        T = tables[0].axis(0, "K", self.axis_unit)
        area = tables[0].column(1)
        order = np.argsort(T)
        T, area = T[order], area[order]
        table = replace(tables[0], values=tables[0].values[order])
        if np.any(T <= 0):
            raise InputError(f"{tables[0].name}: temperature {T[0]:g} K: must be > 0")
        n = np.asarray(occupation_at(T, float(self.frequency_hz)))
        lowest = float(self.fit_above_k)
        use = lowest <= T
        if use[0]:
            raise InputError(
                f"thermal_sweep: fit_above_k = {lowest:g} K takes in the coldest point ({T[0]:g} K), whose occupation is "
                "to be found"
            )
        if np.count_nonzero(use) < 4:
            raise InputError(
                f"thermal_sweep: {np.count_nonzero(use)} points at or above {lowest:g} K: needs 4 above the saturation"
            )
        if np.max(n[use]) < 2 * np.min(n[use]):
            raise InputError(
                f"thermal_sweep: occupations {np.min(n[use]):.3g}..{np.max(n[use]):.3g} do not span a factor of 2: "
                "K and B are one"
            )
        found = self._line(table, n[use], area[use], use)
        cold = self.block(area[:1], table, slice(0, 1))
        sd = float(cold.relative * area[0] if isinstance(cold, Relative) else np.ravel(cold.sd)[0])
        K, B = found["gain"], found["offset"]
        base = (float(area[0]) - B) / K
        model = K * n + B
        panel = Panel("thermal sweep", T * 1e3, area, model, None, "temperature (mK)", "area", True, True)
        notes = [
            f"fitted at and above {lowest * 1e3:g} mK; the coldest point has {base:.4g} quanta, the plate {n[0]:.4g}"
        ]
        equivalent = HBAR * TWO_PI * float(self.frequency_hz) / K_B / np.log1p(1 / base) if base > 0 else np.nan
        notes.append(f"these are the quanta of {equivalent * 1e3:.4g} mK")
        out = self.report(found, {}, {}, [panel], (), notes)
        occupation = (lambda v: (v["coldest"] - v["offset"]) / v["gain"], "1", "at the coldest point")
        prior = {f"{self.element}.{self.field}": "occupation"}
        return out.extended({"occupation": occupation}, {"coldest": (float(area[0]), sd)}, prior)

    def _line(self, table: Table, n: Array, area: Array, rows: Any) -> Any:
        slope = float((area[-1] - area[0]) / (n[-1] - n[0]))
        unknowns = [Unknown("gain", slope, 0.05 * abs(slope)), Unknown("offset", 0.0, 0.05 * float(np.max(area)))]
        return self.rescaled(
            fit(lambda v: [v["gain"] * n + v["offset"]], [self.block(area, table, rows)], unknowns, (), self.kind)
        )


def red_tone_linewidth(coupling: Any, kappa: Any, gamma: Any) -> Any:
    """Mechanical linewidth under a red tone on the sideband, exact in the rotating wave.

    (kappa + gamma)/2 - Re sqrt(((kappa - gamma)/2)^2 - 4 G^2); 4 G^2/kappa for weak coupling; 1.6 times that at G =
    0.24 kappa, and (kappa + gamma)/2 beyond kappa/4, where the modes split.
    """
    inner = ((kappa - gamma) / 2) ** 2 - 4 * np.asarray(coupling) ** 2 + 0j
    return np.real((kappa + gamma) / 2 - np.sqrt(inner))


@dataclass(frozen=True, kw_only=True)
class CoolingSweep(Method, Scatter):
    """Coupling per root power, intrinsic width, gain and cavity noise from linewidth and area against a red tone's power.

    G = G_1 sqrt(P). The linewidth is the exact one (`red_tone_linewidth`). With G_opt = gamma_eff - gamma the area
    above the floor is K (kappa_o/kappa) G_opt [n_m - (2 n_c - n_o)], n_m = (gamma n_T + G_opt n_c)/(gamma + G_opt),
    with n_c in proportion to the power (internal port).
    """

    kind: ClassVar[str] = "cooling_sweep"
    reads: ClassVar[str] = "power, linewidth (Hz), and if present the area above the floor"
    stage: ClassVar[int] = 4

    cavity_linewidth_hz: Any = quantity("Hz", above=0.0)
    mechanical_hz: Any = quantity(
        "Hz", None, above=0.0, doc="given: the counter-rotating factor 1 - 1/(1 + (4 f/kappa)^2)"
    )
    occupation: Any = quantity("1", None, minimum=0.0, doc="n_T of the bath; needed for the areas")
    occupation_sd: Any = quantity("1", 0.0, minimum=0.0)
    area_noise: Any = quantity(
        "1", None, above=0.0, doc="relative standard deviation of the areas; default that of the widths"
    )
    output_noise: Any = quantity("1", 0.0, doc="n_o at the port of the detector")
    output_share: Any = quantity("1", 1.0, above=0.0, maximum=1.0, doc="kappa of the detected port over kappa")
    element: str = "drums"

    def run(self, tables: Sequence[Table], given: Mapping[str, Any] | None = None) -> Result:
        """Coupling per root power, intrinsic linewidth; with areas the gain and the cavity's occupation per power."""
        table = tables[0]
        P, width = table.column(0), table.column(1)
        if np.any(P <= 0):
            raise InputError(f"{tables[0].name}: power {np.min(P):g}: must be > 0")
        kappa = float(self.cavity_linewidth_hz)
        top = int(np.argmax(P))
        g1 = np.sqrt(max(width[top] - np.min(width), width[top] / 10) * kappa / 4 / P[top])
        low = float(np.min(width))
        unknowns = [
            Unknown("coupling_per_root_power_hz", float(g1), 0.02 * float(g1), "Hz", lower=0.0),
            Unknown("intrinsic_linewidth_hz", 0.9 * low, 0.1 * low, "Hz", lower=0.0),
        ]

        def model(v: Values) -> list[Array]:
            return [self._width(v, P)]

        found = self.rescaled(
            fit(
                model,
                [self.block(width, table)],
                unknowns,
                [{"coupling_per_root_power_hz": k * g1} for k in (0.5, 2)],
                self.kind,
            )
        )
        warnings = []
        if found["coupling_per_root_power_hz"] ** 2 * np.max(P) > (kappa / 4) ** 2:
            warnings.append("beyond G = kappa/4 the two modes split: those widths hold nothing on G")
        panels = [Panel("linewidth", P, width, model(found.values)[0], None, "power", "linewidth (Hz)", True, True)]
        if table.values.shape[1] < 3 or self.occupation is None:
            return self.report(found, {}, {}, panels, warnings)
        return self._areas(table, P, width, found, panels, warnings)

    def _width(self, v: Values, P: Array) -> Array:
        """Linewidth at the powers P; with `mechanical_hz` the counter-rotating part of the scattering is taken off."""
        kappa, factor = float(self.cavity_linewidth_hz), 1.0
        if self.mechanical_hz is not None:
            factor = 1 - 1 / (1 + (4 * float(self.mechanical_hz) / kappa) ** 2)
        G = v["coupling_per_root_power_hz"] * np.sqrt(P * factor)
        return np.asarray(red_tone_linewidth(G, kappa, v["intrinsic_linewidth_hz"]))

    def _areas(
        self, table: Table, P: Array, width: Array, first: Any, panels: list[Panel], warnings: list[str]
    ) -> Result:
        area = table.column(2)
        if self.noise_from:
            raise InputError("cooling_sweep: with areas the scatter must be stated (relative_noise and area_noise)")
        if self.area_noise is None and self.relative_noise is None:
            raise InputError("cooling_sweep: areas need area_noise (relative)")
        if np.any(area <= 0):
            raise InputError(
                f"{table.name}: area {np.min(area):.3g}: a relative scatter has no meaning where the heated cavity turns "
                "the line into a dip; leave these powers out"
            )
        relative = float(self.area_noise if self.area_noise is not None else self.relative_noise)
        n_o, share = float(self.output_noise), float(self.output_share)
        names = ("coupling_per_root_power_hz", "intrinsic_linewidth_hz")

        def areas(v: Values) -> Array:
            gamma = v[names[1]]
            opt = self._width(v, P) - gamma
            n_c = v["cavity_occupation_per_power"] * P
            n_m = (gamma * v["occupation"] + opt * n_c) / (gamma + opt)
            return np.asarray(v["gain"] * share * opt * (n_m - (2 * n_c - n_o)))

        start = {**first.values, "cavity_occupation_per_power": 0.0, "occupation": float(self.occupation), "gain": 1.0}
        gain = float(np.median(area / areas(start)))
        n_T, n_sd = float(self.occupation), float(self.occupation_sd)
        unknowns = [Unknown(n, first[n], first.sd(n), "Hz", lower=0.0) for n in names]
        unknowns += [
            Unknown("gain", gain, 0.02 * gain, lower=0.0),
            Unknown("cavity_occupation_per_power", 0.02 * n_T / float(np.max(P)), 0.005 * n_T / float(np.max(P))),
        ]
        if n_sd:
            unknowns.append(Unknown("occupation", n_T, n_sd, prior=(n_T, n_sd)))

        def model(v: Values) -> list[Array]:
            full = {"occupation": n_T, **v}
            return [self._width(v, P), areas(full)]

        found = fit(model, [self.block(width, table), Relative(area, relative)], unknowns, (), self.kind)
        mu = model(found.values)
        panels = [panels[0], Panel("area", P, area, mu[1], None, "power", "area above the floor", True, True)]

        def final(v: Values) -> float:
            full = {"occupation": n_T, **v}
            top = float(np.max(P))
            opt = float(self._width(v, np.array([top]))[0]) - v[names[1]]
            n_c = v["cavity_occupation_per_power"] * top
            return (v[names[1]] * full["occupation"] + opt * n_c) / (v[names[1]] + opt)

        derived = {"final_occupation": (final, "1", "n_m at the highest power")}
        return self.report(found, derived, {}, panels, warnings)


@dataclass(frozen=True, kw_only=True)
class SidebandAsymmetry(Method):
    """Occupation from the areas of the sidebands scattered from a blue and a red tone of equal strength.

    A_b/A_r = (n + 1 + x)/(n - x), x = 2 n_c - n_o of the cavity and the output port; ignored, x = 0.2 makes 1 quantum
    0.57. n = (1 + x (1 + R))/(R - 1).

    A ratio of normal areas is not normal. T(n) = A_b (n - x) - A_r (n + 1 + x) is, with mean 0 at the truth: the law of n is
    Phi(T/sd T) (Fieller 1954), `interval` its central 95 %, open upwards where the areas differ by less than 1.96 sd. The
    prior is log-normal about its median, with the factor of its upper side.
    """

    kind: ClassVar[str] = "sideband_asymmetry"
    reads: ClassVar[str] = "no file: the two areas as settings"
    stage: ClassVar[int] = 4
    files: ClassVar[tuple[int, int]] = (0, 0)

    blue_area: Any = quantity("1", above=0.0)
    red_area: Any = quantity("1", above=0.0)
    relative_noise: Any = quantity("1", above=0.0, doc="relative standard deviation of each area")
    noise_occupation: Any = quantity("1", 0.0, doc="x = 2 n_c - n_o")
    noise_occupation_sd: Any = quantity("1", 0.0, minimum=0.0)

    def run(self, tables: Sequence[Table], given: Mapping[str, Any] | None = None) -> Result:
        """The mode's occupation."""
        b, r, sd = float(self.blue_area), float(self.red_area), float(self.relative_noise)
        if b <= r:
            raise ModelError(
                f"sideband_asymmetry: blue area {b:g} <= red area {r:g}: no occupation has this ratio (n + 1 > n)"
            )

        def n(v: Values) -> float:
            R = v["b"] / v["r"]
            return (1 + v["x"] * (1 + R)) / (R - 1)

        x = (float(self.noise_occupation), float(self.noise_occupation_sd))
        out = self.direct({"occupation": (n, "1", "of the mode")}, {"b": (b, sd * b), "r": (r, sd * r), "x": x}, {})
        found = out["occupation"]
        low, high = self.quantile(-1.96), self.quantile(1.96)
        factor = float(np.exp(np.log(high / found.value) / 1.96))
        stated = replace(found, interval=(low, high), factor=factor)
        out = replace(out, quantities={**out.quantities, "occupation": stated})
        if not np.isfinite(high):
            return out.warned(
                f"the asymmetry says almost nothing: n = {found.value:.3g} has no upper bound at 95 % (above {low:.3g}): "
                "no prior follows; use thermal_sweep"
            )
        note = (
            f"n within {low:.3g} .. {high:.3g} at 95 %; as a prior log-normal about its median with factor {factor:.3g}"
        )
        out = replace(out, notes=(*out.notes, note))
        if found.sd > 0.5 * found.value:
            out = out.warned(
                f"the asymmetry says almost nothing at n = {found.value:.3g} +- {found.sd:.2g}: use thermal_sweep"
            )
        return out

    def score(self, occupation: Any) -> Array:
        """Normal score of an occupation in the result's law, T/sd T: 0 at the estimate."""
        b, r = float(self.blue_area), float(self.red_area)
        sb, sr, sx = float(self.relative_noise) * b, float(self.relative_noise) * r, float(self.noise_occupation_sd)
        with_blue = np.asarray(occupation, dtype=float) - float(self.noise_occupation)
        with_red = np.asarray(occupation, dtype=float) + 1 + float(self.noise_occupation)
        of_x = sx**2 * ((b + r) ** 2 + sb**2 + sr**2)
        return np.asarray((b * with_blue - r * with_red) / np.sqrt((sb * with_blue) ** 2 + (sr * with_red) ** 2 + of_x))

    def quantile(self, score: float) -> float:
        """The occupation (>= 0) of a normal score; inf where even infinitely many quanta have a lower one."""
        from scipy import optimize

        ends = np.log(1e-12), np.log(1e12)
        if not float(self.score(np.exp(ends[1]))) > score:
            return float("inf")
        if not float(self.score(np.exp(ends[0]))) < score:
            return 0.0
        return float(np.exp(optimize.brentq(lambda t: float(self.score(np.exp(t))) - score, *ends, xtol=1e-12)))
