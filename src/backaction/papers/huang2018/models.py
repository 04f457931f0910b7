"""Closed forms of Huang et al. 2018 in the paper's symbols, rates in units of the spin's decoherence rate gamma~_S0 = 1.

S is the spin (negative mass, first), M the mechanics; gamma_j = gamma_j0 - Gamma_j cos 2 theta_j are full widths,
gamma~_j0 = gamma_j0 (n_j + 1/2), C_j = Gamma_j/gamma~_j0, r = gamma~_M0/gamma~_S0. <X_S, X_M> is the sum of both orders.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Rates:
    """One point of parameters; every field may be an array."""

    C_S: Any
    C_M: Any
    theta_S: Any
    theta_M: Any
    eps: Any = 0.0
    n_S: Any = 1.0
    r: Any = 4.0 / 3.0
    gamma_M0: Any = 0.0

    @property
    def gamma_S0(self) -> Any:
        """gamma_S0 = 1/(n_S + 1/2)."""
        return 1 / (np.asarray(self.n_S) + 0.5)

    @property
    def u_S(self) -> Any:
        """sqrt(Gamma_SB) + sqrt(Gamma_SP)."""
        return np.sqrt(self.C_S) * (np.sin(self.theta_S) + np.cos(self.theta_S))

    @property
    def v_S(self) -> Any:
        """sqrt(Gamma_SB) - sqrt(Gamma_SP)."""
        return np.sqrt(self.C_S) * (np.sin(self.theta_S) - np.cos(self.theta_S))

    @property
    def u_M(self) -> Any:
        """sqrt(Gamma_MB) + sqrt(Gamma_MP)."""
        return np.sqrt(np.asarray(self.C_M) * self.r) * (np.sin(self.theta_M) + np.cos(self.theta_M))

    @property
    def v_M(self) -> Any:
        """sqrt(Gamma_MB) - sqrt(Gamma_MP)."""
        return np.sqrt(np.asarray(self.C_M) * self.r) * (np.sin(self.theta_M) - np.cos(self.theta_M))

    @property
    def gamma_S(self) -> Any:
        """Effective width of the spin."""
        return self.gamma_S0 + self.u_S * self.v_S

    @property
    def gamma_M(self) -> Any:
        """Effective width of the mechanics."""
        return self.gamma_M0 + self.u_M * self.v_M

    @property
    def R(self) -> Any:
        """Unidirectional coupling sqrt(Gamma_SB Gamma_MP) - sqrt(Gamma_MB Gamma_SP)."""
        return (self.v_S * self.u_M - self.u_S * self.v_M) / 2

    @property
    def g(self) -> Any:
        """Weight of the pair that the light reads out, with sqrt(1 - eps) in the denominator."""
        return self.u_M / (np.sqrt(1 - np.asarray(self.eps)) * self.u_S)

    def eq7(self) -> tuple[Any, Any, Any]:
        """(Var X_S, Var X_M, <X_S, X_M>) of Eq. (7)."""
        root = np.sqrt(1 - np.asarray(self.eps))
        G_S, G_M = np.asarray(self.C_S) * 1.0, np.asarray(self.C_M) * self.r
        V_S = (G_S / 2 + 1) / self.gamma_S
        both = -2 * root / (self.gamma_S + self.gamma_M)
        cross = both * (np.sqrt(G_S * G_M) * np.sin(np.asarray(self.theta_M) + self.theta_S) - 2 * self.R * V_S)
        V_M = (G_M / 2 + self.r + root * self.R * cross) / self.gamma_M
        return V_S, V_M, cross

    def xi(self) -> Any:
        """EPR variance (8) of Eq. (7) at the readout's g."""
        V_S, V_M, cross = self.eq7()
        return epr(V_S, V_M, cross, self.g)

    def spectra(self, delta: Any) -> tuple[Any, Any]:
        """(N_M, N_H) of (S31)-(S33) at a detuning from resonance, the resonant sideband, vacuum 1/2, eps = 0."""
        delta = np.asarray(delta)
        chi_S = 1 / (self.gamma_S**2 / 4 + delta**2)
        chi_M = 1 / (self.gamma_M**2 / 4 + delta**2)
        G_S, G_M = np.asarray(self.C_S) * 1.0, np.asarray(self.C_M) * self.r
        h1 = self.u_S**2 / 2 * (G_S / 2 + 1) - self.gamma_S * (self.gamma_S - self.gamma_S0) / 4
        h2 = self.u_M**2 / 2 * (G_M / 2 + self.r) - self.gamma_M * (self.gamma_M - self.gamma_M0) / 4
        mixed = np.sqrt(G_S * G_M) * np.sin(np.asarray(self.theta_S) + self.theta_M)
        spin = self.R * (G_S / 2 + 1)
        h3 = (
            self.gamma_M * self.u_S * self.u_M / 2 * (spin - self.gamma_S * mixed / 4)
            + self.R * self.u_M**2 / 2 * (spin - self.gamma_S * mixed / 2)
            - self.R * self.gamma_S * self.gamma_M * self.v_S * self.u_M / 8
        )
        h4 = -self.u_S * self.u_M * mixed / 2 + self.R * self.v_S * self.u_M / 2
        alone = 0.5 + h2 * chi_M
        return alone, alone + h1 * chi_S + h3 * chi_M * chi_S + h4 * chi_M * chi_S * delta**2


