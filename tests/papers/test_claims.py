import json
from importlib import resources

import jsonschema
import numpy as np
import pytest
from numpy.testing import assert_allclose

from backaction.errors import InputError
from backaction.papers import KEYS, paper, run
from backaction.papers.frame import Claim, judge
from backaction.papers.thomas2021.context import LIGHT, THERMAL, Thomas, ideal
from backaction.papers.thomas2021.models import (
    TwoOscillators,
    hybrid_ideal,
    hybrid_rwa,
    single_corrected,
    single_printed,
    single_rwa,
)
from backaction.states import entanglement
from backaction.systems import response
from support.commands import call


@pytest.fixture(scope="module")
def context():
    return Thomas()


@pytest.mark.parametrize(
    ("computed", "verdict"),
    [
        (1.1, "reproduces"), (1.3, "differs: because"), ((0.9, 1.05), "reproduces"), ((0.5, 1.5), "not determined by the text"),
        ((1.5, 3.0), "differs: because"), (np.nan, "differs: no finite value"),
    ],
)  # fmt: skip
def test_verdicts(computed, verdict):
    claim = Claim("x", "here", "a number", 1.0, 0.1, lambda c: 0.0, reason="because")
    assert judge(claim, computed).verdict == verdict


def test_every_claim_runs_and_has_its_verdict():
    for key in KEYS:
        outcomes = run(paper(key))
        assert len(outcomes) >= 30
        assert len({o.claim.id for o in outcomes}) == len(outcomes)
        for o in outcomes:
            assert o.verdict.startswith(("reproduces", "differs: ", "not determined by the text"))
            if o.verdict.startswith("differs"):
                assert o.claim.reason, o.claim.id


def test_claims_against_the_independent_numbers(numbers, context):
    """Headline values of the notes: no claim's value is our own invention."""
    values = {o.claim.id: o.computed for o in run(paper("thomas2021"))}
    h = numbers["TABLE"]["headline"]
    assert_allclose(values["vc"], h["Vc"], rtol=1e-8)
    assert_allclose(values["rate-m"], h["Gamma_M_kHz"], rtol=1e-8)
    assert_allclose(values["gamma-m"], h["gamma_M_kHz"], rtol=1e-8)
    assert_allclose(values["shift"], h["omega_M_minus_omega_M0_kHz"], rtol=1e-8)
    assert_allclose(values["cq"], h["Cq_4g2_over_kappa_gamma_n"], rtol=1e-8)
    assert_allclose(values["cq-main-text"], h["QBA_over_TH_M_Gamma"], rtol=1e-8)
    assert_allclose(values["qba-th-s"], h["QBA_over_TH_S_spectral"], rtol=1e-4)
    assert_allclose(context.ratio("membrane"), h["QBA_over_TH_M_spectral"], rtol=1e-8)
    far = [h[k][q] for k in ("far+110", "far-110") for q in ("Vu_a085", "Vu_a085_uncorr", "Vu_a1_uncorr")]
    assert_allclose(values["vu-far"], [min(far), max(far)], rtol=1e-8)
    f = numbers["forecast_from_TABLE"]
    assert_allclose(values["forecast"], [f["GammaS_x3_optimised_g_phi_det"], f["GammaS_x3_as_is"]], rtol=1e-6)


def test_suppression_of_back_action_and_thermal_noise(numbers, context):
    """Exact integrals against the notes' numerical ones (band effects below 3e-5 dB)."""
    for key, sign in (("far+110", 1), ("far-110", -1)):
        h = numbers["TABLE"]["headline"][key]
        assert_allclose(context.suppression_db(LIGHT, sign), h["QBA_suppression_dB"], atol=1e-4)
        assert_allclose(context.suppression_db(THERMAL, sign), h["TH_suppression_dB"], atol=1e-4)


