"""The simple models of Thomas 2021's main text: Eqs. (2a), (2b), (3), the single oscillator, non-local cooling.

Susceptibilities chi_j = omega_j/(omega_j^2 - W^2 - i W gamma_j) and chi_j0 with gamma_j0; rates in rad/s; light
in units of vacuum. Each is the limit of the full model for a broadband cavity in which the light's phases are absorbed
(kappa_in = kappa, phi = 180 degrees, theta = 0, primed quadratures), and near resonance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from backaction.numerics.matrices import Array


@dataclass(frozen=True)
class TwoOscillators:
    """Parameters of Eq. (2): signed frequencies, intrinsic widths, readout rates, zeta, nu, eta, occupations."""

    omega_m: float
    omega_s: float
    gamma_m0: float
    gamma_s0: float
    rate_m: float
    rate_s: float
    zeta_m: float
    zeta_s: float
    nu: float
    eta: float
    n_m: float
    n_s: float

    def chi(self, W: Array, which: str, intrinsic: bool = False) -> Array:
        """Susceptibility of `m` or `s`, with or without dynamical broadening."""
        w, g0, rate, zeta = (
            (self.omega_m, self.gamma_m0, self.rate_m, self.zeta_m)
            if which == "m"
            else (self.omega_s, self.gamma_s0, self.rate_s, self.zeta_s)
        )
        gamma = g0 if intrinsic else g0 + 2 * zeta * rate
        return w / (w**2 - W**2 - 1j * W * gamma)

    def cross(self, W: Array) -> Array:
        """chi_MS with 1/chi_MS = 1/chi_M0 - 2 i zeta_S Gamma_M."""
        return 1 / (1 / self.chi(W, "m", True) - 2j * self.zeta_s * self.rate_m)

    def back_action(self, W: Array) -> Array:
        """Coefficient of 2 X_in in P_out of (2b), -sqrt(eta nu)[chi_S/chi_S0 Gamma_M chi_M + chi_M/chi_M0 Gamma_S chi_S]."""
        chi_m, chi_s = self.chi(W, "m"), self.chi(W, "s")
        own = chi_s / self.chi(W, "s", True) * self.rate_m * chi_m
        passed = chi_m / self.chi(W, "m", True) * self.rate_s * chi_s
        return -np.sqrt(self.eta * self.nu) * (own + passed)

    def back_action_factored(self, W: Array) -> Array:
        """The same, rewritten: chi_M chi_S/(chi_M0 chi_S0) [Gamma_M chi_M0 + Gamma_S chi_S0]."""
        m0, s0 = self.chi(W, "m", True), self.chi(W, "s", True)
        joint = self.chi(W, "m") * self.chi(W, "s") / (m0 * s0)
        return -np.sqrt(self.eta * self.nu) * joint * (self.rate_m * m0 + self.rate_s * s0)

    def cooling(self, W: Array) -> Array:
        """Non-local cooling of the spin's thermal response: |chi_M/chi_MS|^2."""
        return np.abs(self.chi(W, "m") / self.cross(W)) ** 2

    def spectrum(self, W: Array) -> dict[str, Array]:
        """Parts of the detected spectrum by (2b) in shot-noise units."""
        chi_m, chi_s = self.chi(W, "m"), self.chi(W, "s")
        link = self.rate_m * chi_m * np.sqrt((1 - self.nu) * self.eta)
        thermal_m = np.abs(np.sqrt(self.eta * self.rate_m) * chi_m) ** 2 * 2 * self.gamma_m0 * (self.n_m + 0.5)
        # F_S = i F_X + F_P, each of density gamma_S0 (n_S + 1/2)
        reach = chi_m / self.cross(W) * np.sqrt(self.eta * self.nu * self.rate_s) * chi_s
        thermal_s = np.abs(reach) ** 2 * 2 * self.gamma_s0 * (self.n_s + 0.5)
        return {
            "joint back-action": np.abs(2 * self.back_action(W)) ** 2,
            "link back-action": np.abs(2 * link) ** 2,
            "mechanical thermal": 4 * thermal_m,
            "spin thermal": 4 * thermal_s,
            "shot": np.ones_like(W),
        }


def single_unconditional(n: Any, cooperativity: Any) -> Any:
    """V_u^(1) = (1 + 2n)(1 + C_q), C_q = Gamma/[gamma(2n + 1)]."""
    return (1 + 2 * np.asarray(n)) * (1 + np.asarray(cooperativity))


def single_printed(eta: Any, cooperativity: Any) -> Any:
    """V_c^(1) as printed: sqrt(1/eta) sqrt(1 + 1/(2 C_q))."""
    return np.sqrt(1 / np.asarray(eta)) * np.sqrt(1 + 1 / (2 * np.asarray(cooperativity)))


def single_corrected(eta: Any, cooperativity: Any) -> Any:
    """V_c^(1) that follows from the stated V_u: sqrt((gamma/Gamma) V_u/eta) = sqrt(1/eta) sqrt(1 + 1/C_q)."""
    return np.sqrt(1 / np.asarray(eta)) * np.sqrt(1 + 1 / np.asarray(cooperativity))


def single_rwa(gamma: Any, rate: Any, eta: Any, unconditional: Any) -> Any:
    """Exact rotating-wave result [-g + sqrt(g^2 + 4 eta G g V_u)]/(2 eta G)."""
    return (-gamma + np.sqrt(gamma**2 + 4 * eta * rate * gamma * unconditional)) / (2 * eta * rate)


def hybrid_ideal(eta: Any, cooperativity: Any) -> Any:
    """Eq. (3): V_c = sqrt(1/eta) sqrt(1/(2 C_q)) for matched rates and susceptibilities of opposite mass."""
    return np.sqrt(1 / np.asarray(eta)) * np.sqrt(1 / (2 * np.asarray(cooperativity)))


def hybrid_rwa(gamma: Any, rate: Any, eta: Any, unconditional: Any) -> Any:
    """Exact rotating-wave result [-g + sqrt(g^2 + 8 eta G g V_u)]/(4 eta G)."""
    return (-gamma + np.sqrt(gamma**2 + 8 * eta * rate * gamma * unconditional)) / (4 * eta * rate)
