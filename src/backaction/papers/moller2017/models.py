"""Closed forms of Moller 2017 in the paper's own conventions: the door through which they enter.

The paper uses half widths (kappa, gamma), light with [X, P] = i/2 and vacuum density 1/4, g = sqrt(2) times the textbook's,
and the sign of the mass in Omega_S. Spectra are relative to vacuum, so they are shot-noise units. All rates are angular.
Corrections of misprints are named where they are made; docs/derivations.md derives them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from backaction.constants import TWO_PI
from backaction.elements.optomechanical_cavity import OptomechanicalCavity
from backaction.numerics.matrices import Array


def rotation(phi: Any) -> Array:
    """O_phi = [[cos, -sin], [sin, cos]]."""
    c, s = np.cos(phi), np.sin(phi)
    return np.moveaxis(np.array([[c, -s], [s, c]]), (0, 1), (-2, -1))


@dataclass(frozen=True)
class Cavity:
    """Parameters of the optomechanical system: half widths, Delta = omega_L - omega_c, g of H = -g(a + a')X_M."""

    omega: float
    gamma0: float
    kappa1: float
    kappa2: float
    delta: float
    g: float

    @classmethod
    def of(cls, e: OptomechanicalCavity) -> Cavity:
        """From an element: full widths halved, g times sqrt(2), mode matching as the paper maps it."""
        rates = {k: float(v) / 2 for k, v in e.port_rates().items()}
        first = rates.pop(e.port_roles()[0])
        hz = (float(e.mechanical_hz), float(e.mechanical_linewidth_hz) / 2, float(e.detuning_hz))
        omega, gamma0, delta = (TWO_PI * v for v in hz)
        return cls(omega, gamma0, first, sum(rates.values()), delta, float(e.coupling()) * np.sqrt(2))

    @property
    def kappa(self) -> float:
        """kappa_1 + kappa_2."""
        return self.kappa1 + self.kappa2

    @property
    def readout(self) -> float:
        """Gamma_M = 2 g^2/kappa (S2)."""
        return 2 * self.g**2 / self.kappa

    @property
    def lorentzian(self) -> float:
        """L_0 = kappa/sqrt(kappa^2 + Delta^2) (S15)."""
        return float(self.kappa / np.hypot(self.kappa, self.delta))

    @property
    def phi(self) -> float:
        """Phase of the intracavity carrier, arctan(Delta/kappa)."""
        return float(np.arctan2(self.delta, self.kappa))

    @property
    def psi(self) -> float:
        """Psi with psi + phi = arg(alpha_out); arctan2, which holds for kappa_1 < kappa_2 too."""
        return float(np.arctan2(self.delta, self.kappa1 - self.kappa2))

    def L(self, W: Any) -> Any:
        """Complex Lorentzian kappa/(kappa - i(Delta + W)) (S13)."""
        return self.kappa / (self.kappa - 1j * (self.delta + np.asarray(W)))

    def chi(self, W: Any, effective: bool = True) -> Any:
        """chi_M = 2 Omega_M/D; effective: D = D_M0 + 2 i ... from eliminating the cavity (S6-S9), exact."""
        W = np.asarray(W)
        D0 = self.omega**2 - W**2 - 2j * W * self.gamma0
        if effective:
            # D = D_0 - C A^-1 B with A the cavity, B = (0, -g), C = (-2 g Omega_M, 0)
            a = self.kappa - 1j * W
            D0 = D0 + 2 * self.omega * self.g**2 * self.delta / (a * a + self.delta**2)
        return 2 * self.omega / D0

    def M_exact(self, W: Any) -> Array:
        """S10's transfer matrix of the reflected light, via the Schur complement of the mechanics."""
        W = np.atleast_1d(np.asarray(W, dtype=float))
        inner = self._cavity(W)
        inner[:, 1, 0] -= self.g**2 * self.chi(W, effective=False)
        O = rotation(self.phi)
        core = 2 * self.kappa1 * np.linalg.inv(inner) - np.eye(2)
        return O @ core @ O.T

    def M_schur_mechanics(self, W: Any) -> Array:
        """The same via the Schur complement of the cavity: A^-1 + A^-1 B D^-1 C A^-1."""
        W = np.atleast_1d(np.asarray(W, dtype=float))
        inverse = np.linalg.inv(self._cavity(W))
        kick = np.zeros((2, 2), dtype=complex)
        kick[1, 0] = self.g**2
        full = inverse + inverse @ (kick * self.chi(W)[:, None, None]) @ inverse
        O = rotation(self.phi)
        return O @ (2 * self.kappa1 * full - np.eye(2)) @ O.T

    def _cavity(self, W: Array) -> Array:
        a, d = self.kappa - 1j * W, np.full(W.shape, self.delta + 0j)
        return np.moveaxis(np.array([[a, d], [-d, a]]), (0, 1), (-2, -1))

    def M_S14(self, W: Any) -> Array:
        """(S14): exact for kappa_2 = 0 at every W."""
        W = np.atleast_1d(np.asarray(W, dtype=float))
        up, down = np.abs(self.L(W)), np.abs(self.L(-W))
        t, tm = np.angle(self.L(W)), np.angle(self.L(-W))
        x = self.readout * self.chi(W) / 4
        core = np.zeros((W.size, 2, 2), dtype=complex)
        core[:, 0, 0] = core[:, 1, 1] = 1 + 1j * x * (up**2 - down**2)
        core[:, 0, 1], core[:, 1, 0] = -x * (up - down) ** 2, x * (up + down) ** 2
        phase = np.exp(1j * (t - tm))[:, None, None]
        return phase * (rotation(self.phi + (t + tm) / 2) @ core @ rotation(-self.phi + (t + tm) / 2))

    def M_S17(self, W: Any) -> Array:
        """(S17): first order in delta-theta, delta-L."""
        W = np.atleast_1d(np.asarray(W, dtype=float))
        square = self.kappa**2 + self.delta**2
        dtheta, dL = W * self.kappa / square, -W * self.delta * self.kappa / square**1.5
        x = self.readout * self.chi(W) * self.lorentzian
        core = np.zeros((W.size, 2, 2), dtype=complex)
        core[:, 0, 0] = core[:, 1, 1] = 1 + 1j * x * dL
        core[:, 1, 0] = x * self.lorentzian
        return np.exp(2j * dtheta)[:, None, None] * (rotation(2 * self.phi) @ core)


def spin_susceptibility(W: Any, omega: float, gamma: float) -> Any:
    """chi_S = 2 Omega_S/(Omega_S^2 - W^2 - 2 i W gamma_S), the mass in the sign of Omega_S."""
    W = np.asarray(W)
    return 2 * omega / (omega**2 - W**2 - 2j * W * gamma)


def spin_output(W: Any, omega: float, gamma: float, rate: float, occupation: float, theta: float, eta: float) -> Any:
    """Spectrum of X cos theta + P sin theta behind the spins alone, vacuum = 1: (S30) with loss.

    S = 1 + eta [ sin^2 theta (Gamma^2 + 4 Gamma gamma (n + 1/2)) |chi|^2 + 2 sin theta cos theta Gamma Re chi ].
    """
    chi = spin_susceptibility(W, omega, gamma)
    s, c = np.sin(theta), np.cos(theta)
    power = np.abs(chi) ** 2
    thermal = 4 * rate * gamma * (occupation + 0.5)
    return 1 + eta * (s * s * (rate**2 + thermal) * power + 2 * s * c * rate * np.real(chi))


def hybrid_S33(c: Cavity, W: Any, omega_s: float, gamma_s: float, rate: float) -> Any:
    """Coefficient of X_in in P_meas (S33), with gamma_M - gamma_M0 = Gamma_M L_0 delta-L."""
    W = np.asarray(W, dtype=float)
    dL = -W * c.delta * c.kappa / (c.kappa**2 + c.delta**2) ** 1.5
    x = c.readout * c.chi(W) * c.lorentzian
    return x * c.lorentzian + rate * spin_susceptibility(W, omega_s, gamma_s) * (1 + 1j * x * dL)


def hybrid_S34(d_m: Any, d_s: Any, gamma_m: float, gamma_s: float, gp: float, rate: float, sign: int) -> Any:
    """(S34) corrected: [(G' d_S + s Gamma_S d_M)^2 + G'^2 gamma_S^2]/[(d_M^2 + gamma_M^2)(d_S^2 + gamma_S^2)].

    G' = Gamma_M L_0^2, d = W - |Omega|, s = +1 positive, -1 negative mass. The paper prints the positive mass without L_0^2.
    """
    top = (gp * np.asarray(d_s) + sign * rate * np.asarray(d_m)) ** 2 + gp**2 * gamma_s**2
    return top / ((np.asarray(d_m) ** 2 + gamma_m**2) * (np.asarray(d_s) ** 2 + gamma_s**2))


def back_action_ratio(r: float, gamma_m: float, gamma_s: float, sign: int) -> float:
    """Hybrid over mechanical QBA at equal frequencies: [(1 + s r)^2 gamma_M + gamma_S]/(gamma_M + gamma_S), r = Gamma_S/G'.

    The integral of `hybrid_S34` over W divided by that of G'^2/(d_M^2 + gamma_M^2). At r = 1, equal widths: 1/2 and 5/2.
    """
    return ((1 + sign * r) ** 2 * gamma_m + gamma_s) / (gamma_m + gamma_s)


def detuned_ratio(D: float, gamma_m: float, gamma_s: float) -> float:
    """The same at r = 1, negative mass, |Omega_S| - Omega_M = D and sin varphi = -D/G'.

    gamma_S (gamma_M + gamma_S)/(D^2 + (gamma_M + gamma_S)^2) falls below 1/2, for D << G': the limit is of equal widths.
    """
    return gamma_s * (gamma_m + gamma_s) / (D**2 + (gamma_m + gamma_s) ** 2)


def cooperativity_S40(height: float, height_driven: float, n_wn: float) -> float:
    """(S40): R_BA^2/R_Th^2 = (B - A)/((n + 1) A - B) from the two heights above shot noise."""
    return (height_driven - height) / ((n_wn + 1) * height - height_driven)
