"""Track files: equal to memory, resumed after a kill, constant memory."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from numpy.testing import assert_allclose

from backaction import Record
from backaction.errors import InputError
from backaction.records.shot_level import ShotNoise
from backaction.records.simulation import VOLT_DENSITY, simulate
from backaction.tracking.run import track
from backaction.tracking.tracks import load_track

CALIBRATION = ShotNoise(VOLT_DENSITY, 1e-3, "V")
ARRAYS = ("mean", "covariance", "innovation", "exact_rows", "exact_covariance")


@pytest.fixture(scope="module")
def made(thomas):
    y = np.array(simulate(thomas, 0.02, 1e7, seed=11).record.source)
    y[50_000:50_300] = np.nan
    return Record(y, 1e7)


@pytest.mark.parametrize("kind", ["h5", "zarr"])
@pytest.mark.parametrize("estimate", ["filtered", "smoothed", "retrodicted"])
def test_a_file_holds_what_memory_holds(thomas, made, tmp_path, kind, estimate):
    there = track(thomas, made, CALIBRATION, "lab", 16, estimate=estimate)
    file = tmp_path / f"t.{kind}"
    written = track(thomas, made, CALIBRATION, "lab", 16, estimate=estimate, output=file, facts={"note": "x"})
    there.save(tmp_path / f"u.{kind}")
    for other in (written, load_track(file), load_track(tmp_path / f"u.{kind}")):
        for k in ARRAYS:
            assert np.array_equal(getattr(other, k), getattr(there, k), equal_nan=True), k
        for k in ("modes", "rotation_hz", "time_start_s", "time_step_s", "frame", "estimate", "missing", "clipped"):
            assert getattr(other, k) == getattr(there, k), k
        assert_allclose(other.log_likelihood, there.log_likelihood)
    assert load_track(file).provenance["note"] == "x"
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"t.{kind}", f"u.{kind}"]


def test_shots_go_to_a_file_too(thomas, tmp_path):
    runs = np.stack([simulate(thomas, 1e-3, 1e7, seed=s).record.source for s in (1, 2, 3)])
    for kind in ("h5", "zarr"):
        there = track(thomas, Record(runs, 1e7), CALIBRATION, "rotating", 32)
        written = track(thomas, Record(runs, 1e7), CALIBRATION, "rotating", 32, output=tmp_path / f"t.{kind}")
        assert np.array_equal(there.mean, written.mean)
        assert np.array_equal(there.innovation, written.innovation)


SCRIPT = """
import sys, time
import numpy as np
from backaction import Experiment, Record
from backaction.records import ShotNoise
from backaction.tracking import track

class Tiles:
    # a long record made while it is read: one block of noise again and again, each with its own gain
    def __init__(self, size, slow):
        self.shape, self.dtype, self.slow = (size,), np.dtype(np.int16), slow
        self.tile = (300 * np.random.default_rng(0).standard_normal(1 << 20)).astype(np.int16)
    def __getitem__(self, part):
        start, stop, _ = part.indices(self.shape[0])
        time.sleep(self.slow * (stop - start) / (1 << 20))
        k = np.arange(start, stop)
        return self.tile[k % self.tile.size] // (1 + (k // self.tile.size) % 5).astype(np.int16)

size, slow, output = int(float(sys.argv[1])), float(sys.argv[2]), sys.argv[3]
import backaction.tracking.run
backaction.tracking.run._SAFE_S = 0.0
record = Record(Tiles(size, slow), 1e7, scale=1e-4, gaps=((3_000_000, 3_000_700),), name="tiles")
def progress(part):
    sys.stdout.write(f"{part}\\n"); sys.stdout.flush()
t = track(Experiment.load("thomas2021"), record, ShotNoise(2e-10, 1e-3, "V"), "rotating", 64, progress,
          innovations=sys.argv[4] == "all", output=output)
if len(sys.argv) > 5:
    status = dict(line.split(":") for line in open("/proc/self/status").read().strip().split("\\n") if ":" in line)
    print("peak", status["VmHWM"].split()[0], "anonymous", status["RssAnon"].split()[0])
