"""Conditional trajectories: the exact filter of the sampled model, run over records of any length.

    x^_{k+1} = F x^_k + K_k (y_k - H x^_k),    mean[k] = x^_{k+1}: the state at time t_0 + (k+1)/f_s given y_0 .. y_k

`Tracker` takes samples as they come; `track` drives it over a record in memory or in files and writes while it runs.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

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
from backaction.workers import Progress, listener

Estimate = Literal["filtered", "smoothed", "retrodicted"]
_CHUNK = 1 << 20
_SAFE_S = 0.5
"""A file's state is saved at most so often: what a kill can cost."""


DOING = {"filtered": "filtering", "smoothed": "smoothing", "retrodicted": "retrodicting"}
"""What is said while it runs."""


class TrackOptions(TypedDict, total=False):
    """What `track` can be told by keyword beyond frame and decimation.

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
    """

    estimate: Estimate
    modes: Sequence[str] | None
    start: Start
    schedule: Schedule
    ahead_s: float
    demodulate: Demodulation | None
    single: bool
    square_root: bool
    innovations: bool
    likelihood: bool
    monitor: Callable[[int, Array], None] | None


def track(
    experiment: Experiment,
    record: Record | Sequence[Record],
    calibration: ShotNoise | Sequence[ShotNoise],
    frame: FrameName = "rotating",
    every: int | None = None,
    progress: Callable[..., None] | None = None,
    *,
    output: str | Path | None = None,
    facts: Mapping[str, Any] | None = None,
    **options: Unpack[TrackOptions],
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
        Called with what is done and the fraction of it.
    output
        *.h5 or *.zarr: written while running; a run that was killed is resumed by the same call.
    facts
        Further attributes.
    options
        estimate, modes, start, schedule, ahead_s, demodulate, single, square_root, innovations, likelihood, monitor: see
        `TrackOptions`.

    Raises
    ------
    InputError
        If records, calibrations and experiment do not fit together.
    ModelError
        If the model has no such start, or no steady filter where one is needed.
    """
    with tracked(experiment, record, calibration, frame, every, progress, output=output, facts=facts, **options) as run:
        run.finish()
    return run.track if output is None else load_track(output)


class Tracked:
    """A track that is made but not yet named: `finish` writes its attributes and gives its file the name."""

    def __init__(self, found: Track, file: TrackFile) -> None:
        self.track, self._file = found, file

    def finish(self, facts: Mapping[str, Any] | None = None) -> None:
        """Add `facts` to the attributes; without it the file is left for a later run."""
        self.track = replace(self.track, provenance=self.track.provenance | dict(facts or {}))
        if self._file.path is None:
            return
        for key in ("covariance", "exact_rows", "exact_covariance"):
            self._file.add(key, getattr(self.track, key))
        self._file.finish(attributes(self.track))


@contextlib.contextmanager
def tracked(
    experiment: Experiment,
    record: Record | Sequence[Record],
    calibration: ShotNoise | Sequence[ShotNoise],
    frame: FrameName = "rotating",
    every: int | None = None,
    progress: Callable[..., None] | None = None,
    *,
    output: str | Path | None = None,
    facts: Mapping[str, Any] | None = None,
    **options: Unpack[TrackOptions],
) -> Iterator[Tracked]:
    """As `track`, with the track in hand before its file is finished: what is found in it can be kept in it."""
    records = [record] if isinstance(record, Record) else record
    calibrations = [calibration] if isinstance(calibration, ShotNoise) else calibration
    for name, value, kind in (("experiment", [experiment], Experiment), ("record", records, Record),
                              ("calibration", calibrations, ShotNoise)):  # fmt: skip
        if not isinstance(value, (list, tuple)) or not all(isinstance(v, kind) for v in value):
            raise InputError(f"track: {name} must be {kind.__name__} (or a list of them), not {_kind(value)}")
    if not records:
        raise InputError("track: needs a record")
    densities = tuple(c.density for c in calibrations)
    if len(densities) != len(records):
        raise InputError(f"{len(records)} records and {len(densities)} calibrations: one for each current")
    job = _Job(experiment, tuple(records), densities, frame, every, **options)
    given = dict(facts or {})
    with TrackFile.open(output, job.shapes, "" if output is None else job.fingerprint(given)) as file:
        run = _Run(file, job.made, records, job.monitor, job.keeps, listener(progress, "part"), job.estimate)
        counts = _all_shots(run, job)
        first, rows = job.first, len(job.made.plan.read)
        exact_rows, exact_covariance = file.exact(rows)
        found = Track(
            file.arrays["mean"], first.steady_covariance(job.estimate), file.arrays["innovation"], exact_rows=exact_rows,
            exact_covariance=exact_covariance, **counts, **job.numbers(given),
        )  # fmt: skip
        yield Tracked(found, file)


@dataclass(frozen=True)
class _Job:
    """Everything that decides a track, checked; and what follows from it before any sample is read."""

    experiment: Experiment
    records: tuple[Record, ...]
    densities: tuple[float, ...]
    frame: FrameName
    every: int | None
    estimate: Estimate = "filtered"
    modes: Sequence[str] | None = None
    start: Start = "unconditional"
    schedule: Schedule = ()
    ahead_s: float = 0.0
    demodulate: Demodulation | None = None
    single: bool = False
    square_root: bool = False
    innovations: bool = True
    likelihood: bool = True
    monitor: Callable[[int, Array], None] | None = None

    def __post_init__(self) -> None:
        if self.estimate not in ("filtered", "smoothed", "retrodicted"):
            raise InputError(f"estimate = '{self.estimate}': must be filtered, smoothed or retrodicted")
        if self.estimate != "filtered" and (self.ahead_s or self.single or self.square_root):
            raise InputError(
                f"estimate = '{self.estimate}': ahead_s, single and square_root are for filtered estimates"
            )

    @property
    def keeps(self) -> bool:
        """Whether the innovations are kept."""
        return self.innovations and self.estimate != "retrodicted"

    @cached_property
    def inputs(self) -> Currents:
        """How stored samples become currents."""
        return currents(self.records, self.densities, self.demodulate)

    @property
    def options(self) -> dict[str, Any]:
        """What `setup` is told."""
        watched = self.keeps or self.monitor is not None or self.estimate != "filtered"
        return {
            "frame": self.frame, "modes": self.modes, "start": self.start, "schedule": self.schedule,
            "ahead_s": self.ahead_s, "single": self.single, "square_root": self.square_root,
            "likelihood": self.likelihood or watched,
        }  # fmt: skip

    @cached_property
    def made(self) -> Setup:
        """Models, plan and first state."""
        made = setup(self.experiment, self.inputs, every=self.every, **self.options)
        if self.every is None and made.plan.every > self.size:  # a record shorter than the default decimation
            made = setup(self.experiment, self.inputs, every=max(1, self.size), **self.options)
        if self.size // made.plan.every < 1:
            raise InputError(f"every = {made.plan.every}: must be between 1 and the {self.size} samples of the record")
        return made

    @cached_property
    def first(self) -> Stage:
        """The model at the start, and its steady filter."""
        return Stage(self.made.schedule[0][1], self.made.plan)

    @cached_property
    def size(self) -> int:
        """Samples of a shot."""
        return length(self.records, self.inputs)

    @property
    def shapes(self) -> dict[str, Any]:
        """Of the arrays that are written."""
        q, shots = len(self.first.model.R), self.records[0].shots
        lead = (shots,) if shots > 1 else ()
        rows = self.size // self.made.plan.every
        return {
            "mean": ((*lead, rows, len(self.made.plan.read)), np.float32 if self.single else np.float64),
            "innovation": ((*lead, self.size if self.keeps else 0, *((q,) if q > 1 else ())), np.float32),
        }

    def numbers(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """What a `Track` says of itself."""
        made, first, record = self.made, self.first, self.records[0]
        return {
            "innovation_variance_sn": made.innovation_variance_sn,
            "modes": made.modes, "frame": self.frame, "rotation_hz": made.rotation_hz, "time_start_s": made.first_s,
            "time_step_s": made.step_s, "sample_rate_hz": 1 / self.inputs.interval_s, "record_start_s": record.start_s,
            "memory_s": np.inf if first.steady is None else first.steady.memory_s, "estimate": self.estimate,
            "provenance": {"mean_removed": _level(record, self.inputs), "unit": record.unit} | dict(facts),
        }  # fmt: skip

    def fingerprint(self, facts: Mapping[str, Any]) -> str:
        """Everything that decides the numbers: a killed run is resumed by the same one only."""
        return to_json([
            self.experiment.resolved().to_dict(), [[float(t), e.resolved().to_dict()] for t, e in self.schedule],
            [identity(r) for r in self.records], self.densities, self.made.plan.every, self.estimate,
            list(self.made.modes), packed(self.made.state.P),
            {k: repr(v) for k, v in self.options.items() if k not in ("schedule", "start")}, repr(self.demodulate),
            self.keeps, {k: str(v) for k, v in facts.items()},
        ], None)  # fmt: skip


def _all_shots(run: _Run, job: _Job) -> dict[str, Any]:
    """Every shot through the filter, or backwards; missing and clipped samples and the likelihood."""
    counts: dict[str, Any] = {"missing": 0, "clipped": 0, "log_likelihood": 0.0}
    saved = run.file.resumed
    if saved is not None:
        counts = dict(saved["counts"])
        run.restore(saved)
    for shot in range(0 if saved is None else int(saved["shot"]), job.records[0].shots):
        if job.estimate == "filtered":
            tracker = Tracker.of(job.made)
            if saved is not None and saved["tracker"] is not None and shot == saved["shot"]:
                tracker.restore(saved["tracker"])
            run.follow(tracker, shot, counts)
            for key in counts:
                counts[key] += getattr(tracker, key)
        else:
            _backwards(run, job, shot, counts)
        run.safe({"shot": shot + 1, "tracker": None, "counts": counts})
    return counts


def _backwards(run: _Run, job: _Job, shot: int, counts: dict[str, Any]) -> None:
    """One shot smoothed or retrodicted."""
    made, size = job.made, job.size
    fetch = _Fetch(job.records, job.inputs, shot)
    if job.estimate == "smoothed":
        chunk = max(_CHUNK // 16, size >> 12)  # small: they stay in the processor's caches
        pieces = smooth(made.schedule, made.plan, made.state.copy(), fetch, size, chunk, run.seen(shot, counts))
    else:
        pieces = retrodict(made.schedule, made.plan, fetch, size, _CHUNK)
        counts["log_likelihood"] = np.nan
    for piece in _counted(pieces, made):
        run.store(piece, shot)
    counts["missing"] += fetch.missing
    counts["clipped"] += fetch.clipped


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
        progress: Progress,
        estimate: Estimate,
    ) -> None:
        self.file, self.made, self.records, self.monitor = file, made, records, monitor
        self.keep, self.scale, self.progress = keep, np.sqrt(made.currents.interval_s / VACUUM), progress
        self.size, self.shots = length(records, made.currents), records[0].shots
        self.done, self.saved_at = 0, time.monotonic()
        self.doing = DOING[estimate]

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
        return self.file.arrays["mean"][shot] if self.shots > 1 else self.file.arrays["mean"]

    def store(self, piece: Piece, shot: int, there: bool = False) -> None:
        """Keep a piece (its means, unless they are there already)."""
        where = (shot,) if self.shots > 1 else ()
        row = piece.start // self.made.plan.every
        if not there:
            self.file.write("mean", (*where, slice(row, row + len(piece.mean))), piece.mean)
        self.innovations(piece.innovation, piece.start, shot)
        self.file.append(piece.exact + shot * (self.size // self.made.plan.every), piece.covariance)
        self.done += piece.stop - piece.start
        self.progress(self.doing, self.done / (self.size * self.shots))

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
