"""The posterior density: against SciPy's distributions bin by bin, its gradient, its data, and the time domain."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from backaction import Experiment, Homodyne, Prior, SpinOscillator, simulate
from backaction.errors import InputError, ModelError
from backaction.inference.campaign import Campaign, Likelihood
from backaction.inference.data import simulated
from backaction.inference.target import SCALE, Target
from backaction.inference.time_domain import log_likelihood
from backaction.records.shot_level import ShotNoise
from backaction.records.simulation import VOLT_DENSITY
from backaction.records.spectrum import averaged_spectrum
from backaction.systems.sampled import Digitiser, discretise

PRIORS = {
    "s.larmor_hz": Prior(-3e5, 2e3),
    "s.readout_rate_hz": Prior(median=8e3, factor=1.1),
    "s.intrinsic_linewidth_hz": Prior(lower=5e2, upper=6e3),
    "d.efficiency": Prior(0.9, 0.08),
}


def spin(**more):
    values = dict(larmor_hz=-3e5, intrinsic_linewidth_hz=2e3, readout_rate_hz=8e3, tensor_ratio=0.05, occupation=1.0)
    return SpinOscillator(name="s", **values | more)


def experiment(priors=PRIORS, **more):
    return Experiment([spin(**more), Homodyne(name="d", efficiency=0.8)], priors=priors)


def campaign(likelihood=Likelihood(), records=1, vary=None, width=400.0, **more):
    made = [simulated(f"r{k}", experiment(), (2.4e5, 3.6e5), 0.05, k, width, Digitiser(2e6)) for k in range(records)]
    made = [replace(r, calibrated_by="same") for r in made]
    return Campaign("c", tuple(made), PRIORS, vary or {}, likelihood=likelihood, **more)


def reference(target, theta, kind, error=0.0):
    """Ln likelihood from SciPy's densities and the exact sampled model, bins integrated by brute force."""
    total = 0.0
    for r in target.campaign.records:
        values = {k: v for k, v in theta.items() if "." in k and not k.startswith(("calibration", "likelihood"))}
        e = r.experiment.with_values(values)
        f, w = r.spectrum.frequency_hz, r.spectrum.resolution_hz
        x, v = np.polynomial.legendre.leggauss(9)
        model = (
            discretise(e.system, *r.digitiser).spectrum((f[:, None] + w / 2 * x).ravel()).reshape(f.size, -1) @ v / 2
        )
        model = model * theta[SCALE]
        y, N = r.density_sn, 1 / (1 / r.averages + error**2)
        if kind == "gamma":
            total += np.sum(stats.gamma.logpdf(y, N, scale=model / N))
        else:
            total += np.sum(stats.norm.logpdf(y, model, 0.08 * y + 0.1))
    return total


@pytest.mark.parametrize(("kind", "error"), [("gamma", 0.0), ("gamma", 0.05), ("thomas2021", 0.0)])
def test_density_is_that_of_scipy(kind, error):
    target = Target(campaign(Likelihood(kind, error), records=2, width=100.0))
    rng = np.random.default_rng(0)
    for _ in range(3):
        u = rng.standard_normal(target.size)
        theta = dict(zip(target.names, target.values(u), strict=True))
        want = reference(target, theta, kind, error) - 0.5 * u @ u
        assert_allclose(target.evaluator().density(u), want, rtol=2e-5)


