"""Huang 2018: the package against the notes' fixed points and optima, closed forms, the master equation, and the lab frame."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from backaction import (
    BeamSplitter,
    Experiment,
    Homodyne,
    Loss,
    OptomechanicalCavity,
    Rotation,
    SidebandOscillator,
    SpinOscillator,
    Squeezer,
    conditional,
    evaluate,
    gradient,
    unconditional,
)
from backaction.design.optimization import optimize
from backaction.design.sensing import Lorentzian, Signal, waveform_variance
from backaction.errors import ConventionError, InputError, ModelError
from backaction.experiment.describe import state_document
from backaction.papers.huang2018.claims import master_equation
from backaction.papers.huang2018.context import ANGLES, C_M, COOPERATIVITIES, EQUAL, XI, XI_C, Huang
from backaction.papers.huang2018.models import (
    angle_S22,
    conditional_S20,
    dissipative_S21,
    epr,
    exact_scaling,
    exact_scaling_dissipative,
    loss_bound,
    loss_bound_dissipative,
    riccati_S19,
)
from backaction.systems.response import VACUUM, budget
from support import reference

MEMBRANE = {k: v for k, v in COOPERATIVITIES.items() if k.startswith("membrane")}


@pytest.fixture(scope="module")
def huang_numbers():
    return reference.numbers("huang2018")


@pytest.fixture(scope="module")
def context():
    return Huang()


def point(c: Huang, p: dict) -> Experiment:
    """A fixed point of the notes. (Its last but one has gamma_M = gamma_M0: see `trap`.)"""
    decoherence = {m: p[f"gamma_{s}0_over_2pi_Hz"] * (p[f"n_{s}"] + 0.5) for m, s in (("spin", "S"), ("membrane", "M"))}
    return c.base.with_values({
        "spin.intrinsic_linewidth_hz": p["gamma_S0_over_2pi_Hz"], "spin.occupation": p["n_S"],
        "membrane.intrinsic_linewidth_hz": p["gamma_M0_over_2pi_Hz"], "membrane.occupation": p["n_M"],
        "spin.readout_rate_hz": p["C_S"] * decoherence["spin"], "membrane.readout_rate_hz": p["C_M"] * decoherence["membrane"],
        "spin.coupling_angle_deg": np.degrees(p["theta_S"]), "membrane.coupling_angle_deg": np.degrees(p["theta_M"]),
        "link.transmission": 1 - p["eps"],
    })  # fmt: skip


def trap(p: dict) -> bool:
    """Near theta_M = 45 degrees gamma_M = gamma_M0 ~ 1e-5: V_M changes by O(1) for 1e-16 changes of the angle (notes)."""
    return abs(p["theta_M"] - np.pi / 4) < 1e-9


def test_fixed_points(context, huang_numbers):
    for p in huang_numbers["fixed_points_for_unit_tests"]:
        e = point(context, p)
        tilde = p["gamma_S0_over_2pi_Hz"] * (p["n_S"] + 0.5)
        widths = [evaluate(f"dynamics.linewidth_hz.{m}", e) / tilde for m in ("spin", "membrane")]
        assert widths[0] == pytest.approx(p["gamma_S"], rel=1e-9)
        if p["gamma_S"] > 0 and p["gamma_M"] > 0 and not trap(p):
            assert widths[1] == pytest.approx(p["gamma_M"], rel=1e-9)
            V = unconditional(e.system)
            assert [V[0, 0], V[2, 2], 2 * V[0, 2]] == pytest.approx(
                [p["V_S"], p["V_M"], p["XS_XM_both_orders"]], rel=1e-11
            )
            assert evaluate(XI, e) == pytest.approx(p["xi_g"], rel=1e-10)
            assert evaluate("unconditional.epr_readout.weight", e) == pytest.approx(p["g"], rel=1e-12)
            assert evaluate("unconditional.epr_readout.angle_deg", e) == pytest.approx(180.0)
            assert evaluate("unconditional.ppt_min", e) == pytest.approx(p["nu_PPT"], rel=1e-9)
            # the least over g is twice the PPT eigenvalue
            assert evaluate("unconditional.epr.variance", e) == pytest.approx(2 * p["nu_PPT"], rel=1e-9)
        given_ = p["conditional"]
        V = conditional(e.system).covariance
        reference = [given_[k] for k in ("V_S", "V_M", "XS_XM_both_orders")]
        assert [V[0, 0], V[2, 2], 2 * V[0, 2]] == pytest.approx(reference, rel=1e-9)
        assert evaluate(XI_C, e) == pytest.approx(given_["xi_g"], rel=1e-9)
        assert evaluate("conditional.ppt_min", e) == pytest.approx(given_["nu_PPT"], rel=1e-9)


def test_sensing_spectra_of_the_fixed_points(context, huang_numbers):
    """N_H, N_M of the notes, and (S31)-(S33), from the general spectra."""
    delta = np.array([0.0, 0.5, 2.0])
    found = 0
    for p in huang_numbers["fixed_points_for_unit_tests"]:
        if "N_H_at_delta_over_gtS_0_0.5_2" not in p or trap(p):
            continue
        e = point(context, p)
        alone = e.with_values({"spin.readout_rate_hz": 0.0})
        unit = p["gamma_S0_over_2pi_Hz"] * (p["n_S"] + 0.5) / context.tilde[0]
        for which, experiment in (("H", e), ("M", alone)):
            reference = p[f"N_{which}_at_delta_over_gtS_0_0.5_2"]
            assert_allclose(context.cos_spectrum(experiment, delta * unit), reference, rtol=1e-10)
        if (p["n_S"], p["n_M"]) == (1, 1e5):
            mechanics, hybrid = context.rates(p["C_S"], p["C_M"], p["theta_S"], p["theta_M"]).spectra(delta)
            assert_allclose(context.cos_spectrum(e, delta), hybrid, rtol=1e-10)
            assert_allclose(context.cos_spectrum(alone, delta), mechanics, rtol=1e-10)
        found += 1
    assert found >= 2


# -- the element ------------------------------------------------------------------------------------------------------

angle = st.floats(46.0, 89.0)
rate = st.floats(1e2, 1e6)


@st.composite
def cascades(draw):
    """Stable two-oscillator cascades of any masses and angles with loss, rotation, squeezing between and behind."""

    def oscillator(name):
        return SidebandOscillator(
            name=name, mass=draw(st.sampled_from(["positive", "negative"])), intrinsic_linewidth_hz=draw(rate),
            occupation=draw(st.floats(0, 1e3)), readout_rate_hz=draw(rate), coupling_angle_deg=draw(angle),
        )  # fmt: skip

    middle = [
        Loss(name="loss", transmission=draw(st.floats(0.1, 1.0))),
        Rotation(name="turn", angle_deg=draw(st.floats(-180, 180))),
        Squeezer(name="squeeze", squeezing_db=draw(st.floats(-6, 6)), angle_deg=draw(st.floats(0, 180))),
        BeamSplitter(name="split", transmission=draw(st.floats(0.1, 1.0))),
    ]
    chosen = [m for m in middle if draw(st.booleans())]
    detector = Homodyne(name="d", efficiency=draw(st.floats(0.1, 1.0)), angle_deg=draw(st.floats(-180, 180)))
    return Experiment([oscillator("a"), *chosen, oscillator("b"), detector])


@given(cascades())
def test_sideband_cascades_are_realizable(e):
    """Commutators and input-output commutators hold to rounding, and the two currents do not demolish each other."""
    report = e.system.check()
    assert report.commutator_defect < 1e-11
    assert report.output_defect < 1e-11
    assert report.nondemolition_defect < 1e-11


@given(cascades())
def test_sideband_spectra_integrate_to_the_state(e):
    """Vacuum-driven single oscillator: V = (Gamma/2 + gamma_0 (n + 1/2))/gamma, the closed form of Eq. (7) for one mode."""
    a = e.element("a")
    alone = Experiment([a, Homodyne(name="d")])
    V = unconditional(alone.system)
    gamma0, rate_, tilde = a.intrinsic_linewidth_hz, a.readout_rate_hz, a.decoherence_rate()
    gamma = gamma0 - rate_ * np.cos(2 * np.radians(a.coupling_angle_deg))
    assert_allclose(V, np.eye(2) * (rate_ / 2 + tilde) / gamma, rtol=1e-9, atol=1e-9 * V[0, 0])


@given(st.floats(-0.4, 0.4), st.sampled_from([-1, 1]), st.floats(0, 20), st.floats(0.2, 1.0))
def test_rotating_wave_limit_of_a_spin(zeta, sign, n, eta):
    """Lab-frame spectrum about its line -> sum of cosine and sine spectra, as Gamma/omega -> 0 (both sidebands measured)."""
    spin = SpinOscillator(
        name="s", larmor_hz=sign * 1e8, intrinsic_linewidth_hz=2e3, readout_rate_hz=3e2, tensor_ratio=zeta, occupation=n,
    )  # fmt: skip
    lab = Experiment([spin, Homodyne(name="d", efficiency=eta)])
    if spin.intrinsic_linewidth_hz + 2 * zeta * spin.readout_rate_hz < 100:
        return
    rwa = lab.rotating_wave()
    delta = np.array([-3e3, -500.0, 0.0, 800.0, 5e3])
    parts = budget(rwa.system, delta, "d.cos").total
    folded = [(budget(lab.system, [1e8 + d]).total + budget(lab.system, [1e8 - d]).total)[0] / 2 for d in delta]
    assert_allclose(parts, folded, rtol=2e-4)
    assert_allclose(parts, budget(rwa.system, delta, "d.sin").total, rtol=1e-12)
    assert_allclose(unconditional(rwa.system), unconditional(lab.system), rtol=1e-4, atol=1e-3)


def test_frames_are_not_mixed():
    spin = SidebandOscillator(name="s", intrinsic_linewidth_hz=1.0, readout_rate_hz=1.0, frequency_hz=1e6)
    other = SidebandOscillator(name="m", intrinsic_linewidth_hz=1.0, readout_rate_hz=1.0, frequency_hz=2e6)
    with pytest.raises(ConventionError, match="sidebands"):
        _ = Experiment([spin, other]).system
    lab = SpinOscillator(name="l", larmor_hz=1e6, intrinsic_linewidth_hz=1.0, readout_rate_hz=1.0)
    with pytest.raises(InputError, match="lab frame"):
        _ = Experiment([lab, spin]).system


def test_epr_readout_only_where_the_light_reads_a_pair(context):
    """Null for one current, for equal masses, for a lab frame; and independent of a common turn of both quadratures."""
    e = context.base
    assert state_document(e)["unconditional"]["epr_readout"]["variance"] == pytest.approx(evaluate(XI, e), rel=1e-14)
    equal = e.with_values({"spin.mass": "positive"})
    assert state_document(equal)["unconditional"]["epr_readout"] is None
    assert state_document(Experiment.load("thomas2021"))["conditional"]["epr_readout"] is None
    with pytest.raises(InputError, match="unknown result"):
        evaluate("conditional.epr_readout.variance", Experiment.load("thomas2021"))


@pytest.mark.parametrize(
    "result", [XI, XI_C, "unconditional.epr_readout.weight", "dynamics.margin_hz", "dynamics.linewidth_hz.membrane"]
)
def test_gradients_of_readout_and_poles(result, context):
    """Exact gradients against central differences (the readout pair moves with the parameters too)."""
    e = context.at(30.0, 25.0, 0.79, 1.2, 0.1)
    fields = ["spin.coupling_angle_deg", "membrane.coupling_angle_deg", "membrane.readout_rate_hz", "link.transmission"]
    exact = gradient(result, e, fields)
    for slope, field in zip(exact, fields, strict=True):
        x = e.value(field)
        h = 1e-5 * x
        up, down = (evaluate(result, e.with_values({field: x + s * h})) for s in (1, -1))
        assert slope == pytest.approx((up - down) / (2 * h), rel=2e-6, abs=1e-9 * abs(evaluate(result, e) / x))


# -- closed forms -----------------------------------------------------------------------------------------------------

stable = st.tuples(
    st.floats(0.3, 1e3), st.floats(0.3, 1e3), st.floats(np.pi / 4, 1.3), st.floats(np.pi / 4 + 0.02, 1.55), st.floats(0, 0.6),
)  # fmt: skip


@given(stable)
def test_equation_7_is_the_lyapunov_solution(p):
    c = Huang()
    V = unconditional(c.at(*p).system)
    V_S, V_M, cross = c.rates(*p).eq7()
    expected = np.array(
        [[V_S, 0, cross / 2, 0], [0, V_S, 0, -cross / 2], [cross / 2, 0, V_M, 0], [0, -cross / 2, 0, V_M]]
    )
    assert_allclose(V, expected, rtol=1e-11, atol=1e-11 * V_S)


@given(stable)
def test_master_equation_is_the_filter(p):
    """(S17), (S18) built from Hamiltonian, jumps and monitored operators: the same conditional state."""
    c = Huang()
    V = conditional(c.at(*p).system).covariance
    assert_allclose(master_equation(c.rates(*p)), V, rtol=0, atol=1e-8 * np.abs(V).max())


def test_corrected_conditional_closed_form(context):
    """(S20) corrected = Riccati at theta = pi/4, gamma_M0 -> 0; (S19) corrected has no residual there, the printed one has."""
    C_S, C_M_, eps = np.array([5.0, 50.0, 300.0]), np.array([8.0, 40.0, 250.0]), 0.1
    e = context.at(C_S, C_M_, np.pi / 4, np.pi / 4, eps).with_values(
        {"membrane.intrinsic_linewidth_hz": 1e-10, "membrane.occupation": context.tilde[1] * 1e10}
    )
    V = conditional(e.system).covariance
    for found, form in zip(
        (V[:, 0, 0], V[:, 2, 2], 2 * V[:, 0, 2]), conditional_S20(C_S, C_M_, eps, 1.0, context.r), strict=True
    ):
        assert_allclose(found, form, rtol=1e-8)
    rates = context.rates(C_S, C_M_, np.pi / 4, np.pi / 4, eps)
    V = conditional(context.at(C_S, C_M_, np.pi / 4, np.pi / 4, eps).system).covariance
    state = (V[:, 0, 0], V[:, 2, 2], 2 * V[:, 0, 2])
    assert np.max(np.abs(riccati_S19(state, rates, False))) < 1e-8 * C_S.max()
    assert np.max(np.abs(riccati_S19(state, rates, True))) > 1.0


# -- optima -----------------------------------------------------------------------------------------------------------


def search(c: Huang, o: dict, result: str, over, ties=None, **values):
    e = c.experiment(o["eps"]).with_values({"spin.readout_rate_hz": o["C_S"] * c.tilde[0]} | values)
    return optimize(e, result, over | C_M, ties=MEMBRANE | (ties or {}))


def test_optima_with_free_angles(context, huang_numbers):
    for o in huang_numbers["unconditional_optimum_R_nonzero"]:
        found = search(context, o, XI, ANGLES)
        assert found.status == "optimum"
        assert found.value == pytest.approx(o["xi_g"], rel=1e-8)
        theta = [np.radians(found.at[f"{m}.coupling_angle_deg"]) for m in ("spin", "membrane")]
        assert theta == pytest.approx([o["theta_S"], o["theta_M"]], abs=1e-5)
        assert found.at["C_M"] == pytest.approx(o["C_M"], rel=1e-4)
        assert ("membrane.coupling_angle_deg" in found.on_bound) == o["theta_M_on_boundary_pi_over_2"]
        assert found.flat == []
        assert evaluate(XI_C, found.experiment) == pytest.approx(o["xi_cond_same_parameters"], rel=1e-8)
        assert evaluate("unconditional.log_negativity", found.experiment) * np.log(2) == pytest.approx(
            o["E_N_nats"], rel=1e-7
        )


def test_optima_with_equal_angles(context, huang_numbers):
    for o in huang_numbers["unconditional_optimum_R_zero"]:
        found = search(context, o, XI, {"spin.coupling_angle_deg": (0.0, 90.0)}, EQUAL)
        if o["xi_g"] is None:
            assert found.status == "none"
            assert found.value is None
            assert found.at == {}
            assert "no entanglement" in found.reason
            continue
        assert found.value == pytest.approx(o["xi_g"], rel=1e-8)
        assert np.radians(found.at["spin.coupling_angle_deg"]) == pytest.approx(o["theta"], abs=1e-5)
        assert found.fields["membrane.coupling_angle_deg"] == found.at["spin.coupling_angle_deg"]
        assert found.at["C_M"] == pytest.approx(o["C_M"], rel=1e-4)


def test_optima_of_the_conditional_scheme(context, huang_numbers):
    quarter = {"spin.coupling_angle_deg": 45.0, "membrane.coupling_angle_deg": 45.0}
    for o in huang_numbers["conditional_QND_optimum"]:
        found = search(context, o, XI_C, {}, **quarter)
        assert found.value == pytest.approx(o["xi_g"], rel=1e-8)
        assert found.at["C_M"] == pytest.approx(o["C_M"], rel=1e-4)
    for o in huang_numbers["conditional_full_optimum_stable"]:
        found = search(context, o, XI_C, {"spin.coupling_angle_deg": (0.0, 90.0)}, **quarter)
        if not o["gamma_S_positive"]:
            continue
        assert found.value == pytest.approx(o["xi_g"], rel=1e-8)
        assert np.radians(found.at["spin.coupling_angle_deg"]) == pytest.approx(o["theta_S"], abs=1e-5)
        assert found.at["C_M"] == pytest.approx(o["C_M"], rel=1e-4)


def test_same_parameters_can_beat_qnd(context, huang_numbers):
    """At C_S = 3 the unconditional optimum, measured, is better than the optimal QND: QND is not the conditional optimum."""
    for o in huang_numbers["unconditional_optimum_R_nonzero"]:
        if o["C_S"] == 3:
            qnd = next(q for q in huang_numbers["conditional_QND_optimum"] if (q["eps"], q["C_S"]) == (o["eps"], 3))
            assert o["xi_cond_same_parameters"] < context.optimum(3.0, o["eps"], "QND").value
            assert context.optimum(3.0, o["eps"], "QND").value == pytest.approx(qnd["xi_g"], rel=1e-8)


def test_conditional_optimum_is_flat_in_theta_m(context):
    """Theta_M and C_M enter by Gamma_M (1 + sin 2 theta_M) alone: one flat direction, reported."""
    e = context.experiment(0.1).with_values(
        {"spin.readout_rate_hz": 100 * context.tilde[0], "spin.coupling_angle_deg": 45.0}
    )
    found = optimize(e, XI_C, {"membrane.coupling_angle_deg": (30.0, 80.0)} | C_M, ties=MEMBRANE)
    assert len(found.flat) == 1
    assert set(found.flat[0]) == {"membrane.coupling_angle_deg", "C_M"}


def test_beyond_pi_over_2(context, huang_numbers):
    for o in huang_numbers["extended_theta_M_beyond_pi_over_2"]["table"]:
        found = search(
            context, o, XI, {"spin.coupling_angle_deg": (0.0, 90.0), "membrane.coupling_angle_deg": (0.0, 180.0)}
        )
        assert found.value == pytest.approx(o["xi_g"], rel=1e-8)
        assert np.radians(found.at["membrane.coupling_angle_deg"]) == pytest.approx(o["theta_M"], abs=1e-5)


@pytest.mark.slow
def test_thresholds_by_the_optimisers_verdict(context, huang_numbers):
    expected = huang_numbers["thresholds"]["uncond_R_zero_min_CS"]
    for eps, key in ((0.0, "eps0"), (0.1, "eps0p1")):
        assert context.threshold(eps, "R") == pytest.approx(context.r / (2 * (1 - eps)), rel=3e-4)
        assert context.threshold(eps, "R0") == pytest.approx(expected[key]["C_S"], rel=3e-4)


@pytest.mark.slow
def test_free_weight_has_no_attainable_optimum(context, huang_numbers):
    """E_N at free g runs to the edge of stability for C_S = 10: said so; with a least gamma_S there is an optimum on it."""
    e = context.experiment(0.0).with_values({"spin.readout_rate_hz": 10 * context.tilde[0]})
    free = optimize(e, "unconditional.epr.variance", ANGLES | C_M, ties=MEMBRANE, starts=8)
    assert free.status == "not converged"
    assert "edge of stability" in free.reason
    infimum = next(o for o in huang_numbers["free_g_joint_infimum"]["table"] if (o["eps"], o["C_S"]) == (0, 10))
    assert infimum["gamma_S_to_zero_boundary"]
    values = []
    for least in (3000.0, 30.0):
        limit = f"dynamics.linewidth_hz.spin >= {least}"
        held = optimize(e, "unconditional.epr.variance", ANGLES | C_M, ties=MEMBRANE, constraints=[limit], starts=8)
        assert held.status == "optimum"
        assert held.constraints[0]["active"]
        assert held.constraints[0]["value"] == pytest.approx(least, rel=1e-5)
        values.append(held.value)
    assert values[0] > values[1] > infimum["xi_min_over_g_and_all"]
    assert values[1] == pytest.approx(infimum["xi_min_over_g_and_all"], rel=1e-2)


# -- asymptotics and bounds -------------------------------------------------------------------------------------------


def test_asymptotics(context, huang_numbers):
    a = huang_numbers["asymptotics"]
    for n in (0, 1, 10):
        assert exact_scaling(4 / 3, n)[0] == pytest.approx(a["K_uncond_exact"][f"nS={n}"][0], rel=2e-5)
        assert exact_scaling_dissipative(4 / 3, n)[0] == pytest.approx(a["K_R0_exact"][f"nS={n}"][0], rel=2e-5)
    row = next(r for r in a["table"] if r["C_S"] == 1000)
    best = context.optimum(1000.0, 0.1, "R0")
    theta = np.radians(best.at["spin.coupling_angle_deg"])
    assert dissipative_S21(1000.0, best.at["C_M"], theta, 0.1, context.r) / best.value == pytest.approx(
        row["S21_at_R0_optimum_over_exact_eps0p1"], rel=1e-7
    )
    assert np.sin(2 * theta) == pytest.approx(row["sin2theta_R0_eps0p1_exact"], rel=1e-7)
    assert angle_S22(1000.0, 0.1, context.r) == pytest.approx(row["sin2theta_eps0p1_S22_corrected"], rel=1e-12)
    assert angle_S22(1000.0, 0.1, context.r, True) == pytest.approx(row["sin2theta_eps0p1_S22_printed"], rel=1e-12)
    assert loss_bound(0.1) == pytest.approx(a["bound_cond_eps0p1"], rel=1e-12)
    assert loss_bound_dissipative(0.1) == pytest.approx(a["bound_R0_exact_eps0p1"], rel=1e-12)
    # at eps = 0 the optimum approaches K/sqrt(C_S), not the printed coefficient
    far = context.optimum(1e6, 0.0).value * 1e3
    assert far == pytest.approx(exact_scaling(context.r, 1.0)[0], rel=1e-3)


def test_force_sensing_against_the_standard_quantum_limit(context, huang_numbers):
    """Fig. S5 at the notes' optima: V_H/V_M for four signal widths; the SQL is one-dimensional."""
    signal = Signal("membrane.bath", 0.0)
    optima = [o for o in huang_numbers["unconditional_optimum_R_nonzero"] if o["eps"] == 0]
    for row in huang_numbers["sensing_FigS5_eps0"]["table"]:
        o = next(o for o in optima if o["C_S"] == row["C_S"])
        e = context.at(o["C_S"], o["C_M"], o["theta_S"], o["theta_M"])
        for width in (1, 10, 100, 1000):
            V = waveform_variance(e.system, signal, Lorentzian(width * context.tilde[1]))
            assert V / context.sql(float(width)) == pytest.approx(row[f"VH_over_VM_gsig={width}*gtM"], rel=1e-8)


