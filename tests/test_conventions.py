"""DESIGN section 2, one assertion for each of its sentences."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from backaction import (
    BeamSplitter,
    Experiment,
    GaussianState,
    Homodyne,
    Loss,
    OptomechanicalCavity,
    Oscillator,
    Rotation,
    SpinOscillator,
    Squeezer,
    TechnicalNoise,
    budget,
    connect,
    gaussian_state,
    transfer,
)
from backaction.elements import Light
from backaction.errors import ConventionError, InputError
from backaction.numerics.matrices import rotation_matrix, symplectic
from backaction.records.record import Record
from backaction.records.shot_level import shot_noise
from backaction.states import entanglement
from backaction.systems import steady
from backaction.systems.labels import Mode, Port, sidebands
from backaction.systems.linear import LinearSystem
from backaction.systems.response import cross_spectrum, state_spectrum
from support.networks import all_ports_detected

SPIN = dict(intrinsic_linewidth_hz=1700.0, readout_rate_hz=20e3, tensor_ratio=0.028, occupation=0.8)
CAVITY = dict(
    mechanical_hz=1.37e6, mechanical_linewidth_hz=2.1e-3, bath_occupation=173e3, cavity_linewidth_hz=4.2e6,
    overcoupling=0.93, detuning_hz=-0.7e6, coupling_hz=107331.26291999,
)  # fmt: skip
VACUUM_FIELD = np.eye(2) / 2


def current_density(*elements):
    """Density of the detected current at 1 Hz in shot-noise units."""
    return budget(Experiment(elements).system, [1.0]).total[0]


# -- commutators ------------------------------------------------------------------------------------------------------


def test_commutator_is_i_for_every_mode_and_field():
    system = SpinOscillator(name="s", larmor_hz=-1e6, **SPIN).build()
    assert_allclose(system.state_commutator, symplectic(1))
    assert_allclose(system.input_commutator[:2, :2], [[0, 1], [-1, 0]])


def test_vacuum_variance_is_one_half():
    quiet = SpinOscillator(name="s", larmor_hz=1e6, intrinsic_linewidth_hz=1e3, readout_rate_hz=0.0)
    assert_allclose(steady.unconditional(quiet.build()), np.eye(2) / 2, atol=1e-15)
    assert_allclose(GaussianState.vacuum("a").covariance, np.eye(2) / 2)


def test_quadratures_are_ordered_x1_p1_x2_p2():
    state = GaussianState.thermal(first=1.0, second=3.0)
    assert_allclose(np.diag(state.covariance), [1.5, 1.5, 3.5, 3.5])


def test_states_print_their_convention():
    assert "vacuum variance 0.5, order X1, P1" in repr(GaussianState.vacuum("a", "b"))


def test_converters_between_conventions_exist():
    state = GaussianState.two_mode_squeezed(0.7)
    other = state.to(vacuum=1.0, order="xxpp")
    assert_allclose(other.covariance[0, 0], 2 * state.covariance[0, 0])
    assert_allclose(other.covariance[0, 1], 2 * state.covariance[0, 2])
    assert_allclose(other.to().covariance, state.covariance)


def test_mixing_conventions_raises():
    state = GaussianState.two_mode_squeezed(0.7)
    with pytest.raises(ConventionError, match="two conventions"):
        state - state.to(vacuum=1.0)


# -- Fourier ----------------------------------------------------------------------------------------------------------


def test_fourier_kernel_is_exp_plus_i_omega_t():
    """f(W) = int f e^{+iWt} dt: a decaying exponential e^{-gt} transforms to 1/(g - iW)."""
    g, W = 3.0, 2.0
    t = np.linspace(0, 12, 240001)
    numeric = np.trapezoid(np.exp(-g * t) * np.exp(1j * W * t), t)
    system = LinearSystem(
        [[-g]], [[1.0]], [[1.0]], [[0.0]], [[1.0]],
        (Mode("x", "classical", 1),), (Port("w", "classical", 1),), (Port("y", "current", 1),),
    )  # fmt: skip
    assert_allclose(transfer(system, [W / (2 * np.pi)])[0, 0, 0], numeric, rtol=1e-6)


def test_time_derivative_is_minus_i_omega():
    system = Oscillator(
        name="o", frequency_hz=1.0, intrinsic_linewidth_hz=0.1, occupation=0.0, readout_rate_hz=1.0
    ).build()
    f = 0.7
    W = 2 * np.pi * f
    G = np.linalg.solve(-1j * W * np.eye(2) - system.A, system.B)
    # dX/dt = omega P  ->  -iW X = omega P
    assert_allclose(-1j * W * G[0], 2 * np.pi * G[1])


def test_output_spectrum_is_u_s_u_dagger():
    system = Experiment([SpinOscillator(name="s", larmor_hz=-1e6, **SPIN), Homodyne(name="d", efficiency=0.7)]).system
    f = [0.999e6]
    U = transfer(system, f)[0]
    assert_allclose(cross_spectrum(system, f)[0], 2 * U @ system.S @ U.conj().T)


def test_spectra_are_symmetrised():
    """Equal at positive and negative frequency for a Hermitian current."""
    system = Experiment([SpinOscillator(name="s", larmor_hz=-1e6, **SPIN), Homodyne(name="d")]).system
    assert_allclose(budget(system, [-1e6]).total, budget(system, [1e6]).total)


def test_spectra_are_two_sided():
    """The variance is the integral over positive and negative frequencies of W/2 pi."""
    system = SpinOscillator(name="s", larmor_hz=50.0, intrinsic_linewidth_hz=10.0, readout_rate_hz=5.0).build()
    f = np.linspace(-4e4, 4e4, 800001)
    integral = np.trapezoid(state_spectrum(system, f)[:, 0, 0].real, f)
    assert_allclose(integral, steady.unconditional(system)[0, 0], rtol=1e-3)


def test_spectra_are_power_never_amplitude():
    assert_allclose(current_density(Squeezer(name="q", squeezing_db=-10.0, angle_deg=90.0), Homodyne(name="d")), 10.0)


# -- shot-noise units -------------------------------------------------------------------------------------------------


def test_vacuum_is_one_shot_noise_unit():
    assert_allclose(current_density(Loss(name="l", transmission=0.4), Homodyne(name="d", efficiency=0.3)), 1.0)


def _white(density, seed, size=400_000, rate=1e6):
    values = np.random.default_rng(seed).standard_normal(size) * np.sqrt(density * rate)
    return Record(values, rate, name=f"white {density}")


def test_one_shot_noise_unit_from_data_is_shot_minus_dark():
    c = shot_noise(_white(9.9, 1), _white(2.5, 2), _white(0.5, 3), 0.0, (1e5, 4e5))
    assert_allclose(c.density, 2.0, rtol=5 * c.relative_sd)
    assert c.relative_sd < 0.01


def test_the_dark_is_never_subtracted_from_a_signal_record():
    """Electronic noise stays in the record: with 1 SN = shot - dark the shot record itself reads 1 + electronics."""
    shot, dark = _white(2.5, 2), _white(0.5, 3)
    c = shot_noise(shot, shot, dark, 0.0, (1e5, 4e5))
    assert_allclose(np.var(shot.values()) / 1e6 / c.density, 1.25, rtol=0.02)


def test_electronic_noise_is_a_term_after_the_efficiency():
    for eta in (0.2, 0.9):
        assert_allclose(
            current_density(
                Loss(name="l", transmission=1.0), Homodyne(name="d", efficiency=eta, electronic_noise_sn=0.3)
            ),
            1.3,
        )


def test_electronic_noise_comes_from_the_experiment_and_a_conflicting_dark_warns():
    from backaction.records.taken import dark_conflict

    experiment = Experiment([Loss(name="l", transmission=1.0), Homodyne(name="d")])
    c = shot_noise(_white(2.5, 1), _white(2.5, 2), _white(0.5, 3), 0.0, (1e5, 4e5))
    assert "set d.electronic_noise_sn = 0.2" in dark_conflict(experiment, c)[0]
    assert dark_conflict(experiment.with_values({"d.electronic_noise_sn": 0.25}), c) == []


# -- rates ------------------------------------------------------------------------------------------------------------


def test_rates_are_cyclic_and_two_pi_enters_once():
    system = Oscillator(
        name="o", frequency_hz=100.0, intrinsic_linewidth_hz=4.0, occupation=0.0, readout_rate_hz=2.0
    ).build()
    poles = np.linalg.eigvals(system.A)
    assert_allclose(np.abs(poles), 2 * np.pi * 100.0)
    assert_allclose(system.B[1, 0] ** 2, 2 * 2 * np.pi * 2.0)


def test_linewidths_are_full_widths_of_energy():
    """Both damping models: half maximum of the displacement spectrum at +- linewidth/2, energy decays at the linewidth."""
    for damping in ("symmetric", "velocity"):
        system = SpinOscillator(
            name="s", larmor_hz=1e5, intrinsic_linewidth_hz=10.0, readout_rate_hz=0.0, damping=damping
        ).build()
        assert_allclose(-2 * np.linalg.eigvals(system.A).real / (2 * np.pi), 10.0, rtol=1e-6)
        S = state_spectrum(system, [1e5, 1e5 + 5.0])[:, 0, 0].real
        assert_allclose(S[1] / S[0], 0.5, rtol=1e-3)


def test_suffixes_say_the_unit():
    table = {
        "frequency_hz": "62 kHz",
        "intrinsic_linewidth_hz": "5 mHz",
        "temperature_k": "300 mK",
        "readout_rate_hz": "1 kHz",
    }
    o = Oscillator.from_table("o", table, "test")
    assert (o.frequency_hz, o.intrinsic_linewidth_hz, o.temperature_k) == pytest.approx((62e3, 5e-3, 0.3))
    assert Rotation.from_table("r", {"angle_deg": "1 rad"}, "test").angle_deg == pytest.approx(57.29577951)
    assert Homodyne.from_table("h", {"electronic_noise_sn": "0.1 SN"}, "test").electronic_noise_sn == 0.1
    assert Squeezer.from_table("q", {"squeezing_db": "3 dB"}, "test").squeezing_db == 3.0
    cavity = OptomechanicalCavity.from_table("c", CAVITY | {"power_w": "8 uW", "wavelength_m": "852 nm"}, "test")
    assert (cavity.power_w, cavity.wavelength_m) == pytest.approx((8e-6, 852e-9))


def test_transmissions_and_efficiencies_are_powers_between_0_and_1():
    H = transfer(Loss(name="l", transmission=0.36).build(), [0.0], ["l.out"])[0]
    assert_allclose(H[0, 0].real, 0.6)
    with pytest.raises(InputError, match=r"must be in \[0, 1\]"):
        Loss(name="l", transmission=1.2)


# -- negative mass ----------------------------------------------------------------------------------------------------


def test_negative_mass_is_a_negative_frequency(thomas):
    spin = thomas.resolved().element("spin")
    assert spin.larmor_hz < 0
    positive = thomas.with_values({"spin.mass": "positive"}).resolved().element("spin")
    assert_allclose(positive.larmor_hz, -spin.larmor_hz)


def test_negative_mass_is_printed_in_words(thomas):
    from backaction.cli.show import text
    from backaction.experiment.describe import document

    assert "negative mass" in text(document(thomas))


# -- angles -----------------------------------------------------------------------------------------------------------


def test_positive_angle_is_multiplication_by_exp_i_phi():
    X, P = 0.3, -1.1
    turned = rotation_matrix(25.0) @ [X, P]
    assert_allclose(complex(*turned), np.exp(1j * np.radians(25.0)) * complex(X, P))
    c, s = np.cos(np.radians(25.0)), np.sin(np.radians(25.0))
    assert_allclose(rotation_matrix(25.0), [[c, -s], [s, c]])


def test_rotation_turns_the_field_and_not_the_carrier():
    light = Light(carrier=(0.6, 0.8))
    assert Rotation(name="r", angle_deg=30.0).build(light).port("r.out").carrier == (0.6, 0.8)


def test_carrier_is_real_positive_at_the_entrance_of_each_cavity():
    """A carrier that arrives turned by an angle gives the same cavity, with the field turned back by that angle."""
    c, s = np.cos(0.4), np.sin(0.4)
    plain, turned = (OptomechanicalCavity(name="m", **CAVITY).build(Light(carrier=x)) for x in ((1.0, 0.0), (c, s)))
    cols = plain.input("m.in")
    assert_allclose(turned.B[:, cols] @ np.array([[c, -s], [s, c]]), plain.B[:, cols], atol=1e-9)
    assert_allclose(turned.port("m.out").carrier, plain.port("m.out").carrier)


def test_cavities_rotate_the_carrier():
    """arg of kappa_in/(kappa/2 - i Delta) - 1, -39.62 degrees for Thomas 2021 (psi_in + psi_out = -18.43 - 21.19)."""
    (ci, si), (co, so) = OptomechanicalCavity(name="m", **CAVITY).carrier_phases()
    assert_allclose(np.degrees(np.arctan2(si, ci)), -18.43494882, rtol=1e-9)
    assert_allclose(np.degrees(np.arctan2(so, co)), -18.43494882 - 21.18617644, rtol=1e-9)


def test_homodyne_refers_to_the_last_carrier():
    c, s = np.cos(0.4), np.sin(0.4)
    row = Homodyne(name="d", angle_deg=0.0).build(Light(carrier=(c, s))).D[0, :2]
    assert_allclose(row, [-s, c])  # turn by -0.4, take P


def test_homodyne_without_a_cavity_has_a_real_carrier():
    assert_allclose(Homodyne(name="d", angle_deg=0.0).build().D[0, :2], [0.0, 1.0])


def test_homodyne_measures_x_sin_theta_plus_p_cos_theta():
    row = Homodyne(name="d", angle_deg=20.0).build().D[0, :2]
    assert_allclose(row, [np.sin(np.radians(20.0)), np.cos(np.radians(20.0))])
    assert_allclose(row, (rotation_matrix(20.0))[1])  # rotate by +theta, take the P row


def test_amplitude_reference_counts_theta_from_x():
    row = Homodyne(name="d", angle_deg=20.0, reference="amplitude").build().D[0, :2]
    assert_allclose(row, [np.cos(np.radians(20.0)), np.sin(np.radians(20.0))])


# -- readout ----------------------------------------------------------------------------------------------------------


def test_readout_couples_by_sqrt_two_gamma_z():
    system = SpinOscillator(name="s", larmor_hz=-1e6, **SPIN).build()
    Z = np.array([[0.0, -0.028], [1.0, 0.0]])
    root = np.sqrt(2 * 2 * np.pi * 20e3)
    assert_allclose(system.B[:, :2], root * Z)
    assert_allclose(system.C, root * Z)
    assert_allclose(system.D[:, :2], np.eye(2))


def test_symmetric_spin_damping_is_half_width_plus_zeta_gamma_on_x_and_p():
    A = SpinOscillator(name="s", larmor_hz=-1e6, **SPIN).build().A / (2 * np.pi)
    assert_allclose(np.diag(A), -(1700 / 2 + 0.028 * 20e3))


def test_velocity_spin_damping_is_on_p_alone():
    A = SpinOscillator(name="s", larmor_hz=-1e6, damping="velocity", **SPIN).build().A / (2 * np.pi)
    assert_allclose(np.diag(A), [0.0, -(1700 + 2 * 0.028 * 20e3)])


# -- cavity -----------------------------------------------------------------------------------------------------------


def test_cavity_hamiltonian_drift():
    """H = -Delta a'a + omega b'b - g (a + a')(b + b') gives these equations for X_M, P_M, X_a, P_a."""
    A = OptomechanicalCavity(name="m", **CAVITY).build().A / (2 * np.pi)
    w, k, d, g = 1.37e6, 4.2e6, -0.7e6, CAVITY["coupling_hz"]
    expected = [[0, w, 0, 0], [-w, -2.1e-3, 2 * g, 0], [0, 0, -k / 2, -d], [2 * g, 0, d, -k / 2]]
    assert_allclose(A, expected, atol=1e-6)


def test_red_detuning_is_negative():
    """It damps: the effective linewidth is positive and large for Delta < 0, and negative for Delta > 0."""
    red = OptomechanicalCavity(name="m", **CAVITY).effective_mechanics()
    blue = OptomechanicalCavity(name="m", **CAVITY | {"detuning_hz": 0.7e6}).effective_mechanics()
    assert red[1] > 4e3
    assert blue[1] < -4e3


def test_textbook_g_is_g0_sqrt_n():
    given = {k: v for k, v in CAVITY.items() if k != "coupling_hz"}
    cavity = OptomechanicalCavity(name="m", single_photon_coupling_hz=60 * 2**0.5, photons=1.6e6, **given)
    assert_allclose(cavity.coupling() / (2 * np.pi), CAVITY["coupling_hz"])


def test_intracavity_field_is_real():
    """The radiation-pressure force is 2 g X_a in the cavity's own frame: no P_a enters, whatever the detuning."""
    A = OptomechanicalCavity(name="m", **CAVITY).build().A
    assert A[1, 3] == 0.0
    assert A[2, 0] == 0.0


