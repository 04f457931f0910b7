"""What the claims and figures of Huang 2018 are computed from: the shipped experiment, optimised along curves, cached."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from backaction.design.optimization import optimize
from backaction.design.sensing import Lorentzian, Signal, WaveformVariance, waveform_variance
from backaction.design.sweeps import sweep
from backaction.elements.homodyne import Homodyne
from backaction.elements.optics import Loss, Rotation
from backaction.elements.optomechanical_cavity import OptomechanicalCavity
from backaction.elements.sideband_oscillator import SidebandOscillator
from backaction.elements.spin_oscillator import SpinOscillator
from backaction.experiment.experiment import Experiment
from backaction.experiment.results import evaluate
from backaction.numerics.matrices import Array
from backaction.papers.huang2018.models import Rates
from backaction.systems import response

XI = "unconditional.epr_readout.variance"
XI_C = "conditional.epr_readout.variance"
COOPERATIVITIES = {
    "membrane.readout_rate_hz": "C_M * membrane.intrinsic_linewidth_hz * (membrane.occupation + 0.5)",
    "spin.readout_rate_hz": "C_S * spin.intrinsic_linewidth_hz * (spin.occupation + 0.5)",
}
"""Huang's cooperativities C = Gamma/[gamma_0 (n + 1/2)] as the variables of all optimisations."""
ANGLES = {"spin.coupling_angle_deg": (0.0, 90.0), "membrane.coupling_angle_deg": (0.0, 90.0)}
EQUAL = {"membrane.coupling_angle_deg": "spin.coupling_angle_deg"}
C_M = {"C_M": (1e-2, 1e6)}
FORCE = Signal("membrane.bath", 0.0)


