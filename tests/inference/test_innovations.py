"""Likelihood kind `innovations`: against dense normal distributions, central differences, and truths that are known."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from backaction import Campaign, Experiment, InputError, Prior, Record, infer, simulate
from backaction.experiment.assumptions import Assumptions
from backaction.experiment.program import entries
from backaction.inference.choice import RESOLVED, compared
from backaction.inference.data import Measured
from backaction.inference.fit import prepare
from backaction.inference.innovations import Innovations, SampleModel
from backaction.inference.scatter import Likelihood
from backaction.inference.series import SamplingTables
from backaction.inference.target import Target
from backaction.numerics.compile import library
from backaction.records.shot_level import ShotNoise
from backaction.records.simulation import VOLT_DENSITY
from backaction.records.taken import taken
from backaction.systems.sampled import Digitiser
from backaction.tracking.inputs import Currents, Demodulation

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
KNOWN = ShotNoise(VOLT_DENSITY, 1e-3, "V")


@pytest.fixture
def rng():
    return np.random.default_rng(7)


# -- the compiled loops against a dense normal distribution -----------------------------------------------------------


def sampled_model(n, q, rng):
    """A stable random model with correlated noise."""
    F = np.linalg.qr(rng.standard_normal((n, n)))[0] * np.exp(-0.02 * rng.uniform(0.5, 1.5, n))[:, None]
    L = 0.3 * rng.standard_normal((n + q, n + q))
    J = L @ L.T + 0.1 * np.eye(n + q)
    parts = F, rng.standard_normal((q, n)), J[:n, :n], J[:n, n:], J[n:, n:], 5 * np.eye(n) + 1
    return SampleModel(*(np.ascontiguousarray(p) for p in parts))


def dense(y, there, model):
    """Ln p of all samples at once: their joint covariance, factorised."""
    F, H, Q, N, R, P = (np.asarray(m) for m in model)
    T, q = y.shape
    reads = [H]  # H F^j
    for _ in range(T):
        reads.append(reads[-1] @ F)
    reads = np.concatenate(reads)
    V = np.zeros((T * q, T * q))
    for k in range(T):
        a, b = k * q, k * q + q
        V[a:b, a:b] = H @ P @ H.T + R
        V[b:, a:b] = reads[: (T - 1 - k) * q] @ (F @ P @ H.T + N)
        P = F @ P @ F.T + Q
    V = np.tril(V) + np.tril(V, -1).T
    keep = np.repeat(there, q)
    V, z = V[np.ix_(keep, keep)], y.ravel()[keep]
    L = np.linalg.cholesky(V)
    w = np.linalg.solve(L, z)
    return -0.5 * w @ w - np.sum(np.log(np.diag(L))) - 0.5 * len(z) * np.log(2 * np.pi)


@pytest.mark.parametrize(("n", "q", "size"), [(2, 2, 1000), (9, 1, 2000)])
def test_value_is_that_of_the_joint_normal_distribution(n, q, size):
    rng = np.random.default_rng(n)
    model = sampled_model(n, q, rng)
    y, there = rng.standard_normal((size, q)), np.ones(size, dtype=bool)
    assert_allclose(Innovations(y, there, n).value(model), dense(y, there, model), rtol=1e-10)
    there[[300, 301, 302, 700]] = False  # settled, then not, and settled again
    y[~there] = 0.0
    assert_allclose(Innovations(y, there, n).value(model), dense(y, there, model), rtol=1e-10)


@pytest.mark.parametrize(("n", "q"), [(2, 2), (9, 1)])
def test_gradient_is_that_of_the_joint_normal_distribution(n, q):
    """Derivatives of the dense value by a central difference of sixth order, along random directions of every matrix."""
    rng = np.random.default_rng(10 + n)
    model = sampled_model(n, q, rng)
    y, there = rng.standard_normal((240, q)), np.ones(240, dtype=bool)
    there[130:133] = False
    y[~there] = 0.0
    _, bars = Innovations(y, there, n).gradient(model)
    weights, h = {1: 3 / 4, 2: -3 / 20, 3: 1 / 60}, 1e-3  # rounding of ln p over h: 4e-9
    for k, name in enumerate(model._fields):
        D = rng.standard_normal(model[k].shape)
        D = D + D.T if name in "QRP" else D

        def at(s, k=k, D=D):
            return dense(y, there, [m + (s * D if i == k else 0) for i, m in enumerate(model)])

        want = sum(w * (at(j * h) - at(-j * h)) for j, w in weights.items()) / h
        assert_allclose(np.sum(bars[k] * D), want, rtol=1e-7)


def test_a_settled_value_and_gradient_take_little_time():
    """30 states, 1e5 samples: a tenth of a second for each 1e5 (1 s for 1e6), the gradient at most five values."""
    import time

    rng = np.random.default_rng(3)
    model = sampled_model(30, 1, rng)
    y = rng.standard_normal((100_000, 1))
    found = Innovations(y, np.ones(len(y), dtype=bool), 30)
    found.gradient(model)

    def least(run):
        times = []
        for _ in range(4):
            start = time.process_time()
            run(model)
            times.append(time.process_time() - start)
        return min(times)

    value, gradient = least(found.value), least(found.gradient)
    assert value < 0.1 * 1.5
    assert gradient < 5 * value


DIGITISERS = [
    (Digitiser(1e7), None),
    (Digitiser(1e7), Demodulation(1.37e6, 8)),
    (Digitiser(1e7, "average", (3e6, 2e6)), Demodulation(1.37e6, 16)),
    (Digitiser(1e7, "instantaneous"), Demodulation(1.37e6, 8)),
    (Digitiser(1e7, "instantaneous", (3e6,)), None),
    (Digitiser(2e6, "average", (3e5,), 1.3e6), None),
]


@pytest.mark.parametrize(("digitiser", "demodulate"), DIGITISERS)
def test_sampled_model_is_tracking_s(thomas, digitiser, demodulate):
    """F, H, Q, N, R by compiled doubling against `systems.sampled`; the adjoint against central differences of these."""
    system = thomas.system
    n = len(system.A)
    inputs = Currents(digitiser, np.ones(1), np.zeros(1), demodulate=demodulate)
    tables, loops = SamplingTables.of(n, inputs), library("riccati", "innovations", "sampling")
    A, Q, N, R, C = np.split(np.array([float(x) for x in entries(system)]), np.cumsum([n * n, n * n, n, 1]))
    J, K = np.vstack([A.reshape(n, n), C]), np.block([[Q.reshape(n, n), N[:, None]], [N[None], R[:, None]]])
    pairs, occupation = np.array([[0, 1]]), np.array([3.0])

    def run(J, K, scale, occupation):
        return loops.sampled(J, K, scale, *tables.arguments, pairs, occupation)

    got, kept = run(J, K, 1.0, occupation)
    want = inputs.model(system)
    for name, own in zip("FHQNR", got[:5], strict=True):
        theirs = getattr(want, name)
        assert_allclose(own, theirs, atol=1e-12 * np.max(np.abs(theirs)))
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal(m.shape) / np.max(np.abs(m)) for m in got]
    for k in (2, 4, 5):
        weights[k] = weights[k] + weights[k].T
    t = tables
    slopes = loops.sampled_back(kept, tuple(weights), 1.0, t.into_A, t.into, t.W, t.h, t.direct, pairs, occupation)
    directions = (rng.standard_normal(J.shape) * np.abs(J), rng.standard_normal(K.shape), 1.0, np.ones(1))
    directions = (directions[0], (directions[1] + directions[1].T) * np.abs(K), *directions[2:])
    point, h = (J, K, 1.0, occupation), 1e-6
    for k, D in enumerate(directions):
        ends = [
            sum(
                np.sum(w * m)
                for w, m in zip(
                    weights, run(*(p + s * D if i == k else p for i, p in enumerate(point)))[0], strict=True
                )
            )
            for s in (h, -h)
        ]
        assert_allclose(np.sum(slopes[k] * D), (ends[0] - ends[1]) / (2 * h), rtol=2e-4)


# -- a bead in a good vacuum ------------------------------------------------------------------------------------------


BEAD = """
name = "bead"
[analysis]
band_hz = [{low}, {high}]
[[element]]
name = "bead"
kind = "oscillator"
frequency_hz = {frequency}
intrinsic_linewidth_hz = {width}
occupation = {occupation}
readout_rate_hz = {readout}
[[element]]
name = "detector"
kind = "homodyne"
efficiency = 0.35
[prior]
"bead.frequency_hz" = {{ mean = {frequency}, sd = {spread} }}
"bead.intrinsic_linewidth_hz" = {{ median = {width}, factor = 2.0 }}
"bead.occupation" = {{ median = {occupation}, factor = 1.1 }}
"bead.readout_rate_hz" = {{ median = {readout}, factor = 1.1 }}
"detector.efficiency" = {{ mean = 0.35, sd = 0.02 }}
"""
LEVITATED = dict(frequency=104e3, spread=50.0, width=20e-6, readout=1.5e3, low=98e3, high=110e3, occupation=5.85e7)
"""20 uHz of gas at 292 K: 5.85e7 quanta."""


def bead(**other):
    return Experiment.from_toml(BEAD.format(**LEVITATED | other))


def record_of(e, duration_s, rate_hz, rng, start=None):
    """Samples of a weakly damped oscillator in its rotating frame, by a few lines of NumPy and SciPy: nothing of the package.

    z = X + iP turns at the frequency, loses half of the width in amplitude and relaxes to n + 1/2 + Gamma/(2 width) quanta;
    y = 2 sqrt(eta Gamma) X + white noise of density 1. `start` is the occupation at the start (default: stationary).
    """
    from scipy.signal import lfilter

    f, width, n, Gamma = (
        e.value(f"bead.{k}") for k in ("frequency_hz", "intrinsic_linewidth_hz", "occupation", "readout_rate_hz")
    )
    size, h = round(duration_s * rate_hz), 1 / rate_hz
    stationary = n + 0.5 + Gamma / (2 * width)
    normal = rng.standard_normal(size) + 1j * rng.standard_normal(size)
    noise = np.sqrt(stationary * -np.expm1(-2 * np.pi * width * h)) * normal
    noise[0] = np.sqrt(stationary if start is None else start) * normal[0]
    z = lfilter([1.0], [1.0, -np.exp(-np.pi * width * h)], noise)
    x = np.real(z * np.exp(-2j * np.pi * f * h * (np.arange(size) + 0.5))) * np.sinc(f * h)
    y = 2 * np.sqrt(e.value("detector.efficiency") * 2 * np.pi * Gamma) * x
    y += rng.standard_normal(size) * np.sqrt(rate_hz)
    return Record(y * np.sqrt(VOLT_DENSITY), rate_hz, "average", "V", name="own simulation")


def campaign_of(e, record):
    return Campaign.of(e, taken(e, record).spectrum, KNOWN, record.digitiser, (), record)


def test_the_campaign_s_gradient_is_that_of_its_density(rng):
    """Both starts, a gap, a front end: central differences of the value along random directions of the coordinates."""
    for start in ("free", "fitted", "stationary"):
        e = replace(bead(spread=0.5, width=0.5, occupation=2e3), assumed=Assumptions(start=start))
        record = simulate(e, 0.05, 1e6, 1, front_end_hz=(2e5,)).record
        target = Target(campaign_of(e, replace(record, gaps=((45_000, 45_300),))))
        assert ("start.bead.occupation" in target.names) == (start == "fitted")
        run, u = target.evaluator(), 0.1 * rng.standard_normal(target.size)
        D, h = rng.standard_normal(target.size), 1e-4
        ends = [run.density(u + k * h * D) for k in (2, 1, -1, -2)]
        want = (-ends[0] + 8 * ends[1] - 8 * ends[2] + ends[3]) / (12 * h)
        value, slope = run.gradient(u)
        assert_allclose(value, run.density(u), rtol=1e-12)
        assert_allclose(slope @ D, want, rtol=1e-5)


def test_a_value_is_that_of_tracking(rng):
    """The same samples, raw, against the exact filter of the record (`time_domain.log_likelihood`): another loop."""
    from backaction.inference.time_domain import log_likelihood

    e = bead(width=20.0, occupation=50.0, low=2e4, high=4e5)
    e = replace(e, assumed=Assumptions(likelihood="innovations", start="stationary"))
    record = simulate(e, 0.01, 1e6, 3).record
    campaign = campaign_of(e, record)
    assert campaign.records[0].series.y.shape == (record.size, 1)  # the band is most of the record: nothing is reduced
    target = Target(campaign)
    for u in 0.3 * rng.standard_normal((3, target.size)):
        scale = float(target.values(u)[target.names.index("calibration.scale")])
        want = log_likelihood(target.experiment(0, u), record, KNOWN, scale)
        own = target.evaluator().density(u) + 0.5 * u @ u
        assert_allclose(own, want, rtol=1e-9)


def test_the_bead_s_posterior_covers_the_truth_and_passes(rng):
    """20 uHz, 2 s at 250 kS/s: answered with a width 2,000 times too large before (by the Gamma bins)."""
    e = bead(spread=5.0)
    c = campaign_of(e, record_of(e, 2.0, 2.5e5, rng))
    assert c.records[0].starts == ("bead",)
    assert "innovations" in c.warnings[-1]
    found = infer(c, "importance", 500, 1)
    assert found.document()["checks"]["likelihood"]["bead"]["kind"] == "innovations"
    assert all(t.passed for t in found.tests if t.name != "sampler"), [t.sentence for t in found.tests]
    truth = target_scores(found.target, e)
    mode = found.ready.mode
    pulls = np.linalg.solve(mode.root, truth - mode.u)
    assert np.sum(pulls**2) < 25  # six parameters
    f = found.target.values(mode.u)[0]
    assert abs(f - 104e3) < 0.02


def target_scores(target, e):
    """Coordinates of an experiment's own values."""
    return target.scores({n: e.value(n) for n in target.names if n in e.priors} | {"calibration.scale": 1.0})


