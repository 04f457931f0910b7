"""Draws from the posterior of a `Target`: Laplace, importance sampling, NUTS, the ensemble sampler; and its evidence.

All work in coordinates w with u = mode + L w, L L^T the inverse Hessian at the mode: there the posterior is about a unit
Gaussian, whatever the units, the priors and their correlations.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from threading import Event, Lock
from typing import Any

import numpy as np

from backaction.errors import InputError
from backaction.inference.maximum import Maximum
from backaction.inference.target import Target
from backaction.numerics.matrices import Array
from backaction.workers import Progress

METHODS = ("nuts", "importance", "laplace", "ensemble")
K_LIMIT = 0.7
"""Largest Pareto shape of importance weights that may be relied on (Vehtari et al., JMLR 25, 72 (2024))."""


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


# -- samplers ---------------------------------------------------------------------------------------------------------


def sample(
    target: Target,
    mode: Maximum,
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


def laplace(target: Target, mode: Maximum, draws: int, seed: int) -> Draws:
    """The Gaussian at the mode, unchecked."""
    w = np.random.default_rng(seed).standard_normal((draws, target.size))
    u = mode.place(w)
    return Draws(u[None], log_densities(target, u)[None], "laplace", seed, {}, "not checked: a Gaussian at the mode")


FREEDOM, WIDE = (5.0, 4.0), 1.04
"""Proposals: degrees of freedom 5 + 4 P of the Student-t, and its width over the Gaussian's: in many dimensions a heavy
tail costs most of the draws."""
LEAST_EFFECTIVE = 100
"""Effective draws below which quantiles are not quoted."""


def importance(target: Target, mode: Maximum, draws: int, seed: int, most: int | None = None) -> Draws:
    """Laplace and importance sampling: Student-t proposals about the mode, weights smoothed by a generalised Pareto tail.

    Draws are resampled to equal weight. Above k = 0.7 the weights may not be used, and the status says so.
    """
    rng = np.random.default_rng(seed)
    count = most or max(2 * draws, 10000)
    freedom, wide = FREEDOM[0] + FREEDOM[1] * target.size, WIDE
    z = rng.standard_normal((count, target.size))
    w = wide * z / np.sqrt(rng.chisquare(freedom, count) / freedom)[:, None]
    u = mode.place(w)
    log = log_densities(target, u)
    proposal = -0.5 * (freedom + target.size) * np.log1p(np.sum((w / wide) ** 2, axis=-1) / freedom)
    weight, k_hat = smoothed(np.where(np.isfinite(log), log - proposal, -np.inf))
    pick = np.searchsorted(np.cumsum(weight), (np.arange(draws) + rng.uniform()) / draws).clip(0, count - 1)
    rng.shuffle(pick)
    effective = float(1 / np.sum(weight**2))
    status = "converged"
    if k_hat > K_LIMIT or effective < LEAST_EFFECTIVE:
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


def log_densities(target: Target, u: Array, cores: int = 2) -> Array:
    """Log-posterior at many points (K, P), in threads."""

    def part(piece: Array) -> Array:
        run = target.evaluator()
        return np.array([run.density(x) for x in piece])

    with ThreadPoolExecutor(cores) as pool:
        return np.concatenate(list(pool.map(part, np.array_split(u, cores))))


_IMPORTING = Lock()


def _nutpie() -> tuple[Any, Any]:
    """Nutpie and its way from a Python density, without the plots that its ArviZ loads on the way.

    ArviZ 0.23 imports arviz_plots where that is installed and only forgives its absence; arviz_plots fails with an
    AttributeError under matplotlib 3.11. Nothing here draws with it, so it is absent while nutpie is imported.
    """
    with _IMPORTING, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hidden = "nutpie" not in sys.modules and "arviz_plots" not in sys.modules
        if hidden:
            sys.modules["arviz_plots"] = None  # type: ignore[assignment]
        try:
            import nutpie
            from nutpie.compiled_pyfunc import from_pyfunc
        finally:
            if hidden:
                del sys.modules["arviz_plots"]
    return nutpie, from_pyfunc


def chain(
    target: Target, mode: Maximum, draws: int, seed: int, accept: float = 0.8, stop: Event | None = None
) -> tuple[Array, Array, dict[str, float]]:
    """One chain of the no-U-turn sampler (nutpie) in whitened coordinates: w (draws, P), ln p, facts.

    `accept` is the acceptance that the step size is tuned to. Blocks until it is done or `stop` is set; the compiled
    density releases the interpreter lock, so that chains run side by side in threads.
    """
    nutpie, from_pyfunc = _nutpie()
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

    model = from_pyfunc(
        size, make_density, make_expand, [np.dtype(np.float64)], [(size,)], ["w"], make_initial_point_fn=start
    )
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
    mode: Maximum,
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


def seeds(seed: int, count: int) -> Sequence[int]:
    """Independent seeds from one."""
    return [int(s.generate_state(1)[0]) for s in np.random.SeedSequence(seed).spawn(count)]
