"""The posterior of campaigns, end to end: the reference day, wrong models, advice, files, the command line."""

import json
from dataclasses import replace
from importlib import resources

import jsonschema
import numpy as np
import pytest
from numpy.testing import assert_allclose

from backaction import Experiment
from backaction.cli import main
from backaction.inference import advice, netcdf
from backaction.inference.campaign import Campaign
from backaction.inference.data import simulated
from backaction.inference.fit import prepare
from backaction.inference.posterior import infer
from backaction.inference.sbc import rank_statistics
from backaction.inference.target import Target
from backaction.states import entanglement
from support.experiments import HYBRID, HYBRID_BARE
from support.reference import shared

pytestmark = pytest.mark.slow

DAY = """
experiment = "hybrid.toml"
shot = "{0}/shot_noise.h5"
dark = "{0}/dark_noise.h5"
[[record]]
name = "mechanics_only"
file = "{0}/mechanics_only.h5"
set = {{ "spin.readout_rate_hz" = 0.0, "spin.broadband_noise_sn" = 0.0 }}
[[record]]
name = "hybrid"
file = "{0}/hybrid.h5"
[[record]]
name = "hybrid_detuned"
file = "{0}/hybrid_detuned.h5"
set = {{ "spin.larmor_offset_hz" = "110 kHz" }}
[vary]
"spin.larmor_offset_hz" = "independent"
"""
AT_DETECTOR = """
[[element]]
name = "late"
kind = "technical_noise"
angle_deg = 90.0
[[element.lines]]
name = "phase_noise"
center_hz = "1.359 MHz"
width_hz = "1 kHz"
peak_sn = 10.0
[[element.lines]]
name = "second"
center_hz = "1.5165 MHz"
width_hz = "1.5 kHz"
peak_sn = 50.0
[[element.lines]]
name = "third"
center_hz = "1.5235 MHz"
width_hz = "1 kHz"
peak_sn = 90.0
"""
LATE_PRIORS = "".join(
    f'"late.{n}.center_hz" = {{ mean = "{f} MHz", sd = "1 kHz" }}\n"late.{n}.width_hz" = {{ lower = 50.0, upper = 10000.0 }}\n'
    f'"late.{n}.peak_sn" = {{ lower = 0.0, upper = 300.0 }}\n'
    for n, f in (("phase_noise", 1.359), ("second", 1.5165), ("third", 1.5235))
)


def day(folder, experiment=HYBRID):
    (folder / "hybrid.toml").write_text(experiment)
    (folder / "day.toml").write_text(DAY.format(shared("data/records/shot_noise.h5").parent))
    return Campaign.load(folder / "day.toml")


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return infer(day(tmp_path_factory.mktemp("day")), draws=700)


def test_the_reference_day(reference):
    """Three records, one model: every check passes, and the EPR variance is known to a few per cent.

    The records' parameters are not told; the single-record analyses of hybrid.h5 gave 0.78 (tests of `analyze`).
    """
    assert reference.passed, [t.sentence for t in reference.tests if not t.passed]
    v = reference.derived_summary["conditional.epr.fixed[hybrid]"]
    bare = reference.derived_summary["bare.conditional.epr.fixed[hybrid]"]
    assert 0.012 < v["sd"] < 0.022
    assert v["q95"] < 1
    assert v["probability_below_1"] == 1.0
    assert bare["mean"] < v["mean"]  # technical noise costs entanglement
    assert min(s["ess_bulk"] for s in reference.summary.values()) > 1500
    assert max(s["rhat"] for s in reference.summary.values()) < 1.01
    assert all(abs(x) < 3 for x in reference.facts["conflict"].values())
    optimum = reference.derived["conditional.epr.variance[hybrid]"].values
    assert np.all(optimum <= reference.derived["conditional.epr.fixed[hybrid]"].values + 1e-12)


def test_lines_added_at_the_detector_are_found_out(tmp_path):
    """The same lines behind the membrane instead of before and in it: the three spectra are not predicted together."""
    text = HYBRID_BARE.replace('[[element]]\nname = "detector"', AT_DETECTOR + '[[element]]\nname = "detector"')
    found = infer(day(tmp_path, text + LATE_PRIORS), "importance")
    assert not found.passed
    assert any(t.name.startswith("prediction") and not t.passed for t in found.tests)