def epr(V_S: Any, V_M: Any, cross: Any, g: Any) -> Any:
    """xi_g = 2 (V_S + g^2 V_M + g <X_S, X_M>)/(1 + g^2)."""
    return 2 * (V_S + g * g * V_M + g * cross) / (1 + g * g)


def conditional_S20(C_S: Any, C_M: Any, eps: Any = 0.0, n_S: Any = 1.0, r: Any = 4.0 / 3.0) -> tuple[Any, Any, Any]:
    """(S20) corrected: conditional state for theta_S = theta_M = pi/4, gamma_M0 -> 0, (V_S, V_M, <X_S, X_M>).

    In V_M the factor (C_M + 2)/C_M multiplies both terms under the root; the paper's line does not say so.
    """
    C_S, C_M, k = np.asarray(C_S) * 1.0, np.asarray(C_M) * 1.0, 1 / (2 * np.asarray(n_S) + 1)
    t = np.sqrt(C_M * (C_M + 2)) * r + k
    under = (C_M + 2) / C_M * (t * t + (1 - eps) * C_S * (C_S - 2 * C_M * r + 2))
    half = np.asarray(n_S) + 0.5
    V_M = half * (np.sqrt(under) - (C_M * r + 2 * r - (1 - eps) * C_S))
    root = np.sqrt(C_S * (1 - eps))
    cross = np.sqrt(C_M * r) * (np.sqrt((C_M + 2) / C_M) - 2 * V_M) / root
    V_S = -np.sqrt(C_M / (C_M + 2)) / 2 - (np.sqrt(C_M * r) + k / np.sqrt((C_M + 2) * r)) / (2 * root) * cross
    return V_S, V_M, cross


def riccati_S19(V: tuple[Any, Any, Any], p: Rates, printed: bool) -> tuple[Any, Any, Any]:
    """Right-hand sides of (S19) at theta = pi/4; as printed, or with -gamma_j0 V_j and the squares halved."""
    V_S, V_M, cross = V
    G_S, G_M = np.asarray(p.C_S) * 1.0, np.asarray(p.C_M) * p.r
    root = np.sqrt((1 - np.asarray(p.eps)) * G_S)
    a, b = 2 * root * V_S + np.sqrt(G_M) * cross, root * cross + 2 * np.sqrt(G_M) * V_M
    width, square = (0.5, 1.0) if printed else (1.0, 0.5)
    return (
        -width * p.gamma_S0 * V_S + G_S / 2 + 1 - square * a * a,
        -width * p.gamma_M0 * V_M + G_M / 2 + p.r - square * b * b,
        -a * b - (p.gamma_S0 + p.gamma_M0) / 2 * cross - root * np.sqrt(G_M),
    )


def dissipative_S21(C_S: Any, C_M: Any, theta: Any, eps: Any, r: Any) -> Any:
    """(S21): xi_g for R = 0 and gamma_j >> gamma_j0."""
    C_S, C_M = np.asarray(C_S) * 1.0, np.asarray(C_M) * 1.0
    first = -(1 + 2 * (1 - eps + r) / (C_S * (1 - eps) + C_M * r)) / np.cos(2 * np.asarray(theta))
    second = np.tan(2 * np.asarray(theta)) * 4 * C_M * C_S * r * (1 - eps)
    return first + second / ((C_M * r + C_S * (1 - eps)) * (C_M * r + C_S))


