import numpy as np
import pytest
from numpy.testing import assert_allclose

from backaction import (
    Experiment,
    Homodyne,
    Loss,
    OptomechanicalCavity,
    Oscillator,
    SpinOscillator,
    TechnicalNoise,
    budget,
    transfer,
)
from backaction.elements import Line, MechanicalMode
from backaction.errors import InputError, ModelError
from backaction.systems import steady
from support import oracle

CAVITY = dict(
    mechanical_hz=1.0e6, mechanical_linewidth_hz=1.0, bath_occupation=1000.0, cavity_linewidth_hz=3e6, detuning_hz=-0.5e6,
    coupling_hz=3e4,
)  # fmt: skip


def test_whole_spectrum_equals_the_papers_matrices(thomas):
    """Methods B in the paper's own units, summed over inputs, at 41 frequencies."""
    f = np.linspace(1.3e6, 1.45e6, 41)
    assert_allclose(budget(thomas.system, f).total, oracle.current_spectrum(oracle.TABLE, f), rtol=1e-10)


def test_spin_alone_has_the_closed_form(thomas):
    """2V = [gamma_S0 (2n+1) + Gamma_S (1 + zeta^2)]/gamma_S, exact (notes, section 3)."""
    V = steady.unconditional(Experiment([thomas.resolved().element("spin")]).system)
    assert_allclose(np.trace(V), 8.665134752, rtol=1e-9)
    assert_allclose(np.trace(V), (1700 * 2.6 + 20e3 * (1 + 0.028**2)) / 2820.0, rtol=1e-12)


def test_broadband_noise_is_finite_at_full_transmission(thomas):
    system = thomas.with_values({"link.transmission": 1.0}).system
    assert np.isfinite(steady.conditional(system).covariance).all()
    assert budget(system, [1.2e6]).sources["spin.broadband"][0] > 0.5


def test_dynamical_broadband_mode_keeps_commutators_and_adds_the_stated_noise():
    """S = 8 Gamma_bb (n + 1/2)/gamma_bb SN at resonance for zeta = 0 (calibration notes, section 1), plus back-action."""
    n, gamma, rate = 0.8, 1e6, 160e3
    spin = SpinOscillator(
        name="s", larmor_hz=-1.37e6, intrinsic_linewidth_hz=1700.0, readout_rate_hz=0.0, occupation=n,
        broadband_linewidth_hz=gamma, broadband_readout_rate_hz=rate,
    )  # fmt: skip
    b = budget(Experiment([spin, Homodyne(name="d")]).system, [1.37e6])
    # symmetric damping: both force quadratures, and the counter-rotating term (gamma/4 omega)^2
    assert_allclose(b.sources["s.broadband_bath"][0], 8 * rate * (n + 0.5) / gamma, rtol=0.05)
    assert spin.with_value("tensor_ratio", 0.2).build().check().realizable


@pytest.mark.parametrize("overcoupling", [0.2, 0.4999, 0.5001, 0.93, 1.0])
def test_carrier_phase_is_continuous_and_field_energy_is_kept(overcoupling):
    """Without mechanics all ports together are unitary, from undercoupled to overcoupled."""
    cavity = OptomechanicalCavity(name="m", overcoupling=overcoupling, **CAVITY | {"coupling_hz": 0.0})
    system = cavity.build()
    U = transfer(system, [0.4e6])[0][:, :4]
    assert_allclose(U @ U.conj().T, np.eye(4), atol=1e-9)
    kappa, delta, kin = 3e6, -0.5e6, overcoupling * 3e6
    a = kin / (kappa / 2 - 1j * delta) - 1
    (_, _), (c, s) = cavity.carrier_phases()
    assert_allclose(complex(c, s), a / abs(a))


def test_critically_coupled_cavity_on_resonance_has_no_phase_reference():
    with pytest.raises(ModelError, match="no carrier leaves"):
        OptomechanicalCavity(name="m", overcoupling=0.5, **CAVITY | {"detuning_hz": 0.0}).build()


