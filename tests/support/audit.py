"""The audit of verdicts: analyses of records that the package did not make, near V = 1 and with everything that goes wrong.

    make audit                     # hours; writes docs/background/audit.md
    PYTHONPATH=tests python -m support.audit --count 20 --duration 0.05 --stratum right

Records are Gaussian noise synthesised in the frequency domain from the matrices of a system (modal sums, sinc^2 of interval
averages, aliases), so that neither the package's simulator nor its sampled models take part. Strata:

right     truths and calibrations from the priors of `thomas2021`: how many right models are refused
honest    separable truths, V in 1 .. 1.05, calibrations from the stated priors: how many are called entangled
biased    the same with one or two biases: how many are called entangled, against the conflict that is to be expected
power     Table I (V = 0.79) and V = 0.90, honest calibrations: how many are called entangled
faults    Table I with one thing wrong that the model does not have: which check finds it, and how often
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from backaction import Experiment, analyze
from backaction.elements.technical_noise import TechnicalNoise
from backaction.errors import BackactionError
from backaction.experiment import results, toml
from backaction.experiment.prior import Prior
from backaction.records.record import Record
from backaction.states import entanglement
from support import audit_page

RATE = 1e7
ALIASES = 6
BOUNDED = ("link.transmission", "detector.efficiency", "membrane.overcoupling")
TIGHT = {"link.transmission": 0.01, "detector.efficiency": 0.01, "membrane.overcoupling": 0.005}
"""Errors of calibrations as good as a laboratory's, in the place of the priors' of `thomas2021` (0.03, 0.03, 0.01)."""


# -- records ----------------------------------------------------------------------------------------------------------


def density(system, f):
    """S(f) of the first current, two-sided, in shot-noise units: |C (-iw - A)^-1 B + D|^2 S, by modes of A."""
    current = system.detected()
    S = np.diag(system.S)
    assert np.allclose(system.S, np.diag(S))
    values, right = np.linalg.eig(system.A)
    left = np.linalg.solve(right, system.B.astype(complex))
    c = current.C[0] @ right
    out = np.zeros(f.shape)
    for k in np.flatnonzero(S):
        H = np.full(f.shape, current.D[0, k], dtype=complex)
        for j, value in enumerate(values):
            H += c[j] * left[j, k] / (-2j * np.pi * f - value)
        out += np.abs(H) ** 2 * S[k]
    return 2 * out


def synthesised(system, duration_s, rng):
    """A record of interval averages at 10 MS/s in root shot-noise units."""
    size = int(duration_s * RATE)
    f = np.fft.rfftfreq(size, 1 / RATE)
    white = density(system, np.array([1e12]))[0]
    S = (density(system, f) - white) * np.sinc(f / RATE) ** 2 + white
    coarse, far = np.linspace(0, RATE / 2, 2001), np.zeros(2001)
    for k in range(1, ALIASES + 1):
        for at in (coarse + k * RATE, coarse - k * RATE):
            far += (density(system, np.abs(at)) - white) * np.sinc(at / RATE) ** 2
    S += np.interp(f, coarse, far)
    z = rng.standard_normal(f.size) + 1j * rng.standard_normal(f.size)
    z[0] = 0.0
    return np.fft.irfft(z * np.sqrt(S * size / 2), size)


# -- truths and calibrations ------------------------------------------------------------------------------------------


@dataclass
class Case:
    """One analysis: the truth's system made a record, `experiment` is what the laboratory believes.

    `bias` holds the errors of calibrations beyond their stated ones, in stated sd; `shot` the level of the shot record.
    """

    truth: Experiment
    experiment: Experiment
    record: np.ndarray
    what: str = ""
    bias: dict = field(default_factory=dict)
    shot: float = 1.0


def variance(experiment):
    return float(results.evaluate("conditional.epr.variance", experiment))


def from_priors(rng, experiment):
    """A stable truth drawn from the priors."""
    while True:
        drawn = {}
        for name, p in experiment.priors.items():
            x = float(rng.normal(p.mean, p.sd))
            drawn[name] = min(max(x, 0.02), 0.995) if name in BOUNDED else x
        truth = experiment.with_values(drawn)
        if np.max(np.linalg.eigvals(truth.system.A).real) < 0:
            return truth


WORSE = {"spin.broadband_noise_sn": 12.0, "link.transmission": 0.05, "detector.efficiency": 0.15}
"""Fields that raise V towards these values."""


def near(rng, experiment, low, high):
    """A truth from the priors, one field of it moved until V lies in low .. high."""
    while True:
        truth, wanted = from_priors(rng, experiment), rng.uniform(low, high)
        name = str(rng.choice(list(WORSE)))
        a, b = truth.value(name), WORSE[name]
        if not variance(truth) < wanted < variance(truth.with_values({name: b})):
            continue
        for _ in range(40):
            middle = (a + b) / 2
            a, b = (middle, b) if variance(truth.with_values({name: middle})) < wanted else (a, middle)
        return truth.with_values({name: float(a)})


def calibrated(rng, truth, sds, bias):
    """What a laboratory believes: every calibration with its stated error, and `bias` (in stated sd) beside."""
    values = {}
    for name, sd in sds.items():
        x = truth.value(name) + sd * (rng.standard_normal() + bias.get(name, 0.0))
        values[name] = float(min(max(x, 0.02), 0.995)) if name in BOUNDED else float(x)
    priors = {name: Prior(mean=x, sd=sds[name]) for name, x in values.items()}
    return replace(truth.with_values(values), priors=priors, name="calibrated")


def believed(rng, experiment):
    """Stated errors: those of the experiment, or, every other time, a good laboratory's."""
    sds = {n: p.sd for n, p in experiment.priors.items()}
    return sds | TIGHT if rng.random() < 0.5 else sds


