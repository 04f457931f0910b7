"""Models of the calibrations by other routes, and the traps: what moves a result is found out, modelled or refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from backaction import constants
from backaction.calibration import atoms
from backaction.calibration.cavity import beat as closed_beat
from backaction.calibration.cavity import dither_error, lock_detuning, swept_amplitude, turning_point
from backaction.calibration.dynamical import weak_spring
from backaction.calibration.thermal import thermal_shape
from backaction.calibration.white_noise import cooperativity, cooperativity_error
from backaction.errors import InputError, ModelError
from support.calibrations import (
    ANGLES,
    GENERAL,
    TWO_PI,
    beat,
    bose,
    cifar,
    cifar_method,
    make,
    mors,
    reflected,
    simulate_beat,
    simulate_cifar,
    simulate_mors,
    simulate_squeezing,
    simulate_sweep,
    simulate_thermal_sweep,
    simulate_white_noise,
    spring,
    squeezing,
    squeezing_method,
    table,
    thermal_density,
    transparency,
)

# -- the models against other routes ----------------------------------------------------------------------------------


def test_cifar_model_is_the_printed_one():
    """The element without field-mediated coupling is B17, frequency by frequency."""
    f = np.linspace(1290, 1450, 7)
    method = cifar_method()
    v = dict(readout_rate_hz=20e3, intrinsic_linewidth_hz=1.7e3, tensor_ratio=0.028, larmor_hz=-1.37e6, broadband_readout_rate_hz=160e3,
             broadband_linewidth_hz=1e6, amplitude=1.1, phase_rad=0.3, delay_s=5e-7, angle_error_rad=0.01)  # fmt: skip
    assert_allclose(method.model(v, 1e3 * f, np.radians(ANGLES)), cifar(f, ANGLES, A=1.1, error=0.01), rtol=1e-11)


@given(st.floats(0.2, 8.0), st.floats(0.02, 6.0), st.floats(0.1, 15.0))
def test_beat_formula(kappa, delta, W):
    """The closed form is the small-index limit of a numerical Fourier transform of the transmitted intensity."""
    got = closed_beat(W, kappa, delta)
    shape = W * delta / abs(kappa**2 / 4 + delta**2 - W**2 - 1j * kappa * W)
    assert_allclose(
        abs(got) / abs(closed_beat(1.0, kappa, delta)),
        shape / (delta / abs(kappa**2 / 4 + delta**2 - 1 - 1j * kappa)),
        rtol=1e-9,
    )
    assert_allclose(abs(got), abs(beat(W, kappa, delta))[0], rtol=2e-6, atol=1e-9)
    assert_allclose(abs(closed_beat(W, kappa, delta, 0.8)), abs(beat(W, kappa, delta, 0.8))[0], rtol=1e-8, atol=1e-9)


def test_beat_is_the_element():
    """Phase modulation in, amplitude quadrature out, through an `optomechanical_cavity` without mechanics."""
    from backaction.elements import OptomechanicalCavity
    from backaction.systems.response import transfer

    cavity = OptomechanicalCavity(
        name="c", mechanical_hz=1.0, mechanical_linewidth_hz=1.0, bath_occupation=0.0, cavity_linewidth_hz=4.2, coupling_hz=0.0,
        detuning_hz=-0.7, ports={"back": 0.07, "coupler": 0.93}, input_port="back", output_port="coupler", carrier_port="back",
    )  # fmt: skip
    W = np.linspace(0.3, 12, 40)
    H = transfer(cavity.build(), W, ["c.out"])
    entry = next(i for i, p in enumerate(cavity.build().inputs) if p.name == "c.in")
    cc, cs = next(p.carrier for p in cavity.build().outputs if p.name == "c.out")
    row = cc * H[:, 0, 2 * entry + 1] + cs * H[:, 1, 2 * entry + 1]
    ratio = np.abs(row) / np.abs(closed_beat(W, 4.2, -0.7))
    assert_allclose(ratio, ratio[0], rtol=1e-10)


def test_swept_amplitude_solves_its_equation():
    from scipy.integrate import solve_ivp

    k, v, t0 = TWO_PI * 4.2, 2 * (TWO_PI * 4.2) ** 2, 0.05
    t = np.linspace(-0.04, 0.3, 30)
    ode = solve_ivp(
        lambda s, a: -(k / 2 - 1j * v * (s - t0)) * a + 1,
        (-1.0, 0.3),
        [0j],
        t_eval=t,
        rtol=1e-10,
        atol=1e-13,
        method="DOP853",
    )
    assert_allclose(swept_amplitude(t, k, v, t0), ode.y[0], atol=1e-7 * np.max(np.abs(ode.y)))
    slow = swept_amplitude(np.array([0.05]), k, 1e-4 * k * k, 0.05)
    assert_allclose(abs(slow), 2 / k, rtol=1e-6)


def test_dither_turning_points():
    """Slow and shallow: 1/(2 sqrt 3). What frequency and depth do: values of the notes."""
    assert turning_point()[0] == pytest.approx(1 / (2 * np.sqrt(3)), rel=1e-6)
    assert_allclose(
        [turning_point(w)[0] / turning_point()[0] for w in (0.01, 0.1, 0.3)], [1.0005, 1.050693, 1.490301], rtol=2e-5
    )
    assert_allclose(
        [turning_point(0, b)[0] / turning_point()[0] for b in (0.1, 0.3, 0.5)], [1.0295, 1.2540, 1.6458], rtol=1e-3
    )
    x = np.linspace(-1, 1, 9)
    assert_allclose(dither_error(x, 1e-3, 0.0), dither_error(x), atol=1e-4)
    assert_allclose(dither_error(x, 0.0, 1e-3), dither_error(x), atol=1e-4)
    # r = (16/9) x/(1 + x^2/3)^2 in units of the turning point
    y = 0.85
    top = 1 / (2 * np.sqrt(3))
    z = lock_detuning(y) / top
    assert (16 / 9) * z / (1 + z * z / 3) ** 2 == pytest.approx(y, rel=1e-9)
    assert 4.2 * lock_detuning(y) == pytest.approx(0.7269524309, rel=1e-8)


@given(st.floats(-5000, -50), st.floats(100, 6000))
def test_spring_formula_is_the_pole(delta, kappa):
    damping, shift = spring(delta, g0=1.0, kappa=kappa)
    got = weak_spring(1 / (1 + (2 * delta / kappa) ** 2), kappa, delta, 1370.0)
    size = np.hypot(damping, shift)
    assert_allclose(got[0], damping, atol=1e-3 * size[0])
    assert_allclose(got[1], shift, atol=1e-3 * size[0])


def test_spring_changes_sign():
    zero = np.sqrt(1370.0**2 - 500.0**2)
    below, above = (weak_spring(1.0, 1000.0, -d, 1370.0)[1] for d in (zero - 5, zero + 5))
    assert below * above < 0


def test_transparency_model():
    x = 10000.0 + np.linspace(-1.2, 1.2, 31)
    method = make("transparency", cavity_linewidth_hz=1.38e6, noise=0.01, detuning_hz=-1e7)
    v = dict(coupling_hz=1e4, mechanical_hz=1e7, mechanical_linewidth_hz=106.0, external_hz=1.13e6)
    assert_allclose(method.model(v, 1e3 * x), transparency(x), rtol=1e-10)
    # amplification by blue light: the same method, the detuning given
    blue = transparency(x, delta=10000.0, g=2.0)
    got = make("transparency", cavity_linewidth_hz=1.38e6, noise=0.01, detuning_hz=1e7).model(
        v | {"coupling_hz": 2e3}, 1e3 * x
    )
    assert_allclose(got, blue, rtol=1e-10)


def test_squeezing_model():
    f = np.linspace(1330, 1410, 33)
    v = dict(
        bath_temperature_k=11.4,
        efficiency=0.8,
        mechanical_hz=1.37e6,
        coupling_1_hz=30e3 * np.sqrt(2),
        coupling_2_hz=37e3 * np.sqrt(2),
    )
    for got, (g, d) in zip(squeezing_method().model(v, 1e3 * f), ((30.0, -700.0), (37.0, -1500.0))):
        assert_allclose(got, squeezing(f, g=g, delta=d), rtol=1e-8)


def test_squeezing_in_reflection():
    """Against the sideband amplitudes a, a* with the carriers' phases written out; the efficiency is then found by itself."""
    f = np.linspace(1330, 1410, 33)
    method = squeezing_method(deltas=(-700.0,), geometry="reflection")
    v = dict(bath_temperature_k=11.4, efficiency=0.8, mechanical_hz=1.37e6, coupling_hz=30e3 * np.sqrt(2))
    assert_allclose(method.model(v, 1e3 * f)[0], reflected(f), rtol=1e-7)
    fine = np.arange(1330, 1410.1, 0.25)
    t = table(
        1e3 * fine, reflected(fine) * np.random.default_rng(1).gamma(600, 1 / 600, fine.size), unit="SN", averages=600
    )
    found = method.run([t])
    assert not any("only efficiency x overcoupling" in w for w in found.warnings)
    assert abs(found["efficiency"].value - 0.8) < 4 * found["efficiency"].sd
    assert abs(found["bath_temperature_k"].value - 11.4) < 4 * found["bath_temperature_k"].sd


