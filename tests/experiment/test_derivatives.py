import mpmath as mp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from backaction import budget, gradient
from backaction.errors import InputError
from backaction.experiment import results
from support import oracle

mp_results = {
    "conditional.epr.variance": lambda u, c: oracle.epr(c)[0],
    "conditional.epr.weight": lambda u, c: oracle.epr(c)[1],
    "conditional.epr.angle_deg": lambda u, c: oracle.epr(c)[2] * 180 / mp.pi,
    "unconditional.epr.variance": lambda u, c: oracle.epr(u)[0],
    "unconditional.epr_at_conditional.variance": lambda u, c: oracle.epr_at(u, *oracle.epr(c)[1:]),
    "conditional.log_negativity": lambda u, c: oracle.log_negativity(c),
    "conditional.purity": lambda u, c: 1 / (4 * mp.sqrt(mp.det(c[:4, :4]))),
    "unconditional.occupation.spin": lambda u, c: (u[2, 2] + u[3, 3] - 1) / 2,
}
PARAMETERS = [k for k in oracle.TABLE if k != "offset"] + ["offset"]


@pytest.fixture(scope="module")
def digits40():
    """Central differences in 40 digits of the independent oracle, for every result and parameter."""
    out = {}
    with mp.workdps(40):
        base = {k: mp.mpf(v) for k, v in oracle.TABLE.items()}
        seed = oracle.conditional(base)
        for name in PARAMETERS:
            h = abs(base[name]) * mp.mpf(10) ** -11
            values = []
            for sign in (1, -1):
                p = base | {name: base[name] + sign * h}
                u, c = oracle.unconditional(p), oracle.conditional(p, start=seed)
                values.append({k: f(u, c) for k, f in mp_results.items()})
            for k in mp_results:
                out[k, name] = float((values[0][k] - values[1][k]) / (2 * h))
    return out


@pytest.mark.slow
@pytest.mark.parametrize("result", mp_results)
def test_gradients_equal_forty_digit_differences(result, digits40, thomas):
    """Every result, every parameter of the paper, to 1e-9 of the largest logarithmic derivative."""
    fields = [oracle.FIELD[p][0] for p in PARAMETERS]
    factor = np.array([oracle.FIELD[p][1] for p in PARAMETERS])
    size = np.array([abs(oracle.TABLE[p]) for p in PARAMETERS])
    ours = gradient(result, thomas, fields) * factor
    exact = np.array([digits40[result, p] for p in PARAMETERS])
    assert_allclose(ours * size, exact * size, rtol=1e-8, atol=1e-9 * np.max(np.abs(exact * size)))


