"""Conditional trajectories: the steady filter of the sampled model, run over a record.

    x^_{k+1} = F x^_k + K (y_k - H x^_k),    mean[k] = x^_{k+1}: the state at time t_0 + (k+1)/f_s given y_0 .. y_k

The loop is a product of block matrices: within a block of L samples the innovations are a lower-triangular Toeplitz
matrix times the samples plus a term of the state at the block's start, and the starts follow a short recursion.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from backaction._version import __version__
from backaction.errors import InputError
from backaction.experiment import Experiment
from backaction.files import replacing
from backaction.matrices import Array
from backaction.records import Record
from backaction.response import VACUUM
from backaction.sampling import SteadyFilter, discretise, scan, steady_filter
from backaction.shot_noise import Calibration
from backaction.state import GaussianState
from backaction.steady import unconditional
from backaction.system import LinearSystem

FrameName = Literal["lab", "rotating"]
_NUMBERS = (
    "time_start_s", "time_step_s", "sample_rate_hz", "record_start_s", "memory_s", "innovation_variance_sn"
)  # fmt: skip
_BLOCK = 64
SCHEMA = "backaction/track/1"
_CHUNK = 1 << 20


@dataclass(frozen=True, eq=False)
class Track:
    """A tracked conditional state.

    `mean` (T, 2k) over the reported modes at times `time_start_s` + i `time_step_s`; `covariance` (2k, 2k), constant in
    the lab frame; `innovation` (samples,) in square-root shot-noise units: its variance should be
    `innovation_variance_sn`. In the rotating frame mode j is turned by +2 pi `rotation_hz[j]` t.
    """

    mean: Array
    covariance: Array
    innovation: Array
    innovation_variance_sn: float
    modes: tuple[str, ...]
    frame: FrameName
    rotation_hz: tuple[float, ...]
    time_start_s: float
    time_step_s: float
    sample_rate_hz: float
    record_start_s: float
    memory_s: float
    provenance: dict[str, Any] = field(default_factory=dict)

    def save(self, path: str | Path) -> None:
        """Write to HDF5 (to a temporary name, then renamed); `load_track` reads it back exactly."""
        import h5py

        if Path(path).suffix.lower() not in (".h5", ".hdf5"):
            raise InputError(f"{path}: tracks are written as HDF5; name it *.h5")
        with replacing(path) as temporary, h5py.File(temporary, "w") as file:
            file["mean"], file["covariance"], file["innovation"] = self.mean, self.covariance, self.innovation
            a = file.attrs
            a["schema"], a["version"], a["frame"] = SCHEMA, __version__, self.frame
            a["modes"], a["rotation_hz"] = list(self.modes), np.array(self.rotation_hz)
            for key in _NUMBERS:
                a[key] = getattr(self, key)
            for key, value in self.provenance.items():
                a[key] = value

    @property
    def times_s(self) -> Array:
        """Times of the means."""
        return self.time_start_s + self.time_step_s * np.arange(len(self.mean))

    @property
    def state(self) -> GaussianState:
        """The conditional state about the mean (lab frame)."""
        return GaussianState(self.covariance, self.modes)


def sampled_filter(system: LinearSystem, record: Record) -> SteadyFilter:
    """The steady filter of `system` for the rate and sampling rule of `record`.

    Raises
    ------
    InputError
        If the record is complex, or the system has not exactly one current.
    """
    if record.shots > 1:
        raise InputError(f"{record.name}: {record.shots} shots; tracking takes one continuous record")
    if record.is_complex:
        raise InputError(f"{record.name}: complex (demodulated) records cannot be tracked yet; give the raw current")
    if len(system.currents) != 1:
        raise InputError(f"tracking needs exactly one detected current, the experiment has {list(system.currents)}")
    return steady_filter(discretise(system, *record.digitiser))


def mode_frequencies(system: LinearSystem, modes: tuple[str, ...]) -> Array:
    """Signed frequency in Hz of the pole that lives mostly in each mode; negative for a negative mass."""
    values, vectors = np.linalg.eig(system.A)
    out = []
    for name in modes:
        where = system.mode(name)
        share = np.sum(np.abs(vectors[where]) ** 2, axis=0) / np.sum(np.abs(vectors) ** 2, axis=0)
        pole = values[int(np.argmax(share))]
        sign = np.sign(system.A[where.start, where.start + 1] - system.A[where.start + 1, where.start])
        out.append(float(sign * abs(pole.imag) / (2 * np.pi)))
    return np.array(out)


def track(
    experiment: Experiment,
    record: Record,
    calibration: Calibration,
    frame: FrameName = "rotating",
    every: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> Track:
    """Filter a record, its mean removed, with the steady Kalman gain of the experiment's sampled model.

    Parameters
    ----------
    calibration
        The density of 1 SN in the record's unit (`records.calibrate`).
    frame
        `rotating`: each mode turned by its sign times the modes' mean frequency; `lab`: as they are.
    every
        Keep every N-th mean; default 1 in the lab frame, and in the rotating frame what the filter's bandwidth needs.
    progress
        Called with the fraction done.

    Raises
    ------
    InputError
        For missing samples (gaps, NaN): the steady gain does not hold across them.
    ModelError
        If the model has no steady filter.
    """
    system = experiment.system
    modes = experiment.reported_modes()
    steady = sampled_filter(system, record)
    index = system.indices(modes)
    frequencies = mode_frequencies(system, modes)
    reference = float(np.mean(np.abs(frequencies)))
    rotation = tuple(float(np.sign(f) * reference) for f in frequencies)
    step = (
        every if every is not None else (1 if frame == "lab" else _decimation(steady, reference, record.sample_rate_hz))
    )
    if step < 1 or step > record.size:
        raise InputError(f"every = {step}: must be between 1 and the {record.size} samples of the record")
    kernel = _Kernel(steady)
    gain = np.sqrt(VACUUM / calibration.density)
    level = mean_level(record)
    means: list[Array] = []
    innovation = np.empty(record.size, dtype=np.float32)
    x = np.zeros(steady.model.F.shape[-1])
    for start, values in record.chunks(_CHUNK):
        wanted = np.arange(-(-(start + 1) // step) * step, start + len(values) + 1, step) - start
        e, states, x = kernel.run((values - level) * gain, x, wanted)
        innovation[start : start + len(values)] = e
        means.append(states[:, index])
        if progress:
            progress((start + len(values)) / record.size)
    mean = np.concatenate(means)
    h = 1 / record.sample_rate_hz
    first = record.start_s + step * h
    if frame == "rotating":
        mean = _rotate(mean, first + step * h * np.arange(len(mean)), rotation)
    P = steady.covariance[np.ix_(index, index)]
    unit = h / VACUUM
    innovation *= np.float32(np.sqrt(unit))
    variance = float(steady.innovation[0, 0]) * unit
    return Track(
        mean, P, innovation, variance, modes, frame, rotation, first, step * h,
        record.sample_rate_hz, record.start_s, steady.memory_s, {"mean_removed": level, "unit": record.unit},
    )  # fmt: skip


def load_track(path: str | Path) -> Track:
    """Read a track written by `Track.save`."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            a = dict(file.attrs)
            if a.pop("schema", None) != SCHEMA:
                raise InputError(f"{path}: not a track file (schema is not {SCHEMA})")
            version = a.pop("version")
            numbers = {k: float(a.pop(k)) for k in _NUMBERS}
            modes = tuple(str(m) for m in a.pop("modes"))
            rotation = tuple(float(r) for r in a.pop("rotation_hz"))
            frame = str(a.pop("frame"))
            rest = {k: (v.item() if isinstance(v, np.generic) else v) for k, v in a.items()} | {"version": version}
            return Track(
                file["mean"][...], file["covariance"][...], file["innovation"][...], modes=modes, rotation_hz=rotation,
                frame=frame, provenance=rest, **numbers,  # type: ignore[arg-type]
            )  # fmt: skip
    except OSError:
        raise InputError(f"{path}: not a readable HDF5 file") from None