@given(st.floats(0.05, 3.0), st.floats(0.3, 30.0), st.booleans())
def test_thermal_shape(gamma, f0, structural):
    """The oscillator's spectrum is the Langevin one, from underdamped to overdamped, and holds unit variance."""
    f = f0 * np.geomspace(0.1, 10, 25)
    got = thermal_shape(f, f0, gamma * f0, "structural" if structural else "velocity")
    assert_allclose(got, thermal_density(f, f0, gamma * f0, 1.0, structural), rtol=1e-9)
    if not structural:
        from scipy.integrate import quad

        area = (
            2 * quad(lambda x: thermal_density(np.array([x]), 1.0, gamma, 1.0)[0], 0, np.inf, points=None, limit=400)[0]
        )
        assert area == pytest.approx(1.0, rel=1e-3)


def test_populations():
    """n_S of a spin temperature is 1/(e^b - 1) exactly; limits of n_S are reached by the populations that the notes name."""
    for F in (1.0, 2.0, 3.0, 4.0):
        w = atoms.spin_temperature(F, 0.82)
        assert atoms.polarisation(w) == pytest.approx(0.82, rel=1e-12)
        assert atoms.spin_occupation(w) == pytest.approx(w[-2] / (w[-1] - w[-2]), rel=1e-9)
    assert atoms.occupation_range(4, 0.82) == pytest.approx((0.2195121951, 0.8780487805), rel=1e-9)
    rng = np.random.default_rng(3)
    for _ in range(300):
        p = np.concatenate([[0.0], rng.dirichlet(np.ones(8))])
        if atoms.polarisation(p) > 0.05:
            low, high = atoms.occupation_range(4, atoms.polarisation(p))
            assert low - 1e-9 <= atoms.spin_occupation(p) <= high + 1e-9
    assert atoms.spin_occupation(GENERAL) == pytest.approx(0.7850609756, rel=1e-9)


