"""The cavity's linewidth and detuning: sideband beat in transmission, a sweep faster than the ring-down, the lock point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from backaction.calibration.fitting import Unknown, Values, fit
from backaction.calibration.method import Method, Panel, Result, Scatter
from backaction.constants import TWO_PI
from backaction.elements.fields import choice, quantity
from backaction.errors import InputError, ModelError
from backaction.numerics.matrices import Array
from backaction.records.tables import Table


def beat(W: Any, kappa: Any, delta: Any, index: float = 0.0) -> Array:
    """Amplitude at the modulation frequency behind a cavity, for phase modulation of small `index` (0: per index), complex.

    sum_n J_n J_{n+1} T_{n+1} T_n^*, T_n = (kappa/2)/(kappa/2 - i(Delta + n W)); for a small index T_0^* T_+ - T_0
    T_-^*, whose modulus is proportional to W |Delta|/|kappa^2/4 + Delta^2 - W^2 - i kappa W|.
    """
    W, kappa, delta = (np.asarray(x, dtype=float) for x in (W, kappa, delta))

    def T(n: Any) -> Any:
        return (kappa / 2) / (kappa / 2 - 1j * (delta + n * W))

    if index == 0:
        return np.asarray(np.conj(T(0)) * T(1) - T(0) * np.conj(T(-1)))
    from scipy import special

    most = int(np.ceil(index)) + 12
    out = 0.0
    for n in range(-most, most):
        out = out + special.jv(n, index) * special.jv(n + 1, index) * T(n + 1) * np.conj(T(n))
    return np.asarray(2 * out / index)


@dataclass(frozen=True, kw_only=True)
class SidebandBeat(Method, Scatter):
    """Kappa and |Delta| from the beat of phase-modulation sidebands behind the cavity, against their frequency.

    |B| = A W/|w_0^2 - W^2 - i kappa W|, w_0^2 = kappa^2/4 + Delta^2. The peak lies at w_0, its full width (of |B|^2)
    is kappa. Delta^2 = w_0^2 - kappa^2/4; the sign of Delta comes from elsewhere (`sign`). Known distortions are
    modelled: `modulation_index` above 0.1 and the detector's pole `detector_pole_hz`.
    """

    kind: ClassVar[str] = "sideband_beat"
    reads: ClassVar[str] = "modulation frequency, |beat|"
    stage: ClassVar[int] = 2

    sign: str = choice("red", "red", "blue", doc="sign of the detuning")
    modulation_index: Any = quantity("1", 0.0, minimum=0.0)
    detector_pole_hz: Any = quantity("Hz", None, above=0.0, doc="low-pass of the photodiode")
    element: str = "membrane"

    def run(self, tables: Sequence[Table], given: Mapping[str, Any] | None = None) -> Result:
        """Kappa, Delta^2 and, where it is resolved, Delta."""
        W = tables[0].axis(0, "Hz", self.axis_unit)
        y = tables[0].column(1)
        peak = int(np.argmax(y))
        if peak in (0, y.size - 1):
            raise InputError(
                f"{tables[0].name}: the maximum, at sqrt(kappa^2/4 + Delta^2), lies outside the scan {W[0]:g}..{W[-1]:g} Hz"
            )
        w0 = float(W[peak])
        index = float(self.modulation_index)
        level = float(y[peak])
        # the peak and kappa are nearly uncorrelated; with a large index the peak moves, and Delta^2 >= 0 takes its place
        first = Unknown("peak_hz", w0, 0.05 * w0, "Hz", lower=0.0)
        if index:
            first = Unknown("detuning_squared_hz2", 0.1 * w0**2, 0.05 * w0**2, "Hz^2", lower=1e-6 * w0**2)
        unknowns = [
            first,
            Unknown("cavity_linewidth_hz", 1.8 * w0, 0.05 * w0, "Hz", lower=0.0),
            Unknown("amplitude", level, 0.05 * level, lower=0.0),
        ]
        starts = [{"cavity_linewidth_hz": k * w0} for k in (0.3, 1.0, 2.4)]
        found = self.rescaled(
            fit(lambda v: [self.model(v, W)], [self.block(y, tables[0])], unknowns, starts, self.kind)
        )

        def squared(v: Values) -> float:
            own = v.get("detuning_squared_hz2")
            return v["peak_hz"] ** 2 - v["cavity_linewidth_hz"] ** 2 / 4 if own is None else own

        square = (squared, "Hz^2", "Delta^2")
        (d2,), cov = found.derived({"d2": square[0]})
        sd2 = float(np.sqrt(cov[0, 0]))
        derived: dict[str, tuple[Any, str, str]] = {} if index else {"detuning_squared_hz2": square}
        priors = {f"{self.element}.cavity_linewidth_hz": "cavity_linewidth_hz"}
        warnings, notes = [], []
        sign = -1.0 if self.sign == "red" else 1.0
        if sd2 > 0 and d2 > 2 * sd2:
            derived["detuning_hz"] = (
                lambda v: sign * np.sqrt(max(square[0](v), 0.0)),
                "Hz",
                f"sign as stated: {self.sign}",
            )
            priors[f"{self.element}.detuning_hz"] = "detuning_hz"
            notes.append(f"the sign of the detuning ({self.sign}) was stated, not measured")
        else:
            limit = np.sqrt(max(d2, 0.0) + 1.645 * sd2) if sd2 > 0 else np.nan
            warnings.append(
                f"the detuning is not resolved (Delta^2 = {d2:.3g} +- {sd2:.2g} Hz^2): |Delta| < {limit:.3g} Hz (95 %)"
            )
        mu = self.model(found.values, W)
        panel = Panel("sideband beat", W / 1e6, y, mu, None, "modulation frequency (MHz)", "|beat|")
        return self.report(found, derived, priors, [panel], warnings, notes)

    def model(self, v: Values, W: Array) -> Array:
        """A W kappa/|w_0^2 - W^2 - i kappa W|, with an index A |`beat`| over its scale; then the detector's pole."""
        k, index = v["cavity_linewidth_hz"], float(self.modulation_index)
        if index == 0:
            shape = W * k / np.abs(v["peak_hz"] ** 2 - W**2 - 1j * k * W)
        else:
            delta = np.sqrt(v["detuning_squared_hz2"])
            shape = np.abs(beat(W, k, delta, index)) / (2 * delta / np.hypot(k / 2, delta))
        if self.detector_pole_hz is not None:
            shape = shape / np.hypot(1, W / float(self.detector_pole_hz))
        return v["amplitude"] * shape


