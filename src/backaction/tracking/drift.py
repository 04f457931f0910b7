"""Parameters that wander within a record: found by the innovations' scores, followed as one value per segment.

In segment t the scores of parameters theta are s_t = I_t (theta_t - theta) + noise of covariance I_t
(`drift_scores`). With a Gaussian prior of the deviations, correlated in time over a time tau and between
parameters by a matrix L,

    cov(theta_t, theta_t') = L exp(-|t - t'|/tau),

their posterior is linear; L and tau are those of largest marginal likelihood (expectation maximisation, and a grid). The
filter is run again with the new values, segment by segment, until they settle: L's off-diagonal elements say how one
drift carries another, as a phase that also changes coupling and detuning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backaction.errors import InputError, ModelError, nearest
from backaction.experiment.derivatives import stepped
from backaction.experiment.experiment import Experiment
from backaction.experiment.toml import unit_bounds
from backaction.numerics.matrices import Array, block_diagonal, symmetric
from backaction.records.record import Record
from backaction.records.shot_level import ShotNoise
from backaction.records.statistics import LEVEL, Check, chi_square_p, words
from backaction.systems.sampled import Digitiser, discretise, spectrum_and_slope
from backaction.tracking import innovations
from backaction.tracking.innovations import Monitor
from backaction.tracking.inputs import currents
from backaction.tracking.run import track
from backaction.tracking.setups import setup
from backaction.workers import Progress, quiet

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
    before: tuple[Check, ...]
    after: tuple[Check, ...]

    @property
    def experiments(self) -> list[Experiment]:
        """The experiment of each segment."""
        return [e for _, e in self.schedule]


LEAST_SEGMENTS, LEAST_SAMPLES = 4, 4096
"""Fewer segments do not tell a correlation time; shorter ones have no spectrum in the band."""
FIRST_TAU, SETTLED_SD = 3.0, 0.02
"""Correlation time in segments from which the search begins; steps below so many sd of the posterior end it."""


def follow(
    experiment: Experiment,
    record: Record,
    calibration: ShotNoise,
    names: Sequence[str],
    segments: int = 20,
    iterations: int = 4,
    progress: Progress | None = None,
) -> Drift:
    """Estimate named parameters in `segments` equal segments of a record.

    Deviations are from the experiment's own values, which should be those fitted to the whole record; their scale starts
    from the priors' standard deviations (a tenth of the value where there is none).

    Raises
    ------
    InputError
        For unknown names, an experiment without a band, or too few samples.
    """
    _followable(experiment, record, names, segments)
    say = progress or quiet
    scale = np.array([_scale(experiment, n) for n in names])
    centre = np.array([float(np.real(experiment.value(n))) for n in names])
    k, step = len(names), record.size // segments
    starts = record.start_s + np.arange(segments) * step / record.sample_rate_hz
    bounds = np.array([unit_bounds(experiment, n)[1:] for n in names], dtype=float)
    low, high = ((bounds - centre[:, None]) / scale[:, None] * (1 - 1e-9)).T
    delta, posterior, covariance, tau = np.zeros((segments, k)), np.eye(segments * k), np.eye(k), FIRST_TAU
    before: tuple[Check, ...] = ()
    for turn in range(iterations + 1):
        delta = np.clip(delta, low, high)
        used = [experiment.with_values(dict(zip(names, (centre + scale * d).tolist(), strict=True))) for d in delta]
        schedule = list(zip(starts.tolist(), used, strict=True))
        say(f"following {', '.join(names)}: pass {turn + 1}", None)
        monitor = watch(experiment, record, calibration, segments, schedule if turn else [])
        scores, information = drift_scores(monitor, used if turn else [experiment], names, record.digitiser)
        own = innovations.innovation_checks(monitor, calibration, experiment.band_hz or (0.0, 0.0))
        after = (*drift_checks(scores, information, names), *own)
        before = before if turn else after
        if turn == iterations:
            break
        new, posterior, covariance, tau = _posterior(delta, scores * scale, information * np.outer(scale, scale))
        moved = float(np.max(np.abs(new - delta) / np.sqrt(np.diag(posterior)).reshape(segments, k)))
        if turn and moved < SETTLED_SD:
            break
        delta = new
    sd = np.sqrt(np.diag(posterior)).reshape(segments, k) * scale
    size = np.sqrt(np.diag(covariance))
    middles = starts + 0.5 * step / record.sample_rate_hz
    return Drift(
        tuple(names), middles, centre + scale * delta, sd, size * scale, covariance / np.outer(size, size),
        tau * step / record.sample_rate_hz, schedule, before, after,
    )  # fmt: skip


def _followable(experiment: Experiment, record: Record, names: Sequence[str], segments: int) -> None:
    if experiment.band_hz is None:
        raise InputError(f"{experiment.name}: says no band_hz ([analysis]) whose innovations tell the drift")
    for name in names:
        if name not in experiment.fields():
            raise InputError(f"drift: no parameter '{name}'{nearest(name, experiment.fields())}")
    if segments < LEAST_SEGMENTS or record.size < LEAST_SAMPLES * segments:
        raise InputError(
            f"segments = {segments}: must be >= {LEAST_SEGMENTS}, of at least {LEAST_SAMPLES} samples each "
            f"({record.size} are there)"
        )


def watch(
    experiment: Experiment,
    record: Record,
    calibration: ShotNoise,
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


def drift_scores(
    m: Monitor, experiments: Sequence[Experiment], names: Sequence[str], digitiser: Digitiser, gain: bool = False
) -> tuple[Array, Array]:
    """Score (S, k) and Fisher information (S, k, k) of parameters in each segment, from the innovations alone.

    To first order in a parameter's error the innovations' density is 1 + d ln S/d theta: the score of segment s is
    sum_f N (density - 1) d ln S/d theta_j. `experiments`: what the filter used in each segment (one: the same in all).
    `gain` adds the logarithm of the current's gain as a last parameter.
    """
    scores, information = [], []
    known: dict[int, Array] = {}
    for k in range(m.segments):
        e = experiments[k if len(experiments) > 1 else 0]
        if id(e) not in known:
            value, slope = spectrum_and_slope(
                discretise(e.system, *digitiser), discretise(stepped(e, list(names)), *digitiser), m.frequency_hz
            )
            known[id(e)] = np.vstack([slope / value, *([np.ones(value.shape)] if gain else [])])
        dl = known[id(e)]
        scores.append(m.raw_band * dl @ (m.in_band[k] - 1))
        information.append(m.raw_band * dl @ dl.T)
    return np.array(scores), np.array(information)


def drift_checks(scores: Array, information: Array, names: Sequence[str]) -> list[Check]:
    """Does a parameter move? Chi-square of the slow part (the lowest S/4 cosines in time) of its normalised scores.

    The constant that fits all segments best is taken out first.
    """
    S = len(scores)
    modes = max(1, S // 4)
    tests = []
    for j, name in enumerate(names):
        s, i = scores[:, j], information[:, j, j]
        slow = _slow(s, i)
        p = min(1.0, len(names) * chi_square_p(slow, 0))
        value = float(np.sum(slow**2) / modes)
        sd = float(np.sqrt(S / np.sum(i)))
        good = words(p, "constant", "NOT constant: follow it in segments")
        text = (
            f"{name} is {good} (p = {p:.2g}, chi-square {value:.2f} per slow mode of {modes}; one segment of {S} measures "
            f"it to {sd:.3g})"
        )
        tests.append(Check(f"drift of {name}", p >= LEVEL, value, p, text))
    return tests


def slow_p(scores: Array, information: Array) -> float:
    """Chance that one parameter's scores (S,) vary as slowly and as much as these, without a drift."""
    return chi_square_p(_slow(scores, information), 0)


def _slow(s: Array, i: Array) -> Array:
    """The lowest S/4 cosines in time of normalised scores, the constant that fits all segments best taken out."""
    from scipy.fft import dct

    z = (s - i * np.sum(s) / np.sum(i)) / np.sqrt(i)
    return np.asarray(dct(z, norm="ortho")[1 : max(1, len(s) // 4) + 1])
