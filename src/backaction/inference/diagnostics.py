"""How far a posterior may be trusted: convergence, prediction of the data, conflict with the priors, what is identified."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from backaction.inference.conflict import conflict
from backaction.inference.data import Measured
from backaction.inference.maximum import Maximum
from backaction.inference.quantities import DerivedQuantity
from backaction.inference.samplers import Draws
from backaction.inference.target import SCALE, Target
from backaction.inference.whiteness import unit_innovations, whitened_spectrum
from backaction.numerics.matrices import Array
from backaction.records.correlated import correlated_p
from backaction.records.statistics import LEVEL, Check, chi_square_p, gamma_normal_scores, residual_lines

RHAT, LEAST = 1.01, 400.0
"""Largest R-hat and least effective number of draws (bulk and tail) of a converged run (Vehtari et al. 2021)."""
NEARLY = 1.03
"""R-hat of thousands of good draws of dozens of parameters exceeds 1.01 by chance now and then; above this it does not."""
BANDS = 40


def summarised(values: Array) -> dict[str, float]:
    """Mean, sd, 5, 50 and 95 % quantiles, bulk and tail effective draws and R-hat of values (chains, draws)."""
    from arviz_stats.base import array_stats

    good = values[np.isfinite(values)]
    if not good.size:
        return dict.fromkeys(("mean", "sd", "q05", "q50", "q95", "ess_bulk", "ess_tail", "rhat"), np.nan)
    q = np.quantile(good, [0.05, 0.5, 0.95])
    out = {"mean": float(np.mean(good)), "sd": float(np.std(good)), "q05": q[0], "q50": q[1], "q95": q[2]}
    out |= {"ess_bulk": np.nan, "ess_tail": np.nan, "rhat": np.nan}
    if good.size == values.size and np.ptp(good) > 0 and values.shape[1] > 3:
        arguments = dict(chain_axis=0, draw_axis=1)
        out["ess_bulk"] = float(array_stats.ess(values, method="bulk", **arguments))
        out["ess_tail"] = float(array_stats.ess(values, method="tail", prob=(0.05, 0.95), **arguments))
        if values.shape[0] > 1:
            out["rhat"] = float(array_stats.rhat(values, **arguments))
    return {k: float(v) for k, v in out.items()}


def diagnose(
    fine: Target, target: Target, mode: Maximum, draws: Draws, quantities: Mapping[str, DerivedQuantity]
) -> tuple[list[Check], dict[str, Any], list[str]]:
    """All checks: tests (which must pass), facts for the record, warnings."""
    tests = [_converged(draws, target.labels()), *_predicted(fine, draws)]
    found = conflict(target, mode, draws)
    tests += found.checks()
    facts: dict[str, Any] = {"conflict": found.pulls}
    facts["sensitivity"] = prior_sensitivity(target, draws, quantities)
    facts["identifiability"] = identifiability(target, mode)
    facts["correlation"] = strongest_correlations(target, draws, quantities)
    warnings = [
        f"{n} is {v:+.1f} sd from what its prior and the data allow" for n, v in found.pulls.items() if abs(v) > 3
    ]
    return tests, facts, warnings


def nearly_converged(draws: Draws) -> bool:
    """Whether the chains agree but for the noise of R-hat itself, so that more draws will tell."""
    worst = max(summarised(draws.u[..., i])["rhat"] for i in range(draws.u.shape[-1]))
    return draws.u.shape[0] > 1 and RHAT <= worst < NEARLY


def _converged(draws: Draws, labels: Sequence[str]) -> Check:
    if draws.method in ("importance", "laplace"):
        good = draws.status == "converged"
        k = draws.facts.get("pareto_k", float("nan"))
        words = f"importance sampling: {draws.status}, Pareto k = {k:.2f}" if good else draws.status
        return Check("sampler", good, k, None, words, 0.0)
    stats = [summarised(draws.u[..., i]) for i in range(draws.u.shape[-1])]
    worst = max(s["rhat"] for s in stats)
    bulk, tail = min(s["ess_bulk"] for s in stats), min(s["ess_tail"] for s in stats)
    diverged = draws.facts.get("divergences", 0.0)
    several = draws.u.shape[0] > 1
    few = diverged <= 1e-3 * draws.u.shape[0] * draws.u.shape[1]
    good = several and worst < RHAT and min(bulk, tail) > LEAST and few and draws.status == "converged"
    words = (
        f"{draws.method}: R-hat at most {worst:.4f}, effective draws at least {bulk:.0f} (bulk), {tail:.0f} (tail), "
        f"{diverged:.0f} divergences"
    )
    if not good:
        slow = max(range(len(stats)), key=lambda i: stats[i]["rhat"] if np.isfinite(stats[i]["rhat"]) else np.inf)
        words += f": NOT converged (worst: {labels[slow]}; more draws or chains)"
    return Check("sampler", good, worst, None, words, 0.0)


def _predicted(fine: Target, draws: Draws, most: int = 100) -> list[Check]:
    """Posterior predictive p-values of every spectrum: all bins, smooth residuals in bands, lines."""
    flat = draws.flat
    picked = flat[np.linspace(0, len(flat) - 1, min(most, len(flat))).astype(int)]
    models = fine.models(picked)
    out = []
    error = fine.model_error(picked)
    for k, (record, mu) in enumerate(zip(fine.campaign.records, models, strict=True)):
        if record.series is not None:
            out.append(_innovations_predicted(fine, k, picked))
            continue
        N, y = record.averages, record.density_sn
        good_ones = [(m, e) for m, e in zip(mu, error, strict=True) if np.all(np.isfinite(m))]
        values = [fine.campaign.likelihood.scores(y, m, N, e) for m, e in good_ones]
        bins = float(np.mean([correlated_p(z, record.spectrum.neighbours) for z in values]))
        bands = float(np.mean([chi_square_p(banded(z) / record.spectrum.correlation**0.5) for z in values]))
        middle = np.mean(mu[np.all(np.isfinite(mu), axis=-1)], axis=0)
        plain = np.ndim(record.spectrum.averages) == 0 and fine.campaign.likelihood.plain
        lines = residual_lines(_in_sn(record), middle) if plain else []
        good = min(bins, bands) >= LEVEL and not lines
        words = "predicts" if good else "does NOT predict"
        extra = "".join(f"; a line is left at {x.frequency_hz / 1e3:.6g} kHz ({x.excess:.3g} x)" for x in lines[:3])
        out.append(
            Check(
                f"prediction of {record.name}", good, float(np.mean(record.density_sn / middle)), min(bins, bands),
                f"the model {words} {record.name}: p = {bins:.2g} over {N.size} bins, {bands:.2g} over {BANDS} bands{extra}",
            )
        )  # fmt: skip
    return out


INNOVATED = 10
"""Draws whose innovations are looked at: each is a filter over the whole record."""


def _innovations_predicted(fine: Target, k: int, picked: Array) -> Check:
    """Posterior predictive p-values of a record's innovations: sum of squares, bins and bands of their spectrum, lines."""
    from scipy import stats

    record = fine.campaign.records[k]
    assert record.series is not None
    band = float(record.spectrum.frequency_hz[0]), float(record.spectrum.frequency_hz[-1])
    variance, bins, bands, spectra, ratios = [], [], [], [], []
    for u in picked[np.linspace(0, len(picked) - 1, min(INNOVATED, len(picked))).astype(int)]:
        z = unit_innovations(fine, k, u)
        seen = z[np.isfinite(z)]
        square = float(np.sum(seen**2))
        ratios.append(square / seen.size)
        variance.append(2 * min(stats.chi2.sf(square, seen.size), stats.chi2.cdf(square, seen.size)))
        spectra.append(whitened_spectrum(record.series, z, band))
        scores = gamma_normal_scores(spectra[-1].density, spectra[-1].averages)
        bins.append(chi_square_p(scores))
        bands.append(chi_square_p(banded(scores)))
    p = [float(np.mean(v)) for v in (variance, bins, bands)]
    middle = replace(spectra[0], density=np.mean([s.density for s in spectra], axis=0))
    lines = residual_lines(middle, np.ones(middle.density.size))
    good = min(p) >= LEVEL and not lines
    words = "predicts" if good else "does NOT predict"
    extra = "".join(f"; a line is left at {x.frequency_hz / 1e3:.6g} kHz ({x.excess:.3g} x)" for x in lines[:3])
    return Check(
        f"prediction of {record.name}", good, float(np.mean(ratios)), min(p),
        f"the model {words} {record.name}: innovations have {np.mean(ratios):.4f} of their variance (p = {p[0]:.2g}), "
        f"p = {p[1]:.2g} over {middle.density.size} bins of their spectrum, {p[2]:.2g} over {BANDS} bands{extra}",
    )  # fmt: skip