def test_breit_rabi_of_any_isotope():
    """Against the numerical diagonalisation of I.J + Zeeman."""
    for name, kind in atoms.ATOMS.items():
        field = 3e-4
        dim = round(2 * kind.nuclear_spin + 1)
        spins = []
        for s in (kind.nuclear_spin, 0.5):
            m = np.arange(s, -s - 1, -1)
            plus = np.diag(np.sqrt(s * (s + 1) - m[1:] * (m[1:] + 1)), 1)
            spins.append(((plus + plus.T) / 2, (plus - plus.T) / 2j, np.diag(m)))
        Ix, Iy, Iz = (np.kron(x, np.eye(2)) for x in spins[0])
        Jx, Jy, Jz = (np.kron(np.eye(dim), x) for x in spins[1])
        A = kind.hyperfine_hz / (kind.nuclear_spin + 0.5)
        H = A * (Ix @ Jx + Iy @ Jy + Iz @ Jz) + constants.MU_B_HZ * field * (kind.g_j * Jz + kind.g_i * Iz)
        levels = np.sort(np.linalg.eigvalsh(H))
        F = kind.nuclear_spin + 0.5
        upper, lower = atoms.breit_rabi(kind, F, field), atoms.breit_rabi(kind, F - 1, field)
        assert_allclose(np.sort(np.concatenate([upper, lower])), levels, atol=1e-2), name
        assert_allclose(np.mean(atoms.field_at(kind, F, 1e6)[1]), 1e6, rtol=1e-12)


