"""Conditional trajectories: the exact filter of the sampled model, run over records of any length.

    x^_{k+1} = F x^_k + K_k (y_k - H x^_k),    mean[k] = x^_{k+1}: the state at time t_0 + (k+1)/f_s given y_0 .. y_k

`Tracker` takes samples as they come; `track` drives it over a record in memory or in files and writes while it runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from backaction.errors import InputError
from backaction.experiment.experiment import Experiment
from backaction.files import packed, to_json
from backaction.numerics.matrices import Array
from backaction.records.record import Record
from backaction.records.shot_level import ShotNoise
from backaction.systems.poles import mode_frequencies
from backaction.systems.response import VACUUM
from backaction.tracking.inputs import Currents, Demodulation, currents, identity, length, stored
from backaction.tracking.kalman import Piece, Stage, State
from backaction.tracking.setups import Schedule, Setup, Start, rotated, setup
from backaction.tracking.smoothing import retrodict, smooth
from backaction.tracking.track_file import TrackFile
from backaction.tracking.tracker import Tracker, _kind
from backaction.tracking.tracks import FrameName, Track, attributes, load_track

Estimate = Literal["filtered", "smoothed", "retrodicted"]
_CHUNK = 1 << 20
_SAFE_S = 0.5
"""A file's state is saved at most so often: what a kill can cost."""