def test_what_is_chosen_and_why():
    resolved, narrow = bead(width=200.0, occupation=10.0), bead()
    record = simulate(resolved, 0.5, 5e5, 1).record
    own = Measured("r", resolved, taken(resolved, record).spectrum, KNOWN, record.digitiser)
    got = compared(own, record, resolved.priors, Likelihood())
    assert got.series is None
    assert "every line is resolved" in got.why
    # a prior that reaches to narrow lines is what counts, not its centre
    wide = {**resolved.priors, "bead.intrinsic_linewidth_hz": Prior(median=200.0, factor=10.0)}
    assert compared(own, record, wide, Likelihood()).series is not None
    assert compared(own, record, wide, Likelihood("gamma")).series is None
    assert compared(own, record, resolved.priors, Likelihood("innovations")).starts == ()
    other = replace(own, experiment=narrow)
    got = compared(other, record, narrow.priors, Likelihood())
    assert got.starts == ("bead",)
    assert "width x duration = 2.5e-06: not resolved" in got.warnings[0]
    shots = replace(record, source=np.asarray(record.source).reshape(2, -1))
    assert "shots" in compared(other, shots, narrow.priors, Likelihood()).warnings[0]
    with pytest.raises(InputError, match="shots"):
        compared(other, shots, narrow.priors, Likelihood("innovations"))
    assert RESOLVED == 20.0


