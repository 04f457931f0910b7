"""Does the model fit the record? Tests of the innovations, residual lines, and a sentence for each.

If the filter's model is right its innovations are white with the predicted variance. Spectra of innovations are averaged
periodograms without taper: independent Gamma(N) bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backaction import entanglement
from backaction.derivatives import stepped
from backaction.errors import InputError, ModelError
from backaction.experiment import Experiment
from backaction.matrices import Array
from backaction.monitor import Monitor
from backaction.records import (
    Digitiser,
    Record,
    Spectrum,
    averaged_spectrum,
    chi_square_p,
    gamma_normal_scores,
)  # fmt: skip
from backaction.sampling import discretise, spectrum_and_slope, steady_effect
from backaction.shot_noise import Calibration
from backaction.tracking import Track, track


@dataclass(frozen=True)
class Test:
    """One check: its name, whether it passed, its statistic, p-value (or None) and a sentence for people."""

    name: str
    passed: bool
    value: float
    p: float | None
    sentence: str


@dataclass(frozen=True)
class Line:
    """A frequency where more noise is left than the model says."""

    frequency_hz: float
    width_hz: float
    excess: float
    """Peak of measured over predicted density."""


def innovation_spectrum(track: Track, resolution_hz: float) -> Spectrum:
    """Density of the normalised innovations after the filter's start-up, 1 where the model is right."""
    e = settled(track) / np.sqrt(track.innovation_variance_sn)
    good = np.isfinite(e)
    e = np.where(good, e, 0.0) / np.sqrt(np.mean(good))
    record = Record(e, track.sample_rate_hz, unit="1", name="innovations")
    spectrum = averaged_spectrum(record, resolution_hz, taper=0.0)
    return spectrum.scaled(track.sample_rate_hz, "1")


