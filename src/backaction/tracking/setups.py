"""What a track is made with: models in time, what is read out and how often, the state at the start."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from backaction.errors import InputError, ModelError, nearest
from backaction.experiment.experiment import Experiment
from backaction.numerics.matrices import Array, scaled_root, symmetric
from backaction.numerics.matrix_equations import discrete_lyapunov
from backaction.records.record import Record
from backaction.states.gaussian import GaussianState
from backaction.systems.linear import LinearSystem
from backaction.systems.poles import mode_frequencies
from backaction.systems.response import VACUUM
from backaction.systems.sampled import SampledModel, SteadyFilter, discretise, steady_filter
from backaction.systems.steady import unconditional
from backaction.tracking.inputs import Currents
from backaction.tracking.kalman import FilterPlan, Stage, State
from backaction.tracking.tracks import FrameName

_TURNS = 12
Start = Literal["unconditional", "steady"] | GaussianState
Schedule = Sequence[tuple[float, Experiment]]


def sampled_filter(system: LinearSystem, record: Record) -> SteadyFilter:
    """The steady filter of `system` for the rate and sampling rule of `record`.

    Raises
    ------
    ModelError
        If there is none.
    """
    return steady_filter(discretise(system, *record.digitiser))


@dataclass(frozen=True, eq=False)
class Setup:
    """Everything that a track is made with: models in time, inputs, what is read out and in which frame."""

    experiment: Experiment
    modes: tuple[str, ...]
    currents: Currents
    schedule: list[tuple[int, SampledModel]]
    plan: FilterPlan
    frame: FrameName
    rotation_hz: tuple[float, ...]
    state: State
    _phases: dict[float, Array] = field(default_factory=dict, repr=False)

    @property
    def fingerprint(self) -> str:
        """Tells one setup from another: models, scale and readout."""
        parts = [self.plan.read, self.currents.gain, self.currents.offset]
        parts += [getattr(m, k) for _, m in self.schedule for k in ("F", "H", "Q", "N", "R")]
        own = [self.frame, self.rotation_hz, [s for s, _ in self.schedule], self.currents.factor]
        plan = self.plan
        own += [plan.every, plan.ahead, plan.single, plan.square_root, plan.likelihood]
        digest = hashlib.sha256(repr(own).encode())
        for part in parts:
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()

    @property
    def innovation_variance_sn(self) -> float:
        """Predicted variance of the (first) whitened innovation, shot-noise units; NaN without a steady filter."""
        steady = self.schedule[0][1].steady
        return float("nan") if steady is None else float(steady.innovation[0, 0]) * self.currents.interval_s / VACUUM

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
        if not len(mean):
            return mean
        # phases are products of one for each 2^12 rows (and the record's start) and one within them, at fixed places: cheap,
        # the same however the record is cut, and exact for a start at 1.7e9 s (a date)
        blocks = np.arange(row >> _TURNS, ((row + len(mean) - 1) >> _TURNS) + 1)
        out = np.empty_like(mean)
        known: dict[float, Array] = {}
        for k, f in enumerate(self.rotation_hz):
            if abs(f) not in known:
                start = np.mod(abs(f) * self.first_s, 1.0) + np.mod(abs(f) * self.step_s * (blocks << _TURNS), 1.0)
                phase = np.exp(2j * np.pi * start)[:, None] * self._table(abs(f))
                known[abs(f)] = phase.reshape(-1)[row - (int(blocks[0]) << _TURNS) :][: len(mean)]
            z = (mean[:, 2 * k] + 1j * mean[:, 2 * k + 1]) * (known[abs(f)] if f >= 0 else np.conj(known[abs(f)]))
            out[:, 2 * k], out[:, 2 * k + 1] = z.real, z.imag
        return out

    def _table(self, frequency_hz: float) -> Array:
        """e^{2 pi i f t} of the first 2^12 rows, made once."""
        if frequency_hz not in self._phases:
            turns = np.mod(frequency_hz * self.step_s * np.arange(1 << _TURNS), 1.0)
            self._phases[frequency_hz] = np.exp(2j * np.pi * turns)
        return self._phases[frequency_hz]


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
    likelihood: bool = True,
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
    _trackable(experiment, chosen, frame)
    switches, at_start = _switches(experiment, inputs, schedule)
    n, index = switches[0][1].F.shape[-1], system.indices(chosen)
    read = np.zeros((len(index), n))
    read[np.arange(len(index)), index] = 1.0
    frequencies = mode_frequencies(system, chosen)
    reference = float(np.mean(np.abs(frequencies)))
    rotation = tuple(float(np.sign(f) * reference) for f in frequencies)
    steady = Stage(switches[0][1], FilterPlan(read)).steady
    step = every if every is not None else (1 if frame == "lab" or steady is None else _decimation(steady, reference))
    if step < 1 or step != int(step):
        raise InputError(f"every = {step}: must be a whole number >= 1")
    if not (np.isfinite(ahead_s) and ahead_s >= 0):
        raise InputError(f"ahead_s = {ahead_s:g}: must be >= 0")
    ahead = round(ahead_s / inputs.interval_s)
    scale, offset = inputs.affine
    plan = FilterPlan(read, int(step), scale, offset, ahead, single, square_root, likelihood)
    state = _start(at_start, switches[0][1], start)
    if square_root and not state.settled:  # a settled filter keeps the covariance itself
        state.P = scaled_root(state.P)
    return Setup(experiment, chosen, inputs, switches, plan, frame, rotation, state)


def _trackable(experiment: Experiment, modes: Sequence[str], frame: FrameName) -> None:
    system = experiment.system
    if not modes:
        raise InputError(f"{experiment.name}: no mode to track")
    for m in modes:
        if m not in {x.name for x in system.modes}:
            raise InputError(f"no mode '{m}'{nearest(m, [x.name for x in system.modes])}")
        if frame == "rotating" and system.mode(m).stop - system.mode(m).start != 2:
            raise InputError(f"mode '{m}' has no pair of quadratures to rotate: track it in the lab frame")


def _switches(
    experiment: Experiment, inputs: Currents, schedule: Schedule
) -> tuple[list[tuple[int, SampledModel]], Experiment]:
    """(first sample, model) of every stretch of a schedule, and the experiment that holds at the start."""
    model = inputs.model(experiment.system)
    switches, at_start = [(0, model)], experiment
    for at_s, changed in schedule:
        if not np.isfinite(at_s):
            raise InputError(f"schedule at {at_s} s: must be finite")
        sample = round((at_s - inputs.start_s) / inputs.interval_s)
        other = inputs.model(changed.system)
        if other.F.shape != model.F.shape:
            raise InputError(f"schedule at {at_s:g} s: another number of states than the experiment's own")
        if sample <= switches[-1][0]:
            if sample == 0 and len(switches) == 1:
                switches[0], at_start = (0, other), changed
                continue
            raise InputError(f"schedule at {at_s:g} s: times must rise from the record's start at {inputs.start_s:g} s")
        switches.append((sample, other))
    return switches, at_start


def _start(experiment: Experiment, model: SampledModel, start: Start) -> State:
    """Mean zero and the covariance that `start` says, of the model's states (front end included)."""
    system = experiment.system
    n, k = model.F.shape[-1], system.A.shape[-1]
    if isinstance(start, str) and start == "steady":
        return State(np.zeros(n), steady_filter(model).covariance, settled=True)
    if isinstance(start, str) and start != "unconditional":
        raise InputError(f"start = '{start}': must be unconditional, steady or a GaussianState")
    given = () if isinstance(start, str) else start.modes
    index = system.indices(given)
    stable = np.max(np.abs(np.linalg.eigvals(model.F)), initial=0.0) < 1
    if not stable and (isinstance(start, str) or len(index) < n):
        raise ModelError(
            f"{experiment.name}: unstable, there is no unconditional start; start from 'steady' or a state of all modes"
        )
    P = np.zeros((n, n))
    if stable:
        P = discrete_lyapunov(model.F, model.Q)
        P[:k, :k] = unconditional(system)
    if not isinstance(start, str):
        P[index, :] = P[:, index] = 0.0
        P[np.ix_(index, index)] = start.to().covariance
    return State(np.zeros(n), symmetric(P))


def _decimation(steady: SteadyFilter, reference_hz: float) -> int:
    """Largest power of two that keeps 16 samples per period of the filter's bandwidth about the modes' frequency."""
    rate_hz = 1 / steady.model.interval_s
    poles = np.log(np.linalg.eigvals(steady.closed_loop).astype(complex)) * rate_hz / (2 * np.pi)
    near = np.abs(np.abs(poles.imag) - reference_hz) < 0.3 * reference_hz
    if not np.any(near):
        return 1
    width = np.max(np.abs(poles[near].real) + np.abs(np.abs(poles[near].imag) - reference_hz))
    return 1 << max(0, int(np.floor(np.log2(rate_hz / (16 * width)))))


def rotated(mean: Array, times: Array, rotation: Sequence[float]) -> Array:
    """Each mode (X + iP) -> e^{2 pi i f t} (X + iP)."""
    out = np.empty_like(mean)
    for k, f in enumerate(rotation):
        z = (mean[:, 2 * k] + 1j * mean[:, 2 * k + 1]) * np.exp(2j * np.pi * np.mod(f * times, 1.0))
        out[:, 2 * k], out[:, 2 * k + 1] = z.real, z.imag
    return out
