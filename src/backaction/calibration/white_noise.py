"""White-noise drive: the quantum cooperativity of a spin from spectra with and without known noise on its input light."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from backaction.calibration.fitting import Averaged, Fit, Unknown, Values, fit
from backaction.calibration.method import Method, Panel, Result, densities
from backaction.elements.base import Drive
from backaction.elements.fields import choice, flag, quantity
from backaction.elements.homodyne import Homodyne
from backaction.elements.spin_oscillator import SpinOscillator
from backaction.errors import InputError
from backaction.experiment.experiment import Experiment
from backaction.numerics.matrices import Array
from backaction.records.spectrum import Spectrum
from backaction.records.tables import Table
from backaction.systems.response import budget


@dataclass(frozen=True, kw_only=True)
class WhiteNoise(Method):
    """Quantum cooperativity of a spin from spectra without and with known noise on its input light.

    S(n) = 1 + fl + eta {|R|^2 (1 + 1/C) + n |cos th R + sin th|^2} for n = 0 and n = `excess_sn`. R is the response
    of the `spin_oscillator` (P_out to X_in), C = Gamma/[gamma(2 n_S + 1)]. `excess_sn` is the added noise in units of
    vacuum *at the spin*, before any loss: quoted after it (eta n) gives a wrong C. Both spectra with their shot
    noise, broadband noise as a fitted floor. Moller 2017, (S35)-(S40).
    """

    kind: ClassVar[str] = "white_noise"
    reads: ClassVar[str] = "frequency, spectrum without and spectrum with the drive (SN)"
    stage: ClassVar[int] = 5

    excess_sn: Any = quantity("SN", doc="n, the added noise at the spin's input")
    excess_sd_sn: Any = quantity("SN", 0.0, minimum=0.0, doc="its error: a fitted parameter with this prior")
    efficiency: Any = quantity(
        "1", 1.0, above=0.0, maximum=1.0, doc="from spin to detector; needed for Gamma and n_S, not for C"
    )
    efficiency_sd: Any = quantity("1", 0.0, minimum=0.0)
    free_angle: bool = flag("fit the noise's admixture of P (angle from X)")
    free_floor: bool = flag("fit a white excess common to both spectra")
    rotating_wave: bool = flag("the paper's Lorentzian: the same element at a frequency far above its width")
    axis_unit: str = choice("", "", "Hz", "kHz", "MHz")
    element: str = "spin"

    def run(self, tables: Sequence[Table], given: Mapping[str, Any] | None = None) -> Result:
        """Cooperativity, linewidth, readout rate and bath occupation."""
        n = float(self.excess_sn)
        if n <= 0:
            raise InputError(f"white_noise: excess_sn = {n:g}: must be > 0")
        quiet, driven = densities(tables[0], (1, 2), given or {}, self.axis_unit)
        f = quiet.frequency_hz
        unknowns = self._unknowns(tables[0].name, quiet, driven)
        eta = float(self.efficiency)
        blocks = [Averaged.of(s) for s in (quiet, driven)]

        def model(v: Values) -> list[Array]:
            return quiet.seen(lambda g: self.model(v, g), f, v["linewidth_hz"])

        found = fit(model, blocks, unknowns, (), "white_noise")
        derived = {
            "occupation": (_occupation, "1", "n_S"),
            "peak_sn": (
                lambda v: v.get("efficiency", eta) * 4 * (v["readout_rate_hz"] / v["linewidth_hz"]) ** 2,
                "SN",
                "eta |R|^2 on resonance",
            ),
        }
        mu = model(found.values)
        panels = [
            Panel(t, f / 1e3, s.density, m, s.density / np.sqrt(s.averages), "frequency (kHz)", "density (SN)")
            for t, s, m in zip(("undriven", f"driven, n = {n:g}"), (quiet, driven), mu, strict=True)
        ]
        priors, warnings, notes = self._priors(found)
        if not self.free_floor and found.p < 1e-3:
            warnings.append("broadband noise left in the spectra lowers C: try free_floor")
        return self.report(found, derived, priors, panels, warnings, notes)

    def _unknowns(self, name: str, quiet: Spectrum, driven: Spectrum) -> list[Unknown]:
        """Starts from the peak heights A, B above shot noise and the width at half of A; refuses impossible heights."""
        n, f = float(self.excess_sn), quiet.frequency_hz
        A, B = (float(np.max(_smooth(s.density)) - 1) for s in (quiet, driven))
        if np.mean(driven.density) <= np.mean(quiet.density):
            raise InputError(f"{name}: the driven spectrum does not lie above the undriven one: exchanged?")
        smooth = _smooth(quiet.density)
        centre = float(f[np.argmax(smooth)])
        above = smooth - 1 > A / 2
        width = max(float(np.ptp(f[above])), 3 * float(np.median(np.diff(f))))
        if 1.15 * (n + 1) * A < B:
            raise InputError(
                f"{name}: peaks A = {A:.4g}, B = {B:.4g} above shot noise: B cannot reach (n + 1) A = "
                f"{(n + 1) * A:.4g}: is n "
                "that at the spins, and the shot-noise level right?"
            )
        C = cooperativity(A, B, n) if 0 < A < B < (n + 1) * A else 1.0
        eta = float(self.efficiency)
        rate = width / 2 * np.sqrt(A / (1 + 1 / C) / eta)
        unknowns = [
            Unknown("larmor_hz", centre, width / 10, "Hz"),
            Unknown("linewidth_hz", width, width / 10, "Hz", lower=width / 100),
            Unknown("readout_rate_hz", rate, rate / 10, "Hz", lower=0.0),
            Unknown("cooperativity", C, 0.1 * C, lower=1e-3),
        ]
        if self.excess_sd_sn:
            sd = float(self.excess_sd_sn)
            unknowns.append(Unknown("excess_sn", n, sd, "SN", prior=(n, sd)))
        if self.efficiency_sd:
            sd = float(self.efficiency_sd)
            unknowns.append(Unknown("efficiency", eta, sd, prior=(eta, sd), upper=1.0))
        if self.free_angle:
            unknowns.append(Unknown("angle_deg", 0.0, 0.5, "deg"))
        if self.free_floor:
            unknowns.append(Unknown("floor_sn", 0.0, 0.02, "SN"))
        return unknowns

    def _priors(self, found: Fit) -> tuple[dict[str, str], list[str], list[str]]:
        """(priors, warnings, notes): Gamma and n_S are priors only where the efficiency is known and n_S >= 0."""
        priors: dict[str, str] = {}
        warnings, notes = list[str](), list[str]()
        eta, left = float(self.efficiency), _occupation(found.values)
        if eta < 1 and left < 0:
            warnings.append(
                f"n_S = {left:.2g} < 0: the efficiency is below {eta:g}, or noise is missing in the model; no priors"
            )
        elif eta < 1:
            priors = {f"{self.element}.readout_rate_hz": "readout_rate_hz", f"{self.element}.occupation": "occupation"}
        else:
            notes.append(
                "efficiency = 1 was assumed: the cooperativity does not depend on it, Gamma and n_S do; no priors given"
            )
        return priors, warnings, notes

    def model(self, v: Values, f: Array) -> list[Array]:
        """S(n) = 1 + fl + eta {|R|^2 (1 + 1/C) + n |cos th R + sin th|^2} for n = 0 and `excess_sn`."""
        n = v.get("excess_sn", float(self.excess_sn))
        shift = 1e6 * v["linewidth_hz"] if self.rotating_wave else 0.0
        f = f + shift
        spin = SpinOscillator(
            name="spin",
            larmor_hz=v["larmor_hz"] + shift,
            intrinsic_linewidth_hz=v["linewidth_hz"],
            readout_rate_hz=v["readout_rate_hz"],
            occupation=0.0,
            drive=(Drive(name="in", excess_sn=np.array([0.0, n]), angle_deg=v.get("angle_deg", 0.0)),),
        )
        detector = Homodyne(name="detector", efficiency=v.get("efficiency", float(self.efficiency)))
        parts = budget(Experiment((spin, detector)).system, f)
        # the bath's part grows as 2 n_S + 1 = Gamma/(gamma C), which does not ask whether n_S >= 0 (a wrong efficiency)
        grown = v["readout_rate_hz"] / (v["linewidth_hz"] * v["cooperativity"]) - 1
        S = parts.total + grown * parts.sources["spin.bath"] + v.get("floor_sn", 0.0)
        return [S[0], S[1]]


def _occupation(v: Values) -> float:
    """n_S = Gamma/(2 gamma C) - 1/2."""
    return v["readout_rate_hz"] / (2 * v["linewidth_hz"] * v["cooperativity"]) - 0.5


def _smooth(y: Array) -> Array:
    size = max(1, y.size // 40)
    pad = np.pad(y, size, mode="edge")
    return np.convolve(pad, np.ones(2 * size + 1) / (2 * size + 1), "valid")


def cooperativity(A: float, B: float, n: float) -> float:
    """(S40): C = (B - A)/((n + 1) A - B) from the two peak heights above shot noise.

    Raises
    ------
    InputError
        Unless 0 < A < B < (n + 1) A and n > 0.
    """
    if not (n > 0 and 0 < A < B < (n + 1) * A):
        raise InputError(f"S40 needs n > 0 and 0 < A < B < (n + 1) A, got A = {A:g}, B = {B:g}, n = {n:g}")
    return (B - A) / ((n + 1) * A - B)


def cooperativity_error(A: float, B: float, n: float, dA: float, dB: float, dn: float) -> float:
    """Error of (S40): dC/dB = (1+C)/D, dC/dA = -(1+(n+1)C)/D, dC/dn = -CA/D, D = (n+1)A - B."""
    C, D = cooperativity(A, B, n), (n + 1) * A - B
    return float(np.sqrt(((1 + C) / D * dB) ** 2 + ((1 + (n + 1) * C) / D * dA) ** 2 + (C * A / D * dn) ** 2))
