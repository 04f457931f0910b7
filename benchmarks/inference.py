"""Inference against named peers, side by side in one run: `python benchmarks/inference.py` (docs/benchmarks.md).

Peers: python-control's frequency response, SciPy's, batched LAPACK solves, a modal sum in NumPy, JAX (where it is installed)
through solves, with its own reverse mode; SciPy's and python-control's Riccati solvers in a loop; the affine-invariant
ensemble (emcee, 150 walkers) on the same compiled density and on one built from NumPy calls. One thread but where said.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import numpy as np

from backaction import Experiment
from backaction.experiment.derivatives import stepped
from backaction.inference.campaign import Campaign
from backaction.inference.data import simulated
from backaction.inference.diagnostics import summarised
from backaction.inference.fit import prepare
from backaction.inference.samplers import ensemble, importance, sample
from backaction.inference.target import Target
from backaction.numerics.compile import library
from backaction.numerics.complex_step import STEP
from backaction.states import entanglement
from backaction.systems import steady
from backaction.systems.response import resolvent_rows


def timed(call: Callable[[], object], least: float = 0.3) -> float:
    """Best time of one call in microseconds, over five rounds."""
    call()
    start = time.perf_counter()
    call()
    once = max(time.perf_counter() - start, 1e-7)
    count, best = max(1, int(least / 5 / once)), np.inf
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(count):
            call()
        best = min(best, (time.perf_counter() - start) / count)
    return 1e6 * best


def row(name: str, value: float, ours: float | None = None, more: str = "") -> None:
    ratio = "" if ours is None else f"{value / ours:10.1f} x ours"
    print(f"  {name:58s} {value:12.1f} us {ratio} {more}", flush=True)


def spectra() -> None:
    e = Experiment.load("thomas2021")
    system, d = e.system, e.system.detected()
    Q, N, R = system.noise()
    f = np.linspace(1.25e6, 1.49e6, 600)
    w = 2 * np.pi * f
    loops, none = library("program", "spectrum", "riccati", "likelihood", "density", n=6), np.empty(0)
    A, Qc, Nc, C, r = (np.ascontiguousarray(x) for x in (system.A, Q, N[:, 0], d.C[0], R[0]))
    S, empty = np.empty(600), np.empty((0, 0))

    def ours() -> None:
        loops.noise_density(A, Qc, Nc, r[0], C, empty, w, none, none, S, none, empty)

    # what the fit does: fields -> matrices -> bins -> likelihood, and back (one point in a bin; aliases are 24 points more)
    fields = list(e.priors)
    record = simulated("r", e, (1.25e6, 1.49e6), 1.0, 1, 400.0)
    target = Target(Campaign("c", (replace(record, line_hz=1e9),), e.priors))
    run, at = target.evaluator(), np.zeros(target.size)
    assert target.likelihood.data[0].size == 600

    V, out, g, one = np.empty((6, 6)), np.zeros((7, 13)), np.ones(600), np.zeros(target.tape.memory.size)
    codes, memory = target.tape.arrays, target.tape.memory.copy()

    def ours_gradient() -> None:
        loops.forward(*codes, memory)
        ours()
        loops.lyapunov_doubling(A, Qc, V)
        loops.noise_density(A, Qc, Nc, r[0], C, V, w, none, none, S, g, out)
        one[target.tape.outputs] = 1.0
        loops.reverse(*codes, memory, one)

    def lapack() -> np.ndarray:
        left = resolvent_rows(system.A, d.C, -1j * w)
        return np.real((left @ Q @ np.conj(np.swapaxes(left, -1, -2)))[:, 0, 0] + 2 * (left @ N)[:, 0, 0]) + R[0, 0]

    def modal() -> np.ndarray:
        values, vectors = np.linalg.eig(system.A)
        rows = (d.C @ vectors)[0]
        inverse = np.linalg.inv(vectors)
        q, k = inverse @ Q @ inverse.conj().T, (inverse @ N)[:, 0]
        left = rows / (-1j * w[:, None] - values)
        return np.real(np.einsum("fi,fi->f", left @ q, left.conj()) + 2 * left @ k) + R[0, 0]

    base = timed(ours)
    print("\none 600-point spectrum of thomas2021 (6 states, 12 inputs), all sources together")
    row("backaction", base)
    row("modal sum, NumPy", timed(modal), base)
    row("batched LAPACK solves, NumPy", timed(lapack), base)
    import control
    from scipy import signal

    root = np.linalg.cholesky(system.S + 1e-300 * np.eye(len(system.S)))
    full = control.ss(system.A, system.B @ root, d.C, d.D @ root)
    row("python-control, frequency_response", timed(lambda: full(1j * w), 0.1), base)
    inputs = [
        signal.StateSpace(system.A, (system.B @ root)[:, [k]], d.C, (d.D @ root)[:, [k]]) for k in range(root.shape[0])
    ]
    row("SciPy, freqresp for every input", timed(lambda: [signal.freqresp(s, w) for s in inputs], 0.1), base)
    own, value = timed(lambda: run.gradient(at)), timed(lambda: run.density(at))
    row("backaction, from 16 fields to the Gamma likelihood", value)
    print(f"  {'backaction, the same with its gradient':58s} {own:12.1f} us   {own / value:.1f} x the value alone")
    bare = timed(ours_gradient)
    print(
        f"  {'backaction, fields to spectrum and back, no likelihood':58s} {bare:12.1f} us   {bare / base:.1f} x the value alone"
    )
    jax_rows(system, Q, N, R, d.C, w, base, fields, e, bare)

    def differences() -> None:
        for k in fields:
            moved = e.with_values({k: float(e.value(k)) * (1 + 1e-6)}).system
            resolvent_rows(moved.A, moved.detected().C, -1j * w)

    row("finite differences, builders and LAPACK", timed(differences, 0.2), own)
    row("complex step of the builders alone", timed(lambda: stepped(e, fields), 0.2), own)
    exceptional(e, w, loops)


def jax_rows(system, Q, N, R, C, w, base, fields, e, own) -> None:  # type: ignore[no-untyped-def]
    try:
        import jax
        import jax.numpy as jnp
    except ImportError:
        print("  JAX: not installed here, left out")
        return
    jax.config.update("jax_enable_x64", True)
    n = system.A.shape[-1]

    def spectrum(A, Q, N, R, C):  # type: ignore[no-untyped-def]
        def one(x):  # type: ignore[no-untyped-def]
            left = jnp.linalg.solve((-1j * x * jnp.eye(n) - A).T, C[0].astype(complex))
            return jnp.real(left @ Q @ left.conj() + 2 * left @ N[:, 0]) + R[0, 0]

        return jax.vmap(one)(jnp.asarray(w))

    args = tuple(jnp.asarray(x) for x in (system.A, Q, N, R, C))
    value = jax.jit(spectrum)
    row("JAX, vmap of solves, compiled", timed(lambda: value(*args).block_until_ready()), base)
    step = stepped(e, fields)
    Qs, Ns, Rs = step.noise()
    tangents = [
        np.broadcast_to(np.imag(x) / STEP, (len(fields), *x.shape[1:])) for x in (step.A, Qs, Ns, Rs, step.detected().C)
    ]

    def total(theta):  # type: ignore[no-untyped-def]
        moved = [a + jnp.tensordot(theta, t, 1) for a, t in zip(args, tangents, strict=True)]
        return jnp.sum(spectrum(*moved))

    slope = jax.jit(jax.value_and_grad(total))
    zero = jnp.zeros(len(fields))
    row(
        "JAX, value and gradient (matrices linear in the fields)",
        timed(lambda: slope(zero)[1].block_until_ready()),
        own,
    )


def exceptional(e: Experiment, w: np.ndarray, loops) -> None:  # type: ignore[no-untyped-def]
    """Errors where the spin's pole meets the mechanical one, against 40 digits."""
    import mpmath as mp

    f, width = e.element("membrane").effective_mechanics()
    e = e.with_values({"spin.tensor_ratio": 0.0, "spin.intrinsic_linewidth_hz": float(width)})
    e = e.with_values({"spin.larmor_hz": -float(np.sqrt(f**2 - (width / 2) ** 2))})
    system = e.system
    Q, N, R = system.noise()
    C, w = system.detected().C, w[::20]
    S = np.empty(w.size)
    parts = [np.ascontiguousarray(x) for x in (system.A, Q, N[:, 0])]
    loops.noise_density(
        *parts,
        R[0, 0],
        np.ascontiguousarray(C[0]),
        np.empty((0, 0)),
        w,
        np.empty(0),
        np.empty(0),
        S,
        np.empty(0),
        np.empty((0, 0)),
    )
    values, vectors = np.linalg.eig(system.A)
    inverse = np.linalg.inv(vectors)
    left = (C @ vectors)[0] / (-1j * w[:, None] - values)
    modal = (
        np.real(
            np.einsum("fi,fi->f", left @ (inverse @ Q @ inverse.conj().T), left.conj()) + 2 * left @ (inverse @ N)[:, 0]
        )
        + R[0, 0]
    )
    exact = []
    with mp.workdps(40):
        a, c, q, k = (mp.matrix(x.tolist()) for x in (system.A, C, Q, N))
        for x in w:
            row_ = mp.lu_solve((-1j * mp.mpf(float(x)) * mp.eye(6) - a).T, c.T).T
            exact.append((row_ * q * row_.H)[0].real + 2 * (row_ * k)[0].real + mp.mpf(float(R[0, 0])))
    error = [max(abs(float(mp.mpf(float(v)) / x - 1)) for v, x in zip(s, exact, strict=True)) for s in (S, modal)]
    print(f"  relative error at the exceptional point: backaction {error[0]:.1e}, modal sum {error[1]:.1e}")


