"""Conditional trajectories: the exact filter of the sampled model, run over records of any length.

    x^_{k+1} = F x^_k + K_k (y_k - H x^_k),    mean[k] = x^_{k+1}: the state at time t_0 + (k+1)/f_s given y_0 .. y_k

`Tracker` takes samples as they come; `track` drives it over a record in memory or in files and writes while it runs.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from backaction.currents import Currents, Demodulation, currents, length, stored
from backaction.errors import InputError, ModelError, nearest
from backaction.experiment import Experiment
from backaction.files import to_json
from backaction.kalman import Filter, Piece, Plan, Stage, State, scaled_root
from backaction.matrices import Array, symmetric
from backaction.records import Record
from backaction.response import VACUUM
from backaction.sampling import SampledModel, SteadyFilter, discrete_lyapunov, discretise, steady_filter
from backaction.shot_noise import Calibration
from backaction.smoothing import retrodict, smooth
from backaction.state import GaussianState
from backaction.steady import unconditional
from backaction.system import LinearSystem
from backaction.trackfile import TrackFile
from backaction.tracks import FrameName, Track, attributes, load_track

Estimate = Literal["filtered", "smoothed", "retrodicted"]
Start = Literal["unconditional", "steady"] | GaussianState
Schedule = Sequence[tuple[float, Experiment]]
_CHUNK = 1 << 20


def sampled_filter(system: LinearSystem, record: Record) -> SteadyFilter:
    """The steady filter of `system` for the rate and sampling rule of `record`.

    Raises
    ------
    ModelError
        If there is none.
    """
    return steady_filter(discretise(system, *record.digitiser))


def mode_frequencies(system: LinearSystem, modes: tuple[str, ...]) -> Array:
    """Signed frequency in Hz of the pole that lives mostly in each mode; negative for a negative mass."""
    values, vectors = np.linalg.eig(system.A)
    out = []
    for name in modes:
        where = system.mode(name)
        share = np.sum(np.abs(vectors[where]) ** 2, axis=0) / np.sum(np.abs(vectors) ** 2, axis=0)
        pole = values[int(np.argmax(share))]
        first, second = where.start, min(where.start + 1, where.stop - 1)
        sign = np.sign(system.A[first, second] - system.A[second, first]) or 1.0
        out.append(float(sign * abs(pole.imag) / (2 * np.pi)))
    return np.array(out)


@dataclass(frozen=True, eq=False)
class Setup:
    """Everything that a track is made with: models in time, inputs, what is read out and in which frame."""

    experiment: Experiment
    modes: tuple[str, ...]
    currents: Currents
    schedule: list[tuple[int, SampledModel]]
    plan: Plan
    frame: FrameName
    rotation_hz: tuple[float, ...]
    state: State

    @property
    def first_s(self) -> float:
        """Time of the first mean."""
        return self.currents.start_s + self.plan.every * self.currents.interval_s + self.ahead_s

    @property
    def step_s(self) -> float:
        """Time between means."""
        return self.plan.every * self.currents.interval_s

    @property
    def ahead_s(self) -> float:
        """How far ahead of the record the means predict."""
        return self.plan.ahead * self.currents.interval_s

    def turned(self, mean: Array, row: int) -> Array:
        """Means from row number `row` on, in the frame that is asked for."""
        if self.frame == "lab":
            return mean
        times = self.first_s + self.step_s * (row + np.arange(len(mean)))
        return rotated(mean, times, self.rotation_hz).astype(mean.dtype, copy=False)


def setup(
    experiment: Experiment,
    inputs: Currents,
    frame: FrameName = "rotating",
    every: int | None = None,
    modes: Sequence[str] | None = None,
    start: Start = "unconditional",
    schedule: Schedule = (),
    ahead_s: float = 0.0,
    single: bool = False,
    square_root: bool = False,
) -> Setup:
    """Models, plan and first state of a track; parameters as for `track`.

    Raises
    ------
    InputError
        For unknown modes, a decimation or times that make no sense, currents that do not fit the experiment.
    ModelError
        If the start does not exist (no steady state).
    """
    if frame not in ("lab", "rotating"):
        raise InputError(f"frame = '{frame}': must be lab or rotating")
    system = experiment.system
    q = 1 if inputs.complex else len(inputs.groups) or inputs.gain.size
    if len(system.currents) != q:
        raise InputError(
            f"{experiment.name}: its currents are {', '.join(system.currents) or 'none'}; tracking was given {q} record(s)"
        )
    chosen = tuple(modes) if modes is not None else experiment.reported_modes()
    for m in chosen:
        if m not in {x.name for x in system.modes}:
            raise InputError(f"no mode '{m}'{nearest(m, [x.name for x in system.modes])}")
        if frame == "rotating" and system.mode(m).stop - system.mode(m).start != 2:
            raise InputError(f"mode '{m}' has no pair of quadratures to rotate: track it in the lab frame")
    model = inputs.model(system)
    switches = [(0, model)]
    for at_s, changed in schedule:
        sample = round((at_s - inputs.start_s) / inputs.interval_s)
        other = inputs.model(changed.system)
        if other.F.shape != model.F.shape:
            raise InputError(f"schedule at {at_s:g} s: another number of states than the experiment's own")
        if sample <= switches[-1][0]:
            if sample == 0 and len(switches) == 1:
                switches[0] = (0, other)
                continue
            raise InputError(f"schedule at {at_s:g} s: times must rise from the record's start at {inputs.start_s:g} s")
        switches.append((sample, other))
    n, index = model.F.shape[-1], system.indices(chosen)
    read = np.zeros((len(index), n))
    read[np.arange(len(index)), index] = 1.0
    frequencies = mode_frequencies(system, chosen)
    reference = float(np.mean(np.abs(frequencies)))
    rotation = tuple(float(np.sign(f) * reference) for f in frequencies)
    steady = Stage(switches[0][1], Plan(read)).steady
    step = every if every is not None else (1 if frame == "lab" or steady is None else _decimation(steady, reference))
    if step < 1:
        raise InputError(f"every = {step}: must be >= 1")
    ahead = round(ahead_s / inputs.interval_s)
    if not (np.isfinite(ahead_s) and ahead >= 0):
        raise InputError(f"ahead_s = {ahead_s:g}: must be >= 0")
    scale, offset = inputs.affine
    plan = Plan(read, step, scale, offset, ahead, single, square_root)
    state = _start(experiment, system, model, start, chosen)
    if square_root:
        state.P = scaled_root(state.P)
    return Setup(experiment, chosen, inputs, switches, plan, frame, rotation, state)


def _start(
    experiment: Experiment, system: LinearSystem, model: SampledModel, start: Start, modes: tuple[str, ...]
) -> State:
    """Mean zero and the covariance that `start` says, of the model's states (front end included)."""
    n = model.F.shape[-1]
    if isinstance(start, str) and start == "steady":
        return State(np.zeros(n), steady_filter(model).covariance, settled=True)
    if isinstance(start, str) and start != "unconditional":
        raise InputError(f"start = '{start}': must be unconditional, steady or a GaussianState")
    stable = np.max(np.abs(np.linalg.eigvals(model.F)), initial=0.0) < 1
    P = np.zeros((n, n))
    if stable:
        P = discrete_lyapunov(model.F, model.Q)
        k = system.A.shape[-1]
        P[:k, :k] = unconditional(system)
    elif isinstance(start, str):
        raise ModelError(
            f"{experiment.name}: unstable, there is no unconditional start; start from 'steady' or a state"
        )
    if isinstance(start, GaussianState):
        own = start.to().reduced(*[m for m in modes if m in start.modes])
        index = system.indices(own.modes)
        P[index, :] = P[:, index] = 0.0
        P[np.ix_(index, index)] = own.covariance
    return State(np.zeros(n), symmetric(P))


