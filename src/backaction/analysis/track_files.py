"""Tracking record files: one or many, each on its own, here in threads or on a Dask scheduler.

A file that is there already, made by the same call of the same record, is kept; a failure is told and does not stop the
others; a run that was killed goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from backaction import tracking
from backaction._version import __version__
from backaction.analysis import technical_noise
from backaction.errors import BackactionError, InputError, ModelError
from backaction.experiment.experiment import Experiment
from backaction.files import to_json
from backaction.numerics.matrices import Array
from backaction.records import statistics
from backaction.records.formats import read_record
from backaction.records.record import Record
from backaction.records.shot_level import ShotNoise, shot_noise
from backaction.records.spectrum import Spectrum
from backaction.records.statistics import Check, ResidualLine
from backaction.records.taken import band_of
from backaction.systems.steady import unconditional
from backaction.tracking import agreement, drift
from backaction.tracking.innovations import Monitor, innovation_checks
from backaction.tracking.inputs import Demodulation
from backaction.tracking.track_file import read_track
from backaction.workers import Progress, as_they_come, executor, quiet

_HEAD = 1 << 24
"""Samples from which the shot-noise level of a long record is taken."""
CLIPPED = 0.05
"""Share of clipped samples beyond which a record is refused."""


@dataclass(frozen=True)
class Job:
    """What to do with every file; plain data, so that it travels to a worker.

    `given` is what the record files do not say; `follow` names parameters that are followed in `segments`; `veto` are
    stretches (from, to in seconds) that are taken for missing. Where the experiment has several currents a record is its
    files joined by commas, in the order of the currents; so are `shot` and `dark`.
    """

    experiment: Experiment
    shot: str
    dark: str | None = None
    given: dict[str, Any] = field(default_factory=dict)
    frame: str = "rotating"
    every: int | None = None
    estimate: str = "filtered"
    modes: tuple[str, ...] | None = None
    start: str = "unconditional"
    ahead_s: float = 0.0
    demodulate: tuple[float, int] | None = None
    single: bool = False
    square_root: bool = False
    innovations: bool = True
    check: bool = False
    follow: tuple[str, ...] = ()
    segments: int = 20
    veto: tuple[tuple[float, float], ...] = ()

    @property
    def baseband(self) -> Demodulation | None:
        """The complex baseband that is tracked instead, if any."""
        return None if self.demodulate is None else Demodulation(*self.demodulate)

    @property
    def options(self) -> dict[str, Any]:
        """What `tracking.track` is told."""
        return {
            "estimate": self.estimate, "modes": self.modes, "start": self.start, "ahead_s": self.ahead_s,
            "demodulate": self.baseband, "single": self.single, "square_root": self.square_root,
        }  # fmt: skip

    def key(self, record: str) -> str:
        """Identifies the result: all options, this version, and the files' sizes and times."""
        files = [p for given in (record, self.shot, self.dark) if given is not None for p in given.split(",")]
        stamps = [_stamp(p) for p in files]
        options = {k: v for k, v in vars(self).items() if k != "experiment"}
        text = to_json([__version__, self.experiment.resolved().to_dict(), options, stamps], None)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Outcome:
    """What became of one record: `status` done, kept (made before) or failed; tests and sentences for people."""

    record: str
    output: str
    status: str
    sentence: str
    tests: tuple[Check, ...] = ()
    notes: tuple[str, ...] = ()
    exit_code: int = 0

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return self.status != "failed" and all(t.passed for t in self.tests)