def test_output_is_sqrt_kappa_a_minus_input():
    cavity = OptomechanicalCavity(name="m", **CAVITY | {"coupling_hz": 0.0, "detuning_hz": 0.0, "overcoupling": 1.0})
    H = transfer(cavity.build(), [0.0], ["m.out"])[0][:, :2].real
    assert_allclose(H, np.eye(2), atol=1e-12)  # 2 - 1 on resonance
    far = transfer(cavity.build(), [1e12], ["m.out"])[0][:, :2].real
    assert_allclose(far, -np.eye(2), atol=1e-5)


def test_effective_frequency_is_the_modulus_of_the_pole(numbers):
    cavity = OptomechanicalCavity(name="m", **CAVITY)
    f, gamma = cavity.effective_mechanics()
    poles = np.linalg.eigvals(cavity.build().A) / (2 * np.pi)
    pole = poles[np.argmin(np.abs(poles - 1.37e6j))]
    assert_allclose([f, gamma], [abs(pole), -2 * pole.real], rtol=1e-10)
    h = numbers["TABLE"]["headline"]
    assert_allclose(f - 1.37e6, 1e3 * h["omega_M_minus_omega_M0_kHz"], rtol=1e-8)
    assert_allclose(gamma, 1e3 * h["gamma_M_kHz"], rtol=1e-8)


