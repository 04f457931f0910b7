"""Ponderomotive squeezing: coupling, bath temperature and efficiency from amplitude-quadrature spectra of a cavity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from backaction.calibration.fitting import Averaged, Unknown, Values, fit
from backaction.calibration.method import Method, Panel, Result, densities
from backaction.elements.baths import occupation_at
from backaction.elements.fields import choice, flag, quantity, series
from backaction.elements.homodyne import Homodyne
from backaction.elements.optomechanical_cavity import OptomechanicalCavity
from backaction.errors import InputError
from backaction.experiment.experiment import Experiment
from backaction.numerics.matrices import Array
from backaction.records.spectrum import Spectrum
from backaction.records.tables import Table
from backaction.systems.response import cross_spectrum


@dataclass(frozen=True, kw_only=True)
class Squeezing(Method):
    """Coupling, bath temperature and efficiency from ponderomotive squeezing, several detunings together.

    `transmission`: the carrier enters by the back mirror and both light and carrier leave by the output coupler,
    whose share of kappa is `overcoupling`; S - 1 is then proportional to efficiency x overcoupling, and only this
    product is found. `reflection`: everything by the input coupler. g is the textbook coupling, sqrt 2 times that of
    Thomas 2021. The model is the `optomechanical_cavity`. Thomas 2021, Fig. 6; Moller 2017, Fig. 2b.
    """

    kind: ClassVar[str] = "squeezing"
    reads: ClassVar[str] = "frequency, then one spectrum per detuning (SN, linear)"
    stage: ClassVar[int] = 4

    detunings_hz: tuple[float, ...] = series("Hz", "one per spectrum; red is negative")
    detuning_sd_hz: Any = quantity("Hz", 0.0, minimum=0.0, doc="error of each detuning: fitted with this prior")
    cavity_linewidth_hz: Any = quantity("Hz", above=0.0)
    cavity_linewidth_sd_hz: Any = quantity("Hz", 0.0, minimum=0.0)
    overcoupling: Any = quantity("1", above=0.0, maximum=1.0, doc="share of kappa of the port where the light leaves")
    overcoupling_sd: Any = quantity("1", 0.0, minimum=0.0)
    mechanical_q: Any = quantity("1", minimum=10.0, doc="quality factor")
    geometry: str = choice("transmission", "transmission", "reflection")
    detector_angle_deg: Any = quantity("deg", 0.0, doc="from the amplitude quadrature")
    electronic_noise_sn: Any = quantity(
        "SN", 0.0, minimum=0.0, doc="left in the spectra; else it hides in the efficiency"
    )
    bin_average: bool = flag("average the model over each bin")
    axis_unit: str = choice("", "", "Hz", "kHz", "MHz")
    element: str = "membrane"
    detector: str = "detector"

    def run(self, tables: Sequence[Table], given: Mapping[str, Any] | None = None) -> Result:
        """Temperature, efficiency, mechanical frequency and one coupling per spectrum."""
        D = tuple(self.detunings_hz)
        if not D:
            raise InputError("squeezing: missing detunings_hz (one per spectrum)")
        if any(d >= 0 for d in D):
            raise InputError(
                f"squeezing: detunings_hz = {list(D)}: blue light is unstable, and on resonance the amplitude "
                "quadrature shows nothing"
            )
        spectra = densities(tables[0], range(1, len(D) + 1), given or {}, self.axis_unit)
        f, width = spectra[0].frequency_hz, spectra[0].resolution_hz
        unknowns, starts = self._search(spectra)
        blocks = [Averaged.of(s) for s in spectra]

        def model(v: Values) -> list[Array]:
            if not spectra[0].windowed:
                return self.model(v, f, width)
            return spectra[0].seen(lambda g: self.model(v, g), f, float(np.min(self._lines(v))))

        found = fit(model, blocks, unknowns, starts, "squeezing")
        v = found.values
        if not spectra[0].windowed:
            self._check_resolution(v, width)
        priors, warnings = self._priors(v)
        mu = model(v)
        panels = [
            Panel(
                f"Δ = {x / 1e3:g} kHz",
                f / 1e3,
                s.density,
                m,
                s.density / np.sqrt(s.averages),
                "frequency (kHz)",
                "density (SN)",
                True,
            )
            for x, s, m in zip(D, spectra, mu, strict=True)
        ]
        notes = [f"least density of the model {10 * np.log10(min(float(np.min(m)) for m in mu)):.2f} dB"]
        return self.report(found, self._derived(), priors, panels, warnings, notes)

    def _search(self, spectra: Sequence[Spectrum]) -> tuple[list[Unknown], list[dict[str, float]]]:
        """Unknowns and starts: the line at the spectra's maxima or minima, couplings that broaden it over the span."""
        D = tuple(self.detunings_hz)
        f = spectra[0].frequency_hz
        dip = [float(f[np.argmin(s.density)]) for s in spectra]
        start = float(np.median([f[np.argmax(s.density)] for s in spectra]))
        kappa = float(self.cavity_linewidth_hz)
        span = float(f[-1] - f[0])
        unknowns = [
            Unknown("bath_temperature_k", 10.0, 2.0, "K", lower=1e-3),
            Unknown("efficiency", 0.7, 0.05, lower=0.0, upper=1.0 if self.geometry == "reflection" else np.inf),
            Unknown("mechanical_hz", start, span / 500, "Hz"),
        ]
        rough = np.sqrt(kappa * span / 400)
        unknowns += [Unknown(self._g(i), rough, rough / 20, "Hz", lower=0.0) for i in range(len(D))]
        if self.cavity_linewidth_sd_hz:
            unknowns.append(_known("cavity_linewidth_hz", kappa, float(self.cavity_linewidth_sd_hz), "Hz"))
        if self.overcoupling_sd:
            unknowns.append(_known("overcoupling", float(self.overcoupling), float(self.overcoupling_sd), "1"))
        if self.detuning_sd_hz:
            unknowns += [_known(f"detuning_{i + 1}_hz", d, float(self.detuning_sd_hz), "Hz") for i, d in enumerate(D)]
        starts = [
            {"mechanical_hz": x, **{self._g(i): rough * k for i in range(len(D))}, "bath_temperature_k": T}
            for x in (start, float(np.median(dip)))
            for k in (0.6, 1.0, 1.6, 2.5)
            for T in (5.0, 20.0)
        ]
        return unknowns, starts

    def _lines(self, v: Values) -> list[Any]:
        """Widths of the optically broadened lines."""
        return [self._cavity(v, i).effective_mechanics()[1] for i in range(len(self.detunings_hz))]

    def _check_resolution(self, v: Values, width: float) -> None:
        """Refuse a frequency step of more than half the optically broadened line, unless the model is averaged over it."""
        lines = self._lines(v)
        if not self.bin_average and width > 0.5 * float(np.min(lines)):
            raise InputError(
                f"squeezing: frequency step {width:g} Hz does not resolve the optically broadened line "
                f"({np.min(lines):.4g} Hz): "
                "average the model over the bins (bin_average = true)"
            )

    def _derived(self) -> dict[str, tuple[Any, str, str]]:
        koc = float(self.overcoupling)
        derived: dict[str, tuple[Any, str, str]] = {
            "efficiency_x_overcoupling": (
                lambda v: v["efficiency"] * v.get("overcoupling", koc),
                "1",
                "what the data determine",
            ),
            "bath_occupation": (
                lambda v: float(occupation_at(v["bath_temperature_k"], v["mechanical_hz"])),
                "1",
                "n of the bath",
            ),
        }
        for i in range(len(self.detunings_hz)):
            derived[f"paper_coupling_{i + 1}_hz"] = (
                lambda v, i=i: v[self._g(i)] / np.sqrt(2),
                "Hz",
                "g in Thomas 2021's convention",
            )
            derived[f"cooperativity_{i + 1}"] = (
                lambda v, i=i: self._cooperativity(v, i),
                "1",
                "C_q = 2 g^2/(kappa gamma n)",
            )
        return derived

    def _priors(self, v: Values) -> tuple[dict[str, str], list[str]]:
        """(priors, warnings); a coupling is a prior where there is one alone, an efficiency where it is at most 1."""
        D, e, d = self.detunings_hz, self.element, self.detector
        priors = {
            f"{e}.bath_temperature_k": "bath_temperature_k",
            f"{e}.bath_occupation": "bath_occupation",
            f"{d}.efficiency": "efficiency",
            f"{e}.mechanical_hz": "mechanical_hz",
        }
        if len(D) == 1:
            priors[f"{e}.coupling_hz"] = self._g(0)
        warnings = []
        if v["efficiency"] > 1:
            koc = float(self.overcoupling)
            warnings.append(f"efficiency {v['efficiency']:.3g} > 1: the overcoupling is larger than {koc:g}; no prior")
            del priors[f"{d}.efficiency"]
        if self.geometry == "transmission":
            warnings.append(
                "only efficiency x overcoupling is determined; the efficiency holds for the overcoupling given"
            )
        if np.min([self._cooperativity(v, i) for i in range(len(D))]) > 8:
            warnings.append(
                "back-action dominates at every coupling (C_q > 8): the temperature rests on a small part of the noise"
            )
        return priors, warnings

    def _g(self, i: int) -> str:
        return "coupling_hz" if len(self.detunings_hz) == 1 else f"coupling_{i + 1}_hz"

    def _cooperativity(self, v: Values, i: int) -> float:
        """C_q = 2 g^2/(kappa gamma n)."""
        n = float(occupation_at(v["bath_temperature_k"], v["mechanical_hz"]))
        gamma = v["mechanical_hz"] / float(self.mechanical_q)
        return 2 * v[self._g(i)] ** 2 / (v.get("cavity_linewidth_hz", float(self.cavity_linewidth_hz)) * gamma * n)

    def _cavity(self, v: Values, i: int) -> OptomechanicalCavity:
        share = v.get("overcoupling", float(self.overcoupling))
        through = self.geometry == "transmission"
        return OptomechanicalCavity(
            name="m",
            mechanical_hz=v["mechanical_hz"],
            mechanical_linewidth_hz=v["mechanical_hz"] / float(self.mechanical_q),
            bath_temperature_k=v["bath_temperature_k"],
            cavity_linewidth_hz=v.get("cavity_linewidth_hz", float(self.cavity_linewidth_hz)),
            ports={"coupler": share, "back": 1 - share},
            input_port="coupler",
            output_port="coupler",
            carrier_port="back" if through else "coupler",
            detuning_hz=v.get(f"detuning_{i + 1}_hz", self.detunings_hz[i]),
            coupling_hz=v[self._g(i)],
        )

    def model(self, v: Values, f: Array, width: float = 0.0) -> list[Array]:
        """S = 1 - eta + eta S_out + S_el for every detuning, S_out that of the network cavity, detector."""
        detector = Homodyne(name="d", angle_deg=float(self.detector_angle_deg), reference="amplitude")
        eta, extra = v["efficiency"], float(self.electronic_noise_sn)
        out = []
        for i in range(len(self.detunings_hz)):
            system = Experiment((self._cavity(v, i), detector)).system
            if self.bin_average and width:
                x, w = np.polynomial.legendre.leggauss(8)
                points = (f[:, None] + width / 2 * x).ravel()
                S = np.real(cross_spectrum(system, points, ["d"])[:, 0, 0]).reshape(f.size, x.size) @ w / 2
            else:
                S = np.real(cross_spectrum(system, f, ["d"])[:, 0, 0])
            out.append(1 - eta + eta * S + extra)
        return out


def _known(name: str, mean: float, sd: float, unit: str) -> Unknown:
    return Unknown(name, mean, sd, unit, prior=(mean, sd))
