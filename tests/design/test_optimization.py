"""The optimiser, expressions and the batched Newton method: closed-form optima, SciPy as a second route, verdicts, bad input."""

import json

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import optimize as scipy_optimize

from backaction import Experiment, evaluate
from backaction.design.optimization import optimize
from backaction.design.problems import Problem, ResultObjective, read_ties, variables
from backaction.errors import InputError, ModelError
from backaction.experiment.ties import expression
from backaction.numerics.newton import minimise
from support.commands import call, schema

XI = "unconditional.epr_readout.variance"


@pytest.fixture(scope="module")
def huang():
    return Experiment.load("huang2018")


# -- expressions ------------------------------------------------------------------------------------------------------


@given(st.floats(0.1, 10), st.floats(0.1, 10))
def test_expressions_are_evaluated_and_differentiated(a, b):
    e = expression("2*spin.x**2 / (b - -1.5) + sqrt(spin.x)*cos_deg(b) - exp(-b)")
    assert e.names == ("spin.x", "b")
    values = {"spin.x": a, "b": b}
    expected = 2 * a**2 / (b + 1.5) + np.sqrt(a) * np.cos(np.radians(b)) - np.exp(-b)
    assert e(values.get) == pytest.approx(expected, rel=1e-13)
    slope = np.imag(e(lambda n: values[n] + (1e-30j if n == "spin.x" else 0))) / 1e-30
    assert slope == pytest.approx(4 * a / (b + 1.5) + np.cos(np.radians(b)) / (2 * np.sqrt(a)), rel=1e-12)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')",
        "spin.x if 1 else 2",
        "[1,2]",
        "f(x)",
        "x and y",
        "'a'",
        "",
        "spin..x",
        "lambda: 1",
        "True",
        "sqrt(1, 2)",
        "a[0].b",
    ],
)
def test_expressions_allow_nothing_else(text):
    with pytest.raises(InputError):
        expression(text)


# -- the Newton method ------------------------------------------------------------------------------------------------


def test_newton_on_many_quadratics_with_bounds():
    """Convex quadratics on the box: the minimum of each row is SciPy's (projected), found from anywhere."""
    rng = np.random.default_rng(0)
    n, k = 60, 3
    M = rng.normal(size=(n, k, k))
    H = M @ np.swapaxes(M, -1, -2) + 0.1 * np.eye(k)
    centre = rng.uniform(-0.6, 1.6, (n, k))

    def function(z, rows):
        d = z - centre[rows]
        g = np.einsum("nij,nj->ni", H[rows], d)
        return 1.0 + 0.5 * np.sum(d * g, axis=-1), g

    found = minimise(function, rng.random((n, k)))
    assert found.converged.all()
    for i in range(n):
        best = scipy_optimize.minimize(
            lambda z, i=i: 1 + 0.5 * (z - centre[i]) @ H[i] @ (z - centre[i]), [0.5] * k, jac=lambda z, i=i: H[i] @ (z - centre[i]),
            bounds=[(0, 1)] * k, method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-12},
        )  # fmt: skip
        assert found.value[i] == pytest.approx(best.fun, rel=1e-10)
        assert_allclose(found.z[i], best.x, atol=1e-5)


def test_newton_treats_missing_values_as_walls():
    """F = x - log(x - 0.3) has no value below 0.3; the minimum at 1 lies on the bound, at 0.8 within for the slope 2."""

    def function(z, rows):
        x = z[:, 0]
        slope = np.array([1.0, 2.0])[rows]
        with np.errstate(all="ignore"):
            value = np.where(x > 0.3, slope * x - np.log(x - 0.3), np.nan)
        return value, np.where(x > 0.3, slope - 1 / (x - 0.3), np.nan)[:, None]

    found = minimise(function, np.array([[0.31], [0.99]]))
    assert found.z[:, 0] == pytest.approx([1.0, 0.8], abs=1e-12)
    assert found.converged.all()


# -- optimize ---------------------------------------------------------------------------------------------------------


def test_exact_gradient_of_a_problem_with_ties(huang):
    """The chain through ties and scales, by differences."""
    ties = read_ties(huang, {
        "membrane.readout_rate_hz": "C * spin.readout_rate_hz", "membrane.coupling_angle_deg": "20 + spin.coupling_angle_deg",
        "link.transmission": "1 - 1/(1 + C)**2",
    })  # fmt: skip
    chosen = variables(huang, {"spin.coupling_angle_deg": (45.0, 60.0), "C": (0.1, 100.0)}, ties)
    assert [v.log for v in chosen] == [False, True]
    problem = Problem(huang, ResultObjective(XI), chosen, ties)
    z = np.random.default_rng(1).uniform(0.2, 0.8, (5, 2))
    value, slope = problem(z)
    for k in range(2):
        h = np.zeros(2)
        h[k] = 1e-6
        assert_allclose(slope[:, k], (problem(z + h)[0] - problem(z - h)[0]) / 2e-6, rtol=1e-6)
    one = problem.at(z[2])
    assert evaluate(XI, one) == pytest.approx(value[2], rel=1e-13)
    assert one.value("membrane.coupling_angle_deg") == pytest.approx(20 + one.value("spin.coupling_angle_deg"))


