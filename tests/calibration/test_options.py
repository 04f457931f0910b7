"""Settings of the calibrations beyond the golden files: what each does to a simulation whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal

from backaction import Experiment
from backaction.calibration.cavity import dither_error, turning_point
from backaction.calibration.sets import run_one, run_set
from backaction.calibration.spectra import Spectra
from backaction.errors import InputError, ModelError
from backaction.records.tables import Table
from backaction.systems.response import budget
from support.calibrations import (
    TWO_PI,
    exact_width,
    make,
    simulate_cooling,
    simulate_mors,
    simulate_squeezing,
    simulate_white_noise,
    spring,
    squeezing_method,
    table,
    thermal_density,
)

KB = 1.380649e-23


def near(found, name, value, sigma=4.0):
    q = found[name]
    assert abs(q.value - value) < sigma * q.sd, (name, q)


def test_dither_curve_and_lock_point():
    """A dither of 0.1 kappa and depth 0.1 kappa: kappa and the lock point are right when they are said, 5 % off when not."""
    rng = np.random.default_rng(1)
    x = np.linspace(-4, 4, 161)
    top, most = turning_point(0.1, 0.1)
    y = dither_error((x - 0.05) / 4.2, 0.1, 0.1) / most + 0.01 * rng.standard_normal(x.size)
    t = table(1e6 * x, y)
    settings = dict(noise=0.01, axis_unit="Hz", lock_ratio=0.8, lock_ratio_sd=0.01)
    found = make("dither", dither_hz=0.42e6, depth_hz=0.42e6, **settings).run([t])
    near(found, "cavity_linewidth_hz", 4.2e6)
    near(found, "zero_hz", 0.05e6)
    near(found, "turning_point_hz", 4.2e6 * top)
    grid = np.linspace(0, top, 20001)
    lock = grid[np.argmin(np.abs(np.abs(dither_error(grid, 0.1, 0.1)) / most - 0.8))]
    near(found, "detuning_hz", -4.2e6 * lock)
    assert found.priors["membrane.detuning_hz"] == "detuning_hz"
    assert found["detuning_hz"].sd > 0.01 * 4.2e6 * 0.2
    plain = make("dither", **settings).run([t])
    assert plain["cavity_linewidth_hz"].value > 4.3e6
    blue = make("dither", dither_hz=0.42e6, depth_hz=0.42e6, sign="blue", **settings).run([t])
    assert blue["detuning_hz"].value == pytest.approx(-found["detuning_hz"].value)


def _spectrum_files(folder, powers, levels, rng, window="Hanning", line=None):
    (folder / "meta_data").mkdir(exist_ok=True)
    for P, level in zip(powers, levels):
        f = np.arange(0, 102400.0, 128.0)
        power = level * 128 * 1.5 * rng.gamma(5000, 1 / 5000, f.size)  # Vrms^2 per bin, one-sided
        if line is not None:
            power[line] *= 30
        name = f"{P:g}_{P:g}" if P else "darknoise"
        np.savetxt(folder / f"{name}.dat", np.column_stack([f, np.sqrt(power)]))
        meta = f"#Unit: Vrms\n#Number of Averages: 5000\n#Window function: {window if P else 'BMH'}\n#Input Coupling: AC\n## Frequency(Hz) Vrms"
        (folder / "meta_data" / f"{name}meta.dat").write_text(meta)


def test_linearity_of_spectrum_files(tmp_path):
    """One SR785 file per power: power from the name, lines left out, ENBW taken out, a dark file of another window not used."""
    rng = np.random.default_rng(2)
    P = np.array([200.0, 400, 600, 800, 1000, 1200])
    levels = 3e-16 + 1e-17 * P + 2e-22 * P**2
    _spectrum_files(tmp_path, P, levels, rng, line=250)
    _spectrum_files(tmp_path, [0.0], [3e-16], rng)
    files = sorted(tmp_path.glob("*.dat"))
    given = {"sided": "one", "reference": "V"}
    method = make(
        "linearity", band_hz=[20e3, 60e3], mask_hz=[40e3, 41e3], power_unit="mV", at_power=1000.0, axis_unit="Hz"
    )
    found = run_one(method, files, given)
    near(found, "shot_per_power", 0.5e-17)  # two-sided
    near(found, "electronic", 1.5e-16)
    near(found, "classical_share", 0.02)
    assert found.priors == {"detector.electronic_noise_sn": "electronic_share"}
    assert found["linear_shot_per_power"].sd > 0
    assert any("other settings (window" in n for n in found.notes)
    used = run_one(make("linearity", band_hz=[20e3, 60e3], dark="use", axis_unit="Hz"), files, given)
    assert used["electronic"].sd < 0.5 * found["electronic"].sd
    scattered = levels * (1 + 0.01 * rng.standard_normal(6))
    _spectrum_files(tmp_path, P, scattered, rng)
    lit = [f for f in files if "dark" not in f.name]
    loud = run_one(make("linearity", band_hz=[20e3, 60e3], axis_unit="Hz"), lit, given)
    assert any("scatter" in w for w in loud.warnings)
    wide = run_one(make("linearity", band_hz=[20e3, 60e3], rescale=True, axis_unit="Hz"), lit, given)
    assert wide["shot_per_power"].sd > 3 * loud["shot_per_power"].sd
    assert wide.p is None
    with pytest.raises(InputError, match="band_hz"):
        run_one(make("linearity"), lit, given)
    with pytest.raises(InputError, match="2 powers for 6 files"):
        run_one(make("linearity", band_hz=[20e3, 60e3], powers=[1, 2]), lit, given)


def test_mors_of_power_and_from_the_larmor_frequency():
    """|s|^2 with its noise floor, errors 1.4 times larger; the splitting from Breit-Rabi at 1.37 MHz."""
    t, sd = simulate_mors(np.random.default_rng(3), qz=409.66, f0=1.37e6 - 1.37e6)
    both = {
        k: make("mors", layout=k, larmor_hz=1.37e6, noise=sd, axis_unit="Hz").run([t]) for k in ("complex", "power")
    }
    for found in both.values():
        near(found, "polarisation", 0.82)
        near(found, "occupation", 0.7850609756)
        assert any("3.91583 G" in n for n in found.notes)
    assert 1.1 < both["power"]["polarisation"].sd / both["complex"]["polarisation"].sd < 2.0
    F3 = np.array([0, 0.02, 0.05, 0.1, 0.15, 0.25, 0.43])
    f = np.linspace(-4e3, 4e3, 401)
    s = sum(
        (12 - m * (m + 1)) * (F3[k + 1] - F3[k]) / (225 - 1j * (f + (m + 0.5) * 400.0))
        for k, m in enumerate(range(-3, 3))
    )
    rb = make("mors", species="rb85", splitting_hz=400, noise=1e-6, axis_unit="Hz").run([table(f, s.real, s.imag)])
    assert rb["polarisation"].value == pytest.approx(np.sum(np.arange(-3, 4) * F3) / 3, rel=1e-5)


def test_white_noise_options():
    t = simulate_white_noise(np.random.default_rng(4), angle=0.1, floor=0.3)
    base = dict(excess_sn=1.22, efficiency=0.7, rotating_wave=True, axis_unit="Hz")
    found = make("white_noise", free_angle=True, free_floor=True, excess_sd_sn=0.06, **base).run([t])
    near(found, "cooperativity", 1.1)
    near(found, "floor_sn", 0.3)
    assert abs(abs(found["angle_deg"].value) - np.degrees(0.1)) < 4 * found["angle_deg"].sd
    sharp = make("white_noise", free_angle=True, free_floor=True, **base).run([t])
    # dC = C (1 + C) dn/n
    extra = np.sqrt(found["cooperativity"].sd ** 2 - sharp["cooperativity"].sd ** 2)
    assert extra == pytest.approx(1.1 * 2.1 * 0.06 / 1.22, rel=0.15)


def test_squeezing_with_nuisances_and_one_spectrum():
    t = simulate_squeezing(np.random.default_rng(5))
    plain = squeezing_method().run([t])
    loose = squeezing_method(cavity_linewidth_sd_hz=84e3, detuning_sd_hz=70e3, overcoupling_sd=0.01).run([t])
    near(loose, "bath_temperature_k", 11.4)
    assert loose["bath_temperature_k"].sd > 1.4 * plain["bath_temperature_k"].sd
    assert loose["overcoupling"].sd == pytest.approx(0.01, rel=0.02)  # a prior that the data cannot narrow
    one = Table(t.name, t.names[:2], t.values[:, :2], t.attributes)
    single = squeezing_method(deltas=(-700.0,)).run([one])
    near(single, "paper_coupling_1_hz", 30e3)
    assert single.priors["membrane.coupling_hz"] == "coupling_hz"
    assert single["bath_temperature_k"].sd > plain["bath_temperature_k"].sd


def _thermal_table(f, S, rng, averages=100):
    return table(
        f,
        S * rng.gamma(averages, 1 / averages, f.size),
        unit="V^2/Hz",
        sided="two",
        averages=averages,
        window="hann",
        reference="V",
    )


def test_oscillator_options():
    """Band, masks, single bins that stand out, a sloped floor, temperature from mass and scale with their errors."""
    rng = np.random.default_rng(6)
    m, T, mode, gamma, scale = 1e-15, 310.0, 80e3, 600.0, 3e-7
    variance = KB * T / m / (TWO_PI * mode) ** 2 / scale**2
    f = np.arange(40e3, 120e3, 25.0)
    floor = 2e-3 * variance / gamma
    S = floor * (f / f[0]) ** 1.5 + thermal_density(f, mode, gamma, variance)
    t = _thermal_table(f, S, rng)
    t.values[np.searchsorted(f, 70e3), 1] *= 5
    t.values[np.abs(f - 90e3) < 200, 1] *= 3
    settings = dict(band_hz=[50e3, 110e3], mask_hz=[89.7e3, 90.3e3], skip_lines=True, floor_slope=True, axis_unit="Hz")
    known = dict(mass_kg=m, mass_sd_kg=0.05 * m, displacement_m_per_unit=scale, displacement_sd_m_per_unit=0.03 * scale)
    found = make("thermal_oscillator", **settings, **known).run([t])
    near(found, "temperature_k", T)
    assert found["temperature_k"].sd / T == pytest.approx(np.hypot(0.05, 0.06), rel=0.15)
    near(found, "spring_constant_n_per_m", m * (TWO_PI * mode) ** 2)
    near(found, "floor_exponent", 1.5)
    assert found.p > 1e-4
    blind = make("thermal_oscillator", band_hz=[50e3, 110e3], axis_unit="Hz").run([t])
    assert any("scatter" in w for w in blind.warnings)
    within = f[:, None] + 25.0 * (np.arange(2000) + 0.5) / 2000 - 12.5
    sharp = _thermal_table(f, floor + np.mean(thermal_density(within, mode, 8.0, variance), axis=1), rng)
    found = make("thermal_oscillator", axis_unit="Hz").run([sharp])
    assert any("not resolved" in w for w in found.warnings)
    near(found, "variance_1", variance, 5)
    with pytest.raises(ModelError, match="no line|no start|do not depend"):
        make("thermal_oscillator", frequencies_hz=[100e3], axis_unit="Hz").run(
            [_thermal_table(f, floor * np.ones(f.size), rng)]
        )
    drag = 1e-8
    g = np.geomspace(20, 2e4, 300)
    corner = 700.0
    over = _thermal_table(g, 1e-3 * corner / np.pi / (g**2 + corner**2), rng)
    got = make("thermal_oscillator", regime="overdamped", drag_kg_per_s=drag, temperature_k=295.0, axis_unit="Hz").run(
        [over]
    )
    k = TWO_PI * corner * drag
    near(got, "spring_constant_n_per_m", k)
    near(got, "displacement_m_per_unit", np.sqrt(KB * 295 / k / 1e-3))


def test_cooling_options():
    """Widths only, the counter-rotating factor with and without areas alike, an uncertain bath."""
    rng = np.random.default_rng(7)
    t = simulate_cooling(rng)
    widths = Table(t.name, t.names[:2], t.values[:, :2])
    base = dict(cavity_linewidth_hz=1.38e6, relative_noise=0.03)
    near(make("cooling_sweep", **base).run([widths]), "coupling_per_root_power_hz", 60e3)
    areas = dict(occupation=41.0, output_share=1130 / 1380)
    for more in ({}, areas):
        ratio = [
            make("cooling_sweep", **base, **more, **k).run([t])["coupling_per_root_power_hz"].value
            for k in ({"mechanical_hz": 3e5}, {})
        ]
        assert ratio[0] / ratio[1] == pytest.approx(1 / np.sqrt(1 - 1 / (1 + (1.2e6 / 1.38e6) ** 2)), rel=1e-6)
    sure, unsure = (make("cooling_sweep", **base, **areas, occupation_sd=s).run([t]) for s in (0.0, 4.1))
    assert np.sqrt(unsure["gain"].sd ** 2 - sure["gain"].sd ** 2) == pytest.approx(0.1 * sure["gain"].value, rel=0.1)
    with pytest.raises(InputError, match="stated"):
        make("cooling_sweep", cavity_linewidth_hz=1.38e6, noise_from="residuals", area_noise=0.03, **areas).run([t])
    negative = Table(t.name, t.names, t.values * np.array([1, 1, -1.0]))
    with pytest.raises(InputError, match="dip"):
        make("cooling_sweep", **base, **areas).run([negative])
    assert np.allclose(exact_width(60e3, 1.38e6, 106.0), 106 + 4 * 60e3**2 / 1.38e6, rtol=0.01)


def test_spring_against_power_and_operating_point():
    rng = np.random.default_rng(8)
    P = np.linspace(1e-6, 2e-5, 8)
    g1 = 24e3 / np.sqrt(1e-6)
    damping, shift = np.array(
        [spring(np.array([-700.0]), g0=g1 * np.sqrt(p) / 1e3 * np.sqrt(1 + (1400 / 4200) ** 2))[:, 0] for p in P]
    ).T
    t = table(P, damping * (1 + 0.02 * rng.standard_normal(8)), shift + 0.02 * rng.standard_normal(8))
    base = dict(mechanical_hz=1.37e6, damping_noise=0.02, shift_noise_hz=20)
    found = make(
        "optical_spring", against="power", detuning_hz=-7e5, cavity_linewidth_hz=4.2e6, axis_unit="W", **base
    ).run([t])
    near(found, "coupling_per_root_watt_hz", g1)
    with pytest.raises(InputError, match="detuning_hz and cavity_linewidth_hz"):
        make("optical_spring", against="power", axis_unit="W", **base).run([t])
    d = np.array([-4000.0, -3000, -2200, -1600, -1100, -700, -400, -150])
    a, b = spring(d)
    t = table(1e3 * d, a * (1 + 0.02 * rng.standard_normal(8)), b + 0.03 * rng.standard_normal(8))
    found = make("optical_spring", operating_detuning_hz=-7e5, axis_unit="Hz", **base).run([t])
    near(found, "operating_coupling_hz", 107e3 / np.sqrt(1 + (1400 / 4200) ** 2))
    assert found.priors["membrane.coupling_hz"] == "operating_coupling_hz"


def test_spectra_options(tmp_path):
    """Scatter in dB, an offset and own errors of the angles, lines skipped, prediction of what is left out, inside a set."""
    truth = Experiment.load("thomas2021").with_values({"detector.efficiency": 0.8})
    f = np.arange(1.33e6, 1.41e6, 1000.0)
    rng = np.random.default_rng(9)
    angles = np.array([0.0, 30.0, 60.0, 90.0])
    off = np.array([2.0, 2.4, 1.8, 2.1])
    S = [budget(truth.with_values({"detector.angle_deg": a + o}).system, f).total for a, o in zip(angles, off)]
    dB = 10 * np.log10(S) + 0.05 * rng.standard_normal((4, f.size))
    dB[1, 10] += 3
    path = tmp_path / "angles.csv"
    np.savetxt(
        path, np.column_stack([f, dB.T]), delimiter=",", header="f_Hz," + ",".join(map(str, angles)), comments=""
    )
    (tmp_path / "own.toml").write_text(Experiment.load("thomas2021").to_toml())
    (tmp_path / "set.toml").write_text(
        'experiment = "thomas2021"\n[[calibration]]\nmethod = "spectra"\nfiles = ["angles.csv"]\ngiven = { unit = "dB" }\n'
        "experiment_ = 1\n".replace("experiment_ = 1\n", "")
        + 'noise_db = 0.05\noffset_sd = 3\nvalue_sd = 0.3\nskip_lines = true\nleave_out = true\ndraws = 0\nexperiment = "own.toml"\n'
    )
    found = run_set(tmp_path / "set.toml").results[0]
    near(found, "detector.efficiency", 0.8)
    near(found, "offset", 2.0, 5)
    assert any(n.startswith("each spectrum predicted") for n in found.notes)
    assert "error_4" in found.quantities
    rough = run_one(Spectra(name="s", experiment="thomas2021", noise_db=0.05, draws=300), [path], {"unit": "dB"})
    assert rough.p < 1e-6  # the angles' offset and the line are not in the model
    with pytest.raises(InputError, match="4 spectra, 2 values"):
        run_one(Spectra(name="s", experiment="thomas2021", values=(1.0, 2.0), noise_db=0.1), [path], {"unit": "dB"})
    with pytest.raises(InputError, match="missing 'experiment'"):
        Spectra.from_table("s", {}, "--set")


def test_uses_without_a_place_for_the_error_is_said(tmp_path):
    text = """