def right(seed, duration_s):
    thomas, rng = Experiment.load("thomas2021"), np.random.default_rng([1, seed])
    truth = from_priors(rng, thomas)
    return Case(truth, thomas, synthesised(truth.system, duration_s, rng))


def honest(seed, duration_s):
    thomas, rng = Experiment.load("thomas2021"), np.random.default_rng([2, seed])
    truth = near(rng, thomas, 1.0, 1.05)
    experiment = calibrated(rng, truth, believed(rng, thomas), {})
    return Case(truth, experiment, synthesised(truth.system, duration_s, rng))


def power(seed, duration_s):
    """Even seeds: Table I; odd ones V = 0.90."""
    thomas, rng = Experiment.load("thomas2021"), np.random.default_rng([4, seed])
    truth = near(rng, thomas, 0.895, 0.905) if seed % 2 else thomas
    experiment = calibrated(rng, truth, {n: p.sd for n, p in thomas.priors.items()}, {})
    return Case(truth, experiment, synthesised(truth.system, duration_s, rng), "V = 0.90" if seed % 2 else "Table I")


RELATIVE = {
    "efficiency +5 %": ("detector.efficiency", 0.05),
    "link +5 %": ("link.transmission", 0.05),
    "overcoupling +3 %": ("membrane.overcoupling", 0.03),
    "broadband noise -30 %": ("spin.broadband_noise_sn", -0.3),
    "readout rate +15 %": ("spin.readout_rate_hz", 0.15),
    "coupling -8 %": ("membrane.coupling_hz", -0.08),
    "spin linewidth -15 %": ("spin.intrinsic_linewidth_hz", -0.15),
}
LEVELS = {"shot record -5 %": 0.95, "shot record +5 %": 1.05, "shot record -10 %": 0.9, "white excess 0.15 SN": 1.0}


