"""Records of any experiment, with the same exactness as the filter: seeded samples and, on request, the true paths."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backaction import steady
from backaction.errors import InputError
from backaction.experiment import Experiment
from backaction.matrices import Array
from backaction.records import Record, Sampling
from backaction.response import VACUUM
from backaction.sampling import discretise, lowpassed, scan

VOLT_DENSITY = 2.0e-10
"""Two-sided density, V^2/Hz, that one shot-noise unit has in simulated records."""


@dataclass(frozen=True, eq=False)
class Simulation:
    """A simulated record and, if asked for, the true state at the end of every interval (T, 2k)."""

    record: Record
    modes: tuple[str, ...]
    paths: Array | None
    seed: int


def simulate(
    experiment: Experiment,
    duration_s: float,
    sample_rate_hz: float,
    seed: int,
    sampling: Sampling = "average",
    paths: bool = False,
    front_end_hz: tuple[float, ...] = (),
) -> Simulation:
    """Draw a record from the exact sampled model, started in the unconditional steady state.

    The joint Gaussian noise of state and current over each interval has exactly the covariance of `discretise`.

    Raises
    ------
    InputError
        For a duration or rate that is not positive, or several currents.
    ModelError
        If the experiment has no steady state.
    """
    size = _samples(duration_s, sample_rate_hz)
    if seed < 0:
        raise InputError(f"seed = {seed}: must be >= 0")
    system = experiment.system
    if len(system.currents) != 1:
        raise InputError(f"{experiment.name}: simulate needs exactly one detected current, has {list(system.currents)}")
    for corner in front_end_hz:
        system = lowpassed(system, corner)
    model = discretise(system, sample_rate_hz, sampling)
    n = model.F.shape[-1]
    rng = np.random.default_rng(seed)
    joint = np.block([[model.Q, model.N], [model.N.T, model.R]])
    root = _root(joint)
    x = _root(steady.unconditional(system)) @ rng.standard_normal(n) if n else np.zeros(0)
    index = system.indices(experiment.reported_modes())
    y = np.empty(size)
    track = np.empty((size, len(index))) if paths else None
    step = 1 << 20
    for start in range(0, size, step):
        count = min(step, size - start)
        noise = rng.standard_normal((count, n + 1)) @ root.T
        states, x = scan(model.F, noise[:, :n], x)
        y[start : start + count] = states @ model.H[0] + noise[:, n]
        if track is not None:
            ends = np.concatenate([states[1:], x[None]])
            track[start : start + count] = ends[:, index]
    volts = np.sqrt(VOLT_DENSITY / VACUUM)
    metadata = {"seed": seed, "experiment": experiment.name}
    name = f"{experiment.name} (simulated)"
    record = Record(y * volts, sample_rate_hz, sampling, "V", front_end_hz=front_end_hz, name=name, metadata=metadata)
    return Simulation(record, experiment.reported_modes(), track, seed)


def reference(
    kind: str,
    experiment: Experiment,
    duration_s: float,
    sample_rate_hz: float,
    seed: int,
    sampling: Sampling = "average",
) -> Record:
    """A `shot` record (vacuum and electronics) or a `dark` record (electronics alone) of the same detector, no front end."""
    electronic = float(np.real(experiment.detectors()[0].electronic_noise_sn)) if experiment.detectors() else 0.0
    levels = {"shot": 1.0 + electronic, "dark": electronic}
    if kind not in levels:
        raise InputError(f"reference record '{kind}': must be 'shot' or 'dark'")
    size = _samples(duration_s, sample_rate_hz)
    rng = np.random.default_rng([seed, {"shot": 1, "dark": 2}[kind]])
    y = rng.standard_normal(size) * np.sqrt(levels[kind] * VOLT_DENSITY * sample_rate_hz)
    return Record(y, sample_rate_hz, sampling, "V", name=f"{kind} (simulated)", metadata={"seed": seed})


def _samples(duration_s: float, sample_rate_hz: float) -> int:
    if not (np.isfinite(sample_rate_hz) and sample_rate_hz > 0):
        raise InputError(f"sample rate {sample_rate_hz} Hz: must be > 0")
    if not (np.isfinite(duration_s) and duration_s * sample_rate_hz >= 2):
        raise InputError(f"duration {duration_s} s: gives fewer than two samples at {sample_rate_hz:g} Hz")
    return round(duration_s * sample_rate_hz)


def _root(V: Array) -> Array:
    w, U = np.linalg.eigh(V)
    return U * np.sqrt(np.clip(w, 0.0, None))