def test_laboratory_frame_approaches_the_rotating_wave(context):
    """Spin and cavity in full: first order in Gamma/omega and gamma/kappa, for the unconditional state."""
    errors = [context.deviation(w, w) for w in (1e8, 1e9, 1e10)]
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(10, rel=0.02)
    assert 0 < errors[2] < 3e-4
    # the map itself: rates and angle of the shipped experiment come back
    membrane = context.laboratory(1e11, 1e11).rotating_wave().element("membrane")
    assert membrane.readout_rate_hz == pytest.approx(context.base.value("membrane.readout_rate_hz"), rel=1e-4)
    assert membrane.coupling_angle_deg == pytest.approx(context.base.value("membrane.coupling_angle_deg"), rel=1e-4)
    with pytest.raises(InputError, match="overcoupling"):
        _ = Experiment.load("moller2017").rotating_wave()


def test_map_of_microscopic_parameters(context):
    """(S8)-(S9): Gamma_B,P = 4 g^2 |L(+-Omega)|^2/kappa, gamma_M and the spring shift from L, written out here."""
    cavity = context.laboratory(1e9, 1e9).element("membrane")
    _, mapped = cavity.rotating_wave()
    kappa, delta, g = cavity.cavity_linewidth_hz, cavity.detuning_hz, cavity.coupling() / (2 * np.pi)
    f = cavity.effective_mechanics()[0]
    L = lambda W: (kappa / 2) / (kappa / 2 - 1j * (delta + W))
    B, P = (4 * g**2 / kappa * abs(L(s * f)) ** 2 for s in (1, -1))
    theta = np.radians(mapped.coupling_angle_deg)
    assert mapped.readout_rate_hz * np.sin(theta) ** 2 == pytest.approx(B, rel=1e-12)
    assert mapped.readout_rate_hz * np.cos(theta) ** 2 == pytest.approx(P, rel=1e-12)
    both = L(f) - np.conj(L(-f))
    assert mapped.effective_linewidth() == pytest.approx(0.1 + 4 * g**2 / kappa * both.real, rel=1e-9)
    # (S6) prints Omega + 2 g^2 Im[...]/kappa for a shift that lowers the frequency with their sign of the detuning
    assert abs(f - cavity.mechanical_hz) == pytest.approx(abs(2 * g**2 / kappa * both.imag), rel=5e-3)


