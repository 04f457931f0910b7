"""Benchmarks against named peers: medians of seven, side by side in one run, with the results compared in the same script.

Prints a Markdown table; `make bench` runs it. Timing never decides a test.
"""

import statistics
import time

import numpy as np
import scipy.linalg
import scipy.optimize
import scipy.signal

import backaction as ba
from backaction.records.shot_level import ShotNoise
from backaction.records.simulation import VOLT_DENSITY
from backaction.systems import steady
from backaction.tracking.run import track
from backaction.tracking.setups import sampled_filter

RUNS = 7


def clock(function):
    """Median of RUNS timed calls after one warm-up."""
    result = function()
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times), result


def riccati_batch(experiment):
    """1000 conditional states in one call against scipy's solver in a loop."""
    batch = experiment.with_values({"phase.angle_deg": np.linspace(170, 190, 1000)}).build()
    ours, V = clock(lambda: steady.conditional(batch).covariance)
    Q, N, R = batch.noise()
    C = batch.detected().C
    rate = 1e6

    def loop():
        full = (
            np.broadcast_to(batch.A, (1000, 6, 6)),
            np.broadcast_to(C, (1000, 1, 6)),
            *(np.broadcast_to(x, (1000, *x.shape[-2:])) for x in (Q, N, R)),
        )
        return np.array([
            scipy.linalg.solve_continuous_are((A / rate).T, c.T / rate**0.5, q / rate, r, s=n / rate**0.5)
            for A, c, q, n, r in zip(*full, strict=True)
        ])  # fmt: skip

    theirs, W = clock(loop)
    return (
        "1000 Riccati equations, n = 6",
        ours,
        "scipy.linalg.solve_continuous_are, loop",
        theirs,
        np.max(np.abs(V - W)) / np.max(np.abs(V)),
    )


def optimised_map(experiment):
    """900 optima over two angles: all at once with exact gradients against scipy's L-BFGS-B with differences, one start each."""
    from backaction.design.sweeps import sweep

    e = ba.Experiment.load("huang2018")
    xi = "unconditional.epr_readout.variance"
    over = {"spin.coupling_angle_deg": (40.0, 60.0), "membrane.coupling_angle_deg": (46.0, 90.0)}
    axes = {"spin.readout_rate_hz": np.geomspace(1e5, 5e6, 30), "membrane.readout_rate_hz": np.geomspace(1e5, 5e6, 30)}
    start = time.perf_counter()
    data = sweep(e, axes, [xi], optimize=over)
    ours = time.perf_counter() - start
    few = [(i, j) for i in (3, 15, 27) for j in (3, 15, 27)]

    def one(i, j):
        here = e.with_values({k: v[n] for (k, v), n in zip(axes.items(), (i, j), strict=True)})

        def function(x):
            try:
                return float(ba.evaluate(xi, here.with_values(dict(zip(over, x, strict=True)))))
            except ba.BackactionError:
                return 1e6

        return scipy.optimize.minimize(
            function, [45.5, 70.0], bounds=list(over.values()), method="L-BFGS-B", options={"ftol": 1e-14}
        ).fun

    start = time.perf_counter()
    values = [one(i, j) for i, j in few]
    theirs = (time.perf_counter() - start) / len(few) * 900
    best = [float(data[xi].values[i, j]) for i, j in few]
    worst = max(b / v - 1 for b, v in zip(best, values, strict=True))  # <= 0: ours is never worse
    return (
        "900 optima over 2 angles (16 starts)",
        ours,
        "scipy L-BFGS-B, differences, 1 start (9 timed)",
        theirs,
        max(worst, 0.0),
    )


def lyapunov_batch(experiment):
    """1000 unconditional states in one call against scipy's solver in a loop."""
    batch = experiment.with_values({"phase.angle_deg": np.linspace(170, 190, 1000)}).build()
    ours, V = clock(lambda: steady.unconditional(batch))
    A, Q = np.broadcast_to(batch.A, (1000, 6, 6)), np.broadcast_to(batch.noise()[0], (1000, 6, 6))
    theirs, W = clock(
        lambda: np.array([scipy.linalg.solve_continuous_lyapunov(a, -q) for a, q in zip(A, Q, strict=True)])
    )
    return (
        "1000 Lyapunov equations, n = 6",
        ours,
        "scipy.linalg.solve_continuous_lyapunov, loop",
        theirs,
        np.max(np.abs(V - W)) / np.max(np.abs(V)),
    )


def gradient(experiment):
    """Exact gradient of the conditional EPR variance over 17 fields against central differences of the same function."""
    fields = [f for f in experiment.fields() if f not in ("detector.electronic_noise_sn", "membrane.mode_matching")]
    ours, G = clock(lambda: ba.gradient("conditional.epr.variance", experiment, fields))

    def differences():
        out = []
        for f in fields:
            x = float(experiment.value(f))
            h = 1e-5 * abs(x)
            up, down = (
                ba.evaluate("conditional.epr.variance", experiment.with_values({f: x + k * h})) for k in (1, -1)
            )
            out.append((up - down) / (2 * h))
        return np.array(out)

    theirs, D = clock(differences)
    scale = np.array([abs(float(experiment.value(f))) for f in fields])
    return (
        f"gradient over {len(fields)} fields",
        ours,
        "central differences",
        theirs,
        np.max(np.abs((G - D) * scale)) / np.max(np.abs(G * scale)),
    )