def swept_amplitude(t: Array, kappa: float, rate: float, t0: float) -> Array:
    """A(t) of da/dt = -(kappa/2 - i v (t - t_0)) a + 1 with a(-inf) = 0: (1/2) sqrt(pi/q) erfcx(p/(2 sqrt q)).

    q = i v/2, p = kappa/2 - i v (t - t_0); all in rad/s and s, erfcx(z) = w(iz), principal square root.
    """
    from scipy import special

    q = 0.5j * rate
    p = kappa / 2 - 1j * rate * (t - t0)
    return np.asarray(0.5 * np.sqrt(np.pi / q) * special.wofz(1j * p / (2 * np.sqrt(q))))


@dataclass(frozen=True, kw_only=True)
class SweptRingdown(Method, Scatter):
    """Kappa in absolute time units from the transmitted power while the laser sweeps faster than the cavity empties.

    A (kappa/2)^2 |a(t)|^2 + offset with `swept_amplitude`; the sweep rate v is fitted, so that no frequency axis is
    needed. Refused where v < 0.05 kappa^2: the trace is then a Lorentzian in frequency and says nothing about time.
    """

    kind: ClassVar[str] = "swept_ringdown"
    reads: ClassVar[str] = "time, transmitted power"
    stage: ClassVar[int] = 2

    element: str = "membrane"

    def run(self, tables: Sequence[Table], given: Mapping[str, Any] | None = None) -> Result:
        """Kappa and the sweep rate."""
        t = tables[0].axis(0, "s", self.axis_unit)
        y = tables[0].column(1)
        floor = float(np.median(np.sort(y)[: max(4, y.size // 10)]))
        top = int(np.argmax(y))
        height = float(y[top]) - floor
        if not np.all(np.isfinite(y)) or height <= 0:
            raise InputError(f"{tables[0].name}: no peak of transmitted power")
        tail = t[top:][y[top:] - floor > height / np.exp(1.0)]
        life = max(float(tail[-1] - t[top]) if tail.size else 0.0, 2 * float(np.median(np.diff(t))))
        kappa = 1 / life
        unknowns = [
            Unknown("cavity_linewidth_hz", kappa / TWO_PI, 0.05 * kappa / TWO_PI, "Hz", lower=0.0),
            Unknown("sweep_rate", 1.0, 0.05, "kappa^2", lower=1e-3),
            Unknown("start_s", float(t[top]) - 0.5 * life, 0.1 * life, "s"),
            Unknown("amplitude", height, 0.1 * height, lower=0.0),
            Unknown("offset", floor, 0.05 * height),
        ]

        def model(v: Values) -> list[Array]:
            k = TWO_PI * v["cavity_linewidth_hz"]
            a = swept_amplitude(t, k, v["sweep_rate"] * k * k, v["start_s"])
            return [v["amplitude"] * k * k / 4 * np.abs(a) ** 2 + v["offset"]]

        starts = []
        for s in (1.0, 0.3, 3.0, 10.0, 0.1):
            for b in (0.5, 1.5):
                for c in (1.0, 0.5):
                    a = swept_amplitude(np.linspace(0, 6, 601), 1.0, s, b)
                    gain = height / (0.25 * float(np.max(np.abs(a)) ** 2))
                    peak = float(np.linspace(0, 6, 601)[np.argmax(np.abs(a))]) - b
                    starts.append(
                        {
                            "sweep_rate": s,
                            "cavity_linewidth_hz": c * kappa / TWO_PI,
                            "amplitude": gain,
                            "start_s": float(t[top]) - peak / (c * kappa),
                        }
                    )
        found = self.rescaled(fit(model, [self.block(y, tables[0])], unknowns, starts, self.kind))
        if found["sweep_rate"] < 0.05:
            raise ModelError(
                f"swept_ringdown: adiabatic sweep (v = {found['sweep_rate']:.2g} kappa^2 < 0.05): the trace is a "
                "Lorentzian in "
                "frequency; sweep faster, or use sideband_beat"
            )
        rate = {
            "sweep_hz_per_s": (lambda v: TWO_PI * v["sweep_rate"] * v["cavity_linewidth_hz"] ** 2, "Hz/s", "sweep rate")
        }
        panel = Panel("swept ring-down", t * 1e6, y, model(found.values)[0], None, "time (µs)", "transmitted power")
        out = self.report(found, rate, {f"{self.element}.cavity_linewidth_hz": "cavity_linewidth_hz"}, [panel])
        if abs(out.correlation("cavity_linewidth_hz", "sweep_hz_per_s")) > 0.9:
            out = out.warned("kappa and the sweep rate are nearly the same thing here: sweep faster")
        return out


def dither_error(x: Any, dither: float = 0.0, depth: float = 0.0) -> Array:
    """Demodulated transmission (in phase) at detuning x, all in units of kappa; negative slope of the line for small dither.

    The laser's frequency is x + b cos(W t): W -> 0 the average of cos over the line, else the sideband sum; b -> 0 is
    -8x/(1 + 4x^2)^2 per depth.
    """
    x = np.asarray(x, dtype=float)
    if depth == 0 and dither == 0:
        return -8 * x / (1 + 4 * x * x) ** 2
    if dither == 0:
        angle = (np.arange(256) + 0.5) * np.pi / 256
        line = 1 / (1 + 4 * (x[..., None] + depth * np.cos(angle)) ** 2)
        return np.asarray(2 * np.mean(np.cos(angle) * line, axis=-1) / depth)
    index = (depth or 1e-4) / dither

    def T(n: int) -> Any:
        return 0.5 / (0.5 - 1j * (x + n * dither))

    from scipy import special

    most = int(np.ceil(index)) + 12
    out = 0.0
    for n in range(-most, most):
        out = out + special.jv(n, index) * special.jv(n + 1, index) * np.real(T(n + 1) * np.conj(T(n)))
    return np.asarray(2 * out / (depth or 1e-4))


def turning_point(dither: float = 0.0, depth: float = 0.0) -> tuple[float, float]:
    """(detuning, |error|) of the largest error signal, in units of kappa; 1/(2 sqrt 3) for small slow dither."""
    from scipy import optimize

    x = np.linspace(0.02, 2.0 + 3 * dither + 2 * depth, 400)
    k = int(np.argmax(np.abs(dither_error(x, dither, depth))))
    best = optimize.minimize_scalar(
        lambda v: -abs(float(dither_error(v, dither, depth))),
        bounds=(x[max(k - 1, 0)], x[min(k + 1, 399)]),
        method="bounded",
        options={"xatol": 1e-12},
    )
    return float(best.x), -float(best.fun)


def lock_detuning(ratio: float, dither: float = 0.0, depth: float = 0.0) -> float:
    """|Delta|/kappa at which the error is `ratio` of its largest value, between resonance and the turning point.

    Raises
    ------
    InputError
        Unless 0 < ratio < 1.
    """
    from scipy import optimize

    if not 0 < ratio < 1:
        raise InputError(
            f"lock_ratio = {ratio:g}: must be in (0, 1): at 1 the detuning's error diverges, above there is no lock point"
        )
    top, most = turning_point(dither, depth)
    return float(
        optimize.brentq(lambda x: abs(float(dither_error(x, dither, depth))) / most - ratio, 0.0, top, xtol=1e-14)
    )


@dataclass(frozen=True, kw_only=True)
class DitherLock(Method, Scatter):
    """Kappa, and the detuning of the lock point, from the error signal of a dither lock.

    Slow and shallow: e = -8 (Delta/kappa)/(1 + (2 Delta/kappa)^2)^2 with the turning point at kappa/(2 sqrt 3). A
    dither that is not slow (`dither_hz`) or not shallow (`depth_hz`) moves the turning point; both are modelled.
    """

    kind: ClassVar[str] = "dither"
    reads: ClassVar[str] = "detuning, error signal"
    stage: ClassVar[int] = 2

    lock_ratio: Any = quantity("1", None, doc="error at the lock point over its largest value, in (0, 1)")
    lock_ratio_sd: Any = quantity("1", 0.01, minimum=0.0)
    sign: str = choice("red", "red", "blue", doc="side of the lock point")
    dither_hz: Any = quantity("Hz", 0.0, minimum=0.0)
    depth_hz: Any = quantity("Hz", 0.0, minimum=0.0, doc="amplitude of the frequency modulation")
    element: str = "membrane"

    def run(self, tables: Sequence[Table], given: Mapping[str, Any] | None = None) -> Result:
        """Kappa, the zero of the axis, and the lock point."""
        if self.lock_ratio is not None:
            lock_detuning(float(self.lock_ratio))
        x, y = tables[0].axis(0, "Hz", self.axis_unit), tables[0].column(1)
        hi, lo = float(x[np.argmax(y)]), float(x[np.argmin(y)])
        kappa = np.sqrt(3) * abs(hi - lo)
        size = (float(np.max(y)) - float(np.min(y))) / 2
        unknowns = [
            Unknown("cavity_linewidth_hz", kappa, 0.05 * kappa, "Hz", lower=0.05 * kappa),
            Unknown("turning_point_signal", np.sign(lo - hi) * size, 0.05 * size),
            Unknown("zero_hz", (hi + lo) / 2, 0.05 * kappa, "Hz"),
        ]

        def model(v: Values) -> list[Array]:
            k = v["cavity_linewidth_hz"]
            W, b = float(self.dither_hz) / k, float(self.depth_hz) / k
            return [v["turning_point_signal"] * dither_error((x - v["zero_hz"]) / k, W, b) / turning_point(W, b)[1]]

        found = self.rescaled(fit(model, [self.block(y, tables[0])], unknowns, (), self.kind))
        priors = {f"{self.element}.cavity_linewidth_hz": "cavity_linewidth_hz"}
        derived: dict[str, tuple[Any, str, str]] = {
            "turning_point_hz": (
                lambda v: v["cavity_linewidth_hz"] * turning_point(*self._parts(v["cavity_linewidth_hz"]))[0],
                "Hz",
                "of the error signal",
            )
        }
        panel = Panel("dither error", x / 1e6, y, model(found.values)[0], None, "detuning (MHz)", "error signal")
        out = self.report(found, derived, priors, [panel])
        if self.lock_ratio is None:
            return out
        r, dr, sign = float(self.lock_ratio), float(self.lock_ratio_sd), -1.0 if self.sign == "red" else 1.0

        def lock(k: float, ratio: float) -> float:
            return sign * k * lock_detuning(ratio, *self._parts(k))

        words = (
            lambda v: lock(v["cavity_linewidth_hz"], v["ratio"]),
            "Hz",
            f"lock point on the {self.sign} side, inner branch",
        )
        return out.extended(
            {"detuning_hz": words},
            {"ratio": (r, dr)},
            {} if r + dr >= 1 else {f"{self.element}.detuning_hz": "detuning_hz"},
        )

    def _parts(self, k: float) -> tuple[float, float]:
        return float(self.dither_hz) / k, float(self.depth_hz) / k
