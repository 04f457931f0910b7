"""What limits a result: against experiments written anew with other numbers, and central differences."""

import json
import re

import jsonschema
import numpy as np
import pytest
from numpy.testing import assert_allclose

from backaction import Experiment, InputError, ModelError, evaluate
from backaction.design import limits
from backaction.design.limits import find_limits, imperfections
from support.commands import call, schema

EPR = "conditional.epr.variance"


def rewritten(experiment, **numbers):
    """The experiment's TOML with `element__key = number` written in by hand."""
    text = experiment.to_toml()
    for path, value in numbers.items():
        name, key = path.split("__")
        head, rest = text.split(f'name = "{name}"\nkind', 1)
        assert re.search(rf"^{key} = ", rest, flags=re.MULTILINE)
        text = (
            head
            + f'name = "{name}"\nkind'
            + re.sub(rf"^{key} = .*$", f"{key} = {value!r}", rest, count=1, flags=re.MULTILINE)
        )
    return Experiment.from_toml(text)


def test_without_is_the_experiment_written_with_other_numbers(thomas):
    found = {w.what: w for w in find_limits(thomas).without}
    here = evaluate(EPR, thomas)
    for what, numbers in {
        "loss of link": {"link__transmission": 1.0},
        "inefficiency of detector": {"detector__efficiency": 1.0},
        "temperature of membrane": {"membrane__bath_occupation": 0.0},
        "broadband noise of spin": {"spin__broadband_noise_sn": 0.0},
        "cavity loss of membrane": {"membrane__overcoupling": 1.0},
        "temperature of spin and loss of link": {"spin__occupation": 0.0, "link__transmission": 1.0},
        "all losses": {"link__transmission": 1.0, "membrane__overcoupling": 1.0, "detector__efficiency": 1.0},
    }.items():
        want = evaluate(EPR, rewritten(thomas, **numbers))
        assert_allclose(found[what].value, want, rtol=1e-10)
        assert_allclose(found[what].change, want - here, rtol=1e-9)
    singles = [abs(w.change) for w in find_limits(thomas).singles]
    assert singles == sorted(singles, reverse=True)


def test_pairs_are_those_that_interact(thomas):
    """f(AB) - f(A) - f(B) + f beyond a tenth of the larger single change; all pairs by hand."""
    found = find_limits(thomas)
    parts = imperfections(thomas)
    alone = {p.what: evaluate(EPR, thomas.with_values(p.ideal)) - found.value for p in parts}
    want = set()
    for i, a in enumerate(parts):
        for b in parts[:i]:
            both = evaluate(EPR, thomas.with_values({**a.ideal, **b.ideal})) - found.value
            if abs(both - alone[a.what] - alone[b.what]) > 0.1 * max(abs(alone[a.what]), abs(alone[b.what])):
                want.add(frozenset([a.what, b.what]))
    assert {frozenset(w.what.split(" and ")) for w in found.pairs} == want


@pytest.mark.parametrize(("name", "of"), [("thomas2021", EPR), ("membrane", "conditional.occupation.membrane")])
def test_sensitivities_are_central_differences(name, of):
    e = Experiment.load(name)
    found = find_limits(e, pairs=False)
    assert found.of == of
    sizes = [abs(s.log_derivative) for s in found.sensitivities if s.log_derivative is not None]
    assert sizes == sorted(sizes, reverse=True)
    assert set(e.priors) <= {s.field for s in found.sensitivities}
    for s in found.sensitivities:
        if s.field.endswith("overcoupling") or s.value == 1.0:  # at or near the end of the allowed range
            continue
        h = 1e-5 * abs(s.value)
        ends = [evaluate(of, e.with_values({s.field: s.value + d})) for d in (-h, h)]
        slope = (ends[1] - ends[0]) / (2 * h)
        assert_allclose(s.derivative, slope, rtol=2e-4, atol=1e-7 * abs(found.value / s.value))
        assert_allclose(s.log_derivative, s.value * s.derivative / found.value, rtol=1e-12)