# -- broadband noise, mode matching -----------------------------------------------------------------------------------


def _spin_link(**more):
    return [
        SpinOscillator(name="s", larmor_hz=-1e6, **SPIN | {"readout_rate_hz": 0.0} | more),
        Loss(name="l", transmission=0.5),
    ]


def test_broadband_noise_is_classical_white_on_p_only():
    port = next(p for p in SpinOscillator(name="s", larmor_hz=-1e6, **SPIN).build().inputs if p.name == "s.broadband")
    assert (port.kind, port.size) == ("classical", 1)
    assert_allclose(current_density(_spin_link(broadband_noise_sn=1.68)[0], Homodyne(name="d", angle_deg=90.0)), 1.0)


def test_broadband_noise_is_value_times_vacuum_at_the_spins_output():
    assert_allclose(current_density(_spin_link(broadband_noise_sn=1.68)[0], Homodyne(name="d")), 2.68)


def test_later_losses_act_on_broadband_noise():
    assert_allclose(current_density(*_spin_link(broadband_noise_sn=1.68), Homodyne(name="d")), 1 + 0.5 * 1.68)


def test_mode_matching_moves_input_coupling_into_the_loss():
    rates = OptomechanicalCavity(name="m", mode_matching=0.9, **CAVITY).port_rates()
    kappa = 2 * np.pi * 4.2e6
    assert_allclose([rates["in"], rates["loss"]], [0.9 * 0.93 * kappa, (0.07 + 0.1 * 0.93) * kappa])


