"""The calibrations of Ockeloen-Korppi 2018: thermal sweep, sideband cooling, gain; simulated from the paper's values and fitted."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from backaction.calibration.method import Result
from backaction.calibration.microwave import CoolingSweep, SidebandAsymmetry, ThermalSweep, red_tone_linewidth
from backaction.constants import HBAR, K_B, TWO_PI
from backaction.elements.baths import occupation_at
from backaction.papers.frame import Claim
from backaction.papers.ockeloen2018.context import DATASETS, Ockeloen
from backaction.records.tables import Table
from backaction.report.calibration_figures import draw
from backaction.report.figures import canvas

KAPPA, GAMMA, OUTPUT = 1.38e6, 106.0, 1.13e6
MODES = ((10.0e6, 41.0), (11.3e6, 30.0))


def temperature_of(n: float, frequency_hz: float) -> float:
    """Temperature (K) at which a mode holds n quanta."""
    return float(HBAR * TWO_PI * frequency_hz / (K_B * np.log1p(1 / n)))


@functools.cache
def thermal_sweep(seed: int = 7) -> Result:
    """A sweep of the plate from 14 to 200 mK of a mode that saturates at 41 quanta: T_mode^4 = T^4 + T_s^4 (ours), 2 % per point."""
    frequency, n = MODES[0]
    T = np.array([14, 20, 30, 40, 60, 80, 100, 130, 160, 200]) * 1e-3
    floor = temperature_of(n, frequency) ** 4 - T[0] ** 4
    area = 2.5e-3 * occupation_at((T**4 + floor) ** 0.25, frequency) + 4e-3
    area = area * (1 + 0.02 * np.random.default_rng(seed).standard_normal(T.size))
    method = ThermalSweep(name="thermal", frequency_hz=frequency, relative_noise=0.02, fit_above_k=0.035, axis_unit="K")
    return method.run([Table("thermal sweep", ("T", "area"), np.column_stack([T, area]))])


@functools.cache
def cooling(seed: int = 9) -> Result:
    """A sweep of the red tone of drum 1 up to G = 332 kHz (dataset D), 3 % per point, with a cavity heated by 0.004 quanta at most."""
    P = np.logspace(-4, 0, 17)
    G = 332e3 * np.sqrt(P)
    width = np.asarray(red_tone_linewidth(G, KAPPA, GAMMA))
    opt = width - GAMMA
    n_c = 0.004 * P
    n_m = (GAMMA * MODES[0][1] + opt * n_c) / (GAMMA + opt)
    area = 3e-4 * OUTPUT / KAPPA * opt * (n_m - 2 * n_c)
    rng = np.random.default_rng(seed)
    width, area = (x * (1 + 0.03 * rng.standard_normal(P.size)) for x in (width, area))
    method = CoolingSweep(
        name="cooling",
        cavity_linewidth_hz=KAPPA,
        relative_noise=0.03,
        occupation=MODES[0][1],
        output_share=OUTPUT / KAPPA,
    )
    return method.run([Table("cooling sweep", ("P", "width", "area"), np.column_stack([P, width, area]))])


CLAIMS: tuple[Claim, ...] = (
    Claim("plate-1", "main text", "temperature at which drum 1 holds 41 quanta", 14, 0.5, lambda c: 1e3 * temperature_of(41, 10.0e6), "mK",
          reason="19.9 mK: the drum does not follow the plate; such a sweep has to be fitted above its saturation only"),
    Claim("plate-2", "main text", "temperature at which drum 2 holds 30 quanta", 14, 0.5, lambda c: 1e3 * temperature_of(30, 11.3e6), "mK",
          reason="16.5 mK"),
    Claim("thermal-sweep", "main text (supplement)", "n_1 from a thermal sweep of a drum that saturates there", 41, 2.0,
          lambda c: thermal_sweep()["occupation"].value, note="Simulated, 2 % per point: +- 2.1. With the saturated points fitted too it is 33."),
    Claim("cooling-g", "main text (supplement)", "G_- of dataset D from a simulated cooling sweep", 332, 3.5,
          lambda c: cooling()["coupling_per_root_power_hz"].value / 1e3, "kHz",
          note="By the exact linewidth; 4 G^2/kappa would be 36 % low there and read G too large."),
    Claim("gain", "main text (supplement)", "gain of the detection from the same sweep over the true one", 1.0, 0.02,
          lambda c: cooling()["gain"].value / 3e-4, note="Jointly with the cavity's occupation (0.004 quanta at the largest power; from 0.009 on the line turns into a dip)."),
)  # fmt: skip


def sweeps(c: Ockeloen) -> Any:
    """Thermal sweep, linewidth and area against the power of the red tone, simulated and fitted."""
    fig, axes = canvas(11, 3.6, 1, 3)
    for ax, panel in zip(axes, (*thermal_sweep().panels, *cooling().panels), strict=True):
        draw(ax, panel)
    return fig


def table(c: Ockeloen) -> str:
    """What weak-coupling formulas and sideband asymmetry would do at the paper's pumps."""
    lines = ["| dataset | G_- (kHz) | exact linewidth (kHz) | over gamma + 4 G²/κ |", "|---|---|---|---|"]
    for name, (G, _) in DATASETS.items():
        exact = float(red_tone_linewidth(G, KAPPA, GAMMA))
        lines.append(f"| {name} | {G / 1e3:g} | {exact / 1e3:.4g} | {exact / (GAMMA + 4 * G**2 / KAPPA):.3f} |")
    lines += ["", "| n | error of n from sideband asymmetry, 1 % areas |", "|---|---|"]
    for n in (0.2, 1.0, 5.0, 41.0):
        found = SidebandAsymmetry(name="a", blue_area=n + 1, red_area=n, relative_noise=0.01).run([])
        lines.append(f"| {n:g} | {found['occupation'].sd:.3g} |")
    return "\n".join(lines)


FIGURES = {"sweeps": sweeps}
SECTIONS = {"Calibrations": table}
