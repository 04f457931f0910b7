"""A set of calibrations: order, uses, combination, files, and that `fit` and `analyze` read what it writes; the command line."""

from __future__ import annotations

import json
from importlib import resources

import jsonschema
import numpy as np
import pytest
from numpy.testing import assert_allclose

from backaction import Experiment
from backaction.calibration import METHODS
from backaction.calibration.method import Quantity, Result
from backaction.calibration.sets import combine, run_set
from backaction.cli import main
from backaction.errors import InputError
from backaction.inference.calibration_file import read_calibration
from backaction.inference.campaign import Campaign
from support.calibrations import make, simulate_beat, simulate_mors, simulate_squeezing, simulate_white_noise, table
from support.reference import shared


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    out = capsys.readouterr()
    return stop.value.code, out.out, out.err


def save(path, t):
    header = ",".join(["f_Hz", *(f"S{k}" for k in range(1, t.values.shape[1]))])
    np.savetxt(path, t.values, delimiter=",", header=header, comments="", fmt="%.17g")


SET = """
name = "day 3"
experiment = "thomas2021"

[[calibration]]
name = "spins"
method = "mors"
files = ["mors.csv"]
layout = "complex"
splitting_hz = 400.0
noise = {sd}

[[calibration]]
method = "squeezing"
files = ["squeezing.csv"]
given = {{ unit = "SN", averages = 600 }}
detunings_hz = ["-0.7 MHz", "-1.5 MHz"]
overcoupling = 0.93
mechanical_q = 6.5e8
uses = {{ cavity_linewidth_hz = "beat.cavity_linewidth_hz" }}
priors = {{ "membrane.coupling_hz" = "coupling_1_hz", "detector.efficiency" = "efficiency" }}

[[calibration]]
name = "beat"
method = "sideband_beat"
files = ["beat.csv"]
relative_noise = 0.01
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("set")
    rng = np.random.default_rng(1)
    spins, sd = simulate_mors(rng)
    save(path / "mors.csv", spins)
    save(path / "squeezing.csv", simulate_squeezing(rng))
    save(path / "beat.csv", simulate_beat(rng))
    (path / "set.toml").write_text(SET.format(sd=sd))
    return path


@pytest.fixture(scope="module")
def found(folder):
    return run_set(folder / "set.toml")


def test_a_set_runs_in_order(found):
    """The squeezing uses kappa of the beat, with its error as a prior, although it is written first."""
    assert [r.name for r in found.results] == ["spins", "squeezing", "beat"]
    squeezing, beat = found.results[1], found.results[2]
    used = squeezing["cavity_linewidth_hz"]
    assert abs(used.value - beat["cavity_linewidth_hz"].value) < beat["cavity_linewidth_hz"].sd
    assert used.sd == pytest.approx(beat["cavity_linewidth_hz"].sd, rel=0.05)
    assert set(found.priors) == {
        "spin.occupation", "membrane.coupling_hz", "detector.efficiency", "membrane.cavity_linewidth_hz", "membrane.detuning_hz",
    }  # fmt: skip
    assert found.passed


def test_covariance_is_that_of_the_results(found):
    names = list(found.priors)
    i, j = names.index("membrane.coupling_hz"), names.index("detector.efficiency")
    r = found.results[1]
    order = list(r.quantities)
    a, b = order.index("coupling_1_hz"), order.index("efficiency")
    assert_allclose(found.covariance[np.ix_([i, j], [i, j])], r.covariance[np.ix_([a, b], [a, b])], rtol=1e-9)
    k = names.index("spin.occupation")
    assert found.covariance[k, i] == 0


def test_document_is_its_schema_and_reads_back(found, tmp_path):
    from backaction.files import to_json

    schema = json.loads((resources.files("backaction") / "data" / "schemas" / "calibration.json").read_text())
    document = json.loads(to_json(found.document()))
    jsonschema.validate(document, schema)
    path = tmp_path / "calibration.json"
    path.write_text(to_json(found.document()))
    priors, (names, correlation) = read_calibration(path, Experiment.load("thomas2021"))
    for n in names:
        assert priors[n].mean == pytest.approx(found.priors[n].value, rel=1e-12)
        assert priors[n].sd == pytest.approx(found.priors[n].sd, rel=1e-9)
    sd = np.sqrt(np.diag(found.covariance))
    assert_allclose(correlation, found.covariance / np.outer(sd, sd), atol=1e-9)


@pytest.mark.slow
def test_analyze_and_fit_read_it(capsys, folder, tmp_path):
    """The same record with and without: the calibrated fields carry the set's means and are narrower in the posterior."""
    code, _, err = run(
        capsys, "calibrate", folder / "set.toml", "-o", tmp_path / "c.json", "--report", tmp_path / "report"
    )
    assert code == 0, err
    assert (tmp_path / "report" / "index.html").read_text().count("<img") == 3
    args = [
        "simulate",
        "thomas2021",
        "-o",
        tmp_path / "r.h5",
        "--duration",
        "20 ms",
        "--seed",
        "1",
        "--shot",
        tmp_path / "s.h5",
    ]
    assert run(capsys, *args)[0] == 0
    analyze = [
        "analyze",
        "thomas2021",
        tmp_path / "r.h5",
        "--shot",
        tmp_path / "s.h5",
        "--quick",
        "--json",
        "-o",
        tmp_path / "a",
    ]
    code, out, err = run(capsys, *analyze, "--calibration", tmp_path / "c.json")
    assert code in (0, 4), err
    fitted = (
        {p["name"]: p for p in json.loads(out)["fit"]["parameters"]}
        if isinstance(json.loads(out)["fit"]["parameters"], list)
        else json.loads(out)["fit"]["parameters"]
    )
    known = json.loads((tmp_path / "c.json").read_text())["parameters"]["detector.efficiency"]
    assert fitted["detector.efficiency"]["prior_mean"] == pytest.approx(known["mean"])
    assert fitted["detector.efficiency"]["prior_sd"] == pytest.approx(known["sd"])
    campaign = tmp_path / "campaign.toml"
    campaign.write_text(
        'experiment = "thomas2021"\n[[record]]\nsimulate = { seed = 1, duration = "20 ms" }\n[likelihood]\ncalibrations = ["c.json"]\n'
    )
    loaded = Campaign.load(campaign)
    assert loaded.priors["detector.efficiency"].mean == pytest.approx(known["mean"])
    assert len(loaded.correlated[0][0]) == 5


