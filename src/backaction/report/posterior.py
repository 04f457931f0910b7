"""Figures of a posterior: corner, traces, spectra with their residuals, V_c against detuning, ranks."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from backaction.inference.posterior import Posterior
from backaction.inference.sbc import RANKS, RankStatistics
from backaction.report.figures import COLOURS, canvas


def corner(found: Posterior, names: Sequence[str] = (), bins: int = 30) -> Any:
    """Pairwise and single distributions, 50 and 90 % contours; default: the main result and what it is correlated with."""
    import corner as drawing

    values = {n: found.values[..., i].ravel() for i, n in enumerate(found.target.labels())}
    values |= {n: q.values.ravel() for n, q in found.derived.items()}
    chosen = [n for n in (names or _interesting(found)) if np.ptp(values[n][np.isfinite(values[n])]) > 0]
    columns = np.column_stack([values[n] for n in chosen])
    k = len(chosen)
    fig, _ = canvas(1.45 * k + 1.2, 1.45 * k + 0.6, k, k, squeeze=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it would arrange the panels itself; the layout engine does it better
        drawing.corner(
            columns[np.all(np.isfinite(columns), axis=1)], bins, fig=fig, labels=[_short(n) for n in chosen],
            levels=(0.5, 0.9), color=COLOURS[0], plot_datapoints=False, plot_density=False, fill_contours=True,
            max_n_ticks=3, smooth=1.0, label_kwargs={"fontsize": 7},
        )  # fmt: skip
    for ax in fig.axes:
        ax.tick_params(labelsize=6)
    fig.suptitle(f"{found.campaign.name}: posterior, 50 and 90 % contours", fontsize=9)
    return fig


def traces(found: Posterior, names: Sequence[str] = ()) -> Any:
    """Draws in the order in which they were made, one line per chain."""
    labels = found.target.labels()
    chosen = list(names or _interesting(found))
    fig, axes = canvas(8.0, 1.1 * len(chosen) + 0.6, len(chosen), 1, squeeze=False, sharex=True)
    for ax, name in zip(axes[:, 0], chosen, strict=True):
        values = found.values[..., labels.index(name)] if name in labels else found.derived[name].values
        for c, chain in enumerate(values):
            ax.plot(chain, lw=0.4, color=COLOURS[c % len(COLOURS)])
        ax.set_ylabel(_short(name), fontsize=6, rotation=0, ha="right", va="center")
        ax.tick_params(labelsize=6)
    axes[-1, 0].set_xlabel("draw", fontsize=8)
    return fig


def spectra(found: Posterior) -> Any:
    """Every measured spectrum, the posterior's 90 % band of the model, and the ratio below (Thomas 2021, Fig. 12a)."""
    records, fine = found.ready.fine.campaign.records, found.ready.fine
    flat = found.draws.flat
    models = fine.models(flat[np.linspace(0, len(flat) - 1, 60).astype(int)])
    columns = min(4, len(records))
    rows = -(-len(records) // columns)
    fig, axes = canvas(
        2.9 * columns + 0.4, 3.0 * rows + 0.3, 2 * rows, columns, squeeze=False, height_ratios=[3, 1] * rows
    )
    top_sn = 1.3 * max(float(np.max(r.density_sn)) for r in records)
    low_sn = 0.8 * min(float(np.quantile(r.density_sn, 0.01)) for r in records)
    for k in range(rows * columns):
        top, low = axes[2 * (k // columns), k % columns], axes[2 * (k // columns) + 1, k % columns]
        if k >= len(records):
            top.set_visible(False)
            low.set_visible(False)
            continue
        f = records[k].spectrum.frequency_hz / 1e6
        size = max(1, f.size // 400)
        cut = f.size - f.size % size
        y = records[k].density_sn[:cut].reshape(-1, size)
        mu = np.nanmean(models[k], axis=0)[:cut].reshape(-1, size)
        x = f[:cut].reshape(-1, size).mean(axis=1)
        ends = np.array([m[:cut].reshape(-1, size).mean(axis=1) for m in models[k]])
        band = np.nanquantile(ends, [0.05, 0.95], axis=0)
        top.semilogy(x, y.mean(axis=1), ".", ms=2, color="#777777", label="measured")
        top.fill_between(x, *band, color=COLOURS[1], alpha=0.8, lw=0.8, label="model, 90 %")
        top.axhline(1.0, color="#555555", lw=0.6, ls=":")
        low.plot(x, y.mean(axis=1) / mu.mean(axis=1), ".", ms=2, color="#777777")
        low.axhline(1.0, color=COLOURS[1], lw=0.8)
        spread = float(np.nanmax(np.abs(y.mean(axis=1) / mu.mean(axis=1) - 1)))
        low.set_ylim(1 - 1.1 * spread, 1 + 1.1 * spread)
        top.set_title(records[k].name, fontsize=8)
        top.set_ylim(low_sn, top_sn)
        top.tick_params(labelsize=6, labelbottom=False)
        low.tick_params(labelsize=6)
        if k % columns == 0:
            top.set_ylabel("density (SN)", fontsize=7)
            low.set_ylabel("ratio", fontsize=7)
        if k >= len(records) - columns:
            low.set_xlabel("frequency (MHz)", fontsize=7)
    axes[0, 0].legend(fontsize=6, frameon=False)
    return fig


def against(found: Posterior, field: str, quantity: str = "conditional.epr.fixed") -> Any:
    """A derived quantity of every record against a field's posterior, with 90 % error bars (Thomas 2021, Fig. 12b)."""
    labels, several = found.target.labels(), len(found.campaign.records) > 1
    fig, ax = canvas(5.2, 3.6)
    for r in found.campaign.records:
        tail = f"[{r.name}]" if several else ""
        own = f"{field}[{r.name}]" if f"{field}[{r.name}]" in labels else field
        name = f"{quantity}{tail}"
        if name not in found.derived or own not in labels:
            continue
        x, y = found.values[..., labels.index(own)].ravel(), found.derived[name].values.ravel()
        (a, m, b), (lo, mid, hi) = (np.nanquantile(v, [0.05, 0.5, 0.95]) for v in (x, y))
        scale = 1e-3 if field.endswith("_hz") else 1.0
        ax.errorbar(scale * m, mid, yerr=[[mid - lo], [hi - mid]], xerr=[[scale * (m - a)], [scale * (b - m)]], fmt="o",
                    ms=4, capsize=2, color=COLOURS[0])  # fmt: skip
    ax.axhline(1.0, color="#555555", ls="--", lw=0.8)
    ax.set_xlabel(f"{field.replace('_hz', '')} (kHz)" if field.endswith("_hz") else field)
    ax.set_ylabel(f"{quantity}")
    ax.set_title(f"{found.campaign.name}: median and 90 %; dashed: separable limit", fontsize=9)
    return fig


def ranks(found: RankStatistics, most: int = 24) -> Any:
    """Histograms of ranks with the 99 % band of a uniform distribution; derived quantities first."""
    from scipy import stats

    names = sorted(found.names, key=lambda n: not n.startswith("conditional"))[:most]
    columns = 4
    rows = -(-len(names) // columns)
    fig, axes = canvas(9.0, 1.5 * rows + 0.5, rows, columns, squeeze=False, sharex=True, sharey=True)
    bins, count = 10, len(found.ranks)
    low, high = stats.binom(count, 1 / bins).ppf([0.005, 0.995])
    for k, ax in enumerate(axes.ravel()):
        if k >= len(names):
            ax.set_visible(False)
            continue
        i = found.names.index(names[k])
        ax.axhspan(low, high, color="#dddddd")
        ax.hist(found.ranks[:, i], bins=bins, range=(-0.5, RANKS + 0.5), color=COLOURS[0], alpha=0.85)
        ax.set_title(_short(names[k]), fontsize=7)
        ax.tick_params(labelsize=6)
    fig.suptitle(f"{found.campaign}: ranks of the truth, {count} simulated campaigns ({found.method})", fontsize=9)
    return fig


def _interesting(found: Posterior) -> list[str]:
    """The main derived quantity and the parameters that it is most correlated with."""
    main = [n for n in found.derived if n.startswith("conditional.epr.fixed")] or list(found.derived)
    if not main:
        return list(found.target.labels()[:6])
    best = min(main, key=lambda n: float(np.nanmean(found.derived[n].values)))
    return [best, *list(found.facts["correlation"].get(best, {}))]


def _plain(ax: Any) -> bool:
    return all(abs(v) < 1e4 for v in (*ax.get_xlim(), *ax.get_ylim()))


def _short(name: str) -> str:
    head, _, tail = name.partition("[")
    parts = head.split(".")
    text = ".".join(parts[-2:]) if len(parts) > 2 else "\n".join(parts)
    return text + (f"\n[{tail}" if tail else "")