# -- squeezer, beam splitter ------------------------------------------------------------------------------------------


def test_squeezer_angle_is_the_direction_of_the_squeezed_quadrature():
    D = Squeezer(name="q", squeezing_db=6.0, angle_deg=30.0).build().D[:, :2]
    V = D @ VACUUM_FIELD @ D.T
    u = np.array([np.cos(np.radians(30)), np.sin(np.radians(30))])
    assert_allclose(u @ V @ u, 0.5 * 10**-0.6)
    assert_allclose(np.linalg.eigvalsh(V)[0], 0.5 * 10**-0.6)


def test_beam_splitter_matrix():
    D = BeamSplitter(name="b", transmission=0.64).build().D
    assert_allclose(D[0::2, 0::2], [[0.8, 0.6], [-0.6, 0.8]])
    assert_allclose(D[1::2, 1::2], [[0.8, 0.6], [-0.6, 0.8]])


# -- frames -----------------------------------------------------------------------------------------------------------


def test_sidebands_frame_has_two_currents_cos_and_sin():
    light = Light(frame=sidebands(1e6))
    system = Homodyne(name="detector", efficiency=0.8).build(light)
    assert system.currents == ("detector.cos", "detector.sin")
    assert all(p.frame == sidebands(1e6) for p in system.outputs)
    assert_allclose(system.D @ system.S @ system.D.T, np.eye(2) / 2)  # each is one shot-noise unit of vacuum