def _result(name, values, covariance, priors, p=0.5):
    sd = np.sqrt(np.diag(covariance))
    quantities = {k: Quantity(v, s) for (k, v), s in zip(values.items(), sd)}
    return Result("x", name, quantities, np.asarray(covariance), priors, 10.0, 10, p)


def test_two_calibrations_of_one_field():
    """The weighted mean, by the information matrices, correlations carried; more than 3 sd apart: refused."""
    a = _result("a", {"k": 4.2, "d": 0.7}, [[0.01, 0.002], [0.002, 0.04]], {"f.k": "k", "f.d": "d"})
    b = _result("b", {"k": 4.4}, [[0.02]], {"f.k": "k"})
    both = combine("set", [a, b])
    F = np.linalg.inv([[0.01, 0.002], [0.002, 0.04]])
    rhs = F @ [4.2, 0.7] + [4.4 / 0.02, 0]
    F[0, 0] += 1 / 0.02
    V = np.linalg.inv(F)
    assert_allclose(both.covariance, V, rtol=1e-9)
    assert_allclose([q.value for q in both.priors.values()], V @ rhs, rtol=1e-9)
    assert any("2 calibrations combined" in w for w in both.warnings)
    with pytest.raises(InputError, match="disagree on f.k"):
        combine("set", [a, _result("b", {"k": 6.0}, [[0.02]], {"f.k": "k"})])
    three = [_result(n, {"k": v}, [[1e-4]], {"f.k": "k"}) for n, v in (("a", 0.8), ("b", 0.8), ("c", 0.5))]
    with pytest.raises(InputError, match="disagree on f.k"):
        combine("set", three)


