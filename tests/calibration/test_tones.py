"""Tones of known size near a thermal line: phase modulation, a driven force, and tones that cannot be seen."""

from __future__ import annotations

import numpy as np
import pytest

from backaction.errors import InputError, ModelError
from support.calibrations import (
    TWO_PI,
    make,
    simulate_driven,
    table,
    thermal_density,
)

# -- the models against other routes ----------------------------------------------------------------------------------


def _tone(f, at, power, step):
    """A line spread by a Hann window: its power in three bins, and two-sided."""
    shape = np.zeros(f.size)
    k = int(np.argmin(np.abs(f - at)))
    shape[k - 1 : k + 2] = np.array([0.25, 1.0, 0.25]) / 1.5
    return shape * power / 2 / step


def test_phase_tone():
    """g_0 = beta f_mod sqrt(A_mech/A_tone/(2(2n + 1))) from one spectrum with both lines."""
    from backaction.elements.baths import occupation_at

    g0, T, beta, tone, mode, gamma, step = 60.0, 293.0, 1e-3, 1.395e6, 1.37e6, 800.0, 50.0
    n = float(occupation_at(T, mode))
    f = np.arange(1.34e6, 1.42e6, step)
    S = 1e-3 + thermal_density(f, mode, gamma, g0**2 * (2 * n + 1)) + _tone(f, tone, (beta * tone) ** 2 / 2, step)
    rng = np.random.default_rng(1)
    t = table(
        f, S * rng.gamma(400, 1 / 400, f.size), unit="V^2/Hz", sided="two", averages=400, window="hann", reference="V"
    )
    found = make(
        "phase_tone",
        modulation_hz=tone,
        depth_rad=beta,
        depth_sd_rad=1e-5,
        mechanical_hz=mode,
        temperature_k=T,
        axis_unit="Hz",
    ).run([t])
    q = found["single_photon_coupling_hz"]
    assert abs(q.value - g0) < 3 * q.sd + 0.05 * g0 / 20
    assert 0.005 < q.sd / g0 < 0.05
    with pytest.raises(ModelError, match="no tone"):
        make(
            "phase_tone", modulation_hz=1.40e6, depth_rad=beta, mechanical_hz=mode, temperature_k=T, axis_unit="Hz"
        ).run([t])


def test_driven_force():
    """Metres per volt from a known force, and the temperature that the thermal line then has."""
    m, T, mode, gamma, scale, step = 1e-12, 293.0, 60e3, 900.0, 2e-7, 20.0
    F, drive = 3e-13, 62e3
    variance = 1.380649e-23 * T / m / (TWO_PI * mode) ** 2 / scale**2
    chi = 1 / m / np.hypot((TWO_PI) ** 2 * (mode**2 - drive**2), TWO_PI**2 * drive * gamma)
    f = np.arange(50e3, 70e3, step)
    S = (
        1e-4 * variance / gamma
        + thermal_density(f, mode, gamma, variance)
        + _tone(f, drive, (F * chi / scale) ** 2 / 2, step)
    )
    rng = np.random.default_rng(2)
    t = table(
        f, S * rng.gamma(200, 1 / 200, f.size), unit="V^2/Hz", sided="two", averages=200, window="hann", reference="V"
    )
    settings = dict(force_n=F, drive_hz=drive, mass_kg=m, mechanical_hz=mode, axis_unit="Hz")
    found = make("driven_force", **settings).run([t])
    for name, value in (("displacement_m_per_unit", scale), ("temperature_k", T)):
        assert abs(found[name].value - value) < 4 * found[name].sd, name
        assert found[name].sd < 0.1 * value
    # a common error of the force moves both together, the temperature twice as much
    loose = make("driven_force", force_sd_n=0.1 * F, **settings).run([t])
    assert loose["displacement_m_per_unit"].sd == pytest.approx(0.1 * scale, rel=0.1)
    assert loose["temperature_k"].sd == pytest.approx(0.2 * T, rel=0.15)
    assert loose.correlation("displacement_m_per_unit", "temperature_k") > 0.95


@pytest.mark.parametrize("off", [0.0, 600.0])
def test_an_invisible_tone_is_refused(off):
    """A tone of 0.02 % of the thermal variance on or beside the line: what is needed is said; the former ring of bins saw one."""
    t, settings, _ = simulate_driven(np.random.default_rng(3), off, share=2e-4)
    said = f"no tone at {60007 + off:g} Hz stands out of the line: .* visible from .* averages, has 100"
    with pytest.raises(ModelError, match=said):
        make("driven_force", **settings).run([t])
    with pytest.raises(InputError, match="outside the spectrum"):
        make("driven_force", **settings | {"drive_hz": 7e4}).run([t])