def track(
    experiment: Experiment,
    record: Record | Sequence[Record],
    calibration: ShotNoise | Sequence[ShotNoise],
    frame: FrameName = "rotating",
    every: int | None = None,
    progress: Callable[[float], None] | None = None,
    *,
    estimate: Estimate = "filtered",
    modes: Sequence[str] | None = None,
    start: Start = "unconditional",
    schedule: Schedule = (),
    ahead_s: float = 0.0,
    demodulate: Demodulation | None = None,
    single: bool = False,
    square_root: bool = False,
    innovations: bool = True,
    likelihood: bool = True,
    output: str | Path | None = None,
    monitor: Callable[[int, Array], None] | None = None,
    facts: Mapping[str, Any] | Callable[[Track], Mapping[str, Any]] | None = None,
) -> Track:
    """Track a record with the experiment's sampled model, exactly, its mean level removed.

    Parameters
    ----------
    record, calibration
        One for each current of the experiment; the density of 1 SN in the record's unit (`records.shot_noise`). A
        record of several shots gives a track with a leading axis, each shot from the same start.
    frame
        `rotating`: each mode turned by its sign times the modes' mean frequency; `lab`: as they are.
    every
        Keep every N-th mean; default 1 in the lab frame, and in the rotating frame what the filter's bandwidth needs.
    progress
        Called with the fraction done.
    estimate
        `filtered`: given the samples until then; `smoothed`: given all; `retrodicted`: given the later ones alone.
    modes
        Any modes of the system; default the reported ones.
    start
        State at the record's start: `unconditional`, `steady` (that of an endless record before), or a GaussianState of
        some modes (the others unconditional, uncorrelated).
    schedule
        (time, experiment) from when on other parameters hold; the same states.
    ahead_s
        Predict by so much (filtered estimates only).
    demodulate
        Track the complex baseband at a lower rate instead.
    single
        Means and innovations in single precision. `square_root`: the covariance as a root, for the hardest cases.
    innovations
        Whether to keep them. `monitor(first sample, innovations)` sees them in any case.
    likelihood
        Without it (and without innovations and monitor) steady stretches compute nothing but the means.
    output
        *.h5 or *.zarr: written while running; a run that was killed is resumed by the same call.
    facts
        Further attributes of the file, or what makes them of the finished track (before the file has its name).

    Raises
    ------
    InputError
        If records, calibrations and experiment do not fit together.
    ModelError
        If the model has no such start, or no steady filter where one is needed.
    """
    records = [record] if isinstance(record, Record) else record
    calibrations = [calibration] if isinstance(calibration, ShotNoise) else calibration
    for name, value, kind in (("experiment", [experiment], Experiment), ("record", records, Record),
                              ("calibration", calibrations, ShotNoise)):  # fmt: skip
        if not isinstance(value, (list, tuple)) or not all(isinstance(v, kind) for v in value):
            raise InputError(f"track: {name} must be {kind.__name__} (or a list of them), not {_kind(value)}")
    densities = [c.density for c in calibrations]
    if len(densities) != len(records):
        raise InputError(f"{len(records)} records and {len(densities)} calibrations: one for each current")
    if estimate not in ("filtered", "smoothed", "retrodicted"):
        raise InputError(f"estimate = '{estimate}': must be filtered, smoothed or retrodicted")
    if estimate != "filtered" and (ahead_s or single or square_root):
        raise InputError(f"estimate = '{estimate}': ahead_s, single and square_root are for filtered estimates")
    inputs = currents(records, densities, demodulate)
    keep = innovations and estimate != "retrodicted"
    options: dict[str, Any] = {
        "frame": frame, "modes": modes, "start": start, "schedule": schedule, "ahead_s": ahead_s, "single": single,
        "square_root": square_root, "likelihood": likelihood or keep or monitor is not None or estimate != "filtered",
    }  # fmt: skip
    made = setup(experiment, inputs, every=every, **options)
    size, shots = length(records, inputs), records[0].shots
    if every is None and made.plan.every > size:  # a record shorter than the default decimation
        made = setup(experiment, inputs, every=max(1, size), **options)
    rows = size // made.plan.every
    if rows < 1:
        raise InputError(f"every = {made.plan.every}: must be between 1 and the {size} samples of the record")
    first = Stage(made.schedule[0][1], made.plan)
    q = len(first.model.R)
    lead = (shots,) if shots > 1 else ()
    shapes = {
        "mean": ((*lead, rows, len(made.plan.read)), np.float32 if single else np.float64),
        "innovation": ((*lead, size if keep else 0, *((q,) if q > 1 else ())), np.float32),
    }
    numbers: dict[str, Any] = {
        "innovation_variance_sn": made.innovation_variance_sn,
        "modes": made.modes, "frame": frame, "rotation_hz": made.rotation_hz, "time_start_s": made.first_s,
        "time_step_s": made.step_s, "sample_rate_hz": 1 / inputs.interval_s, "record_start_s": records[0].start_s,
        "memory_s": np.inf if first.steady is None else first.steady.memory_s, "estimate": estimate,
        "provenance": {"mean_removed": _level(records[0], inputs), "unit": records[0].unit} | _given(facts),
    }  # fmt: skip
    fingerprint = "" if output is None else to_json([
        experiment.resolved().to_dict(), [[float(t), e.resolved().to_dict()] for t, e in schedule],
        [identity(r) for r in records], densities, made.plan.every, estimate, list(made.modes), packed(made.state.P),
        {k: repr(v) for k, v in options.items() if k not in ("schedule", "start")}, repr(demodulate), keep,
        None if callable(facts) else {k: str(v) for k, v in (facts or {}).items()},
    ], None)  # fmt: skip
    with TrackFile.open(output, shapes, fingerprint) as file:
        run = _Run(file, made, records, monitor, keep, progress)
        counts: dict[str, Any] = {"missing": 0, "clipped": 0, "log_likelihood": 0.0}
        saved = file.resumed
        if saved is not None:
            counts = dict(saved["counts"])
            run.restore(saved)
        for shot in range(0 if saved is None else int(saved["shot"]), shots):
            if estimate == "filtered":
                tracker = Tracker.of(made)
                if saved is not None and saved["tracker"] is not None and shot == saved["shot"]:
                    tracker.restore(saved["tracker"])
                run.follow(tracker, shot, counts)
                for key in counts:
                    counts[key] += getattr(tracker, key)
            else:
                fetch = _Fetch(records, inputs, shot)
                if estimate == "smoothed":
                    forward = made.state.copy()
                    chunk = max(_CHUNK // 16, size >> 12)  # small: they stay in the processor's caches
                    pieces = smooth(made.schedule, made.plan, forward, fetch, size, chunk, run.seen(shot, counts))
                else:
                    pieces = retrodict(made.schedule, made.plan, fetch, size, _CHUNK)
                    counts["log_likelihood"] = np.nan
                for piece in _counted(pieces, made):
                    run.store(piece, shot)
                counts["missing"] += fetch.missing
                counts["clipped"] += fetch.clipped
            run.safe({"shot": shot + 1, "tracker": None, "counts": counts})
        exact_rows, exact_covariance = file.exact(len(made.plan.read))
        found = Track(
            file.arrays["mean"], first.steady_covariance(estimate), file.arrays["innovation"], exact_rows=exact_rows,
            exact_covariance=exact_covariance, **counts, **numbers,
        )  # fmt: skip
        if callable(facts):
            found = replace(found, provenance=found.provenance | dict(facts(found)))
        if output is None:
            return found
        for key in ("covariance", "exact_rows", "exact_covariance"):
            file.add(key, getattr(found, key))
        file.finish(attributes(found))
    return load_track(output)


# -- pieces of a run --------------------------------------------------------------------------------------------------


class _Run:
    """The pieces of a track on their way to memory or a file."""

    def __init__(
        self,
        file: TrackFile,
        made: Setup,
        records: Sequence[Record],
        monitor: Callable[[int, Array], None] | None,
        keep: bool,
        progress: Callable[[float], None] | None,
    ) -> None:
        self.file, self.made, self.records, self.monitor = file, made, records, monitor
        self.keep, self.scale, self.progress = keep, np.sqrt(made.currents.interval_s / VACUUM), progress
        self.size, self.shots = length(records, made.currents), records[0].shots
        self.done, self.saved_at = 0, time.monotonic()

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on where a killed run was."""
        self.done = int(saved["done"])
        if self.monitor is not None and saved.get("monitor") is not None:
            self.monitor.restore(saved["monitor"])  # type: ignore[attr-defined]

    def follow(self, tracker: Tracker, shot: int, counts: Mapping[str, Any]) -> None:
        """Push a shot through a tracker, chunk by chunk; arrays of a chunk's size are made once."""
        inputs, every = self.made.currents, self.made.plan.every
        step = max(tracker.block, _CHUNK - _CHUNK % tracker.block)
        whole = self.size * inputs.factor
        kinds = tracker.types
        room = min(step, whole) // inputs.factor
        q = len(self.made.schedule[0][1].R)
        e: Array = np.empty((room if self.made.plan.likelihood else 0, q), kinds[1])
        direct = self.file.path is None and self.made.frame == "lab"
        mean: Array | None = None if direct else np.empty((room // every + 1, len(self.made.plan.read)), kinds[0])
        for start in range(tracker.position, whole, step):
            stop = min(whole, start + step)
            a, b = start // inputs.factor, stop // inputs.factor
            rows = slice(a // every, b // every)
            target = self._view(shot)[rows] if mean is None else mean[: rows.stop - rows.start]
            raw = stored(self.records, start, stop, shot, inputs.groups)
            piece = tracker.advance(raw, target, e[: b - a])
            self.store(piece, shot, mean is None)
            if time.monotonic() - self.saved_at > _SAFE_S:
                self.safe({"shot": shot, "tracker": tracker.state(), "counts": counts})

    def _view(self, shot: int) -> Array:
        return self.file.arrays["mean"][shot] if self.shots > 1 else self.file.arrays["mean"]  # type: ignore[no-any-return]

    def store(self, piece: Piece, shot: int, there: bool = False) -> None:
        """Keep a piece (its means, unless they are there already)."""
        where = (shot,) if self.shots > 1 else ()
        row = piece.start // self.made.plan.every
        if not there:
            self.file.write("mean", (*where, slice(row, row + len(piece.mean))), piece.mean)
        self.innovations(piece.innovation, piece.start, shot)
        self.file.append(piece.exact + shot * (self.size // self.made.plan.every), piece.covariance)
        self.done += piece.stop - piece.start
        if self.progress:
            self.progress(self.done / (self.size * self.shots))

    def seen(self, shot: int, counts: dict[str, Any]) -> Callable[[Array, int, State], None]:
        """Takes the innovations of a smoother's forward pass, and its likelihood at the end."""

        def take(innovation: Array, start: int, state: State) -> None:
            self.innovations(innovation, start, shot)
            if start + len(innovation) == self.size:
                counts["log_likelihood"] += state.log_likelihood

        return take

    def innovations(self, innovation: Array, start: int, shot: int) -> None:
        """Keep innovations from sample `start` on and show them to the monitor."""
        if not innovation.size or not (self.keep or self.monitor is not None):
            return
        e: Array = np.empty(innovation.shape, dtype=np.float32)
        np.multiply(innovation, self.scale, out=e, casting="unsafe")
        e = e if e.shape[1] > 1 else e[:, 0]
        if self.monitor is not None:
            self.monitor(shot * self.size + start, e)
        if self.keep:
            where = (shot,) if self.shots > 1 else ()
            self.file.write("innovation", (*where, slice(start, start + len(innovation))), e)

    def safe(self, state: dict[str, Any]) -> None:
        """Note in the file how far it is."""
        if self.file.path is not None:
            saver = getattr(self.monitor, "state", None)
            self.file.checkpoint(state | {"done": self.done, "monitor": None if saver is None else saver()})
        self.saved_at = time.monotonic()


def _counted(pieces: Iterator[Piece], made: Setup) -> Iterator[Piece]:
    """Pieces of a backward pass: turned, rows counted from the record's start."""
    for piece in pieces:
        row = piece.start // made.plan.every
        piece.mean = made.turned(piece.mean, row)
        piece.exact = piece.exact + row
        yield piece


class _Fetch:
    """Inputs of the filter by sample numbers, in any order; each chunk's missing and clipped samples count once."""

    def __init__(self, records: Sequence[Record], inputs: Currents, shot: int) -> None:
        self.records, self.inputs, self.shot = records, inputs, shot
        self._counts: dict[int, tuple[int, int]] = {}

    def __call__(self, start: int, stop: int) -> tuple[Array, Array | None]:
        inputs = self.inputs
        first = start * inputs.factor
        raw = stored(self.records, first, stop * inputs.factor, self.shot, inputs.groups)
        u, ok, missing, clipped = inputs.take(raw, first)
        self._counts[start] = (missing, clipped)
        return u, ok

    @property
    def missing(self) -> int:
        """Stored samples that are missing."""
        return sum(m for m, _ in self._counts.values())

    @property
    def clipped(self) -> int:
        """Stored samples that are clipped."""
        return sum(c for _, c in self._counts.values())


def _given(facts: Any) -> dict[str, Any]:
    return {} if facts is None or callable(facts) else dict(facts)


def _level(record: Record, inputs: Currents) -> float:
    """The mean that was removed, in the record's unit."""
    return float(record.offset - inputs.offset[0] / inputs.gain[0] * record.scale)


def growing(
    experiment: Experiment, record: Record, calibration: ShotNoise, rotation_hz: float
) -> tuple[Array, Array, Array]:
    """Conditional state while a record grows from nothing: the exact time-varying filter from the unconditional state.

    Returns times (T,), means (T, 2k) rotated by the sign of each mode's frequency times `rotation_hz`, and lab-frame
    covariances (T, 2k, 2k) of the reported modes.
    """
    found = track(experiment, record, calibration, "lab", 1)
    signs = np.sign(mode_frequencies(experiment.system, experiment.reported_modes()))
    return found.times_s, rotated(found.mean, found.times_s, tuple(signs * rotation_hz)), found.covariances()
