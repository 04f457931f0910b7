"""Records of any experiment, with the same exactness as the filter: seeded samples and, on request, the true paths.

The joint Gaussian noise of state and currents over each interval has exactly the covariance of `systems.sampled.discretise`.
The random numbers of each block of 2^16 samples have a seed of their own, so that blocks are drawn in parallel and the
record does not depend on how it is taken.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from backaction.constants import TWO_PI
from backaction.errors import InputError
from backaction.experiment.experiment import Experiment
from backaction.numerics.matrices import Array, scaled_root
from backaction.numerics.matrix_equations import discrete_lyapunov
from backaction.numerics.recursion import Recursion
from backaction.records.record import Record, Sink
from backaction.states.gaussian import GaussianState
from backaction.systems.response import VACUUM
from backaction.systems.sampled import Digitiser, SampledModel, Sampling, discretise, white_noise
from backaction.systems.steady import unconditional
from backaction.workers import listener

VOLT_DENSITY = 2.0e-10
"""Two-sided density, V^2/Hz, that one shot-noise unit has in simulated records."""
_BLOCK = 1 << 16
_AHEAD = 4


@dataclass(frozen=True)
class Adc:
    """An analogue-to-digital converter: two's complement counts of `bits` over +- `full_scale_v`; beyond them it clips."""

    bits: int = 16
    full_scale_v: float = 1.0

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 32:
            raise InputError(f"ADC of {self.bits} bits: must be from 2 to 32")
        if not (np.isfinite(self.full_scale_v) and self.full_scale_v > 0):
            raise InputError(f"ADC of full scale {self.full_scale_v} V: must be > 0")

    @property
    def step_v(self) -> float:
        """Volts per count."""
        return self.full_scale_v / 2.0 ** (self.bits - 1)

    @property
    def limits(self) -> tuple[float, float]:
        """Lowest and highest count."""
        half = 2.0 ** (self.bits - 1)
        return -half, half - 1

    @property
    def dtype(self) -> np.dtype[Any]:
        """Smallest integer type that holds the counts."""
        return np.dtype(np.int8 if self.bits <= 8 else np.int16 if self.bits <= 16 else np.int32)

    def counts(self, volts: Array) -> Array:
        """Rounded and clipped counts."""
        return np.clip(np.rint(volts / self.step_v), *self.limits).astype(self.dtype)


@dataclass(frozen=True, eq=False)
class Simulation:
    """Simulated records, one for each current (none where a sink took the samples), and the true paths.

    `paths` (T, 2k), if asked for: the state at the end of every interval.
    """

    records: tuple[Record, ...]
    modes: tuple[str, ...]
    paths: Array | None
    seed: int

    @property
    def record(self) -> Record:
        """The record of the (first) current."""
        return self.records[0]