def test_model_error_is_a_parameter_with_a_gradient():
    """Against SciPy with that error; the gradient through N_e against differences."""
    target = Target(campaign(Likelihood("gamma", Prior(lower=0.0, upper=0.2))))
    run = target.evaluator()
    u = np.array([0.1, -0.2, 0.3, 0.2, 0.1, -0.5])
    assert target.names[-1] == "likelihood.model_error"
    theta = dict(zip(target.names, target.values(u), strict=True))
    assert_allclose(
        run.density(u), reference(target, theta, "gamma", theta["likelihood.model_error"]) - 0.5 * u @ u, rtol=2e-5
    )
    _, g = run.gradient(u)
    for i in range(target.size):
        e = 1e-5 * np.eye(target.size)[i]
        assert_allclose(g[i], (run.density(u + e) - run.density(u - e)) / 2e-5, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kind", ["gamma", "thomas2021"])
def test_gradient(kind):
    target = Target(campaign(Likelihood(kind), records=2, vary={"s.larmor_hz": None, "d.efficiency": 0.02}))
    run, rng = target.evaluator(), np.random.default_rng(1)
    assert {n.split("[")[0] for n in target.labels()} >= {"s.larmor_hz", "d.efficiency:spread", "d.efficiency"}
    u = 0.5 * rng.standard_normal(target.size)
    value, g = run.gradient(u)
    assert_allclose(value, run.density(u), rtol=1e-14)
    for i in range(target.size):
        e = 1e-5 * np.eye(target.size)[i]
        assert_allclose(g[i], (run.density(u + e) - run.density(u - e)) / 2e-5, rtol=1e-5, atol=1e-4)
    H = run.hessian(u)
    e = 1e-4 * rng.standard_normal(target.size)
    assert_allclose(H @ e, run.gradient(u)[1] - run.gradient(u + e)[1], rtol=0.02, atol=1e-3 * np.max(np.abs(H @ e)))


def test_expected_information_is_that_of_the_gamma_distribution():
    """F = sum_b N_b d ln mu_b d ln mu_b^T, with d mu from differences of the models."""
    target = Target(campaign())
    u = np.zeros(target.size)
    J = []
    for i in range(target.size):
        e = 1e-4 * np.eye(target.size)[i]
        J.append(np.log(target.models(u + e)[0] / target.models(u - e)[0]) / 2e-4)
    want = np.array(J) * target.campaign.records[0].averages @ np.array(J).T
    assert_allclose(target.fisher(u, prior=False), want, rtol=1e-4, atol=1e-4 * np.max(want))
    assert_allclose(target.fisher(u, rough=True), want + np.eye(target.size), rtol=1e-2, atol=1e-2 * np.max(want))


def test_varying_parameters_and_ties():
    """Independent and hierarchical values, and a tie, reach the record that they belong to."""
    from backaction.experiment.ties import expression

    c = campaign(records=2, vary={"s.larmor_hz": None, "d.efficiency": 0.02},
                 ties={"s.occupation": expression("s.readout_rate_hz / 8000")})  # fmt: skip
    target = Target(c)
    u = np.random.default_rng(2).standard_normal(target.size)
    theta = dict(zip(target.labels(), target.values(u), strict=True))
    for k in range(2):
        got = target.fields(k, u)
        assert got["s.larmor_hz"] == theta[f"s.larmor_hz[r{k}]"]
        assert_allclose(got["d.efficiency"], theta[f"d.efficiency[r{k}]"])
        assert_allclose(got["s.occupation"], got["s.readout_rate_hz"] / 8000)
    assert theta["d.efficiency:spread"] > 0
    batch = target.experiment(0, np.array([u, u])).value("s.larmor_hz")
    assert batch.shape == (2,)


def test_correlated_calibration():
    """Draws of the prior have the correlation of the calibration file, and its marginals."""
    R = np.array([[1.0, -0.8], [-0.8, 1.0]])
    priors = PRIORS | {"s.readout_rate_hz": Prior(8e3, 5e2), "d.efficiency": Prior(0.8, 0.01)}
    c = replace(campaign(), priors=priors, correlated=((("s.readout_rate_hz", "d.efficiency"), R),))
    target = Target(c)
    u = np.random.default_rng(0).standard_normal((20000, target.size))
    theta = target.values(u)
    i, j = (target.names.index(n) for n in ("s.readout_rate_hz", "d.efficiency"))
    assert_allclose(np.corrcoef(theta[:, i], theta[:, j])[0, 1], -0.8, atol=0.01)
    assert_allclose([theta[:, i].std(), theta[:, j].std()], [5e2, 0.01], rtol=0.03)
    _, g = target.evaluator().gradient(u[0])
    run = target.evaluator()
    e = 1e-5 * np.eye(target.size)[i]
    assert_allclose(g[i], (run.density(u[0] + e) - run.density(u[0] - e)) / 2e-5, rtol=1e-5, atol=1e-4)
    at = target.scores({"s.readout_rate_hz": 8.3e3, "d.efficiency": 0.79})
    assert_allclose(target.values(at)[[i, j]], [8.3e3, 0.79])


def test_other_data_and_single_records():
    target = Target(campaign(records=2))
    u = 0.2 * np.ones(target.size)
    models = target.models(u)
    again = target.with_data(models)
    assert_allclose(again.evaluator().gradient(u)[1], -u, atol=1e-9)  # data equal to the model: only the prior pulls
    prior = 0.5 * u @ u
    parts = [target.only(k).evaluator().density(u) + prior for k in range(2)]
    assert_allclose(sum(parts) - prior, target.evaluator().density(u), rtol=1e-12)
    fresh = Target(
        target.campaign.with_records([r.with_density(m) for r, m in zip(target.campaign.records, models, strict=True)])
    )
    assert_allclose(again.evaluator().density(0 * u), fresh.evaluator().density(0 * u), rtol=1e-13)


def test_unstable_points_have_no_density():
    from backaction.elements import OptomechanicalCavity

    cavity = OptomechanicalCavity(name="m", mechanical_hz=1e6, mechanical_linewidth_hz=10.0, bath_occupation=10.0,
                                  cavity_linewidth_hz=1e6, overcoupling=0.9, detuning_hz=-1e5, coupling_hz=1e4)  # fmt: skip
    priors = {"m.detuning_hz": Prior(-1e5, 2e5)}
    e = Experiment([cavity, Homodyne(name="d")], priors=priors)
    target = Target(Campaign("c", (simulated("r", e, (9e5, 1.1e6), 0.05, 1, 1e3),), priors))
    run = target.evaluator()
    assert np.isfinite(run.density(np.zeros(2)))
    assert run.density(np.array([1.5, 0.0])) == -np.inf  # blue detuned: unstable
    value, g = run.gradient(np.array([1.5, 0.0]))
    assert value == -np.inf
    assert np.all(g == 0)
    assert np.all(np.isnan(target.models(np.array([1.5, 0.0]))[0]))
    with pytest.raises(ModelError, match="no spectrum"):
        target.fisher(np.array([1.5, 0.0]))


def test_two_currents_are_refused():
    e = Experiment.load("huang2018")
    with pytest.raises((InputError, ModelError)):
        Target(Campaign("c", (simulated("r", e, (1e3, 1e5), 0.1, 1),), {}))


def test_conditional_batches_equal_the_single_solver(thomas):
    from backaction.systems import steady

    c = Campaign("c", (simulated("r", thomas, thomas.band_hz, 0.2, 1, 2e3),), thomas.priors)
    target = Target(c)
    u = 0.5 * np.random.default_rng(0).standard_normal((5, target.size))
    systems = target.systems(0)
    V, U = systems.conditional(u), systems.unconditional(u)
    for k in range(5):
        e = target.experiment(0, u[k])
        index = e.system.indices(("membrane", "spin"))
        assert_allclose(V[k], steady.conditional(e.system).covariance[np.ix_(index, index)], rtol=1e-8, atol=1e-9)
        assert_allclose(U[k], steady.unconditional(e.system)[np.ix_(index, index)], rtol=1e-8, atol=1e-9)


def test_spectral_and_time_domain_likelihoods_agree():
    """Differences of ln L over the whole spectrum against the exact innovations form, along every parameter."""
    truth = experiment({})
    record = simulate(truth, 0.25, 2e6, seed=5).record
    calibration = ShotNoise(VOLT_DENSITY, 1e-3, "V")
    spectrum = averaged_spectrum(record, 200.0, taper=0.02).band(1e4, 9.9e5)
    target = Target(Campaign.of(experiment(), spectrum, calibration, Digitiser(2e6)))
    at = {"s.larmor_hz": -3e5, "s.readout_rate_hz": 8e3, "s.intrinsic_linewidth_hz": 2e3, "d.efficiency": 0.8}
    run, base = target.evaluator(), target.scores(at)
    sd = 1 / np.sqrt(np.diag(target.fisher(base, prior=False)))
    exact = log_likelihood(truth, record, calibration)
    for i, name in enumerate(target.names):
        for side in (-4.0, 4.0):
            u = base + side * sd[i] * np.eye(target.size)[i]
            theta = dict(zip(target.names, target.values(u), strict=True))
            scale = theta.pop(SCALE)
            spectral = run.density(u) + 0.5 * u @ u - run.density(base) - 0.5 * base @ base
            time = (
                log_likelihood(truth.with_values({k: float(v) for k, v in theta.items()}), record, calibration, scale)
                - exact
            )
            assert abs(spectral - time) < 0.15 * abs(time) + 0.7, name