# -- traps: an error of the user, or of the usual analysis, that moves the result ------------------------------------------


def test_cifar_traps():
    """No broadband mode: refused by its chi2; a wrong sign of an angle is found out; G does not depend on the scale."""
    t = simulate_cifar(np.random.default_rng(1))
    with pytest.raises(ModelError, match="does not describe the data"):
        cifar_method(no_broadband=True).run([t])
    with pytest.raises((ModelError, InputError)):
        cifar_method(angles=(45.0, 0.0, -45.0)).run([t])
    found = cifar_method().run([t])
    scaled = table(t.values[:, 0], *(0.31 * t.values[:, k] for k in range(1, 7)))
    other = cifar_method(sd=0.31 * 0.02).run([scaled])
    assert other["readout_rate_hz"].value == pytest.approx(found["readout_rate_hz"].value, rel=1e-6)
    assert any("mirror image" in n for n in found.notes)
    # the mirror: all signs turned, the same data
    f = np.linspace(1300, 1440, 9)
    assert_allclose(cifar(f, ANGLES), cifar(f, ANGLES, G=-20.0, zeta=-0.028, w=1370.0, Gb=-160.0), rtol=1e-12)


def test_cifar_field_mediated_coupling_is_invisible():
    """With the coupling between the modes that the paper leaves out the data fit as well, and the readout rate is 1.8 % larger."""
    t = simulate_cifar(np.random.default_rng(1))
    a, b = (cifar_method(broadband_coupling=c).run([t]) for c in ("none", "mediated"))
    assert abs(a.deviance - b.deviance) < 0.01
    assert b["readout_rate_hz"].value / a["readout_rate_hz"].value == pytest.approx(1.018, abs=0.002)


def test_mors_traps():
    """Noiseless: pump-broadened lines need their model; positivity biases; a wrong splitting shows; the lowest level is not seen."""
    clean, _ = simulate_mors(None)
    found = make("mors", splitting_hz=400, noise=1e-6, axis_unit="Hz").run([clean])
    assert found["occupation"].value == pytest.approx(0.7850609756, rel=1e-5)
    pumped, sd = simulate_mors(None, pump=300.0)
    common = make("mors", splitting_hz=400, noise=sd, axis_unit="Hz").run([pumped])
    right = make("mors", splitting_hz=400, noise=sd, axis_unit="Hz", pump="on").run([pumped])
    assert common["occupation"].value == pytest.approx(0.767, abs=0.001)
    assert right["occupation"].value == pytest.approx(0.785061, abs=1e-4)
    # one constant added to all populations changes nothing
    f = np.linspace(-4e3, 4e3, 41)
    assert_allclose(mors(f, GENERAL), mors(f, GENERAL + 0.3), rtol=1e-9)
    # a coherent sum: the incoherent one is far off
    parts = [mors(f, np.eye(9)[k] * GENERAL[k]) for k in range(9)]
    assert np.max(np.abs(np.sum(np.abs(parts) ** 2, axis=0) / np.abs(mors(f, GENERAL)) ** 2 - 1)) > 0.5
    noisy, sd = simulate_mors(np.random.default_rng(5))
    wrong = make("mors", splitting_hz=420, noise=sd, axis_unit="Hz").run([noisy])
    assert wrong.p < 1e-6
    assert any("does not describe" in w for w in wrong.warnings)
    # 1/100 s: a free splitting of overlapping lines is refused, a fixed one warned of
    broad, sd = simulate_mors(np.random.default_rng(6), width=1600.0)
    with pytest.raises(ModelError, match="overlap"):
        make("mors", splitting_hz=400, free_splitting=True, noise=sd, axis_unit="Hz").run([broad])
    assert any("overlap" in w for w in make("mors", splitting_hz=400, noise=sd, axis_unit="Hz").run([broad]).warnings)


