"""Moller 2017 from its printed equations (3 x 3 form before S5, S30-S32), in its own conventions, with mistakes on request.

Half widths, light with [X, P] = i/2 and vacuum 1/4, frequency domain only: nothing of the package is used. Two corrections of
the notes are in: the phase of H before (S5), and the square root in (S32).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

TWO_PI = 2 * np.pi


@dataclass(frozen=True)
class Setup:
    """Parameters in Hz (half widths), angles in degrees; `sign` -1 negative, +1 positive, 0 no spin."""

    kappa: float
    photons: float
    gs: float
    rate: float
    n_s: float
    varphi: float
    offset: float
    omega: float = 1.28e6
    gamma0: float = 0.05
    n_bath: float = 114e3
    delta: float = -4.7e6
    ratio: float = 25.0
    g0: float = 210.0
    mode_matching: float = 0.9
    eta1: float = 0.53
    eta2: float = 0.64
    sign: int = -1
    mistake: str = ""


FIG3 = Setup(8.7e6, 5.7e6, 2.6e3, 40e3, 2.996503496503496, 0.0, 0.0)
FIG4 = Setup(7.7e6, 4.2e6, 2.3e3, 32e3, 2.6620553359683794, -7.0, 5.2e3)


def mutated(s: Setup, mistake: str) -> Setup:
    """The setup with one mistake of the notes' tables; mistakes of the equations are carried along by name."""
    gp = matched(s)
    changes = {
        "varphi sign flipped": {"varphi": -s.varphi},
        "Gamma_S halved (S28 taken literally)": {"rate": s.rate / 2},
        "gamma_S read as FWHM (gs/2)": {"gs": s.gs / 2},
        "kappa read as FWHM (kappa/2)": {"kappa": s.kappa / 2},
        "eta1=0.61": {"eta1": 0.61},
        "eta1=0.53, eta_mm=1": {"mode_matching": 1.0},
        "n_S=0.9": {"n_s": 0.9},
        "matched Gs=Gm*L0^2": {"rate": gp, "n_s": (s.n_s + 0.5) * gp / s.rate - 0.5},
    }
    return replace(s, mistake=mistake, **changes.get(mistake, {}))


def ports(s: Setup, matched_: bool = True):
    k1 = s.kappa * s.ratio / (1 + s.ratio)
    eta = s.mode_matching if matched_ else 1.0
    return TWO_PI * eta * k1, TWO_PI * (s.kappa - eta * k1)


def matched(s: Setup) -> float:
    """Gamma_M L_0^2 in Hz."""
    return 2 * s.g0**2 * s.photons / s.kappa * s.kappa**2 / (s.kappa**2 + s.delta**2)


def resonance(s: Setup) -> float:
    """Real part of the pole of D_M (its |imaginary| eigenvalue part) in Hz."""
    k, d, w, y = (TWO_PI * v for v in (s.kappa, s.delta, s.omega, s.gamma0))
    g = TWO_PI * s.g0 * np.sqrt(s.photons)
    A = np.array([[0, w, 0, 0], [-w, -2 * y, 2 * g, 0], [0, 0, -k, -d], [g, 0, d, -k]])
    poles = np.linalg.eigvals(A)
    return float(abs(poles[np.argmin(abs(poles.real))].imag) / TWO_PI)


def parts(s: Setup, f: np.ndarray) -> dict[str, np.ndarray]:
    """Spectrum of the measured P quadrature in shot-noise units: light, thM, thS."""
    W = TWO_PI * np.atleast_1d(f)
    k, d, w, y = (TWO_PI * v for v in (s.kappa, s.delta, s.omega, s.gamma0))
    g = TWO_PI * s.g0 * np.sqrt(s.photons)
    k1, k2 = ports(s)
    phi = np.arctan2(d, k)
    psi = np.arctan2(d, k1 - k2)
    if s.mistake == "psi from physical kappas":
        a, b = ports(s, False)
        psi = np.arctan2(d, a - b)
    out_angle = psi + phi
    if s.mistake == "no homodyne-frame rotation":
        out_angle = 0.0
    if s.mistake == "homodyne frame 2*phi (psi=phi)":
        out_angle = 2 * phi
    if s.mistake == "M with O_phi^T..O_phi (phi sign as printed in H)":
        phi = -phi

    def turn(t):
        return np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]])

    T = np.zeros((W.size, 3, 3), dtype=complex)
    T[:, 0, 0] = T[:, 1, 1] = k - 1j * W
    T[:, 0, 1], T[:, 1, 0], T[:, 1, 2] = d, -d, -g
    T[:, 2, 0], T[:, 2, 2] = -2 * g * w, w * w - W * W - 2j * W * y
    inverse = np.linalg.inv(T)
    O = turn(phi)
    LL = O @ inverse[:, :2, :2] @ O.T
    M = 2 * k1 * LL - np.eye(2)
    V = 2 * np.sqrt(k1 * k2) * LL
    F = np.sqrt(2 * k1) * (O @ inverse[:, :2, 2:]) * np.sqrt(4 * y) * w
    row = turn(out_angle).T[1:2]
    larmor = resonance(s) if s.mistake != "|Os| referred to bare Omega_M" else s.omega
    ws, ys = s.sign * TWO_PI * (larmor + s.offset), TWO_PI * s.gs
    chi = 2 * ws / (ws * ws - W * W - 2j * W * ys) if s.sign else 0 * W
    S = np.zeros((W.size, 2, 2), dtype=complex)
    S[:, 0, 0] = S[:, 1, 1] = 1
    rate = TWO_PI * s.rate
    S[:, 1, 0] = rate * chi
    through = row @ M @ turn(np.radians(s.varphi))
    light = s.eta1 * s.eta2 * power(through @ S) + (1 - s.eta1) * s.eta2 * power(row @ M)
    light = light + s.eta2 * power(row @ V) + 1 - s.eta2
    kick = through @ np.array([[0.0], [1.0]])
    return {
        "light": light,
        "thM": s.eta2 * power(row @ F) * 4 * (s.n_bath + 0.5),
        "thS": s.eta1 * s.eta2 * power(kick) * rate * ys * np.abs(chi) ** 2 * 4 * (s.n_s + 0.5),
    }


def power(row):
    return np.sum(np.abs(row) ** 2, axis=(-2, -1))


def areas(s: Setup, half: float = 100e3) -> dict[str, float]:
    """Areas over the resonance +- half by Gauss-Legendre on a tangent grid, QBA = light - shot noise."""
    f0, y = resonance(s), 2.5e3
    u, weight = np.polynomial.legendre.leggauss(600)
    top = np.arctan(half / y)
    f, jacobian = f0 + y * np.tan(top * u), weight * top * y / np.cos(top * u) ** 2
    p = parts(s, f)
    return {
        "qba": float(jacobian @ (p["light"] - 1)),
        "thM": float(jacobian @ p["thM"]),
        "thS": float(jacobian @ p["thS"]),
    }


def ratios(s: Setup, half: float = 100e3) -> list[float]:
    """[neg QBA, neg spin thermal over mechanical QBA, neg total, pos QBA] of the notes' tables."""
    alone, neg, pos = (areas(replace(s, sign=k), half) for k in (0, -1, 1))
    return [
        neg["qba"] / alone["qba"],
        neg["thS"] / alone["qba"],
        sum(neg.values()) / (alone["qba"] + alone["thM"]),
        pos["qba"] / alone["qba"],
    ]
