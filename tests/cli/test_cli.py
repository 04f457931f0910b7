import json
import os
import subprocess
import sys

import h5py
import jsonschema
import numpy as np
import pytest
from numpy.testing import assert_allclose

from support.commands import call, schema


def run(*arguments, cwd=None):
    """The command in a process of its own: exit code, stdout, stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "backaction", *map(str, arguments)], capture_output=True, text=True, cwd=cwd
    )
    return done.returncode, done.stdout, done.stderr


def test_schemas_are_valid_schemas():
    for name in ("state", "spectrum", "list", "show", "analyze", "optimize", "sweep", "sense", "reproduce", "limits"):
        jsonschema.Draft202012Validator.check_schema(schema(name))


def test_state_json_contract(capsys, numbers):
    code, out, err = call(capsys, "state", "thomas2021", "--json")
    document = json.loads(out)
    jsonschema.validate(document, schema("state"))
    assert (code, err) == (0, "")
    assert document["schema"] == "backaction/state/1"
    assert document["modes"] == ["membrane", "spin"]
    head = numbers["TABLE"]["headline"]
    u, c = document["unconditional"], document["conditional"]
    assert_allclose(c["epr"]["variance"], head["Vc"], rtol=1e-6)
    assert_allclose(u["epr_at_conditional"]["variance"], head["Vu_at_Vc_optimum"], rtol=1e-6)
    assert_allclose(u["epr"]["variance"], head["Vu_min"], rtol=1e-6)
    assert_allclose(c["log_negativity"], 0.3416907205, rtol=1e-6)
    assert set(c["steering"]) == {"membrane->spin", "spin->membrane"}


def test_state_tuned_by_set(capsys, numbers):
    from support.reference import TUNED

    sets = [x for k, v in TUNED.items() for x in ("--set", f"{k}={v!r}")]
    _, out, _ = call(capsys, "state", "thomas2021", "--json", *sets)
    assert_allclose(json.loads(out)["conditional"]["epr"]["variance"], numbers["TUNED"]["headline"]["Vc"], rtol=1e-6)


def test_spectrum_json_and_files(capsys, tmp_path):
    code, out, _ = call(capsys, "spectrum", "thomas2021", "--f", "1.36 MHz:1.38 MHz:21", "--json")
    document = json.loads(out)
    jsonschema.validate(document, schema("spectrum"))
    assert code == 0
    total = np.sum(list(document["sources"].values()), axis=0)
    assert_allclose(total, document["total"], rtol=1e-10)
    for ending in ("csv", "h5", "png", "pdf", "svg"):
        code, _, err = call(capsys, "spectrum", "thomas2021", "--save", tmp_path / f"x.{ending}")
        assert (code, "wrote" in err) == (0, True)
    table = np.genfromtxt(tmp_path / "x.csv", delimiter=",", names=True)
    with h5py.File(tmp_path / "x.h5") as f:
        assert np.array_equal(f["total"][...], table["total"])
        assert json.loads(f.attrs["experiment"])["name"] == "thomas2021"
    assert (tmp_path / "x.png").read_bytes()[:4] == b"\x89PNG"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(f"x.{e}" for e in ("csv", "h5", "png", "pdf", "svg"))


def test_spectrum_diff(capsys, tmp_path):
    from backaction.experiment.toml import shipped_experiments

    _, out, _ = call(capsys, "spectrum", "thomas2021", "--diff", "thomas2021", "--json")
    document = json.loads(out)
    assert document["other"]["total"] == document["total"]
    assert "thomas2021" in shipped_experiments()


def test_list_and_show(capsys):
    _, out, _ = call(capsys, "list", "--json")
    document = json.loads(out)
    jsonschema.validate(document, schema("list"))
    assert "thomas2021" in document["experiments"]
    assert "optomechanical_cavity" in document["elements"]
    _, out, _ = call(capsys, "show", "thomas2021", "--json")
    facts = json.loads(out)
    jsonschema.validate(facts, schema("show"))
    _, out, _ = call(capsys, "state", "thomas2021", "--json")
    assert facts["by_mode"]["conditional"] == json.loads(out)["conditional"]["by_mode"]
    membrane = facts["derived"]["membrane"]
    assert_allclose(membrane["effective_linewidth_hz"], 4405.438612, rtol=1e-8)
    assert_allclose(membrane["readout_rate_hz"], 15211.46224, rtol=1e-8)
    assert_allclose(membrane["sideband_asymmetry"], 0.144406792, rtol=1e-8)
    assert_allclose(facts["derived"]["spin"]["|omega_S| - omega_M,eff (Hz)"], -2202.719306, rtol=1e-8)
    for command in (("list",), ("show", "thomas2021"), ("state", "thomas2021"), ("spectrum", "thomas2021")):
        code, out, _ = call(capsys, *command)
        assert code == 0
        assert len(out) > 200


def test_simulate_track_round_trip(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = call(
        capsys,
        "simulate",
        "thomas2021",
        "-o",
        "r.h5",
        "--duration",
        "10 ms",
        "--seed",
        "3",
        "--paths",
        "--shot",
        "s.h5",
        "--dark",
        "d.h5",
    )
    assert (code, "seed 3" in err) == (0, True)
    code, _, err = call(
        capsys, "track", "thomas2021", "r.h5", "--shot", "s.h5", "-o", "t.h5", "--frame", "lab", "--every", "1"
    )
    assert code == 0
    with h5py.File("t.h5") as t, h5py.File("r.h5") as r:
        assert t["mean"].shape == (100_000, 4)
        assert t["innovation"].shape == (100_000,)
        assert t["covariance"].shape == (4, 4)
        assert_allclose(t.attrs["time_start_s"], 1e-7)
        assert_allclose(t.attrs["time_step_s"], 1e-7)
        assert list(t.attrs["modes"]) == ["membrane", "spin"]
        assert t.attrs["schema"] == "backaction/track/1"
        assert json.loads(t.attrs["experiment"])["name"] == "thomas2021"
        error = np.var(t["mean"][20_000:] - r["truth/paths"][20_000:], axis=0)
        assert_allclose(error, np.diag(t["covariance"]), rtol=0.5)
        assert r.attrs["seed"] == 3
    code, _, _ = call(capsys, "track", "thomas2021", "r.h5", "--shot", "s.h5", "-o", "u.h5")
    with h5py.File("u.h5") as u:
        assert u.attrs["frame"] == "rotating"
        assert u["mean"].shape[0] < 10_000


@pytest.mark.slow
def test_analyze_from_the_command_line(tmp_path):
    assert run("simulate", "thomas2021", "-o", "r.h5", "--duration", "0.1", "--shot", "s.h5", cwd=tmp_path)[0] == 0
    code, out, err = run("analyze", "thomas2021", "r.h5", "--shot", "s.h5", "--quick", "--json", cwd=tmp_path)
    document = json.loads(out)
    jsonschema.validate(document, schema("analyze"))
    assert code == (0 if document["passed"] else 4)
    assert "analyze: filtering" in err
    assert json.loads((tmp_path / "report/result.json").read_text()) == document


def test_exit_codes(capsys):
    assert call(capsys, "state", "thomas2021")[0] == 0
    assert call(capsys, "state", "thomas2012")[0] == 2
    code, out, err = call(
        capsys, "spectrum", "thomas2021", "--set", "membrane.detuning_hz=0.7e6", "--set", "spin.larmor_hz=-1.37e6"
    )
    assert (code, out) == (3, "")
    assert "unstable: mode 'membrane'" in err


def test_unstable_but_conditioned_state_is_null_and_good(capsys):
    code, out, _ = call(
        capsys,
        "state",
        "thomas2021",
        "--json",
        "--set",
        "membrane.detuning_hz=0.7e6",
        "--set",
        "spin.larmor_hz=-1.37e6",
    )
    document = json.loads(out)
    jsonschema.validate(document, schema("state"))
    assert code == 0
    assert document["unconditional"] is None
    assert document["conditional"] is not None


def test_start_up_imports_nothing_heavy():
    code = "import sys, backaction.cli; print([m for m in ('scipy', 'h5py', 'pint', 'matplotlib', 'xarray', 'pandas', 'numpy') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_state_needs_only_numpy():
    """A single state compiles nothing and imports neither scipy nor pint."""
    code = (
        "import sys; from backaction.experiment import Experiment; from backaction.experiment.describe import state_document\n"
        "state_document(Experiment.load('thomas2021'))\n"
        "print([m for m in ('scipy', 'h5py', 'pint', 'matplotlib', 'xarray', 'numba') if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    ).stdout
    assert out.strip() == "[]"


def test_version_and_help(capsys):
    from backaction import __version__

    assert call(capsys, "--version")[1].strip() == __version__
    assert "analyze" in call(capsys, "--help")[1]