def test_what_is_left_out():
    """A model that does not describe its data gives no priors; fields that an experiment has not are dropped; functions of one another too."""
    bad = _result("a", {"k": 4.2}, [[0.01]], {"f.k": "k"}, p=1e-9)
    out = combine("set", [bad])
    assert not out.priors
    assert not out.passed
    good = _result("a", {"k": 0.8}, [[0.01]], {"detector.efficiency": "k", "nobody.x": "k"})
    kept = combine("set", [good], Experiment.load("thomas2021"))
    assert list(kept.priors) == ["detector.efficiency"]
    assert any("nobody.x is not set" in w for w in kept.warnings)
    twice = _result("a", {"T": 10.0, "n": 100.0}, [[1.0, 10.0], [10.0, 100.0]], {"m.T": "T", "m.n": "n"})
    assert list(combine("set", [twice]).priors) == ["m.T"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('method = "mors"', 'method = "morse"', "did you mean 'mors'"),
        ("splitting_hz = 400.0", "spliting_hz = 400.0", "did you mean 'splitting_hz'"),
        ("splitting_hz = 400.0", 'splitting_hz = "4 V"', "splitting_hz"),
        ('"beat.cavity_linewidth_hz" }', '"beta.cavity_linewidth_hz" }', "did you mean 'beat'"),
        ('"beat.cavity_linewidth_hz" }', '"beat.kappa" }', "no quantity 'kappa'"),
        ('"beat.cavity_linewidth_hz" }', '"spins.width_hz" }', "the order is"),
        (
            "relative_noise = 0.01",
            'relative_noise = 0.01\nuses = { modulation_index = "beat.amplitude" }',
            "in a circle",
        ),
        ('files = ["mors.csv"]', 'files = ["mores.csv"]', "no such file"),
        ('files = ["mors.csv"]', 'files = ["*.dat"]', "nothing matches"),
        ('files = ["mors.csv"]', "files = []", "needs 1"),
        ('"detector.efficiency" = "efficiency"', '"detector.efficiency" = "eta"', "no quantity 'eta'"),
        ('"detector.efficiency" = "efficiency"', '"detector.eficiency" = "efficiency"', "did you mean 'efficiency'"),
        ('name = "spins"', 'name = "beat"', "two calibrations have the name"),
        ("[[calibration]]", "[[calibrations]]", "unknown key|did you mean"),
        ("layout =", "layout", "not valid TOML"),
    ],
)
def test_mistakes_in_a_set(capsys, folder, old, new, words):
    text = (folder / "set.toml").read_text()
    assert old in text
    path = folder / "mistake.toml"
    path.write_text(text.replace(old, new))
    code, out, err = run(capsys, "calibrate", path, "-o", folder / "never.json")
    assert code == 2
    assert out == ""
    import re

    last = [line for line in err.splitlines() if line.startswith("backaction:")]
    assert len(last) == 1
    assert re.search(words, last[0]), last
    assert not (folder / "never.json").exists()