class Huang:
    """The scheme at gamma_S0 = 5 kHz, n_S = 1, gamma_M0 = 0.1 Hz, n_M = 1e5 (r = 1.33334), with and without loss."""

    def __init__(self) -> None:
        self.base = Experiment.load("huang2018")
        self.tilde = (5000.0 * 1.5, 0.1 * 100000.5)
        self.r = self.tilde[1] / self.tilde[0]
        self.C_S = np.geomspace(1.0, 1000.0, 31)
        self._kept: dict[tuple[Any, ...], Any] = {}

    def experiment(self, eps: float = 0.0, **more: Any) -> Experiment:
        """The base with loss eps; further fields as `spin__occupation=...`."""
        values = {k.replace("__", "."): v for k, v in more.items()}
        return self.base.with_values({"link.transmission": 1.0 - eps} | values)

    def at(self, C_S: Any, C_M: Any, theta_S: Any, theta_M: Any, eps: Any = 0.0, n_S: Any = 1.0) -> Experiment:
        """A point in the paper's symbols, angles in radians."""
        decoherence = 5000.0 * (np.asarray(n_S) + 0.5)
        return self.base.with_values(
            {
                "spin.readout_rate_hz": np.asarray(C_S) * decoherence,
                "spin.occupation": n_S,
                "membrane.readout_rate_hz": np.asarray(C_M) * self.tilde[1],
                "spin.coupling_angle_deg": np.degrees(theta_S),
                "membrane.coupling_angle_deg": np.degrees(theta_M),
                "link.transmission": 1.0 - np.asarray(eps),
            }
        )

    def rates(self, C_S: Any, C_M: Any, theta_S: Any, theta_M: Any, eps: Any = 0.0) -> Rates:
        """The same in the paper's units."""
        return Rates(C_S, C_M, theta_S, theta_M, eps, 1.0, self.r, 0.1 / self.tilde[0])

    # -- optima along C_S ---------------------------------------------------------------------------------------------

    def optimum(self, C_S: float, eps: float, kind: str = "R") -> Any:
        """The optimum at one C_S: `R` (free angles), `R0` (equal angles), `QND` (45 degrees, conditional)."""
        return self._keep(("optimum", C_S, eps, kind), lambda: self._optimum(C_S, eps, kind))

    def _optimum(self, C_S: float, eps: float, kind: str) -> Any:
        over, ties, result = _kind(kind)
        e = self.experiment(eps, spin__readout_rate_hz=C_S * self.tilde[0])
        tied = {k: v for k, v in COOPERATIVITIES.items() if k.startswith("membrane")}
        return optimize(e if kind != "QND" else _qnd(e), result, over | C_M, ties=tied | ties, starts=16)

    def _keep(self, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        """Computed once."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def curve(self, eps: float, kind: str = "R") -> Mapping[str, Array]:
        """Optima over `C_S`: xi, C_M, theta_S, theta_M in radians; NaN where there is no entanglement."""
        found: Mapping[str, Array] = self._keep(("curve", eps, kind), lambda: self._curve(eps, kind))
        return found

    def _curve(self, eps: float, kind: str) -> Mapping[str, Array]:
        over, ties, result = _kind(kind)
        e = self.experiment(eps)
        data = sweep(
            e if kind != "QND" else _qnd(e),
            {"C_S": self.C_S},
            [result],
            optimize=over | C_M,
            ties=COOPERATIVITIES | ties,
        )
        xi = data[result].values
        entangled = xi < 1
        out = {
            "C_S": self.C_S,
            "xi": np.where(entangled, xi, np.nan),
            "C_M": np.where(entangled, data["at C_M"].values, np.nan),
        }
        quarter = np.full(self.C_S.shape, np.pi / 4)
        theta_S = np.radians(data["at spin.coupling_angle_deg"].values) if kind != "QND" else quarter
        theta_M = np.radians(data["at membrane.coupling_angle_deg"].values) if kind == "R" else theta_S
        return out | {"theta_S": np.where(entangled, theta_S, np.nan), "theta_M": np.where(entangled, theta_M, np.nan)}

    def improvement(self, eps: float) -> tuple[Array, Array]:
        """Relative improvement of the conditional scheme: (same parameters, optimal QND), over `C_S`."""
        best = self.curve(eps)
        same = evaluate(XI_C, self.at(best["C_S"], best["C_M"], best["theta_S"], best["theta_M"], eps))
        return 1 - same / best["xi"], 1 - self.curve(eps, "QND")["xi"] / best["xi"]

    def improvement_at(self, C_S: float, eps: float) -> tuple[float, float]:
        """The same at one C_S."""
        best = self.optimum(C_S, eps)
        same = float(evaluate(XI_C, best.experiment))
        return 1 - same / best.value, 1 - self.optimum(C_S, eps, "QND").value / best.value

    def threshold(self, eps: float, kind: str) -> float:
        """Least C_S with entanglement, by bisection on the optimiser's own verdict."""
        low, high = 0.3, 8.0
        while high / low > 1 + 1e-4:
            middle = float(np.sqrt(low * high))
            if self.optimum(middle, eps, kind).status == "optimum":
                high = middle
            else:
                low = middle
        return float(np.sqrt(low * high))

    def map(self, kind: str = "R", n: int = 72) -> Any:
        """Fig. 2: xi over C_S and C_M with the angles optimised."""
        over, ties, result = _kind(kind)
        axes = {"C_S": np.geomspace(0.3, 1000, n), "C_M": np.geomspace(1, 1000, n)}
        return self._keep(
            ("map", kind, n),
            lambda: sweep(self.experiment(0.0), axes, [result], optimize=over, ties=COOPERATIVITIES | ties),
        )

    # -- sensing ------------------------------------------------------------------------------------------------------

    def sql(self, width: float) -> float:
        """V of the mechanics alone, its C_M optimised, for a Lorentzian of `width` gamma~_M0."""
        value: float = self._keep(("sql", width), lambda: self._sql(width))
        return value

    def _sql(self, width: float) -> float:
        alone = self.experiment(0.0, spin__readout_rate_hz=0.0, membrane__coupling_angle_deg=60.0)
        tied = {k: v for k, v in COOPERATIVITIES.items() if k.startswith("membrane")}
        goal = WaveformVariance(FORCE, Lorentzian(width * self.tilde[1]))
        return float(optimize(alone, goal, {"C_M": (1e-3, 1e5)}, ties=tied, starts=8).value or np.nan)

    def enhancement(self, width: float) -> Array:
        """V_H/V_M over `C_S` at the parameters that are best for entanglement."""
        best = self.curve(0.0)
        e = self.at(best["C_S"], best["C_M"], best["theta_S"], best["theta_M"])
        return np.asarray(waveform_variance(e.system, FORCE, Lorentzian(width * self.tilde[1]))) / self.sql(width)

    def cos_spectrum(self, e: Experiment, delta: Any) -> Array:
        """Density of the cosine current, vacuum 1/2, at offsets in units of gamma~_S0."""
        f = np.asarray(delta) * self.tilde[0]
        return np.asarray(response.budget(e.system, f, "detector.cos").total) * response.VACUUM

    # -- the laboratory frame -----------------------------------------------------------------------------------------

    def laboratory(self, omega_hz: float, kappa_hz: float, eps: float = 0.1) -> Experiment:
        """The shipped optimum with a spin and a membrane in a cavity in the lab frame at omega, kappa.

        Delta is chosen so that the sidebands have the ratio tan^2 theta_M, g so that Gamma_M is the same; the phase between
        the systems is the supplement's -(theta_+ + theta_-)/2 (relative to our real input carrier).
        """
        spin, membrane = (self.base.element(k) for k in ("spin", "membrane"))
        assert isinstance(spin, SidebandOscillator)
        assert isinstance(membrane, SidebandOscillator)
        zeta = float(np.tan(np.radians(spin.coupling_angle_deg - 45.0)))
        t = float(np.tan(np.radians(membrane.coupling_angle_deg))) ** 2
        # kappa^2/4 + (Delta - omega)^2 = t [kappa^2/4 + (Delta + omega)^2], the smaller |Delta|
        middle = omega_hz * (t + 1) / (t - 1)
        under = middle**2 - omega_hz**2 - kappa_hz**2 / 4
        if under < 0:
            raise ValueError("no detuning gives this ratio of sidebands: the cavity is too wide")
        delta = -middle + float(np.sqrt(under))
        up, down = (1 / (1 + 4 * (delta + s * omega_hz) ** 2 / kappa_hz**2) for s in (1, -1))
        g = float(np.sqrt(membrane.readout_rate_hz * kappa_hz / (4 * (up + down))))
        cavity = OptomechanicalCavity(
            name="membrane", mechanical_hz=omega_hz, mechanical_linewidth_hz=0.1, bath_occupation=1e5, cavity_linewidth_hz=kappa_hz,
            overcoupling=1.0, detuning_hz=delta, coupling_hz=g,
        )  # fmt: skip
        first = SpinOscillator(
            name="spin", larmor_offset_hz=0.0, intrinsic_linewidth_hz=5000.0, occupation=1.0,
            readout_rate_hz=float(spin.readout_rate_hz) / (1 + zeta**2), tensor_ratio=zeta,
        )  # fmt: skip
        turn = Rotation(name="phase", angle_deg=-float(cavity.rotating_wave()[0]))
        path = (first, Loss(name="link", transmission=1 - eps), turn, cavity, Homodyne(name="detector"))
        return Experiment(path, ("spin", "membrane"), name="laboratory")

    def deviation(self, omega_hz: float, kappa_hz: float) -> float:
        """Relative difference of the unconditional EPR variance, lab frame over its rotating-wave limit."""
        lab = self.laboratory(omega_hz, kappa_hz)
        name = "unconditional.epr.variance"
        return float(evaluate(name, lab) / evaluate(name, lab.rotating_wave()) - 1)


def _kind(kind: str) -> tuple[dict[str, tuple[float, float] | None], dict[str, str], str]:
    """(variables, ties, result) of a scheme."""
    if kind == "R":
        return dict(ANGLES), {}, XI
    if kind == "R0":
        return {"spin.coupling_angle_deg": (0.0, 90.0)}, EQUAL, XI
    return {}, {}, XI_C


def _qnd(e: Experiment) -> Experiment:
    return e.with_values({"spin.coupling_angle_deg": 45.0, "membrane.coupling_angle_deg": 45.0})
