"""The paper's formulas and the calibration of the spins as claims: which of them hold, and in which corrected form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from backaction.constants import TWO_PI
from backaction.papers.frame import Claim
from backaction.papers.moller2017.context import Moller, spin_variance
from backaction.papers.moller2017.models import detuned_ratio, hybrid_S34, rotation, spin_susceptibility


def _s14(c: Moller) -> float:
    p = replace(c.fig3.paper, kappa1=c.fig3.paper.kappa, kappa2=0.0)
    W = TWO_PI * np.linspace(1.0e6, 1.6e6, 601)
    exact = p.M_exact(W)
    return float(np.max(np.abs(p.M_S14(W) - exact)) / np.max(np.abs(exact)))


def _s17(c: Moller) -> float:
    p = replace(c.fig3.paper, kappa1=c.fig3.paper.kappa, kappa2=0.0)
    W = TWO_PI * (c.fig3.mechanics[0] + np.linspace(-10e3, 10e3, 401))
    exact = p.M_exact(W)
    return float(np.max(np.abs(p.M_S17(W) - exact)) / np.max(np.abs(exact)))


def _hamiltonian_sign(c: Moller) -> float:
    """(S10) with the phase as printed in H: O^T (...) O instead of O (...) O^T, over the spectrum, relative to unity."""
    p = c.fig3.paper
    W = TWO_PI * np.linspace(1.2e6, 1.34e6, 701)
    exact = p.M_exact(W)
    O = rotation(p.phi)
    printed = O.T @ O.T @ exact @ O @ O
    return float(np.max(np.abs(printed - exact)))


def _s34(sign: int) -> float:
    """Largest deviation of (S34) at matched responses from gamma^2/(delta^2 + gamma^2), relative to it."""
    d = np.linspace(-5.0, 5.0, 1001)
    hybrid = hybrid_S34(d, d, 1.0, 1.0, 1.0, 1.0, sign) * (d**2 + 1)
    expected = 1 / (d**2 + 1)
    return float(np.max(np.abs(hybrid / expected - 1)))


def _s30_force(c: Moller) -> float:
    """Response of P_out to X_in with the force of (S28) and the readout of (S26), relative to that of (S30)."""
    rate, gamma, omega = 2 * np.pi * 40e3, 2 * np.pi * 2.6e3, -2 * np.pi * 1.268e6
    W = abs(omega) + gamma
    # (S28)-(S29): (Omega^2 - W^2 - 2 i W gamma) X = Omega sqrt(Gamma) X_in; (S26): P_out = ... + sqrt(Gamma) X
    literal = rate * omega / (omega**2 - W**2 - 2j * W * gamma)
    return float(np.abs(literal / (rate * spin_susceptibility(W, omega, gamma))))


FORMULAS: tuple[Claim, ...] = (
    # -- spins ----------------------------------------------------------------------------------------------------
    Claim(
        "cs",
        "main text, (S40)",
        "C_S from the driven and undriven spectra at n_WN = 1.22",
        1.10,
        0.15,
        lambda c: c.spin_cooperativity(),
        stated=True,
        note="An identity: the model has C_S = 1.10.",
    ),
    Claim(
        "cs-text",
        "Methods G",
        "the same by the formula of the text as printed, (S_N - S_0)/(2.2 S_N - S_0)",
        1.10,
        0.005,
        lambda c: c.printed_cooperativity(),
        reason="N and 0 are swapped in the denominator, and the spectra must be without shot noise",
    ),
    Claim(
        "cs-shot",
        "Methods G",
        "the same with (S_N - S_0)/(2.2 S_0 - S_N), shot noise not subtracted",
        1.10,
        0.005,
        lambda c: c.spin_cooperativity(subtract_shot=False, factor=1.2),
        reason="the formula needs spectra without shot noise, and n_WN = 1.22",
    ),
    Claim(
        "cs-factor",
        "Methods G, caption of Fig. 2c",
        "the same with n_WN = 1.2 (text) taken for 1.22 (caption)",
        1.10,
        0.005,
        lambda c: c.spin_cooperativity(factor=1.2),
        reason="1.2 and 1.22 are 3.6 % apart in C_S",
    ),
    Claim(
        "decoherence",
        "Methods A",
        "300 us intrinsic decoherence from 500 Hz",
        300,
        50,
        lambda c: 1e6 / (TWO_PI * 500),
        "us",
        note="Called a rate in the text; it is a time.",
    ),
    Claim(
        "variance-unpolarised",
        "Methods A",
        "variance of an unpolarised ensemble in projection noises",
        10 / 3,
        1e-9,
        lambda c: 2 * (4 + 1) / 3,
    ),
    Claim(
        "variance-spin",
        "Methods A",
        "variance at 60 % polarisation in projection noises",
        2.8,
        0.05,
        lambda c: spin_variance(),
        note="Spin-temperature distribution.",
    ),
    Claim(
        "s28",
        "(S26), (S28), (S30)",
        "response by (S26), (S28) over that of (S30)",
        1,
        1e-6,
        _s30_force,
        reason="(S24)-(S29) are in units with [X_L, P_L] = i, (S30) and the main text in i/2: Gamma_S(S30) = Gamma_S(S27)/2",
    ),
    # -- formulas -------------------------------------------------------------------------------------------------
    Claim(
        "hamiltonian",
        "H before (S3)",
        "largest difference made by the printed sign of phi in H",
        0,
        1e-6,
        _hamiltonian_sign,
        reason="(S10), (S14), (S17) are right; with the incoming field as phase reference H needs a exp(-i phi)",
    ),
    Claim(
        "s14",
        "(S14)",
        "relative error of (S14) at kappa_2 = 0",
        0,
        1e-9,
        _s14,
        note="Exact at any W, not an approximation.",
    ),
    Claim(
        "s17",
        "(S17)",
        "relative error of (S17) within 10 kHz of resonance",
        0,
        0.01,
        _s17,
        note="First order in Omega/kappa.",
    ),
    Claim(
        "s34-negative",
        "(S34)",
        "deviation of the matched ratio from gamma^2/(delta^2 + gamma^2), negative mass",
        0,
        1e-9,
        lambda c: _s34(-1),
        note="With the sign s = -1 and L_0^2 restored.",
    ),
    Claim(
        "s34-printed",
        "(S34)",
        "the same with the sign as printed",
        0,
        1e-9,
        lambda c: _s34(1),
        reason="(S34) as printed is the positive mass",
    ),
    Claim(
        "limit",
        "main text, Methods F",
        "minimal QBA ratio at equal frequencies",
        0.5,
        0.005,
        lambda c: c.ideal_ratio(100, 27.0),
        note="kappa = 100 Omega, gamma_M = 27 Hz, +-3000 gamma_M. Narrower spins go below: gamma_S/(gamma_M + gamma_S).",
    ),
    Claim(
        "beyond-limit",
        "main text",
        "a detuned hybrid beats 1/2 (1: yes)",
        1,
        0.1,
        lambda c: float(c.ideal_ratio(100, 27.0, detuned=2.0) < 0.5),
        note=f"0.251 at D = 2 gamma_M; closed form {detuned_ratio(2.0, 1.0, 1.0):.3f}.",
    ),
)