def test_command_line(capsys, folder, tmp_path):
    """One method, as JSON, with a report; its settings; a list of all methods; a wrong setting."""
    args = [
        "calibrate",
        "sideband_beat",
        folder / "beat.csv",
        "--set",
        "relative_noise=1 %",
        "--experiment",
        "thomas2021",
        "--json",
    ]
    code, out, err = run(capsys, *args, "--report", tmp_path / "page")
    assert code == 0, err
    document = json.loads(out)
    assert set(document["parameters"]) == {"membrane.cavity_linewidth_hz", "membrane.detuning_hz"}
    assert document["results"][0]["quantities"]["cavity_linewidth_hz"]["value"] == pytest.approx(4.2e6, rel=0.02)
    assert json.loads((tmp_path / "page" / "calibration.json").read_text()) == document
    assert sorted(p.name for p in (tmp_path / "page").iterdir()) == [
        "calibration.json",
        "index.html",
        "sideband_beat.png",
    ]
    code, out, _ = run(capsys, "calibrate")
    assert all(k in out for k in METHODS)
    for k in METHODS:
        code, out, _ = run(capsys, "calibrate", k, "--settings")
        assert code == 0
        assert "data:" in out
    code, _, err = run(capsys, "calibrate", "sideband_beat", folder / "beat.csv", "--set", "relativ_noise=0.1")
    assert code == 2
    assert "did you mean 'relative_noise'" in err
    code, _, err = run(
        capsys, "calibrate", "sideband_beat", folder / "beat.csv", "--set", "relative_noise=0.1", "--given", "unti=V"
    )
    assert code == 2
    assert "did you mean 'unit'" in err
    code, _, err = run(capsys, "calibrate", "--json")
    assert code == 2
    code, _, err = run(capsys, "calibrate", "sideband_beat", folder / "absent.csv", "--set", "relative_noise=0.1")
    assert code == 2
    assert "no such file" in err
    wrong = [
        "calibrate",
        "sideband_beat",
        folder / "beat.csv",
        "--set",
        "relative_noise=1e-4",
        "-o",
        tmp_path / "c.json",
    ]
    code, out, err = run(capsys, *wrong)
    assert code == 4
    assert "does not describe" in err


def test_scatter_from_the_residuals_is_asked_for():
    """Errors are never rescaled by themselves; `noise_from = residuals` does it, and then tests nothing: p is None."""
    t = simulate_beat(np.random.default_rng(3), sd=0.02)
    honest = make("sideband_beat", relative_noise=0.02, axis_unit="Hz").run([t])
    small = make("sideband_beat", relative_noise=0.01, axis_unit="Hz").run([t])
    assert small["cavity_linewidth_hz"].sd == pytest.approx(honest["cavity_linewidth_hz"].sd / 2, rel=0.01)
    assert any("does not describe" in w for w in small.warnings)
    free = make("sideband_beat", noise_from="residuals", axis_unit="Hz").run([t])
    assert free.p is None
    assert any("not tested" in w for w in free.warnings)
    assert 0.4 < free["cavity_linewidth_hz"].sd / honest["cavity_linewidth_hz"].sd < 2.5
    column = table(t.values[:, 0], t.values[:, 1], 0.02 * t.values[:, 1])
    listed = make("sideband_beat", noise_column=2, axis_unit="Hz").run([column])
    assert listed["cavity_linewidth_hz"].sd == pytest.approx(honest["cavity_linewidth_hz"].sd, rel=0.05)


def test_report_page_is_looked_at(found, tmp_path):
    """Every calibration has a section with numbers and a picture; nothing is loaded from elsewhere."""
    from backaction.report import calibration

    page = (calibration.write_calibration_report(found, tmp_path / "r") / "index.html").read_text()
    for r in found.results:
        assert f"<h2>{r.name}" in page
        assert (tmp_path / "r" / f"{r.name}.png").stat().st_size > 5000
    assert "http" not in page.replace("http-equiv", "")
    assert calibration.shown(1.23456, 0.0123) == "1.235 ± 0.012"
    assert calibration.shown(4208930.1, 16275.6) == "4208930 ± 16000".replace("4208930", "4209000")
    assert calibration.shown(-1369999.76, 1.3) == "-1369999.8 ± 1.3"