def test_transmission_through_two_ports():
    ports = {"front": 0.3, "back": 0.6, "loss": 0.1}
    cavity = OptomechanicalCavity(name="m", ports=ports, input_port="front", output_port="back", **CAVITY)
    system = cavity.build()
    assert [p.name for p in system.inputs[:3]] == ["m.in", "m.back", "m.loss"]
    assert [p.name for p in system.outputs] == ["m.out", "m.front_out", "m.loss_out"]
    (_, _), (c, s) = cavity.carrier_phases()
    assert_allclose(complex(c, s), np.exp(1j * np.arctan2(2 * -0.5, 3.0)))
    symmetric = cavity.with_value("damping", "symmetric").build()
    assert symmetric.check().commutator_defect < 1e-12
    assert symmetric.check().output_defect < 1e-12


def test_ports_shorthand_equals_overcoupling():
    a = OptomechanicalCavity(name="m", overcoupling=0.9, **CAVITY).build()
    b = OptomechanicalCavity(name="m", ports={"in": 0.9, "loss": 0.1}, **CAVITY).build()
    for k in "ABCDS":
        assert_allclose(getattr(a, k), getattr(b, k))


def test_further_modes_see_the_same_field():
    """Two degenerate modes of coupling g1, g2 respond together as one of coupling sqrt(g1^2 + g2^2)."""
    mode = MechanicalMode(
        name="second", mechanical_hz=1.0e6, mechanical_linewidth_hz=1.0, bath_occupation=1000.0, coupling_hz=4e4
    )
    both = OptomechanicalCavity(name="m", overcoupling=0.9, modes=(mode,), **CAVITY)
    one = OptomechanicalCavity(name="m", overcoupling=0.9, **CAVITY | {"coupling_hz": 5e4})
    f = np.linspace(0.95e6, 1.05e6, 11)
    spectra = [budget(Experiment([c, Homodyne(name="d")]).system, f).total for c in (both, one)]
    assert_allclose(spectra[0], spectra[1], rtol=1e-9)
    assert [m.kind for m in both.build().modes] == ["oscillator", "cavity", "auxiliary"]


def test_photons_from_power():
    """n = kappa_in P/(hbar omega_L)/(kappa^2/4 + Delta^2), from h, c and the wavelength."""
    given = {k: v for k, v in CAVITY.items() if k not in ("coupling_hz", "detuning_hz", "cavity_linewidth_hz")}
    cavity = OptomechanicalCavity(
        name="m", overcoupling=25 / 26, cavity_linewidth_hz=2e6, detuning_hz=-0.4e6, single_photon_coupling_hz=100.0,
        power_w=1e-6, wavelength_m=852e-9, **given,
    )  # fmt: skip
    kappa, delta = 2 * np.pi * 2e6, 2 * np.pi * 0.4e6
    flux = 1e-6 / (6.62607015e-34 * 299792458 / 852e-9)
    assert_allclose(cavity.intracavity_photons(), 25 / 26 * kappa * flux / (kappa**2 / 4 + delta**2), rtol=1e-12)


def test_bath_temperature_gives_bose_occupation():
    """11.4 K at 1.37 MHz is 173.4e3 quanta (the notes' corrected n = kT/hbar omega), minus one half."""
    cavity = OptomechanicalCavity(
        name="m",
        overcoupling=0.9,
        **{k: v for k, v in CAVITY.items() if k != "bath_occupation"}
        | {"mechanical_hz": 1.37e6, "bath_temperature_k": 11.4},
    )
    system = cavity.build()
    n = system.S[system.input("m.bath"), system.input("m.bath")][0, 0] - 0.5
    x = 6.62607015e-34 * 1.37e6 / (1.380649e-23 * 11.4)
    assert_allclose(n, 1 / np.expm1(x), rtol=1e-12)
    assert_allclose(n, 173.4e3, rtol=1e-3)


