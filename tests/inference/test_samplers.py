"""Samplers on the same posterior: NUTS, ensemble, importance, Laplace; evidence by quadrature; refusals."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from backaction import Experiment, Homodyne, Prior, SpinOscillator
from backaction.errors import InputError, ModelError
from backaction.inference.campaign import Campaign, Likelihood
from backaction.inference.chains import nuts
from backaction.inference.data import simulated
from backaction.inference.diagnostics import summarised
from backaction.inference.evidence import log_evidence
from backaction.inference.fit import fit_spectrum, prepare
from backaction.inference.maximum import find_maximum
from backaction.inference.posterior import infer
from backaction.inference.samplers import importance, laplace, sample, smoothed
from backaction.inference.target import Target
from backaction.records.shot_level import ShotNoise
from backaction.systems.sampled import Digitiser

PRIORS = {
    "s.larmor_hz": Prior(-3e5, 2e3),
    "s.readout_rate_hz": Prior(8e3, 1e3),
    "s.intrinsic_linewidth_hz": Prior(2e3, 3e2),
    "d.efficiency": Prior(0.8, 0.05),
}


def campaign(priors=PRIORS, seed=1, model=None, **more):
    spin = SpinOscillator(name="s", larmor_hz=-3e5, intrinsic_linewidth_hz=2e3, readout_rate_hz=8e3, occupation=1.0)
    e = Experiment([spin, Homodyne(name="d", efficiency=0.8)], priors=priors)
    r = simulated("r", e, (2.4e5, 3.6e5), 0.1, seed, 400.0, Digitiser(2e6))
    return Campaign("c", (r,), priors, **more)


@pytest.fixture(scope="module")
def ready():
    return prepare(campaign())


@pytest.fixture(scope="module")
def chains(ready):
    return sample(ready.target, ready.mode, "nuts", 2000, 4, 1)


def test_mode_is_a_maximum(ready):
    """No gradient, positive Hessian, and higher than 2000 points around it."""
    run, mode = ready.target.evaluator(), ready.mode
    assert np.max(np.abs(run.gradient(mode.u)[1] @ mode.root)) < 1e-3
    w = np.random.default_rng(0).standard_normal((2000, ready.target.size))
    assert max(run.density(x) for x in mode.place(0.3 * w)) < mode.log_density
    assert_allclose(mode.root @ mode.root.T @ mode.hessian, np.eye(ready.target.size), atol=1e-8)


def test_all_samplers_agree(ready, chains):
    """Means, sds and the place of the maximum: within the Monte Carlo error of each, four different algorithms."""
    target, mode = ready.target, ready.mode
    quick = importance(target, mode, 8000, 2)
    crowd = sample(target, mode, "ensemble", 150 * 600, 1, 3)
    assert quick.status == "converged"
    sd = np.std(chains.flat, axis=0)
    for other, effective in (
        (quick, quick.facts["effective_draws"]),
        (crowd, 150 * 600 / crowd.facts["autocorrelation_steps"]),
    ):
        error = np.sqrt(1 / 3000 + 1 / effective)
        assert np.max(np.abs(np.mean(other.flat, axis=0) - np.mean(chains.flat, axis=0)) / sd) < 4.5 * error
        assert_allclose(np.std(other.flat, axis=0), sd, rtol=5 * error)
        # the maximum as each sees it: its best draw is below the mode, by no more than chi-square allows
        best = other.flat[np.argmax(other.log_density)]
        assert 0 <= mode.log_density - np.max(other.log_density) < 1.5
        assert np.max(np.abs(np.linalg.solve(mode.root, best - mode.u))) < 2.5
    gauss = laplace(target, mode, 20000, 0)
    assert np.max(np.abs(np.mean(gauss.flat, axis=0) - np.mean(chains.flat, axis=0)) / sd) < 0.25
    assert gauss.status.startswith("not checked")


def test_nuts_densities_belong_to_its_draws(ready, chains):
    run = ready.target.evaluator()
    for c, k in ((0, 0), (2, 100), (3, 1999)):
        assert_allclose(chains.log_density[c, k], run.density(chains.u[c, k]), rtol=1e-9)


def test_nuts_converges(chains):
    stats = [summarised(chains.u[..., i]) for i in range(chains.u.shape[-1])]
    assert max(s["rhat"] for s in stats) < 1.01
    assert min(s["ess_bulk"] for s in stats) > 4000


def test_evidence_by_quadrature():
    """Two parameters: the bridge estimate against a fine grid; and the ratio of two models has the sign of the truth."""
    priors = {"s.readout_rate_hz": Prior(8e3, 1e3)}
    c = campaign(priors)
    target = Target(c)
    mode = find_maximum(target)
    run = target.evaluator()
    x = np.linspace(-7, 7, 281)
    # fine around the maximum, in whitened coordinates
    w = np.stack(np.meshgrid(x, x, indexing="ij"), axis=-1).reshape(-1, 2)
    log = np.array([run.density(u) for u in mode.place(w)]) - np.log(2 * np.pi) + np.log(abs(np.linalg.det(mode.root)))
    want = np.log(np.sum(np.exp(log - np.max(log))) * (x[1] - x[0]) ** 2) + np.max(log)
    draws = sample(target, mode, "nuts", 1500, 2, 0)
    value, error = log_evidence(target, draws)
    assert error < 0.1
    assert abs(value - want) < 5 * error + 0.01
    wrong = campaign(priors).with_records(
        [replace(r, experiment=r.experiment.with_values({"s.intrinsic_linewidth_hz": 3e3})) for r in c.records]
    )
    other = Target(wrong)
    found = find_maximum(other)
    assert log_evidence(other, sample(other, found, "nuts", 500, 2, 0))[0] < value - 10


def test_pareto_smoothing_knows_heavy_tails():
    rng = np.random.default_rng(0)
    weights, k = smoothed(rng.standard_normal(4000) * 0.3)
    assert k < 0.5
    assert_allclose(np.sum(weights), 1.0)
    assert smoothed(-1.5 * np.log(rng.uniform(size=4000)))[1] > 0.9  # a tail of index 1/1.5
    some = np.where(np.arange(600) % 3 == 1, -np.inf, rng.standard_normal(600))
    assert np.all(smoothed(some)[0][1::3] < 1e-100)


def test_importance_says_when_it_may_not_be_used(ready):
    """Proposals of a wrong width: k or the effective draws give it away."""
    narrow = replace(ready.mode, root=0.25 * ready.mode.root)
    assert importance(ready.target, narrow, 1000, 0).status.startswith("not usable")


def test_finished_chains_are_kept(ready, tmp_path):
    """A stop after two of four chains: these are read again, and all four are those of an undisturbed run, bit by bit."""
    target, mode = ready.target, ready.mode
    whole = nuts(target, mode, 200, 4, 7, 2, lambda text, part: None)

    class Stop(Exception):
        pass

    def stop(text, part):
        if part is not None and part >= 0.5:
            raise Stop

    with pytest.raises(Stop):
        nuts(target, mode, 200, 4, 7, 1, stop, tmp_path)
    stored = list(tmp_path.glob("*.npz"))
    assert 2 <= len(stored) < 4
    again = nuts(target, mode, 200, 4, 7, 2, lambda text, part: None, tmp_path)
    assert again.facts["resumed_chains"] == len(stored)
    assert np.array_equal(again.u, whole.u)
    assert np.array_equal(again.log_density, whole.log_density)
    other = nuts(target, mode, 200, 4, 8, 2, lambda text, part: None, tmp_path)
    assert other.facts["resumed_chains"] == 0  # another seed is another run


def test_two_maxima_are_reported():
    """A squeezed field turned by an angle whose sign the spectrum does not tell: both signs are named."""
    from backaction import Rotation, Squeezer

    spin = SpinOscillator(name="s", larmor_hz=-3e5, intrinsic_linewidth_hz=2e3, readout_rate_hz=1.0)
    e = Experiment(
        [spin, Squeezer(name="q", squeezing_db=6.0), Rotation(name="turn", angle_deg=20.0), Homodyne(name="d")]
    )
    priors = {"turn.angle_deg": Prior(0.0, 20.0)}
    c = Campaign("c", (simulated("r", e, (2e5, 2.9e5), 0.1, 1, 1e3, Digitiser(2e6)),), priors)
    mode = find_maximum(Target(c))
    angle = abs(Target(c).values(mode.u)[0])
    assert abs(angle - 20.0) < 5
    assert mode.others
    assert any("separate maxima" in w for w in infer(c, "importance").warnings)


def test_refusals(ready):
    with pytest.raises(InputError, match="nuts"):
        sample(ready.target, ready.mode, "gibbs")
    with pytest.raises(InputError, match="gamma"):
        campaign(likelihood=Likelihood("poisson"))


def test_laplace_of_one_spectrum_has_the_errors_of_the_chains(ready, chains):
    record = ready.fine.campaign.records[0]
    fit = fit_spectrum(record.experiment, record.spectrum, ShotNoise(1.0, 2e-3, "SN"), record.digitiser)
    values = ready.target.values(chains.flat)
    order = [ready.target.names.index(n) for n in fit.names]
    assert_allclose(fit.sd, np.std(values, axis=0)[order], rtol=0.12)
    assert np.max(np.abs(fit.values - np.mean(values, axis=0)[order]) / fit.sd) < 0.3
    assert fit.status == "converged"


def test_nothing_to_fit_but_no_spectrum():
    priors = {"s.larmor_hz": Prior(-3e5, 2e3)}
    c = campaign(priors)
    bad = c.with_records([r.with_density(-np.ones(r.density_sn.size)) for r in c.records])
    with pytest.raises(ModelError, match="not positive"):
        prepare(bad)
