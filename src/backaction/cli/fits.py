"""Commands on campaigns: `fit`, `sbc`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backaction.cli.common import Json, Progress, distinct, put, say
from backaction.errors import CheckError, InputError

if TYPE_CHECKING:
    from backaction.inference.posterior import Posterior


CampaignName = Annotated[str, typer.Argument(metavar="CAMPAIGN", help="A campaign's TOML file or a shipped name.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the random numbers.")]

# options of `fit`
Output = Annotated[Path | None, typer.Option("-o", "--output", metavar="F.nc", help="ArviZ data (NetCDF).")]
Figures = Annotated[Path | None, typer.Option("--figures", metavar="FOLDER", help="Figures as PNG.")]
Report = Annotated[Path | None, typer.Option("--report", metavar="FOLDER", help="HTML report, as of `analyze`.")]
Sampler = Annotated[str, typer.Option("--sampler", help="nuts, importance (quick), ensemble, laplace (unchecked).")]
Draws = Annotated[int, typer.Option("--draws", min=50, help="Draws of each chain.")]
Chains = Annotated[int, typer.Option("--chains", min=1, help="Chains.")]
Cores = Annotated[int, typer.Option("--cores", min=1, help="Chains at a time.")]
Next = Annotated[bool, typer.Option("--next", help="Which measurement would narrow the result most.")]
WorstCase = Annotated[str | None, typer.Option("--worst", metavar="CHI2:SD", help="Largest V allowed, such as 4:2.")]
Evidence = Annotated[bool, typer.Option("--evidence", help="Ln of the evidence, to compare models.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(fit)
    app.command()(sbc)


def fit(
    campaign: CampaignName,
    output: Output = None,
    figures: Figures = None,
    report: Report = None,
    sampler: Sampler = "nuts",
    draws: Draws = 1000,
    chains: Chains = 4,
    cores: Cores = 2,
    seed: Seed = 0,
    next_: Next = False,
    worst: WorstCase = None,
    evidence: Evidence = False,
    json: Json = False,
) -> None:
    """The posterior of a campaign: parameters, states, entanglement with credible intervals, and how far to trust it."""
    from backaction import inference
    from backaction.files import to_json
    from backaction.inference.campaign import Campaign
    from backaction.inference.quantities import modes
    from backaction.inference.samplers import METHODS
    from backaction.report.fit import write_fit_report

    if sampler not in METHODS:
        raise InputError(f"--sampler {sampler}: must be one of {', '.join(METHODS)}")
    if output is not None and output.suffix != ".nc":
        raise InputError(f"-o {output}: posteriors are written as NetCDF; name it *.nc")
    limits = None if worst is None else _limits(worst)
    distinct([output], [campaign])
    _check_places(output, figures, report)
    keep = None if output is None else output.with_name(f".{output.name}.chains")
    with Progress("fit") as progress:
        chosen = Campaign.load(campaign, progress)
        pairs = [r for r in chosen.records if len(modes(r.experiment)) == 2]
        if limits is not None and not pairs:
            raise InputError(f"{campaign}: --worst needs an EPR variance, of two modes: no record has one")
        found = inference.infer(chosen, sampler, draws, chains, seed, cores, progress, keep)
        more = _more(found, next_, limits, evidence, progress)
        if output is not None:
            progress(f"writing {output}")
            _write(found, output, keep)
        if figures is not None:
            _draw(found, figures, progress)
        if report is not None:
            write_fit_report(found, report, more, progress)
    document = found.document() | more
    if json:
        put(to_json(document))
    else:
        _print(found, document)
    for warning in found.warnings:
        say(f"warning: {warning}")
    if report is not None:
        say(f"report: {report / 'index.html'}")
    if not found.passed:
        raise CheckError("checks of the posterior failed; entanglement is not claimed")


def sbc(
    campaign: CampaignName,
    count: Annotated[int, typer.Option("--count", min=20, help="Simulated campaigns.")] = 200,
    sampler: Annotated[str, typer.Option("--sampler", help="nuts or importance.")] = "nuts",
    seed: Seed = 0,
    cores: Annotated[int, typer.Option("--cores", min=1, help="Campaigns at a time.")] = 2,
    figure: Annotated[Path | None, typer.Option("--figure", metavar="F.png", help="Histograms of the ranks.")] = None,
    json: Json = False,
) -> None:
    """Simulation-based calibration: whether the posteriors of this campaign mean what they say."""
    from backaction.files import replacing, to_json
    from backaction.inference.campaign import Campaign
    from backaction.inference.sbc import rank_statistics
    from backaction.report import posterior

    if figure is not None and (figure.suffix not in (".png", ".pdf", ".svg") or not figure.parent.is_dir()):
        raise InputError(f"--figure {figure}: name a *.png, *.pdf or *.svg in a folder that exists")
    if sampler not in ("nuts", "importance"):
        raise InputError(f"--sampler {sampler}: must be nuts or importance")
    with Progress("sbc") as progress:
        chosen = Campaign.load(campaign, progress)
        found = rank_statistics(chosen, count, seed, sampler, cores, progress)
    document = found.document()
    if figure is not None:
        with replacing(figure) as path:
            posterior.ranks(found).savefig(path, dpi=150, format=figure.suffix.lstrip(".") or "png")
    if json:
        put(to_json(document))
    else:
        put(f"{'quantity':48s} uniform p   50 %    90 %")
        for name, q in document["quantities"].items():
            put(f"{name:48s} {q['uniform_p']:9.3f} {q['coverage_50']:6.3f} {q['coverage_90']:7.3f}")
        for text in found.failures:
            say(f"warning: campaign {text}")
        put(f"{len(found.ranks)} campaigns: {'calibrated' if found.passed else 'NOT calibrated'}")
    if not found.passed:
        raise CheckError("the posteriors of this campaign are not calibrated")


def _check_places(output: Path | None, figures: Path | None, report: Path | None) -> None:
    """Whether the results can be written, before the fit; makes the folder of the figures."""
    if report is not None and report.exists() and not report.is_dir():
        raise InputError(f"--report {report}: is a file; name a folder")
    if output is not None and (output.is_dir() or not output.parent.is_dir()):
        raise InputError(f"-o {output}: {'is a folder' if output.is_dir() else 'its folder does not exist'}")
    if figures is not None and figures.exists() and not figures.is_dir():
        raise InputError(f"--figures {figures}: is a file; name a folder")
    if figures is not None:
        figures.mkdir(parents=True, exist_ok=True)


def _write(found: Posterior, output: Path, keep: Path | None) -> None:
    """Write the posterior and remove the chains that were kept beside it."""
    from backaction.inference import netcdf

    netcdf.write_posterior(found, output)
    for path in keep.glob("*.npz") if keep is not None else ():
        path.unlink()
    if keep is not None and keep.is_dir():
        keep.rmdir()


def _limits(text: str) -> tuple[float, float]:
    head, _, tail = text.partition(":")
    try:
        chi2, sd = float(head), float(tail or "2")
    except ValueError:
        raise InputError(f"--worst {text}: expected CHI2:SD, such as 4:2") from None
    if not (chi2 > 0 and sd > 0):
        raise InputError(f"--worst {text}: both must be > 0")
    return chi2, sd


def _more(
    found: Posterior, next_: bool, limits: tuple[float, float] | None, evidence: bool, progress: Progress
) -> dict[str, Any]:
    from dataclasses import asdict

    from backaction.inference import advice
    from backaction.inference.evidence import log_evidence

    out: dict[str, Any] = {}
    if next_:
        out["next"] = [asdict(g) for g in advice.next_measurements(found)]
    if limits is not None:
        progress("worst case")
        case = advice.worst_case(found, None, *limits)
        out["worst"] = asdict(case) | {"sentence": str(case)}
    if evidence and not found.tests[0].passed:
        out["log_evidence"] = {"value": None, "error": None}
    elif evidence:
        value, error = log_evidence(found.target, found.draws, fine=found.ready.fine)
        out["log_evidence"] = {"value": value, "error": error}
    return out


def _draw(found: Posterior, folder: Path, progress: Progress) -> None:
    from backaction.files import replacing
    from backaction.report.fit import drawings

    folder.mkdir(parents=True, exist_ok=True)
    for name, make in drawings(found).items():
        progress(f"drawing {name}")
        with replacing(folder / f"{name}.png") as path:
            make().savefig(path, dpi=130, format="png")


def _print(found: Posterior, document: dict[str, Any]) -> None:
    import numpy as np

    from backaction.inference.quantities import modes

    for t in found.tests:
        put(f"{'passed' if t.passed else 'FAILED'}  {t.sentence}")
    put("")
    priors = list(document["prior"].values())
    put(f"{'parameter':46s} {'prior':>24s}   {'posterior':>24s}   conflict")
    for (name, s), prior in zip(document["parameters"].items(), priors, strict=True):
        pull = document["checks"]["conflict"][name]
        put(f"{name:46s} {prior:>24s}   {s['mean']:>12.6g} +- {s['sd']:<8.3g}   {pull:+5.1f}")
    put("")
    words = {
        "weight": "a =",
        "angle_deg": "angle =",
        "probability_below_1": "P(< 1) =",
        "probability_below_half": "P(< 1/2) =",
    }
    width = max((len(n) for n in document["derived"]), default=0)
    put(f"{'derived':{width}s}   {'mean':>10s} +- {'sd':<10s} 5 .. 95 %")
    for name, s in document["derived"].items():
        extra = "".join(f"  {words[k]} {v:.4g}" for k, v in s.items() if k in words)
        digits = max(0, min(6, 1 - int(np.floor(np.log10(s["sd"]))))) if s["sd"] > 0 else 4
        low, high = (f"{s[k]:.{digits}f}" for k in ("q05", "q95"))
        put(f"{name:{width}s}   {s['mean']:>10.{digits}f} +- {s['sd']:<10.{digits}f} {low} .. {high}{extra}")
    put(
        "fixed: at the one (a, angle) of the mean covariance; variance: each draw at its best; an EPR variance below 1 is"
    )
    put(
        "entangled, as is ppt_min below 1/2; log_negativity in ebit; bare: without technical noise, electronics and further"
    )
    put("modes; conflict of data and prior in standard deviations.")
    apart = [r.name for r in found.campaign.records if len(modes(r.experiment)) == 2
             and not any(n.startswith("conditional.") and n.endswith(f"[{r.name}]") for n in found.derived)]  # fmt: skip
    if apart and len(found.campaign.records) > 1:
        put(f"the two modes never meet in: {', '.join(apart)}")
    for text in document["checks"]["identifiability"]:
        put(f"identifiability: {text}")
    for g in document.get("next", [])[:10]:
        put(f"next: {g['what']}: sigma({g['of']}) {g['now']:.4g} -> {g['after']:.4g}")
    if "worst" in document:
        put(f"worst case: {document['worst']['sentence']} ({document['worst']['status']})")
    if not found.passed:
        put("CHECKS FAILED: do not take these numbers for the system's; entanglement is not claimed")
    if "log_evidence" in document and document["log_evidence"]["value"] is None:
        put("ln evidence: withheld, the sampler did not converge")
    elif "log_evidence" in document:
        put(f"ln evidence: {document['log_evidence']['value']:.3f} +- {document['log_evidence']['error']:.3f}")