def test_lab_frame_optimum_agrees_with_scipy():
    """Best detuning and coupling of Thomas's membrane for V_c: Nelder-Mead from the answer finds nothing better."""
    e = Experiment.load("thomas2021").with_values({"spin.larmor_offset_hz": 0.0})
    over = {"membrane.coupling_hz": (3e4, 3e5), "phase.angle_deg": (120.0, 240.0), "spin.larmor_offset_hz": (-2e4, 2e4)}
    found = optimize(e, "conditional.epr.variance", over, starts=10)
    assert found.status == "optimum"
    assert found.on_bound == []
    paths, scale = list(over), np.array([1e5, 10.0, 1e3])

    def function(x):
        return float(evaluate("conditional.epr.variance", e.with_values(dict(zip(paths, x * scale, strict=True)))))

    start = np.array([found.at[p] for p in paths]) / scale
    best = scipy_optimize.minimize(
        function, start * 1.03, method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-13}
    )
    assert found.value <= best.fun * (1 + 1e-10)
    assert found.value == pytest.approx(best.fun, rel=1e-9)
    assert_allclose(start, best.x, rtol=1e-4, atol=1e-4)


def test_maximise_is_minimise_of_the_opposite(huang):
    over = {"membrane.coupling_angle_deg": (46.0, 89.0), "membrane.readout_rate_hz": (1e4, 1e8)}
    most = optimize(huang, "unconditional.log_negativity", over, maximize=True, starts=8)
    least = optimize(huang, "unconditional.ppt_min", over, starts=8)
    assert most.status == least.status == "optimum"
    assert most.value == pytest.approx(-np.log2(2 * least.value), rel=1e-10)
    assert most.at["membrane.readout_rate_hz"] == pytest.approx(least.at["membrane.readout_rate_hz"], rel=1e-6)
    assert np.all(np.array(most.eigenvalues) < 0)
    assert np.all(np.array(least.eigenvalues) > 0)


def test_constraints_that_do_not_bind_change_nothing(huang):
    over = {"spin.coupling_angle_deg": (40.0, 60.0), "membrane.coupling_angle_deg": (46.0, 89.0)}
    free = optimize(huang, XI, over, starts=8)
    held = optimize(huang, XI, over, constraints=["dynamics.margin_hz >= 1 Hz", "conditional.purity <= 1"], starts=8)
    assert held.value == pytest.approx(free.value, rel=1e-9)
    assert not any(c["active"] for c in held.constraints)
    tight = optimize(huang, XI, over, constraints=["dynamics.margin_hz >= 20 kHz"], starts=8)
    assert tight.value > free.value
    assert tight.constraints[0]["active"]
    # the same point by tying the spin's angle to the margin: gamma_0 - Gamma cos 2 theta = 20 kHz
    theta = np.degrees(np.arccos((5e3 - 20e3) / 750e3) / 2)
    by_hand = optimize(
        huang.with_values({"spin.coupling_angle_deg": theta}),
        XI,
        {"membrane.coupling_angle_deg": (46.0, 89.0)},
        starts=8,
    )
    assert tight.value == pytest.approx(by_hand.value, rel=1e-8)


def test_constraints_that_cannot_be_met():
    e = Experiment.load("thomas2021")
    found = optimize(
        e, "conditional.epr.variance", ["spin.readout_rate_hz"], constraints=["dynamics.margin_hz >= 1e9"], starts=4
    )
    assert found.status == "none"
    assert "no point meets the constraints" in found.reason


def test_constrained_maximum_of_a_measure_that_is_zero_in_places():
    from scipy.optimize import brentq

    e, field = Experiment.load("thomas2021"), "spin.readout_rate_hz"
    found = optimize(
        e,
        "conditional.log_negativity",
        ["spin.readout_rate_hz"],
        maximize=True,
        constraints=["conditional.occupation.spin <= 2"],
        starts=8,
    )
    assert found.status == "optimum"
    assert found.constraints[0]["active"]
    # entanglement grows with the readout until the constraint: the rate at which it is active, by bisection
    at = brentq(lambda rate: float(evaluate("conditional.occupation.spin", e.with_values({field: rate}))) - 2, 3e3, 1e4)
    assert found.at[field] == pytest.approx(at, rel=1e-6)
    assert found.value == pytest.approx(
        float(evaluate("conditional.log_negativity", e.with_values({field: at}))), rel=1e-6
    )
    assert found.value == pytest.approx(0.0907081, abs=1e-6)