def test_white_noise_traps():
    """(S40) and its errors; broadband noise left in the spectra; the floor frees it; contamination by P shows and is fitted."""
    C, n = 1.1, 1.22
    A = 40 * (1 + 1 / C)
    B = A + n * 40
    assert cooperativity(A, B, n) == pytest.approx(C, rel=1e-12)
    assert cooperativity_error(A, B, n, 0, 0, 0.05 * n) == pytest.approx(C * (1 + C) * 0.05, rel=1e-9)
    assert cooperativity_error(A, B, n, 0.02 * A, 0.02 * B, 0) == pytest.approx(0.1675749183, rel=1e-4)
    left = simulate_white_noise(None, excess=1.68)
    settings = dict(excess_sn=n, efficiency=0.7, rotating_wave=True, axis_unit="Hz")
    assert make("white_noise", **settings).run([left])["cooperativity"].value < 0.95
    freed = make("white_noise", free_floor=True, **settings).run([left])
    assert freed["cooperativity"].value == pytest.approx(C, rel=1e-4)
    assert freed["floor_sn"].value == pytest.approx(1.68, rel=1e-4)
    turned = simulate_white_noise(None, angle=0.1)
    plain = make("white_noise", **settings).run([turned])
    assert plain["cooperativity"].value == pytest.approx(1.0848, abs=2e-3)
    # noise quoted behind the loss
    assert make("white_noise", **(settings | {"excess_sn": 0.7 * n})).run([simulate_white_noise(None)])[
        "cooperativity"
    ].value == pytest.approx(2.973, abs=0.03)
    # no priors of Gamma and n_S from an assumed efficiency
    assert not make("white_noise", **(settings | {"efficiency": 1.0})).run([simulate_white_noise(None)]).priors


def test_squeezing_traps():
    """Only efficiency x overcoupling is found; shot level, excess and bins move T as the notes say, and bins can be averaged over."""
    clean = simulate_squeezing(None)
    base = squeezing_method().run([clean])
    assert base["bath_temperature_k"].value == pytest.approx(11.4, rel=1e-5)
    other = squeezing_method(overcoupling=0.95).run([clean])
    assert other["efficiency"].value == pytest.approx(0.8 * 0.93 / 0.95, rel=1e-6)
    assert other["efficiency_x_overcoupling"].value == pytest.approx(base["efficiency_x_overcoupling"].value, rel=1e-7)
    assert any("only efficiency x overcoupling" in w for w in base.warnings)
    f = clean.values[:, 0]
    level = table(f, clean.values[:, 1] / 1.02, clean.values[:, 2] / 1.02, unit="SN", averages=600)
    assert squeezing_method().run([level])["bath_temperature_k"].value == pytest.approx(9.55, abs=0.02)
    dark = table(f, clean.values[:, 1] + 0.02, clean.values[:, 2] + 0.02, unit="SN", averages=600)
    assert squeezing_method(electronic_noise_sn=0.02).run([dark])["efficiency"].value == pytest.approx(0.8, rel=1e-4)
    # wide bins: refused, unless the model is averaged over them
    fine = np.arange(1329.75, 1410.25, 0.5 / 200)
    wide = np.arange(1330, 1410.1, 0.5)
    bins = [
        np.array([np.mean(squeezing(fine, g=g, delta=d)[np.abs(fine - x) < 0.25]) for x in wide])
        for g, d in ((30, -700), (37, -1500))
    ]
    t = table(1e3 * wide, *bins, unit="SN", averages=600)
    with pytest.raises(InputError, match="does not resolve"):
        squeezing_method().run([t])
    assert squeezing_method(bin_average=True).run([t])["bath_temperature_k"].value == pytest.approx(11.4, abs=0.1)