def test_words_of_the_analysis_section():
    text = bead().to_toml()
    e = Experiment.from_toml(text.replace("[analysis]", '[analysis]\nlikelihood = "innovations"\nstart = "stationary"'))
    assert (e.assumed.likelihood, e.assumed.start) == ("innovations", "stationary")
    assert Experiment.from_toml(e.to_toml()) == e
    with pytest.raises(InputError, match=r"\[analysis\] likelihood = 'inovations'.*innovations"):
        Experiment.from_toml(text.replace("[analysis]", '[analysis]\nlikelihood = "inovations"'))
    with pytest.raises(InputError, match=r"\[analysis\] start = 'diffuse'.*free, fitted, stationary"):
        Experiment.from_toml(text.replace("[analysis]", '[analysis]\nstart = "diffuse"'))


# -- a hundred records: false alarms and coverage ---------------------------------------------------------------------


WIDTHS = (1e-5, 1e-3, 1e-1, 10.0, 1e3)
"""Width x duration."""


def studied(product, seed, duration_s=4.0):
    """(failed checks, inside 90 % for each parameter, likelihood, method) of one record whose truth is drawn from the prior."""
    rng = np.random.default_rng([seed, WIDTHS.index(product)])
    width = product / duration_s
    e = bead(frequency=4e3, spread=1.0, width=width, readout=30.0, occupation=50.0 / width, low=3e3, high=5e3)
    z = {n: rng.standard_normal() for n in e.priors}
    truth = e.with_values({
        n: p.mean + p.sd * z[n] if p.mean is not None else p.median * p.factor ** z[n] for n, p in e.priors.items()
    })  # fmt: skip
    c = campaign_of(e, record_of(truth, duration_s, 32e3, rng))
    ready = prepare(c)
    found = infer(c, "importance", 1000, 1, ready=ready)
    if found.draws.status != "converged":
        found = infer(c, "nuts", 400, 4, ready=ready)
    failed = [t.sentence for t in found.tests if not t.passed and t.name != "sampler"]
    inside = {n: bool(found.summary[n]["q05"] <= truth.value(n) <= found.summary[n]["q95"]) for n in e.priors}
    return failed, inside, c.likelihoods["bead"]["kind"], found.draws.method


@pytest.mark.skipif(not LONG, reason="many records: make test-long")
def test_a_hundred_records_of_any_width():
    """At most 2 % false alarms, and 90 % intervals that hold the truth in 90 % (binomial, at 1e-3 over all parameters)."""
    from scipy import stats

    runs = {(w, k): studied(w, k) for w in WIDTHS for k in range(20)}
    alarms = [r[0] for r in runs.values() if r[0]]
    assert len(alarms) <= 2, alarms
    for name in runs[WIDTHS[0], 0][1]:
        hits = sum(r[1][name] for r in runs.values())
        assert stats.binomtest(hits, len(runs), 0.9).pvalue > 1e-3, (name, hits)
    assert {r[2] for (w, _), r in runs.items() if w <= 10} == {"innovations"}
    assert {r[2] for (w, _), r in runs.items() if w == 1e3} == {"gamma"}
