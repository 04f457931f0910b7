"""Closed forms of Ockeloen-Korppi et al. 2018: Eq. (1) in Bogoliubov modes, the probe's calibration and its imbalance."""

from __future__ import annotations

from typing import Any

import numpy as np

from backaction.numerics.matrices import Array


def bogoliubov(G_minus: float, G_plus: float) -> tuple[float, float]:
    """(r, G): tanh r = G_+/G_-, G = sqrt(G_-^2 - G_+^2)."""
    return float(np.arctanh(G_plus / G_minus)), float(np.sqrt(G_minus**2 - G_plus**2))


def equation_1(Omega: float, G_minus: float, G_plus: float) -> Array:
    """Matrix h of H = x^T h x/2 for Eq. (1), x = X_a, P_a, X_1, P_1, X_2, P_2; for equal couplings and no detunings.

    H = -Omega a'a + Omega (beta_2'beta_2 - beta_1'beta_1) + G [a'(beta_1 + beta_2) + h.c.], beta_1 = b_1 cosh r + b_2' sinh r,
    beta_2 = b_2 cosh r + b_1' sinh r: in quadratures X of beta_1 mixes X_1 with X_2, P of it P_1 with -P_2.
    """
    r, G = bogoliubov(G_minus, G_plus)
    c, s = np.cosh(r), np.sinh(r)
    # rows X_a, P_a, X_beta1, P_beta1, X_beta2, P_beta2 over x
    T = np.eye(6)
    T[2], T[3] = [0, 0, c, 0, s, 0], [0, 0, 0, c, 0, -s]
    T[4], T[5] = [0, 0, s, 0, c, 0], [0, 0, 0, -s, 0, c]
    h = np.diag([-Omega, -Omega, -Omega, -Omega, Omega, Omega]).astype(float)
    for k in (2, 4):
        h[0, k] = h[k, 0] = h[1, k + 1] = h[k + 1, 1] = G
    return np.asarray(T.T @ h @ T)


def probe_gain(g: float, kappa: float, kappa_out: float, Omega: float) -> float:
    """K = kappa_out 4 g^2/(kappa^2/4 + Omega^2): total probe area over <(X_+^phi)^2> for balanced weak tones."""
    return kappa_out * 4 * g**2 / (kappa**2 / 4 + Omega**2)


def underestimate(q: float, n_c: Any, x_plus: Any, p_plus: Any) -> Any:
    """Fraction by which an imbalance q = g_-/g_+ (g_- kept) lowers the inferred variance, to order e^2, e = (q-1)/(q+1).

    1 - ((1 + 1/q)/2)^2 [1 - e (2 n_c + 1)/X_+^2 + e^2 P_+^2/X_+^2]; good to 0.005 (docs: derivations).
    """
    e = (q - 1) / (q + 1)
    return 1 - ((1 + 1 / q) / 2) ** 2 * (1 - e * (2 * n_c + 1) / x_plus + e * e * p_plus / x_plus)