def test_integrated_power_is_the_integral_of_the_spectrum(context):
    """Second route: numerical integral of the bath's part over a wide grid."""
    system = context.resonant.system
    f = np.unique(
        np.concatenate(
            [1.3688e6 + s * np.geomspace(1, 1.3e6, 4000) for s in (-1, 1)] + [np.geomspace(2.7e6, 1e9, 3000)]
        )
    )
    f = f[f > 0]
    part = response.budget(system, f).sources["membrane.bath"]
    assert_allclose(context.power(context.resonant, ("membrane.bath",)), 2 * np.trapezoid(part, f), rtol=1e-3)


def test_forecasts(numbers, context):
    f = numbers["forecast_from_TABLE"]
    from backaction import evaluate

    assert_allclose(
        evaluate("conditional.epr.variance", context.rematched(True)), f["GammaS_x3_GammaM=nuGammaS_det0"], rtol=1e-7
    )
    assert_allclose(
        evaluate("conditional.epr.variance", context.rematched(False)),
        f["gammaS0_div3_GammaM=nuGammaS_det0"],
        rtol=1e-7,
    )
    value, at = context.optimised(True)
    assert_allclose(value, f["GammaS_x3_optimised_g_phi_det"], rtol=1e-7)
    there = f["GammaS_x3_optimised_at"]
    assert_allclose(at.value("membrane.coupling_hz") / 2**0.5 / 1e3, there["g_kHz"], rtol=1e-4)
    assert_allclose(at.value("phase.angle_deg"), there["phi_deg"], atol=0.01)


def test_excess_noise_and_crossings(numbers, context):
    assert_allclose(context.excess_for(0.83), numbers["detection_SN_needed_for_Vc_0.83"], rtol=1e-6)
    far = numbers["detection_SN_needed_for_far110_Vc_2.02 (a=0.85, uncorrelated)"]
    assert_allclose(context.excess_for(2.02, far=True), far, rtol=1e-6)
    assert_allclose(context.crossings_khz(), numbers["TABLE"]["Vc_crosses_1_at_kHz"], rtol=1e-6)
    # noise at the spins is worth less at the detector: more of it is needed
    assert context.excess_at("spin.broadband_noise_sn", 0.83) > context.excess_for(0.83)


def test_sensitivities(numbers, context):
    table = numbers["TABLE"]["sensitivities"]
    pairs = {
        "membrane.overcoupling": "dlnV/dln overcoupling", "link.transmission": "dlnV/dln nu", "membrane.coupling_hz": "dlnV/dln g_kHz",
        "detector.efficiency": "dlnV/dln eta", "spin.broadband_noise_sn": "dlnV/dln S_bb_SN", "membrane.detuning_hz": "dlnV/dln Delta_MHz",
        "spin.intrinsic_linewidth_hz": "dlnV/dln gamma_S0_kHz", "spin.occupation": "dlnV/dln n_S",
    }  # fmt: skip
    for ours, theirs in pairs.items():
        assert_allclose(context.sensitivities[ours], table[theirs][0], rtol=1e-4)
    Vc = numbers["TABLE"]["headline"]["Vc"]
    assert_allclose(
        context.sensitivities["phase.angle_deg (per degree)"], table["dV/d phi_deg per deg"][0] / Vc, rtol=1e-4
    )
    assert_allclose(
        context.sensitivities["spin.larmor_offset_hz (per kHz)"], table["dV/d detuning_kHz per kHz"][0] / Vc, rtol=1e-4
    )


# -- simple models of the main text ---------------------------------------------------------------------------------------


def simple(omega=1e6, gamma_m=20.0, gamma_s=35.0, rate=300.0, zeta_m=0.0, zeta_s=0.0, detuning=0.0, nu=0.6, eta=0.8):
    return TwoOscillators(
        omega, -(omega + detuning), gamma_m, gamma_s, rate, 0.7 * rate, zeta_m, zeta_s, nu, eta, 3.0, 1.5
    )