[[calibration]]
method = "visibility"
maximum = 1.0
minimum = 0.1
signal_noise = 0.02
power_1 = 1.0
power_2 = 1.0
[[calibration]]
method = "power_budget"
wavelength_m = 852e-9
power_w = 1e-6
cavity_linewidth_hz = 4.2e6
geometry = "membrane"
length_m = 2e-3
mass_kg = 14e-12
mechanical_hz = 1.37e6
uses = { reflectivity = "visibility.efficiency", overcoupling = "visibility.overlap" }
"""
    (tmp_path / "set.toml").write_text(text)
    found = run_set(tmp_path / "set.toml")
    assert any("reflectivity is taken from 'visibility.efficiency' without its error" in w for w in found.warnings)
    assert found.results[1]["photons"].sd > 0.01 * found.results[1]["photons"].value


def test_cooperativity_does_not_ask_for_the_efficiency():
    """C = 0.96 with n_S = 0.1 at efficiency 0.5, fitted with efficiency 1: the same C; n_S < 0 is said and gives no priors."""
    rng = np.random.default_rng(11)
    f = np.linspace(1255e3, 1305e3, 401)
    width, C, eta, n = 5.2e3, 0.9615, 0.5, 1.22
    rate = C * width * 1.2
    R2 = (rate / width) ** 2 * 4 * (width / 2) ** 2 / ((f - 1280e3) ** 2 + (width / 2) ** 2)
    S = [1 + eta * R2 * (1 + 1 / C + k) for k in (0.0, n)]
    t = table(f, *(s * rng.gamma(2000, 1 / 2000, f.size) for s in S), unit="SN", averages=2000)
    both = [
        make("white_noise", excess_sn=n, efficiency=e, rotating_wave=True, axis_unit="Hz").run([t]) for e in (0.5, 0.99)
    ]
    for found in both:
        near(found, "cooperativity", C)
    assert both[0]["cooperativity"].value == pytest.approx(both[1]["cooperativity"].value, rel=1e-3)
    near(both[0], "occupation", 0.1)
    assert both[0].priors
    assert not both[1].priors
    assert any("n_S" in w and "no priors" in w for w in both[1].warnings)
    high = table(f, S[0], 1 + 3.2 * (S[0] - 1), unit="SN", averages=2000)
    with pytest.raises(InputError, match="B cannot reach"):
        make("white_noise", excess_sn=n, axis_unit="Hz").run([high])
    sure, unsure = (
        make("white_noise", excess_sn=n, efficiency=0.5, efficiency_sd=s, rotating_wave=True, axis_unit="Hz").run([t])
        for s in (0.0, 0.05)
    )
    grown = np.sqrt(unsure["readout_rate_hz"].sd ** 2 - sure["readout_rate_hz"].sd ** 2)
    assert grown == pytest.approx(0.5 * 0.1 * rate, rel=0.1)  # Gamma ~ 1/sqrt(eta)


def test_blue_probe_and_no_line():
    """OMIA: a blue tone answers at probe frequencies below it; a bare cavity is refused instead of giving numbers."""
    from support.calibrations import complex_noise, transparency

    rng = np.random.default_rng(12)
    x = -10000.0 + np.linspace(-1.2, 1.2, 241)
    r = transparency(x, g=4.0, delta=10000.0) + complex_noise(rng, x.size, 0.01)
    t = table(1e3 * x, r.real, r.imag)
    found = make("transparency", cavity_linewidth_hz=1.38e6, noise=0.01, axis_unit="Hz").run([t])
    near(found, "coupling_hz", 4e3)
    near(found, "mechanical_hz", 1e7)
    near(found, "mechanical_linewidth_hz", 106.0)
    y = 10000.0 + np.linspace(-1.2, 1.2, 241)
    flat = transparency(y, g=0.0) + complex_noise(rng, y.size, 0.01)
    with pytest.raises(ModelError, match="no mechanical line|no start|open|do not depend"):
        make("transparency", cavity_linewidth_hz=1.38e6, noise=0.01, axis_unit="Hz").run(
            [table(1e3 * y, flat.real, flat.imag)]
        )


def test_impossible_numbers_give_no_priors(tmp_path):
    """An efficiency above 1, a field in another unit or out of its bounds; a parent whose model fails is not used."""
    from backaction.calibration.method import Quantity, Result
    from backaction.calibration.sets import combine

    t = simulate_squeezing(np.random.default_rng(13), eta=0.98)
    found = squeezing_method(overcoupling=0.8).run([t])
    assert found["efficiency"].value > 1
    assert "detector.efficiency" not in found.priors
    assert any("no prior" in w for w in found.warnings)
    wrong = Result("x", "a", {"k": Quantity(4.2e6, 1e4, "Hz")}, np.array([[1e8]]), {"membrane.overcoupling": "k"})
    out = combine("set", [wrong], Experiment.load("thomas2021"))
    assert not out.priors
    assert any("cannot be" in w for w in out.warnings)
    W = np.linspace(0.3e6, 12e6, 80)
    y = W / np.abs(4.9e12 - W**2 - 4.2e6j * W) / np.hypot(1, W / 20e6)
    np.savetxt(
        tmp_path / "beat.csv",
        np.column_stack([W, y * (1 + 1e-3 * np.random.default_rng(1).standard_normal(80))]),
        delimiter=",",
        header="W_Hz,B",
        comments="",
    )
    np.savetxt(tmp_path / "s.csv", t.values, delimiter=",", header="f_Hz,S1,S2", comments="")
    text = """