def test_advice_on_the_reference_day(reference):
    """Halving each calibration's error: the table's best gain is what a campaign with that prior gives."""
    gains = advice.next_measurements(reference, "hybrid")
    assert [g.after for g in gains] == sorted(g.after for g in gains)
    v = reference.derived["conditional.epr.fixed[hybrid]"].values
    assert_allclose(gains[0].now, np.std(v), rtol=0.08)  # linear-Gaussian against the draws
    best = next(g for g in gains if g.kind == "calibration")
    field = best.what.removeprefix("half the error of ")
    prior = reference.campaign.priors[field]
    value = float(np.mean(reference.values[..., reference.target.labels().index(field)]))
    better = replace(
        reference.campaign, priors={**reference.campaign.priors, field: replace(prior, sd=prior.sd / 2, mean=value)}
    )
    again = infer(better, "importance")
    assert_allclose(np.std(again.derived["conditional.epr.fixed[hybrid]"].values), best.after, rtol=0.08)


def test_worst_case_of_the_reference_day(reference):
    """No draw within the stated limits is worse, and draws come near it; wider limits are worse."""
    case = advice.worst_case(reference, "hybrid", 4.0, 2.0)
    assert case.status == "maximum"
    assert case.worst < 1
    target, u = reference.target, reference.draws.flat
    top = max(reference.draws.log_density.ravel() + 0.5 * np.sum(u * u, axis=1))
    # draws of 28 parameters all lie outside chi-square 4: pulled towards the maximum many are inside
    near = reference.ready.mode.u + 0.3 * (u - reference.ready.mode.u)
    run = target.evaluator()
    data = np.array([run.density(x) for x in near]) + 0.5 * np.sum(near * near, axis=1)
    inside = (np.max(np.abs(near), axis=1) < 2) & (2 * (top - data) < 4)
    assert np.sum(inside) > 200
    pulled = entanglement.epr_variance(target.systems(1).conditional(near[inside]), case.weight, case.angle_deg)
    assert np.max(pulled) <= case.worst
    v = reference.derived["conditional.epr.fixed[hybrid]"].values.ravel()
    assert case.worst > np.quantile(v, 0.95)
    wider = advice.worst_case(reference, "hybrid", 9.0, 3.0)
    assert wider.worst > case.worst
    at = target.scores({n: x for n, x in case.at.items() if n in target.names})
    V = target.systems(1).conditional(at[None])
    assert_allclose(entanglement.epr_variance(V, case.weight, case.angle_deg)[0], case.worst, rtol=1e-6)


# -- a smaller campaign of which the truth is known -------------------------------------------------------------------


def sweep(thomas, seed=1, **wrong):
    priors = {k: p for k, p in thomas.priors.items() if k != "spin.larmor_offset_linewidths"}
    records = [
        replace(simulated(f"{x:+g}", thomas.with_values({"spin.larmor_offset_hz": x}), thomas.band_hz, 0.2, seed + k, 800.0),
                calibrated_by="one") for k, x in enumerate((-8e3, 0.0, 8e3))
    ]  # fmt: skip
    records = [replace(r, experiment=r.experiment.with_values(wrong)) for r in records]
    return Campaign("sweep", tuple(records), {k: p for k, p in priors.items() if k not in wrong})


def test_broadband_noise_left_out_is_flagged(thomas):
    """Simulated with 1.68 SN, fitted with none: prediction or priors fail, and no entanglement is claimed."""
    assert infer(sweep(thomas), "importance").passed
    found = infer(sweep(thomas, **{"spin.broadband_noise_sn": 0.0}), "importance")
    assert not found.passed
    assert any(not t.passed for t in found.tests if t.name != "sampler")


def test_wrong_vacuum_is_flagged(thomas):
    """Data in units of half the vacuum (a factor two in the shot-noise level)."""
    c = sweep(thomas)
    found = infer(c.with_records([r.with_density(2 * r.density_sn) for r in c.records]), "importance")
    assert not found.passed


