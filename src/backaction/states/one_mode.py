"""Words for one mode: occupation, purity, squeezing. All take a covariance (..., 2, 2) of X, P with vacuum variance 1/2.

occupation            (V_XX + V_PP)/2 - 1/2     the energy in quanta
thermal_occupation    sqrt(det V) - 1/2         what no squeezing takes away
purity                1/(2 sqrt(det V))
least_variance        the smaller eigenvalue of V, squeezed below 1/2; the direction counts from X
"""

from __future__ import annotations

from typing import Any

import numpy as np

from backaction.numerics.matrices import Array
from backaction.states import entanglement
from backaction.states.gaussian import GaussianState


def occupation(V: Array) -> Any:
    """(V_XX + V_PP)/2 - 1/2."""
    return (V[..., 0, 0] + V[..., 1, 1] - 1) / 2


def thermal_occupation(V: Array) -> Any:
    """Sqrt(det V) - 1/2: quanta of the thermal state that a squeezing makes this one from."""
    return np.sqrt(_det(V)) - 0.5


def mode_purity(V: Array) -> Any:
    """Tr rho^2 = 1/(2 sqrt(det V)) of the mode alone."""
    return 1 / (2 * np.sqrt(_det(V)))


def least_variance(V: Array) -> Any:
    """Variance of the quietest quadrature: det V over the larger eigenvalue, so that no digit cancels."""
    half, cross = (V[..., 0, 0] - V[..., 1, 1]) / 2, V[..., 0, 1]
    return _det(V) / ((V[..., 0, 0] + V[..., 1, 1]) / 2 + np.sqrt(half * half + cross * cross))


def squeezing_db(V: Array) -> Any:
    """10 log10 of vacuum over the least variance: > 0 is squeezed below vacuum."""
    return -10 * np.log(2 * least_variance(V)) / np.log(10.0)


def squeezed_angle_deg(V: Array) -> Any:
    """Direction of the quietest quadrature X cos(angle) + P sin(angle), in (-90, 90]; 0 where all are alike."""
    half, cross = (V[..., 0, 0] - V[..., 1, 1]) / 2, V[..., 0, 1]
    return entanglement.direction_deg(0.0 - cross, 0.0 - half) / 2


def by_mode(state: GaussianState) -> dict[str, dict[str, float]]:
    """All of it for every mode alone, as plain data: `by_mode` of the JSON contract."""
    out = {}
    for mode in state.modes:
        V = state.to().reduced(mode).covariance
        out[mode] = {
            "occupation": float(occupation(V)), "thermal_occupation": float(thermal_occupation(V)),
            "purity": float(mode_purity(V)), "squeezing_db": float(squeezing_db(V)),
            "least_variance": float(least_variance(V)), "squeezed_angle_deg": float(squeezed_angle_deg(V)),
        }  # fmt: skip
    return out


def _det(V: Array) -> Any:
    return V[..., 0, 0] * V[..., 1, 1] - V[..., 0, 1] * V[..., 1, 0]
