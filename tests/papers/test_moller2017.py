"""Moller 2017: the package against the notes' frozen spectra, a second route, closed forms, and the notes' table of mistakes."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import integrate

from backaction import Experiment, Homodyne, SpinOscillator, budget
from backaction.errors import InputError, ModelError
from backaction.papers.moller2017.context import Moller
from backaction.papers.moller2017.models import (
    back_action_ratio,
    detuned_ratio,
    hybrid_S33,
    hybrid_S34,
    rotation,
    spin_output,
)
from backaction.systems.band import power
from backaction.systems.response import transfer
from support import oracle_moller as oracle
from support import reference
from support.commands import call
from support.networks import experiments

COLUMNS = {"fig3": ("moller2017", oracle.FIG3, "fig23"), "fig4": ("moller2017_detuned", oracle.FIG4, "fig4")}


@pytest.fixture(scope="module")
def moller_numbers():
    return reference.numbers("moller2017")


@pytest.fixture(scope="module")
def context():
    return Moller()


def golden(key: str, sign: int, **more) -> Experiment:
    """The shipped experiment with the notes' scenario: the spin relative to the real part of the pole, not to its modulus."""
    name, setup, _ = COLUMNS[key]
    values = {"spin.larmor_hz": (sign or -1) * (oracle.resonance(setup) + setup.offset)} | more
    if sign == 0:
        values["spin.readout_rate_hz"] = 0.0
    return Experiment.load(name).with_values(values)


SETTINGS = {
    "varphi sign flipped": lambda s: {"phase.angle_deg": -s.varphi},
    "Gamma_S halved (S28 taken literally)": lambda s: {"spin.readout_rate_hz": s.rate / 2},
    "gamma_S read as FWHM (gs/2)": lambda s: {"spin.intrinsic_linewidth_hz": s.gs},
    "eta1=0.61": lambda s: {"link.transmission": 0.61},
    "eta1=0.53, eta_mm=1": lambda s: {"membrane.mode_matching": 1.0},
    "n_S=0.9": lambda s: {"spin.occupation": 0.9},
    "matched Gs=Gm*L0^2": lambda s: {
        "spin.readout_rate_hz": oracle.matched(s), "spin.occupation": (s.n_s + 0.5) * oracle.matched(s) / s.rate - 0.5,
    },
}  # fmt: skip
"""Mistakes that are wrong values: the package, given them, must fall into the same error."""


def ours(key: str, half: float = 100e3, **more) -> dict[str, float]:
    f = oracle.resonance(COLUMNS[key][1])
    alone, neg, pos = (power(golden(key, s, **more).system, (f - half, f + half)) for s in (0, -1, 1))
    return {
        "mech_qba_over_th": alone.back_action / alone.thermal,
        "neg_qba": neg.back_action / alone.back_action,
        "neg_thS": neg.sources["spin.bath"] / alone.back_action,
        "neg_thM": neg.sources["membrane.bath"] / alone.thermal,
        "neg_total": (neg.total - neg.shot) / (alone.total - alone.shot),
        "pos_qba": pos.back_action / alone.back_action,
        "pos_total": (pos.total - pos.shot) / (alone.total - alone.shot),
    }


@pytest.mark.parametrize("key", COLUMNS)
def test_golden_spectra(key, moller_numbers):
    signs = {"mech": 0, "neg": -1, "pos": 1}
    centre = moller_numbers[f"tableI_{COLUMNS[key][2]}"]["Omega_M_eff_pole/2pi_Hz"]
    assert oracle.resonance(COLUMNS[key][1]) == pytest.approx(centre, rel=1e-13)
    for label, parts in moller_numbers[f"golden_spectra_{key}"].items():
        which, offset = label.split("@We")
        b = budget(golden(key, signs[which]).system, [centre + float(offset.removesuffix("kHz")) * 1e3])
        found = {"total": b.total[0], "thM": b.sources["membrane.bath"][0], "thS": b.sources["spin.bath"][0]}
        found["light"] = sum(v[0] for k, v in b.sources.items() if not k.endswith("bath"))
        found["qba"] = found["light"] - 1
        for part, value in parts.items():
            assert found[part] == pytest.approx(value, rel=1e-9, abs=1e-30), (label, part)