def states() -> None:
    from scipy.linalg import solve_continuous_are

    e = Experiment.load("thomas2021")
    c = Campaign("c", (simulated("r", e, e.band_hz, 0.2, 1, 2e3),), e.priors)
    target = Target(c)
    count = 10000
    u = 0.3 * np.random.default_rng(0).standard_normal((count, target.size))
    systems = target.systems(0)
    systems.conditional(u[:10])

    def ours() -> None:
        entanglement.epr(systems.conditional(u))

    base = timed(ours, 2.0) / count
    s, d = e.system, e.system.detected()
    Q, N, R = s.noise()
    print("\nconditional covariance and least EPR variance, per system in batches of 10,000 (16 fields each)")
    row("backaction, from the fields", base)
    V = np.empty((6, 6))
    args = [np.ascontiguousarray(x) for x in (s.A, Q, N[:, 0])]
    C = np.ascontiguousarray(d.C[0])
    row(
        "backaction, the solver alone",
        timed(lambda: library("riccati", n=6).riccati_doubling(*args, R[0, 0], C, V)),
        base,
    )
    row(
        "SciPy solve_continuous_are in a loop (matrices given)",
        timed(lambda: solve_continuous_are(s.A.T, d.C.T, Q, R, s=N)),
        base,
    )
    import control

    row("python-control care in a loop", timed(lambda: control.care(s.A.T, d.C.T, Q, R, N, np.eye(6))), base)
    batch = e.with_values({"spin.occupation": np.linspace(0.5, 1.0, 1000)}).system
    row(
        "NumPy, subspaces and Newton steps (backaction.systems.steady)",
        timed(lambda: steady.conditional(batch), 1.0) / 1000,
        base,
    )
    ev = target.evaluator()
    full = Target(Campaign("c", (simulated("r", e, e.band_hz, 0.2, 1, 400.0),), e.priors)).evaluator()
    row("the likelihood of one spectrum of 120 bins", timed(lambda: ev.density(u[0])), base)
    row("the likelihood of one spectrum of 600 bins", timed(lambda: full.density(u[0])), base)