@pytest.mark.slow
def test_real_nanosphere():
    """The levitated nanosphere's record: one mode near 61.9 kHz, about 1 kHz wide, 20 dB above a floor that is not white; two others."""
    from backaction.calibration.sets import run_one

    path = shared("data/levitated_nanosphere/CH1_RUN00000001_REPEAT0000.raw")
    settings = dict(resolution_hz=100.0, frequencies_hz=[61.9e3, 150e3, 166e3], band_hz=[40e3, 200e3], floor_slope=True)
    found = run_one(make("thermal_oscillator", **settings), [path])
    assert found["frequency_1_hz"].value == pytest.approx(61.85e3, abs=150)
    assert found["linewidth_1_hz"].value == pytest.approx(1.03e3, abs=250)
    assert found["frequency_2_hz"].value == pytest.approx(149.8e3, abs=300)
    assert found["frequency_3_hz"].value == pytest.approx(166.0e3, abs=300)
    peak = found["variance_1"].value / (np.pi * found["linewidth_1_hz"].value) * 1.0
    assert 10 * np.log10(peak / found["floor"].value) == pytest.approx(20, abs=3)
    alone = run_one(
        make(
            "thermal_oscillator", resolution_hz=100.0, frequencies_hz=[61.9e3], band_hz=[50e3, 75e3], floor_slope=True
        ),
        [path],
    )
    assert abs(alone["floor_exponent"].value) > 3 * alone["floor_exponent"].sd
    same = run_one(
        make("thermal_oscillator", **settings), [path], {"unit": "V"}
    )  # the record's unit, not the spectrum's
    assert same["variance_1"].value == found["variance_1"].value
    with pytest.raises(InputError, match="resolution_hz"):
        run_one(make("thermal_oscillator"), [path])


def test_real_shot_noise():
    """Aggarwal 2020, 24 powers: the slope of the notes, no classical noise beyond 3 %, a dark file of other settings is not used."""
    from backaction.calibration.sets import run_one

    folder = shared("data/aggarwal2020/shot_noise/1349_1349.dat").parent
    given = {"averages": 5000, "window": "hanning", "unit": "Vrms", "sided": "one", "reference": "V"}
    lit = sorted(p for p in folder.glob("*.dat") if "dark" not in p.name)
    for low in range(10, 80, 10):
        settings = dict(
            band_hz=[1e3 * low, 1e3 * (low + 10)], power_unit="mV", at_power=1000.0, power_noise=0.5, rescale=True
        )
        found = run_one(make("linearity", **settings), lit, given)
        per_bin = 2 * 128 * ENBW_HANN * found["shot_per_power"].value  # one-sided Vrms^2 per bin, as the notes count
        assert per_bin == pytest.approx(1.87e-15, rel=0.03)
        assert abs(found["classical_share"].value) < 0.03
    both = run_one(make("linearity", band_hz=[20e3, 30e3]), [*lit, folder / "darknoise.dat"], given)
    assert any("other settings (window" in n for n in both.notes)
    assert any("scatter" in w for w in both.warnings)


ENBW_HANN = 1.5


def test_white_noise_left_uncalibrated_gives_no_priors(folder, tmp_path):
    found = combine(
        "one",
        [make("white_noise", excess_sn=1.22, axis_unit="Hz").run([simulate_white_noise(np.random.default_rng(1))])],
    )
    assert not found.priors
    assert json.loads(json.dumps(found.document()["parameters"])) == {}
    from backaction.files import to_json

    (tmp_path / "c.json").write_text(to_json(found.document()))
    assert read_calibration(tmp_path / "c.json", Experiment.load("thomas2021"))[0] == {}


def test_units_do_not_make_a_covariance_invalid(tmp_path):
    """Rates of 1e6 Hz beside loss factors of 1e-6, moderately correlated: valid whatever the units."""
    from backaction.files import to_json

    rng = np.random.default_rng(1)
    fields = [
        "membrane.cavity_linewidth_hz",
        "detector.efficiency",
        "membrane.mechanical_linewidth_hz",
        "membrane.coupling_hz",
    ]
    for _ in range(30):
        L = rng.standard_normal((4, 4))
        R = L @ L.T + 2 * np.eye(4)
        R /= np.sqrt(np.outer(np.diag(R), np.diag(R)))
        sd = np.array([2e5, 1e-2, 1e-6, 1e3])
        means = [4.2e6, 0.8, 2.1e-3, 1.07e5]
        document = {
            "schema": "backaction/calibration/1",
            "parameters": {f: {"mean": m, "sd": s} for f, m, s in zip(fields, means, sd)},
            "covariance": {"names": fields, "matrix": (R * np.outer(sd, sd)).tolist()},
        }
        (tmp_path / "c.json").write_text(to_json(document))
        assert_allclose(read_calibration(tmp_path / "c.json", Experiment.load("thomas2021"))[1][1], R, atol=1e-12)