@pytest.mark.parametrize("half", [15, 25, 50, 100])
@pytest.mark.parametrize("key", COLUMNS)
def test_golden_areas(key, half, moller_numbers):
    reference = moller_numbers[f"golden_{key}_band{half}kHz"]
    for name, value in ours(key, 1e3 * half).items():
        assert value == pytest.approx(reference[name], rel=1e-7), name


@pytest.mark.parametrize("sign", [-1, 0, 1])
@pytest.mark.parametrize("key", COLUMNS)
def test_frequency_domain_and_state_space_agree(key, sign):
    """The paper's equations solved in the frequency domain against the state space: 1e-11."""
    setup = replace(COLUMNS[key][1], sign=sign)
    f = oracle.resonance(setup) + np.concatenate([np.linspace(-20e3, 20e3, 201), np.linspace(-1e6, 4e6, 101)])
    b = budget(golden(key, sign).system, f)
    parts = oracle.parts(setup, f)
    assert_allclose(b.total, sum(parts.values()), rtol=1e-11)
    assert_allclose(b.sources["membrane.bath"], parts["thM"], rtol=1e-11)
    assert_allclose(b.sources["spin.bath"], parts["thS"], rtol=1e-11, atol=1e-30)


MISTAKES = [
    "varphi sign flipped", "|Os| referred to bare Omega_M", "Gamma_S halved (S28 taken literally)",
    "gamma_S read as FWHM (gs/2)", "kappa read as FWHM (kappa/2)", "psi from physical kappas", "eta1=0.61",
    "eta1=0.53, eta_mm=1", "n_S=0.9", "M with O_phi^T..O_phi (phi sign as printed in H)", "no homodyne-frame rotation",
    "homodyne frame 2*phi (psi=phi)", "matched Gs=Gm*L0^2",
]  # fmt: skip


@pytest.mark.parametrize("key", COLUMNS)
@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_not_made(mistake, key, moller_numbers):
    """The oracle makes the notes' mistake and gets the notes' values; the package is elsewhere (matched: blind to varphi)."""
    table = moller_numbers[f"mutation_{key}"]
    wrong = oracle.ratios(oracle.mutated(COLUMNS[key][1], mistake))
    reference = next(v for k, v in table.items() if k.startswith(mistake))
    assert wrong == pytest.approx(reference, abs=2e-5)
    found = ours(key)
    mine = [found[k] for k in ("neg_qba", "neg_thS", "neg_total", "pos_qba")]
    assert mine == pytest.approx(oracle.ratios(COLUMNS[key][1]), rel=1e-9)
    apart = max(abs(a - b) for a, b in zip(mine, wrong, strict=True))
    if mistake in SETTINGS:
        bad = ours(key, **SETTINGS[mistake](COLUMNS[key][1]))
        assert [bad[k] for k in ("neg_qba", "neg_thS", "neg_total", "pos_qba")] == pytest.approx(wrong, rel=1e-8)
    if mistake == "varphi sign flipped" and key == "fig3":
        assert apart < 1e-9  # the matched scenario cannot see it
    else:
        assert apart > 1e-3


@pytest.mark.parametrize("all_light", [False, True])
@pytest.mark.parametrize("key", COLUMNS)
def test_squeezing_in_direct_detection(key, all_light, moller_numbers):
    reference = moller_numbers[f"squeezing_{COLUMNS[key][2]}"]
    model = "bucket_two_mode" if all_light else "paper_model"
    f = oracle.resonance(COLUMNS[key][1]) + np.linspace(-20e3, 20e3, 400001)
    for eta in (0.72, 1.0):
        e = golden(key, 0, **{
            "detector.efficiency": eta, "detector.reference": "amplitude", "membrane.detect_unmatched": all_light,
        })  # fmt: skip
        total = budget(e.system, f).total
        assert 10 * np.log10(total.min()) == pytest.approx(reference[f"{model}_eta{eta}_dB"], abs=1e-7)
        offset = f[total.argmin()] - oracle.resonance(COLUMNS[key][1])
        assert offset == pytest.approx(reference[f"{model}_eta{eta}_offset_Hz"], abs=0.2)