def test_a_pair_that_is_not_identified_is_said_in_words():
    """A classical reading without back-action: gain and bath occupation only as gain^2 (2n + 1)."""
    from backaction import Homodyne, Oscillator, Prior

    e = Experiment(
        [
            Oscillator(name="m", frequency_hz=3e5, intrinsic_linewidth_hz=2e3, occupation=1e3, gain=3.0),
            Homodyne(name="d"),
        ],
        priors={"m.gain": Prior(3.0, 1.0), "m.occupation": Prior(1e3, 3e2), "m.frequency_hz": Prior(3e5, 1e3)},
    )
    c = Campaign("c", (simulated("r", e, (2.5e5, 3.5e5), 0.2, 1, 400.0),), e.priors)
    found = infer(c, "importance")
    words = found.facts["identifiability"]
    pair = "m.gain^2 x m.occupation", "m.occupation x m.gain^2"
    assert any(w == f"{p} is measured, not each" for w in words for p in pair), words


def test_ensemble_of_the_paper_and_thinning(thomas):
    """1,000 draws of the posterior, as the paper took, give the same interval within Monte Carlo error."""
    found = infer(sweep(thomas), draws=1500)
    v = found.derived["conditional.epr.fixed[+0]"].values.ravel()
    thin = np.random.default_rng(0).choice(v, 1000, replace=False)
    assert abs(np.mean(thin) - np.mean(v)) < 4 * np.std(v) / np.sqrt(1000)
    assert_allclose(
        np.quantile(thin, [0.05, 0.95]), np.quantile(v, [0.05, 0.95]), atol=4 * 2.1 * np.std(v) / np.sqrt(1000)
    )
    assert abs(np.mean(v) - 0.789) < 4 * np.std(v)  # the truth: Table I near resonance


def test_netcdf_reads_back_exactly(thomas, tmp_path):
    import arviz_base

    day = sweep(thomas)
    first, *rest = (replace(r, calibrated_by="day 3/shot.h5") for r in day.records)  # records in folders: "/" in names
    first = replace(first, name="day 3/first", calibrated_by="day 2/shot.h5")
    found = infer(day.with_records([first, *rest]), "importance")
    assert any("day 3/shot.h5" in n for n in found.target.labels())
    path = tmp_path / "p.nc"
    netcdf.write_posterior(found, path)
    tree = netcdf.read_posterior(path)
    groups = {
        "posterior",
        "derived",
        "log_likelihood",
        "posterior_predictive",
        "observed_data",
        "prior",
        "constant_data",
        "unconstrained",
    }
    assert groups <= set(tree.children)
    for i, n in enumerate(found.target.labels()):
        assert np.array_equal(tree["posterior"][n.replace("/", "|")].values, found.values[..., i])
    assert np.array_equal(tree["unconstrained"]["coordinates"].values, found.draws.u)
    assert tree["constant_data"]["day 3|first: averages"].dims == tree["observed_data"]["day 3|first"].dims
    assert np.array_equal(tree["observed_data"]["+0"].values, found.ready.fine.campaign.records[1].density_sn)
    assert json.loads(tree.attrs["document"])["schema"] == "backaction/fit/1"
    assert json.loads(tree.attrs["provenance"])["seed"] == 0
    predicted = tree["posterior_predictive"]["+0"].values
    assert_allclose(np.mean(predicted / tree["observed_data"]["+0"].values), 1.0, atol=0.02)
    u = tree["unconstrained"]["coordinates"].values.reshape(-1, found.target.size)
    likelihood = tree["log_likelihood"]["total"].values.ravel()
    assert_allclose(found.target.evaluator().density(u[5]) + 0.5 * u[5] @ u[5], likelihood[5], rtol=1e-9)
    # the same file by the package's own reader
    names = {n.replace("/", "|") for n in found.target.labels()}
    assert set(arviz_base.extract(tree, group="posterior").data_vars) == names


