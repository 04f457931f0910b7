"""Building blocks that the oscillator elements share: damping models, thermal baths, occupations."""

from __future__ import annotations

from typing import Any

import numpy as np

from backaction.constants import HBAR, K_B, TWO_PI
from backaction.numerics.matrices import Array, stack
from backaction.systems.labels import Port


def occupation_at(temperature_k: Any, frequency_hz: Any) -> Any:
    """Bose occupation 1/(exp(h f / k_B T) - 1) of a bath at `temperature_k`, at |frequency|; 0 at T = 0."""
    temperature = np.asarray(temperature_k) * 1.0
    frequency = np.asarray(frequency_hz) * np.sign(np.real(frequency_hz))
    cold = np.real(temperature) == 0.0
    x = HBAR * TWO_PI * frequency / (K_B * np.where(cold, 1.0, temperature))
    return np.where(cold, 0.0 * x, 1.0 / np.expm1(np.where(cold, 1.0, x)))


def damped_rotation(omega: Any, gamma: Any, damping: str) -> Array:
    """Drift [[., omega], [-omega, .]] with full energy linewidth gamma (both rad/s). Shape (..., 2, 2).

    `symmetric`: gamma/2 on X and on P (exact quantum mechanics with white noise); `velocity`: gamma on P alone, as
    friction is (its commutators hold to gamma/omega).
    """
    if damping == "symmetric":
        return stack([[-gamma / 2, omega], [-omega, -gamma / 2]])
    return stack([[0.0 * gamma, omega], [-omega, -gamma]])


def structural(linewidth_hz: Any, mechanical_hz: Any, frequency_hz: Any) -> Any:
    """Linewidth of the friction that acts at f as a constant loss angle phi does: gamma f_m/|f|, phi = gamma/f_m.

    F/x = -k (1 - i phi) in e^{-iWt}: the imaginary part is that of friction with gamma(f) = phi f_m^2/f. With the bath's
    occupation left at f_m the force is 2 gamma(f) k_B T/(hbar omega_m), which is the fluctuation-dissipation theorem
    for k_B T >> h f.
    """
    if frequency_hz is None:
        return linewidth_hz
    return np.asarray(linewidth_hz) * np.abs(np.asarray(mechanical_hz) / np.asarray(frequency_hz))


def thermal_bath(name: str, gamma: Any, occupation: Any, damping: str) -> tuple[Port, Array, Array]:
    """Bath port, coupling B (2, k) and density S (k, k) of a reservoir with `occupation` quanta.

    `symmetric`: forces on X and P, each of density gamma (n + 1/2), with [F_X, F_P] = i gamma delta;
    `velocity`: one force on P of density 2 gamma (n + 1/2) (Thomas 2021, B7).
    """
    n = np.asarray(occupation) + 0.5
    zero = 0.0 * n
    if damping == "symmetric":
        root = np.sqrt(gamma)
        return Port(name, "bath", 2), stack([[root, 0.0 * root], [0.0 * root, root]]), stack([[n, zero], [zero, n]])
    root = np.sqrt(2 * gamma)
    return Port(name, "bath", 1), stack([[0.0 * root], [root]]), stack([[n]])