def _in_sn(record: Measured) -> Any:
    return replace(record.spectrum, density=record.density_sn, unit="SN")


def banded(scores: Array, count: int = BANDS) -> Array:
    """Scores of neighbouring bins summed into bands, of unit variance: what a smooth misfit moves."""
    parts = np.array_split(scores, min(count, scores.size))
    return np.array([np.sum(p) / np.sqrt(p.size) for p in parts])


def prior_sensitivity(
    target: Target, draws: Draws, quantities: Mapping[str, DerivedQuantity]
) -> dict[str, dict[str, Any]]:
    """How the mean of each derived quantity moves with the priors, from the draws alone.

    `shift`: when a prior's centre moves by one of its own sd, Cov(V, u_i) (C^-1 z where calibrations are correlated);
    `scaling`: under a power of a prior, Cov(V, ln p_i)/sd(V), ln p_i = -u_i^2/2 (Kallioinen et al. 2023). The five
    largest of each.
    """
    u = draws.flat
    z = np.linalg.solve(target.mixing().T, u.T).T  # C^-1 z of correlated calibrations; u itself of the others
    z = z - np.mean(z, axis=0)
    log = -0.5 * u**2
    log = log - np.mean(log, axis=0)
    labels = target.labels()
    out: dict[str, dict[str, Any]] = {}
    for name, q in quantities.items():
        x = q.values.reshape(-1)
        good = np.isfinite(x)
        if not np.any(good) or np.std(x[good]) == 0:
            continue
        centred = x[good] - np.mean(x[good])
        shift, scaling = z[good].T @ centred / good.sum(), log[good].T @ centred / good.sum() / np.std(x[good])
        top = np.argsort(-np.abs(shift))[:5]
        by = np.argsort(-np.abs(scaling))[:5]
        out[name] = {
            "shift": {labels[i]: float(shift[i]) for i in top},
            "scaling": {labels[i]: float(scaling[i]) for i in by},
        }
    return out


