"""Many records: kept, isolated, on threads and on a real Dask scheduler; the command line of `track` and `simulate`."""

import json
import os

import h5py
import numpy as np
import pytest
from numpy.testing import assert_allclose

from backaction import Experiment, read_record
from backaction.analysis import track_files
from backaction.cli import main
from backaction.records.simulation import reference, simulate
from backaction.tracking.tracks import load_track


def call(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    out, err = capsys.readouterr()
    return stop.value.code, out, err


@pytest.fixture(scope="module")
def folder(tmp_path_factory, thomas):
    """Three records of 30 ms and their shot record, as files."""
    from backaction.records.formats.hdf5 import write_hdf5

    path = tmp_path_factory.mktemp("records")
    for seed in (1, 2, 3):
        write_hdf5(path / f"r{seed}.h5", simulate(thomas, 0.03, 1e7, seed).record, {}, {})
    write_hdf5(path / "shot.h5", reference("shot", thomas, 0.03, 1e7, 9), {}, {})
    return path


def test_many_records_one_broken(capsys, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    broken = tmp_path / "broken.h5"
    broken.write_bytes(b"not HDF5")
    files = ["r1.h5", str(broken), "r2.h5", "nowhere.h5"]
    out = tmp_path / "tracks"
    code, text, err = call(capsys, "track", "thomas2021", *files, "--shot", "shot.h5", "-o", str(out))
    assert code == 2
    assert "2 of 4 records failed" in err
    assert [line.split()[0] for line in text.splitlines()] == ["done", "failed", "done", "failed"]
    assert "not a readable HDF5 file" in text
    assert "Traceback" not in err
    assert sorted(p.name for p in out.iterdir()) == ["r1.track.h5", "r2.track.h5"]
    # alone it is the same
    assert call(capsys, "track", "thomas2021", "r2.h5", "--shot", "shot.h5", "-o", str(tmp_path / "one.h5"))[0] == 0
    a, b = load_track(out / "r2.track.h5"), load_track(tmp_path / "one.h5")
    assert np.array_equal(a.mean, b.mean)
    # again: nothing is done twice; another option: everything is
    stamps = [(out / n).stat().st_mtime_ns for n in ("r1.track.h5", "r2.track.h5")]
    code, text, _ = call(capsys, "track", "thomas2021", "r1.h5", "r2.h5", "--shot", "shot.h5", "-o", str(out))
    assert code == 0
    assert [line.split()[0] for line in text.splitlines()] == ["kept", "kept"]
    assert stamps == [(out / n).stat().st_mtime_ns for n in ("r1.track.h5", "r2.track.h5")]
    code, text, _ = call(
        capsys, "track", "thomas2021", "r1.h5", "r2.h5", "--shot", "shot.h5", "-o", str(out), "--every", "32"
    )
    assert [line.split()[0] for line in text.splitlines()] == ["done", "done"]


@pytest.mark.slow
def test_many_records_on_a_dask_scheduler(capsys, folder, tmp_path, monkeypatch):
    """A real scheduler with two worker processes: the same files as in threads here."""
    distributed = pytest.importorskip("distributed", reason="dask.distributed is in the extra 'scale'")
    monkeypatch.chdir(folder)
    files = ["r1.h5", "r2.h5", "r3.h5"]
    here, there = tmp_path / "here", tmp_path / "there"
    assert call(capsys, "track", "thomas2021", *files, "--shot", "shot.h5", "-o", str(here))[0] == 0
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1", preload=[]
    ) as cluster:
        cluster.wait_for_workers(2)
        with distributed.Client(cluster) as client:
            client.run(os.chdir, str(folder))
        options = ["--shot", "shot.h5", "-o", str(there), "--scheduler", cluster.scheduler_address]
        code, text, err = call(capsys, "track", "thomas2021", *files, "nowhere.h5", *options)
    assert code == 2, err
    assert [line.split()[0] for line in text.splitlines()] == ["done", "done", "done", "failed"]
    for name in files:
        a, b = (load_track(p / name.replace(".h5", ".track.h5")) for p in (here, there))
        assert np.array_equal(a.mean, b.mean)
        assert np.array_equal(a.innovation, b.innovation)


def test_no_scheduler_there(capsys, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    code, _, err = call(
        capsys, "track", "thomas2021", "r1.h5", "--shot", "shot.h5", "-o", str(tmp_path / "t"),
        "--scheduler", "tcp://127.0.0.1:1",
    )  # fmt: skip
    assert code == 2
    assert "no Dask scheduler answers there" in err


def test_one_record_with_every_option(capsys, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    base = ["track", "thomas2021", "r1.h5", "--shot", "shot.h5"]
    out = str(tmp_path / "t.h5")
    code, _, err = call(capsys, *base, "-o", out, "--check")
    assert code == 0
    assert "prediction and retrodiction agree" in err
    assert "technical noise costs" in err
    assert "steady in time" in err
    for options, facts in (
        (["--estimate", "smoothed"], {"estimate": "smoothed"}),
        (["--estimate", "retrodicted", "--frame", "lab", "--every", "8"], {"estimate": "retrodicted", "frame": "lab"}),
        (["--modes", "spin"], {"modes": ("spin",)}),
        (["--ahead", "2 us", "--no-innovations"], {}),
        (["--demodulate", "1.3677 MHz:32", "--every", "1"], {"time_step_s": 3.2e-6}),
        (["--single", "--frame", "lab", "--every", "1"], {"time_step_s": 1e-7}),
        (["--square-root", "--start", "steady"], {}),
    ):
        code, _, err = call(capsys, *base, "-o", out, *options)
        assert code == 0, err
        found = load_track(out)
        for key, value in facts.items():
            assert (
                getattr(found, key) == pytest.approx(value)
                if isinstance(value, float)
                else getattr(found, key) == value
            )
        assert json.loads(found.provenance["experiment"])["name"] == "thomas2021"
    zarr = tmp_path / "t.zarr"
    assert call(capsys, *base, "-o", str(zarr))[0] == 0
    assert zarr.is_dir()
    for options, word in (
        (["--demodulate", "1e6"], "expected HZ:N"),
        (["--estimate", "guessed"], "filtered, smoothed or retrodicted"),
        (["--modes", "spinn"], "did you mean 'spin'"),
        (["--start", "now"], "unconditional, steady"),
        (["--follow", "phase.angel"], "did you mean"),
    ):
        code, text, err = call(capsys, *base, "-o", str(tmp_path / "x.h5"), *options)
        assert (code, text) == (2, ""), err
        assert word in err.splitlines()[-1]
        assert not (tmp_path / "x.h5").exists()


def test_several_records_need_a_folder(capsys, folder, monkeypatch):
    monkeypatch.chdir(folder)
    code, _, err = call(capsys, "track", "thomas2021", "r1.h5", "r2.h5", "--shot", "shot.h5", "-o", "t.h5")
    assert (code, "name a folder" in err) == (2, True)


@pytest.mark.slow
def test_a_drift_is_followed_from_the_command_line(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = ["simulate", "thomas2021", "-o", "r.h5", "--duration", "0.2", "--seed", "5", "--shot", "s.h5"]
    assert call(capsys, *made, "--drift", "phase.angle_deg=177:183", "--adc", "16:1")[0] == 0
    assert read_record("r.h5").source.dtype == np.int16
    code, _, err = call(
        capsys, "track", "thomas2021", "r.h5", "--shot", "s.h5", "-o", "t.h5", "--follow", "phase.angle_deg",
        "--segments", "10",
    )  # fmt: skip
    assert code == 0, err
    assert "constant parameters: phase.angle_deg is NOT constant" in err
    schedule = json.loads(load_track("t.h5").provenance["schedule"])
    assert len(schedule) == 10
    assert schedule[0][1]["phase.angle_deg"] < 179 < 181 < schedule[-1][1]["phase.angle_deg"]


def test_unexplained_lines_are_proposed_not_added(capsys, folder, tmp_path, monkeypatch):
    """A line at 1.41 MHz in the record: told, proposed in three places, V_c not quoted, exit 4."""
    monkeypatch.chdir(folder)
    with h5py.File("r1.h5") as file:
        y, attributes = file["photocurrent"][...], dict(file["photocurrent"].attrs)
    t = np.arange(y.size) * 1e-7
    with h5py.File(tmp_path / "line.h5", "w") as file:
        data = file.create_dataset("photocurrent", data=y + 0.05 * np.std(y) * np.sin(2 * np.pi * 1.41e6 * t))
        data.attrs.update(attributes)
    code, _, err = call(capsys, "track", "thomas2021", str(tmp_path / "line.h5"), "--shot", "shot.h5", "-o", str(tmp_path / "t.h5"))  # fmt: skip
    assert code == 4
    assert "unexplained noise at 1410" in err
    assert "before 'membrane'" in err
    assert "a further mode of 'membrane'" in err
    assert "at the detector" in err
    assert "V_c of this track is not that of the system" in err


def test_simulate_front_end_and_lock_in(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = ["simulate", "thomas2021", "--duration", "20 ms", "--rate", "400 kHz", "--sampling", "instantaneous"]
    lock_in = ["--reference", "1.3677 MHz", "--front-end", "60 kHz", "--front-end", "60 kHz"]
    assert call(capsys, *base, *lock_in, "-o", "z.h5", "--shot", "zs.h5")[0] == 0
    z = read_record("z.h5")
    assert z.is_complex
    assert z.front_end_hz == (6e4, 6e4)
    code, _, err = call(capsys, "track", "thomas2021", "z.h5", "--shot", "zs.h5", "-o", "t.h5")
    assert code == 0, err
    assert load_track("t.h5").innovation.shape == (8000, 2)
    for options, word in ((["--adc", "x:1"], "BITS:VOLTS"), (["--drift", "phase.angle_deg"], "FIELD=FROM:TO")):
        code, _, err = call(capsys, *base, "-o", "x.h5", *options)
        assert (code, word in err) == (2, True)


def test_a_job_travels_and_its_key_changes_with_what_matters(thomas, folder, tmp_path):
    import pickle

    job = track_files.Job(thomas, str(folder / "shot.h5"))
    again = pickle.loads(pickle.dumps(job))
    record = str(folder / "r1.h5")
    assert job.key(record) == again.key(record)
    other = track_files.Job(thomas.with_values({"phase.angle_deg": 179.0}), str(folder / "shot.h5"))
    keys = {job.key(record), other.key(record), track_files.Job(thomas, str(folder / "shot.h5"), every=3).key(record)}
    assert len(keys | {job.key(str(folder / "r2.h5"))}) == 4
    outcome = track_files.track_file(job, record, str(tmp_path / "a.h5"))
    assert (outcome.status, outcome.passed) == ("done", True)
    assert_allclose(load_track(tmp_path / "a.h5").provenance["shot_noise_density"], 2e-10, rtol=0.02)


def test_two_currents_from_the_command_line(capsys, tmp_path, monkeypatch):
    """huang2018: cos and sin of one detector in two files, and stretches that are left out."""
    from backaction.records.formats.hdf5 import write_hdf5

    monkeypatch.chdir(tmp_path)
    e = Experiment.load("huang2018")
    rate = 20 * float(np.max(np.abs(np.linalg.eigvals(e.system.A))))
    made = simulate(e, 60_000 / rate, rate, seed=4)
    for name, record in zip("ab", made.records, strict=True):
        write_hdf5(tmp_path / f"{name}.h5", record, {}, {})
        write_hdf5(tmp_path / f"s{name}.h5", reference("shot", e, 60_000 / rate, rate, ord(name)), {}, {})
    band = ["--set", "detector.efficiency=1.0"]
    base = [
        "track",
        "huang2018",
        "a.h5,b.h5",
        "--shot",
        "sa.h5,sb.h5",
        "-o",
        "t.h5",
        "--frame",
        "lab",
        "--every",
        "1",
        *band,
    ]
    low, high = 1000 / rate, 3000 / rate
    code, _, err = call(capsys, *base, "--veto", f"{low}:{high}")
    assert code in (0, 4), err
    found = load_track("t.h5")
    assert found.innovation.shape == (60_000, 2)
    assert np.isnan(found.innovation[1000:3000]).all()
    assert found.missing == 4000
    for record, word in (("a.h5", "name a file for each"), ("a.h5,b.h5,a.h5", "name a file for each")):
        code, _, err = call(capsys, "track", "huang2018", record, "--shot", "sa.h5,sb.h5", "-o", "u.h5")
        assert (code, word in err) == (2, True)
    for stretch, word in (("1", "FROM:TO"), ("2:1", "FROM < TO"), ("100:200", "outside the record")):
        code, _, err = call(capsys, *base, "--veto", stretch)
        assert (code, word in err) == (2, True), err


def test_epr_of_a_track(thomas):
    from backaction.records.shot_level import ShotNoise
    from backaction.tracking.run import track

    made = simulate(thomas, 0.01, 1e7, seed=1, paths=16)
    found = track(thomas, made.record, ShotNoise(2e-10, 1e-3, "V"), "lab", 16)
    mean, variance, a, angle = found.epr()
    assert mean.shape == (6250, 2)
    assert_allclose(variance[-1], 0.8018, atol=1e-3)
    assert variance[0] > 1.5  # before the record: unconditional
    from backaction.states import entanglement

    true = made.paths @ entanglement.basis(a, angle)[:2].T
    error = np.sum(np.var((mean - true)[1000:], axis=0))
    assert_allclose(error, variance[-1], rtol=0.2)