def test_cavity_traps():
    """A modulation index that is not small, and the detector's pole, are modelled; unresolved detunings get a limit, not a number."""
    t = simulate_beat(None, index=1.0)
    naive = make("sideband_beat", relative_noise=0.01, axis_unit="Hz").run([t])
    assert naive["cavity_linewidth_hz"].value < 4.0e6
    right = make("sideband_beat", relative_noise=0.01, modulation_index=1.0, axis_unit="Hz").run([t])
    assert right["cavity_linewidth_hz"].value == pytest.approx(4.2e6, rel=1e-4)
    assert right["detuning_hz"].value == pytest.approx(-0.7e6, rel=1e-3)
    W = np.linspace(0.3, 12, 80)
    slow = table(1e6 * W, np.abs(beat(W)) / np.hypot(1, W / 20))
    assert make("sideband_beat", relative_noise=0.01, axis_unit="Hz").run([slow])["cavity_linewidth_hz"].value < 3.8e6
    pole = make("sideband_beat", relative_noise=0.01, detector_pole_hz=20e6, axis_unit="Hz").run([slow])
    assert pole["cavity_linewidth_hz"].value == pytest.approx(4.2e6, rel=1e-4)
    small = make("sideband_beat", relative_noise=0.01, axis_unit="Hz").run(
        [simulate_beat(np.random.default_rng(2), delta=0.1)]
    )
    assert "detuning_hz" not in small.quantities
    assert any("not resolved" in w and "95 %" in w for w in small.warnings)
    t, sd = simulate_sweep(np.random.default_rng(1), speed=0.02)
    with pytest.raises(ModelError, match="adiabatic"):
        make("swept_ringdown", noise=sd, axis_unit="s").run([t])


def test_microwave_traps():
    """Points in the saturation are left out by themselves; cavity noise biases gain and asymmetry; the exact width is used."""
    t = simulate_thermal_sweep(np.random.default_rng(4), sd=1e-3)
    found = make("thermal_sweep", frequency_hz=1e7, relative_noise=1e-3, fit_above_k=0.055, axis_unit="K").run([t])
    truth = bose(1e7, (0.015**4 + 0.0177**4) ** 0.25)
    assert abs(found["occupation"].value - truth) < 3 * found["occupation"].sd
    saturated = make("thermal_sweep", frequency_hz=1e7, relative_noise=1e-3, fit_above_k=0.018, axis_unit="K").run([t])
    assert saturated["occupation"].value < 0.95 * truth
    assert saturated.p < 1e-6
    with pytest.raises(InputError, match="takes in the coldest point"):
        make("thermal_sweep", frequency_hz=1e7, relative_noise=1e-3, fit_above_k=0.0, axis_unit="K").run([t])
    ratio = (1 + 1 + 0.2) / (1 - 0.2)
    ignored = make("sideband_asymmetry", blue_area=ratio, red_area=1, relative_noise=0.01).run([])
    assert ignored["occupation"].value == pytest.approx(0.5714, abs=1e-3)
    right = make("sideband_asymmetry", blue_area=ratio, red_area=1, relative_noise=0.01, noise_occupation=0.2).run([])
    assert right["occupation"].value == pytest.approx(1.0, rel=1e-9)
    hot = make("sideband_asymmetry", blue_area=42, red_area=41, relative_noise=0.01).run([])
    assert hot["occupation"].sd == pytest.approx(24.35, rel=2e-3)
    assert any("almost nothing" in w for w in hot.warnings)


def test_linearity_traps():
    """A straight line hides the quadratic part: both are reported. A dark level of other settings is not a point at P = 0."""
    P = np.geomspace(0.2, 5, 12)
    S = 1 + 10 * P + 0.3 * P**2
    found = make("linearity", relative_noise=0.02).run([table(P, S)])
    assert found["quadratic"].value == pytest.approx(0.3, rel=1e-4)
    assert found["linear_shot_per_power"].value > 10.3
    with pytest.raises(InputError, match="dark level"):
        make("linearity", relative_noise=0.02).run([table(np.append(0.0, P), np.append(9.0, S))])