def test_all_reflected_light_is_one_mode_and_an_orthogonal_one():
    """detect_unmatched: unitary mixing (realizable), all carrier in `out`; equal to the plain cavity at full matching."""
    e = Experiment.load("moller2017").with_values({"membrane.detect_unmatched": True})
    cavity = e.with_values({"membrane.damping": "symmetric"}).element("membrane")
    check = cavity.build().check()
    assert check.realizable
    assert check.output_defect < 1e-12
    beam, rest = cavity.carrier_amplitude(), cavity.carrier_amplitude("unmatched")
    lost = sum(v * v for v in cavity.carrier_amplitude("loss"))
    assert sum(v * v for v in (*beam, *rest)) + lost == pytest.approx(1.0, rel=1e-12)
    full = {"membrane.mode_matching": 1.0}
    f = np.linspace(1.26e6, 1.28e6, 11)
    plain = budget(Experiment.load("moller2017").with_values(full).system, f).total
    assert_allclose(budget(e.with_values(full).system, f).total, plain, rtol=1e-12)
    with pytest.raises(InputError, match="reflection"):
        e.with_values({"membrane.output_port": "loss"})


def test_blue_detuning_is_refused_with_its_eigenvalue(moller_numbers, capsys):
    rate = moller_numbers["ideal_limit"]["Delta>0 (fig23) max Re eig/2pi (unstable)"]
    with pytest.raises(ModelError, match=f"{rate:.0f}"):
        budget(Experiment.load("moller2017").with_values({"membrane.detuning_hz": 4.7e6}).system, [1.28e6])
    code, _, err = call(capsys, "spectrum", "moller2017", "--set", "membrane.detuning_hz=4.7e6")
    assert code == 3
    assert "membrane" in err
    assert "2699 Hz" in err


# -- helpers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", COLUMNS)
def test_derived_quantities(key, context, moller_numbers):
    table = moller_numbers[f"tableI_{COLUMNS[key][2]}"]
    figure = getattr(context, key)
    p = figure.paper
    assert p.g / (2 * np.pi) == pytest.approx(table["g/2pi_Hz"], rel=1e-12)
    assert p.readout / (2 * np.pi) == pytest.approx(table["Gamma_M/2pi_Hz"], rel=1e-12)
    assert p.readout * p.lorentzian**2 / (2 * np.pi) == pytest.approx(table["Gamma_M*L0^2/2pi_Hz"], rel=1e-12)
    assert figure.mechanics[1] == pytest.approx(table["gamma_M_pole/2pi_Hz"], rel=1e-10)
    assert np.degrees(p.phi) == pytest.approx(table["phi_deg"], rel=1e-12)
    assert np.degrees(p.psi) == pytest.approx(table["psi_deg_effective_kappas"], rel=1e-12)
    (cos, sin) = figure.cavity.carrier_phases()[1]
    assert np.degrees(np.arctan2(sin, cos)) == pytest.approx(np.degrees(p.phi + p.psi), rel=1e-12)
    assert figure.cavity.minimum_occupation() == pytest.approx(table["n_min_at_Om"], rel=1e-12)
    assert figure.n_thermal() == pytest.approx(table["n_th_M=nbath*gm0/gamma_M"], rel=1e-10)
    power_w = 54e-6 if key == "fig3" else 38e-6
    assert figure.photons(power_w) * 1e6 == pytest.approx(table["N_from_LO2_power_852.349nm_with_eta_mm"], rel=1e-6)
    # weak coupling at the bare frequency: gamma_opt(n_min + 1/2) = (S1) x gamma_M0 n_bath
    up, down = (abs(p.L(s * p.omega)) ** 2 for s in (1, -1))
    gamma_opt = p.readout / 4 * (up - down)
    assert gamma_opt / (2 * np.pi) == pytest.approx(table["gamma_opt_at_Om/2pi_Hz"], rel=1e-12)
    s1 = gamma_opt * (figure.cavity.minimum_occupation() + 0.5) / (p.gamma0 * 114e3)
    assert s1 == pytest.approx(table["S1_rhs"], rel=1e-12)


