"""Tracking against named peers, side by side: medians of seven interleaved runs, results compared in the same script.

Prints a Markdown table of rates in million samples a second; `make bench` runs it. Timing never decides a test.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import scipy.signal

import backaction as ba
from backaction.elements import Line, TechnicalNoise
from backaction.records.formats import read_record
from backaction.records.shot_level import ShotNoise
from backaction.records.simulation import VOLT_DENSITY, Adc, simulate
from backaction.systems.sampled import steady_filter
from backaction.systems.steady import unconditional
from backaction.tracking.inputs import currents
from backaction.tracking.kalman import KalmanFilter
from backaction.tracking.run import track
from backaction.tracking.setups import setup

RUNS = 7
SIZE = 2_000_000
CALIBRATION = ShotNoise(VOLT_DENSITY, 1e-3, "V")
GAIN = np.sqrt(0.5 / VOLT_DENSITY)


def race(*functions):
    """Medians of RUNS timed calls of each function, taken in turn so that all see the same machine, after a warm-up."""
    results = [f() for f in functions]
    times = [[] for _ in functions]
    for _ in range(RUNS):
        for f, kept in zip(functions, times, strict=True):
            start = time.perf_counter()
            f()
            kept.append(time.perf_counter() - start)
    return [statistics.median(t) for t in times], results


def row(task, size, ours, peer, theirs, theirs_size, worst):
    """One line of the table."""
    a, b = size / ours / 1e6, theirs_size / theirs / 1e6
    print(f"| {task} | {a:.4g} | {peer} | {b:.4g} | {a / b:.2f} | {worst:.1e} |", flush=True)


def quadratures(experiment, source, single=False, every=1):
    """A filter at its steady state over `source`, into arrays that exist already; the call and its output."""
    record = source if isinstance(source, ba.Record) else ba.Record(source, 1e7)
    made = setup(experiment, currents([record], [VOLT_DENSITY]), "lab", every, start="steady", single=single, likelihood=False)  # fmt: skip
    out = np.empty((record.size // every, len(made.plan.read)), np.float32 if single else np.float64)
    stages = KalmanFilter(made.schedule, made.plan, made.state.copy()).stages

    def run():
        f = KalmanFilter(made.schedule, made.plan, made.state.copy())
        f.stages = stages  # models are prepared once
        f.advance(record.source, mean=out)
        return out

    return run


def sosfilt(experiment, y):
    """SciPy's compiled recursions, one for each of four quadratures, from the steady gain; float64 inside."""
    f = steady_filter(ba.sampling.discretise(experiment.system, 1e7))
    index = experiment.system.indices(experiment.reported_modes())
    sections = []
    for i in index:
        read = np.eye(len(f.gain))[[i]]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            z, p, k = scipy.signal.ss2zpk(f.closed_loop, f.gain, read @ f.closed_loop, read @ f.gain)
        sections.append(scipy.signal.zpk2sos(z, p, k))

    def run():
        return [scipy.signal.sosfilt(s, y) for s in sections]

    return run


def statsmodels(experiment, y, smoother=False):
    """Statsmodels' Cython filter of the same model; it wants uncorrelated noises, so v becomes a seventh state."""
    from statsmodels.tsa.statespace.kalman_filter import KalmanFilter
    from statsmodels.tsa.statespace.kalman_smoother import KalmanSmoother

    m = ba.sampling.discretise(experiment.system, 1e7)
    n = len(m.F)
    KN = m.N / m.R
    T = np.zeros((n + 1, n + 1))
    T[:n, :n], T[:n, n:] = m.F, KN
    noise = np.zeros((n + 1, n + 1))
    noise[:n, :n], noise[n, n] = m.Q - KN @ m.N.T, m.R[0, 0]
    start = np.zeros((n + 1, n + 1))
    start[:n, :n], start[n, n] = unconditional(experiment.system), m.R[0, 0]
    model = (KalmanSmoother if smoother else KalmanFilter)(k_endog=1, k_states=n + 1)
    model.bind(np.asfortranarray(y[None]))
    model["design"], model["transition"] = np.append(m.H[0], 1.0)[None], T
    model["selection"], model["state_cov"] = np.eye(n + 1), noise
    model.initialize_known(np.zeros(n + 1), start)
    index = experiment.system.indices(experiment.reported_modes())

    def run():
        if smoother:
            return model.smooth().smoothed_state[index]
        return model.filter().predicted_state[index, 1:]

    return run