def strongest_correlations(
    target: Target, draws: Draws, quantities: Mapping[str, DerivedQuantity]
) -> dict[str, dict[str, float]]:
    """The five parameters that each derived quantity is most correlated with."""
    values, labels = target.values(draws.flat), target.labels()
    out = {}
    for name, q in quantities.items():
        x = q.values.reshape(-1)
        good = np.isfinite(x)
        if good.sum() < 10 or np.std(x[good]) == 0:
            continue
        with np.errstate(invalid="ignore", divide="ignore"):
            r = np.array([np.corrcoef(x[good], values[good, i])[0, 1] for i in range(len(labels))])
        top = np.argsort(-np.abs(np.nan_to_num(r)))[:5]
        out[name] = {labels[i]: float(np.nan_to_num(r[i])) for i in top}
    return out


def identifiability(target: Target, mode: Maximum) -> list[str]:
    """What the data do not tell by themselves, in words (`told`), from their Fisher information at the maximum."""
    mixing = target.mixing()
    with np.errstate(divide="ignore"):
        relative = np.diag(target.slopes(mode.u)) / np.diag(mixing) / target.values(mode.u)
    return told(target.fisher(mode.u, prior=False), target.labels(), relative, mixing)


WEAK, MEASURED, LEAST_INFORMATION = 1.0, 10.0, 1e-3
"""Information of the data in units of the prior's: below which the prior says more, above which the data have measured, and
what counts for none (so that a measured combination is within 0.01 of orthogonal to what is not)."""