def full(m):
    """The same two oscillators in the full model: both `spin_oscillator`s, phi = 180 degrees, angular rates."""
    from backaction import Experiment, Homodyne, Loss, Rotation, SpinOscillator

    hz = 1 / (2 * np.pi)
    s = SpinOscillator(
        name="s",
        larmor_hz=m.omega_s * hz,
        intrinsic_linewidth_hz=m.gamma_s0 * hz,
        readout_rate_hz=m.rate_s * hz,
        tensor_ratio=m.zeta_s,
        occupation=m.n_s,
    )
    o = SpinOscillator(
        name="m",
        larmor_hz=m.omega_m * hz,
        intrinsic_linewidth_hz=m.gamma_m0 * hz,
        readout_rate_hz=m.rate_m * hz,
        tensor_ratio=m.zeta_m,
        occupation=m.n_m,
    )
    return Experiment([s, Loss(name="l", transmission=m.nu), Rotation(name="r", angle_deg=180.0), o, Homodyne(name="d", efficiency=m.eta)])  # fmt: skip


def test_equation_2a_is_the_readout_of_the_full_model():
    """P_out = ... + sqrt(eta)(sqrt(Gamma_M) X_M - sqrt(nu Gamma_S) X_S): the current's row on the two modes (light in i units)."""
    m = simple()
    system = full(m).system
    row = system.detected().C[0]
    x_m, x_s = row[system.mode("m").start], row[system.mode("s").start]
    assert_allclose(x_m, np.sqrt(2 * m.eta * m.rate_m), rtol=1e-12)
    assert_allclose(x_s, -np.sqrt(2 * m.eta * m.nu * m.rate_s), rtol=1e-12)
    assert_allclose([row[system.mode("m").start + 1], row[system.mode("s").start + 1]], 0.0, atol=1e-9)


@pytest.mark.parametrize("detuning", [0.0, 200.0])
def test_equation_2b_is_the_limit_of_the_full_model(detuning):
    """QND limit (zeta = 0), gamma << omega: thermal parts, link back-action and total to 1 % near resonance."""
    m = simple(detuning=detuning)
    W = m.omega_m + np.linspace(-300, 500, 41)
    b = response.budget(full(m).system, W / (2 * np.pi))
    parts = m.spectrum(W)
    assert_allclose(
        parts["mechanical thermal"], b.sources["m.bath"], rtol=0.01, atol=0.01 * np.max(b.sources["m.bath"])
    )
    assert_allclose(parts["spin thermal"], b.sources["s.bath"], rtol=0.01, atol=0.01 * np.max(b.sources["s.bath"]))
    link = b.sources["l.vacuum"] - m.eta * (1 - m.nu)
    assert_allclose(parts["link back-action"], link, rtol=0.02, atol=0.01 * np.max(link))
    total = sum(parts.values())
    assert_allclose(total, b.total, rtol=0.02, atol=0.01 * np.max(b.total))


def test_back_action_interference_cancels_for_opposite_susceptibilities():
    """Gamma_M chi_M0 + Gamma_S chi_S0 = 0: the joint term vanishes at every frequency; both forms are the same algebra."""
    m = simple(zeta_m=0.1, zeta_s=0.03, detuning=77.0)
    W = m.omega_m + np.linspace(-500, 500, 51)
    assert_allclose(m.back_action(W), m.back_action_factored(W), rtol=1e-9)
    matched = TwoOscillators(1e6, -1e6, 30.0, 30.0, 200.0, 200.0, 0.1, 0.1, 0.6, 0.8, 1.0, 1.0)
    assert np.max(np.abs(matched.back_action(W))) < 1e-9 * np.max(np.abs(matched.rate_m * matched.chi(W, "m")))


def test_nonlocal_cooling_suppresses_the_spins_thermal_noise():
    """chi_M/chi_MS with zeta_M > zeta_S: below one on resonance, one far away."""
    m = simple(zeta_m=0.15, zeta_s=0.0)
    assert m.cooling(np.array([m.omega_m]))[0] < 0.1
    assert_allclose(m.cooling(np.array([m.omega_m + 1e5])), 1.0, rtol=0.01)