GRID = {"spin.readout_rate_hz": np.linspace(15e3, 25e3, 400), "phase.angle_deg": np.linspace(170, 190, 250)}
"""A hundred thousand points."""


def swept_map(experiment, workers=1):
    """A sweep, all in (build, solve, measure), against SciPy's solver alone in a loop over matrices that are there already."""
    few = {k: v[:: len(v) // 25] for k, v in GRID.items()}
    ba.sweep(experiment, few, ["conditional.epr.variance"], workers=workers)  # compiled code is loaded
    times = []
    for _ in range(3):
        start = time.perf_counter()
        data = ba.sweep(experiment, GRID, ["conditional.epr.variance"], workers=workers)
        times.append(time.perf_counter() - start)
    ours, n = statistics.median(times), 400
    x, y = (v.ravel()[:: 100_000 // n] for v in np.meshgrid(*GRID.values(), indexing="ij"))
    batch = experiment.with_values(dict(zip(GRID, (x, y), strict=True))).build()
    Q, N, R = (np.broadcast_to(m, (n, *m.shape[-2:])) for m in batch.noise())
    A, C, rate = np.broadcast_to(batch.A, (n, 6, 6)), np.broadcast_to(batch.detected().C, (n, 1, 6)), 1e6

    def loop():
        return np.array([
            scipy.linalg.solve_continuous_are((a / rate).T, c.T / rate**0.5, q / rate, r, s=m / rate**0.5)
            for a, c, q, m, r in zip(A, C, Q, N, R, strict=True)
        ])  # fmt: skip

    theirs, V = clock(loop)
    index = batch.indices(experiment.reported_modes())
    want = ba.epr(V[:, index][:, :, index]).variance
    got = data["conditional.epr.variance"].values.ravel()[:: 100_000 // n]
    name = f"100,000-point sweep of V_c's EPR variance, {workers} thread{'s' if workers > 1 else ''}"
    return (
        name,
        ours,
        "scipy.linalg.solve_continuous_are, loop, alone",
        theirs * 100_000 / n,
        np.max(np.abs(got / want - 1)),
    )


def two_threads(experiment):
    """The same on two threads."""
    return swept_map(experiment, 2)


def many_gradients(experiment):
    """10,000 gradients over 12 fields against one point at a time, LAPACK."""
    fields = list(experiment.priors)[:12]
    rng = np.random.default_rng(0)
    values = {f: float(experiment.value(f)) * rng.uniform(0.98, 1.0, 10_000) for f in fields}
    ours, G = clock(lambda: ba.gradient("conditional.epr.variance", experiment.with_values(values), fields))
    singles = [experiment.with_values({f: float(v[k]) for f, v in values.items()}) for k in range(40)]
    theirs, D = clock(lambda: np.array([ba.gradient("conditional.epr.variance", e, fields) for e in singles]))
    worst = np.max(np.abs(G[:40] - D) / np.max(np.abs(D), axis=1, keepdims=True))
    return "10,000 gradients over 12 fields", ours, "ours, point by point (40 timed)", theirs * 250, worst


def tracking(experiment):
    """One million samples to innovations and decimated means against scipy.signal.lfilter on the innovations alone."""
    record = ba.simulate(experiment, 0.1, 1e7, seed=1).record
    calibration = ShotNoise(VOLT_DENSITY, 1e-3, "V")
    ours, found = clock(lambda: track(experiment, record, calibration, "lab", 64))
    f = sampled_filter(experiment.system, record)
    # innovations as one transfer function: 1 - H (z - F)^-1 K
    b, a = scipy.signal.ss2tf(f.closed_loop, f.gain, -f.model.H, np.eye(1))
    y = (record.values() - np.mean(record.values())) * np.sqrt(0.5 / VOLT_DENSITY)
    theirs, e = clock(lambda: scipy.signal.lfilter(b[0], a, y))
    worst = np.max(np.abs(found.innovation / np.sqrt(1e-7 / 0.5) - e)) / np.std(e)
    return "filter, 1e6 samples, 6 states", ours, "scipy.signal.lfilter, innovations only", theirs, worst


def main():
    """Print the table."""
    experiment = ba.Experiment.load("thomas2021")
    print("| task | ours (ms) | peer | peer (ms) | peer/ours | largest relative difference |")
    print("|---|---|---|---|---|---|")
    for case in (
        lyapunov_batch,
        riccati_batch,
        swept_map,
        two_threads,
        gradient,
        many_gradients,
        tracking,
        optimised_map,
    ):
        task, ours, peer, theirs, worst = case(experiment)
        print(
            f"| {task} | {1e3 * ours:.2f} | {peer} | {1e3 * theirs:.2f} | {theirs / ours:.1f} | {worst:.1e} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
