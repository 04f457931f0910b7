"""What a calibration cannot answer is refused in one line (notes, section 10)."""

from __future__ import annotations

import numpy as np
import pytest

from backaction.calibration import atoms
from backaction.calibration.cavity import lock_detuning
from backaction.calibration.white_noise import cooperativity
from backaction.errors import BackactionError
from support.calibrations import (
    ANGLES,
    GENERAL,
    cifar,
    cifar_method,
    complex_noise,
    make,
    simulate_beat,
    simulate_cifar,
    simulate_mors,
    simulate_squeezing,
    simulate_thermal_sweep,
    simulate_white_noise,
    squeezing_method,
    table,
)

# -- refusals (notes, section 10) -------------------------------------------------------------------------------------


def _cifar_of(f, C, **more):
    angles = more.pop("angles", ANGLES)
    t = table(f, *(part for j in range(len(angles)) for part in (C[:, j].real, C[:, j].imag)))
    return lambda: cifar_method(angles=angles, **more).run([t])


def _wide(step, span):
    f = 1370.0 + np.arange(-span, span + step / 2, step)
    C = cifar(f, ANGLES) + complex_noise(np.random.default_rng(1), (f.size, 3), 0.02)
    return _cifar_of(1e3 * f, C)


def _nan():
    t = simulate_cifar(np.random.default_rng(1))
    t.values[5, 2] = np.nan
    return lambda: cifar_method().run([t])


def _spectrum(values, averages=100, **settings):
    f = np.linspace(1330e3, 1410e3, 321)
    return lambda: squeezing_method(deltas=(-700.0,), **settings).run(
        [table(f, values * np.ones(321), unit="SN", averages=averages)]
    )


def _swapped():
    t = simulate_white_noise(np.random.default_rng(1))
    return table(t.values[:, 0], t.values[:, 2], t.values[:, 1], unit="SN", averages=400)


REFUSED = {
    "cifar: theta = 0 only": (_cifar_of(1e3 * np.arange(1290, 1451.0), cifar(np.arange(1290, 1451.0), (0.0,)), angles=(0.0,)), "without a phase part"),
    "cifar: span": (_wide(1.0, 22.0), "do not hold both dips|does not describe"),
    "cifar: coarse": (_wide(6.0, 90.0), "wider than the line|does not describe"),
    "cifar: nan": (_nan(), "not finite"),
    "mors: no splitting": (lambda: make("mors", splitting_hz=0, noise=1e-4, axis_unit="Hz").run([simulate_mors(None)[0]]), "lines coincide"),
    "mors: neither": (lambda: make("mors", noise=1e-4, axis_unit="Hz").run([simulate_mors(None)[0]]), "larmor_hz or splitting_hz"),
    "mors: span": (
        lambda: make("mors", splitting_hz=400, noise=1e-4, axis_unit="Hz").run([table(*simulate_mors(None)[0].values[160:].T)]),
        "do not hold all 8 lines",
    ),
    "mors: unpolarised": (lambda: make("mors", splitting_hz=400, noise=1e-3, axis_unit="Hz").run([simulate_mors(None, p=np.array([0.0, 1, 1, 1, 1e-3, 1, 1, 1, 0]) / 6.001)[0]]), "unpolarised|did|converged|open"),
    "mors: sum": (lambda: atoms.spin_occupation(2 * GENERAL), "sum"),
    "mors: flat": (lambda: atoms.spin_occupation(np.ones(9) / 9), "unpolarised"),
    "white noise: zero": (lambda: make("white_noise", excess_sn=0, axis_unit="Hz").run([simulate_white_noise(None)]), "must be > 0"),
    "white noise: swapped": (lambda: make("white_noise", excess_sn=1.22, axis_unit="Hz").run([_swapped()]), "exchanged"),
    "white noise: S40": (lambda: cooperativity(1.0, 3.0, 1.0), "S40"),
    "squeezing: blue": (lambda: squeezing_method(deltas=(700.0,)).run([simulate_squeezing(None, gs=(30.0,), deltas=(-700.0,))]), "unstable"),
    "squeezing: dB": (_spectrum(-3.0), "dB"),
    "beat: peak outside": (lambda: make("sideband_beat", relative_noise=0.01, axis_unit="Hz").run([table(*simulate_beat(None).values[:10].T)]), "outside the scan"),
    "dither: above": (lambda: lock_detuning(1.2), r"\(0, 1\)"),
    "dither: below": (lambda: lock_detuning(-0.1), r"\(0, 1\)"),
    "linearity: few": (lambda: make("linearity", relative_noise=0.01).run([table([1.0, 2, 3], [1.0, 2, 3])]), "at least 4"),
    "linearity: range": (lambda: make("linearity", relative_noise=0.01).run([table(np.linspace(1, 1.3, 6), np.linspace(1, 1.3, 6))]), "factor of 1.5"),
    "thermal: few": (lambda: make("thermal_sweep", frequency_hz=1e7, relative_noise=0.02, fit_above_k=0.12, axis_unit="K").run([simulate_thermal_sweep(np.random.default_rng(1))]), "needs 4"),
    "thermal: range": (
        lambda: make("thermal_sweep", frequency_hz=1e7, relative_noise=0.02, fit_above_k=0.105, axis_unit="K").run([table(np.linspace(0.1, 0.15, 6), np.linspace(1, 1.5, 6))]),
        "factor of 2",
    ),
    "efficiency: kind": (lambda: make("efficiency", factors=["v=0.9:0.01:voltage"]).run([]), "power or amplitude"),
    "efficiency: no kind": (lambda: make("efficiency", factors=["v=0.9:0.01"]).run([]), "name = value : sd : kind"),
    "efficiency: range": (lambda: make("efficiency", factors=["v=96:1:power"]).run([]), r"\(0, 1\]|sd = 1"),
    "visibility": (lambda: make("visibility", maximum=1, minimum=-0.1, power_1=1, power_2=1).run([]), "dark"),
    "visibility: overlap": (lambda: make("visibility", maximum=1, minimum=0.01, power_1=1, power_2=0.001).run([]), "overlap"),
    "asymmetry": (lambda: make("sideband_asymmetry", blue_area=1, red_area=2, relative_noise=0.1).run([]), "blue area"),
    "scatter": (lambda: make("sideband_beat", axis_unit="Hz").run([simulate_beat(None)]), "noise"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(REFUSED))
def test_refusals(name):
    call, words = REFUSED[name]
    with pytest.raises(BackactionError, match=words) as error:
        call()
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 330