def test_time_domain_reweighting(thomas):
    """A record of 20 ms: the spectral posterior, reweighted by the exact likelihood of its samples, keeps its place."""
    from backaction import Homodyne, Prior, SpinOscillator, simulate
    from backaction.inference.time_domain import reweighted
    from backaction.records.shot_level import ShotNoise
    from backaction.records.simulation import VOLT_DENSITY
    from backaction.records.spectrum import averaged_spectrum
    from backaction.systems.sampled import Digitiser

    spin = SpinOscillator(name="s", larmor_hz=-3e5, intrinsic_linewidth_hz=2e3, readout_rate_hz=8e3, occupation=1.0)
    e = Experiment(
        [spin, Homodyne(name="d", efficiency=0.8)],
        priors={"s.larmor_hz": Prior(-3e5, 2e3), "s.readout_rate_hz": Prior(8e3, 2e3)},
    )
    record = simulate(e, 0.1, 2e6, seed=3).record
    spectrum = averaged_spectrum(record, 400.0).band(1e4, 9.9e5)
    found = infer(Campaign.of(e, spectrum, ShotNoise(VOLT_DENSITY, 1e-3, "V"), Digitiser(2e6)), "importance")
    exact = reweighted(found, [record], 300)
    assert exact.status == "converged", exact.status
    sd = np.std(found.draws.flat, axis=0)
    assert np.max(np.abs(np.mean(exact.flat, axis=0) - np.mean(found.draws.flat, axis=0)) / sd) < 0.7
    assert_allclose(np.std(exact.flat, axis=0), sd, rtol=0.35)


# -- simulation-based calibration -------------------------------------------------------------------------------------


def test_posteriors_are_calibrated_and_wrong_ones_are_not(thomas):
    """60 campaigns: uniform ranks; with the efficiency fixed 10 % wrong in the fit they are not."""
    e = thomas.with_values({"spin.larmor_offset_hz": 0.0})
    priors = {
        k: e.priors[k] for k in ("spin.readout_rate_hz", "link.transmission", "membrane.coupling_hz", "phase.angle_deg")
    }
    r = simulated("r", e, e.band_hz, 0.2, None, 1600.0)
    good = rank_statistics(Campaign("c", (r,), priors), 60, 1, "importance")
    assert good.passed
    assert {"conditional.epr.variance", "conditional.log_negativity"} <= set(good.names)
    wrong = Campaign("c", (replace(r, experiment=e.with_values({"detector.efficiency": 0.6})),), priors)
    assert not rank_statistics(Campaign("c", (r,), priors), 60, 1, "importance", fitted=wrong).passed


# -- the command line -------------------------------------------------------------------------------------------------

SHORT = """
experiment = "thomas2021"
resolution_hz = "2 kHz"
[[record]]
name = "a"
simulate = { seed = 1, duration = "0.2 s" }
"""