def test_own_range_is_not_an_optimum(huang):
    """Without loss of generality more spin cooperativity is better: the search says that it runs away, and to where."""
    found = optimize(
        huang, XI, ["spin.readout_rate_hz"], ties={"membrane.readout_rate_hz": "1.1*spin.readout_rate_hz"}, starts=6
    )
    assert found.status == "none"
    assert found.value is None
    assert "spin.readout_rate_hz" in found.reason
    given_range = optimize(
        huang,
        XI,
        {"spin.readout_rate_hz": (1e5, 1e7)},
        ties={"membrane.readout_rate_hz": "1.1*spin.readout_rate_hz"},
        starts=6,
    )
    assert given_range.status == "optimum"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (dict(over=["spin.coupling_angel_deg"]), "did you mean 'coupling_angle_deg'"),
        (dict(over={"C": (0.1, 2.0)}), "no tie uses it"),
        (dict(over={"C": None}, ties={"spin.readout_rate_hz": "C*1"}), "give its range"),
        (dict(over={"link.transmission": (0.5, 1.5)}), "allowed is 0 to 1"),
        (dict(over={"link.transmission": (0.9, 0.5)}), "lower end"),
        (dict(over={}), "at least one field"),
        (dict(over=["link.transmission"], ties={"link.transmission": "0.5"}), "tied"),
        (dict(over=["link.transmission"], constraints=["dynamics.margin >= 3"]), "did you mean"),
        (dict(over=["link.transmission"], constraints=["dynamics.margin_hz > 3"]), "expected RESULT >="),
        (dict(over=["spin.occupation"], objective="unconditional.epr_readout.varianc"), "did you mean"),
        (dict(over=["link.transmission"], ties={"spin.occupation": "1/0"}), "division by zero"),
        (dict(over=["link.transmission"], ties={"spin.occupation": "Q*2"}), "Q=LO:HI"),
    ],
)
def test_bad_requests(huang, change, word):
    change = {"objective": XI} | change
    with pytest.raises(InputError, match=word):
        optimize(huang, **change)


def test_nowhere_stable(huang):
    with pytest.raises(ModelError, match="no value anywhere"):
        optimize(huang, XI, {"spin.coupling_angle_deg": (0.0, 20.0)}, starts=4)


# -- command line -----------------------------------------------------------------------------------------------------


def test_command(capsys, tmp_path):
    out_file = tmp_path / "best.toml"
    code, out, err = call(
        capsys, "optimize", "huang2018", "--minimize", XI, "--over",
        "spin.coupling_angle_deg=0:90,membrane.coupling_angle_deg=0:90 deg,membrane.readout_rate_hz=1 kHz:1 GHz", "-o", out_file, "--json",
    )  # fmt: skip
    assert code == 0, err
    found = json.loads(out)
    jsonschema.validate(found, schema("optimize"))
    assert found["status"] == "optimum"
    assert found["value"] == pytest.approx(0.2031277004874508, rel=1e-10)
    again = Experiment.load(out_file)
    assert evaluate(XI, again) == pytest.approx(found["value"], rel=1e-14)
    code, out, err = call(capsys, "optimize", "huang2018", "--minimize", XI, "--over", "C=1:1e6",
                          "--tie", "membrane.readout_rate_hz=C*10000.05", "--require", "dynamics.margin_hz>=1")  # fmt: skip
    assert code == 0, err
    assert "(tied)" in out


def test_command_says_none_with_exit_code_3(capsys):
    code, out, err = call(
        capsys, "optimize", "huang2018", "--minimize", XI, "--over", "spin.coupling_angle_deg=0:90,membrane.readout_rate_hz=1:1e11",
        "--tie", "membrane.coupling_angle_deg=spin.coupling_angle_deg", "--set", "spin.readout_rate_hz=7500", "--json",
    )  # fmt: skip
    found = json.loads(out)
    jsonschema.validate(found, schema("optimize"))
    assert code == 3
    assert found["status"] == "none"
    assert found["value"] is None
    assert "no entanglement" in err


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--over", "link.transmission"], "--minimize RESULT or --maximize"),
        (["--minimize", XI, "--maximize", XI, "--over", "link.transmission"], "not both"),
        (["--minimize", XI, "--over", "link.transmission=1"], "LO:HI"),
        (["--minimize", XI, "--over", "link.transmision=0:1"], "did you mean 'link.transmission'"),
        (["--minimize", XI, "--over", "link.transmission", "--tie", "x"], "FIELD=EXPRESSION"),
        (["--minimize", XI, "--over", "link.transmission", "--tie", "spin.occupation=os.system"], "no element 'os'"),
    ],
)
def test_command_refuses(capsys, arguments, word):
    code, out, err = call(capsys, "optimize", "huang2018", *arguments)
    assert code == 2
    assert word in err
    assert out == ""
    assert err.count("\n") == 1
