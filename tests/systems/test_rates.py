"""Rates of one mode against closed forms: one ideal port, an unresolved cavity, and the V_c of a measured oscillator."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from backaction import (
    Experiment,
    Homodyne,
    Loss,
    OptomechanicalCavity,
    Oscillator,
    SidebandOscillator,
    gaussian_state,
)
from backaction.systems import mode_rates
from backaction.systems.poles import mode_band

TWO_PI = 2 * np.pi


def measured(
    frequency_hz=1e6, gamma=10.0, n=5.0, rate=200.0, loss=0.8, efficiency=0.7, electronic=0.1, damping="velocity"
):
    return Experiment([
        Oscillator(name="bead", frequency_hz=frequency_hz, intrinsic_linewidth_hz=gamma, occupation=n, readout_rate_hz=rate,
                   damping=damping),
        Loss(name="path", transmission=loss),
        Homodyne(name="detector", efficiency=efficiency, electronic_noise_sn=electronic),
    ])  # fmt: skip


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("damping", ["velocity", "symmetric"])
def test_one_port(sign, damping):
    """Back-action G/2, thermal gamma (n + 1/2), measurement h G/2/(1 + S) with h of all losses, in quanta/s; either mass."""
    r = mode_rates(measured(sign * 1e6, damping=damping).system, "bead")
    G, h = TWO_PI * 200, 0.8 * 0.7
    want = [G / 2, TWO_PI * 10 * 5.5, 0.0, h * G / 2 / 1.1]
    assert_allclose([r.back_action, r.thermal, r.technical, r.measurement], want, rtol=1e-9, atol=1e-9)
    assert_allclose(r.eta_total, want[3] / (want[0] + want[1]), rtol=1e-9)
    assert_allclose(r.cooperativity, 200 / (10 * 11), rtol=1e-9)  # Thomas: G/[gamma (2n + 1)]


@pytest.mark.parametrize(("gamma", "n", "efficiency"), [(10.0, 5.0, 0.7), (500.0, 0.5, 1.0), (1e-4, 100.0, 0.3)])
def test_state_of_a_measured_oscillator(gamma, n, efficiency):
    """Doherty and Jacobs (1999) in the rotating wave: V_c = [-gamma + sqrt(gamma^2 + 16 k d)]/(8 k), 1/(2 sqrt eta) if gamma = 0."""
    e = measured(1e7, gamma, n, 500.0, 1.0, efficiency, 0.0)
    r = mode_rates(e.system, "bead")
    g, k, d = TWO_PI * gamma, r.measurement, r.decoherence
    V = gaussian_state(e).covariance
    assert_allclose(np.trace(V) / 2, (-g + np.sqrt(g * g + 16 * k * d)) / (8 * k), rtol=1e-4)
    if gamma < 1e-3:
        assert_allclose(np.trace(V) / 2, 1 / (2 * np.sqrt(r.eta_total)), rtol=1e-4)


def test_unresolved_cavity():
    """A cavity on resonance, far wider than the mode turns: back-action 4 g^2/kappa, of which the overcoupled part is read."""
    cavity = OptomechanicalCavity(
        name="m", mechanical_hz=1e5, mechanical_linewidth_hz=1.0, bath_occupation=50.0, cavity_linewidth_hz=1e9,
        overcoupling=0.9, detuning_hz=0.0, coupling_hz=1e5,
    )  # fmt: skip
    r = mode_rates(Experiment([cavity, Homodyne(name="d", efficiency=0.5)]).system, "m")
    back = TWO_PI * 4 * 1e5**2 / 1e9
    assert_allclose([r.back_action, r.thermal], [back, TWO_PI * 50.5], rtol=1e-6)
    assert_allclose(r.measurement, 0.9 * 0.5 * back, rtol=1e-6)


def test_rotating_frame_and_batches():
    """A demolition-free sideband oscillator (45 degrees) reads as the lab's one; ten draws at once are ten alone."""
    e = Experiment([
        SidebandOscillator(name="a", intrinsic_linewidth_hz=1.0, occupation=3.0, readout_rate_hz=300.0, coupling_angle_deg=45.0),
        Homodyne(name="d", efficiency=0.6),
    ])  # fmt: skip
    r = mode_rates(e.system, "a")
    assert_allclose(
        [r.back_action, r.measurement, r.thermal], [TWO_PI * 150, 0.6 * TWO_PI * 150, TWO_PI * 3.5], rtol=1e-9
    )
    V = gaussian_state(e).covariance
    k, d, g = r.measurement, r.decoherence, TWO_PI * 1.0
    assert_allclose(V[0, 0], (-g + np.sqrt(g * g + 16 * k * d)) / (8 * k), rtol=1e-9)
    values = np.linspace(0.1, 0.9, 10)
    many = mode_rates(measured(efficiency=values).system, "bead")
    alone = [mode_rates(measured(efficiency=v).system, "bead").eta_total for v in values]
    assert_allclose(many.eta_total, alone, rtol=1e-12)


def test_nothing_detected():
    r = mode_rates(Experiment.load("ockeloen2018").system, "drum1")
    assert np.isnan(r.measurement)
    assert r.back_action > 0


def test_band_of_narrow_and_of_overdamped_modes():
    """Narrow: 0.9 to 1.1 of the frequency. Overdamped, gamma = 3 w: from 0 to twice the full width of the faster pole."""
    assert_allclose(mode_band(measured(1e5, 100.0).system, ("bead",)), (0.9e5, 1.1e5), rtol=1e-6)
    low, high = mode_band(measured(1e3, 3e3).system, ("bead",))
    assert low == 0.0
    assert_allclose(high, 2 * 1e3 * (3 + np.sqrt(5)), rtol=1e-9)
