"""The report of a fit: what limits the state, parameters from prior to posterior, derived quantities, checks, figures."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from backaction._version import __version__
from backaction.files import to_json
from backaction.inference.advice import advice
from backaction.inference.posterior import Posterior
from backaction.report import posterior as figures
from backaction.report.limits import limits_section
from backaction.report.page import Cell, Picture, Section, numbers, page, save, shown, staged
from backaction.workers import Progress, quiet

CAPTIONS = {
    "corner": "Posterior of the main result and the parameters that it is most correlated with.",
    "spectra": "Measured spectra, the model's 90 % band, and their ratio.",
    "traces": "Draws in the order in which they were made, one line a chain.",
}
WORDS = {
    "weight": "a",
    "angle_deg": "angle",
    "probability_below_1": "P(< 1)",
    "probability_below_half": "P(< 1/2)",
}


def drawings(found: Posterior) -> dict[str, Callable[[], Any]]:
    """The figures of a posterior by name: `fit --figures` and the report draw the same."""
    out: dict[str, Callable[[], Any]] = {
        "corner": lambda: figures.corner(found),
        "spectra": lambda: figures.spectra(found),
    }
    if found.draws.method in ("nuts", "ensemble"):
        out["traces"] = lambda: figures.traces(found)
    if any(n.startswith("conditional.epr.fixed") for n in found.derived):
        for field in found.campaign.vary:
            out[f"epr_against_{field}"] = functools.partial(figures.against, found, field)
    return out


def write_fit_report(
    found: Posterior, folder: str | Path, more: Mapping[str, Any] | None = None, progress: Progress | None = None
) -> Path:
    """Write `index.html`, `result.json`, `fitted.toml` (of the main record, posterior mean) and the figures into `folder`.

    `more` joins the document: what `fit --next --worst --evidence` found. Files appear only when all of them are made.

    Raises
    ------
    InputError
        If the folder cannot be made or written.
    """
    say = progress or quiet
    document = found.document() | dict(more or {})
    with staged(folder) as (work, target):
        images = {}
        for name, make in drawings(found).items():
            say(f"drawing {name}", None)
            images[name] = save(make(), work / f"{name}.png", 130)
        main = found.campaign.records[found.main_record]
        fitted = f"# {main.name}: mean of the posterior\n{found.experiment_at_mean(found.main_record).to_toml()}"
        (work / "fitted.toml").write_text(fitted, "utf-8")
        (work / "result.json").write_text(to_json(document), "utf-8")
        (work / "index.html").write_text(_page(found, document, images), "utf-8")
        for old in (*CAPTIONS, *(p.stem for p in target.glob("epr_against_*.png"))):  # of an earlier report of ours
            (target / f"{old}.png").unlink(missing_ok=True)
    return target


def _page(found: Posterior, document: dict[str, Any], images: dict[str, str]) -> str:
    k = found.main_record
    main = found.campaign.records[k].name
    limits = limits_section(found.experiment_at_mean(k), found.fields(k), [asdict(g) for g in advice(found)])
    checks = [
        [Cell(t.name), Cell("passed", "good") if t.passed else Cell("FAILED", "bad"), Cell(t.sentence)]
        for t in found.tests
    ]
    pictures = [Picture(data, CAPTIONS.get(n, n), CAPTIONS.get(n, n.replace("_", " "))) for n, data in images.items()]
    notes = [f"{t[0].upper() + t[1:]}." for t in document["checks"]["identifiability"]]
    sections = [
        limits, _parameters(document, notes), _derived(document), Section("Checks", rows=checks), _more(document),
        Section("Figures", figures=pictures),
    ]  # fmt: skip
    verdict, kind = _verdict(found, main)
    facts = found.draws
    footer = [
        f"{len(found.campaign.records)} records: {', '.join(r.name for r in found.campaign.records)}. "
        f"{facts.method}, {facts.flat.shape[0]} draws, seed {facts.seed}.",
        f"backaction {__version__}; every number is in result.json, {main} at the posterior mean in fitted.toml.",
    ]
    name = found.campaign.name
    return page(f"{name}: fit", f"{name}: posterior", verdict, kind, sections, found.warnings, footer)


def _verdict(found: Posterior, main: str) -> tuple[str, str]:
    """The main result in words, and the colour of its frame."""
    failed = [t.name for t in found.tests if not t.passed]
    if failed:
        text = f"withheld: {len(failed)} of {len(found.tests)} checks of the posterior failed ({', '.join(failed)})"
        return text, "withheld"
    summary = found.derived_summary
    tail = f"[{main}]" if len(found.campaign.records) > 1 else ""
    e = summary.get(f"conditional.epr.fixed{tail}")
    if e is not None:
        at = f"at a = {e['weight']:.3f}, angle {e['angle_deg']:.1f}°"
        number = f"conditional EPR variance {shown(e['mean'], e['sd'])}"
        return f"{main}: {number} {at}; P(V < 1) = {e['probability_below_1']:.3f}", "yes" if e["q95"] < 1 else "no"
    n = next((k for k in summary if re.fullmatch(r"conditional\.occupation\.[^\[]*" + re.escape(tail), k)), None)
    if n is None:
        return f"{main}: no conditional state; parameters alone", "plain"
    mode = n.removesuffix(tail).rpartition(".")[2]
    s, p = summary[n], summary[f"conditional.purity.{mode}{tail}"]
    return (
        f"{main}: {mode} {shown(s['mean'], s['sd'])} quanta, purity {shown(p['mean'], p['sd'])}, conditional",
        "plain",
    )


def _parameters(document: dict[str, Any], notes: list[str]) -> Section:
    conflict = document["checks"]["conflict"]
    rows = [
        [
            Cell(n),
            *numbers(prior.replace("+-", "±").replace("*/", "×/"), shown(s["mean"], s["sd"]), f"{conflict[n]:+.1f}"),
        ]
        for (n, s), prior in zip(document["parameters"].items(), document["prior"].values(), strict=True)
    ]
    head = [Cell("parameter"), *numbers("prior", "posterior mean ± sd", "conflict (sd)")]
    return Section("Parameters", head, rows, notes)


def _derived(document: dict[str, Any]) -> Section:
    rows = []
    for n, s in document["derived"].items():
        extra = ", ".join(f"{WORDS[k]} = {v:.4g}" for k, v in s.items() if k in WORDS)
        span = f"{s['q05']:.4g} – {s['q95']:.4g}"
        rows.append([Cell(n), *numbers(shown(s["mean"], s["sd"]), span), Cell(extra)])
    return Section("Derived", [Cell("quantity"), *numbers("mean ± sd", "5–95 %"), Cell("")], rows)


def _more(document: dict[str, Any]) -> Section:
    """The worst case and the evidence, where they were asked for."""
    items = []
    if "worst" in document:
        items.append(f"{document['worst']['sentence']} ({document['worst']['status']}).")
    evidence = document.get("log_evidence")
    if evidence and evidence["value"] is not None:
        items.append(f"Ln of the evidence: {evidence['value']:.3f} ± {evidence['error']:.3f}.")
    return Section("Further", items=items)