def test_temperature_takes_the_place_of_an_occupation():
    e = Experiment.load("levitated")
    assert {tuple(p.ideal) for p in imperfections(e) if p.kind == "temperature"} == {("bead.occupation",)}
    found = {w.what: w.value for w in find_limits(e).without}
    cold = e.with_values({"bead.temperature_k": 0.0})
    assert_allclose(found["temperature of bead"], evaluate("conditional.occupation.bead", cold), rtol=1e-9)


def test_a_change_without_an_answer_says_why(thomas, monkeypatch):
    def sometimes(of, experiment):
        if experiment.value("link.transmission") == 1.0:
            raise ModelError("unstable: mode 'spin' grows")
        return evaluate(of, experiment)

    monkeypatch.setattr(limits, "evaluate", sometimes)
    found = find_limits(thomas)
    lost = next(w for w in found.without if w.what == "loss of link")
    assert (lost.value, lost.change) == (None, None)
    assert "unstable" in lost.reason
    assert not any("link" in w.what for w in found.pairs)
    jsonschema.validate(found.document(), schema("limits"))


def test_draws_give_the_interval(thomas):
    """Draws of one field alone: quantiles of the result at each of them, and none where that field is removed."""
    values = np.random.default_rng(0).uniform(0.6, 0.9, 30)
    found = find_limits(thomas, draws={"detector.efficiency": values}, pairs=False)
    each = [evaluate(EPR, thomas.with_values({"detector.efficiency": v})) for v in values]
    assert_allclose(found.interval, np.quantile(each, [0.05, 0.95]), rtol=1e-9)
    cold = [evaluate(EPR, thomas.with_values({"detector.efficiency": v, "link.transmission": 1.0})) for v in values]
    without = {w.what: w for w in found.without}
    assert_allclose(without["loss of link"].interval, np.quantile(cold, [0.05, 0.95]), rtol=1e-9)
    assert without["inefficiency of detector"].interval is None


def test_beam_splitters_are_no_losses_and_ideal_things_are_not_listed():
    from backaction import BeamSplitter, Homodyne, Oscillator

    e = Experiment([
        Oscillator(name="a", frequency_hz=1e5, intrinsic_linewidth_hz=1.0, occupation=3.0, readout_rate_hz=100.0),
        BeamSplitter(name="tap", transmission=0.9), Homodyne(name="d"),
    ])  # fmt: skip
    assert [p.what for p in imperfections(e)] == ["temperature of a"]


def test_the_command(capsys, tmp_path):
    code, out, err = call(capsys, "limits", "thomas2021", "--json")
    document = json.loads(out)
    jsonschema.validate(document, schema("limits"))
    assert (code, err) == (0, "")
    assert document["of"] == EPR
    assert document["without"][0]["what"] == "loss of link"
    code, out, _ = call(capsys, "limits", "ockeloen2018")  # nothing is detected
    assert code == 0
    assert out.startswith("unconditional.epr.variance")
    for ending in ("json", "csv", "png"):
        path = tmp_path / f"x.{ending}"
        code, _, err = call(capsys, "limits", "membrane", "--of", "unconditional.purity", "--save", path)
        assert (code, "wrote" in err, path.stat().st_size > 500) == (0, True, True)
    assert json.loads((tmp_path / "x.json").read_text())["of"] == "unconditional.purity"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.csv", "x.json", "x.png"]
    (tmp_path / "x.nc").write_bytes(b"x" * 500)
    for arguments, words in (
        (("limits", "thomas2021", "--of", "conditional.epr.varance"), "did you mean"),
        (("limits", "thomas2021", "--save", "x.txt"), "*.csv"),
        (("limits", "thomas2021", "--next"), "posterior.nc"),
        (("limits", str(tmp_path / "no.nc")), "no such file"),
        (("limits", str(tmp_path / "x.nc")), "not readable"),
        (("limits", "nothing"), "no such file or shipped"),
    ):
        code, out, err = call(capsys, *arguments)
        assert (code, out) == (2, "")
        assert words in err
        assert "Traceback" not in err


def test_unknown_result(thomas):
    with pytest.raises(InputError, match="unknown result"):
        find_limits(thomas, "conditional.nothing")
