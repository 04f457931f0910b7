"""Draws from the posterior of a `Target`: Laplace, importance sampling, NUTS, the ensemble sampler; and its evidence.

All work in coordinates w with u = mode + L w, L L^T the inverse Hessian at the mode: there the posterior is about a unit
Gaussian, whatever the units, the priors and their correlations.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from threading import Event
from typing import Any

import numpy as np

from backaction.errors import InputError, ModelError
from backaction.matrices import Array
from backaction.posterior import Evaluator, Target

Progress = Callable[[str, float | None], None]
METHODS = ("nuts", "importance", "laplace", "ensemble")
K_LIMIT = 0.7
"""Largest Pareto shape of importance weights that may be relied on (Vehtari et al., JMLR 25, 72 (2024))."""


@dataclass(frozen=True, eq=False)
class Mode:
    """The maximum of the posterior in u, its log-density, and `root` L with L L^T the inverse Hessian there.

    `others` are further maxima that were found, with their log-densities below the first; `condition` that of the Fisher
    information with the prior.
    """

    u: Array
    log_density: float
    root: Array
    hessian: Array
    evaluations: int
    others: tuple[tuple[Array, float], ...] = ()

    def place(self, w: Array) -> Array:
        """U at whitened coordinates w (..., P)."""
        return self.u + w @ self.root.T


@dataclass(frozen=True, eq=False)
class Draws:
    """Equally weighted draws u (chains, draws, P) and their log-densities; how they were made, and whether to trust it.

    `facts` holds what the method reports: divergences, Pareto k, acceptance, seconds, ...; `status` is "converged" or says
    in words what failed.
    """

    u: Array
    log_density: Array
    method: str
    seed: int
    facts: dict[str, float] = field(default_factory=dict)
    status: str = "converged"

    @property
    def flat(self) -> Array:
        """All draws (chains x draws, P)."""
        return self.u.reshape(-1, self.u.shape[-1])


def find_mode(target: Target, starts: int = 3, seed: int = 0, progress: Progress | None = None) -> Mode:
    """The maximum of the posterior density.

    From the best of coordinate scans, and from `starts` - 1 draws of the prior, each improved alike, by steps of
    Levenberg-Marquardt with the expected information and, near the end, Newton steps with the exact Hessian. Of up to three
    starts the last is spared where the first two end at one place. Then other maxima are looked for along each coordinate.

    Raises
    ------
    ModelError
        If no point of the prior has a finite density, or the maximum is not found.
    """
    run, rng = target.evaluator(), np.random.default_rng(seed)
    count = 0
    found: list[tuple[Array, float]] = []
    failure: ModelError | None = None
    for k in range(starts):
        u = np.zeros(target.size) if k == 0 else rng.standard_normal(target.size)
        if progress:
            progress(f"mode: start {k + 1} of {starts}", None)
        u, n = _scanned(run, u)
        count += n
        if not np.isfinite(run.density(u)):
            continue
        try:
            u, value, n = _climbed(target, run, u)
        except ModelError as error:
            failure = error
            continue
        count += n
        found.append((u, value))
        if k == 1 and starts <= 3 and len(found) == 2 and np.max(np.abs(found[0][0] - u)) < 0.05:
            break  # the first start was not chance
    if not found and failure is not None:
        raise failure
    if not found:
        raise ModelError(f"{target.campaign.name}: no point of the prior has a spectrum: nothing can be fitted")
    found.sort(key=lambda x: -x[1])
    u, value = found[0]
    H, root = _whitening(target, run, u)
    for start in _elsewhere(run, u, value, np.sqrt(np.sum(root**2, axis=1))):
        try:
            v, x, n = _climbed(target, run, start)
        except ModelError:
            continue
        count += n
        found.append((v, x))
    found.sort(key=lambda x: -x[1])
    if found[0][1] > value + 1e-3:
        u, value = found[0]
        H, root = _whitening(target, run, u)
    others: list[tuple[Array, float]] = []
    for v, x in found[1:]:
        apart = [np.max(np.abs(np.linalg.solve(root, v - o))) > 3 for o in (u, *(o for o, _ in others))]
        if all(apart) and value - x < 15:
            others.append((v, x))
    return Mode(u, value, root, H, count, tuple(others))


def _elsewhere(run: Evaluator, u: Array, top: float, sd: Array, most: int = 3) -> list[Array]:
    """Points along each coordinate, far from the maximum in its own width, that are nearly as probable."""
    out: list[tuple[float, Array]] = []
    for i in range(len(u)):
        trial = u.copy()
        for x in (-u[i], *np.linspace(-2.5, 2.5, 11)):
            if abs(x - u[i]) < 5 * sd[i]:
                continue
            trial[i] = x
            value = run.density(trial)
            if value > top - 30:
                out.append((value, trial.copy()))
    return [point for _, point in sorted(out, key=lambda item: -item[0])[:most]]


def improved(target: Target, mode: Mode) -> Mode:
    """The maximum near a mode that was found for other bins of the same data."""
    run = target.evaluator()
    u, value, count = _climbed(target, run, mode.u)
    H, root = _whitening(target, run, u)
    return replace(mode, u=u, log_density=value, hessian=H, root=root, evaluations=mode.evaluations + count)


def _whitening(target: Target, run: Evaluator, u: Array) -> tuple[Array, Array]:
    """The Hessian at the maximum (the expected information where it is not positive) and the root of its inverse."""
    H = run.hessian(u)
    if not np.linalg.eigvalsh(H)[0] > 0:
        H = target.fisher(u)
    if not np.linalg.eigvalsh(H)[0] > 0:
        raise ModelError(f"{target.campaign.name}: the posterior is not determined at its maximum: give more priors")
    return H, np.linalg.inv(np.linalg.cholesky(H)).T


def _scanned(run: Evaluator, u: Array) -> tuple[Array, int]:
    """Best point of coordinate scans over the prior's +-2.5, until they gain little."""
    grid = np.linspace(-2.5, 2.5, 11)
    best, count = run.density(u), 0
    for _ in range(4):
        before = best
        for i in range(len(u)):
            trial = u.copy()
            for x in grid:
                trial[i] = x
                value = run.density(trial)
                count += 1
                if value > best:
                    u, best = trial.copy(), value
        if best - before < 2.0:
            break
    return u, count


