"""What the claims and figures of Thomas 2021 are computed from: the shipped experiment and its variations, cached."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from backaction.elements.homodyne import Homodyne
from backaction.elements.optics import Loss
from backaction.elements.optomechanical_cavity import MechanicalMode
from backaction.elements.oscillator import Oscillator
from backaction.elements.spin_oscillator import SpinOscillator
from backaction.elements.technical_noise import Line, TechnicalNoise
from backaction.experiment.derivatives import gradient
from backaction.experiment.experiment import Experiment
from backaction.experiment.results import evaluate
from backaction.numerics.matrices import Array, transpose
from backaction.states import entanglement
from backaction.states.entanglement import Epr
from backaction.systems import response, steady
from backaction.systems.linear import LinearSystem

THERMAL = ("spin.bath", "membrane.bath")
LIGHT = ("spin.in", "link.vacuum", "membrane.loss")
FAR_HZ = 110e3


class Thomas:
    """Table I as printed (phi = 180 degrees, offset -gamma_M/2) and what follows from it."""

    def __init__(self) -> None:
        self.resonant = Experiment.load("thomas2021")

    # -- experiments ----------------------------------------------------------------------------------------------

    def far(self, sign: int = 1, phi: float = 180.0) -> Experiment:
        """The two oscillators 110 kHz apart; the sign is not stated."""
        return self.resonant.with_values({"spin.larmor_offset_hz": sign * FAR_HZ, "phase.angle_deg": phi})

    def at_phase(self, phi: Any) -> Experiment:
        """Another phase between LO1 and LO2 ("about 180 degrees", drifts of about 3)."""
        return self.resonant.with_values({"phase.angle_deg": phi})

    @functools.cached_property
    def mechanics(self) -> Experiment:
        """The membrane alone: no spins."""
        return self.resonant.with_values({"spin.readout_rate_hz": 0.0, "spin.broadband_noise_sn": 0.0})

    @functools.cached_property
    def laboratory(self) -> Experiment:
        """With what the paper's spectra show and gives no numbers for: laser phase noise, two membrane modes, electronics.

        Placeholders of ours, chosen to look like Figs. 3 and 8; free inputs, never part of a claim.
        """
        elements = list(self.resonant.elements)
        line = Line(name="phase_noise", center_hz=1.359e6, width_hz=500.0, peak_sn=10.0)
        laser = TechnicalNoise(name="laser", angle_deg=90.0, lines=(line,))
        more = tuple(
            MechanicalMode(name=n, mechanical_hz=f, mechanical_linewidth_hz=2e-3, bath_occupation=6e5, coupling_hz=45e3)
            for n, f in (("second", 1.518e6), ("third", 1.525e6))
        )
        membrane = elements[3].with_value("modes", more)
        detector = elements[4].with_value("electronic_noise_sn", 0.05)
        return Experiment((*elements[:3], laser, membrane, detector), self.resonant.modes, name="laboratory")

    # -- states ---------------------------------------------------------------------------------------------------

    def covariance(self, experiment: Experiment, state: str = "conditional") -> Array:
        """4x4 covariance of membrane and spin."""
        system = experiment.system
        index = system.indices(("membrane", "spin"))
        V = steady.unconditional(system) if state == "unconditional" else steady.conditional(system).covariance
        return V[..., index, :][..., index]

    @functools.cached_property
    def best(self) -> Epr:
        """(V_c, a, b) of the resonant conditional state."""
        return entanglement.epr(self.covariance(self.resonant))

    def epr(self, experiment: Experiment, state: str, weight: float, correlated: bool = True) -> float:
        """EPR variance at a fixed weight and the best angle, with or without the off-diagonal correlations."""
        V = self.covariance(experiment, state)
        s1, s2 = V[0, 0] + V[1, 1], V[2, 2] + V[3, 3]
        R = np.hypot(V[0, 2] - V[1, 3], V[0, 3] + V[1, 2]) if correlated else 0.0
        return float((s1 + weight**2 * s2 - 2 * weight * R) / (1 + weight**2))

    def at_best(self, experiment: Experiment) -> float:
        """V_u at the (a, b) of the same experiment's V_c."""
        return float(evaluate("unconditional.epr_at_conditional.variance", experiment))

    def far_range(self, state: str) -> tuple[float, float]:
        """Far-detuned EPR variance over what the text leaves open: sign, a = 0.85 or 1, correlations kept or not."""
        values = [self.epr(self.far(sign), state, a, c) for sign in (1, -1) for a in (0.85, 1.0) for c in (True, False)]
        return min(values), max(values)

    # -- spectra --------------------------------------------------------------------------------------------------

    def power(self, experiment: Experiment, sources: tuple[str, ...]) -> float:
        """Integrated detected power (SN Hz) that `sources` add to the white level, exact: no band is chosen.

        int dW/2pi (S - S_inf) = C V C^T + (C N + N^T C^T)/2 for the system driven by these sources alone.
        """
        system = experiment.system
        silent = {p.name: np.zeros((p.size, p.size)) for p in system.inputs if p.name not in sources}
        only = system.with_noise(silent)
        C = only.detected().C
        _, N, _ = only.noise()
        V = steady.unconditional(only)
        return float((C @ V @ transpose(C) + (C @ N + transpose(C @ N)) / 2)[0, 0] / response.VACUUM)

    def suppression_db(self, sources: tuple[str, ...], sign: int = 1, phi: float = 180.0) -> float:
        """10 log10 of the integrated power of `sources`, 110 kHz apart over resonant."""
        return 10 * float(np.log10(self.power(self.far(sign, phi), sources) / self.power(self.at_phase(phi), sources)))

    @functools.cached_property
    def membrane(self) -> dict[str, float]:
        """Derived quantities of the membrane: gamma_M, shift, Gamma_M, zeta_M, cooperativities."""
        e: Any = self.resonant.element("membrane")
        f, gamma = (float(x) for x in e.effective_mechanics())
        kappa, g = float(e.cavity_linewidth_hz), float(e.coupling()) / (2 * np.pi)
        rate, zeta = (float(x) for x in e.readout())
        n, gamma0 = e.bath_occupation, e.mechanical_linewidth_hz
        return {
            "frequency": f, "shift": f - e.mechanical_hz, "gamma": gamma, "rate": rate,
            "zeta": zeta, "table_cooperativity": 2 * g**2 / (kappa * gamma0 * n),
            "cooperativity": rate / (gamma0 * (2 * n + 1)),
        }  # fmt: skip

    def ratio(self, element: str) -> float:
        """QBA/TH of one oscillator alone: integrated power of the vacuum's response over that of its bath."""
        if element == "membrane":
            return self.power(self.mechanics, LIGHT) / self.power(self.mechanics, ("membrane.bath",))
        alone = self.resonant.with_values({"membrane.coupling_hz": 0.0})
        return self.power(alone, LIGHT) / self.power(alone, ("spin.bath",))

    # -- sensitivity and forecast ---------------------------------------------------------------------------------

    @functools.cached_property
    def sensitivities(self) -> dict[str, float]:
        """D ln V_c/d ln parameter for every parameter (per degree for angles, per kHz for the offset), exact."""
        fixed = self.resonant.with_values({"spin.larmor_offset_hz": -0.5 * self.membrane["gamma"]})
        fields = [f for f in fixed.fields() if f not in ("membrane.mode_matching", "detector.electronic_noise_sn")]
        slopes = gradient("conditional.epr.variance", fixed, fields)
        value = float(evaluate("conditional.epr.variance", fixed))
        out = {}
        for field, slope in zip(fields, slopes, strict=True):
            if field.endswith("_deg"):
                out[f"{field} (per degree)"] = float(slope / value)
            elif field == "spin.larmor_offset_hz":
                out["spin.larmor_offset_hz (per kHz)"] = float(1e3 * slope / value)
            else:
                out[field] = float(slope * fixed.value(field) / value)
        return out

    def improved(self, by_rate: bool = True) -> Experiment:
        """The forecast's parameters: nu 0.9, kappa_in/kappa 0.98, Gamma_S/gamma_S0 three times (either way), broadband/3."""
        change: dict[str, Any] = {
            "link.transmission": 0.9, "membrane.overcoupling": 0.98, "spin.broadband_noise_sn": 1.68 / 3,
        }  # fmt: skip
        change |= {"spin.readout_rate_hz": 60e3} if by_rate else {"spin.intrinsic_linewidth_hz": 1700.0 / 3}
        return self.resonant.with_values(change)

    def rematched(self, by_rate: bool = True) -> Experiment:
        """The forecast with Gamma_M = nu Gamma_S (by g) and zero detuning."""
        e = self.improved(by_rate)
        target = 0.9 * float(e.value("spin.readout_rate_hz"))
        g = float(e.value("membrane.coupling_hz"))
        for _ in range(60):
            trial = Thomas.__new__(Thomas)
            trial.resonant = e.with_values({"membrane.coupling_hz": g})
            g *= np.sqrt(target / trial.membrane["rate"])
        return e.with_values({"membrane.coupling_hz": float(g), "spin.larmor_offset_hz": 0.0})

    def optimised(self, by_rate: bool = True) -> tuple[float, Experiment]:
        """The forecast with g, phi and detuning optimised from the re-matched point, with exact gradients."""
        from scipy import optimize

        start = self.rematched(by_rate)
        fields = ["membrane.coupling_hz", "phase.angle_deg", "spin.larmor_offset_hz"]
        centre = np.array([float(start.value(f)) for f in fields])
        scale = np.array([1e4, 5.0, 1e3])

        def objective(u: Array) -> tuple[float, Array]:
            e = start.with_values(dict(zip(fields, (float(x) for x in centre + scale * u), strict=True)))
            return float(evaluate("conditional.epr.variance", e)), gradient(
                "conditional.epr.variance", e, fields
            ) * scale

        found = optimize.minimize(objective, np.zeros(3), jac=True, method="BFGS", options={"gtol": 1e-9})
        best = start.with_values(dict(zip(fields, (float(x) for x in centre + scale * found.x), strict=True)))
        return float(found.fun), best

    def excess_for(self, target: float, far: bool = False, weight: float = 0.85) -> float:
        """White noise (SN) at the detector that would give the printed V_c (far: a = 0.85, correlations ignored)."""
        from scipy import optimize

        base = self.far() if far else self.resonant

        def miss(noise: float) -> float:
            e = base.with_values({"detector.electronic_noise_sn": noise})
            value = self.epr(e, "conditional", weight, False) if far else float(evaluate("conditional.epr.variance", e))
            return value - target

        return float(optimize.brentq(miss, 0.0, 5.0, xtol=1e-12))

    def excess_at(self, path: str, target: float) -> float:
        """The same for another noise of the chain, by the field's path: added to its value."""
        from scipy import optimize

        start = float(self.resonant.value(path))

        def miss(extra: float) -> float:
            e = self.resonant.with_values({path: start + extra})
            return float(evaluate("conditional.epr.variance", e)) - target

        return float(optimize.brentq(miss, 0.0, 20.0, xtol=1e-12))

    def crossings_khz(self) -> tuple[float, float]:
        """Detunings |omega_S| - omega_M,eff at which V_c = 1."""
        from scipy import optimize

        def miss(offset: float) -> float:
            e = self.resonant.with_values({"spin.larmor_offset_hz": offset})
            return float(evaluate("conditional.epr.variance", e)) - 1

        low = optimize.brentq(miss, -30e3, -5e3, xtol=1e-6)
        return float(low) / 1e3, float(optimize.brentq(miss, 5e3, 30e3, xtol=1e-6)) / 1e3


def ideal(kind: str, omega: float, gamma: float, n: float, rate: float, eta: float) -> tuple[float, float]:
    """(V_u, V_c) traces of the full model of one oscillator, or the EPR variance of a matched pair, rates in rad/s."""
    hz = 1 / (2 * np.pi)
    common: dict[str, Any] = {"intrinsic_linewidth_hz": gamma * hz, "readout_rate_hz": rate * hz, "occupation": n}
    end = [Loss(name="link", transmission=1.0), Homodyne(name="detector", efficiency=eta)]
    if kind == "single":
        e = Experiment((Oscillator(name="o", frequency_hz=omega * hz, **common), *end))
        return float(np.trace(steady.unconditional(e.system))), float(np.trace(steady.conditional(e.system).covariance))
    first = SpinOscillator(name="first", larmor_hz=omega * hz, **common)
    second = SpinOscillator(name="second", larmor_hz=-omega * hz, **common)
    e = Experiment((first, second, *end), ("first", "second"))
    system: LinearSystem = e.system
    V = steady.conditional(system).covariance
    return float(entanglement.epr_variance(steady.unconditional(system), 1.0, 180.0)), float(
        entanglement.epr(V).variance
    )
