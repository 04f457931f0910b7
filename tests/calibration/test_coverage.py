"""Fresh simulations of every fitted calibration: the truth comes back with honest errors (200 of each in `make test-long`)."""

from __future__ import annotations

import os

import numpy as np
import pytest

from support.calibrations import (
    TWO_PI,
    bose,
    cifar_method,
    complex_noise,
    make,
    simulate_beat,
    simulate_cifar,
    simulate_cooling,
    simulate_driven,
    simulate_mors,
    simulate_squeezing,
    simulate_sweep,
    simulate_thermal_sweep,
    simulate_white_noise,
    simulate_with_tone,
    spring,
    squeezing_method,
    table,
    thermal_density,
    transparency,
)

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
COUNT = 200 if LONG else 6


# -- coverage ---------------------------------------------------------------------------------------------------------


def _cifar(rng):
    return cifar_method().run([simulate_cifar(rng)]), {
        "readout_rate_hz": 20e3,
        "intrinsic_linewidth_hz": 1.7e3,
        "tensor_ratio": 0.028,
        "larmor_hz": -1.37e6,
    }


def _mors(rng):
    t, sd = simulate_mors(rng)
    return make("mors", splitting_hz=400, noise=sd, axis_unit="Hz").run([t]), {
        "polarisation": 0.82,
        "occupation": 0.7850609756,
    }


def _white_noise(rng):
    return make("white_noise", excess_sn=1.22, efficiency=0.7, rotating_wave=True, axis_unit="Hz").run(
        [simulate_white_noise(rng)]
    ), {"cooperativity": 1.1, "linewidth_hz": 5.2e3}


def _squeezing(rng):
    truth = {"bath_temperature_k": 11.4, "efficiency": 0.8, "paper_coupling_1_hz": 30e3, "paper_coupling_2_hz": 37e3}
    return squeezing_method().run([simulate_squeezing(rng)]), truth


def _beat(rng):
    found = make("sideband_beat", relative_noise=0.01, axis_unit="Hz").run([simulate_beat(rng)])
    return found, {"cavity_linewidth_hz": 4.2e6, "detuning_squared_hz2": 0.49e12}


def _sweep(rng):
    t, sd = simulate_sweep(rng)
    return make("swept_ringdown", noise=sd, axis_unit="s").run([t]), {"cavity_linewidth_hz": 4.2e6}


def _thermal_sweep(rng):
    found = make("thermal_sweep", frequency_hz=1e7, relative_noise=0.02, fit_above_k=0.055, axis_unit="K").run(
        [simulate_thermal_sweep(rng)]
    )
    return found, {"gain": 2.5e-3, "occupation": bose(1e7, (0.015**4 + 0.0177**4) ** 0.25)}


def _cooling(rng):
    found = make(
        "cooling_sweep", cavity_linewidth_hz=1.38e6, relative_noise=0.03, occupation=41, output_share=1130 / 1380
    ).run([simulate_cooling(rng)])
    return found, {"coupling_per_root_power_hz": 60e3, "gain": 3e-4, "cavity_occupation_per_power": 0.15}


def _spring(rng):
    d = np.array([-4000.0, -3000, -2200, -1600, -1100, -700, -400, -150])
    damping, shift = spring(d)
    t = table(1e3 * d, damping * (1 + 0.02 * rng.standard_normal(8)), shift + 0.03 * rng.standard_normal(8))
    found = make("optical_spring", mechanical_hz=1.37e6, damping_noise=0.02, shift_noise_hz=30, axis_unit="Hz").run([t])
    return found, {"coupling_hz": 107e3, "cavity_linewidth_hz": 4.2e6}


def _transparency(rng):
    x = 10000.0 + np.linspace(-1.2, 1.2, 241)
    r = transparency(x) + complex_noise(rng, x.size, 0.01)
    found = make("transparency", cavity_linewidth_hz=1.38e6, noise=0.01, axis_unit="Hz").run(
        [table(1e3 * x, r.real, r.imag)]
    )
    return found, {
        "coupling_hz": 10e3,
        "mechanical_linewidth_hz": 106.0,
        "external_hz": 1130e3,
        "cooperativity": 4e2 / 1380 / 0.106,
    }