def _climbed(target: Target, run: Evaluator, u: Array, most: int = 100) -> tuple[Array, float, int]:
    """The maximum uphill of u within the reach of the coordinates, its log-density, and the evaluations it took."""
    reach = np.array([p.reach for p in target.parameters])
    u = np.clip(u, -reach, reach)
    value, g = run.gradient(u)
    damp, count = 1e-2, 1
    for _ in range(most):
        free = (np.abs(u) < reach) | (g * u < 0)  # not held at the end of a bounded coordinate
        H = target.fisher(u, rough=True)
        count += len(u)
        if np.linalg.norm(g[free]) < 1.0:  # near: the exact Hessian where it is positive
            exact = run.hessian(u)
            count += 2 * len(u)
            H = exact if np.linalg.eigvalsh(exact)[0] > 0 else H
        G, slope = H[np.ix_(free, free)], g[free]
        left = float(slope @ np.linalg.solve(G, slope)) if np.any(free) else 0.0
        moved = False
        for _ in range(12):
            step = np.zeros(len(u))
            step[free] = np.linalg.solve(G + damp * np.diag(np.diag(G)), slope)
            size = np.max(np.abs(step), initial=0.0)
            trial = np.clip(u + step * min(1.0, 2.0 / size if size > 0 else 1.0), -reach, reach)
            new, at = run.gradient(trial)
            count += 1
            if new > value - 1e-9 * abs(value):
                moved = new - value > 1e-9
                u, g, damp, value = trial, at, damp / 5, max(new, value)
                break
            damp = max(10 * damp, 1e-6)
        if left < 1e-8 or (not moved and left < 1e-3):
            return u, value, count
        if not moved and damp > 1e8:
            break
    raise ModelError(
        f"{target.campaign.name}: the maximum of the posterior was not found in {most} steps "
        f"(the gradient there: {float(np.linalg.norm(g)):.2g})"
    )


# -- samplers ---------------------------------------------------------------------------------------------------------


def sample(
    target: Target,
    mode: Mode,
    method: str = "nuts",
    draws: int = 1500,
    chains: int = 4,
    seed: int = 0,
    cores: int = 2,
    progress: Progress | None = None,
) -> Draws:
    """Draws by one of `METHODS`.

    Raises
    ------
    InputError
        For an unknown method.
    """
    if method not in METHODS:
        raise InputError(f"sampler '{method}': must be one of {', '.join(METHODS)}")
    start = time.perf_counter()
    if method == "nuts":
        with ThreadPoolExecutor(cores) as pool:
            parts = list(pool.map(lambda s: chain(target, mode, draws, s), seeds(seed, chains)))
        facts = {n: sum(p[2][n] for p in parts) for n in parts[0][2]}
        w, log = np.stack([p[0] for p in parts]), np.stack([p[1] for p in parts])
        out = Draws(mode.place(w), log, "nuts", seed, facts)
    elif method == "ensemble":
        out = ensemble(target, mode, draws * chains, seed=seed, progress=progress)
    elif method == "laplace":
        out = laplace(target, mode, draws * chains, seed)
    else:
        out = importance(target, mode, draws * chains, seed)
    return replace(out, facts=out.facts | {"seconds": time.perf_counter() - start})


