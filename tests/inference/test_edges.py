"""What two critical readings of the inference found: each with the case that showed it."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from backaction import Experiment, Homodyne, Prior, SpinOscillator
from backaction.errors import InputError
from backaction.inference.bins import bins
from backaction.inference.campaign import Campaign, Likelihood
from backaction.inference.chains import nuts
from backaction.inference.conflict import conflict
from backaction.inference.data import simulated
from backaction.inference.evidence import log_evidence
from backaction.inference.fit import prepare
from backaction.inference.posterior import infer
from backaction.inference.samplers import sample
from backaction.inference.target import Target
from backaction.systems.sampled import Digitiser
from support.campaigns import PLAN, write

PRIORS = {"s.readout_rate_hz": Prior(8e3, 1e3), "d.efficiency": Prior(0.8, 0.05)}


def spectrum(seed=1, resolution=200.0, duration=0.2, **values):
    spin = SpinOscillator(name="s", larmor_hz=-3e5, intrinsic_linewidth_hz=2e3, readout_rate_hz=8e3, occupation=1.0)
    e = Experiment([spin, Homodyne(name="d", efficiency=0.8)], priors=PRIORS).with_values(values)
    return simulated("r", e, (2.4e5, 3.6e5), duration, seed, resolution, Digitiser(2e6))


@pytest.mark.parametrize("rate", [2e5, 5e5])
def test_aliases_of_demodulated_averages(thomas, rate):
    """fs far below the reference: against the sum over 400 aliases by hand."""
    d = Digitiser(rate, "average", reference_hz=1.37e6)
    f = np.linspace(1.34e6, 1.40e6, 41)
    got = bins(f, 1e-3, d, 1).expected(thomas.system)
    from backaction.systems.response import budget

    k = np.arange(-400, 401)
    at = f[:, None] + k * rate
    S = budget(thomas.system, np.abs(at).ravel()).total.reshape(at.shape)
    floor = float(budget(thomas.system, [1e12]).total[0])
    want = np.sum((S - floor) * np.sinc((at - 1.37e6) / rate) ** 2, axis=1) + floor
    assert_allclose(got, want, rtol=0.01)


def test_evidence_does_not_depend_on_how_bins_were_merged():
    """Ln Bayes factors of two priors: merged and fine bins say the same."""
    values = []
    for priors in (PRIORS, PRIORS | {"d.efficiency": Prior(0.6, 0.02)}):
        ready = prepare(Campaign("c", (spectrum(),), priors))
        assert ready.target is not ready.fine
        draws = sample(ready.target, ready.mode, "nuts", 800, 2, 0)
        fine = Target(Campaign("c", (spectrum(),), priors))
        own = sample(fine, replace(ready.mode), "nuts", 800, 2, 0)
        values.append((log_evidence(ready.target, draws, fine=ready.fine)[0], log_evidence(fine, own)[0]))
    assert_allclose(values[0][0], values[0][1], atol=0.2)
    assert_allclose(values[1][0], values[1][1], atol=0.2)


def test_scatter_that_does_not_average_is_not_merged():
    for likelihood in (Likelihood("thomas2021"), Likelihood("gamma", 0.05)):
        ready = prepare(Campaign("c", (spectrum(),), PRIORS, likelihood=likelihood))
        assert ready.target is ready.fine


def test_model_error_is_in_the_checks_and_is_found():
    """Data with 10 % model error: without it the prediction fails, with it (fixed or fitted) it passes."""
    r = spectrum(resolution=400.0)
    wild = r.with_density(r.density_sn * np.random.default_rng(99).gamma(100, 1 / 100, r.density_sn.size))
    assert not infer(Campaign("c", (wild,), PRIORS), "importance").passed
    assert infer(Campaign("c", (wild,), PRIORS, likelihood=Likelihood("gamma", 0.1)), "importance").passed
    found = infer(
        Campaign("c", (wild,), PRIORS, likelihood=Likelihood("gamma", Prior(lower=0.0, upper=0.5))), draws=400
    )
    assert found.passed, [t.sentence for t in found.tests]
    e = found.summary["likelihood.model_error"]
    assert abs(e["mean"] - 0.1) < 4 * e["sd"]
    assert e["sd"] < 0.02


def test_ties_follow_one_another_in_any_order(tmp_path):
    """a = b/2, b = c: in both orders; a circle is named."""
    first = '[tie]\n"s.occupation" = "s.intrinsic_linewidth_hz / 1000"\n"s.intrinsic_linewidth_hz" = "s.readout_rate_hz / 4"\n'
    second = '[tie]\n"s.intrinsic_linewidth_hz" = "s.readout_rate_hz / 4"\n"s.occupation" = "s.intrinsic_linewidth_hz / 1000"\n'
    found = []
    for text in (first, second):
        t = Target(Campaign.load(write(tmp_path, PLAN + text)))
        u = 0.3 * np.ones(t.size)
        got = t.fields(0, u)
        found.append(got)
        assert_allclose(got["s.occupation"], got["s.readout_rate_hz"] / 4000)
    assert found[0] == found[1]
    with pytest.raises(InputError, match="circle"):
        Campaign.load(
            write(
                tmp_path,
                PLAN
                + '[tie]\n"s.occupation" = "s.intrinsic_linewidth_hz"\n"s.intrinsic_linewidth_hz" = "s.occupation"\n',
            )
        )


def test_simulated_records_obey_ties(tmp_path):
    plan = PLAN + '[tie]\n"s.intrinsic_linewidth_hz" = "s.readout_rate_hz / 2"\n'
    c = Campaign.load(write(tmp_path, plan))
    assert c.records[0].experiment.value("s.intrinsic_linewidth_hz") == 4e3


def test_tied_and_hierarchical_fields_keep_their_bounds():
    """A spread that reaches below zero occupation: no density there."""
    from backaction.experiment.ties import expression

    priors = PRIORS | {"s.occupation": Prior(0.3, 0.05)}
    records = tuple(replace(spectrum(k, 400.0), name=f"r{k}", calibrated_by="x") for k in range(2))
    target = Target(Campaign("c", records, priors, {"s.occupation": 0.2}))
    run, rng = target.evaluator(), np.random.default_rng(0)
    i = target.labels().index("s.occupation[r0]")
    low = 0
    for u in rng.standard_normal((400, target.size)):
        below = target.values(u)[i] < 0 or target.values(u)[target.labels().index("s.occupation[r1]")] < 0
        low += below
        assert np.isfinite(run.density(u)) == (not below)
    assert low > 5
    tied = Target(
        Campaign("c", records[:1], PRIORS, ties={"s.occupation": expression("(8100 - s.readout_rate_hz) / 100")})
    )
    run = tied.evaluator()
    i = tied.names.index("s.readout_rate_hz")
    e = np.eye(tied.size)[i]
    assert run.density(e) == -np.inf
    assert np.isfinite(run.density(-0.001 * e))


def test_correlations_are_not_lost_silently():
    R = np.array([[1.0, 0.9], [0.9, 1.0]])
    records = tuple(replace(spectrum(k, 400.0), name=f"r{k}", calibrated_by="x") for k in range(2))
    c = Campaign("c", records, PRIORS, {"s.readout_rate_hz": None}, correlated=((tuple(PRIORS), R),))
    with pytest.raises(InputError, match=r"s\.readout_rate_hz.*correlations"):
        Target(c)


def test_calibrations_without_correlations_may_vary():
    records = tuple(replace(spectrum(k, 400.0), name=f"r{k}", calibrated_by="x") for k in range(2))
    c = Campaign("c", records, PRIORS, {"s.readout_rate_hz": None}, correlated=((tuple(PRIORS), np.eye(2)),))
    assert {"s.readout_rate_hz[r0]", "s.readout_rate_hz[r1]"} <= set(Target(c).names)


def test_two_correlated_calibrations_round_trip():
    priors = PRIORS | {"s.occupation": Prior(1.0, 0.1), "s.intrinsic_linewidth_hz": Prior(2e3, 1e2)}
    R = np.array([[1.0, 0.9], [0.9, 1.0]])
    blocks = (
        (("s.readout_rate_hz", "d.efficiency"), R),
        (("s.occupation", "s.intrinsic_linewidth_hz"), -R + 2 * np.eye(2)),
    )
    target = Target(Campaign("c", (spectrum(resolution=400.0),), priors, correlated=blocks))
    u = 0.3 * np.random.default_rng(0).standard_normal(target.size)
    theta = dict(zip(target.names, target.values(u), strict=True))
    assert_allclose(target.scores(theta), u, atol=1e-7)


def test_conflict_of_correlated_calibrations_is_the_parameters_own():
    """The prior of the readout rate off by two sd, the efficiency's right: with correlation 0.9 the first is named."""
    R = np.array([[1.0, 0.9], [0.9, 1.0]])
    priors = {"s.readout_rate_hz": Prior(8.2e3, 1e2), "d.efficiency": Prior(0.8, 0.01)}
    c = Campaign("c", (spectrum(duration=5.0),), priors, correlated=((tuple(priors), R),))
    found = infer(c, "importance")
    z = found.draws.flat @ found.target.mixing().T
    for name in priors:
        i = found.target.names.index(name)
        score = (found.values[..., i].ravel() - priors[name].mean) / priors[name].sd
        assert_allclose(np.mean(z[:, i]), np.mean(score), atol=1e-6)
    pulls = conflict(found.target, found.ready.mode, found.draws).pulls
    assert pulls["s.readout_rate_hz"] < -1.2


