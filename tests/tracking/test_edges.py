"""Defects that a review of the tracking found; each test failed before its mend."""

import os
import re

import h5py
import numpy as np
import pytest
from numpy.testing import assert_allclose

import backaction.tracking.run
from backaction import Experiment, GaussianState, Homodyne, Record, SpinOscillator
from backaction.errors import InputError
from backaction.records.formats.hdf5 import write_hdf5
from backaction.records.shot_level import ShotNoise
from backaction.records.simulation import VOLT_DENSITY, ramp, reference, simulate
from backaction.systems.sampled import discretise, steady_filter
from backaction.tracking import drift
from backaction.tracking.agreement import agreement
from backaction.tracking.innovations import Monitor, innovation_checks
from backaction.tracking.inputs import currents
from backaction.tracking.run import track
from backaction.tracking.tracker import Tracker
from backaction.tracking.tracks import load_track
from support.commands import call

CALIBRATION = ShotNoise(VOLT_DENSITY, 1e-3, "V")


def spin(name="a", larmor=-1.2e5, readout=6e3, **more):
    return SpinOscillator(
        name=name, larmor_hz=larmor, intrinsic_linewidth_hz=1500.0, readout_rate_hz=readout, occupation=1.0, **more
    )


@pytest.fixture(scope="module")
def two():
    return Experiment([spin(), spin("b", 1.3e5), Homodyne(name="d", electronic_noise_sn=0.5)], band_hz=(8e4, 1.8e5))


@pytest.fixture(scope="module")
def record(two):
    return simulate(two, 0.15, 2e6, seed=3).record


@pytest.mark.parametrize("every", [4097, 4109, 4114, 5000, 30_000, 100_003])
def test_any_decimation_picks_the_same_means(two, record, every):
    full = track(two, record, CALIBRATION, "lab", 1)
    some = track(two, record, CALIBRATION, "lab", every)
    assert_allclose(some.mean, full.mean[every - 1 :: every], rtol=0, atol=1e-10)
    assert_allclose(some.log_likelihood, full.log_likelihood, rtol=1e-12)
    inputs = currents([record], [VOLT_DENSITY])
    tracker = Tracker(two, inputs, frame="lab", every=every)
    y = np.asarray(record.source)
    pieces = [tracker.push(y[a : a + 7777]) for a in range(0, y.size, 7777)] + [tracker.flush()]
    assert np.array_equal(np.concatenate([p.mean for p in pieces]), some.mean)


def test_innovations_of_a_schedule_have_one_variance(two):
    """Electronic noise from 0.5 to 3 SN at half time: the innovations are whitened to the first model's variance."""
    loud = two.with_values({"d.electronic_noise_sn": 3.0})
    made = simulate(two, 0.1, 2e6, seed=1, schedule=[(0.05, loud)]).record
    found = track(two, made, CALIBRATION, schedule=[(0.05, loud)])
    for part in (slice(1000, 99_000), slice(101_000, None)):
        assert_allclose(np.var(found.innovation[part]), found.innovation_variance_sn, rtol=0.02)


def test_following_a_noise_level_settles(two):
    """A ramp of the electronics: more iterations change nothing, and the truth lies within the errors."""
    name = "d.electronic_noise_sn"
    made = simulate(two, 0.2, 2e6, seed=2, schedule=ramp(two, [(name, 0.47, 0.53)], 0.2)).record
    values = []
    for iterations in (2, 6):
        found = drift.follow(two, made, CALIBRATION, [name], segments=10, iterations=iterations)
        values.append(found.values[:, 0])
        truth = 0.47 + 0.06 * (np.arange(10) + 0.5) / 10
        assert np.all(np.abs(found.values[:, 0] - truth) < 4 * found.sd[:, 0])
    assert_allclose(values[0], values[1], atol=0.1 * float(np.mean(found.sd)))
    quiet = two.with_values({name: 0.0})
    # at the edge of what is allowed it stays there
    assert np.all(drift.follow(quiet, simulate(quiet, 0.1, 2e6, 1).record, CALIBRATION, [name], 5).values >= 0)


def test_innovations_of_a_smoother_come_in_time_order(two, record, monkeypatch):
    monkeypatch.setattr(backaction.tracking.run, "_CHUNK", 40_000)
    seen = {}
    for estimate in ("filtered", "smoothed"):
        m = Monitor(2e6, record.size, 1.0, two.band_hz, segments=5)
        found = track(two, record, CALIBRATION, estimate=estimate, monitor=m)
        seen[estimate] = m, found
    assert_allclose(seen["filtered"][0].in_band, seen["smoothed"][0].in_band, rtol=1e-5)
    assert_allclose(seen["filtered"][1].log_likelihood, seen["smoothed"][1].log_likelihood, rtol=1e-12)
    assert_allclose(seen["filtered"][1].innovation, seen["smoothed"][1].innovation, atol=1e-6)