def test_minimum_occupation_needs_red_detuning():
    e = Experiment.load("moller2017").with_values({"membrane.detuning_hz": np.array([-4.7e6, 0.0, 1e6])})
    found = e.element("membrane").minimum_occupation()
    assert found[0] > 0
    assert np.isnan(found[1:]).all()
    resolved = e.with_values({"membrane.cavity_linewidth_hz": 1e3, "membrane.detuning_hz": -1.28e6}).element("membrane")
    assert resolved.minimum_occupation() == pytest.approx((1e3 / (4 * 1.28e6)) ** 2, rel=1e-4)


def test_c_s_of_the_shipped_experiments():
    for name in ("moller2017", "moller2017_detuned"):
        spin = Experiment.load(name).element("spin")
        c = spin.readout_rate_hz / (spin.intrinsic_linewidth_hz * (2 * spin.occupation + 1))
        assert c == pytest.approx(1.10, rel=1e-12)


# -- closed forms -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", COLUMNS)
def test_closed_forms_of_the_cavity(key, context):
    """(S10) in both Schur forms is the element; (S14) exact at kappa_2 = 0; (S17) to first order."""
    p = getattr(context, key).paper
    W = 2 * np.pi * np.linspace(0.2e6, 2.5e6, 301)
    exact = p.M_exact(W)
    assert_allclose(exact, p.M_schur_mechanics(W), rtol=0, atol=1e-12 * np.abs(exact).max())
    cavity = getattr(context, key).cavity
    H = transfer(cavity.build(), W / (2 * np.pi), ["membrane.out"])[:, :, :2]
    assert_allclose(H, exact, rtol=0, atol=1e-12 * np.abs(exact).max())
    lossless = replace(p, kappa1=p.kappa, kappa2=0.0)
    exact = lossless.M_exact(W)
    assert_allclose(lossless.M_S14(W), exact, rtol=0, atol=1e-12 * np.abs(exact).max())
    near = 2 * np.pi * (getattr(context, key).mechanics[0] + np.linspace(-1e4, 1e4, 201))
    error = np.abs(lossless.M_S17(near) - lossless.M_exact(near)).max() / np.abs(lossless.M_exact(near)).max()
    assert 0.005 < error < 0.02
    # with no frequency the carrier's amplitude goes through unchanged: in the frame psi + phi, X -> X exactly
    O = rotation(lossless.phi + lossless.psi)
    dc = O.T @ lossless.M_exact(np.array([0.0]))[0]
    assert dc[0] == pytest.approx([1.0, 0.0], abs=1e-12)


def test_s33_and_s34_in_their_limit(context):
    """S33 near the full model at kappa = 100 Omega, and S34 the same in the rotating-wave limit, for both signs."""
    figure = context.ideal(100, 27.0, spin_width=1.3, r=0.8)
    p = figure.paper
    f0, gamma_m = figure.mechanics
    gamma_s, rate = 1.3 * 27.0, 0.8 * p.readout * p.lorentzian**2 / (2 * np.pi)
    f = f0 + np.linspace(-200.0, 200.0, 41)
    for sign in (-1, 1):
        e = figure.at(sign)
        full = transfer(e.system, f, ["detector"])[:, 0, e.system.input("spin.in")]
        omega_s = 2 * np.pi * float(e.resolved().value("spin.larmor_hz"))
        form = hybrid_S33(p, 2 * np.pi * f, omega_s, 2 * np.pi * gamma_s, 2 * np.pi * rate)
        peak = np.abs(full[:, 0]).max()
        assert np.abs(np.abs(full[:, 0]) - np.abs(form)).max() < 5e-3 * peak
        d = f - f0
        s34 = hybrid_S34(d, d, gamma_m, gamma_s, p.readout * p.lorentzian**2 / (2 * np.pi), rate, sign)
        assert_allclose(s34, np.abs(form) ** 2, rtol=2e-2, atol=1e-3 * peak**2)