def _linearity(rng):
    P = np.concatenate([[0.0], np.geomspace(0.2, 5, 12)])
    S = (1 + 10 * P + 0.3 * P**2) * (1 + rng.standard_normal(13) / np.sqrt(2000))
    found = make("linearity", relative_noise=2000**-0.5).run([table(P, S)])
    return found, {"electronic": 1.0, "shot_per_power": 10.0, "quadratic": 0.3}


def _oscillator(rng):
    f = np.arange(55e3, 70e3, 50.0)
    S = 2e-10 + thermal_density(f, 61.9e3, 1e3, 3e-4)
    t = table(
        f,
        S * rng.gamma(40, 1 / 40, f.size),
        unit="V^2/Hz",
        sided="two",
        averages=40,
        window="rectangular",
        reference="V",
    )
    found = make("thermal_oscillator", mass_kg=1e-18, temperature_k=293.0, axis_unit="Hz").run([t])
    scale = np.sqrt(1.380649e-23 * 293 / 1e-18 / 3e-4) / (TWO_PI * 61.9e3)
    return found, {
        "frequency_1_hz": 61.9e3,
        "linewidth_1_hz": 1e3,
        "variance_1": 3e-4,
        "displacement_m_per_unit": scale,
    }


def _ringdown(rng):
    t = np.linspace(0, 120.0, 400)
    y = 3.0 * np.exp(-TWO_PI * 2.1e-3 * t) * 1.0 + 0.05
    found = make("ringdown", noise=0.03, reference_hz=1.37e6, axis_unit="s").run(
        [table(t, y + 0.03 * rng.standard_normal(400))]
    )
    return found, {"mechanical_linewidth_hz": 2.1e-3, "quality_factor": 1.37e6 / 2.1e-3}


def _driven_force(rng):
    t, settings, truth = simulate_driven(rng, off=300.0, share=0.2)
    return make("driven_force", **settings).run([t]), truth


def _phase_tone(rng):
    """A tone 600 Hz from a line 400 Hz wide: the background is the line."""
    from backaction.elements.baths import occupation_at

    g0, T, mode, share = 60.0, 293.0, 1.37e6, 0.2
    tone, variance = mode + 607.0, g0**2 * (2 * float(occupation_at(T, mode)) + 1)
    f = np.arange(mode - 4e3, mode + 4e3, 20.0)
    t = simulate_with_tone(
        rng, f, 6e-3 * variance / 400 + thermal_density(f, mode, 400.0, variance), tone, share * variance, 100
    )
    settings = dict(
        modulation_hz=tone, depth_rad=np.sqrt(2 * share * variance) / tone, mechanical_hz=mode, temperature_k=T
    )
    return make("phase_tone", axis_unit="Hz", **settings).run([t]), {"single_photon_coupling_hz": g0}


CASES = [
    _cifar, _mors, _white_noise, _squeezing, _beat, _sweep, _thermal_sweep, _cooling, _spring, _transparency, _linearity, _oscillator,
    _ringdown, _driven_force, _phase_tone,
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.__name__[1:])
def test_coverage(case):
    """Pulls of fresh simulations: with 200 of them within the notes' limits, with a few within those of so few."""
    pulls: dict[str, list[float]] = {}
    for seed in range(COUNT):
        found, truth = case(np.random.default_rng(1000 + seed))
        for name, value in truth.items():
            pulls.setdefault(name, []).append((found[name].value - value) / found[name].sd)
    for name, p in pulls.items():
        mean, spread = np.mean(p), np.sqrt(np.mean(np.square(p)))
        if COUNT >= 100:
            inside = [np.mean(np.abs(p) < k) for k in (1, 2)]
            assert abs(mean) < 0.25, (name, mean)
            assert 0.88 < spread < 1.12, (name, spread)
            assert 0.60 < inside[0] < 0.76, (name, inside)
            assert inside[1] > 0.9, (name, inside)
        else:
            assert abs(mean) < 4 / np.sqrt(COUNT), (name, p)
            assert 0.25 < spread < 2.1, (name, p)