def test_connecting_unequal_frames_is_refused():
    a = Loss(name="a", transmission=0.5).build(Light(frame=sidebands(1e6)))
    b = Loss(name="b", transmission=0.5).build()
    with pytest.raises(ConventionError, match=r"sidebands\(1e\+06 Hz\)"):
        connect([a, b], {"a.out": "b.in"})


def test_states_state_their_frame(thomas):
    assert "lab frame" in repr(GaussianState.vacuum("a"))


# -- EPR --------------------------------------------------------------------------------------------------------------


def test_epr_variables():
    rows = entanglement.basis(0.7, 25.0)
    a, b = 0.7, np.radians(25.0)
    X2 = np.array([0, 0, np.cos(b), np.sin(b)])
    P2 = np.array([0, 0, -np.sin(b), np.cos(b)])
    n = np.sqrt(1 + a * a)
    assert_allclose(rows[0], (np.array([1, 0, 0, 0]) - a * X2) / n)
    assert_allclose(rows[1], (np.array([0, 1, 0, 0]) + a * P2) / n)


def test_weight_multiplies_the_second_mode_and_is_not_negative(thomas):
    V = steady.unconditional(thomas.system)
    i = thomas.system.indices(("membrane", "spin"))
    j = thomas.system.indices(("spin", "membrane"))
    first, second = entanglement.epr(V[np.ix_(i, i)]), entanglement.epr(V[np.ix_(j, j)])
    assert first.weight >= 0
    assert_allclose(second.weight, 1 / first.weight)
    assert_allclose(second.variance, first.variance)


