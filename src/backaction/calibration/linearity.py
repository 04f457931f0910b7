"""Shot-noise linearity, S = e + s P + c P^2: electronic noise, shot noise per power, a bound on classical noise."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from backaction.calibration.fitting import Fit, Relative, Unknown, Values, fit
from backaction.calibration.method import Method, Panel, Result, within
from backaction.elements.fields import choice, flag, quantity, series
from backaction.errors import InputError
from backaction.numerics.matrices import Array
from backaction.records.tables import Table, to_spectrum


@dataclass(frozen=True, kw_only=True)
class Linearity(Method):
    """Electronic noise, shot noise per power and a bound on classical noise from levels against power.

    S = e + s P + c P^2, with the straight line beside it. Data: a table (power, level), or one spectrum file per
    power (levels over `band_hz` without `mask_hz`; single bins that stand out, spectral lines, are left out; the
    window's noise bandwidth is divided out). A dark level counts as a point at P = 0 only when it was taken with the
    same gain, range, window and channel: with files this is checked, and otherwise e is free. The level's scatter
    follows the model; errors of the powers enter through the slope.
    """

    kind: ClassVar[str] = "linearity"
    reads: ClassVar[str] = "power and level; or one spectrum file per power (power from its name or `powers`)"
    stage: ClassVar[int] = 1
    files: ClassVar[tuple[int, int]] = (1, 1000)

    powers: tuple[float, ...] = series("1", "of the files, where their names do not say it")
    power_unit: str = field(default="", metadata={"doc": "for labels, such as mV or mW"})
    relative_noise: Any = quantity("1", None, above=0.0, doc="of a level; spectra say it themselves")
    power_noise: Any = quantity("1", 0.0, minimum=0.0, doc="standard deviation of each power, in its unit")
    at_power: Any = quantity(
        "1", None, above=0.0, doc="power at which shares are quoted and the detector is used; default the largest"
    )
    element: str = "detector"
    band_hz: tuple[float, ...] = series("Hz", "low, high: where the spectra are averaged")
    mask_hz: tuple[float, ...] = series("Hz", "low, high, low, high, ... left out")
    dark: str = choice(
        "auto", "auto", "use", "free", doc="auto: a dark level is used where its settings are those of the signal"
    )
    rescale: bool = flag("scale the errors by the residuals where these exceed the statistics (drift between points)")
    axis_unit: str = choice("", "", "Hz", "kHz", "MHz", doc="of spectrum files")

    def run(self, tables: Sequence[Table], given: Mapping[str, Any] | None = None) -> Result:
        """Electronic noise, shot noise per power, quadratic part, and their shares."""
        notes: list[str] = []
        warnings: list[str] = []
        if len(tables) == 1:
            P, S = tables[0].column(0), tables[0].column(1)
            if self.relative_noise is None:
                raise InputError("linearity: a table of levels needs relative_noise (1/sqrt(averages x bins))")
            sd = np.full(P.size, float(self.relative_noise))
            same = self.dark != "free"
        else:
            P, S, sd, same, notes = self._levels(tables, given or {})
        return self._fitted(P, S, sd, same, notes, warnings)

    def _fitted(self, P: Array, S: Array, sd: Array, same: bool, notes: list[str], warnings: list[str]) -> Result:
        """S = e + s P + c P^2, and the straight line beside it; `same`: the dark level belongs to the others."""
        _check_levels(P, S)
        lit = P > 0
        if not same and np.any(~lit):
            P, S, sd = P[lit], S[lit], sd[lit]
        found, line = self._fits(P, S, sd)
        found, line = self._with_drift(found, line, notes, warnings)
        at = float(np.max(P)) if self.at_power is None else float(self.at_power)
        derived = {
            "classical_share": (lambda v: v["quadratic"] * at / v["shot_per_power"], "1", f"c P/s at P = {at:g}"),
            "electronic_share": (
                lambda v: v["electronic"] / (v["shot_per_power"] * at),
                "SN",
                f"e/(s P) at P = {at:g}",
            ),
        }
        notes.append(
            f"straight line: e = {line['electronic']:.4g} +- {line.sd('electronic'):.2g}, s = "
            f"{line['shot_per_power']:.5g} +- "
            f"{line.sd('shot_per_power'):.2g}, chi2 {line.deviance:.4g}/{line.dof}"
        )
        panels = self._panels(P, S, sd, _parabola(found.values, P))
        priors = {} if self.at_power is None else {f"{self.element}.electronic_noise_sn": "electronic_share"}
        out = self.report(found, derived, priors, panels, warnings, notes)
        straight = (
            lambda v: v["straight"],
            "1",
            "of the straight line (its correlation with the parabola is not counted)",
        )
        out = out.extended(
            {"linear_shot_per_power": straight}, {"straight": (line["shot_per_power"], line.sd("shot_per_power"))}
        )
        share = out["classical_share"]
        upper = max(share.value, 0.0) + 1.645 * share.sd
        if share.value < 2 * share.sd:
            bound = f"no classical noise shown: below {100 * upper:.2g} % of shot noise at P = {at:g} (95 %)"
            out = replace(out, notes=(*out.notes, bound))
        return out

    def _fits(self, P: Array, S: Array, sd: Array) -> tuple[Fit, Fit]:
        """S = e + s P + c P^2, and S = e + s P: both fits; an error of the powers is one of slope times it in the level."""
        slope = float((np.max(S) - np.min(S)) / (np.max(P) - np.min(P)))
        top = float(np.max(P))
        unknowns = [
            Unknown("electronic", 0.1 * float(np.min(S)), 0.05 * float(np.min(S))),
            Unknown("shot_per_power", slope, 0.02 * slope),
            Unknown("quadratic", 0.0, 0.02 * slope / top),
        ]
        floor = slope * float(self.power_noise) * (P > 0)
        block = Relative(S, sd, floor)
        parabola = fit(lambda v: [_parabola(v, P)], [block], unknowns, (), self.kind)
        line = fit(lambda v: [_parabola(v, P)], [block], unknowns[:2], (), self.kind)
        return parabola, line

    def _with_drift(self, found: Fit, line: Fit, notes: list[str], warnings: list[str]) -> tuple[Fit, Fit]:
        """Both fits with their covariance times chi2/dof where `rescale` asks for it; else a warning where it exceeds 2."""
        excess = found.deviance / max(1, found.dof)
        if self.rescale and excess > 1:
            found = self._widened(found, excess)
            line = self._widened(line, max(1.0, line.deviance / max(1, line.dof)))
            notes.append(
                f"errors were scaled by {np.sqrt(excess):.3g}: points scatter beyond their statistics (drift, alignment)"
            )
        elif excess > 2:
            warnings.append(
                f"points scatter {np.sqrt(excess):.2g} times their statistics (drift, alignment): errors are too "
                "small; --set rescale=true"
            )
        return found, line

    def _widened(self, found: Fit, factor: float) -> Fit:
        return replace(found, covariance=found.covariance * factor, tested=False)

    def _panels(self, P: Array, S: Array, sd: Array, mu: Array) -> list[Panel]:
        level = Panel(
            "shot-noise linearity",
            P,
            S,
            mu,
            sd * S,
            f"power ({self.power_unit})".replace(" ()", ""),
            "level",
            True,
            bool(np.all(P > 0)),
        )
        return [level, Panel("residuals", P, S / mu - 1, 0 * P, sd, "power", "level/model - 1")]

    # -- one spectrum per power -----------------------------------------------------------------------------------

    def _levels(self, tables: Sequence[Table], given: Mapping[str, Any]) -> tuple[Array, Array, Array, bool, list[str]]:
        if len(self.band_hz) != 2 or not self.band_hz[0] < self.band_hz[1]:
            raise InputError("linearity: spectra need band_hz = [low, high]")
        powers = list(self.powers) or [power_of(t.name) for t in tables]
        if len(powers) != len(tables):
            raise InputError(f"linearity: {len(powers)} powers for {len(tables)} files")
        P, S, sd, notes = (
            [],
            [],
            [],
            ["levels are two-sided densities (V^2/Hz), the window's noise bandwidth taken out"],
        )
        for power, table in zip(powers, tables, strict=True):
            s = to_spectrum(table, 1, given, self.axis_unit or "Hz").band(*self.band_hz)
            keep = within(s.frequency_hz, self.mask_hz) & ~lines(s.density, s.averages)
            if np.count_nonzero(keep) < 8:
                raise InputError(f"{table.name}: {np.count_nonzero(keep)} bins are left in the band: too few")
            P.append(power)
            S.append(float(np.mean(s.density[keep])))
            sd.append(np.sqrt(s.correlation / (s.averages * np.count_nonzero(keep))))
        dark = [t for t, p in zip(tables, powers, strict=True) if p == 0]
        lit = [t for t, p in zip(tables, powers, strict=True) if p > 0]
        same = self.dark == "use"
        if dark and self.dark == "auto":
            differ = [
                k
                for k in ("window", "coupling", "range", "channel")
                for t in dark
                if lit and t.attributes.get(k) != lit[0].attributes.get(k)
            ]
            same = not differ
            if differ:
                notes.append(
                    f"the dark file has other settings ({', '.join(dict.fromkeys(differ))}): e is fitted freely"
                )
        return np.array(P), np.array(S), np.array(sd), same, notes


def _check_levels(P: Array, S: Array) -> None:
    """Refuse levels from which a parabola cannot be found: too few powers, too narrow a range, a dark level too high."""
    if np.any(P < 0) or np.any(S <= 0) or not np.all(np.isfinite(S)):
        raise InputError("linearity: powers must be >= 0 and levels > 0 and finite")
    lit = P > 0
    if np.count_nonzero(lit) < 4:
        raise InputError(f"linearity: {np.count_nonzero(lit)} powers: a parabola needs at least 4")
    if np.max(P[lit]) < 1.5 * np.min(P[lit]):
        raise InputError(f"linearity: powers {np.min(P[lit]):g}..{np.max(P[lit]):g}: they must span a factor of 1.5")
    if np.any(~lit) and np.min(S[~lit]) >= np.min(S[lit]):
        raise InputError(
            f"linearity: dark level {np.min(S[~lit]):.4g} is not below the signal's {np.min(S[lit]):.4g}: other "
            "gain, range or bandwidth?"
        )


def _parabola(v: Values, P: Array) -> Array:
    """S = e + s P + c P^2; without c the straight line."""
    return v["electronic"] + v["shot_per_power"] * P + v.get("quadratic", 0.0) * P**2


def power_of(name: str) -> float:
    """Power that a file's name says.

    Numbers alone (two readings joined by _: their mean), one number with a unit such as 12mW, 0 for "dark".

    Raises
    ------
    InputError
        If the name says anything else.
    """
    stem = re.split(r"[/\\]", name)[-1].rpartition(".")[0]
    if "dark" in stem.lower():
        return 0.0
    if re.fullmatch(r"\d+\.?\d*(_\d+\.?\d*)*", stem):
        return float(np.mean([float(x) for x in stem.split("_")]))
    found = re.findall(r"(?<![\d.])(\d+\.?\d*) ?(?:mV|mW|uW|µW|W|V)(?![A-Za-z])", stem)
    if len(found) != 1:
        raise InputError(f"{name}: its name does not say one power (such as 12mW or 250_249): --set powers=...")
    return float(found[0])


def lines(density: Array, averages: float, reach: int = 20, limit: float = 4.0) -> Array:
    """Bins that stand out of the median of their neighbourhood by more than `limit` standard deviations: spectral lines."""
    pad = np.pad(density, reach, mode="reflect")
    around = np.median(np.lib.stride_tricks.sliding_window_view(pad, 2 * reach + 1), axis=-1)
    return np.abs(density / around - 1) > limit / np.sqrt(averages) + 0.005