@given(st.floats(0.2, 2.0), st.floats(0.2, 4.0), st.sampled_from([-1, 1]))
def test_back_action_ratio_is_the_integral_of_s34(r, width, sign):
    hybrid = integrate.quad(lambda d: hybrid_S34(d, d, 1.0, width, 1.0, r, sign), -np.inf, np.inf)[0]
    alone = integrate.quad(lambda d: 1 / (d**2 + 1), -np.inf, np.inf)[0]
    assert hybrid / alone == pytest.approx(back_action_ratio(r, 1.0, width, sign), rel=1e-7)


def test_ideal_limit_of_the_full_model(context, moller_numbers):
    """1/2 and 5/2 at equal widths, the general ratio, and below the limit when detuned."""
    assert context.ideal_ratio(100, 27.0) == pytest.approx(0.5, abs=5e-4)
    assert context.ideal_ratio(100, 27.0, sign=1) == pytest.approx(2.5, abs=5e-3)
    assert context.ideal_ratio(10, 27.0) == pytest.approx(0.5, abs=5e-3)
    for r, width, sign in ((1.0, 0.25, -1), (1.0, 4.0, -1), (0.5, 1.5, -1), (0.75, 1.5, 1), (1.25, 1.5, 1)):
        full = context.ideal_ratio(100, 27.0, sign=sign, r=r, spin_width=width)
        assert full == pytest.approx(back_action_ratio(r, 1.0, width, sign), rel=2e-3)
    for D in (1.0, 2.0):
        assert context.ideal_ratio(300, 27.0, detuned=D) == pytest.approx(detuned_ratio(D, 1, 1), rel=5e-3)
    closed = moller_numbers["ideal_limit"]["fig4 closed form D=5.2k,gM=2.5457k,gS=2.3k"]
    assert detuned_ratio(5200.0, context.fig4.mechanics[1], 2300.0) == pytest.approx(closed, rel=1e-6)


@pytest.mark.parametrize("sign", [-1, 1])
def test_squeezed_output_of_the_spins(sign, moller_numbers):
    """Fig. 4c: the closed form is the element behind a detector at 7 degrees from amplitude; the notes' minimum."""
    s = oracle.FIG4
    spin = SpinOscillator(
        name="spin", larmor_hz=sign * (oracle.resonance(s) + s.offset), intrinsic_linewidth_hz=2 * s.gs,
        readout_rate_hz=s.rate, occupation=s.n_s, damping="velocity",
    )  # fmt: skip
    detector = Homodyne(name="d", efficiency=0.7, angle_deg=7.0, reference="amplitude")
    offset = np.linspace(-12e3, 12e3, 24001)
    f = abs(spin.larmor_hz) + offset
    total = budget(Experiment((spin, detector)).system, f).total
    angular = (2 * np.pi * spin.larmor_hz, 2 * np.pi * s.gs, 2 * np.pi * s.rate)
    assert_allclose(total, spin_output(2 * np.pi * f, *angular, s.n_s, np.radians(7.0), 0.7), rtol=1e-11)
    word = "pos" if sign > 0 else "neg"
    reference = moller_numbers["fig4c_spin_squeezing"]
    assert 10 * np.log10(total.min()) == pytest.approx(reference[f"{word} theta=7deg eta=.7 dB"], abs=5e-3)
    assert offset[total.argmin()] == pytest.approx(reference[f"{word} offset_Hz"], abs=60)


# -- white noise on the light -----------------------------------------------------------------------------------------