def test_angle_lies_in_the_half_open_interval():
    V = np.eye(4)
    V[0, 2] = V[2, 0] = -0.3
    V[1, 3] = V[3, 1] = 0.3
    assert entanglement.epr(V).angle_deg == pytest.approx(180.0)


def test_variance_below_one_witnesses_and_above_does_not_mean_separable():
    """A state with V >= 1 for every (a, b) that PPT still finds entangled: locally squeezed two-mode squeezing."""
    state = GaussianState.two_mode_squeezed(0.4)
    assert entanglement.epr(state).variance < 1
    squeezed = state.transformed(np.diag([3.0, 1 / 3.0, 3.0, 1 / 3.0]))
    assert entanglement.epr(squeezed).variance > 1
    assert entanglement.ppt_min(squeezed) < 0.5


def test_posterior_statements_use_one_fixed_weight_and_angle():
    """V at one fixed (a, b) is never below the optimised value."""
    V = GaussianState.two_mode_squeezed(0.4).covariance
    assert entanglement.epr_variance(V, 0.8, 10.0) > entanglement.epr(V).variance


# -- conditional, unconditional, retrodicted --------------------------------------------------------------------------


def test_conditional_is_on_this_current_with_its_losses(thomas):
    variances = []
    for eta in (1.0, 0.77, 0.2):
        system = thomas.with_values({"detector.efficiency": eta}).system
        i = system.indices(thomas.modes)
        variances.append(entanglement.epr(steady.conditional(system).covariance[np.ix_(i, i)]).variance)
    assert variances[0] < variances[1] < variances[2]