def steady(experiment, volts):
    """The steady filter, every sample, four quadratures."""
    skip = 100_000
    f32 = volts.astype(np.float32)
    y = f32.astype(float) * GAIN
    offset = np.mean(f32.astype(float)) * GAIN
    peer = sosfilt(experiment, y - offset)
    ours = quadratures(experiment, f32)
    copied = np.empty((SIZE, 4))
    given = np.zeros((SIZE, 4))
    (a, b, c), (x, z, _) = race(ours, peer, lambda: np.copyto(copied, given))
    sd = np.std(x)
    row("steady filter, float32 to float64, 6 states", SIZE, a, "scipy sosfilt x 4", b, SIZE, np.max(np.abs(x.T - np.array(z))[:, skip:]) / sd)  # fmt: skip
    row("  the same", SIZE, a, "copying the output alone", c, SIZE, 0.0)
    adc = Adc(16, 1.0)
    counts = adc.counts(volts)
    record = ba.Record(counts, 1e7, scale=adc.step_v, limits=adc.limits)
    level = float(np.mean(counts)) * adc.step_v
    peer = sosfilt(experiment, (counts * adc.step_v - level) * GAIN)
    single = quadratures(experiment, record, single=True)
    double = quadratures(experiment, record)()
    (a, b), (x, _) = race(single, peer)
    row("steady filter, int16 to float32, 6 states", SIZE, a, "scipy sosfilt x 4", b, SIZE, np.max(np.abs(x - double)) / sd)  # fmt: skip
    small = y[:100_000] - offset
    few = statsmodels(experiment, small)
    (a, b), (_, z) = race(ours, few)
    found = track(experiment, ba.Record(f32[:100_000], 1e7), CALIBRATION, "lab", 1)
    level = np.mean(f32[:100_000].astype(float)) * GAIN
    z = statsmodels(experiment, y[:100_000] - level)()
    row("steady filter, float32 to float64, 6 states", SIZE, a, "statsmodels KalmanFilter", b, small.size, np.max(np.abs(found.mean.T - z)) / sd)  # fmt: skip
    line = TechnicalNoise(name="laser", lines=(Line(name="line", center_hz=1.359e6, width_hz=500.0, peak_sn=10.0),))
    elements = list(experiment.elements)
    elements.insert(3, line)
    nuisance = replace(experiment, elements=tuple(elements))
    assert nuisance.system.A.shape[-1] == 8
    peer = sosfilt(nuisance, y - offset)
    (a, b), (x, z) = race(quadratures(nuisance, f32), peer)
    exact = _long_double(nuisance, (y - offset)[:200_000])
    row("steady filter, 8 states (a line)", SIZE, a, "scipy sosfilt x 4", b, SIZE, np.max(np.abs(x[:200_000] - exact)) / sd)  # fmt: skip


def _long_double(experiment, y):
    """The same recursion in extended precision, one sample at a time, from zero."""
    f = steady_filter(ba.sampling.discretise(experiment.system, 1e7))
    F, K = f.closed_loop.astype(np.longdouble), f.gain[:, 0].astype(np.longdouble)
    index = experiment.system.indices(experiment.reported_modes())
    x, out = np.zeros(len(K), np.longdouble), np.empty((y.size, len(index)))
    for k, value in enumerate(y):
        x = F @ x + K * value
        out[k] = x[index]
    return out