def angle_S22(C_S: Any, eps: Any, r: Any, printed: bool = False) -> Any:
    """(S22) sin 2 theta_opt, corrected: r/sqrt(1 - eps) where the paper prints r."""
    root = np.sqrt(1 - np.asarray(eps))
    inner = root + (r if printed else r / root)
    return 4 * (1 - np.asarray(eps)) / (root + 1) ** 2 * (1 - 2 * inner / (root + 1) / np.asarray(C_S))


def paper_scaling(r: float, n_S: float) -> tuple[float, float]:
    """Coefficients of 1/sqrt(C_S) that the paper gives: (R != 0 and conditional, R = 0)."""
    return float(np.sqrt((1 + r + 1 / (2 * n_S + 1)) / 2)), float(np.sqrt(2 * (1 + r)))


def exact_scaling(r: float, n_S: float) -> tuple[float, float, float]:
    """(K, a, b) of the unconditional optimum at eps = 0: xi -> K/sqrt(C_S), theta_S = pi/4 + a/sqrt(C_S), theta_M = pi/4 + b/sqrt(C_S).

    K = min_{a,b} (a + b)^2/(4b) + (1 + r)/(2b) + k^2/(16 a b (a + b)), k = 2/(2 n_S + 1) (docs: derivations).
    """
    from scipy import optimize

    k = 2 / (2 * n_S + 1)

    def K(x: Any) -> float:
        a, b = np.exp(x)
        return float((a + b) ** 2 / (4 * b) + (1 + r) / (2 * b) + k * k / (16 * a * b * (a + b)))

    best = optimize.minimize(
        K, [np.log(0.1), np.log(2.4)], method="Nelder-Mead", options={"xatol": 1e-13, "fatol": 1e-16}
    )
    a, b = np.exp(best.x)
    return float(best.fun), float(a), float(b)


def exact_scaling_dissipative(r: float, n_S: float) -> tuple[float, float]:
    """(K, b) for R = 0 at eps = 0: K = min_b b + (1 + r)/(2b) + k^2/(32 b^3), theta = pi/4 + b/sqrt(C_S)."""
    from scipy import optimize

    k = 2 / (2 * n_S + 1)
    best = optimize.minimize_scalar(
        lambda b: b + (1 + r) / (2 * b) + k * k / (32 * b**3),
        bounds=(0.1, 10),
        method="bounded",
        options={"xatol": 1e-12},
    )
    return float(best.fun), float(best.x)


def loss_bound(eps: Any) -> Any:
    """sqrt(eps/(4 - 3 eps)): the limit C_S -> inf, exact for any eps, conditional and unconditional."""
    return np.sqrt(np.asarray(eps) / (4 - 3 * np.asarray(eps)))


def loss_bound_dissipative(eps: Any, printed: bool = False) -> Any:
    """R = 0: sqrt(1 - F^2) with F = 4(1 - eps)/(1 + sqrt(1 - eps))^2; the paper prints sqrt(eps)(1 + eps/16)."""
    eps = np.asarray(eps)
    if printed:
        return np.sqrt(eps) * (1 + eps / 16)
    F = 4 * (1 - eps) / (1 + np.sqrt(1 - eps)) ** 2
    return np.sqrt(1 - F * F)


def force_variance(C_M: Any, theta_M: Any, width: Any, r: Any, gamma_M0: Any) -> Any:
    """V of a Lorentzian force in the bath of the mechanics alone: 1/V = gamma_M0 u^2/(W (W + width/2)).

    W^2 = u^4/4 + u^2 r + gamma_M0^2/4 (rates in gamma~_S0); theta_M enters by u^2 = C_M r (1 + sin 2 theta_M) alone.
    """
    u2 = np.asarray(C_M) * r * (1 + np.sin(2 * np.asarray(theta_M)))
    W = np.sqrt(u2 * u2 / 4 + u2 * r + np.asarray(gamma_M0) ** 2 / 4)
    return W * (W + np.asarray(width) / 2) / (gamma_M0 * u2)