def biased(seed, duration_s):
    thomas, rng = Experiment.load("thomas2021"), np.random.default_rng([3, seed])
    truth = near(rng, thomas, 1.0, 1.05)
    sds = believed(rng, thomas)
    found = [str(x) for x in rng.choice([*RELATIVE, *LEVELS], rng.integers(1, 3), replace=False)]
    bias, shot = {}, 1.0
    for name in found:
        if name in RELATIVE:
            path, part = RELATIVE[name]
            bias[path] = part * truth.value(path) / sds[path]
        elif "excess" in name:
            truth = truth.with_values({"detector.excess_noise_sn": 0.15})
            bias["detector.excess_noise_sn"] = -0.15 / 0.02
        else:
            shot *= LEVELS[name]
    experiment = calibrated(rng, truth.with_values({"detector.excess_noise_sn": 0.0}), sds, bias)
    return Case(truth, experiment, synthesised(truth.system, duration_s, rng), " and ".join(found), bias, shot)


# -- faults -----------------------------------------------------------------------------------------------------------


def drifting(truth, path, change, duration_s, rng, pieces=20):
    """A record whose field moves from -change/2 to +change/2, in steps."""
    value = truth.value(path)
    at = value + change * ((np.arange(pieces) + 0.5) / pieces - 0.5)
    return np.concatenate(
        [synthesised(truth.with_values({path: float(x)}).system, duration_s / pieces, rng) for x in at]
    )


def laser(center_hz, width_hz, peak_sn):
    """Amplitude noise on the light that drives the membrane and is detected."""
    return TechnicalNoise.from_table(
        "laser",
        {"angle_deg": 0.0, "lines": [{"name": "a", "center_hz": center_hz, "width_hz": width_hz, "peak_sn": peak_sn}]},
        "audit",
    )


def before(truth, element, name):
    i = [e.name for e in truth.elements].index(name)
    return replace(truth, elements=(*truth.elements[:i], element, *truth.elements[i:]))


