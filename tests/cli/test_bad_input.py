"""Malformed experiments, records and options: exit 2 or 3, one clear line, no traceback, no file left behind."""

import json
import re
import struct

import h5py
import numpy as np
import pytest
import typer

from support.commands import call

SPIN = """
[[element]]
name = "spin"
kind = "spin_oscillator"
larmor_hz = -1.37e6
intrinsic_linewidth_hz = 1700.0
readout_rate_hz = 20e3
"""
CAVITY = """
[[element]]
name = "membrane"
kind = "optomechanical_cavity"
mechanical_hz = 1.37e6
mechanical_linewidth_hz = 2.1e-3
bath_occupation = 173e3
cavity_linewidth_hz = 4.2e6
overcoupling = 0.93
detuning_hz = -0.7e6
coupling_hz = 107e3
"""
DETECTOR = """
[[element]]
name = "detector"
kind = "homodyne"
"""
LOSS = """
[[element]]
name = "link"
kind = "loss"
transmission = 0.5
"""
GOOD = SPIN + LOSS + CAVITY + DETECTOR

# name: (TOML, exit code, what the line must say)
EXPERIMENTS = {
    "not TOML": ("[[element", 2, "not valid TOML"),
    "empty": ("", 2, "at least one element"),
    "unknown section": (GOOD + "\n[sate]\n", 2, "unknown key 'sate'; did you mean 'state'"),
    "unknown kind": (GOOD.replace("spin_oscillator", "spin_oscilator"), 2, "did you mean 'spin_oscillator'"),
    "unknown key": (GOOD.replace("readout_rate_hz", "readout_rate"), 2, "spin (spin_oscillator): unknown key 'readout_rate'; did you mean 'readout_rate_hz'"),
    "missing key": (GOOD.replace("transmission = 0.5", ""), 2, "link (loss): missing 'transmission'"),
    "no kind": (GOOD.replace('kind = "loss"', ""), 2, "unknown kind None"),
    "no name": (GOOD.replace('name = "link"', ""), 2, "needs a 'name'"),
    "dot in name": (GOOD.replace('name = "link"', 'name = "a.b"'), 2, "without dots"),
    "element is not a list": ("[element]\nname = 'a'", 2, "write [[element]]"),
    "wrong unit": (GOOD.replace("20e3", '"20 kelvin"'), 2, "has unit 'kelvin', expected Hz"),
    "angular unit": (GOOD.replace("20e3", '"20 rad/s"'), 2, "rates are cyclic here"),
    "unit nonsense": (GOOD.replace("20e3", '"20 kilowhat"'), 2, "not a number with a unit"),
    "NaN": (GOOD.replace("20e3", "nan"), 2, "must be a finite number"),
    "infinite": (GOOD.replace("20e3", "inf"), 2, "must be a finite number"),
    "boolean": (GOOD.replace("20e3", "true"), 2, "expected a number or a string"),
    "list for a number": (GOOD.replace("20e3", "[1, 2]"), 2, "expected a number or a string"),
    "negative linewidth": (GOOD.replace("1700.0", "-1700.0"), 2, "spin.intrinsic_linewidth_hz = -1700 Hz: must be >= 0"),
    "transmission 1.2": (GOOD.replace("transmission = 0.5", "transmission = 1.2"), 2, "link.transmission = 1.2: must be in [0, 1]"),
    "efficiency -0.1": (GOOD + "efficiency = -0.1", 2, "detector.efficiency = -0.1: must be in [0, 1]"),
    "zero cavity linewidth": (GOOD.replace("4.2e6", "0.0"), 2, "must be > 0"),
    "wrong word": (GOOD + 'reference = "phse"', 2, "did you mean 'phase'"),
    "two of a group": (GOOD.replace("bath_occupation = 173e3", "bath_occupation = 173e3\nbath_temperature_k = 11.0"), 2, "give only one of"),
    "no larmor": (GOOD.replace("larmor_hz = -1.37e6", ""), 2, "missing one of larmor_hz"),
    "offset without a cavity": (SPIN.replace("larmor_hz = -1.37e6", "larmor_offset_hz = 0.0") + DETECTOR, 2, "there is no optomechanical_cavity"),
    "coupling missing": (GOOD.replace("coupling_hz = 107e3", ""), 2, "missing coupling_hz"),
    "photons missing": (GOOD.replace("coupling_hz = 107e3", "single_photon_coupling_hz = 60.0"), 2, "needs photons or power_w"),
    "wavelength missing": (GOOD.replace("coupling_hz = 107e3", "single_photon_coupling_hz = 60.0\npower_w = 1e-6"), 2, "power_w needs wavelength_m"),
    "ports do not sum to one": (GOOD.replace("overcoupling = 0.93", "ports = { a = 0.5, b = 0.6 }"), 2, "sum to 1, got 1.1"),
    "unknown port": (GOOD.replace("overcoupling = 0.93", 'ports = { a = 0.5, b = 0.5 }\ninput_port = "c"'), 2, "not among the ports a, b"),
    "two of one name": (GOOD + LOSS, 2, "two elements have the name 'link'"),
    "unknown mode": (GOOD + '\n[state]\nmodes = ["membran"]', 2, "did you mean 'membrane'"),
    "unknown connection": (GOOD + '\n[[connection]]\nfrom = "link.lots"\nto = "detector.in"', 2, "did you mean 'link.lost'"),
    "connection without to": (GOOD + '\n[[connection]]\nfrom = "link.lost"', 2, "exactly the keys 'from' and 'to'"),
    "prior of nothing": (GOOD + '\n[prior]\n"spin.readout_rate" = { mean = 1, sd = 1 }', 2, "did you mean 'readout_rate_hz'"),
    "prior without sd": (GOOD + '\n[prior]\n"spin.readout_rate_hz" = { mean = 1.0 }', 2, "mean and sd go together"),
    "prior of negative sd": (GOOD + '\n[prior]\n"spin.readout_rate_hz" = { mean = 1.0, sd = -1.0 }', 2, "sd = -1: must be > 0"),
    "prior upside down": (GOOD + '\n[prior]\n"spin.readout_rate_hz" = { lower = 2.0, upper = 1.0 }', 2, "must be below upper"),
    "band upside down": (GOOD + "\n[analysis]\nband_hz = [2e6, 1e6]", 2, "needs 0 <= lowest < highest"),
    "critically coupled": (GOOD.replace("0.93", "0.5").replace("-0.7e6", "0.0"), 3, "no carrier leaves the cavity"),
    "singular loop": (
        SPIN + '[[element]]\nname = "b"\nkind = "beam_splitter"\ntransmission = 1.0\n' + DETECTOR
        + '[[connection]]\nfrom = "b.out2"\nto = "b.in2"\n', 3, "singular algebraic loop"),
    "structural damping": ('[[element]]\nname = "o"\nkind = "oscillator"\nfrequency_hz = 1e3\nintrinsic_linewidth_hz = 1.0\noccupation = 1.0\ngain = 1.0\ndamping = "structural"\n' + DETECTOR, 3, "no state-space form"),
    "unstable and unseen": (GOOD.replace("-0.7e6", "0.7e6").replace(DETECTOR, ""), 3, "unstable: mode 'membrane'"),
}  # fmt: skip