def track_file(job: Job, record: str, output: str, progress: Progress | None = None) -> Outcome:
    """Track one record file: take it in, follow what drifts, filter, test, and keep the tests in the file.

    Raises
    ------
    BackactionError
        As `tracking.track`, `records.shot_noise` and the readers do.
    """
    say: Progress = progress or quiet
    key = job.key(record)
    there = _made_by(output, key)
    if there is not None:
        tests_then = tuple(Check(*t) for t in there["tests"])
        said = f"{output} is there already, made by the same call"
        return Outcome(record, output, "kept", said, tests_then, tuple(there["notes"]))
    say("calibrating", None)
    sources = _sources(job, record)
    tests: list[Check] = []
    notes = [w for c in sources.noises for w in c.warnings]
    schedule: drift.Schedule = []
    if job.follow:
        say(f"following {', '.join(job.follow)}", None)
        schedule = _followed(job, sources, tests, notes)
    options = job.options | {"schedule": schedule}
    watched = _watched(job, sources, options)
    with tracking.tracked(
        job.experiment, sources.records, sources.noises, job.frame, job.every, say,  # type: ignore[arg-type]
        output=output, facts=_facts(job, sources, key, schedule), innovations=job.innovations, monitor=watched, **options,
    ) as run:  # fmt: skip
        found = run.track
        _tested(job, sources, watched, tests, notes)
        notes += _doubts(job.experiment, found)
        _compared(job, sources, found, options, say, tests, notes)
        if found.missing or found.clipped:
            size = sources.records[0].shots * tracking.length(sources.records, sources.inputs) * sources.inputs.factor
            notes.append(
                f"{found.missing} samples missing ({100 * found.missing / size:.2g} %), {found.clipped} clipped "
                f"({100 * found.clipped / size:.2g} %): predicted through"
            )
        kept = {"tests": [[t.name, t.passed, t.value, t.p, t.sentence] for t in tests], "notes": notes}
        run.finish({"checks": to_json(kept, None)})
    sentence = (
        f"wrote {output}: {found.mean.shape[-2]} means of {', '.join(found.modes)} every {found.time_step_s:.4g} s"
    )
    return Outcome(record, output, "done", sentence, tuple(tests), tuple(notes))


@dataclass(frozen=True, eq=False)
class _Sources:
    """The currents of one record with their shot-noise units, and how samples become currents."""

    records: list[Record]
    noises: list[ShotNoise]
    band_hz: tuple[float, float]
    inputs: tracking.Currents


def _sources(job: Job, record: str) -> _Sources:
    experiment = job.experiment
    several = _read(experiment, record, job.given)
    shots, darks = (
        [None] * len(several) if p is None else _read(experiment, p, job.given) for p in (job.shot, job.dark)
    )
    several = [_vetoed(r, job.veto) for r in several]
    for r in several:
        part = r.clipped_fraction()
        if part > CLIPPED:
            raise InputError(f"{r.name}: {100 * part:.3g} % of its samples are clipped: take it again with less gain")
    band = band_of(experiment, several[0], cut=True)
    noises = [
        shot_noise(r if r.size <= _HEAD else r.part(0, _HEAD), shot, dark, experiment.electronic_noise_sn, band)
        for r, shot, dark in zip(several, shots, darks, strict=True)
    ]
    return _Sources(several, noises, band, tracking.currents(several, [c.density for c in noises], job.baseband))


def _followed(job: Job, sources: _Sources, tests: list[Check], notes: list[str]) -> drift.Schedule:
    """The schedule of the parameters that drift; what constant ones would have cost goes to the notes."""
    if len(sources.records) > 1:
        raise InputError(
            f"{job.experiment.name}: following parameters takes one current, here are {len(sources.records)}"
        )
    experiment = replace(job.experiment, band_hz=sources.band_hz)
    followed = drift.follow(experiment, sources.records[0], sources.noises[0], job.follow, job.segments)
    notes += [f"constant parameters: {t.sentence}" for t in followed.before if t.name.startswith("drift")]
    tests += [t for t in followed.after if t.name.startswith("drift")]
    for j, name in enumerate(followed.names):
        low, high = np.min(followed.values[:, j]), np.max(followed.values[:, j])
        notes.append(
            f"{name} between {low:.6g} and {high:.6g} in {job.segments} segments (+- {np.mean(followed.sd[:, j]):.2g}; "
            f"wanders by {followed.wander[j]:.2g} over {followed.time_s:.2g} s)"
        )
    return followed.schedule


def _facts(job: Job, sources: _Sources, key: str, schedule: drift.Schedule) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "experiment": to_json(job.experiment.resolved().to_dict(), None),
        "record": sources.records[0].name,
        "job": key,
        "shot_noise_density": sources.noises[0].density,
    }
    if schedule:
        followed = [[t, {n: float(np.real(e.value(n))) for n in job.follow}] for t, e in schedule]
        facts["schedule"] = to_json(followed, None)
    return facts