[[calibration]]
name = "beat"
method = "sideband_beat"
files = ["beat.csv"]
relative_noise = 0.001
[[calibration]]
method = "squeezing"
files = ["s.csv"]
given = { unit = "SN", averages = 600 }
detunings_hz = [-7e5, -1.5e6]
overcoupling = 0.93
mechanical_q = 6.5e8
uses = { cavity_linewidth_hz = "beat.QUANTITY" }
"""
    for quantity, words in (
        ("cavity_linewidth_hz", "does not describe its data"),
        ("amplitude", "is in 1|does not describe"),
    ):
        (tmp_path / "set.toml").write_text(text.replace("QUANTITY", quantity))
        with pytest.raises(InputError, match=words):
            run_set(tmp_path / "set.toml")
    (tmp_path / "set.toml").write_text(
        text.replace("QUANTITY", "detuning_squared_hz2").replace("relative_noise = 0.001", "relative_noise = 0.1")
    )
    with pytest.raises(InputError, match=r"is in Hz\^2"):
        run_set(tmp_path / "set.toml")


def test_what_is_fitted_again_is_counted_once(tmp_path):
    """Kappa of the beat, fitted again with the squeezing: its prior comes from there, correlated with the coupling."""
    from support.calibrations import simulate_beat

    rng = np.random.default_rng(14)
    for name, t in (("beat", simulate_beat(rng)), ("s", simulate_squeezing(rng))):
        head = ",".join(["f_Hz", *(f"S{k}" for k in range(1, t.values.shape[1]))])
        np.savetxt(tmp_path / f"{name}.csv", t.values, delimiter=",", header=head, comments="")
    (tmp_path / "set.toml").write_text("""