"""


@pytest.mark.parametrize("kind", ["h5", "zarr"])
def test_a_killed_run_is_resumed_and_ends_equal(tmp_path, kind):
    """kill -9 in the middle; the second run starts there, not at the beginning, and the datasets are equal."""
    size = "6e6"
    whole = subprocess.run(
        [sys.executable, "-c", SCRIPT, size, "0", str(tmp_path / f"whole.{kind}"), "all"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert len(whole.stdout.split()) == 6
    target = tmp_path / f"t.{kind}"
    run = [sys.executable, "-c", SCRIPT, size]
    with subprocess.Popen([*run, "0.3", str(target), "all"], stdout=subprocess.PIPE, text=True) as first:
        for _ in range(3):
            first.stdout.readline()
        os.kill(first.pid, signal.SIGKILL)
    assert not target.exists()
    notes = json.loads((tmp_path / f".t.{kind}.partial.json").read_text())
    assert notes["state"]["done"] >= 2 << 20
    again = subprocess.run([*run, "0", str(target), "all"], capture_output=True, text=True, check=True)
    parts = [float(p) for p in again.stdout.split()]
    assert len(parts) <= 4  # the rest alone, at most one chunk twice
    assert parts[-1] == 1.0
    a, b = load_track(tmp_path / f"whole.{kind}"), load_track(target)
    for k in ARRAYS:
        assert np.array_equal(getattr(a, k), getattr(b, k), equal_nan=True), k
    assert_allclose(a.log_likelihood, b.log_likelihood, rtol=1e-12)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"t.{kind}", f"whole.{kind}"]


def test_a_partial_file_of_another_call_is_not_used(thomas, made, tmp_path):
    (tmp_path / ".t.h5.partial.json").write_text(json.dumps({"fingerprint": "other", "layout": {}, "state": {}}))
    (tmp_path / ".t.h5.partial").write_bytes(b"rubbish")
    found = track(thomas, made, CALIBRATION, "lab", 16, output=tmp_path / "t.h5")
    assert np.array_equal(found.mean, track(thomas, made, CALIBRATION, "lab", 16).mean)
    assert [p.name for p in tmp_path.iterdir()] == ["t.h5"]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_record(tmp_path):
    """4e7 and 2e8 samples (5e9: 10 GB with HYPOTHESIS_PROFILE=long), made while they are read: the same peak within 40 MB."""
    sizes = ("4e7", "5e9" if os.environ.get("HYPOTHESIS_PROFILE") == "long" else "2e8")
    peaks = []
    for size in sizes:
        start = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, size, "0", str(tmp_path / "t.h5"), "none", "memory"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        words = done.stdout.split()
        peaks.append(int(words[words.index("peak") + 1]) / 1024)
        print(f"{size} samples: {time.monotonic() - start:.1f} s, peak {peaks[-1]:.0f} MB")
    assert peaks[1] - peaks[0] < 40
    assert load_track(tmp_path / "t.h5").mean.shape == (int(float(sizes[1])) // 64, 4)


def test_other_files_are_refused_in_one_line(tmp_path):
    import h5py

    (tmp_path / "a.h5").write_bytes(b"no")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["mean"] = np.zeros(3)
    for name in ("a.h5", "b.h5", "c.zarr", "d.h5"):
        with pytest.raises(InputError, match=name):
            load_track(tmp_path / name)


def test_what_was_filtered_survives_a_failure_behind_it(tmp_path, thomas):
    """An error of a test, or no finish at all, leaves the track for the next run; its lock goes with it."""
    from backaction import simulate
    from backaction.tracking import tracked

    made = simulate(thomas, 0.002, 1e7, 1).records[0]
    file = tmp_path / "t.h5"
    for failing in (True, False):
        try:
            with tracked(thomas, made, CALIBRATION, "lab", 16, output=file) as run:
                first = np.array(run.track.covariance)
                if failing:
                    raise np.linalg.LinAlgError("in a test of the track")
        except np.linalg.LinAlgError:
            pass
        assert not file.exists()
        assert (tmp_path / ".t.h5.partial").exists()
    found = track(thomas, made, CALIBRATION, "lab", 16, output=file)
    assert np.array_equal(found.covariance, first)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.h5"]