def joint_fit() -> None:
    e = Experiment.load("thomas2021")
    offsets = np.linspace(-3, 3, 8)
    vary = dict.fromkeys(
        ("spin.larmor_offset_linewidths", "phase.angle_deg", "membrane.detuning_hz", "membrane.coupling_hz")
    )
    records = tuple(
        replace(simulated(f"d{k}", e.overridden({"spin.larmor_offset_linewidths": x}), e.band_hz, 0.2, k, 800.0), calibrated_by="one",
                fixed=("spin.larmor_offset_linewidths",)) for k, x in enumerate(offsets)
    )  # fmt: skip
    campaign = Campaign("eight", records, e.priors, vary)
    print("\njoint fit of 8 spectra x 300 bins")
    start = time.perf_counter()
    ready = prepare(campaign)
    first = time.perf_counter() - start
    target, mode = ready.target, ready.mode
    fine = ready.fine
    print(
        f"  {target.size} parameters; maximum found in {first:.1f} s; {sum(b.white.size for b in target.bins)} merged bins"
    )
    run = fine.evaluator()
    value, slope = timed(lambda: run.density(mode.u)), timed(lambda: run.gradient(mode.u))
    print(f"  density {value:.0f} us, with gradient {slope:.0f} us ({slope / value:.1f} x) on all bins")
    start = time.perf_counter()
    quick = importance(target, mode, 4000, 0)
    quick_s = time.perf_counter() - start
    print(f"  quick answer (importance sampling): {quick_s:.1f} s, k = {quick.facts['pareto_k']:.2f}, "
          f"{quick.facts['effective_draws'] / quick_s:.0f} effective draws/s; all in {first + quick_s:.1f} s")  # fmt: skip
    import nutpie  # noqa: F401

    start = time.perf_counter()
    draws = sample(target, mode, "nuts", 1000, 4, 0, cores=2)
    nuts_s = time.perf_counter() - start
    stats = [summarised(draws.u[..., i]) for i in range(target.size)]
    least = min(s["ess_bulk"] for s in stats)
    print(f"  NUTS, 4 chains on 2 cores: {nuts_s:.1f} s, least bulk ESS {least:.0f}, R-hat {max(s['rhat'] for s in stats):.4f}, "
          f"{least / nuts_s:.0f} ESS/s; all in {first + nuts_s:.1f} s")  # fmt: skip
    start = time.perf_counter()
    crowd = ensemble(target, mode, 150 * 3000, seed=0, burn=1000)
    crowd_s = (time.perf_counter() - start) * 3000 / 4000
    tau = crowd.facts["autocorrelation_steps"]
    rate = crowd.u.shape[0] * crowd.u.shape[1] / tau / crowd_s
    print(f"  ensemble, {crowd.u.shape[0]} walkers x 3000 on the same density: {crowd_s:.0f} s, autocorrelation {tau:.0f} steps, "
          f"{rate:.1f} ESS/s: NUTS is {least / nuts_s / rate:.0f} x")  # fmt: skip

    def plain() -> float:
        total = -0.5 * float(mode.u @ mode.u)
        for k, r in enumerate(fine.campaign.records):
            s = fine.experiment(k, mode.u).system
            Q, N, R = s.noise()
            left = resolvent_rows(s.A, s.detected().C, -2j * np.pi * r.spectrum.frequency_hz)
            mu = 2 * (
                np.real((left @ Q @ np.conj(np.swapaxes(left, -1, -2)))[:, 0, 0] + 2 * (left @ N)[:, 0, 0]) + R[0, 0]
            )
            total -= float(np.sum(r.averages * (np.log(mu) + r.density_sn / mu)))
        return total

    slow, own = timed(plain), timed(lambda: target.evaluator().density(mode.u))
    share = (crowd_s * 1e6 / (crowd.u.shape[0] * 3000) - own + slow) / (crowd_s * 1e6 / (crowd.u.shape[0] * 3000))
    print(f"  a plain NumPy density costs {slow / 1e3:.1f} ms: the ensemble on it {rate / share:.2f} ESS/s, NUTS is "
          f"{least / nuts_s / (rate / share):.0f} x")  # fmt: skip


if __name__ == "__main__":
    spectra()
    states()
    joint_fit()