def _watched(job: Job, sources: _Sources, options: Mapping[str, Any]) -> _Watch:
    watched = _Watch(sources.band_hz)
    if job.estimate != "retrodicted":
        made = tracking.setup(job.experiment, sources.inputs, start=job.start, schedule=options["schedule"])  # type: ignore[arg-type]
        watched.prepare(made, sources.records[0].shots * tracking.length(sources.records, sources.inputs))
    return watched


def _tested(job: Job, sources: _Sources, watched: _Watch, tests: list[Check], notes: list[str]) -> None:
    """The innovations' tests."""
    if watched.monitor is None:
        notes.append("the innovations were not tested: a retrodiction, too short a record, or no steady filter")
        return
    tests += innovation_checks(watched.monitor, sources.noises[0], watched.band)
    if not sources.inputs.complex:
        notes += _lines(watched, job.experiment)


def _compared(
    job: Job,
    sources: _Sources,
    found: tracking.Track,
    options: Mapping[str, Any],
    say: Progress,
    tests: list[Check],
    notes: list[str],
) -> None:
    """What technical noise costs; with `check` prediction against retrodiction."""
    if job.check and job.estimate != "filtered":
        notes.append(f"--check compares filtered estimates; this track is {job.estimate}")
    if job.estimate != "filtered":
        return
    if found.modes == job.experiment.reported_modes() and not job.ahead_s:
        lost = technical_noise.costs(job.experiment)
        if lost:
            parts = ", ".join(map(str, lost[:6]))
            notes.append(f"technical noise costs {lost[0].loss:.4f} of {lost[0].variance:.4f}: {parts}")
        sentence = technical_noise.sampling_sentence(technical_noise.sampling_loss(job.experiment, found.covariance))
        notes += [sentence] if sentence else []
    if not job.check:
        return
    say("retrodicting", None)
    agreed = None
    if len(sources.records) == 1:
        agreed = agreement.agreement(
            job.experiment, sources.records[0], sources.noises[0], demodulate=job.baseband, schedule=options["schedule"]
        )
    tests += [] if agreed is None else [agreed]
    if agreed is None:
        notes.append(
            "prediction and retrodiction cannot be compared: several shots or currents, too short a record, or a "
            "state of which later samples do not tell"
        )


def _doubts(experiment: Experiment, found: tracking.Track) -> list[str]:
    """Whether the track knows more than no record would tell."""
    try:
        V = unconditional(experiment.system)
    except ModelError:
        return []
    index = experiment.system.indices(found.modes)
    known = float(np.trace(found.covariance)) / float(np.trace(V[np.ix_(index, index)]))
    if np.isfinite(known) and known > 0.97 and found.estimate != "retrodicted":
        return [
            f"the means say next to nothing: their covariance is {100 * known:.1f} % of the unconditional one (a baseband "
            "that misses the modes, a prediction too far ahead, or a detector that does not see them)"
        ]
    return []


def _lines(watched: _Watch, experiment: Experiment) -> list[str]:
    """What is said of noise that the model does not have."""
    lines = watched.lines()
    notes = [f"unexplained noise at {x.frequency_hz / 1e3:.6g} kHz ({x.excess:.3g} x)" for x in lines]
    notes += [f"it may enter {p.place}; as TOML:\n{p.toml}" for p in technical_noise.proposals(experiment, lines)]
    if lines:
        notes.append("V_c of this track is not that of the system: say where the lines enter, and track again")
    return notes


def run_jobs(
    job: Job,
    records: Sequence[str],
    outputs: Sequence[str],
    scheduler: str | None = None,
    workers: int | None = None,
    arrived: Callable[[Outcome, int], None] | None = None,
) -> list[Outcome]:
    """Track many record files independently, in threads here or on a Dask scheduler; failures become outcomes.

    `arrived` is called with each outcome as it comes and how many are there.
    """
    done: dict[int, Outcome] = {}
    with executor(scheduler, workers) as pool:
        calls = [(job, r, o) for r, o in zip(records, outputs, strict=True)]
        for i, outcome in as_they_come(pool, _isolated, calls):
            done[i] = outcome
            if arrived:
                arrived(outcome, len(done))
    return [done[i] for i in range(len(records))]


