"""Entanglement of two modes: EPR variance, Duan, PPT, log-negativity, steering; each with its exact derivative.

All take a covariance (..., 4, 4), order X1, P1, X2, P2, vacuum 1/2, or a `GaussianState` of two modes. Sign conventions:

    X = (X1 - a X2')/sqrt(1 + a^2),   P = (P1 + a P2')/sqrt(1 + a^2),
    X2' = X2 cos b + P2 sin b,        P2' = P2 cos b - X2 sin b,

and V = Var X + Var P < 1 at any fixed (a, b) witnesses entanglement. V >= 1 does not mean separable; PPT decides.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from backaction.errors import InputError
from backaction.numerics.matrices import Array, cos_sin_deg, stack, symplectic
from backaction.states.gaussian import GaussianState, square_root


class Epr(NamedTuple):
    """EPR variance, the weight a >= 0 of the second mode and the angle b in (-180, 180] degrees."""

    variance: Any
    weight: Any
    angle_deg: Any


def pair(state: GaussianState | Array) -> Array:
    """The 4x4 covariance of two modes in our convention."""
    V = state.to().covariance if isinstance(state, GaussianState) else np.asarray(state)
    if V.shape[-2:] != (4, 4):
        raise InputError(
            f"entanglement of two modes needs a 4x4 covariance, got {V.shape}; use .reduced(first, second)"
        )
    return V


def _sums(V: Array) -> tuple[Any, Any, Any, Any]:
    """Var sums of mode 1 and 2, and R cos b, R sin b with R e^{ib} = (V13 - V24) + i(V14 + V23)."""
    return (
        V[..., 0, 0] + V[..., 1, 1],
        V[..., 2, 2] + V[..., 3, 3],
        V[..., 0, 2] - V[..., 1, 3],
        V[..., 0, 3] + V[..., 1, 2],
    )


def epr_variance(state: GaussianState | Array, weight: Any, angle_deg: Any) -> Any:
    """V(a, b) = [V11 + V22 + a^2 (V33 + V44) - 2 a R cos(b - b0)]/(1 + a^2) (Thomas 2021, D1-D6).

    An infinite weight is the second mode alone.
    """
    s1, s2, rc, rs = _sums(pair(state))
    a = np.asarray(weight) * 1.0
    large = np.abs(np.real(a)) > 1
    t = np.where(large, 1 / np.where(large, a, 1.0), a)  # a or its inverse: neither overflows
    c, s = cos_sin_deg(angle_deg)
    first, second = np.where(large, t * t, 1.0), np.where(large, 1.0, t * t)
    return (first * s1 + second * s2 - 2 * t * (rc * c + rs * s)) / (1 + t * t)


def epr(state: GaussianState | Array) -> Epr:
    """The least EPR variance over (a, b), closed form: smaller eigenvalue of [[V11+V22, -R], [-R, V33+V44]].

    a = (V11 + V22 - V)/R and b = arg R. Where R = 0 the minimum is that of one mode alone (a = 0, or a = inf when the
    second mode is the quieter one) and b is 0. Analytic: a complex step through it is exact.
    """
    s1, s2, rc, rs = _sums(pair(state))
    R = np.sqrt(rc * rc + rs * rs)
    half = (s1 - s2) / 2
    root = np.sqrt(half * half + R * R)
    value = (s1 + s2) / 2 - root
    with np.errstate(divide="ignore", invalid="ignore"):
        weight = np.where(np.real(half) > 0, (half + root) / R, R / (root - half))
    weight = np.where(np.real(R) == 0, np.where(np.real(half) > 0, np.inf, 0.0), weight)
    angle = direction_deg(rs, rc)
    exact = _from_root(state, weight, angle)
    return Epr(value if exact is None else exact, weight, angle)


def epr_gradient(state: GaussianState | Array) -> Array:
    """D epr.variance/dV, symmetric, shape (..., 4, 4): the variance is stationary in (a, b), so it is linear in V there.

    V(a, b) = <V, g> with g = diag(1, 1, a^2, a^2)/(1 + a^2) and -a/(1 + a^2) times (cos b, sin b) between the modes.
    """
    V = pair(state)
    best = epr(V)
    a, (c, s) = np.asarray(best.weight), cos_sin_deg(best.angle_deg)
    with np.errstate(invalid="ignore"):
        first = np.where(np.isinf(a), 0.0, 1 / (1 + a * a))
        cross = np.where(np.isinf(a), 0.0, -a / (1 + a * a))
    out = np.zeros(V.shape)
    out[..., 0, 0] = out[..., 1, 1] = first
    out[..., 2, 2] = out[..., 3, 3] = 1 - first
    for i, j, value in ((0, 2, cross * c), (1, 3, -cross * c), (0, 3, cross * s), (1, 2, cross * s)):
        out[..., i, j] = out[..., j, i] = value
    return out


def _from_root(state: GaussianState | Array, weight: Any, angle: Any) -> Any:
    """V(a, b) = |u^T F|^2 summed over the EPR pair: no cancellation where the state carries its root F."""
    if not isinstance(state, GaussianState) or state.root is None or not np.all(np.isfinite(weight)):
        return None
    rows = basis(weight, angle)[..., :2, :] @ state.to().root
    return np.sum(rows * rows, axis=(-2, -1))


def duan(state: GaussianState | Array) -> Any:
    """EPR variance at equal weights (a = 1) and the best local phase: (V11+V22+V33+V44)/2 - R; < 1 is entangled."""
    s1, s2, rc, rs = _sums(pair(state))
    exact = _from_root(state, 1.0, direction_deg(rs, rc))
    return (s1 + s2) / 2 - np.sqrt(rc * rc + rs * rs) if exact is None else exact


_TRANSPOSE = np.diag([1.0, 1.0, 1.0, -1.0])


def ppt_min(state: GaussianState | Array) -> Any:
    """Smallest symplectic eigenvalue nu of the partial transpose (P2 -> -P2); nu < 1/2 decides entanglement.

    With V' = L L^T it is the smallest singular value of L^T Omega L. For a `GaussianState` that carries its `root` F
    relative accuracy holds at any squeezing: nu_- = |Pf M|/nu_+ with M = F'^T Omega F'.
    """
    if isinstance(state, GaussianState) and state.root is not None and state.root.shape[-1] == 4:
        return _graded_ppt(state.to().root)
    L = square_root(_TRANSPOSE @ pair(state) @ _TRANSPOSE)
    return np.linalg.svd(np.swapaxes(L, -1, -2) @ symplectic(2) @ L, compute_uv=False)[..., -1]


def ppt_gradient(state: GaussianState | Array) -> Array:
    """D ppt_min/dV, symmetric, shape (..., 4, 4): nu u u^dagger with V' u = nu i Omega u, u^dagger V' u = 1.

    Where two eigenvalues coincide it is one of the subgradients, and finite.
    """
    L = square_root(_TRANSPOSE @ pair(state) @ _TRANSPOSE)
    omega = symplectic(2)
    w, U = np.linalg.eigh(1j * np.swapaxes(L, -1, -2) @ omega @ L)
    index = np.argmin(np.where(w > 0, w, np.inf), axis=-1)
    nu = np.take_along_axis(w, index[..., None], axis=-1)[..., 0]
    y = np.take_along_axis(U, index[..., None, None], axis=-1)
    u = (1j * omega @ L @ y)[..., 0] / nu[..., None]
    slope = nu[..., None, None] * np.real(np.conj(u)[..., :, None] * u[..., None, :])
    return _TRANSPOSE @ slope @ _TRANSPOSE


def _graded_ppt(root: Any) -> Any:
    """nu_- from a root with graded columns: Pfaffian of the antisymmetric M over its largest singular value."""
    F = _TRANSPOSE @ root
    M = np.swapaxes(F, -1, -2) @ symplectic(2) @ F
    pfaffian = M[..., 0, 1] * M[..., 2, 3] - M[..., 0, 2] * M[..., 1, 3] + M[..., 0, 3] * M[..., 1, 2]
    return np.abs(pfaffian) / np.linalg.svd(M, compute_uv=False)[..., 0]


def log_negativity(state: GaussianState | Array) -> Any:
    """max(0, -log2(2 nu)) in ebits, nu the smallest symplectic eigenvalue of the partial transpose."""
    return np.maximum(0.0, -np.log2(2 * ppt_min(state)))


def steering(state: GaussianState | Array) -> tuple[Any, Any]:
    """Gaussian steerability (first -> second, second -> first) in bits: max(0, log2[det V_A/(4 det V)]/2).

    Source: Kogias et al., PRL 114, 060403 (2015), for one-mode parties; vacuum 1/2.
    """
    V = pair(state)
    whole = _det4(V)
    out = []
    for i in (0, 2):
        own = V[..., i, i] * V[..., i + 1, i + 1] - V[..., i, i + 1] * V[..., i + 1, i]
        value = np.log(own / (4 * whole)) / (2 * np.log(2.0))
        out.append(np.where(np.real(value) > 0, value, 0.0))
    return out[0], out[1]


def basis(weight: float, angle_deg: float) -> Array:
    """Rows X_EPR, P_EPR, X'_EPR, P'_EPR (Thomas 2021, D1-D5) over X1, P1, X2, P2. Shape (..., 4, 4)."""
    a = np.asarray(weight) * 1.0
    c, s = cos_sin_deg(angle_deg)
    z, o = 0.0 * a, 1.0 + 0.0 * a
    rows = stack([[o, z, -a * c, -a * s], [z, o, -a * s, a * c], [o, z, a * c, a * s], [z, o, a * s, -a * c]])
    return rows / np.sqrt(1 + a * a)[..., None, None]


def _det4(V: Array) -> Any:
    """Determinant that also takes complex steps."""
    return np.linalg.det(V)


def direction_deg(y: Any, x: Any) -> Any:
    """atan2 in degrees, analytic for the complex step; 0 where both vanish."""
    base = np.arctan2(np.real(y), np.real(x))
    c, s = np.cos(base), np.sin(base)
    with np.errstate(divide="ignore", invalid="ignore"):
        rest = np.arctan((y * c - x * s) / (x * c + y * s))
    total = (base + np.where((np.real(x) == 0) & (np.real(y) == 0), 0.0, rest)) * (180.0 / np.pi)
    return np.where(np.real(total) <= -180.0, total + 360.0, total)
