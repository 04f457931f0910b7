"""What the claims and figures of Ockeloen-Korppi 2018 are computed from: the shipped experiment and its variations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from backaction.calibration.occupations import linear_covariance
from backaction.design.optimization import optimize
from backaction.design.stability import stable_range
from backaction.elements.driven_cavity import DrivenCavity, Probe
from backaction.experiment.experiment import Experiment
from backaction.experiment.results import evaluate
from backaction.numerics.matrices import Array
from backaction.papers.ockeloen2018.models import probe_gain
from backaction.systems.response import flux_of, photon_flux
from backaction.systems.steady import unconditional

DUAN = "unconditional.collective.duan"
DETUNE = {"drums.red_detuning_hz": "dbar - Delta", "drums.blue_detuning_hz": "dbar + Delta"}
SOURCES = ("drums.internal", "drums.drum1_bath", "drums.drum2_bath")
DATASETS = {"C": (278e3, 166e3), "D": (332e3, 210e3)}
PAIR = ("drum1", "drum2")
IMBALANCE = 1.055
PROBE_HZ = 40e3


class Ockeloen:
    """Two drums in one driven cavity; base baths 41 and 30, nominal baths n_I = 4, 82, 60."""

    def __init__(self) -> None:
        self.nominal = Experiment.load("ockeloen2018")
        self.base = self.at(n_I=0.0, n1=41.0, n2=30.0)
        self._kept: dict[Any, Any] = {}

    def keep(self, key: Any, make: Callable[[], Any]) -> Any:
        """Computed once."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def at(
        self, data: str | tuple[Any, Any] = "C", Delta: Any = 0.0, dbar: Any = 0.0, ratio: Any = 0.98, **baths: Any
    ) -> Experiment:
        """A dataset or (G_-, G_+) in Hz, detunings in Hz, g_1/g_2, and occupations n_I, n1, n2."""
        red, blue = DATASETS[data] if isinstance(data, str) else data
        names = {"n_I": "drums.internal_occupation", "n1": "drums.drum1_occupation", "n2": "drums.drum2_occupation"}
        values: dict[str, Any] = {names[k]: v for k, v in baths.items()}
        values |= {"drums.red_coupling_hz": red, "drums.blue_coupling_hz": blue, "drums.coupling_ratio": ratio}
        values |= {
            "drums.red_detuning_hz": np.asarray(dbar) - Delta,
            "drums.blue_detuning_hz": np.asarray(dbar) + Delta,
        }
        return self.nominal.with_values(values)

    @staticmethod
    def drums(e: Experiment) -> DrivenCavity:
        """The element."""
        found = e.element("drums")
        assert isinstance(found, DrivenCavity)
        return found

    def state(self, e: Experiment) -> Array:
        """4x4 covariance of the drums."""
        V = unconditional(e.system)
        i = e.system.indices(PAIR)
        return V[..., i, :][..., i]

    def cavity_occupation(self, e: Experiment) -> float:
        """N_c, the mean over the ports."""
        d = self.drums(e)
        return float(sum(p.rate_hz * p.occupation for p in d.ports) / d.linewidth_hz())

    # -- collective quadratures at an angle ----------------------------------------------------------------------------

    @staticmethod
    def x_plus(V: Array, phi_deg: Any) -> Array:
        """<(X_+ cos phi + P_+ sin phi)^2>."""
        c, s = np.cos(np.radians(phi_deg)), np.sin(np.radians(phi_deg))
        u = np.stack([c, s, c, s], axis=-1) / np.sqrt(2)
        return np.asarray(np.einsum("...i,ij,...j->...", u, V, u))

    @staticmethod
    def p_minus(V: Array, phi_deg: Any) -> Array:
        """<(P_- cos phi - X_- sin phi)^2>, the other half of Duan's quantity at that phase."""
        c, s = np.cos(np.radians(phi_deg)), np.sin(np.radians(phi_deg))
        u = np.stack([s, -c, -s, c], axis=-1) / np.sqrt(2)
        return np.asarray(np.einsum("...i,ij,...j->...", u, V, u))

    @staticmethod
    def best_phase(V: Array) -> float:
        """Phi that minimises <(X_+^phi)^2>, in degrees: tan 2 phi = 2 <X_+ P_+>/(X_+^2 - P_+^2)."""
        xp = (V[0, 1] + V[0, 3] + V[2, 1] + V[2, 3]) / 2
        x, p = (V[0, 0] + V[2, 2] + 2 * V[0, 2]) / 2, (V[1, 1] + V[3, 3] + 2 * V[1, 3]) / 2
        return float(np.degrees(np.arctan2(-2 * xp, p - x) / 2))

    # -- baths that fit -----------------------------------------------------------------------------------------------

    def divisions(self, target: float, Delta: float = 0.0, dbar: float = 0.0, n: int = 9) -> list[Experiment]:
        """Experiments whose least <(X_+^phi)^2> is `target`: from only the drums heated to only the cavity heated.

        n1:n2 = 41:30 throughout. At fixed drums the variance is linear in n_I; the phase is iterated.
        """
        return list(self.keep(("divisions", target, Delta, dbar, n), lambda: self._divisions(target, Delta, dbar, n)))

    def _divisions(self, target: float, Delta: float, dbar: float, n: int) -> list[Experiment]:
        e = self.at("C", Delta, dbar, n_I=0.0, n1=41.0, n2=30.0)
        V0, parts = linear_covariance(e.system, SOURCES)
        i = np.ix_(e.system.indices(PAIR), e.system.indices(PAIR))
        cold, internal, drums = V0[i], parts[0][i], 41.0 * parts[1][i] + 30.0 * parts[2][i]
        out = []
        hottest = self._solve(lambda s: cold + s * drums, target, 1.0, 20.0)
        for scale in np.linspace(1.0, hottest, n):
            heat = self._solve(lambda x, k=scale: cold + k * drums + x * internal, target, 0.0, 50.0)  # type: ignore[misc]
            out.append(self.at("C", Delta, dbar, n_I=max(heat, 0.0), n1=41.0 * scale, n2=30.0 * scale))
        return out

    def _solve(self, covariance: Callable[[float], Array], target: float, low: float, high: float) -> float:
        from scipy import optimize as scipy_optimize

        def gap(x: float) -> float:
            V = covariance(x)
            return float(self.x_plus(V, self.best_phase(V))) - target

        if gap(low) >= 0:
            return low
        return float(scipy_optimize.brentq(gap, low, high, xtol=1e-12))

    def over_divisions(self, target: float, function: Callable[[Experiment], float]) -> tuple[float, float]:
        """Range of a number over everything that the text leaves open."""
        values = [
            function(e)
            for Delta in (0.0, 4e3, 5.5e3)
            for dbar in (0.0, -200e3, -370e3, -500e3)
            for e in self.divisions(target, Delta, dbar)
        ]
        return float(min(values)), float(max(values))

    # -- spectra and the probe ----------------------------------------------------------------------------------------

    def pump_spectrum(self, e: Experiment, from_cavity_hz: Array) -> Array:
        """Quanta at the output, against the frequency from omega_c."""
        shift = float(np.real(self.drums(e).frame()[0]))
        return photon_flux(e.system, np.asarray(from_cavity_hz) - shift, "drums.out")

    def with_probe(
        self, e: Experiment, g_minus: float = PROBE_HZ, g_plus: float = PROBE_HZ, phi: float = 0.0
    ) -> Experiment:
        """A weak two-tone probe centred at omega_c on a mode of its own."""
        probe = Probe(name="probe", red_coupling_hz=g_minus, blue_coupling_hz=g_plus, phase_deg=phi)
        return Experiment((replace(self.drums(e), probes=(probe,)),), e.modes, name=e.name)

    def probe_spectrum(
        self, e: Experiment, f: Array, g_minus: float = PROBE_HZ, g_plus: float = PROBE_HZ, phi: float = 0.0
    ) -> Array:
        """Quanta of the probe's output less the background without probe."""
        on, off = (self.with_probe(e, a, b, phi).system for a, b in ((g_minus, g_plus), (0.0, 0.0)))
        return np.asarray(photon_flux(on, f, "drums.probe_out") - photon_flux(off, f, "drums.probe_out"))

    def inferred(self, e: Experiment, q: float = 1.0, phi: float = 0.0, g: float = PROBE_HZ) -> float:
        """Variance inferred from the total probe area, kappa_o (<c'c> - n_c)/K with K of balanced tones."""
        system = self.with_probe(e, g, g / q, phi).system
        V, i = unconditional(system), system.mode("drums.probe").start
        quanta = (V[i, i] + V[i + 1, i + 1] - 1) / 2 - self.cavity_occupation(e)
        d = self.drums(e)
        rate = float(next(p.rate_hz for p in d.ports if p.name == d.output_port))
        split = (float(d.modes[1].mechanical_hz) - float(d.modes[0].mechanical_hz)) / 2
        return float(rate * quanta / probe_gain(g, float(d.linewidth_hz()), rate, split))

    def underestimated(self, e: Experiment) -> float:
        """1 - area(g_-/g_+ = 1.055)/area(balanced)."""
        return 1 - self.inferred(e, IMBALANCE) / self.inferred(e)

    def four_tones(self, e: Experiment, phi: float = 0.0, g: float = PROBE_HZ) -> Any:
        """Pump and probe in one cavity: the `PeriodicSystem` of four tones, terms at twice the mechanical frequency dropped."""
        d = self.drums(e)
        half = (float(d.modes[0].mechanical_hz) + float(d.modes[1].mechanical_hz)) / 2
        delta = float(np.real(np.asarray(d.tones[1].detuning_hz) - d.tones[0].detuning_hz)) / 2
        first = d.tones[0]
        tones = (
            replace(
                first,
                name="probe_red",
                sideband=None,
                offset_hz=-half - delta,
                detuning_hz=0.0,
                coupling_hz=g,
                phase_deg=-phi,
            ),
            replace(
                first,
                name="probe_blue",
                sideband=None,
                offset_hz=half + delta,
                detuning_hz=0.0,
                coupling_hz=g,
                phase_deg=phi,
            ),
        )
        return replace(d, tones=(*d.tones, *tones)).periodic(below_hz=5e6)

    def windowed(
        self, e: Experiment, half_hz: float, phi: float = 0.0, one_cavity: bool = False, g: float = PROBE_HZ
    ) -> float:
        """Variance inferred from the probe's area within +-half_hz of its two peaks, probe modes apart or in one cavity."""
        split = 650e3
        f = np.concatenate([s * split + np.linspace(-half_hz, half_hz, 3001) for s in (-1, 1)])
        d = self.drums(e)
        if one_cavity:
            shift = float(np.real(d.frame()[0]))
            on = flux_of(self.four_tones(e, phi, g).spectrum(f - shift, ["drums.out"]))
            N = on - self.pump_spectrum(e, f)
        else:
            N = self.probe_spectrum(e, f, g, g, phi)
        area = sum(np.trapezoid(part, x) for part, x in zip(np.split(N, 2), np.split(f, 2), strict=True))
        rate = float(next(p.rate_hz for p in d.ports if p.name == d.output_port))
        gain = probe_gain(g, float(d.linewidth_hz()), rate, split)
        return float(area / (2 * np.pi * gain))

    # -- beyond the rotating wave, stability, optimum -----------------------------------------------------------------

    def beyond(self, e: Experiment) -> Array:
        """4x4 covariance of the drums with all terms, averaged over a period."""
        periodic = e.periodic()
        V, _ = periodic.covariance()
        i = periodic.average.indices(PAIR)
        return V[np.ix_(i, i)]

    def stable_Delta(self, data: str | tuple[float, float], dbar: float = 0.0) -> tuple[float | None, float | None]:
        """Stable range of Delta in Hz at a common detuning."""
        e = self.at(data)
        return stable_range(
            e, "Delta", (-60e3, 60e3), 0.0, {k: v.replace("dbar", f"({dbar!r})") for k, v in DETUNE.items()}
        )

    def best_detunings(self, ratio: float, hot: bool = True) -> Any:
        """Least Duan quantity (best phase) over both detunings, with a stability guard."""
        e = self.at("C", ratio=ratio) if hot else self.at("C", ratio=ratio, n_I=0.0, n1=41.0, n2=30.0)
        over = {"dbar": (-2.5e6, 1.2e6), "Delta": (-30e3, 30e3)}
        return self.keep(
            ("best", ratio, hot),
            lambda: optimize(
                e, "unconditional.duan", over, ties=DETUNE, constraints=["dynamics.margin_hz >= 1000"], starts=16
            ),
        )


def duan(e: Experiment) -> float:
    """X_+^2 + P_-^2."""
    return float(evaluate(DUAN, e))
