"""CIFAR, coherently induced Faraday rotation: a spin's readout and widths from its response to a modulated input angle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from backaction.calibration.fitting import Gaussian, Unknown, Values, fit
from backaction.calibration.method import Method, Panel, Result
from backaction.elements.fields import choice, flag, quantity, series
from backaction.elements.spin_oscillator import SpinOscillator
from backaction.errors import InputError, ModelError
from backaction.numerics.matrices import Array
from backaction.records.tables import Table
from backaction.systems.response import transfer


@dataclass(frozen=True, kw_only=True)
class Cifar(Method):
    """Spin readout, widths and tensor ratio from the complex response to a modulated input angle.

    C(f) = A e^{i phi_0 + 2 pi i tau (f - |f_S|)} [M_PX cos th + M_PP sin th] for several input angles th. M is the P
    row of the `spin_oscillator` with its broadband mode (`broadband_coupling` as in the element; "none" is Thomas
    2021, B17). All angles are fitted together; A multiplies everything, so that the readout rate does not depend on
    the detection efficiency. (f_S, Gamma, zeta, Gamma_bb) -> minus these gives identical data: only sgn(f_S) sgn(th)
    is measured; Gamma > 0 and the stated signs of `angles_deg` resolve it. Thomas 2021, (B10)-(B19), Fig. 5a, b.
    """

    kind: ClassVar[str] = "cifar"
    reads: ClassVar[str] = "frequency, then for each angle |C|^2 and phase (rad), or Re and Im"
    stage: ClassVar[int] = 5

    angles_deg: tuple[float, ...] = series("deg", "modulation angle of the input from X, one per pair of columns")
    layout: str = choice("power_phase", "power_phase", "complex", doc="what the columns of an angle hold")
    mass: str = choice("negative", "negative", "positive", doc="sign of the spin's frequency")
    noise: Any = quantity("1", above=0.0, doc="standard deviation of Re C and of Im C, in the unit of C")
    axis_unit: str = choice(
        "", "", "Hz", "kHz", "MHz", doc="unit of the first column, where its header does not say it"
    )
    angle_error_deg: Any = quantity("deg", 1.1459155902616465, above=0.0, doc="prior of the angles' common error")
    no_broadband: bool = flag("fit without a broadband mode")
    broadband_linewidth_hz: Any = quantity("Hz", 1e6, above=0.0, doc="prior mean of the broadband mode's width")
    broadband_linewidth_sd_hz: Any = quantity("Hz", 2e5, above=0.0)
    broadband_coupling: str = choice("none", "none", "mediated", doc="as in spin_oscillator")
    element: str = "spin"

    def run(self, tables: Sequence[Table], given: Mapping[str, Any] | None = None) -> Result:
        """Readout rate, intrinsic width, tensor ratio, Larmor frequency and the broadband mode, jointly from all angles."""
        f, C = self._data(tables[0])
        angles = np.radians(self.angles_deg)
        sign = -1.0 if self.mass == "negative" else 1.0
        unknowns, starts = self._unknowns(f, C, angles, sign)
        found = fit(lambda v: [self.model(v, f, angles)], [Gaussian(C, float(self.noise))], unknowns, starts, "cifar")
        G = found["readout_rate_hz"]
        centre = abs(found["larmor_hz"])
        if found.deviance / found.dof > 4:
            raise ModelError(
                f"cifar: the model does not describe the data (chi2/dof {found.deviance / found.dof:.3g}): is the "
                "broadband mode "
                "left out, a sign of an angle or of the mass wrong, or the noise larger?"
            )
        reach = min(1 / abs(np.tan(a)) for a in angles if abs(np.sin(a)) > 0.02)
        if min(centre - f[0], f[-1] - centre) < 1.2 * G * reach:
            raise InputError(
                f"cifar: frequencies {f[0]:g}..{f[-1]:g} Hz do not hold both dips at {centre:g} +- {G:g} Hz with "
                "room (1.2): "
                "readout rate and amplitude are then the same thing"
            )
        width = found["intrinsic_linewidth_hz"] + 2 * found["tensor_ratio"] * G
        if np.median(np.diff(f)) > width:
            raise InputError(
                f"cifar: frequency step {np.median(np.diff(f)):g} Hz is wider than the line ({width:.3g} Hz)"
            )
        e = self.element
        mu = self.model(found.values, f, angles)
        panels = [
            Panel(
                f"input angle {th:g}°",
                f / 1e3,
                np.abs(C[:, k]) ** 2,
                np.abs(mu[:, k]) ** 2,
                None,
                "frequency (kHz)",
                "|C|²",
                True,
            )
            for k, th in enumerate(self.angles_deg)
        ]
        priors = {f"{e}.{k}": k for k in ("readout_rate_hz", "intrinsic_linewidth_hz", "tensor_ratio")}
        notes = [
            "the mirror image (all of f_S, Gamma, zeta, Gamma_bb negative) fits equally: resolved by Gamma > 0 and "
            "the stated angles"
        ]
        if not self.no_broadband:
            priors |= {f"{e}.{k}": k for k in ("broadband_readout_rate_hz", "broadband_linewidth_hz")}
        total = {
            "linewidth_hz": (
                lambda v: v["intrinsic_linewidth_hz"] + 2 * v["tensor_ratio"] * v["readout_rate_hz"],
                "Hz",
                "with dynamical broadening",
            )
        }
        return self.report(found, total, priors, panels, (), notes)

    def model(self, v: Values, f: Array, angles: Array) -> Array:
        """C (f, angles) by the element's transfer function."""
        spin = SpinOscillator(
            name="s",
            larmor_hz=v["larmor_hz"],
            intrinsic_linewidth_hz=abs(v["intrinsic_linewidth_hz"]),
            readout_rate_hz=v["readout_rate_hz"],
            tensor_ratio=v["tensor_ratio"],
            broadband_linewidth_hz=v.get("broadband_linewidth_hz"),
            broadband_readout_rate_hz=v.get("broadband_readout_rate_hz"),
            broadband_coupling=self.broadband_coupling,
        )
        row = transfer(spin.build(), f, ["s.out"])[:, 1, :2]
        turn = angles + v["angle_error_rad"]
        phase = v["phase_rad"] + 2 * np.pi * v["delay_s"] * (f - abs(v["larmor_hz"]))
        out = row[:, :1] * np.cos(turn) + row[:, 1:] * np.sin(turn)
        return v["amplitude"] * np.exp(1j * phase)[:, None] * out

    def _data(self, table: Table) -> tuple[Array, Array]:
        f = table.axis(0, "Hz", self.axis_unit)
        if not self.angles_deg:
            raise InputError("cifar: missing angles_deg: --set angles_deg=-45,0,45 (one per curve)")
        if table.values.shape[1] != 1 + 2 * len(self.angles_deg):
            raise InputError(
                f"{table.name}: {table.values.shape[1] - 1} columns beside the frequency; {len(self.angles_deg)} "
                "angles need two each"
            )
        if all(abs(np.sin(np.radians(a))) < 0.02 for a in self.angles_deg):
            raise InputError(
                f"cifar: angles_deg = {list(self.angles_deg)}: without a phase part only amplitude x readout rate "
                "is determined"
            )
        if not np.all(np.isfinite(table.values)):
            raise InputError(f"{table.name}: the data hold values that are not finite")
        a, b = table.values[:, 1::2], table.values[:, 2::2]
        if self.layout == "power_phase" and np.any(a < 0):
            raise InputError(f"{table.name}: negative |C|^2: is it Re and Im? --set layout=complex")
        return f, a + 1j * b if self.layout == "complex" else np.sqrt(a) * np.exp(1j * b)

    def _unknowns(self, f: Array, C: Array, angles: Array, sign: float) -> tuple[list[Unknown], list[dict[str, float]]]:
        power = np.sum(np.abs(C - np.mean(C[[0, -1]], axis=0)) ** 2, axis=1)
        centre = float(f[np.argmax(power)])
        sines = np.abs(np.sin(angles))
        level = float(np.sum(np.abs(C[[0, -1]]).mean(0) * sines) / np.sum(sines**2))
        at = int(np.argmax(sines))
        phase = float(np.angle(C[0, at] * np.sign(np.sin(angles[at])) + C[-1, at] * np.sign(np.sin(angles[at]))))
        span = float(f[-1] - f[0])
        unknowns = [
            Unknown("readout_rate_hz", span / 8, span / 100, "Hz", lower=0.0),
            Unknown("intrinsic_linewidth_hz", span / 80, span / 1000, "Hz", lower=0.0),
            Unknown("tensor_ratio", 0.03, 0.01),
            Unknown("larmor_hz", sign * centre, span / 1000, "Hz"),
            Unknown("amplitude", level, 0.05 * level, lower=0.0),
            Unknown("phase_rad", phase, 0.1, "rad"),
            Unknown("delay_s", 0.0, 0.02 / span, "s"),
            Unknown("angle_error_rad", 0.0, 0.01, "rad", prior=(0.0, float(np.radians(self.angle_error_deg)))),
        ]
        if not self.no_broadband:
            mean, sd = float(self.broadband_linewidth_hz), float(self.broadband_linewidth_sd_hz)
            unknowns += [
                Unknown("broadband_readout_rate_hz", 0.1 * mean, 0.02 * mean, "Hz", lower=0.0),
                Unknown("broadband_linewidth_hz", mean, 0.05 * mean, "Hz", lower=0.1 * mean, prior=(mean, sd)),
            ]
        starts = [
            {"intrinsic_linewidth_hz": span * b, "phase_rad": phase + c}
            for b in (1 / 200, 1 / 40)
            for c in (0.0, np.pi)
        ]
        return unknowns, starts