def call(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    out = capsys.readouterr()
    return caught.value.code, out.out, out.err


def schema(name):
    return json.loads((resources.files("backaction") / "data" / "schemas" / f"{name}.json").read_text())


def test_fit_on_the_command_line(capsys, tmp_path):
    path = tmp_path / "c.toml"
    path.write_text(SHORT)
    output = tmp_path / "p.nc"
    code, out, err = call(capsys, "fit", str(path), "-o", str(output), "--json", "--draws", "600", "--next", "--worst", "4:2",
                          "--evidence", "--figures", str(tmp_path / "f"), "--report", str(tmp_path / "r"))  # fmt: skip
    assert code == 0, err
    document = json.loads(out)
    jsonschema.validate(document, schema("fit"))
    assert document["checks"]["passed"] is True
    assert document["derived"]["conditional.epr.fixed"]["q95"] < 1
    assert document["next"][0]["after"] <= document["next"][0]["now"]
    assert document["worst"]["worst"] > document["worst"]["variance"]
    assert output.is_file()
    assert not (tmp_path / ".p.nc.chains").exists()
    figures = {"corner.png", "traces.png", "spectra.png"}
    assert {p.name for p in (tmp_path / "f").iterdir()} == figures
    _report_and_limits(capsys, tmp_path, document)
    code, out, err = call(capsys, "fit", str(path), "--sampler", "importance")
    assert code == 0
    assert "conditional.epr.fixed" in out
    assert "conflict" in out


def _report_and_limits(capsys, folder, document):
    """The report's files and its first block; `limits` of the posterior: value and interval are those of the fit."""
    from backaction import Experiment, evaluate

    names = {"corner.png", "traces.png", "spectra.png", "index.html", "result.json", "fitted.toml"}
    assert {p.name for p in (folder / "r").iterdir()} == names
    page = (folder / "r/index.html").read_text()
    assert page.index("What limits it") < page.index("Parameters") < page.index("Derived") < page.index("Figures")
    assert page.count("<img") == 3
    assert json.loads((folder / "r/result.json").read_text())["derived"] == document["derived"]
    code, out, err = call(capsys, "limits", str(folder / "p.nc"), "--next", "--json")
    assert code == 0, err
    found = json.loads(out)
    jsonschema.validate(found, schema("limits"))
    fitted = Experiment.load(folder / "r/fitted.toml")
    assert_allclose(found["value"], evaluate("conditional.epr.variance", fitted), rtol=1e-9)
    drawn = document["derived"]["conditional.epr.variance"]
    assert abs(found["q05"] - drawn["q05"]) < 0.5 * drawn["sd"]
    assert abs(found["q95"] - drawn["q95"]) < 0.5 * drawn["sd"]
    assert found["next"] == document["next"]
    assert all(w["q05"] <= w["value"] <= w["q95"] for w in found["without"])
    code, _, err = call(capsys, "limits", str(folder / "p.nc"), "--record", "b")
    assert (code, "no record 'b'" in err) == (2, True)


def test_mistakes_on_the_command_line(capsys, tmp_path):
    path = tmp_path / "c.toml"
    path.write_text(SHORT)
    for arguments, words in (
        (("fit", "no.toml"), "no such file"),
        (("fit", str(path), "--sampler", "gibs"), "nuts"),
        (("fit", str(path), "-o", str(tmp_path / "x.h5")), "*.nc"),
        (("fit", str(path), "--worst", "a:b"), "CHI2:SD"),
        (("sbc", str(path), "--sampler", "ensemble"), "nuts or importance"),
    ):
        code, out, err = call(capsys, *arguments)
        assert code == 2
        assert words in err
        assert out == ""
        assert "Traceback" not in err


def test_failed_checks_exit_with_four(capsys, tmp_path, thomas):
    path = tmp_path / "c.toml"
    path.write_text(SHORT + '[prior]\n"spin.broadband_noise_sn" = { mean = 0.2, sd = 0.01 }\n'
                    '"link.transmission" = { mean = 0.9, sd = 0.005 }\n')  # fmt: skip
    code, _, err = call(capsys, "fit", str(path), "--sampler", "importance")
    assert code == 4
    assert "not claimed" in err


def test_sbc_on_the_command_line(capsys, tmp_path):
    path = tmp_path / "c.toml"
    path.write_text(SHORT)
    code, out, err = call(capsys, "sbc", str(path), "--count", "20", "--sampler", "importance", "--json",
                          "--figure", str(tmp_path / "r.png"))  # fmt: skip
    assert code == 0, err
    document = json.loads(out)
    jsonschema.validate(document, schema("sbc"))
    assert document["simulations"] == 20
    assert (tmp_path / "r.png").is_file()


def test_collective_fit_of_thirteen_spectra():
    """The shipped sweep, -15 to +15 kHz: V_c against detuning is that of the truth, least near the middle."""
    c = Campaign.load("thomas2021")
    assert len(c.records) == 13
    found = infer(c, "importance", ready=prepare(c, starts=1))
    assert found.passed, [t.sentence for t in found.tests if not t.passed]
    truth = [float(entanglement.epr(Target(c.with_records([r])).systems(0).conditional(np.zeros((1, 17)))).variance[0])
             for r in c.records]  # fmt: skip
    v = [found.derived_summary[f"conditional.epr.variance[{r.name}]"] for r in c.records]
    pulls = [(a["mean"] - t) / a["sd"] for a, t in zip(v, truth, strict=True)]
    assert max(abs(p) for p in pulls) < 4
    assert np.argmin([a["mean"] for a in v]) in (5, 6, 7)
