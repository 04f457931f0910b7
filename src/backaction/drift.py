"""Parameters that wander within a record: found by the innovations' scores, followed as one value per segment.

In segment t the scores of parameters theta are s_t = I_t (theta_t - theta) + noise of covariance I_t
(`consistency.drift_scores`). With a Gaussian prior of the deviations, correlated in time over a time tau and between
parameters by a matrix L,

    cov(theta_t, theta_t') = L exp(-|t - t'|/tau),

their posterior is linear; L and tau are those of largest marginal likelihood (expectation maximisation, and a grid). The
filter is run again with the new values, segment by segment, until they settle: L's off-diagonal elements say how one
drift carries another, as a phase that also changes coupling and detuning.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from backaction import consistency
from backaction.consistency import Test
from backaction.currents import currents
from backaction.errors import InputError, ModelError, nearest
from backaction.experiment import Experiment, unit_bounds
from backaction.matrices import Array, block_diagonal, symmetric
from backaction.monitor import Monitor
from backaction.records import Record
from backaction.setups import setup
from backaction.shot_noise import Calibration
from backaction.tracking import track

Schedule = list[tuple[float, Experiment]]


@dataclass(frozen=True, eq=False)
class Drift:
    """Values (S, k) of the named parameters in each segment with errors, how they move together, tests before and after.

    `wander` (k) is the standard deviation of the drift, `correlation` (k, k) between parameters, `time_s` its correlation
    time. `schedule` makes the filter follow: `track(..., schedule=drift.schedule)`.
    """

    names: tuple[str, ...]
    times_s: Array
    values: Array
    sd: Array
    wander: Array
    correlation: Array
    time_s: float
    schedule: Schedule
    before: tuple[Test, ...]
    after: tuple[Test, ...]

    @property
    def experiments(self) -> list[Experiment]:
        """The experiment of each segment."""
        return [e for _, e in self.schedule]


def follow(
    experiment: Experiment,
    record: Record,
    calibration: Calibration,
    names: Sequence[str],
    segments: int = 20,
    iterations: int = 4,
    progress: Callable[[str], None] | None = None,
) -> Drift:
    """Estimate named parameters in `segments` equal segments of a record.

    Deviations are from the experiment's own values, which should be those fitted to the whole record; their scale starts
    from the priors' standard deviations (a tenth of the value where there is none).

    Raises
    ------
    InputError
        For unknown names, an experiment without a band, or too few samples.
    """
    if experiment.band_hz is None:
        raise InputError(f"{experiment.name}: says no band_hz ([analysis]) whose innovations tell the drift")
    for name in names:
        if name not in experiment.fields():
            raise InputError(f"drift: no parameter '{name}'{nearest(name, experiment.fields())}")
    if segments < 4 or record.size < 4096 * segments:
        raise InputError(
            f"segments = {segments}: must be >= 4, of at least 4096 samples each ({record.size} are there)"
        )
    scale = np.array([_scale(experiment, n) for n in names])
    centre = np.array([float(np.real(experiment.value(n))) for n in names])
    k = len(names)
    step = record.size // segments
    times = record.start_s + (np.arange(segments) + 0.5) * step / record.sample_rate_hz
    delta = np.zeros((segments, k))
    bounds = np.array([unit_bounds(experiment, n)[1:] for n in names], dtype=float)
    low, high = ((bounds - centre[:, None]) / scale[:, None] * (1 - 1e-9)).T
    before: tuple[Test, ...] = ()
    after: tuple[Test, ...] = ()
    posterior = np.eye(segments * k)
    covariance, tau = np.eye(k), 3.0
    for turn in range(iterations + 1):
        delta = np.clip(delta, low, high)
        used = [experiment.with_values(dict(zip(names, (centre + scale * d).tolist(), strict=True))) for d in delta]
        schedule = [(record.start_s + i * step / record.sample_rate_hz, e) for i, e in enumerate(used)]
        if progress:
            progress(f"following {', '.join(names)}: pass {turn + 1}")
        monitor = watch(experiment, record, calibration, segments, schedule if turn else [])
        scores, information = consistency.drift_scores(monitor, used if turn else [experiment], names, record.digitiser)
        after = (
            *consistency.drift_tests(scores, information, names),
            *consistency.innovation_tests(monitor, calibration, experiment.band_hz),
        )
        if turn == 0:
            before = after
        if turn == iterations:
            break
        s, info = scores * scale, information * np.outer(scale, scale)
        new, posterior, covariance, tau = _posterior(delta, s, info)
        moved = float(np.max(np.abs(new - delta) / np.sqrt(np.diag(posterior)).reshape(segments, k)))
        if turn and moved < 0.02:
            break
        delta = new
    sd = np.sqrt(np.diag(posterior)).reshape(segments, k) * scale
    size = np.sqrt(np.diag(covariance))
    return Drift(
        tuple(names), times, centre + scale * delta, sd, size * scale, covariance / np.outer(size, size),
        tau * step / record.sample_rate_hz, schedule, before, after,
    )  # fmt: skip


def watch(
    experiment: Experiment,
    record: Record,
    calibration: Calibration,
    segments: int = 20,
    schedule: Schedule | None = None,
) -> Monitor:
    """The innovations of a record, watched while they are made and not kept."""
    band = experiment.band_hz or (0.0, record.sample_rate_hz / 2)
    inputs = currents([record], [calibration.density])
    made = setup(experiment, inputs, "lab", 1, schedule=schedule or ())
    variance = made.innovation_variance_sn
    if not np.isfinite(variance):
        raise ModelError(
            f"{experiment.name}: no steady filter, so that nothing says how large the innovations should be"
        )
    monitor = Monitor(record.sample_rate_hz, record.size, variance, band, segments)
    track(experiment, record, calibration, "lab", 4096, schedule=schedule or (), innovations=False, monitor=monitor)
    return monitor


def _scale(experiment: Experiment, name: str) -> float:
    prior = experiment.priors.get(name)
    if prior is not None and prior.sd:
        return float(prior.sd)
    return 0.1 * abs(float(np.real(experiment.value(name)))) or 1.0


def _posterior(delta: Array, s: Array, info: Array) -> tuple[Array, Array, Array, float]:
    """Mean (S, k) and covariance of all deviations, and the drift's (k, k) covariance and time of largest likelihood."""
    S, k = s.shape
    I = block_diagonal(list(info))
    drive = I @ delta.reshape(-1) + s.reshape(-1)
    best: tuple[float, Array, Array, Array, float] | None = None
    for tau in (1.5, 3.0, 6.0, 12.0):
        lag = np.abs(np.subtract.outer(np.arange(S), np.arange(S)))
        K = np.exp(-lag / tau)
        K_inverse = np.linalg.inv(K)
        L = 0.25 * np.eye(k)
        for _ in range(60):
            C = np.linalg.inv(symmetric(I + np.kron(K_inverse, np.linalg.inv(L))))
            m = C @ drive
            M = m.reshape(S, k)
            expected = M.T @ K_inverse @ M + np.einsum("ts,sbta->ab", K_inverse, C.reshape(S, k, S, k))
            L = symmetric(expected / S) + 1e-8 * np.eye(k)
        prior = np.kron(K, L)
        # marginal likelihood of the pseudo-data I^-1 drive with errors I^-1, up to constants
        sign, log_det = np.linalg.slogdet(np.eye(S * k) + prior @ I)
        score = 0.5 * float(drive @ m) - 0.5 * float(log_det) * float(sign)
        if best is None or score > best[0]:
            best = (score, M, C, L, tau)
    assert best is not None
    return best[1], best[2], best[3], best[4]