class _Kernel:
    """Block matrices of one filter."""

    def __init__(self, steady: SteadyFilter, block: int = _BLOCK) -> None:
        F, K, H = steady.closed_loop, steady.gain[:, 0], steady.model.H[0]
        n = len(K)
        powers = [np.eye(n)]
        for _ in range(block):
            powers.append(F @ powers[-1])
        impulse = np.stack([p @ K for p in powers[:block]])  # response of x_{j+1} to y_0
        self.block, self.n = block, n
        self.powers = np.stack(powers)
        self.jump = powers[block]
        self.to_end = impulse[::-1].T.copy()
        # x_r = F^r x_0 + sum_{j<r} F^{r-1-j} K y_j
        self.to_state = np.zeros((block + 1, n, block))
        for r in range(1, block + 1):
            self.to_state[r, :, :r] = impulse[:r][::-1].T
        self.observe = np.einsum("i,rij->rj", H, self.powers[:block])
        self.toeplitz = np.eye(block) - np.einsum("i,rij->rj", H, self.to_state[:block])

    def run(self, y: Array, x: Array, wanted: Array) -> tuple[Array, Array, Array]:
        """Innovations of y, the states x_k at the `wanted` sample counts, and the final state, from state x."""
        L, n = self.block, self.n
        blocks = -(-len(y) // L)
        padded = np.zeros(blocks * L)
        padded[: len(y)] = y
        Y = padded.reshape(blocks, L)
        starts, _ = scan(self.jump, Y @ self.to_end.T, x)
        innovation = (Y @ self.toeplitz.T - starts @ self.observe.T).reshape(-1)[: len(y)]
        states = np.empty((len(wanted), n))
        b, r = np.divmod(wanted, L)
        b, r = np.where(b == blocks, b - 1, b), np.where(b == blocks, L, r)
        for offset in np.unique(r):
            pick = r == offset
            states[pick] = starts[b[pick]] @ self.powers[offset].T + Y[b[pick]] @ self.to_state[offset].T
        size = len(y) - (blocks - 1) * L
        final = self.powers[size] @ starts[-1] + self.to_state[size] @ Y[-1]
        return innovation, states, final


def mean_level(record: Record) -> float:
    """Mean of the record, which no model here describes (detector offset): it is removed, and said so.

    Raises
    ------
    InputError
        At the first missing sample: the steady gain does not hold across gaps.
    """
    total = 0.0
    for start, values in record.chunks(_CHUNK):
        if not np.all(np.isfinite(values)):
            at = start + int(np.flatnonzero(~np.isfinite(values))[0])
            raise InputError(f"{record.name}: sample {at} is missing; tracking through gaps is not available yet")
        total += float(np.sum(values))
    return total / record.size


def _decimation(steady: SteadyFilter, reference_hz: float, rate_hz: float) -> int:
    """Largest power of two that keeps 16 samples per period of the filter's bandwidth about the modes' frequency."""
    poles = np.log(np.linalg.eigvals(steady.closed_loop).astype(complex)) * rate_hz / (2 * np.pi)
    near = np.abs(np.abs(poles.imag) - reference_hz) < 0.3 * reference_hz
    if not np.any(near):
        return 1
    width = np.max(np.abs(poles[near].real) + np.abs(np.abs(poles[near].imag) - reference_hz))
    return 1 << max(0, int(np.floor(np.log2(rate_hz / (16 * width)))))


def _rotate(mean: Array, times: Array, rotation: tuple[float, ...]) -> Array:
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
    covariances (T, 2k, 2k) of the reported modes. A plain loop, for short records.
    """
    system = experiment.system
    index = system.indices(experiment.reported_modes())
    m = discretise(system, *record.digitiser)
    n = m.F.shape[-1]
    P = np.zeros((n, n))
    size = system.A.shape[-1]
    P[:size, :size] = unconditional(system)
    x = np.zeros(n)
    means, covariances = [], []
    for y in record.values() * np.sqrt(VACUUM / calibration.density):
        S = m.H @ P @ m.H.T + m.R
        K = (m.F @ P @ m.H.T + m.N) / S
        x = m.F @ x + K[:, 0] * (y - (m.H @ x)[0])
        P = m.F @ P @ m.F.T + m.Q - K @ S @ K.T
        means.append(x[index])
        covariances.append(P[np.ix_(index, index)])
    times = record.start_s + np.arange(1, record.size + 1) / record.sample_rate_hz
    signs = np.sign(mode_frequencies(system, experiment.reported_modes()))
    return times, _rotate(np.array(means), times, tuple(signs * rotation_hz)), np.array(covariances)
