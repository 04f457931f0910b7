"""Alkali ground states: constants with year and source, Breit-Rabi frequencies, spin statistics of Zeeman populations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from backaction.constants import MU_B_HZ
from backaction.errors import InputError, ModelError, nearest
from backaction.numerics.matrices import Array


@dataclass(frozen=True)
class Alkali:
    """Nuclear spin, hyperfine splitting (Hz) and g factors of a ground state (g_I in units of the Bohr magneton)."""

    nuclear_spin: float
    hyperfine_hz: float
    g_j: float
    g_i: float
    source: str


_RMP = "g factors: Arimondo, Inguscio, Violino, Rev. Mod. Phys. 49, 31 (1977)"
ATOMS = {
    "cs133": Alkali(3.5, 9192631770.0, 2.00254032, -0.00039885395, f"hyperfine: exact (SI second); {_RMP}"),
    "rb87": Alkali(
        1.5, 6834682610.90429, 2.00233113, -0.0009951414, f"hyperfine: Bize, Europhys. Lett. 45, 558 (1999); {_RMP}"
    ),
    "rb85": Alkali(2.5, 3035732439.0, 2.00233113, -0.00029364, f"hyperfine and {_RMP}"),
}
"""Ground states by name."""


def atom(name: str) -> Alkali:
    """An alkali by name."""
    if name not in ATOMS:
        raise InputError(f"atom = '{name}': unknown{nearest(name, ATOMS)}")
    return ATOMS[name]


def breit_rabi(kind: Alkali, F: float, field_t: float) -> Array:
    """Energies/h (Hz) of m = -F..F in a field (T), relative to the centre of gravity.

    E_m = -f_hfs/(2(2I+1)) + g_I mu_B m B +- (f_hfs/2) sqrt(1 + 4 m x/(2I+1) + x^2), x = (g_J - g_I) mu_B B/f_hfs, +
    for F = I + 1/2.
    """
    upper = abs(F - kind.nuclear_spin - 0.5) < 1e-9
    if not upper and abs(F - kind.nuclear_spin + 0.5) > 1e-9:
        raise InputError(
            f"F = {F:g}: with I = {kind.nuclear_spin:g} it is {kind.nuclear_spin - 0.5:g} or {kind.nuclear_spin + 0.5:g}"
        )
    m = np.arange(-F, F + 1)
    size = 2 * kind.nuclear_spin + 1
    x = (kind.g_j - kind.g_i) * MU_B_HZ * field_t / kind.hyperfine_hz
    root = np.sqrt(1 + 4 * m * x / size + x * x)
    if upper:
        root[0] = 1 - x  # m = -F, stretched: the sign of the root changes in a strong field
    sign = 1.0 if upper else -1.0
    return -kind.hyperfine_hz / (2 * size) + kind.g_i * MU_B_HZ * m * field_t + sign * kind.hyperfine_hz / 2 * root


def field_at(kind: Alkali, F: float, larmor_hz: float) -> tuple[float, Array]:
    """(field in T, the 2F line frequencies in Hz, m = -F.. first) at which the mean line lies at `larmor_hz`."""
    from scipy import optimize

    def mean(field: float) -> float:
        E = breit_rabi(kind, F, field)
        return float(abs(E[-1] - E[0]) / (2 * F)) - larmor_hz

    guess = larmor_hz / (MU_B_HZ * kind.g_j / (2 * kind.nuclear_spin + 1))
    field = float(optimize.brentq(mean, 0.5 * guess, 2 * guess, xtol=1e-18, rtol=1e-14))
    return field, np.abs(np.diff(breit_rabi(kind, F, field)))


def quadratic_splitting(kind: Alkali, F: float, larmor_hz: float) -> float:
    """Mean distance of neighbouring lines (Hz) by Breit-Rabi; about 2 f_L^2/f_hfs."""
    return float(abs(np.mean(np.diff(field_at(kind, F, larmor_hz)[1]))))


def line_weights(F: float) -> Array:
    """c_m = F(F+1) - m(m+1) of the lines m <-> m+1, m = -F..F-1."""
    m = np.arange(-F, F)
    return F * (F + 1) - m * (m + 1)


def polarisation(populations: Any) -> float:
    """P = <m>/F of populations of m = -F..F."""
    p = _checked(populations)
    F = (p.size - 1) / 2
    return float(np.sum(np.arange(-F, F + 1) * p) / F)


def spin_occupation(populations: Any) -> float:
    """n_S = (F(F+1) - <m^2>)/(2<m>) - 1/2: Var X = n_S + 1/2 with X = J_z/sqrt(J_x)."""
    p = _checked(populations)
    F = (p.size - 1) / 2
    m = np.arange(-F, F + 1)
    mean = float(np.sum(m * p))
    if abs(mean) < 1e-6 * F:
        raise ModelError("unpolarised: J_x = 0, the spin's quadratures and n_S have no meaning")
    return float((F * (F + 1) - np.sum(m * m * p)) / (2 * mean) - 0.5)


def _checked(populations: Any) -> Array:
    p = np.asarray(populations, dtype=float)
    if p.ndim != 1 or p.size < 2 or not np.all(np.isfinite(p)) or np.any(p < -1e-9) or abs(np.sum(p) - 1) > 1e-6:
        raise InputError(f"populations: need 2F + 1 numbers >= 0 that sum to 1, got sum {np.sum(p):g}")
    return p


def spin_temperature(F: float, p: float) -> Array:
    """Populations p_m ~ e^{b m} with polarisation `p`."""
    from scipy import optimize

    if not 0 < p < 1:
        raise InputError(f"polarisation = {p:g}: must be in (0, 1)")
    m = np.arange(-F, F + 1)

    def weights(b: float) -> Array:
        w = np.exp(b * (m - F))
        return w / np.sum(w)

    b = optimize.brentq(lambda b: float(np.sum(m * weights(b)) / F) - p, 1e-9, 200.0, xtol=1e-14)
    return weights(float(b))


def occupation_range(F: float, p: float) -> tuple[float, float]:
    """Least and greatest n_S of any populations with polarisation `p` and nothing in m = -F.

    Least: only m = F and -(F-1); greatest: the two m nearest to <m>.
    """
    mean = p * F
    a = (mean + F - 1) / (2 * F - 1)
    wide = a * F**2 + (1 - a) * (F - 1) ** 2
    low = np.floor(mean + F) - F
    part = mean - low
    narrow = (1 - part) * low**2 + part * (low + 1) ** 2
    n = [(F * (F + 1) - second) / (2 * mean) - 0.5 for second in (wide, narrow)]
    return float(n[0]), float(n[1])