def test_oscillator_with_gain_has_no_back_action():
    o = Oscillator(name="o", frequency_hz=62e3, intrinsic_linewidth_hz=1e3, temperature_k=300.0, gain=0.01)
    V = steady.unconditional(Experiment([o, Homodyne(name="d")]).system)
    n = 1 / np.expm1(6.62607015e-34 * 62e3 / (1.380649e-23 * 300.0))
    assert_allclose(np.diag(V), n + 0.5, rtol=1e-9)
    peak = budget(Experiment([o, Homodyne(name="d")]).system, [62e3]).sources["o.bath"][0]
    # S_X at resonance is 2 n_tot gamma (omega/omega gamma)^2 with n_tot = n + 1/2, in units of 2 pi
    assert_allclose(peak, 2 * 0.01**2 * 2 * (n + 0.5) / (1e3) / 1.0, rtol=1e-6)


def test_structural_damping_is_refused_with_the_reason():
    o = Oscillator(
        name="o", frequency_hz=62e3, intrinsic_linewidth_hz=1e3, occupation=1.0, gain=0.01, damping="structural"
    )
    with pytest.raises(ModelError, match="no state-space form"):
        o.build()


def test_line_has_its_peak_at_its_centre_and_its_width():
    noise = TechnicalNoise(name="laser", lines=(Line(name="a", center_hz=1e6, width_hz=2e3, peak_sn=7.0),))
    system = Experiment([noise, Homodyne(name="d", efficiency=0.5)]).system
    b = budget(system, [1e6, 1e6 + 1e3]).sources["laser.a"]
    assert_allclose(b, [3.5, 1.75], rtol=2e-3)
    assert_allclose(b[0], 3.5, rtol=1e-12)


def test_noise_before_the_cavity_is_not_noise_at_the_detector(thomas):
    """The same line before the cavity changes the membrane's state, at the detector it does not."""
    elements = list(thomas.elements)
    noise = TechnicalNoise(name="laser", lines=(Line(name="a", center_hz=1.3688e6, width_hz=2e3, peak_sn=50.0),))
    before = Experiment([*elements[:3], noise, *elements[3:]], thomas.modes)
    after = Experiment([*elements[:4], noise, elements[4]], thomas.modes)
    V = [
        steady.unconditional(e.system)[np.ix_(e.system.indices(thomas.modes), e.system.indices(thomas.modes))]
        for e in (thomas, before, after)
    ]
    assert V[1][0, 0] > 1.15 * V[0][0, 0]
    assert_allclose(V[2], V[0], rtol=1e-9, atol=1e-9)


def test_setting_one_larmor_key_clears_the_others(thomas):
    moved = thomas.with_values({"spin.larmor_offset_hz": 110e3})
    spin = moved.element("spin")
    assert (spin.larmor_hz, spin.larmor_offset_linewidths, spin.larmor_offset_hz) == (None, None, 110e3)
    f = thomas.element("membrane").effective_mechanics()[0]
    assert_allclose(moved.resolved().element("spin").larmor_hz, -(f + 110e3))


def test_offsets_are_resolved_after_all_overrides(thomas):
    """The order of overrides does not matter: the spin follows the membrane that is there in the end."""
    a = thomas.with_values({"membrane.mechanical_hz": 1.4e6, "spin.larmor_offset_hz": 1e3})
    b = thomas.with_values({"spin.larmor_offset_hz": 1e3}).with_values({"membrane.mechanical_hz": 1.4e6})
    assert a.resolved().element("spin").larmor_hz == b.resolved().element("spin").larmor_hz
    assert abs(a.resolved().element("spin").larmor_hz) > 1.39e6


def test_two_of_one_group_are_refused():
    with pytest.raises(InputError, match="give only one of larmor_hz, larmor_offset_hz"):
        SpinOscillator(name="s", larmor_hz=1.0, larmor_offset_hz=1.0, intrinsic_linewidth_hz=1.0, readout_rate_hz=1.0)


def test_loss_element_keeps_what_it_takes():
    H = transfer(Loss(name="l", transmission=0.3).build(), [0.0])[0].real
    assert_allclose(H @ H.T, np.eye(4), atol=1e-15)