def whole(experiment, volts):
    """From file to decimated output; two records on two threads; exact start, smoother, simulation."""
    adc = Adc(16, 1.0)
    folder = Path(tempfile.mkdtemp())
    files = [folder / f"r{k}.h5" for k in range(2)]
    record = simulate(experiment, 2.0, 1e7, seed=1, adc=adc).record  # two seconds of data
    for file in files:
        with h5py.File(file, "w") as h:
            data = h.create_dataset("photocurrent", data=record.source)
            data.attrs.update({"sample_rate_hz": 1e7, "unit": "V", "sampling": "average", "scale": adc.step_v})
    options = {"innovations": False, "start": "steady"}

    def memory(k=0):
        return track(experiment, record, CALIBRATION, "rotating", 64, **options)

    def disk(k=0):
        return track(experiment, read_record(files[k]), CALIBRATION, "rotating", 64, output=folder / f"t{k}.h5", **options)  # fmt: skip

    def two(one):
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(one, range(2)))

    (a, b, c, d), (x, z, _, _) = race(disk, memory, lambda: two(disk), lambda: two(memory))
    size = record.size
    row("HDF5 to decimated HDF5, int16, 2e7 samples", size, a, "the same in memory", b, size, np.max(np.abs(x.mean - z.mean)))  # fmt: skip
    row("two such records in memory on two threads", 2 * size, d, "one on one", b, size, 0.0)
    row("two such files on two threads", 2 * size, c, "one on one", a, size, 0.0)
    for count, name in ((100_000, "1e5"), (1_000_000, "1e6")):
        y = volts[:count]
        level = np.mean(y)

        def exact(y=y):
            return track(experiment, ba.Record(y, 1e7), CALIBRATION, "lab", 1)

        (a, b), (x, z) = race(exact, statsmodels(experiment, (y - level) * GAIN))
        row(f"exact time-varying start, {name} samples", count, a, "statsmodels KalmanFilter", b, count, np.max(np.abs(x.mean.T - z)) / np.std(z))  # fmt: skip

        def smoothed(y=y):
            return track(experiment, ba.Record(y, 1e7), CALIBRATION, "lab", 1, estimate="smoothed")

        # theirs is of x_k given everything, ours of x_{k+1}; theirs keeps all covariances: a tenth of the long record for it
        few = y[:100_000]
        (a, b), (x, _) = race(smoothed, statsmodels(experiment, (few - level) * GAIN, smoother=True))
        z = statsmodels(experiment, (few - np.mean(few)) * GAIN, smoother=True)()
        same = track(experiment, ba.Record(few, 1e7), CALIBRATION, "lab", 1, estimate="smoothed")
        row(f"smoother, {name} samples", count, a, "statsmodels KalmanSmoother, 1e5 samples", b, few.size, np.max(np.abs(same.mean[:-1].T - z[:, 1:])) / np.std(z))  # fmt: skip

    def draw():
        return simulate(experiment, 0.2, 1e7, seed=1).record

    (a,), _ = race(draw)
    print(f"| simulation of a record | {SIZE / a / 1e6:.4g} | | | | |", flush=True)


def first_use():
    """Seconds until the first track of a process is there, compiled code kept from before."""
    code = (
        "import numpy as np, backaction as ba, time\n"
        "from backaction.records import ShotNoise\nfrom backaction.tracking import track\n"
        "track(ba.Experiment.load('thomas2021'), ba.Record(np.random.default_rng(0).standard_normal(100000), 1e7), "
        "ShotNoise(1e-7, 1e-3, 'V'))"
    )
    times = []
    with tempfile.TemporaryDirectory() as cache:  # empty: the first run compiles everything
        for _ in range(4):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "BACKACTION_CACHE": cache})
            times.append(time.perf_counter() - start)
    print(f"\nfirst use in a process (interpreter, imports, 1e5 samples): {statistics.median(times[1:]):.2f} s; before anything is compiled or kept {times[0]:.2f} s")  # fmt: skip


def main():
    """Print the table."""
    experiment = ba.Experiment.load("thomas2021")
    volts = np.asarray(simulate(experiment, SIZE / 1e7, 1e7, seed=1).record.source)
    print("| task | ours (M samples/s) | peer | peer (M samples/s) | ours/peer | largest difference (sd) |")
    print("|---|---|---|---|---|---|")
    steady(experiment, volts)
    whole(experiment, volts)
    first_use()


if __name__ == "__main__":
    main()