def test_drive_of_the_spins(context, moller_numbers):
    reference = moller_numbers["spin_calibration"]
    assert context.spin_cooperativity() == pytest.approx(reference["C_S recovered by S40"], rel=1e-12)
    undone = context.spin_cooperativity(subtract_shot=False, factor=1.2)
    assert undone == pytest.approx(reference["C_S by S40 but no SN subtraction, 2.2"], rel=1e-9)
    wrong = context.spin_cooperativity(factor=1.2)
    assert wrong == pytest.approx(reference["C_S by S40, SN subtracted, nWN=1.2 used for 1.22"], rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(experiments(), st.floats(0.0, 100.0), st.floats(-180.0, 180.0))
def test_drive_adds_its_quadrature_and_nothing_else(e, excess, angle):
    """A drive at the first input adds |H u|^2 excess and leaves every other source as it was."""
    f = np.linspace(0.4e6, 2.2e6, 7)
    first = e.elements[0].name
    port = f"{first}.in"
    if port not in e.system.sources:
        return
    driven = e.with_values({f"{port}.excess_sn": excess, f"{port}.angle_deg": angle})
    name = e.system.currents[0]
    before, after = budget(e.system, f, name), budget(driven.system, f, name)
    u = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
    H = transfer(e.system, f, [name])[:, 0, e.system.input(port)] @ u
    assert_allclose(after.sources[f"{port}_drive"], excess * np.abs(H) ** 2, rtol=1e-9, atol=1e-12)
    for source, value in before.sources.items():
        assert_allclose(after.sources[source], value, rtol=1e-12)
    again = Experiment.from_toml(driven.to_toml())
    assert_allclose(budget(again.system, f, name).total, after.total, rtol=0)


def test_drive_of_a_port_that_is_not_there():
    with pytest.raises(InputError, match=r"spin\.inn: no such input field; did you mean 'in'"):
        _ = Experiment.load("moller2017").with_values({"spin.inn.excess_sn": 1.0}).system


# -- areas ------------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(experiments(), st.floats(0.3e6, 1.5e6), st.floats(1e3, 1e6))
def test_band_power_is_the_integral_of_the_spectrum(e, low, width):
    """The logarithm formula against composite Gauss-Legendre quadrature of the budget, by source."""
    current = e.system.currents[0]
    found = power(e.system, (low, low + width), current)
    poles = np.linalg.eigvals(e.system.A) / (2 * np.pi)
    edges = {low, low + width}
    for p in poles:
        steps = np.geomspace(max(abs(p.real), 1.0), 3e6, 25)
        edges |= {x for d in steps for x in (p.imag - d, p.imag + d, p.imag) if low < x < low + width}
    edges = np.array(sorted(edges))
    u, weight = np.polynomial.legendre.leggauss(20)
    f = ((edges[1:] + edges[:-1]) / 2)[:, None] + np.diff(edges)[:, None] / 2 * u
    b = budget(e.system, f.ravel(), current)
    jacobian = (np.diff(edges)[:, None] / 2 * weight).ravel()
    for name, value in b.sources.items():
        assert found.sources[name] == pytest.approx(float(jacobian @ value), rel=1e-8, abs=1e-8 * float(found.total)), (
            name
        )
    assert found.total == pytest.approx(sum(found.sources.values()), rel=1e-12)


def test_band_power_of_a_batch_and_of_an_unstable_point():
    e = Experiment.load("moller2017").with_values({"membrane.detuning_hz": np.array([-4.7e6, -3e6, 2e6])})
    found = power(e.system, (1.2e6, 1.3e6))
    one = power(Experiment.load("moller2017").system, (1.2e6, 1.3e6))
    assert found.total[0] == pytest.approx(one.total, rel=1e-12)
    assert np.isfinite(found.total[:2]).all()
    assert np.isnan(found.total[2])
    with pytest.raises(InputError, match="lower edge"):
        power(e.system, (2.0, 1.0))


def test_spectrum_command_prints_the_areas(capsys):
    call_ = ("spectrum", "moller2017", "--band", "1.168e6:1.368e6", "--diff-set", "spin.readout_rate_hz=0")
    code, out, _ = call(capsys, *call_, "--json")
    assert code == 0
    found = json.loads(out)
    ratio = found["band"]["back_action"] / found["other"]["band"]["back_action"]
    assert ratio == pytest.approx(0.8057, abs=2e-3)
    code, out, _ = call(capsys, *call_)
    assert code == 0
    assert "back-action" in out
    assert "dB" in out