def one_line(code, out, err, expected, word):
    assert code == expected, err
    assert out == ""
    lines = [x for x in err.strip().splitlines() if not re.match(r"^(analyze|track|simulate): ", x)]
    assert len(lines) == 1, err
    assert lines[0].startswith(("backaction: ", "Error: "))
    assert word in lines[0]
    assert "Traceback" not in err


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_malformed_experiments(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text, expected, word = EXPERIMENTS[name]
    (tmp_path / "e.toml").write_text(text)
    one_line(*call(capsys, "state", "e.toml", "--json"), expected, word)
    assert [p.name for p in tmp_path.iterdir()] == ["e.toml"]


def test_good_text_is_good(capsys, tmp_path):
    """The base of the mutations is itself valid, so each failure is the mutation's."""
    (tmp_path / "e.toml").write_text(GOOD)
    assert call(capsys, "state", tmp_path / "e.toml", "--json")[0] == 0


OPTIONS = {
    "no such file": (["state", "missing.toml"], 2, "missing.toml: no such file"),
    "no such experiment": (["state", "thomas2020"], 2, "did you mean 'thomas2021'"),
    "set without value": (["state", "thomas2021", "--set", "spin.occupation"], 2, "expected element.field=value"),
    "set of unknown element": (["state", "thomas2021", "--set", "spn.occupation=1"], 2, "did you mean 'spin'"),
    "set of unknown field": (["state", "thomas2021", "--set", "spin.ocupation=1"], 2, "did you mean 'occupation'"),
    "set of a bad value": (["state", "thomas2021", "--set", "link.transmission=1.2"], 2, "must be in [0, 1]"),
    "bad frequencies": (["spectrum", "thomas2021", "--f", "1e6:2e6"], 2, "expected LO:HI:N"),
    "frequencies upside down": (["spectrum", "thomas2021", "--f", "2e6:1e6:10"], 2, "needs LO < HI"),
    "unknown ending": (["spectrum", "thomas2021", "--save", "x.docx"], 2, "unknown ending '.docx'"),
    "folder missing": (["spectrum", "thomas2021", "--save", "nowhere/x.csv"], 2, "does not exist"),
    "negative duration": (["simulate", "thomas2021", "-o", "r.h5", "--duration", "-1"], 2, "fewer than two samples"),
    "zero rate": (["simulate", "thomas2021", "-o", "r.h5", "--rate", "0"], 2, "must be > 0"),
    "record ending": (["simulate", "thomas2021", "-o", "r.wav"], 2, "name it *.h5"),
    "simulate unstable": (["simulate", "thomas2021", "-o", "r.h5", "--set", "membrane.detuning_hz=0.7e6", "--set", "spin.larmor_hz=-1e6"], 3, "unstable"),
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIONS)
def test_bad_options(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, expected, word = OPTIONS[name]
    one_line(*call(capsys, *arguments), expected, word)
    assert list(tmp_path.iterdir()) == []


def _hdf5(path, samples, **attributes):
    facts = {"sample_rate_hz": 1e7, "unit": "V", "sampling": "average"} | attributes
    with h5py.File(path, "w") as f:
        f["y"] = samples
        for k, v in facts.items():
            f["y"].attrs[k] = v


def _truncated(path):
    _hdf5(path, np.zeros(100_000))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _nan(path):
    y = np.random.default_rng(0).standard_normal(400_000)
    y[:] = np.nan
    _hdf5(path, y)


def _lecroy_cut(path):
    block = bytearray(346)
    block[0:8] = b"WAVEDESC"
    for kind, at, v in (
        ("<h", 32, 1),
        ("<h", 34, 1),
        ("<i", 36, 346),
        ("<i", 60, 2000),
        ("<i", 116, 1000),
        ("<f", 156, 1.0),
        ("<f", 176, 1e-6),
    ):
        struct.pack_into(kind, block, at, v)
    path.write_bytes(bytes(block) + b"\0" * 100)


RECORDS = {
    "truncated HDF5": ("r.h5", _truncated, "truncated"),
    "binary garbage": ("r.h5", lambda p: p.write_bytes(np.random.default_rng(1).bytes(5000)), "not a readable HDF5 file"),
    "empty file": ("r.h5", lambda p: p.write_bytes(b""), "the file is empty"),
    "zero length": ("r.h5", lambda p: _hdf5(p, np.zeros(0)), "0 samples: nothing to analyse"),
    "three axes": ("r.h5", lambda p: _hdf5(p, np.zeros((2, 3, 4))), "no dataset of samples"),
    "text samples": ("r.h5", lambda p: _hdf5(p, np.array([b"a", b"b"])), "expected numbers"),
    "negative rate": ("r.h5", lambda p: _hdf5(p, np.zeros(1000), sample_rate_hz=-1.0), "must be > 0"),
    "rate of text": ("r.h5", lambda p: _hdf5(p, np.zeros(1000), sample_rate_hz="fast"), "expected a number"),
    "wrong rate": ("r.h5", lambda p: _hdf5(p, np.zeros(100_000), sample_rate_hz=1e6), "too low for the band"),
    "unknown sampling": ("r.h5", lambda p: _hdf5(p, np.zeros(1000), sampling="sometimes"), "must be 'average' or 'instantaneous'"),
    "too short": ("r.h5", lambda p: _hdf5(p, np.random.default_rng(0).standard_normal(500)), "too short for a resolution"),
    "missing samples": ("r.h5", _nan, "every sample is missing"),
    "integers without scale": ("r.h5", lambda p: _hdf5(p, np.zeros(1000, dtype="i2")), "integer samples without 'scale'"),
    "complex": ("r.h5", lambda p: _hdf5(p, np.ones(100_000, dtype=complex)), "complex (demodulated)"),
    "garbage npz": ("r.npz", lambda p: p.write_bytes(b"PK garbage"), "not a readable .npz file"),
    "npz of two arrays": ("r.npz", lambda p: np.savez(p, a=np.ones(9), b=np.ones(9)), "name one as"),
    "raw without sidecar": ("r.raw", lambda p: p.write_bytes(b"\1\2" * 100), "no sidecar"),
    "bad sidecar": ("r.bin", lambda p: (p.write_bytes(b"\1\2" * 100), p.with_name("r.bin.json").write_text("{"))[0], "not valid JSON"),
    "sidecar without dtype": ("r.bin", lambda p: (p.write_bytes(b"\1\2" * 100), p.with_name("r.bin.json").write_text("{}"))[0], "does not say 'dtype'"),
    "odd bytes": ("r.bin", lambda p: (p.write_bytes(b"\1\2\3"), p.with_name("r.bin.json").write_text(json.dumps({"dtype": "<i2"})))[0], "not whole samples"),
    "truncated LeCroy": ("r.trc", _lecroy_cut, "truncated: header says 1000 samples"),
    "not LeCroy": ("r.trc", lambda p: p.write_bytes(b"hello" * 200), "no LeCroy WAVEDESC"),
    "unknown format": ("r.mat", lambda p: p.write_bytes(b"MATLAB"), "unknown kind of record file '.mat'"),
    "missing file": ("r.h5", lambda p: None, "no such file"),
}  # fmt: skip


@pytest.mark.parametrize("name", RECORDS)
def test_malformed_records(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file, make, word = RECORDS[name]
    make(tmp_path / file)
    before = sorted(p.name for p in tmp_path.iterdir())
    one_line(*call(capsys, "analyze", "thomas2021", file, "-o", "report"), 2, word)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_track_without_a_scale_is_refused(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _hdf5(tmp_path / "r.h5", np.random.default_rng(0).standard_normal(1000))
    one_line(*call(capsys, "track", "thomas2021", "r.h5", "-o", "t.h5"), 2, "needs a shot-noise record")
    assert [p.name for p in tmp_path.iterdir()] == ["r.h5"]


def test_interrupt_leaves_nothing_and_exits_130(capsys, tmp_path, monkeypatch):
    import backaction.tracking

    monkeypatch.chdir(tmp_path)
    y = np.random.default_rng(0).standard_normal(400_000)
    _hdf5(tmp_path / "r.h5", y)

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(backaction.tracking, "tracked", stop)
    code, out, err = call(capsys, "track", "thomas2021", "r.h5", "--shot", "r.h5", "-o", "t.h5")
    assert (code, out) == (130, "")
    assert "interrupted" in err
    assert [p.name for p in tmp_path.iterdir()] == ["r.h5"]


def test_an_option_of_one_value_given_twice_is_refused(capsys):
    """Every option of every command: those whose parameter is a list may be repeated, flags too, all others may not."""
    import inspect
    import typing

    from backaction.cli import app

    counted = {True: 0, False: 0}
    for command in app.registered_commands:
        hints = typing.get_type_hints(command.callback, include_extras=True)
        for name in inspect.signature(command.callback).parameters:
            plain, said = typing.get_args(hints[name])[0], typing.get_args(hints[name])[1]
            if plain is bool or not isinstance(said, typer.models.OptionInfo):
                continue
            option = [w for w in (said.default, *said.param_decls) if str(w).startswith("-")][-1]
            word = command.name or command.callback.__name__
            _, _, err = call(capsys, word, option, "1", f"{option}=1")
            repeatable = "list" in str(plain)
            counted[repeatable] += 1
            assert (f"{option}: given 2 times, takes one value" in err) != repeatable, (word, option, err)
            assert repeatable or err.count("\n") == 1
    assert counted[True] > 10
    assert counted[False] > 50


def test_there_are_at_least_forty():
    assert len(EXPERIMENTS) + len(OPTIONS) + len(RECORDS) >= 40