def test_unconditional_does_not_depend_on_the_detector(thomas):
    other = thomas.with_values(
        {"detector.efficiency": 0.2, "detector.angle_deg": 70.0, "detector.electronic_noise_sn": 3.0}
    )
    assert_allclose(steady.unconditional(other.system), steady.unconditional(thomas.system), rtol=1e-12, atol=1e-12)


def test_retrodicted_is_the_effect_operator(thomas):
    """Its information adds to the prior's; it is not the smoother (which also uses the past)."""
    effect = steady.effect(thomas.system)
    past = steady.conditional(thomas.system).covariance
    smoothed = np.linalg.inv(np.linalg.inv(effect) + np.linalg.inv(past))
    assert np.all(np.diag(smoothed) < np.diag(effect))


def test_all_ports_detected_is_pure():
    """One homodyne of any angle and efficiency 1 on every output, no bath: every symplectic eigenvalue is 1/2."""
    state = all_ports_detected()
    assert_allclose(state.symplectic_eigenvalues(), 0.5, atol=1e-9)


# -- cooperativities, constants ---------------------------------------------------------------------------------------


def test_one_mode():
    """Occupation from the trace, thermal occupation from det V, purity; V_c -> 1/(2 sqrt(eta_total)) for gamma -> 0."""
    from backaction import Oscillator
    from backaction.states import by_mode
    from backaction.systems import mode_rates

    V = np.array([[1.5, 0.3], [0.3, 0.7]])
    m = by_mode(GaussianState(V, ("a",)))["a"]
    det = 1.5 * 0.7 - 0.09
    assert_allclose(
        [m["occupation"], m["thermal_occupation"], m["purity"]], [0.6, det**0.5 - 0.5, 0.5 / det**0.5], rtol=1e-12
    )
    e = Experiment([
        Oscillator(name="a", frequency_hz=1e7, intrinsic_linewidth_hz=1e-6, occupation=1e8, readout_rate_hz=100.0),
        Homodyne(name="d", efficiency=0.4, electronic_noise_sn=0.25),
    ])  # fmt: skip
    r = mode_rates(e.system, "a")
    rates = [np.pi * 100, 2 * np.pi * 100, 0.4 * np.pi * 100 / 1.25]
    assert_allclose([r.back_action, r.thermal, r.measurement], rates, rtol=1e-7)
    variance = np.trace(gaussian_state(e).covariance) / 2
    assert_allclose(variance, 0.5 / np.sqrt(r.eta_total), rtol=1e-4)


def test_cooperativities_are_named_by_definition(thomas):
    from backaction.experiment.describe import document

    facts = document(thomas)["derived"]["membrane"]
    huang = facts["cooperativity Huang Gamma_M/[gamma_M0 (n+1/2)]"]
    assert_allclose(huang, 2 * facts["cooperativity Thomas/Moller Gamma_M/[gamma_M0 (2n+1)]"])
    table = next(v for k, v in facts.items() if "Thomas's table" in k)
    assert_allclose(table, 15.09968149, rtol=1e-8)


def test_constants_are_exact_si():
    from backaction import constants

    assert constants.HBAR * 2 * np.pi == pytest.approx(6.62607015e-34, rel=1e-15)
    assert (constants.K_B, constants.C_LIGHT) == (1.380649e-23, 299792458.0)


def test_technical_noise_acts_on_everything_that_follows(thomas):
    """Phase noise before the cavity drives the membrane: it changes the unconditional state."""
    elements = list(thomas.elements)
    noisy = Experiment([*elements[:3], TechnicalNoise(name="laser", floor_sn=2.0), *elements[3:]], thomas.modes)
    i = noisy.system.indices(noisy.modes)
    before = steady.unconditional(thomas.system)[
        np.ix_(thomas.system.indices(thomas.modes), thomas.system.indices(thomas.modes))
    ]
    after = steady.unconditional(noisy.system)[np.ix_(i, i)]
    assert np.all(np.diag(after)[:2] > np.diag(before)[:2] * 1.02)