def test_sensitivity_table(numbers, thomas):
    """d ln V/d ln parameter at fixed Larmor offset in Hz, against the notes' table."""
    fixed = thomas.with_values({"spin.larmor_offset_hz": 1e3 * numbers["TABLE"]["headline"]["detuning_kHz"]})
    names = {
        "g_kHz": "g",
        "kappa_MHz": "kappa",
        "Delta_MHz": "Delta",
        "nu": "nu",
        "eta": "eta",
        "S_bb_SN": "S_bb",
        "n_M0": "n_M0",
    }
    results_ = ["conditional.epr.variance", "unconditional.epr_at_conditional.variance", "unconditional.epr.variance"]
    for theirs, ours in names.items():
        field = oracle.FIELD[ours][0]
        reference = numbers["TABLE"]["sensitivities"][f"dlnV/dln {theirs}"]
        for name, expected in zip(results_, reference, strict=True):
            value = results.evaluate(name, fixed)
            found = gradient(name, fixed, [field])[0] * fixed.value(field) / value
            assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_ten_thousand_points_equal_one_by_one(thomas):
    rng = np.random.default_rng(3)
    n = 10_000
    values = {"phase.angle_deg": rng.uniform(170, 190, n), "link.transmission": rng.uniform(0.3, 0.9, n)}
    batch = thomas.with_values(values)
    fields = ["phase.angle_deg", "membrane.coupling_hz", "detector.efficiency"]
    G = gradient("conditional.epr.variance", batch, fields)
    V = results.evaluate("conditional.epr.variance", batch)
    assert G.shape == (n, 3)
    for k in rng.integers(0, n, 25):
        one = thomas.with_values({p: float(v[k]) for p, v in values.items()})
        assert_allclose(V[k], results.evaluate("conditional.epr.variance", one), rtol=1e-11)
        assert_allclose(G[k], gradient("conditional.epr.variance", one, fields), rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize(
    "result",
    ["retrodicted.epr.variance", "conditional.duan", "conditional.ppt_min", "conditional.steering.spin->membrane", "unconditional.ppt_min"],
)  # fmt: skip
def test_other_results_against_differences(result, thomas):
    """Measures that the oracle does not have: fourth-order central differences in floats, 1e-6."""
    experiment = (
        thomas.with_values({"link.transmission": 0.95, "spin.broadband_noise_sn": 0.1})
        if "steering" in result
        else thomas
    )
    for field in ("link.transmission", "membrane.detuning_hz", "spin.readout_rate_hz", "detector.angle_deg"):
        x = float(experiment.value(field))
        h = 2e-4 * abs(x)
        f = [results.evaluate(result, experiment.with_values({field: x + k * h})) for k in (-2, -1, 1, 2)]
        numeric = (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * h)
        assert_allclose(gradient(result, experiment, [field])[0], numeric, rtol=1e-6, atol=1e-9 * abs(f[0] / x))


def test_spectrum_gradient(thomas):
    f = np.linspace(1.34e6, 1.40e6, 9)
    fields = ["phase.angle_deg", "membrane.coupling_hz", "spin.larmor_offset_linewidths", "detector.efficiency"]
    G = gradient("spectrum", thomas, fields, frequency_hz=f)
    for k, field in enumerate(fields):
        x = float(thomas.value(field))
        h = 1e-4 * abs(x)
        s = [budget(thomas.with_values({field: x + j * h}).system, f).total for j in (-2, -1, 1, 2)]
        numeric = (s[0] - 8 * s[1] + 8 * s[2] - s[3]) / (12 * h)
        assert_allclose(G[k], numeric, rtol=1e-6, atol=1e-8 * np.max(np.abs(numeric)))


def test_covariance_gradient_agrees_with_the_adjoint(thomas):
    """Forward and adjoint routes: d occupation from dV."""
    fields = ["link.transmission", "membrane.coupling_hz"]
    dV = gradient("conditional.covariance", thomas, fields)
    expected = gradient("conditional.occupation.membrane", thomas, fields)
    assert_allclose((dV[:, 0, 0] + dV[:, 1, 1]) / 2, expected, rtol=1e-10)


def test_gradient_is_zero_and_finite_where_nothing_is_entangled(thomas):
    assert_allclose(gradient("unconditional.log_negativity", thomas, ["link.transmission"]), 0.0)


def test_gradient_at_a_field_that_is_zero(thomas):
    """Electronic noise at 0 has a one-sided domain; its derivative is finite and positive."""
    assert gradient("conditional.epr.variance", thomas, ["detector.electronic_noise_sn"])[0] > 0


@pytest.mark.parametrize(
    ("result", "fields", "message"),
    [
        ("conditional.epr.varience", ["link.transmission"], "did you mean 'epr.variance'"),
        ("conditonal.duan", ["link.transmission"], "did you mean 'conditional'"),
        ("conditional.duan", ["link.transmision"], "did you mean 'transmission'"),
        ("conditional.duan", [], "at least one field"),
        ("conditional.duan", ["spin.mass"], "not a number"),
    ],
)
def test_wrong_names_are_refused(result, fields, message, thomas):
    with pytest.raises(InputError, match=message):
        gradient(result, thomas, fields)