def laplace(target: Target, mode: Mode, draws: int, seed: int) -> Draws:
    """The Gaussian at the mode, unchecked."""
    w = np.random.default_rng(seed).standard_normal((draws, target.size))
    u = mode.place(w)
    return Draws(u[None], densities(target, u)[None], "laplace", seed, {}, "not checked: a Gaussian at the mode")


def importance(target: Target, mode: Mode, draws: int, seed: int, most: int | None = None) -> Draws:
    """Laplace and importance sampling: Student-t proposals about the mode, weights smoothed by a generalised Pareto tail.

    Draws are resampled to equal weight. Above k = 0.7 the weights may not be used, and the status says so.
    """
    rng = np.random.default_rng(seed)
    count = most or max(2 * draws, 10000)
    # in many dimensions a heavy tail costs most of the draws: nearly Gaussian, and a little wide
    freedom, wide = 5.0 + 4.0 * target.size, 1.04
    z = rng.standard_normal((count, target.size))
    w = wide * z / np.sqrt(rng.chisquare(freedom, count) / freedom)[:, None]
    u = mode.place(w)
    log = densities(target, u)
    proposal = -0.5 * (freedom + target.size) * np.log1p(np.sum((w / wide) ** 2, axis=-1) / freedom)
    weight, k_hat = smoothed(np.where(np.isfinite(log), log - proposal, -np.inf))
    pick = np.searchsorted(np.cumsum(weight), (np.arange(draws) + rng.uniform()) / draws).clip(0, count - 1)
    rng.shuffle(pick)
    effective = float(1 / np.sum(weight**2))
    status = "converged"
    if k_hat > K_LIMIT or effective < 100:
        status = f"not usable: Pareto k = {k_hat:.2f} (at most {K_LIMIT}), {effective:.0f} effective draws; use nuts"
    facts = {"pareto_k": k_hat, "effective_draws": effective, "proposals": float(count)}
    return Draws(u[pick][None], log[pick][None], "importance", seed, facts, status)


def smoothed(log_ratio: Array) -> tuple[Array, float]:
    """Normalised importance weights with a Pareto-smoothed tail, and the tail's shape k."""
    from arviz_stats.base import array_stats

    log = np.where(np.isfinite(log_ratio), log_ratio - np.max(log_ratio), -700.0)
    smooth, k = array_stats.psislw(-log)  # it takes minus the log weights
    weight = np.exp(smooth - np.max(smooth))
    return weight / np.sum(weight), float(k)


def densities(target: Target, u: Array, cores: int = 2) -> Array:
    """Log-posterior at many points (K, P), in threads."""

    def part(piece: Array) -> Array:
        run = target.evaluator()
        return np.array([run.density(x) for x in piece])

    with ThreadPoolExecutor(cores) as pool:
        return np.concatenate(list(pool.map(part, np.array_split(u, cores))))