def _gaps(y, rng):
    """Two gaps of 5 % each."""
    y, length = y.copy(), y.size // 20
    for k in range(2):
        start = int(rng.integers(k * y.size // 2, (k + 1) * y.size // 2 - length))
        y[start : start + length] = np.nan
    return y


def _lowpassed(y, corner_hz):
    f = np.fft.rfftfreq(y.size, 1 / RATE)
    return np.fft.irfft(np.fft.rfft(y) / (1 - 1j * f / corner_hz), y.size)


def _glitches(y, rng):
    y = y.copy()
    y[rng.integers(0, y.size, y.size // 100_000)] += 15 * np.std(y)
    return y


def _clipped(y):
    top = np.quantile(np.abs(y), 0.99)
    return np.clip(y, -top, top)


def _hum(y):
    return y + 0.3 * np.std(y) * np.sin(2 * np.pi * 150.0 * np.arange(y.size) / RATE)


def _bent(y):
    x = y / np.std(y)
    return np.std(y) * (x - 0.01 * x**3)


FAULTS = {
    "efficiency +5 %": dict(bias={"detector.efficiency": 0.05}),
    "efficiency -5 %": dict(bias={"detector.efficiency": -0.05}),
    "phase +5 deg": dict(bias={"phase.angle_deg": 5.0}, absolute=True),
    "phase -5 deg": dict(bias={"phase.angle_deg": -5.0}, absolute=True),
    **{f"shot record {x:+.0f} %": dict(shot=1 + x / 100) for x in (-10, -5, -3, 3, 5, 10)},
    **{f"white excess {x:g} SN": dict(truth={"detector.excess_noise_sn": x}) for x in (0.05, 0.1, 0.15, 0.2, 0.3)},
    "line of 500 Hz at the detector": dict(system=lambda t: before(t, laser(1.42e6, 500.0, 3.0), "detector")),
    "laser noise that drives": dict(system=lambda t: before(t, laser(1.362e6, 3e3, 1.0), "membrane")),
    "neighbouring mechanical mode": dict(neighbour=True),
    "dynamical broadband noise": dict(dynamical=True),
    "Larmor drift 5 kHz": dict(drift=("spin.larmor_hz", 5e3)),
    "mechanical drift 3 kHz": dict(drift=("membrane.mechanical_hz", 3e3)),
    "spin number drift 30 %": dict(drift=("spin.readout_rate_hz", 6e3)),
    "local oscillator drift 5 %": dict(then=lambda y, rng: y * np.linspace(0.975, 1.025, y.size) ** 0.5),
    "clipping of 1 %": dict(then=lambda y, rng: _clipped(y)),
    "glitches": dict(then=_glitches),
    "hum": dict(then=lambda y, rng: _hum(y)),
    "gaps of 10 %": dict(then=_gaps),
    "anti-alias pole at 4 MHz": dict(then=lambda y, rng: _lowpassed(y, 4e6)),
    "nonlinear detector": dict(then=lambda y, rng: _bent(y)),
}
"""What is wrong in a record of Table I or in what is believed of it; `gaps` are none, and must pass."""


def faults(seed, duration_s):
    """Fault number seed mod their count, record seed over their count."""
    name = list(FAULTS)[seed % len(FAULTS)]
    plan = FAULTS[name]
    thomas, rng = Experiment.load("thomas2021"), np.random.default_rng([5, seed])
    sds = {n: p.sd for n, p in thomas.priors.items()} | TIGHT
    truth = thomas.with_values(plan.get("truth", {}))
    bias = {n: x / sds[n] * (1.0 if plan.get("absolute") else truth.value(n)) for n, x in plan.get("bias", {}).items()}
    experiment = calibrated(rng, thomas, sds, bias)
    source = plan.get("system", lambda t: t)(truth)
    if plan.get("neighbour"):
        table = truth.to_dict()
        cavity = next(e for e in table["element"] if e["name"] == "membrane")
        cavity["modes"] = [
            {"name": "second", "mechanical_hz": 1.40e6, "mechanical_linewidth_hz": 2e-3, "coupling_hz": 1.5e4,
             "bath_occupation": 1.7e5}
        ]  # fmt: skip
        source = Experiment.from_toml(toml.write(table))
    if plan.get("dynamical"):
        source = _dynamical(truth)
    if "drift" in plan:
        y = drifting(truth.resolved(), *plan["drift"], duration_s, rng)
    else:
        y = synthesised(source.system, duration_s, rng)
    y = plan["then"](y, rng) if "then" in plan else y
    return Case(truth, experiment, y, name, bias, plan.get("shot", 1.0))


def _dynamical(truth):
    """The broadband noise as a fast mode of the spins: 200 kHz wide, of the same density at resonance."""
    table = truth.to_dict()
    spin = next(e for e in table["element"] if e["name"] == "spin")
    noise = spin.pop("broadband_noise_sn")
    width = 2e5
    spin["broadband_linewidth_hz"] = width
    # S_bb = 2 Gamma_bb (n + 1/2)/(width/2) in units of vacuum 1/2, so that the density on resonance is the white one's
    spin["broadband_readout_rate_hz"] = noise * width / (8 * (truth.value("spin.occupation") + 0.5))
    return Experiment.from_toml(toml.write(table))


# -- running ----------------------------------------------------------------------------------------------------------

STRATA = {"right": right, "honest": honest, "biased": biased, "power": power, "faults": faults}


def outcome(stratum, seed, duration_s, quick=True):
    """One analysis as a flat row; a refusal (InputError, ModelError) is one too."""
    warnings.simplefilter("ignore")
    case = STRATA[stratum](seed, duration_s)
    shot = case.shot**0.5 * np.random.default_rng([9, seed]).standard_normal(int(duration_s * RATE))
    records = [
        Record(x, RATE, sampling="average", unit="V", name=n) for n, x in (("record", case.record), ("shot", shot))
    ]
    row = {"stratum": stratum, "seed": seed, "what": case.what, "V": variance(case.truth)}
    start = time.perf_counter()
    try:
        found = analyze(case.experiment, *records, quick=quick)
    except BackactionError as error:
        return row | {"refused": f"{type(error).__name__}: {error}"[:200], "entangled": None, "failed": []}
    q = found.quantum
    e = q["epr_variance"]
    fixed = entanglement.epr_variance(results.gaussian_state(case.truth), e["weight"], e["angle_deg"])
    return row | {
        "fixed": float(fixed) * e["best_fit"] / e["continuous_limit"],
        "value": e["value"], "sd": e["sd"], "q05": e["q05"], "q95": e["q95"], "above": e["probability_above_1"],
        "floor": q["measured_floor"]["epr_variance"], "distance": q["separable"]["distance_sd"],
        "entangled": found.entangled, "exit": found.exit_code, "failed": [t.name for t in found.tests if not t.passed],
        "p": {t.name: t.p for t in found.tests}, "expected": expected_conflict(found, case),
        "seconds": time.perf_counter() - start,
    }  # fmt: skip


def expected_conflict(found, case):
    """The largest conflict (sd) that the case's biases cause on average: C F b over its root, over calibrations and directions."""
    target, mode = found.posterior.target, found.posterior.ready.mode
    b = np.zeros(target.size)
    for i, name in enumerate(target.names):
        b[i] = -case.bias.get(name, 0.0) - (np.log(case.shot) / 0.01 if name == "calibration.scale" else 0.0)
    C, F = mode.root @ mode.root.T, mode.hessian - np.eye(target.size)
    moved = C @ F @ b
    room, (w, U) = 1 - np.diag(C), np.linalg.eigh(np.eye(target.size) - C)
    scores = [moved[room > 0.05] / np.sqrt(room[room > 0.05]), (U.T @ moved)[w > 0.05] / np.sqrt(w[w > 0.05])]
    return float(np.max(np.abs(np.concatenate(scores)), initial=0.0))


def _one(arguments):
    return outcome(*arguments)


def run(stratum, seeds, duration_s, quick=True, workers=2, say=None):
    """Rows of many cases, in processes."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    rows = []
    with ProcessPoolExecutor(workers) as pool:
        for row in pool.map(_one, [(stratum, s, duration_s, quick) for s in seeds]):
            rows.append(row)
            if say:
                say(row)
    return rows


COUNTS = {"right": 300, "honest": 500, "biased": 200, "power": 100, "faults": 10 * len(FAULTS)}
DURATIONS = {"right": 0.05, "honest": 0.1, "biased": 0.1, "power": 0.1, "faults": 0.2}
"""Analyses of each stratum and seconds of record: what `make audit` runs."""


def commit():
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--stratum", choices=list(STRATA), action="append")
    parser.add_argument("--count", type=int)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--duration", type=float, help="seconds of record")
    parser.add_argument("--nuts", action="store_true", help="full sampling")
    parser.add_argument("-o", "--output", type=Path, default=Path("audit.jsonl"), help="rows, added to the file")
    parser.add_argument("--table", type=Path, help="write the page of all rows in the file")
    parser.add_argument("--only-table", action="store_true", help="run nothing")
    given = parser.parse_args(arguments)
    begun = time.perf_counter()
    for stratum in () if given.only_table else given.stratum or STRATA:
        duration = given.duration or DURATIONS[stratum]
        seeds = range(given.first, given.first + (given.count or COUNTS[stratum]))
        with given.output.open("a") as file:

            def say(row, file=file, duration=duration):
                text = json.dumps(row | {"duration_s": duration, "quick": not given.nuts}, default=float)
                print(text, file=file, flush=True)

            run(stratum, seeds, duration, not given.nuts, say=say)
    if given.table:
        rows = [json.loads(line) for line in given.output.read_text().splitlines()]
        cpu = sum(r.get("seconds", 0.0) for r in rows)
        head = (
            f"`make audit` at commit `{commit()}`: {len(rows)} simulated analyses, seeds from {min(r['seed'] for r in rows)}, "
            f"{cpu / 3600:.1f} hours of one core in analyses"
            + (f", {(time.perf_counter() - begun) / 60:.0f} minutes in all." if not given.only_table else ".")
        )
        given.table.write_text(audit_page.table(rows, head + "\n\n" + audit_page.ABOUT))


if __name__ == "__main__":
    main()
