"""Innovations of a track: watched while they are made, and tested.

If the filter's model is right they are white with the predicted variance. Their averaged periodograms without taper are
independent Gamma(N) bins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from backaction.errors import InputError
from backaction.files import packed, unpacked
from backaction.numerics.matrices import Array
from backaction.records.record import Record
from backaction.records.shot_level import ShotNoise
from backaction.records.spectrum import Spectrum, averaged_spectrum, efficiency
from backaction.records.statistics import LEVEL, Check, chi_square_p, gamma_normal_scores, normal_p, words
from backaction.tracking.tracks import Track

_KEPT = ("in_band", "whole", "square", "count", "evenness")


POINTS = 8
"""Frequencies in each wide bin at which the fitted spectrum's slopes are averaged."""
TOLERATED = 0.01
"""A variance of the innovations within so much of the prediction is right for every practical purpose."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """How sure the model is whose innovations are tested, where it was fitted to the same record.

    `slopes(f)` (F, P): derivatives of ln S(f), the density of the record, by the fitted coordinates; `covariance` (P, P)
    theirs, data and priors together; `band_hz` what the fit saw.
    """

    slopes: Callable[[Array], Array]
    covariance: Array
    band_hz: tuple[float, float]

    def over(self, frequency_hz: Array, width_hz: float) -> tuple[Array, Array]:
        """Slopes averaged over bins (F, P), and the part of each bin that the fit saw (F,)."""
        inner = frequency_hz[:, None] + width_hz * ((np.arange(POINTS) + 0.5) / POINTS - 0.5)
        g = self.slopes(inner.ravel()).reshape(*inner.shape, -1).mean(axis=1)
        low, high = self.band_hz
        return g, np.mean((inner >= low) & (inner <= high), axis=1)


class Monitor:
    """Innovations of a record in time segments: sums of squares and periodograms, in memory that does not grow.

    Call it with (first sample, innovations in square-root shot-noise units, NaN where missing), in time order. Of each
    segment a periodogram of at most 2^20 samples is kept: the whole spectrum in 400 bins, `band_hz` in at most 2048.

    Parameters
    ----------
    variance_sn
        The predicted variance of an innovation.
    skip
        First samples that are left out (a filter that was not started exactly).
    """

    def __init__(
        self,
        sample_rate_hz: float,
        size: int,
        variance_sn: float,
        band_hz: tuple[float, float],
        segments: int = 20,
        skip: int = 0,
    ) -> None:
        from scipy.fft import prev_fast_len

        if segments < 1 or size - skip < 16 * segments:
            raise InputError(f"{size} samples: too few for {segments} segments of the innovations' test")
        self.rate, self.variance, self.band, self.skip = sample_rate_hz, variance_sn, band_hz, skip
        self.segments, self.length = segments, (size - skip) // segments
        piece = prev_fast_len(min(self.length, 1 << 20), real=True)
        f = np.fft.rfftfreq(piece, 1 / sample_rate_hz)
        inside = np.flatnonzero((f >= band_hz[0]) & (f <= min(band_hz[1], sample_rate_hz / 2)))[:-1]
        self.raw_band = -(-max(inside.size, 1) // 2048)
        self._inside = inside[: inside.size - inside.size % self.raw_band]
        if not self._inside.size:
            raise InputError(
                f"no frequency of the innovations lies within {band_hz[0]:g}..{band_hz[1]:g} Hz: the band is too narrow for "
                f"segments of {piece} samples at {sample_rate_hz:g} Hz"
            )
        self.raw_whole = max(1, (f.size - 2) // 400)
        self._whole = np.arange(1, 1 + (f.size - 2) // self.raw_whole * self.raw_whole)
        self.frequency_hz = f[self._inside].reshape(-1, self.raw_band).mean(axis=1)
        self.whole_hz = f[self._whole].reshape(-1, self.raw_whole).mean(axis=1)
        self.in_band = np.zeros((segments, self.frequency_hz.size))
        self.whole = np.zeros((segments, self.whole_hz.size))
        self.square, self.count = np.zeros(segments), np.zeros(segments)
        self.evenness = np.ones((segments, 3))
        self._buffer, self._mask = np.zeros(piece), np.ones(piece, dtype=bool)
        self._end = 0

    @classmethod
    def of(cls, track: Track, band_hz: tuple[float, float], segments: int = 20) -> Monitor:
        """Of a track that kept its innovations, after the filter's start-up (20 memory times, at most half of it)."""
        e = track.innovation.reshape(track.innovation.shape[0], -1)[:, 0] if track.innovation.ndim < 3 else None
        if e is None or not e.size:
            raise InputError("the track kept no innovations of one continuous record: give `track` a monitor")
        skip = min(int(20 * min(track.memory_s, 1e6) * track.sample_rate_hz), e.size // 2)
        out = cls(track.sample_rate_hz, e.size, track.innovation_variance_sn, band_hz, segments, skip)
        for start in range(0, e.size, 1 << 20):
            out(start, e[start : start + (1 << 20)])
        return out

    def __call__(self, start: int, innovation: Array) -> None:
        """Take the next innovations (of several currents: the first)."""
        e = innovation if innovation.ndim == 1 else innovation[:, 0]
        at = start - self.skip
        if at < 0:
            e, at = e[-at:], 0
        while e.size:
            k = at // self.length
            if k >= self.segments:
                return
            part = e[: (k + 1) * self.length - at].astype(float)
            good = np.isfinite(part)
            whole = bool(np.all(good))
            part = part if whole else np.where(good, part, 0.0)
            self.square[k] += np.dot(part, part)
            self.count[k] += part.size if whole else np.sum(good)
            offset = at - k * self.length
            room = part[: max(0, self._buffer.size - offset)]
            self._buffer[offset : offset + room.size] = room
            self._mask[offset : offset + room.size] = good[: room.size]
            if room.size and offset + room.size == self._buffer.size:
                self._periodogram(k)
            e, at = e[part.size :], at + part.size
            self._end = at

    def _periodogram(self, k: int) -> None:
        there = int(np.sum(self._mask))
        if not there:
            return
        if there < self._mask.size:  # missing samples are zeros, which correlate neighbouring frequencies
            w = self._mask.astype(float)
            groups = self.raw_whole, self.raw_band * self._group(200), self.raw_band * self._group(20)
            self.evenness[k] = [efficiency(w, m) for m in groups]
        power = np.abs(np.fft.rfft(self._buffer)) ** 2 / (there * self.variance)
        self.in_band[k] = power[self._inside].reshape(-1, self.raw_band).mean(axis=1)
        self.whole[k] = power[self._whole].reshape(-1, self.raw_whole).mean(axis=1)

    def state(self) -> dict[str, Any]:
        """What is known so far, as plain data."""
        kept: dict[str, Any] = {k: packed(getattr(self, k)) for k in _KEPT}
        there = min(self._end % self.length, self._buffer.size)  # of the segment in progress
        if there == self._buffer.size:
            there = 0
        kept |= {"buffer": packed(self._buffer[:there].astype(np.float32)), "mask": packed(self._mask[:there])}
        return kept | {"end": self._end}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from a `state()`."""
        for key in _KEPT:
            setattr(self, key, unpacked(saved[key]))
        self._end = int(saved["end"])
        for own, key in ((self._buffer, "buffer"), (self._mask, "mask")):
            values = unpacked(saved[key])
            own[: len(values)] = values

    @property
    def complete(self) -> Array:
        """The segments whose periodogram is there."""
        return np.flatnonzero(np.any(self.whole, axis=1))

    def _group(self, bins: int) -> int:
        """Kept bins of the band in each of so many."""
        return max(1, self.frequency_hz.size // bins)

    def averages(self, kind: int, raw: int) -> float:
        """Effective averages of a mean over the complete segments, `raw` bins of a periodogram in each."""
        c = self.evenness[self.complete, kind]
        return float(raw * c.size**2 / np.sum(1 / c)) if c.size else 0.0

    @property
    def relative_variance(self) -> Array:
        """Measured over predicted variance in each segment."""
        return self.square / np.maximum(self.count, 1) / self.variance

    def spectrum(self, bins: int) -> tuple[Array, Array, float]:
        """(frequencies, normalised density, averages per bin) within the band, over all segments."""
        group = self._group(bins)
        use = self.frequency_hz.size - self.frequency_hz.size % group
        f = self.frequency_hz[:use].reshape(-1, group).mean(axis=1)
        there = self.complete
        density = self.in_band[there, :use].mean(axis=0).reshape(-1, group).mean(axis=1)
        return f, density, self.averages(1, self.raw_band * group)


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


def innovation_checks(
    innovations: Track | Monitor,
    calibration: ShotNoise,
    band_hz: tuple[float, float],
    fitted: Fitted | None = None,
) -> list[Check]:
    """Variance against prediction, whiteness over the whole spectrum, flatness within the band, steadiness in time.

    With `fitted` the errors of the fitted parameters are allowed for (docs, derivations): the steady filter whitens
    S(theta), so that v - 1 = mean(eps) - g.dtheta with eps = I/S - 1 and g the mean slope of ln S over all frequencies,

        Var v = 2/N + g^T C g - 2 (N_b/N') g^T C g_b

    (g_b over the N_b frequencies of the band that were fitted, of N' = N/2 in all), and bins beyond the band move
    together by their slopes. Without it the calibration's own error is allowed for.
    """
    m = innovations if isinstance(innovations, Monitor) else Monitor.of(innovations, band_hz)
    if not m.complete.size:
        raise InputError("no innovations were seen: too short a record for the test, or all of it missing")
    there = m.complete
    whole = m.whole[there].mean(axis=0)
    slopes = None if fitted is None else fitted.over(m.whole_hz, float(np.ptp(m.whole_hz)) / (m.whole_hz.size - 1))
    out = [_variance(m, calibration, fitted, slopes)]
    scores = gamma_normal_scores(whole / np.mean(whole), averages := m.averages(0, m.raw_whole))
    p = chi_square_p(scores, 1) if fitted is None or slopes is None else _whiteness_p(scores, averages, fitted, *slopes)
    out.append(_flatness("innovation whiteness", whole, averages, p, "over the whole spectrum"))
    _, flat, averages = m.spectrum(200)
    p = chi_square_p(gamma_normal_scores(flat / np.mean(flat), averages), 1)
    band = f"within {band_hz[0] / 1e3:.6g}..{band_hz[1] / 1e3:.6g} kHz"
    out.append(_flatness("innovation flatness in band", flat, averages, p, band))
    out.append(_steady_in_time(m, band))
    return out


def _variance(m: Monitor, calibration: ShotNoise, fitted: Fitted | None, slopes: tuple[Array, Array] | None) -> Check:
    """Measured over predicted variance, in standard errors of both."""
    total = float(np.sum(m.count))
    ratio = float(np.sum(m.square) / total / m.variance)
    if fitted is None or slopes is None:
        sd = float(np.hypot(np.sqrt(2 / total), calibration.scale_sd if calibration.floor_known else 0.0))
        of = "statistical and calibration error"
    else:
        g, inside = slopes
        mean, in_band = np.mean(g, axis=0), np.mean(g * inside[:, None], axis=0)  # the latter: (N_b/N') g_b
        both = float(mean @ fitted.covariance @ (mean - 2 * in_band))
        sd = float(np.sqrt(max(2 / total + both, 0.0)))
        of = "error of statistics and fitted parameters"
    z = (ratio - 1) / sd if sd > 0 else np.inf  # unknown errors allow nothing
    p = normal_p(z)
    good = p >= LEVEL or abs(ratio - 1) <= TOLERATED
    sentence = f"innovation variance is {ratio:.4f} of the prediction ({of} {sd:.4f}: {z:+.1f} sd)"
    return Check("innovation variance", good, ratio, p, sentence)


def _whiteness_p(scores: Array, averages: float, fitted: Fitted, g: Array, inside: Array) -> float:
    """Chi-square of the scores about their mean, with what fitted parameters do to bins beyond the band.

    cov_ij = delta_ij + K (1 - 1_i - 1_j) g_i^T C g_j, 1_i whether bin i was fitted; of pairs of fitted bins, which the fit
    makes scatter less, and of mixed ones nothing is taken: the test is a little less strict there.
    """
    outer = np.sqrt(averages) * (1 - inside)[:, None] * g
    size = scores.size
    centred = np.eye(size) - 1 / size
    if not np.all(np.isfinite(outer)):
        return float("nan")
    C = centred @ (np.eye(size) + outer @ fitted.covariance @ outer.T) @ centred
    w, U = np.linalg.eigh(C)
    kept = w > 0.5  # the mean is taken out
    return chi_square_p((U.T @ (scores - np.mean(scores)))[kept] / np.sqrt(w[kept]))


def _flatness(name: str, density: Array, averages: float, p: float, where: str) -> Check:
    level = density / np.mean(density)
    spread, expected = float(np.std(level)), float(1 / np.sqrt(averages))
    good = words(p, "consistent with white", "NOT white: the model does not fit this record")
    return Check(
        name, p >= LEVEL, spread, p,
        f"innovations {where} are {good} (p = {p:.2g}; scatter of {density.size} bins {spread:.4f}, "
        f"statistics alone {expected:.4f})",
    )  # fmt: skip


def _steady_in_time(m: Monitor, band: str) -> Check:
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
    return Check(
        "innovations in time", p >= LEVEL, value, p,
        f"innovations {band} are {good} (p = {p:.2g}; chi-square {value:.3f} per degree of freedom in "
        f"{there.size} x {columns} cells)",
    )  # fmt: skip