def test_backward_passes_do_not_depend_on_the_chunks(two, record, monkeypatch):
    y = np.array(record.source)
    y[[0, 79_999, 80_000]] = np.nan
    y[119_000:121_000] = np.nan
    whole = {e: track(two, Record(y, 2e6), CALIBRATION, "lab", 7, estimate=e) for e in ("smoothed", "retrodicted")}
    monkeypatch.setattr(backaction.tracking.run, "_CHUNK", 40_000)
    for e, there in whole.items():
        again = track(two, Record(y, 2e6), CALIBRATION, "lab", 7, estimate=e)
        assert_allclose(again.mean, there.mean, atol=1e-9)
        assert_allclose(again.covariances(), there.covariances(), atol=1e-9)
        assert again.missing == there.missing == int(np.sum(np.isnan(y)))


def test_a_second_run_to_the_same_file_is_refused(two, record, tmp_path):
    target = tmp_path / "t.h5"

    def second(part):
        if part < 1:
            with pytest.raises(InputError, match="another run is writing it"):
                track(two, record, CALIBRATION, output=target)

    found = track(two, record, CALIBRATION, output=target, progress=second)
    assert np.array_equal(found.mean, track(two, record, CALIBRATION).mean)
    track(two, record, CALIBRATION, output=tmp_path / "t.zarr")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.h5", "t.zarr"]


def interrupted(*arguments, after=0.4, **options):
    """A run that stops in the middle, its state saved at every chunk."""

    def stop(part):
        if part > after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        track(*arguments, progress=stop, **options)


def test_another_record_of_the_same_name_is_not_resumed(two, record, tmp_path, monkeypatch):
    monkeypatch.setattr(backaction.tracking.run, "_CHUNK", 40_000)
    monkeypatch.setattr(backaction.tracking.run, "_SAFE_S", 0.0)
    other = simulate(two, 0.15, 2e6, seed=9).record
    for changed, start in ((other, "unconditional"), (record.part(0, record.size), GaussianState.vacuum("a", "b"))):
        interrupted(two, record, CALIBRATION, output=tmp_path / "t.h5")
        found = track(two, changed, CALIBRATION, output=tmp_path / "t.h5", start=start)
        assert np.array_equal(found.mean, track(two, changed, CALIBRATION, start=start).mean)
    interrupted(two, record, CALIBRATION, output=tmp_path / "t.h5")
    holed = Record(record.source, 2e6, gaps=((10_000, 14_000),), name=record.name, metadata=record.metadata)
    assert track(two, holed, CALIBRATION, output=tmp_path / "t.h5").missing == 4000


def test_a_resumed_run_keeps_what_its_monitor_saw(two, record, tmp_path, monkeypatch):
    monkeypatch.setattr(backaction.tracking.run, "_CHUNK", 8192)
    monkeypatch.setattr(backaction.tracking.run, "_SAFE_S", 0.0)
    whole = Monitor(2e6, record.size, 1.0, two.band_hz, segments=5)
    track(two, record, CALIBRATION, monitor=whole)
    options = {"output": tmp_path / "t.h5", "innovations": False}
    first, second = (Monitor(2e6, record.size, 1.0, two.band_hz, segments=5) for _ in range(2))
    interrupted(two, record, CALIBRATION, monitor=first, after=0.5, **options)
    found = track(two, record, CALIBRATION, monitor=second, **options)
    assert_allclose(second.square, whole.square, rtol=1e-9)
    assert_allclose(second.in_band, whole.in_band, rtol=1e-6)
    assert np.array_equal(found.mean, track(two, record, CALIBRATION).mean)


def test_a_run_that_was_killed_while_it_finished(two, record, tmp_path, monkeypatch):
    for kind in ("h5", "zarr"):
        target = tmp_path / f"t.{kind}"
        with monkeypatch.context() as patch:

            def stop(source, destination, replace=os.replace, target=target):
                if os.fspath(destination) == os.fspath(target):
                    raise KeyboardInterrupt
                replace(source, destination)

            patch.setattr(os, "replace", stop)
            with pytest.raises(KeyboardInterrupt):
                track(two, record, CALIBRATION, output=target)
        found = track(two, record, CALIBRATION, output=target)
        assert np.array_equal(found.mean, track(two, record, CALIBRATION).mean)
    (tmp_path / ".u.h5.partial").write_bytes(b"damaged")
    assert track(two, record, CALIBRATION, output=tmp_path / "u.h5").mean.size