def chain(
    target: Target, mode: Mode, draws: int, seed: int, accept: float = 0.8, stop: Event | None = None
) -> tuple[Array, Array, dict[str, float]]:
    """One chain of the no-U-turn sampler (nutpie) in whitened coordinates: w (draws, P), ln p, facts.

    `accept` is the acceptance that the step size is tuned to. Blocks until it is done or `stop` is set; the compiled
    density releases the interpreter lock, so that chains run side by side in threads.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import nutpie
        from nutpie.compiled_pyfunc import from_pyfunc

    size, root, centre = target.size, mode.root, mode.u
    back = np.ascontiguousarray(root.T)

    def make_density() -> Any:
        run = target.evaluator()

        def density(w: Array) -> tuple[float, Array]:
            value, slope = run.gradient(centre + root @ w)
            return (value, back @ slope) if np.isfinite(value) else (-1e100, np.zeros(size))

        return density

    def make_expand(*_: Any) -> Any:
        return lambda w, **more: {"w": np.asarray(w)}

    def start(chain_seed: int) -> Array:
        return np.random.default_rng(chain_seed).standard_normal(size)

    model = from_pyfunc(size, make_density, make_expand, [np.dtype(np.float64)], [(size,)], ["w"],
                        make_initial_point_fn=start)  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        running = nutpie.sample(
            model, draws=draws, tune=TUNE, chains=1, cores=1, seed=seed % 2**32, progress_bar=False, save_warmup=False,
            blocking=False, target_accept=accept,
        )  # fmt: skip
        while True:
            try:
                trace = running.wait(timeout=0.2)
                break
            except TimeoutError:
                if stop is not None and stop.is_set():
                    running.abort()
                    raise InterruptedError("sampling was stopped") from None
    stats = trace.sample_stats
    facts = {"divergences": float(np.sum(stats["diverging"])), "gradients": float(np.sum(stats["n_steps"]))}
    return np.asarray(trace.posterior["w"])[0], np.asarray(stats["logp"])[0], facts


TUNE = 200
"""Warm-up steps of a chain: the coordinates are white already, only the step size is adapted."""


def ensemble(
    target: Target,
    mode: Mode,
    draws: int,
    walkers: int = 150,
    seed: int = 0,
    burn: int | None = None,
    density: Callable[[Array], float] | None = None,
    progress: Progress | None = None,
) -> Draws:
    """The affine-invariant ensemble (emcee), as the paper used it: 150 walkers; burn-in two fifths of the steps."""
    import emcee

    walkers = max(walkers, 2 * target.size + 2)
    steps = max(50, draws // walkers)
    burn = int(0.4 * steps) if burn is None else burn
    rng = np.random.default_rng(seed)
    run = target.evaluator()
    sampler = emcee.EnsembleSampler(walkers, target.size, density or run.density)
    sampler.random_state = np.random.RandomState(seed % 2**32).get_state()
    start = mode.place(0.5 * rng.standard_normal((walkers, target.size)))
    for k, _ in enumerate(sampler.sample(start, iterations=burn + steps)):
        if progress and k % 50 == 0:
            progress("ensemble", k / (burn + steps))
    u = np.swapaxes(sampler.get_chain(discard=burn), 0, 1)
    log = np.swapaxes(sampler.get_log_prob(discard=burn), 0, 1)
    tau = float(np.max(emcee.autocorr.integrated_time(np.swapaxes(u, 0, 1), quiet=True)))
    facts = {"autocorrelation_steps": tau, "acceptance": float(np.mean(sampler.acceptance_fraction))}
    status = (
        "converged" if steps > 50 * tau else f"not converged: {steps} steps are {steps / tau:.0f} autocorrelation times"
    )
    return Draws(u, log, "ensemble", seed, facts, status)


def log_evidence(target: Target, draws: Draws, seed: int = 0, fine: Target | None = None) -> tuple[float, float]:
    """Ln of the evidence p(data) and its standard error, by bridge sampling against a Gaussian (Meng, Wong 1996).

    Where `target` looks at merged bins, which depend on the model, `fine` is the one of all bins: the evidence of the data
    is then Z_fine = Z <L_fine/L> over the draws, so that models may be compared.

    The prior is normalised in u, so that the posterior density's own constant is the evidence; differences between
    campaigns of the same data are log Bayes factors. Half of the draws fit the Gaussian, the other half is used.
    """
    flat = draws.flat
    half = len(flat) // 2
    rng = np.random.default_rng(seed)
    flat = flat[rng.permutation(len(flat))]
    centre, root = np.mean(flat[:half], axis=0), np.linalg.cholesky(np.atleast_2d(np.cov(flat[:half].T)))
    z = rng.standard_normal((half, target.size))
    constant = -0.5 * target.size * np.log(2 * np.pi)
    sizes = np.log(np.diag(root)).sum()

    def gaussian(u: Array) -> Array:
        v = np.linalg.solve(root, (u - centre).T).T
        return constant - sizes - 0.5 * np.sum(v * v, axis=-1)

    there = centre + z @ root.T
    log_prior = constant
    a = densities(target, flat[half:]) + log_prior - gaussian(flat[half:])
    b = densities(target, there) + log_prior - gaussian(there)
    shift = float(np.median(a))
    a, b = np.exp(a - shift), np.exp(b - shift)
    value = 1.0
    for _ in range(200):
        new = np.mean(b / (b + value)) / np.mean(1 / (a + value))
        done = abs(new - value) < 1e-10 * value
        value = new
        if done:
            break
    f, g = b / (b + value), value / (a + value)
    spread = np.var(f) / np.mean(f) ** 2 / len(f) + np.var(g) / np.mean(g) ** 2 / _effective(draws)
    more = 0.0
    if fine is not None and fine is not target:
        some = flat[half : half + 500]
        ratio = densities(fine, some) - densities(target, some)
        top = float(np.max(ratio))
        weight = np.exp(ratio - top)
        more = top + float(np.log(np.mean(weight)))
        spread += np.var(weight) / np.mean(weight) ** 2 / len(weight)
    return float(np.log(value) + shift + more), float(np.sqrt(spread))


def _effective(draws: Draws) -> float:
    """Effective number of the used half of the draws (least over the parameters)."""
    from arviz_stats.base import array_stats

    if draws.u.shape[0] == 1:
        return draws.u.shape[1] / 2
    ess = array_stats.ess(draws.u, chain_axis=0, draw_axis=1)
    return float(np.min(ess)) / 2


def seeds(seed: int, count: int) -> Sequence[int]:
    """Independent seeds from one."""
    return [int(s.generate_state(1)[0]) for s in np.random.SeedSequence(seed).spawn(count)]