def test_single_oscillator_formula_is_misprinted(numbers):
    for row in numbers["ideal_single"]:
        exact = ideal("single", row["w"], row["gamma"], row["n"], row["Gamma"], row["eta"])[1]
        assert_allclose(exact, row["Vc"], rtol=1e-6)
        assert_allclose(single_rwa(row["gamma"], row["Gamma"], row["eta"], row["Vu"]), exact, rtol=1e-5)
        assert_allclose(single_corrected(row["eta"], row["Cq"]), row["corrected"], rtol=1e-8)
        assert_allclose(single_printed(row["eta"], row["Cq"]), row["printed"], rtol=1e-8)
        assert abs(single_corrected(row["eta"], row["Cq"]) - exact) < abs(single_printed(row["eta"], row["Cq"]) - exact)


def test_equation_3(numbers):
    for row in numbers["ideal_hybrid"]:
        u, v = ideal("hybrid", row["w"], row["gamma"], row["n"], row["Gamma"], row["eta"])
        assert_allclose(v, row["Vc"], rtol=1e-6)
        assert_allclose(u, row["Vu"], rtol=1e-6)
        assert_allclose(hybrid_rwa(row["gamma"], row["Gamma"], row["eta"], row["Vu"]), v, rtol=1e-6)
        assert_allclose(hybrid_ideal(row["eta"], row["Cq"]), row["Eq3"], rtol=1e-8)


def test_conjugate_pair_is_not_squeezed(context):
    """D4, D5: the EPR pair below 1/2 each, the conjugate pair far above; symplectic up to the weights."""
    V = context.covariance(context.resonant)
    u = entanglement.basis(float(context.best.weight), float(context.best.angle_deg))
    turned = u @ V @ u.T
    assert np.all(np.diag(turned)[:2] < 0.5)
    assert np.all(np.diag(turned)[2:] > 3)


# -- command and figures ----------------------------------------------------------------------------------------------


def test_json_contract(capsys):
    code, out, _ = call(capsys, "reproduce", "thomas2021", "--json", "--claim", "vc")
    document = json.loads(out)
    schema = json.loads((resources.files("backaction") / "data/schemas/reproduce.json").read_text())
    jsonschema.validate(document, schema)
    assert code == 0
    claim = document["claims"][0]
    assert claim["id"] == "vc"
    assert_allclose(claim["computed"], 0.789126, rtol=1e-5)
    assert claim["verdict"].startswith("differs: ")


def test_whole_table_and_figures(capsys, tmp_path):
    code, out, _ = call(capsys, "reproduce", "thomas2021", "--figures", tmp_path / "f")
    assert code == 0
    assert "reproduces" in out
    names = {p.stem for p in (tmp_path / "f").iterdir()}
    assert {"fig1b", "fig1c", "fig3a", "fig3b", "fig3c", "fig4", "fig8", "fig9", "fig10", "fig11", "limits"} <= names
    for p in (tmp_path / "f").iterdir():
        assert p.read_bytes()[:4] == b"\x89PNG"
        assert p.stat().st_size > 10_000


def test_unknown_paper_and_claim(capsys):
    assert "did you mean 'thomas2021'" in call(capsys, "reproduce", "thomas2012")[2]
    with pytest.raises(InputError, match="no claim 'vcc'; did you mean 'vc'"):
        run(paper("thomas2021"), "vcc")


def test_growing_record_equals_the_exact_propagator(context):
    """Covariances of the sampled growing window tend to V_c(t); they start at the unconditional state."""
    from backaction.records.shot_level import ShotNoise
    from backaction.records.simulation import VOLT_DENSITY, simulate
    from backaction.systems import steady
    from backaction.tracking.run import growing

    e = context.resonant
    made = simulate(e, 20e-6, 50e6, seed=1)
    times, mean, V = growing(e, made.record, ShotNoise(VOLT_DENSITY, 0.0, "V"), 1.37e6)
    i = e.system.indices(("membrane", "spin"))
    exact = steady.conditional_at(e.system, times[[99, 499, 999]])[:, i][:, :, i]
    assert_allclose(V[[99, 499, 999]], exact, atol=0.05)
    assert mean.shape == (1000, 4)