def test_clipping_is_seen_beside_a_gap(two, record):
    counts = np.round(np.asarray(record.source) / 5e-6).astype(np.int16)
    counts[[100, 50_000, 200_000]] = 32767
    for gaps in ((), ((20_000, 20_001),)):
        found = track(two, Record(counts, 2e6, scale=5e-6, gaps=gaps), CALIBRATION)
        assert (found.clipped, found.missing) == (3, len(gaps))


def test_a_steady_start_is_that_of_the_schedules_first_model(two, record):
    other = two.with_values({"a.readout_rate_hz": 2e4})
    found = track(two, record, CALIBRATION, "lab", 1, start="steady", schedule=[(0.0, other)])
    P = steady_filter(discretise(other.system, 2e6)).covariance
    i = other.system.indices(other.reported_modes())
    assert_allclose(found.covariances()[0], P[np.ix_(i, i)], atol=1e-10)
    assert np.array_equal(found.mean, track(other, record, CALIBRATION, "lab", 1, start="steady").mean)


def test_a_start_of_modes_that_are_not_read_counts(two, record):
    start = GaussianState.thermal(a=50.0, b=0.0)
    both = track(two, record, CALIBRATION, "lab", 1, start=start)
    one = track(two, record, CALIBRATION, "lab", 1, start=start, modes=["b"])
    assert_allclose(one.mean, both.mean[:, 2:], atol=1e-12)
    with pytest.raises(InputError, match="zz"):
        track(two, record, CALIBRATION, start=GaussianState.vacuum("zz"))
    with pytest.raises(InputError, match="no mode to track"):
        track(two, record, CALIBRATION, modes=[])


def test_holes_of_each_shot_are_its_own(two, record):
    y = np.stack([np.asarray(record.source[:20_000]), np.asarray(record.source[20_000:40_000])])
    y[1, 5000:6000] = np.nan
    found = track(two, Record(y, 2e6), CALIBRATION, "lab", 1)
    V = found.covariances()
    assert V.shape == (2, 20_000, 4, 4)
    assert np.max(np.abs(V[0, 5999] - V[1, 5999])) > 0.1
    _, variance = found.combination([1.0, 0.0, 0.0, 0.0])
    assert_allclose(variance, V[:, :, 0, 0])


def test_flush_of_two_currents_with_nothing_waiting():
    e = Experiment.load("huang2018")
    rate = 20 * float(np.max(np.abs(np.linalg.eigvals(e.system.A))))
    made = simulate(e, 8192 / rate, rate, seed=4)
    inputs = currents(made.records, [VOLT_DENSITY] * 2)
    tracker = Tracker(e, inputs, frame="lab", every=1)
    tracker.push(np.stack([r.source for r in made.records], axis=1))
    assert tracker.flush().mean.shape == (0, 4)


def test_a_date_as_start_time_keeps_the_rotating_frame(two, record):
    """1.7e9 s after 1970: the means turn by exactly what they turn by from zero, up to one constant phase."""
    late = Record(record.source, 2e6, start_s=1.7e9)
    a, b = track(two, record, CALIBRATION), track(two, late, CALIBRATION)
    za, zb = (t.mean[:, 0] + 1j * t.mean[:, 1] for t in (a, b))
    phase = np.angle(np.vdot(za, zb))
    assert_allclose(zb, za * np.exp(1j * phase), atol=1e-6)


def test_monitor_refuses_what_it_cannot_test(two):
    with pytest.raises(InputError, match="no frequency"):
        Monitor(2e6, 100_000, 1.0, (1e5, 1.0001e5), segments=20)
    with pytest.raises(InputError, match="too few"):
        Monitor(2e6, 100, 1.0, (1e5, 2e5), segments=20)
    m = Monitor(2e6, 100_000, 1.0, (1e5, 2e5), segments=5)
    m(0, np.full(100_000, np.nan))
    with pytest.raises(InputError, match="no innovations"):
        innovation_checks(m, CALIBRATION, (1e5, 2e5))