def test_a_records_prior_needs_none_of_the_campaign(tmp_path):
    plan = PLAN.replace('name = "a"\n', 'name = "a"\nprior = { "s.occupation" = { mean = 1.0, sd = 0.1 } }\n')
    t = Target(Campaign.load(write(tmp_path, plan)))
    assert "s.occupation[a]" in t.names
    assert "s.occupation[b]" not in t.names


def test_damaged_chain_files_are_sampled_again(tmp_path):
    ready = prepare(Campaign("c", (spectrum(),), PRIORS))
    whole = nuts(ready.target, ready.mode, 100, 2, 0, 2, lambda *a: None, tmp_path)
    files = sorted(tmp_path.glob("*.npz"))
    files[0].write_bytes(b"")
    files[1].write_bytes(files[1].read_bytes()[:500])
    again = nuts(ready.target, ready.mode, 100, 2, 0, 2, lambda *a: None, tmp_path)
    assert again.facts["resumed_chains"] == 0
    assert np.array_equal(again.u, whole.u)


def test_spectrum_without_states():
    e = Experiment([Homodyne(name="d", electronic_noise_sn=0.1)], priors={"d.electronic_noise_sn": Prior(0.1, 0.05)})
    r = simulated("r", e, (1e5, 2e5), 0.5, 1, 200.0, Digitiser(2e6))
    found = infer(Campaign("c", (r,), e.priors), "importance")
    assert found.passed
    assert abs(found.summary["d.electronic_noise_sn"]["mean"] - 0.1) < 0.01


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (PLAN.replace('name = "a"\n', 'name = "a"\nfile = "x.h5"\n'), "file or simulate"),
        (PLAN + '[prior]\n"likelihood.model_error" = { lower = 0.0, upper = 0.1 }\n', r"\[likelihood\]"),
        (
            PLAN + '[tie]\n"d.efficiency" = "0.5"\n[prior]\n"d.efficiency" = { mean = 0.5, sd = 0.1 }\n',
            "tied and has a prior",
        ),
        (PLAN + '[derived]\n"conditional.epr.fixed" = "s.occupation"\n', "taken"),
        (PLAN.replace("400 Hz", "0 Hz"), "resolution_hz"),
        (PLAN.replace('"400 Hz"', "-5"), "resolution_hz"),
        (PLAN.replace("400 Hz", "1 GHz"), "sixteenth"),
        (PLAN.replace("400 Hz", "1 mHz"), "averages a bin|bins of"),
        (PLAN.replace('"50 ms"', "0"), "duration"),
        (PLAN.replace("seed = 1", "seed = -1"), "whole number"),
        (PLAN.replace("seed = 1", "seed = 1.5"), "whole number"),
        (PLAN.replace('mask_hz = [["300 kHz", "305 kHz"]]', "mask_hz = 5"), "expected a list"),
        (PLAN.replace('name = "a"', 'name = "a/b"'), "without /"),
        (PLAN + '[likelihood]\ncalibrations = "cal.json"\n', "list of file names"),
        (PLAN + '[likelihood]\nkind = "thomas2021"\nmodel_error = 0.1\n', "belongs to"),
        (PLAN + "[likelihood]\nmodel_error = nan\n", "model_error"),
        (PLAN + "[likelihood]\nmodel_error = true\n", "model_error"),
        ('experiment = "bensh.toml"\n' + PLAN.partition("\n")[2].partition("\n")[2], r"c\.toml.*bench\.toml"),
        (PLAN + '[tie]\n"s.occupation" = "2 * * x"\n', r"\[tie\] 's\.occupation'"),
        (PLAN.replace('"s.larmor_hz" = "-310 kHz"', '"s.larmour_hz" = 1.0'), r"\[\[record\]\] 2"),
    ],
)
def test_more_mistakes_are_named(tmp_path, plan, words):
    with pytest.raises(InputError, match=words) as caught:
        Target(Campaign.load(write(tmp_path, plan)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("prior", "words"),
    [
        ("{ mean = 1.8, sd = 0.01 }", "outside"),
        ("{ lower = 1.2, upper = 1.5 }", "outside"),
        ("{ median = 1.5, factor = 1.1 }", "outside"),
    ],
)
def test_priors_outside_their_field(tmp_path, prior, words):
    with pytest.raises(InputError, match=rf"c\.toml.*d\.efficiency.*{words}"):
        Target(Campaign.load(write(tmp_path, PLAN + f'[prior]\n"d.efficiency" = {prior}\n')))