def _isolated(job: Job, record: str, output: str) -> Outcome:
    try:
        return track_file(job, record, output)
    except BackactionError as error:
        return Outcome(record, output, "failed", str(error), exit_code=error.exit_code)
    except Exception as error:  # one record's failure, whatever it is, stops no other
        return Outcome(record, output, "failed", f"{record}: {type(error).__name__}: {error}", exit_code=2)


class _Watch:
    """A `Monitor` that is made when the predicted variance is known."""

    def __init__(self, band_hz: tuple[float, float]) -> None:
        self.band, self.monitor = band_hz, None  # type: tuple[float, float], Monitor | None

    def prepare(self, made: tracking.Setup, size: int) -> None:
        variance = made.innovation_variance_sn
        rate = 1 / made.currents.interval_s
        if not np.isfinite(variance) or size < 4096:
            return
        # of a baseband all of it: its frequencies count from the reference
        band = (0.0, 0.48 * rate) if made.currents.complex else (self.band[0], min(self.band[1], 0.48 * rate))
        self.band = band
        segments = int(np.clip(size // 20_000, 4, 20))
        self.monitor = Monitor(rate, size, variance, band, segments)

    def __call__(self, start: int, innovation: Array) -> None:
        if self.monitor is not None:
            self.monitor(start, innovation)

    def state(self) -> dict[str, Any] | None:
        """The monitor's, for a run that is resumed."""
        return None if self.monitor is None else self.monitor.state()

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on from a `state()`."""
        if self.monitor is not None:
            self.monitor.restore(saved)

    def lines(self) -> list[ResidualLine]:
        """Residual lines within the band."""
        assert self.monitor is not None
        f, density, averages = self.monitor.spectrum(2048)
        if f.size < 16:
            return []
        spectrum = Spectrum(f, density, averages, float(f[1] - f[0]), "1")
        return statistics.residual_lines(spectrum, np.ones(f.size))


def _read(experiment: Experiment, path: str, given: dict[str, Any]) -> list[Record]:
    """The records of an argument: one file, or one for each of several currents."""
    currents = experiment.system.currents
    parts = path.split(",") if len(currents) > 1 else [path]
    if len(parts) != max(1, len(currents)):
        raise InputError(f"{path}: the experiment has the currents {', '.join(currents)}: name a file for each, A,B")
    return [read_record(p, **given) for p in parts]


def _vetoed(record: Record, stretches: Sequence[tuple[float, float]]) -> Record:
    """The record with more gaps."""
    gaps = list(record.gaps)
    for low, high in stretches:
        a, b = (round((t - record.start_s) * record.sample_rate_hz) for t in (low, high))
        if b <= 0 or a >= record.size:
            raise InputError(f"--veto {low:g}:{high:g}: outside the record {record.name} ({record.duration_s:g} s)")
        gaps.append((max(a, 0), min(b, record.size)))
    return replace(record, gaps=tuple(gaps))


def _stamp(path: str) -> list[Any]:
    """The argument as it is, and size and time of the file (of all files of a Zarr store)."""
    file = Path(path)
    if not file.exists() and ":" in path:
        file = Path(path.rpartition(":")[0])
    files = sorted(p for p in file.rglob("*") if p.is_file()) if file.is_dir() else [file]
    try:
        stats = [p.stat() for p in files]
    except OSError:
        return [path, str(file.absolute())]
    return [path, str(file.absolute()), sum(s.st_size for s in stats), max((s.st_mtime_ns for s in stats), default=0)]


def _made_by(output: str, key: str) -> dict[str, Any] | None:
    """Tests and notes of a track that the same job made, None where it is another or none."""
    if not Path(output).exists():
        return None
    try:
        attributes = read_track(output)[1]
    except InputError:
        return None
    if attributes.get("job") != key or "checks" not in attributes:
        return None
    return dict(json.loads(attributes["checks"]))