def told(F: Array, labels: Sequence[str], relative: Array, mixing: Array | None = None) -> list[str]:
    """What information F (P, P) of the data, in coordinates whose prior is standard normal, leaves to the priors, in words.

    The weak subspace is that of all eigenvalues below `WEAK`. A parameter that lies in it is named alone. Of two that partly
    lie in it a combination is measured if its variance from the data alone, all other parameters free (from F^-1, not from F
    within the plane), is below 1/`MEASURED` while that of neither is below 1; it is the product of powers by its gradient in
    ln theta. The rest is left to the priors.

    Parameters
    ----------
    relative
        D ln theta/dz (P,) of the parameters' normal scores z.
    mixing
        M (P, P), z = M u with u the coordinates of F (default: the same).
    """
    w, U = np.linalg.eigh((F + F.T) / 2)
    rows = U if mixing is None else mixing @ U
    share = np.sum(np.linalg.qr(rows[:, w < WEAK])[0] ** 2, axis=1)  # of each parameter, in the weak subspace
    V = (rows / np.maximum(w, LEAST_INFORMATION)) @ rows.T
    alone = [i for i in range(len(labels)) if share[i] > 0.9]
    partly = [i for i in range(len(labels)) if 0.1 < share[i] <= 0.9]
    pairs: list[tuple[float, int, int, Array]] = []
    for k, i in enumerate(partly):
        for j in partly[k + 1 :]:
            variance, directions = np.linalg.eigh(V[np.ix_([i, j], [i, j])])
            if variance[0] < 1 / MEASURED and min(V[i, i], V[j, j]) > 1 / WEAK:
                pairs.append((float(variance[0]), i, j, directions[:, 0]))
    said: list[str] = []
    spanned = np.zeros((0, len(labels)))
    for _, i, j, c in sorted(pairs, key=lambda p: p[0]):
        more = np.vstack([spanned, np.zeros(len(labels))])
        more[-1, [i, j]] = c
        if np.linalg.matrix_rank(more, tol=0.1) > len(spanned):  # not what the others say already
            spanned = more
            said.append(f"{_product(labels[i], labels[j], *(c / relative[[i, j]]))} is measured, not each")
    paired = {i for i in partly if np.any(spanned[:, i])}
    rest = [i for i in partly if i not in paired]
    count = round(float(np.sum(share[rest])))
    if count:
        names = ", ".join(labels[i] for i in sorted(rest, key=lambda i: -share[i]))
        said.append(
            f"{'a combination' if count == 1 else f'{count} combinations'} of {names}: the priors decide, not the data"
        )
    weak = [labels[i] for i in alone if labels[i] != SCALE]
    return [*([f"the data say less than the prior of: {', '.join(weak)}"] if weak else []), *said]


def _product(a: str, b: str, p: float, q: float) -> str:
    """Words for a^p b^q, up to a power of it: a x b, a / b, a^2 x b; a combination where zero has no logarithm."""
    if not (np.isfinite(p) and np.isfinite(q) and p and q):
        return f"a combination of {a} and {b}"
    powers = [f"{abs(x) / min(abs(p), abs(q)):.2g}" for x in (p, q)]
    first, second = (name if power == "1" else f"{name}^{power}" for name, power in zip((a, b), powers, strict=True))
    return f"{first} {'x' if p * q > 0 else '/'} {second}"