class Tracker:
    """A filter that is fed samples as they come; its result does not depend on how the record was cut.

    Parameters are those of `track`; `inputs` says how stored samples become currents (`currents.currents`, or a
    `Currents` made by hand where no record exists yet).

    Notes
    -----
    Samples are processed in blocks anchored at multiples of a fixed number of samples from the record's start; what is
    left over waits for the next `push`, or `flush`.
    """

    def __init__(self, experiment: Experiment, inputs: Currents, **options: Any) -> None:
        self.setup = setup(experiment, inputs, **options)
        self._filter = Filter(self.setup.schedule, self.setup.plan, self.setup.state.copy())
        self._waiting: list[Array] = []
        self._held = 0
        self.missing = self.clipped = 0

    @property
    def position(self) -> int:
        """Stored samples that are behind the last mean (what waits is not among them)."""
        return self._filter.state.position * self.setup.currents.factor

    @property
    def log_likelihood(self) -> float:
        """Ln p(y_0 .. y_k) of the samples so far, in units of the filter's currents."""
        return self._filter.state.log_likelihood

    @property
    def block(self) -> int:
        """Stored samples in a block: chunks that are multiples of it are processed at once."""
        return self.setup.plan.block * self.setup.currents.factor

    def push(self, samples: Array) -> Piece:
        """Take the next stored samples; returns what could be finished (rotated means, innovations, covariances)."""
        samples = np.asarray(samples)
        self._waiting.append(samples)
        self._held += len(samples)
        whole = self._held - self._held % self.block
        if whole == 0:
            return self._advance(samples[:0])
        joined = self._waiting[0] if len(self._waiting) == 1 else np.concatenate(self._waiting)
        rest = joined[whole:]
        self._waiting, self._held = ([rest.copy()] if len(rest) else []), len(rest)
        return self._advance(joined[:whole])

    def flush(self) -> Piece:
        """Process what is left over (with `demodulate`: whole blocks of samples); the record ends here."""
        joined = np.concatenate(self._waiting) if self._waiting else np.empty(0)
        self._waiting, self._held = [], 0
        return self._advance(joined[: len(joined) - len(joined) % self.setup.currents.factor])

    def _advance(self, raw: Array) -> Piece:
        first = self.position
        if not len(raw):
            raw = np.empty((0, *raw.shape[1:]))
        u, ok, missing, clipped = self.setup.currents.take(raw, first)
        self.missing, self.clipped = self.missing + missing, self.clipped + clipped
        row = self._filter.state.position // self.setup.plan.every
        piece = self._filter.advance(u, ok)
        piece.mean = self.setup.turned(piece.mean, row)
        piece.exact = piece.exact + row
        return piece

    def state(self) -> dict[str, Any]:
        """Everything to go on later, as plain JSON data; exact."""
        s = self._filter.state
        waiting = np.concatenate(self._waiting) if self._waiting else np.empty(0)
        return {
            "x": _packed(s.x), "P": _packed(s.P), "position": s.position, "settled": s.settled, "since": s.since,
            "log_likelihood": s.log_likelihood, "seen": s.seen, "missing": self.missing, "clipped": self.clipped,
            "waiting": _packed(waiting),
        }  # fmt: skip

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from a `state()` of a tracker that was made alike."""
        numbers = {k: saved[k] for k in ("position", "settled", "since", "log_likelihood", "seen")}
        self._filter.state = State(_unpacked(saved["x"]), _unpacked(saved["P"]), **numbers)
        self.missing, self.clipped = int(saved["missing"]), int(saved["clipped"])
        waiting = _unpacked(saved["waiting"])
        self._waiting, self._held = ([waiting] if len(waiting) else []), len(waiting)


def track(
    experiment: Experiment,
    record: Record | Sequence[Record],
    calibration: Calibration | Sequence[Calibration],
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
    output: str | Path | None = None,
    monitor: Callable[[int, Array], None] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Track:
    """Track a record with the experiment's sampled model, exactly, its mean level removed.

    Parameters
    ----------
    record, calibration
        One for each current of the experiment; the density of 1 SN in the record's unit (`shot_noise.calibrate`). A
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
    output
        *.h5 or *.zarr: written while running; a run that was killed is resumed by the same call.
    facts
        Further attributes of the file.

    Raises
    ------
    InputError
        If records, calibrations and experiment do not fit together.
    ModelError
        If the model has no such start, or no steady filter where one is needed.
    """
    records = [record] if isinstance(record, Record) else list(record)
    densities = [c.density for c in ([calibration] if isinstance(calibration, Calibration) else calibration)]
    if len(densities) != len(records):
        raise InputError(f"{len(records)} records and {len(densities)} calibrations: one for each current")
    if estimate not in ("filtered", "smoothed", "retrodicted"):
        raise InputError(f"estimate = '{estimate}': must be filtered, smoothed or retrodicted")
    if estimate != "filtered" and (ahead_s or single or square_root):
        raise InputError(f"estimate = '{estimate}': ahead_s, single and square_root are for filtered estimates")
    inputs = currents(records, densities, demodulate)
    made = setup(experiment, inputs, frame, every, modes, start, schedule, ahead_s, single, square_root)
    size = length(records, inputs)
    rows = size // made.plan.every
    if rows < 1:
        raise InputError(f"every = {made.plan.every}: must be between 1 and the {size} samples of the record")
    shots = records[0].shots
    first = Stage(made.schedule[0][1], made.plan)
    q = len(first.model.R)
    keep = innovations and estimate != "retrodicted"
    lead = (shots,) if shots > 1 else ()
    kind = np.float32 if single else np.float64
    shapes = {
        "mean": ((*lead, rows, len(made.plan.read)), kind),
        "innovation": ((*lead, size if keep else 0, *((q,) if q > 1 else ())), np.float32),
    }
    steady_covariance = _steady_covariance(first, estimate)
    unit = inputs.interval_s / VACUUM
    variance = np.nan if first.steady is None else float(first.steady.innovation[0, 0]) * unit
    provenance = {"mean_removed": _level(records[0], inputs), "unit": records[0].unit, **(facts or {})}
    numbers: dict[str, Any] = {
        "innovation_variance_sn": variance, "modes": made.modes, "frame": frame, "rotation_hz": made.rotation_hz,
        "time_start_s": made.first_s, "time_step_s": made.step_s, "sample_rate_hz": 1 / inputs.interval_s,
        "record_start_s": records[0].start_s, "memory_s": np.inf if first.steady is None else first.steady.memory_s,
        "estimate": estimate, "provenance": provenance,
    }  # fmt: skip
    fingerprint = to_json([
        experiment.resolved().to_dict(), [e.resolved().to_dict() for _, e in schedule], [float(t) for t, _ in schedule],
        [[r.name, r.size, r.sample_rate_hz] for r in records], densities, frame, made.plan.every, estimate,
        list(made.modes), str(start), ahead_s, None if demodulate is None else [demodulate.reference_hz, demodulate.factor],
        single, square_root, keep,
    ], None)  # fmt: skip
    with TrackFile.open(output, shapes, fingerprint) as file:
        scale = np.sqrt(unit)
        done = 0 if file.resumed is None else int(file.resumed["shot"])
        counts: dict[str, Any] = {"missing": 0, "clipped": 0, "log_likelihood": 0.0}
        if file.resumed is not None:
            counts = dict(file.resumed["counts"])
        for shot in range(done, shots):
            where = (shot,) if shots > 1 else ()
            fetch = _fetcher(records, inputs, shot)
            pieces: Iterator[Piece]
            tracker = None
            if estimate == "filtered":
                tracker = Tracker(
                    experiment, inputs, frame=frame, every=made.plan.every, modes=modes, start=start, schedule=schedule,
                    ahead_s=ahead_s, single=single, square_root=square_root,
                )  # fmt: skip
                if file.resumed is not None and shot == done and file.resumed["tracker"] is not None:
                    tracker.restore(file.resumed["tracker"])
                pieces = _pushed(tracker, records, shot, size * inputs.factor)
            elif estimate == "smoothed":
                pieces = _counted(smooth(made.schedule, made.plan, made.state.copy(), fetch, size, _CHUNK), made)
            else:
                pieces = _counted(retrodict(made.schedule, made.plan, fetch, size, _CHUNK), made)
            finished = 0
            for piece in pieces:
                row = piece.start // made.plan.every
                file.write("mean", (*where, slice(row, row + len(piece.mean))), piece.mean)
                e = piece.innovation if q > 1 else piece.innovation[:, 0] if piece.innovation.size else np.empty(0)
                if e.size:
                    if monitor is not None:
                        monitor(piece.start, e * scale)
                    if keep:
                        file.write("innovation", (*where, slice(piece.start, piece.stop)), e * scale)
                if shot == 0:
                    file.append(piece.exact, piece.covariance)
                finished += piece.stop - piece.start
                if tracker is not None and output is not None:
                    file.checkpoint({"shot": shot, "tracker": tracker.state(), "counts": counts})
                if progress:
                    progress((shot + finished / size) / shots)
            if tracker is not None:
                counts["missing"] += tracker.missing
                counts["clipped"] += tracker.clipped
                counts["log_likelihood"] += tracker.log_likelihood
            if output is not None:
                file.checkpoint({"shot": shot + 1, "tracker": None, "counts": counts})
        if estimate != "filtered":
            counts["log_likelihood"] = np.nan
        exact_rows, exact_covariance = file.exact(len(made.plan.read))
        found = Track(
            file.arrays["mean"], steady_covariance, file.arrays["innovation"], exact_rows=exact_rows,
            exact_covariance=exact_covariance, **counts, **numbers,
        )  # fmt: skip
        if output is None:
            return found
        for key in ("covariance", "exact_rows", "exact_covariance"):
            file.add(key, getattr(found, key))
        file.finish(attributes(found))
    return load_track(output)


# -- pieces of a run --------------------------------------------------------------------------------------------------


def _pushed(tracker: Tracker, records: Sequence[Record], shot: int, size: int) -> Iterator[Piece]:
    step = max(tracker.block, _CHUNK - _CHUNK % tracker.block)
    begin = tracker.position
    for start in range(begin, size, step):
        stop = min(size, start + step)
        piece = tracker.push(stored(records, start, stop, shot, tracker.setup.currents.groups))
        if stop == size:
            yield piece
            piece = tracker.flush()
        yield piece


def _counted(pieces: Iterator[Piece], made: Setup) -> Iterator[Piece]:
    for piece in pieces:
        row = piece.start // made.plan.every
        piece.mean = made.turned(piece.mean, row)
        piece.exact = piece.exact + row
        yield piece


def _fetcher(
    records: Sequence[Record], inputs: Currents, shot: int
) -> Callable[[int, int], tuple[Array, Array | None]]:
    def fetch(start: int, stop: int) -> tuple[Array, Array | None]:
        first = start * inputs.factor
        u, ok, _, _ = inputs.take(stored(records, first, stop * inputs.factor, shot, inputs.groups), first)
        return u, ok

    return fetch


def _steady_covariance(stage: Stage, estimate: str) -> Array:
    """The steady covariance of an estimate; NaN where there is none."""
    p = len(stage.plan.read)
    C = stage.read
    if estimate == "retrodicted":
        return np.full((p, p), np.nan) if stage.effect is None else C @ stage.effect.covariance @ C.T
    if stage.steady is None:
        return np.full((p, p), np.nan)
    if estimate == "smoothed":
        CP = C @ stage.steady.covariance
        return CP @ C.T - CP @ stage.information @ CP.T
    return stage.covariance


def _level(record: Record, inputs: Currents) -> float:
    """The mean that was removed, in the record's unit."""
    return float(record.offset - inputs.offset[0] / inputs.gain[0] * record.scale)