def test_epr_formula():
    assert epr(1.0, 2.0, -1.0, 1.0) == pytest.approx(2.0)
    assert VACUUM == 0.5


def test_unstable_point_is_refused(context):
    e = context.at(100.0, 50.0, 0.5, 1.2)
    with pytest.raises(ModelError, match="spin"):
        evaluate(XI, e)


@pytest.mark.parametrize(("turn", "angle"), [(0.0, 0.0), (33.0, 20.0)])
def test_rotating_wave_of_a_hybrid_keeps_the_conditional_state(turn, angle):
    """Both turns of the sidebands by the cavity, in and out: what the detector sees is the same, at any homodyne angle."""
    omega = 1e9
    cavity = OptomechanicalCavity(
        name="membrane", mechanical_hz=omega, mechanical_linewidth_hz=0.1, bath_occupation=2e4, cavity_linewidth_hz=omega,
        overcoupling=1.0, detuning_hz=-0.4 * omega, coupling_hz=3e6,
    )  # fmt: skip
    spin = SpinOscillator(
        name="spin", larmor_offset_hz=0.0, intrinsic_linewidth_hz=500.0, readout_rate_hz=2e4, tensor_ratio=0.05, occupation=0.5,
    )  # fmt: skip
    e = Experiment(
        [spin, Loss(name="link", transmission=0.9), Rotation(name="turn", angle_deg=turn), cavity,
         Homodyne(name="d", efficiency=0.8, angle_deg=angle)], modes=("spin", "membrane"),
    )  # fmt: skip
    for result in ("unconditional.epr.variance", "conditional.epr.variance", "conditional.ppt_min"):
        assert evaluate(result, e.rotating_wave()) == pytest.approx(evaluate(result, e), rel=5e-3), result
    with pytest.raises(InputError, match="apart"):
        e.with_values({"spin.larmor_offset_hz": 2e3}).rotating_wave()


def test_readout_pair_in_a_batch_with_a_blind_point(context):
    """A point whose light reads nothing of the first mode is NaN, not the end of the batch."""
    e = context.base.with_values({"spin.readout_rate_hz": np.array([0.0, 7.5e5])})
    found = evaluate("conditional.epr_readout.variance", e)
    assert np.isnan(found[0])
    assert found[1] == pytest.approx(evaluate(XI_C, context.base), rel=1e-12)