def simulate(
    experiment: Experiment,
    duration_s: float,
    sample_rate_hz: float,
    seed: int,
    sampling: Sampling = "average",
    paths: bool | int = False,
    front_end_hz: tuple[float, ...] = (),
    *,
    reference_hz: float | None = None,
    start: GaussianState | None = None,
    schedule: Sequence[tuple[float, Experiment]] = (),
    adc: Adc | None = None,
    sink: Sink | None = None,
    progress: Callable[..., None] | None = None,
) -> Simulation:
    """Draw records from the exact sampled model.

    Parameters
    ----------
    paths
        Keep the true paths of the reported modes, or every N-th of their samples (N, 2N, ...: a track's times); the
        record is the same without.
    front_end_hz, reference_hz
        Low-passes before the digitiser; with a reference the record is complex, z = lowpass(y e^{-2 pi i f t}).
    start
        State of some modes at time 0 (the others unconditional, uncorrelated); default all unconditional.
    schedule
        (time, experiment): parameters that hold from then on; a drift is many of them.
    adc, sink
        Counts instead of volts; what takes samples chunk by chunk instead of memory (`formats.hdf5.RecordFile`).

    Raises
    ------
    InputError
        For a duration, rate, seed or schedule that makes no sense.
    ModelError
        Without a steady state to start from.
    """
    size = _samples(duration_s, sample_rate_hz)
    digitiser = Digitiser(sample_rate_hz, sampling, front_end_hz, reference_hz)
    _drawable(experiment, seed, adc, reference_hz, sink)
    models = _models(experiment, schedule, digitiser)
    q = len(models[0][1].R) // (2 if reference_hz is not None else 1)
    index, say = experiment.view.index, listener(progress, "part")
    kind = adc.dtype if adc is not None else np.dtype(complex if reference_hz is not None else float)
    y = np.empty((0 if sink else size, q), dtype=kind)
    track = np.empty((size // int(paths), len(index))) if paths else None
    for at, values, states in _drawn(
        models, _start(experiment, models[0][1], start), size, seed, index if paths else []
    ):
        out = _stored(values, at, digitiser, adc)
        if sink is not None:
            sink.write(at, out[:, 0])
        else:
            y[at : at + len(out)] = out
        _keep(track, states, at, int(paths))
        say("drawing the record", (at + len(out)) / size)
    records = _records(experiment, y, digitiser, adc, seed) if sink is None else ()
    return Simulation(records, experiment.reported_modes(), track, seed)


def _keep(track: Array | None, states: Array, at: int, step: int) -> None:
    """Every step-th state of a block that begins at sample `at`, in its place; None keeps none."""
    if track is None:
        return
    low, high = at // step, (at + len(states)) // step
    track[low:high] = states[(low + 1) * step - 1 - at :: step][: high - low]


def _drawable(
    experiment: Experiment, seed: int, adc: Adc | None, reference_hz: float | None, sink: Sink | None
) -> None:
    if seed < 0:
        raise InputError(f"seed = {seed}: must be >= 0")
    if not experiment.system.currents:
        raise InputError(f"{experiment.name}: nothing is detected (add a homodyne)")
    if adc is not None and reference_hz is not None:
        raise InputError("an ADC samples a real current: leave out the reference")
    if sink is not None and len(experiment.system.currents) > 1:
        raise InputError(f"{experiment.name}: a sink takes one current, there are {list(experiment.system.currents)}")


def _records(experiment: Experiment, y: Array, digitiser: Digitiser, adc: Adc | None, seed: int) -> tuple[Record, ...]:
    """A record for each current of the samples y (T, q)."""
    currents = experiment.system.currents
    names = [experiment.name] if len(currents) == 1 else [f"{experiment.name} {c}" for c in currents]
    more: dict[str, Any] = {
        "front_end_hz": digitiser.front_end_hz,
        "reference_hz": digitiser.reference_hz,
        "metadata": {"seed": seed, "experiment": experiment.name},
    }
    if adc is not None:
        more |= {"scale": adc.step_v, "limits": adc.limits}
    return tuple(
        Record(
            np.ascontiguousarray(y[:, j]),
            digitiser.sample_rate_hz,
            digitiser.sampling,
            "V",
            name=f"{name} (simulated)",
            **more,
        )
        for j, name in enumerate(names)
    )


def _models(
    experiment: Experiment, schedule: Sequence[tuple[float, Experiment]], digitiser: Digitiser
) -> list[tuple[int, SampledModel]]:
    out = [(0, discretise(experiment.system, *digitiser))]
    for at_s, changed in schedule:
        model = discretise(changed.system, *digitiser)
        if model.F.shape != out[0][1].F.shape:
            raise InputError(f"schedule at {at_s:g} s: another number of states than the experiment's own")
        sample = round(at_s * digitiser.sample_rate_hz)
        if sample == 0 and len(out) == 1:
            out = [(0, model)]
        elif sample <= out[-1][0]:
            raise InputError(f"schedule at {at_s:g} s: times must be positive and rise")
        else:
            out.append((sample, model))
    return out


def _start(experiment: Experiment, model: SampledModel, start: GaussianState | None) -> Array:
    """Root of the covariance of the model's states at time 0."""
    system = experiment.system
    V = unconditional(system)
    n, k = len(model.F), len(V)
    P = discrete_lyapunov(model.F, model.Q) if n > k else np.zeros((n, n))
    P[:k, :k] = V
    if start is not None:
        index = system.indices(start.modes)
        P[index, :] = P[:, index] = 0.0
        P[np.ix_(index, index)] = start.to().covariance
    return scaled_root(P)


def _drawn(
    models: list[tuple[int, SampledModel]], root: Array, size: int, seed: int, index: list[int]
) -> Iterator[tuple[int, Array, Array]]:
    """(first sample, currents (T, q), read states after each sample (T, len(index))) of consecutive blocks."""
    n, q = len(root), len(models[0][1].R)
    read = np.zeros((len(index), n))
    read[np.arange(len(index)), index] = 1.0
    kernels = []
    for _, m in models:
        W = scaled_root(np.block([[m.Q, m.N], [m.N.T, m.R]]))
        B, D = W[:n], W[n:]
        outputs = [(m.H, D), (read @ m.F, read @ B)] if index else [(m.H, D)]
        kernels.append(Recursion(m.F, B, outputs))
    starts = [s for s, _ in models]
    x = root @ np.random.default_rng([seed, 0]).standard_normal(n)
    with ThreadPoolExecutor(2) as pool:
        waiting: deque[Future[Array]] = deque()
        blocks = range(-(-size // _BLOCK))
        for b in blocks:
            while len(waiting) < _AHEAD and b + len(waiting) in blocks:
                waiting.append(pool.submit(_normal, seed, b + len(waiting), n + q))
            noise = waiting.popleft().result()
            first, stop = b * _BLOCK, min(size, (b + 1) * _BLOCK)
            edges = [first, *(s for s in starts if first < s < stop), stop]
            y, states = np.empty((stop - first, q)), np.empty((stop - first, len(index)))
            for a, c in itertools.pairwise(edges):
                kernel = kernels[int(np.searchsorted(starts, a, side="right")) - 1]
                part = slice(a - first, c - first)
                x = kernel.run(noise[part], x, [y[part], states[part]] if index else [y[part]])
            yield first, y, states


def _normal(seed: int, block: int, width: int) -> Array:
    return np.random.default_rng([seed, 1 + block]).standard_normal((_BLOCK, width))


def reference(
    kind: str,
    experiment: Experiment,
    duration_s: float,
    sample_rate_hz: float,
    seed: int,
    sampling: Sampling = "average",
    front_end_hz: tuple[float, ...] = (),
    reference_hz: float | None = None,
    adc: Adc | None = None,
) -> Record:
    """A `shot` record (vacuum and electronics) or a `dark` record (electronics alone) of the same detector, taken alike."""
    electronic = experiment.electronic_noise_sn
    levels = {"shot": 1.0 + electronic, "dark": electronic}
    if kind not in levels:
        raise InputError(f"reference record '{kind}': must be 'shot' or 'dark'")
    size = _samples(duration_s, sample_rate_hz)
    digitiser = Digitiser(sample_rate_hz, sampling, front_end_hz, reference_hz)
    model = discretise(white_noise(levels[kind]), *digitiser)
    root = scaled_root(discrete_lyapunov(model.F, model.Q)) if len(model.F) else np.zeros((0, 0))
    own_seed = seed + (1 << 40) * (1 + list(levels).index(kind))
    out = np.empty(size, dtype=adc.dtype if adc else complex if reference_hz is not None else float)
    for at, values, _ in _drawn([(0, model)], root, size, own_seed, []):
        out[at : at + len(values)] = _stored(values, at, digitiser, adc)[:, 0]
    more: dict[str, Any] = {"front_end_hz": front_end_hz, "reference_hz": reference_hz, "metadata": {"seed": seed}}
    if adc is not None:
        more |= {"scale": adc.step_v, "limits": adc.limits}
    return Record(out, sample_rate_hz, sampling, "V", name=f"{kind} (simulated)", **more)


def _stored(values: Array, first: int, digitiser: Digitiser, adc: Adc | None) -> Array:
    """Currents as samples: in volts, turned back to the lock-in's output, counted."""
    values = values * np.sqrt(VOLT_DENSITY / VACUUM)
    if digitiser.reference_hz is not None:
        t = (first + 1 + np.arange(len(values))) / digitiser.sample_rate_hz
        turn = np.exp(-1j * TWO_PI * np.mod(digitiser.reference_hz * t, 1.0))
        values = (values[:, 0::2] + 1j * values[:, 1::2]) * turn[:, None]
    return values if adc is None else adc.counts(values)


def ramp(
    experiment: Experiment, drifts: Sequence[tuple[str, float, float]], duration_s: float, steps: int = 100
) -> list[tuple[float, Experiment]]:
    """Schedule of fields that go linearly from one value to another in `steps` steps: (field, from, to)."""
    if not drifts:
        return []
    out = []
    for i in range(steps):
        part = (i + 0.5) / steps
        out.append((duration_s * i / steps, experiment.with_values({f: a + part * (b - a) for f, a, b in drifts})))
    return out


def _samples(duration_s: float, sample_rate_hz: float) -> int:
    if not (np.isfinite(sample_rate_hz) and sample_rate_hz > 0):
        raise InputError(f"sample rate {sample_rate_hz} Hz: must be > 0")
    if not (np.isfinite(duration_s) and duration_s * sample_rate_hz >= 2):
        raise InputError(f"duration {duration_s} s: gives fewer than two samples at {sample_rate_hz:g} Hz")
    return round(duration_s * sample_rate_hz)