def _decimation(steady: SteadyFilter, reference_hz: float) -> int:
    """Largest power of two that keeps 16 samples per period of the filter's bandwidth about the modes' frequency."""
    rate_hz = 1 / steady.model.interval_s
    poles = np.log(np.linalg.eigvals(steady.closed_loop).astype(complex)) * rate_hz / (2 * np.pi)
    near = np.abs(np.abs(poles.imag) - reference_hz) < 0.3 * reference_hz
    if not np.any(near):
        return 1
    width = np.max(np.abs(poles[near].real) + np.abs(np.abs(poles[near].imag) - reference_hz))
    return 1 << max(0, int(np.floor(np.log2(rate_hz / (16 * width)))))


def rotated(mean: Array, times: Array, rotation: tuple[float, ...]) -> Array:
    """Each mode (X + iP) -> e^{2 pi i f t} (X + iP)."""
    out = np.empty_like(mean)
    for k, f in enumerate(rotation):
        # the phase modulo one turn keeps its accuracy over long records
        phase = 2 * np.pi * np.mod(f * times, 1.0)
        z = (mean[:, 2 * k] + 1j * mean[:, 2 * k + 1]) * np.exp(1j * phase)
        out[:, 2 * k], out[:, 2 * k + 1] = z.real, z.imag
    return out


def growing(
    experiment: Experiment, record: Record, calibration: Calibration, rotation_hz: float
) -> tuple[Array, Array, Array]:
    """Conditional state while a record grows from nothing: the exact time-varying filter from the unconditional state.

    Returns times (T,), means (T, 2k) rotated by the sign of each mode's frequency times `rotation_hz`, and lab-frame
    covariances (T, 2k, 2k) of the reported modes.
    """
    found = track(experiment, record, calibration, "lab", 1)
    signs = np.sign(mode_frequencies(experiment.system, experiment.reported_modes()))
    return found.times_s, rotated(found.mean, found.times_s, tuple(signs * rotation_hz)), found.covariances()


def _packed(array: Array) -> dict[str, Any]:
    a = np.ascontiguousarray(array)
    return {"dtype": a.dtype.str, "shape": list(a.shape), "data": base64.b64encode(a.tobytes()).decode()}


def _unpacked(saved: Mapping[str, Any]) -> Array:
    data = np.frombuffer(base64.b64decode(saved["data"]), dtype=np.dtype(saved["dtype"]))
    return data.reshape(saved["shape"]).copy()


__all__ = ["Currents", "Demodulation", "Track", "Tracker", "currents", "load_track", "track"]