def test_a_hole_in_every_segment_raises_no_false_alarm():
    """Half of each segment missing in one piece: 40 white records, no alarm at 1e-3."""
    for seed in range(40):
        e = np.random.default_rng(seed).standard_normal(80_000)
        e.reshape(5, -1)[:, :8000] = np.nan
        m = Monitor(1e6, e.size, 1.0, (1e5, 2e5), segments=5)
        m(0, e)
        assert all(t.passed for t in innovation_checks(m, CALIBRATION, (1e5, 2e5)))


def test_watching_a_record_that_begins_with_a_hole(two, record):
    y = np.array(record.source)
    y[:50] = np.nan
    assert drift.watch(two, Record(y, 2e6), CALIBRATION, 5).complete.size == 5
    with pytest.raises(InputError, match="4096 samples each"):
        drift.follow(two, record, CALIBRATION, ["a.readout_rate_hz"], segments=100_000)


def test_agreement_without_power_or_without_enough_samples(two, record):
    weak = Experiment([spin(readout=20.0), Homodyne(name="d")], band_hz=(8e4, 1.8e5))
    found = agreement(weak, simulate(weak, 0.05, 2e6, 1).record, CALIBRATION)
    assert found.passed
    assert (
        int(re.search(r"error of V_c by (\d+) % would stand out", found.sentence)[1]) > 100
    )  # it says that it has no power
    assert agreement(two, record.part(0, 400), CALIBRATION) is None
    shots = Record(np.asarray(record.source).reshape(3, -1), 2e6)
    assert agreement(two, shots, CALIBRATION) is None


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"ahead_s": float("nan")}, "ahead_s"),
        ({"every": 2.5}, "whole number"),
        ({"schedule": [(float("nan"), None)]}, "must be finite"),
    ],
)
def test_numbers_that_are_none(two, record, options, word):
    if "schedule" in options:
        options = {"schedule": [(options["schedule"][0][0], two)]}
    with pytest.raises(InputError, match=word):
        track(two, record, CALIBRATION, **options)
    assert track(two, record.part(0, 3), CALIBRATION).mean.shape == (1, 4)  # shorter than the default decimation


# -- the command line -------------------------------------------------------------------------------------------------