def test_ringdown_layouts():
    """Power, amplitude and quadratures of one decay give one linewidth."""
    t = np.linspace(0, 3.0, 600)
    decay = 2.0 * np.exp(-TWO_PI * 0.3 * t)
    z = np.sqrt(decay) * np.exp(1j * (TWO_PI * 1.7 * t + 0.4))
    rng = np.random.default_rng(7)
    cases = {"power": (decay,), "amplitude": (np.sqrt(decay),), "quadratures": (z.real, z.imag)}
    for layout, columns in cases.items():
        noisy = [c + 0.01 * rng.standard_normal(t.size) for c in columns]
        found = make("ringdown", layout=layout, noise=0.01, reference_hz=1e3, axis_unit="s").run([table(t, *noisy)])
        assert abs(found["mechanical_linewidth_hz"].value - 0.3) < 4 * found["mechanical_linewidth_hz"].sd, layout
    assert found["mechanical_hz"].value == pytest.approx(1001.7, abs=0.01)
    with pytest.raises(ModelError, match="does not decay"):
        make("ringdown", noise=0.01, axis_unit="s").run([table(t, 1 + 0.01 * rng.standard_normal(t.size))])


def test_oscillator_overdamped_and_structural():
    rng = np.random.default_rng(3)
    f = np.geomspace(20, 2e4, 400)
    corner, variance = 900.0, 2e-3
    S = variance * corner / np.pi / (f**2 + corner**2)
    t = table(
        f, S * rng.gamma(60, 1 / 60, f.size), unit="V^2/Hz", sided="two", averages=60, window="hann", reference="V"
    )
    found = make(
        "thermal_oscillator", regime="overdamped", temperature_k=295.0, displacement_m_per_unit=1e-6, axis_unit="Hz"
    ).run([t])
    assert abs(found["corner_hz"].value - corner) < 4 * found["corner_hz"].sd
    k = 1.380649e-23 * 295 / (variance * 1e-12)
    assert found["spring_constant_n_per_m"].value == pytest.approx(k, rel=0.05)
    assert found["drag_kg_per_s"].value == pytest.approx(k / (TWO_PI * corner), rel=0.05)
    f = np.arange(500.0, 1500.0, 2.0)
    S = 1e-9 + thermal_density(f, 876.0, 20.0, 1e-3, structural=True)
    t = table(
        f, S * rng.gamma(100, 1 / 100, f.size), unit="V^2/Hz", sided="two", averages=100, window="hann", reference="V"
    )
    found = make("thermal_oscillator", damping="structural", axis_unit="Hz").run([t])
    assert abs(found["linewidth_1_hz"].value - 20.0) < 4 * found["linewidth_1_hz"].sd
    viscous = make("thermal_oscillator", axis_unit="Hz").run([t])
    assert viscous.deviance > found.deviance + 20


def test_efficiency_and_power():
    found = make("visibility", maximum=1.1, minimum=0.9, power_1=2e-3, power_2=9e-6).run([])
    assert found["overlap"].value == pytest.approx(0.1 / 0.1335630449, rel=1e-6)
    assert found["efficiency"].value == pytest.approx(found["overlap"].value ** 2, rel=1e-12)
    got = make(
        "power_budget", power_w=1e-6, wavelength_m=852e-9, cavity_linewidth_hz=4.2e6, overcoupling=0.93, detuning_hz=-0.7e6,
        geometry="end_mirror", length_m=2e-3, mass_kg=14e-12, mechanical_hz=1.37e6,
    ).run([])  # fmt: skip
    from backaction.elements import OptomechanicalCavity

    cavity = OptomechanicalCavity(
        name="m", mechanical_hz=1.37e6, mechanical_linewidth_hz=1.0, bath_occupation=0.0, cavity_linewidth_hz=4.2e6, overcoupling=0.93,
        detuning_hz=-0.7e6, single_photon_coupling_hz=got["single_photon_coupling_hz"].value, power_w=1e-6, wavelength_m=852e-9,
    )  # fmt: skip
    assert got["photons"].value == pytest.approx(float(cavity.intracavity_photons()), rel=1e-12)
    assert got["coupling_hz"].value == pytest.approx(float(cavity.coupling()) / TWO_PI, rel=1e-12)
