"""The command `limits`: what limits a result and what to change."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backaction.cli.common import Json, Set, distinct, load, put, say
from backaction.errors import InputError

if TYPE_CHECKING:
    from backaction.design.limits import Limits

MOST = 10
"""Lines of a list that are printed."""

Source = Annotated[
    str,
    typer.Argument(metavar="SOURCE", help="An experiment (TOML or shipped), fitted.toml, or posterior.nc of `fit`."),
]
Of = Annotated[
    str | None, typer.Option("--of", metavar="RESULT", help="Default: the EPR variance, or one mode's occupation.")
]
RecordName = Annotated[str | None, typer.Option("--record", help="Of a posterior: which record's experiment.")]
SaveAs = Annotated[Path | None, typer.Option("--save", metavar="F", help="Write x.json, x.csv, x.pdf, x.png or x.svg.")]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(limits)


def limits(
    source: Source,
    of: Of = None,
    record: RecordName = None,
    next_: Annotated[bool, typer.Option("--next", help="Of a posterior: what to measure next.")] = False,
    save: SaveAs = None,
    set_: Set = None,
    json: Json = False,
) -> None:
    """What limits a result and what to change: sensitivities, and its value without each imperfection."""
    from backaction.design.limits import find_limits
    from backaction.files import to_json

    if save is not None and save.suffix.lower() not in (".json", ".csv", ".pdf", ".png", ".svg"):
        raise InputError(f"--save {save}: unknown ending '{save.suffix}'; name it *.json, *.csv, *.pdf, *.png or *.svg")
    distinct([save], [source])
    draws: Any = None
    facts: dict[str, Any] = {}
    if Path(source).suffix == ".nc":
        from backaction.inference.netcdf import mean_experiment, read_posterior

        if set_:
            raise InputError("--set is for an experiment; a posterior has its own values")
        chosen, draws, facts = mean_experiment(read_posterior(source), record)
    elif record is not None or next_:
        raise InputError("--record and --next are of a posterior: give the posterior.nc of `fit -o`")
    else:
        chosen = load(source, set_)
    found = find_limits(chosen, of, draws)
    known = facts.pop("next", [])
    if next_ and not known:
        raise InputError(f"{source}: holds no advice on what to measure next: no record has a conditional state")
    advice = known if next_ else []
    document = found.document() | facts | ({"next": advice} if next_ else {})
    if save is not None:
        _save(save, found, document)
        say(f"wrote {save}")
    put(to_json(document) if json else limits_text(found, advice))


def limits_text(found: Limits, advice: list[dict[str, Any]]) -> str:
    """The findings for people."""
    span = "" if found.interval is None else f"   (5-95 %: {found.interval[0]:.6g} .. {found.interval[1]:.6g})"
    lines = [f"{found.of} of {found.experiment}: {found.value:.7g}{span}", "", "without"]
    width = max((len(w.what) for w in found.without), default=0)
    for w in (*found.singles, *found.together):
        if w.value is None:
            lines.append(f"  {w.what:<{width}}  none: {w.reason}")
            continue
        span = "" if w.interval is None else f"   (5-95 %: {w.interval[0]:.5g} .. {w.interval[1]:.5g})"
        lines.append(f"  {w.what:<{width}}  {w.value:>12.6g}  {w.change:>+12.4g}{span}")
    if found.pairs:
        lines += ["", "two at a time, where they interact (and by how much more than the sum of both)"]
        lines += [
            f"  {w.what:<{width}}  {w.value:>12.6g}  {w.change:>+12.4g}  {w.interaction:>+12.4g}"
            for w in found.pairs[:MOST]
        ]
    lines += ["", "sensitivities (d ln value/d ln field)"]
    for s in found.sensitivities[:MOST]:
        log = f"{'-':>10}" if s.log_derivative is None else f"{s.log_derivative:>+10.4f}"
        lines.append(f"  {s.field:<40}{log}   at {s.value:.6g}")
    if len(found.sensitivities) > MOST:
        lines.append(f"  and {len(found.sensitivities) - MOST} smaller ones (--json has all)")
    if advice:
        lines += ["", "what to measure next"]
        lines += [f"  {g['what']}: sigma({g['of']}) {g['now']:.4g} -> {g['after']:.4g}" for g in advice[:MOST]]
    return "\n".join(lines)


def _save(path: Path, found: Limits, document: dict[str, Any]) -> None:
    """Write JSON, a table or a figure, whole or not at all."""
    import csv

    from backaction.files import replacing, to_json
    from backaction.report.limits import limits_figure

    kind = path.suffix.lower()
    with replacing(path) as temporary:
        if kind == ".json":
            temporary.write_text(to_json(document) + "\n", "utf-8")
        elif kind == ".csv":
            with open(temporary, "w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(["kind", "name", "value", "change_or_derivative", "log_derivative"])
                writer.writerow(["value", found.of, found.value, "", ""])
                writer.writerows(["without", w.what, w.value, w.change, ""] for w in found.without)
                writer.writerows(
                    ["sensitivity", s.field, s.value, s.derivative, s.log_derivative] for s in found.sensitivities
                )
        else:
            limits_figure(found).savefig(temporary, format=kind[1:], dpi=150)