@pytest.fixture
def files(two, record, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_hdf5(tmp_path / "r.h5", record, {}, {})
    write_hdf5(tmp_path / "s.h5", reference("shot", two, 0.1, 2e6, 1), {}, {})
    text = [
        '[[element]]\nname = "{}"\nkind = "spin_oscillator"\nlarmor_hz = {}\nintrinsic_linewidth_hz = 1500.0\n'
        "readout_rate_hz = 6000.0\noccupation = 1.0\n".format(*m)
        for m in (("a", -1.2e5), ("b", 1.3e5))
    ]
    text += [
        '[[element]]\nname = "d"\nkind = "homodyne"\nelectronic_noise_sn = 0.5\n[analysis]\nband_hz = [8e4, 1.8e5]\n'
    ]
    (tmp_path / "e.toml").write_text("".join(text))
    return tmp_path


def test_a_failed_check_stays_failed(capsys, files):
    bad = ["track", "e.toml", "r.h5", "--shot", "s.h5", "-o", "bad.h5", "--set", "a.occupation=40"]
    assert call(capsys, *bad)[0] == 4
    code, _, err = call(capsys, *bad)
    assert (code, "is there already" in err) == (4, True)
    good = ["track", "e.toml", "r.h5", "--shot", "s.h5", "-o", "good.zarr"]
    assert [call(capsys, *good)[0] for _ in range(2)] == [0, 0]
    assert "is there already" in call(capsys, *good)[2]


def test_another_dataset_is_another_record(capsys, files):
    with h5py.File("r.h5") as a, h5py.File("m.h5", "w") as b:
        for name, sign in (("first", 1), ("second", -1)):
            data = b.create_dataset(name, data=sign * a["photocurrent"][...])
            data.attrs.update(dict(a["photocurrent"].attrs))
    for name in ("first", "second"):
        assert call(capsys, "track", "e.toml", f"m.h5:{name}", "--shot", "s.h5", "-o", "t.h5")[0] == 0
        found = load_track("t.h5")
        assert found.provenance["record"].endswith("m.h5")
    code, _, _ = call(capsys, "track", "e.toml", "m.h5:first", "--shot", "s.h5", "-o", "u.h5")
    assert_allclose(found.mean, -load_track("u.h5").mean, atol=1e-9)


def test_smoothed_records_pass_their_checks(capsys, files):
    code, _, err = call(capsys, "track", "e.toml", "r.h5", "--shot", "s.h5", "-o", "t.h5", "--estimate", "smoothed")
    assert code == 0, err
    assert "consistent with white" in err


def test_a_folder_of_somebody_is_not_removed(capsys, files):
    (files / "x.h5").mkdir()
    (files / "x.h5" / "thesis.tex").write_text("precious")
    (files / "y.zarr").mkdir()
    (files / "y.zarr" / "thesis.tex").write_text("precious")
    for name in ("x.h5", "y.zarr"):
        code, _, err = call(capsys, "track", "e.toml", "r.h5", "--shot", "s.h5", "-o", name)
        assert (code, "is a folder that is no track" in err) == (2, True)
        assert (files / name / "thesis.tex").read_text() == "precious"


def test_exit_codes_of_several_records(capsys, files):
    hot = ["--set", "a.intrinsic_linewidth_hz=0", "--set", "a.readout_rate_hz=0"]
    code, text, _ = call(capsys, "track", "e.toml", "r.h5", "--shot", "s.h5", "-o", "t.h5", *hot)
    assert code == 3
    (files / "q.h5").write_bytes((files / "r.h5").read_bytes())
    code, text, _ = call(capsys, "track", "e.toml", "r.h5", "q.h5", "--shot", "s.h5", "-o", "many", *hot)
    assert (code, [line.split()[0] for line in text.splitlines()]) == (3, ["failed", "failed"])
    code, text, _ = call(capsys, "track", "e.toml", "r.h5", "q.h5", "no.h5", "--shot", "s.h5", "-o", "many", *hot)
    assert code == 2


def test_clipped_references_are_refused_and_clipped_records_too(capsys, files):
    base = ["simulate", "e.toml", "--duration", "0.05", "--rate", "2e6"]
    code, _, err = call(capsys, *base, "-o", "c.h5", "--shot", "cs.h5", "--adc", "12:0.02")
    assert code == 0
    assert "of the samples are clipped" in err
    code, _, err = call(capsys, "track", "e.toml", "r.h5", "--shot", "cs.h5", "-o", "x.h5")
    assert (code, "its level is not that of the noise" in err) == (2, True)
    code, _, err = call(capsys, "track", "e.toml", "c.h5", "--shot", "s.h5", "-o", "x.h5")
    assert (code, "with less gain" in err) == (2, True)
    assert not (files / "x.h5").exists()


def test_a_baseband_that_misses_the_modes_is_said(capsys, files):
    base = ["track", "e.toml", "r.h5", "--shot", "s.h5", "-o", "t.h5"]
    _, _, err = call(capsys, *base, "--demodulate", "900 kHz:32")
    assert "say next to nothing" in err
    code, _, err = call(capsys, *base, "--demodulate", "120 kHz:4", "--estimate", "smoothed", "--check")
    assert code == 0, err
    assert "say next to nothing" not in err
    assert "consistent with white" in err  # of the baseband too
    assert "--check compares filtered estimates" in err
    _, _, err = call(capsys, *base, "--ahead", "5")
    assert "say next to nothing" in err


def test_what_is_pushed_and_restored_is_checked(two, record):
    inputs = currents([record], [VOLT_DENSITY])
    tracker = Tracker(two, inputs)
    for wrong in (np.zeros((3, 2)), np.array(["a"]), None, np.zeros(3, dtype=complex)):
        with pytest.raises(InputError, match="expected real numbers of shape"):
            tracker.push(wrong)
    saved = tracker.state()
    with pytest.raises(InputError, match="another model, scale or readout"):
        Tracker(two.with_values({"a.occupation": 2.0}), inputs).restore(saved)
    with pytest.raises(InputError, match="another model, scale or readout"):
        tracker.restore({})
    tracker.flush()
    with pytest.raises(InputError, match="ended with flush"):
        tracker.push(np.zeros(3))
    for wrong, options, word in ((record, {}, "inputs are a Currents"), (inputs, {"evry": 3}, "did you mean 'every'")):
        with pytest.raises(InputError, match=word):
            Tracker(two, wrong, **options)
    for arguments, word in (
        ((two, "r.h5", CALIBRATION), "record must be Record .* not 'r.h5'"),
        (("thomas2021", record, CALIBRATION), "experiment must be Experiment .* not 'thomas2021'"),
        ((two, record, 2e-10), "calibration must be ShotNoise .* not float"),
    ):
        with pytest.raises(InputError, match=word):
            track(*arguments)
    assert repr(track(two, record, CALIBRATION)).count("\n") == 0