experiment = "thomas2021"
[[calibration]]
name = "beat"
method = "sideband_beat"
files = ["beat.csv"]
relative_noise = 0.01
[[calibration]]
name = "squeezing"
method = "squeezing"
files = ["s.csv"]
given = { unit = "SN", averages = 600 }
detunings_hz = [-7e5, -1.5e6]
overcoupling = 0.93
mechanical_q = 6.5e8
uses = { cavity_linewidth_hz = "beat.cavity_linewidth_hz" }
priors = { "membrane.coupling_hz" = "coupling_1_hz" }
""")
    found = run_set(tmp_path / "set.toml")
    names = list(found.priors)
    i, j = (names.index(f"membrane.{k}") for k in ("cavity_linewidth_hz", "coupling_hz"))
    s = found.results[1]
    assert found.priors["membrane.cavity_linewidth_hz"].sd == pytest.approx(s["cavity_linewidth_hz"].sd)
    rho = found.covariance[i, j] / np.sqrt(found.covariance[i, i] * found.covariance[j, j])
    assert rho == pytest.approx(s.correlation("cavity_linewidth_hz", "coupling_1_hz"), abs=1e-6)
    assert abs(rho) > 0.05
    assert "membrane.cavity_linewidth_hz" not in found.results[0].priors
    source = found.document()["provenance"]["sources"]["beat"]
    assert len(source["files"]["beat.csv"]) == 64
    assert source["settings"]["relative_noise"] == 0.01


def test_a_thermal_line_in_windowed_bins():
    """Langevin noise through SciPy's `welch` (Hann, half overlap, a line of 2.5 bins): width and area of the line itself.

    With another window stated the bins contradict it, and the warning names what is stated and what is seen.
    """
    fs, L, segments = 1e6, 4096, 199
    n = L // 2 * (segments + 1)
    f = np.fft.rfftfreq(2 * n, 1 / fs)
    S = 1e-12 + thermal_density(np.maximum(f, 1.0), 2e5, 600.0, 1e-6)
    x = np.fft.irfft(np.fft.rfft(np.random.default_rng(3).standard_normal(2 * n)) * np.sqrt(fs * S))[:n]
    f, p = signal.welch(x, fs, "hann", L, L // 2, detrend=False, return_onesided=False)
    near_line = (f > 1.9e5) & (f < 2.1e5)
    t = table(f[near_line], p[near_line], unit="V^2/Hz", sided="two", reference="V", averages=segments)
    method = make("thermal_oscillator", axis_unit="Hz")
    found = method.run([t], {"window": "hann", "overlap": 0.5})
    for name, value in {"frequency_1_hz": 2e5, "linewidth_1_hz": 600.0, "variance_1": 1e-6, "floor": 1e-12}.items():
        near(found, name, value)
    assert found["linewidth_1_hz"].sd < 35
    assert found.p > 1e-3
    assert found.warnings == ()
    wrong = method.run([t], {"window": "rectangular"})
    assert any("199 averages are stated" in w and "not stated?" in w for w in wrong.warnings)