def settled(track: Track) -> Array:
    """Innovations after 20 memory times of the filter (at most half of the record)."""
    skip = min(int(20 * min(track.memory_s, 1e6) * track.sample_rate_hz), track.innovation.size // 2)
    return track.innovation[skip:].astype(float)


def innovation_tests(
    innovations: Track | Monitor, calibration: Calibration, band_hz: tuple[float, float]
) -> list[Test]:
    """Variance against prediction, whiteness over the whole spectrum, flatness within the band, steadiness in time."""
    m = innovations if isinstance(innovations, Monitor) else Monitor.of(innovations, band_hz)
    if not m.complete.size:
        raise InputError("no innovations were seen: too short a record for the test, or all of it missing")
    total = float(np.sum(m.count))
    ratio = float(np.sum(m.square) / total / m.variance)
    scale_sd = calibration.relative_sd if calibration.floor_known else 0.0
    sd = float(np.hypot(np.sqrt(2 / total), scale_sd))
    allowed = max(0.01, 4 * sd)
    out = [
        Test(
            "innovation variance",
            abs(ratio - 1) <= allowed,
            ratio,
            None,
            f"innovation variance is {ratio:.4f} of the prediction (statistical and calibration error {sd:.4f}; "
            f"allowed {allowed:.3f})",
        )
    ]
    band = f"within {band_hz[0] / 1e3:.6g}..{band_hz[1] / 1e3:.6g} kHz"
    there = m.complete
    whole = m.whole[there].mean(axis=0)
    _, flat, averages = m.spectrum(200)
    for name, density, count, where in (
        ("innovation whiteness", whole, m.averages(0, m.raw_whole), "over the whole spectrum"),
        ("innovation flatness in band", flat, averages, band),
    ):
        level = density / np.mean(density)
        p = chi_square_p(gamma_normal_scores(level, count), 1)
        spread, expected = float(np.std(level)), float(1 / np.sqrt(count))
        good = words(p, "consistent with white", "NOT white: the model does not fit this record")
        out.append(
            Test(
                name,
                p >= 1e-3,
                spread,
                p,
                f"innovations {where} are {good} (p = {p:.2g}; scatter of {density.size} bins {spread:.4f}, "
                f"statistics alone {expected:.4f})",
            )
        )
    out.append(_steady_in_time(m, band))
    return out


def _steady_in_time(m: Monitor, band: str) -> Test:
    """Chi-square of the band's power in (segment, frequency) cells about its mean over time."""
    columns = min(20, m.frequency_hz.size)
    group = m._group(20)
    columns = min(columns, m.frequency_hz.size // group)
    there = m.complete
    cells = m.in_band[there, : columns * group].reshape(there.size, columns, group).mean(axis=2)
    averages = m.raw_band * group * m.evenness[there, 2][:, None]
    scores = gamma_normal_scores(cells / cells.mean(axis=0), averages)
    p = chi_square_p(scores, columns)
    value = float(np.sum(scores**2) / (scores.size - columns))
    good = words(p, "steady in time", "NOT steady in time: something drifts")
    return Test(
        "innovations in time", p >= 1e-3, value, p,
        f"innovations {band} are {good} (p = {p:.2g}; chi-square {value:.3f} per degree of freedom in "
        f"{there.size} x {columns} cells)",
    )  # fmt: skip


def drift_scores(
    m: Monitor, experiments: Sequence[Experiment], names: Sequence[str], digitiser: Digitiser
) -> tuple[Array, Array]:
    """Score (S, k) and Fisher information (S, k, k) of parameters in each segment, from the innovations alone.

    To first order in a parameter's error the innovations' density is 1 + d ln S/d theta: the score of segment s is
    sum_f N (density - 1) d ln S/d theta_j. `experiments`: what the filter used in each segment (one: the same in all).
    """
    scores, information = [], []
    known: dict[int, Array] = {}
    for k in range(m.segments):
        e = experiments[k if len(experiments) > 1 else 0]
        if id(e) not in known:
            value, slope = spectrum_and_slope(
                discretise(e.system, *digitiser), discretise(stepped(e, list(names)), *digitiser), m.frequency_hz
            )
            known[id(e)] = slope / value
        dl = known[id(e)]
        scores.append(m.raw_band * dl @ (m.in_band[k] - 1))
        information.append(m.raw_band * dl @ dl.T)
    return np.array(scores), np.array(information)


def drift_tests(scores: Array, information: Array, names: Sequence[str]) -> list[Test]:
    """Does a parameter move? Chi-square of the slow part (the lowest S/4 cosines in time) of its normalised scores.

    The constant that fits all segments best is taken out first.
    """
    from scipy.fft import dct

    S = len(scores)
    modes = max(1, S // 4)
    tests = []
    for j, name in enumerate(names):
        s, i = scores[:, j], information[:, j, j]
        shift = np.sum(s) / np.sum(i)
        z = (s - i * shift) / np.sqrt(i)
        slow = dct(z, norm="ortho")[1 : modes + 1]
        p = min(1.0, len(names) * chi_square_p(slow, 0))
        value = float(np.sum(slow**2) / modes)
        sd = float(np.sqrt(S / np.sum(i)))
        good = words(p, "constant", "NOT constant: follow it in segments")
        text = (
            f"{name} is {good} (p = {p:.2g}, chi-square {value:.2f} per slow mode of {modes}; one segment of {S} measures "
            f"it to {sd:.3g})"
        )
        tests.append(Test(f"drift of {name}", p >= 1e-3, value, p, text))
    return tests


@dataclass(frozen=True)
class Agreement:
    """Prediction against retrodiction for one set of quadratures: measured and predicted variance of the difference."""

    name: str
    measured: float
    predicted: float
    sd: float
    share: float
    """V_c's share of the predicted variance: how much the comparison says about the filter."""

    @property
    def z(self) -> float:
        """Deviation in standard errors."""
        return (self.measured - self.predicted) / self.sd

    @property
    def power(self) -> float:
        """Relative error of V_c that would stand out at two standard errors."""
        return 2 * self.sd / (self.share * self.predicted)


def prediction_retrodiction(
    filtered: Track, retrodicted: Track, epr: tuple[float, float] | None = None
) -> list[Agreement]:
    """Variance of (prediction - retrodiction) against V_c + V_E, whose errors are independent.

    The state given the past record and the effect operator of the future record err independently, so that for any
    quadratures u the variance of the difference of their means is u (V_c + V_E) u^T. Shown for the EPR pair at
    (a, angle in degrees) = `epr` (default: V_c's own minimum) and for the directions in which V_c's share is stationary
    (generalised eigenvectors of V_c and V_c + V_E), the largest first. Standard errors are those of a Gaussian series with
    the measured correlations: var = (2/T) sum_lags sum_ab c_ab(lag)^2. It does not hold for smoothed estimates.

    What it shows: filter and noise model are consistent. The scale rests on the calibrations: a homodyne record fixes the
    state space only up to a similarity transformation.

    Raises
    ------
    InputError
        If the two tracks are not a filtered and a retrodicted one at the same times in the lab frame.
    """
    from scipy.linalg import eigh

    if (filtered.estimate, retrodicted.estimate) != ("filtered", "retrodicted"):
        raise InputError("prediction_retrodiction: needs a filtered and a retrodicted track, in this order")
    if filtered.frame != "lab" or retrodicted.frame != "lab":
        raise InputError("prediction_retrodiction: needs tracks in the lab frame, where the covariances are steady")
    same = filtered.mean.shape == retrodicted.mean.shape and filtered.modes == retrodicted.modes
    if not same or filtered.time_start_s != retrodicted.time_start_s or filtered.mean.ndim != 2:
        raise InputError("prediction_retrodiction: the two tracks are not of the same record, modes and times")
    use = _both_steady(filtered, retrodicted)
    difference = np.where(use[:, None], filtered.mean - retrodicted.mean, 0.0)
    if np.sum(use) < 100:
        raise InputError("prediction_retrodiction: the record is too short for both to be steady")
    P, E = filtered.covariance, retrodicted.covariance
    lags = int(min(20 * min(filtered.memory_s, 1e6) / filtered.time_step_s + 1, len(difference) // 4))
    out = []
    sets = []
    if len(filtered.modes) == 2:
        best = entanglement.epr(P)
        a, angle = epr if epr is not None else (float(best.weight), float(best.angle_deg))
        sets.append(("EPR variance", entanglement.basis(a, angle)[:2]))
    values, vectors = eigh(P, P + E)
    for k in range(len(values))[::-1]:
        u = vectors[:, k] / np.linalg.norm(vectors[:, k])
        names = [f"{m}.{q}" for m in filtered.modes for q in "XP"]
        label = " ".join(f"{w:+.2f} {name}" for w, name in zip(u, names, strict=True) if abs(w) > 0.15)
        sets.append((label, u[None]))
    for name, U in sets:
        d = difference @ U.T
        count = float(np.sum(use))
        measured = float(np.sum(d**2) / count)
        c = _correlations(d, lags) / count
        sd = float(np.sqrt(2 / count * (np.sum(c[0] ** 2) + np.sum(c[1:] ** 2) + np.sum(c[1:] ** 2))))
        own = float(np.trace(U @ P @ U.T))
        predicted = own + float(np.trace(U @ E @ U.T))
        out.append(Agreement(name, measured, predicted, sd, own / predicted))
    return out


def _both_steady(filtered: Track, retrodicted: Track) -> Array:
    """The rows where both covariances are the steady ones."""
    use: Array = np.all(np.isfinite(retrodicted.mean), axis=1)
    for t in (filtered, retrodicted):
        if t.exact_rows.size:
            off = np.max(np.abs(t.exact_covariance - t.covariance), axis=(1, 2))
            use[t.exact_rows[~(off < 1e-3 * np.max(np.abs(t.covariance)))]] = False
    return use


def _correlations(d: Array, lags: int) -> Array:
    """Sums of d_a(t + j) d_b(t) for lags j, shape (lags, r, r)."""
    size = 1 << int(np.ceil(np.log2(len(d) + lags)))
    F = np.fft.rfft(d, size, axis=0)
    return np.fft.irfft(F[:, :, None] * np.conj(F[:, None, :]), size, axis=0)[:lags]


def agreement_test(found: Sequence[Agreement]) -> Test:
    """All agreements as one test: the largest deviation against its chance in as many looks, where the test has power."""
    from scipy import stats

    looks = [a for a in found if a.share > 0.05] or list(found)
    worst = max(looks, key=lambda a: abs(a.z))
    p = float(min(1.0, len(looks) * 2 * stats.norm.sf(abs(worst.z))))
    first = found[0]
    good = words(p, "agree", "DISAGREE: the filter or its noise model is wrong")
    return Test(
        "prediction and retrodiction", p >= 1e-3, worst.z, p,
        f"prediction and retrodiction {good} (p = {p:.2g}): {first.name} of their difference {first.measured:.3f} +- "
        f"{first.sd:.3f}, V_c + V_E = {first.predicted:.3f}; an error of V_c by {100 * first.power:.0f} % would stand out; "
        "this tests filter and noise model, given the calibrated scale",
    )  # fmt: skip


def agreement(experiment: Experiment, record: Record, calibration: Calibration, **options: Any) -> Test | None:
    """Prediction against retrodiction on (at most the first 2^22 samples of) a record; options as for `track`.

    None where it cannot be done: several shots, too short a record, or no effect operator (a state that no later sample
    tells of, such as a line of no strength).
    """
    if record.shots > 1:
        return None
    try:
        steady_effect(discretise(experiment.system, *record.digitiser))
    except (ModelError, np.linalg.LinAlgError):
        return None
    head = record if record.size <= 1 << 22 else record.part(0, 1 << 22)
    every = 1 if options.get("demodulate") is not None else 16
    tracks = [
        track(experiment, head, calibration, "lab", every, estimate=e, innovations=False, **options)
        for e in ("filtered", "retrodicted")
    ]  # type: ignore[arg-type]
    if _both_steady(*tracks).sum() < 100:
        return None
    return agreement_test(prediction_retrodiction(tracks[0], tracks[1]))


def words(p: float, good: str, bad: str) -> str:
    """A test fails below p = 0.001; between that and 0.05 the words say that it is close."""
    return good if p >= 0.05 else f"marginally {good}" if p >= 1e-3 else bad


def residual_lines(spectrum: Spectrum, expected: Array, limit: int = 12) -> list[Line]:
    """Groups of bins whose excess over `expected` is significant at 1e-4 after the number of looks, strongest first.

    Looks at single bins and at running means of 4 and 16 bins, so that a low and broad bump is found too.
    """
    from scipy import special

    ratio = spectrum.density / expected
    level = float(np.median(ratio))
    threshold = -special.ndtri(1e-4 / (3 * ratio.size))
    groups: list[Array] = []
    for width in (1, 4, 16):
        if width > ratio.size:
            continue
        mean = np.convolve(ratio / level, np.ones(width) / width, "valid")
        found = np.zeros(ratio.size, dtype=bool)
        for k in np.flatnonzero(gamma_normal_scores(mean, spectrum.averages * width) > threshold):
            found[k : k + width] = True
        hot = np.flatnonzero(found)
        new = np.split(hot, np.flatnonzero(np.diff(hot) > 4) + 1) if hot.size else []
        # a broad bump counts only where no narrower line was found
        groups += [g for g in new if not any(np.intersect1d(g, other).size for other in groups)]
    lines = []
    for g in groups:
        top = g[int(np.argmax(ratio[g]))]
        width = (g[-1] - g[0] + 1) * spectrum.resolution_hz
        lines.append(Line(float(spectrum.frequency_hz[top]), float(width), float(ratio[top] / level)))
    return sorted(lines, key=lambda item: -item.excess)[:limit]
