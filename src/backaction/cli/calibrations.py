"""Command on calibrations: `calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backaction.cli.common import Json, Progress, distinct, put, say
from backaction.errors import CheckError, InputError, nearest

if TYPE_CHECKING:
    from backaction.calibration.sets import CalibrationSet


MethodOrSet = Annotated[str, typer.Argument(metavar="METHOD|SET.toml", help="A method, or a calibration set.")]
Data = Annotated[list[str] | None, typer.Argument(metavar="DATA...", help="Data files of the method.")]
Setting = Annotated[
    list[str] | None, typer.Option("--set", metavar="SETTING=VALUE", help="A setting of the method; units allowed.")
]
Given = Annotated[
    list[str] | None,
    typer.Option(
        "--given",
        metavar="KEY=VALUE",
        help="What the file does not say: unit, sided, averages, window, overlap, padding, smoothing, reference.",
    ),
]
PriorsOf = Annotated[str | None, typer.Option("--experiment", help="Whose fields the priors are of.")]
Output = Annotated[
    Path | None, typer.Option("-o", "--output", metavar="F.json", help="calibration.json for fit, analyze.")
]
Report = Annotated[Path | None, typer.Option("--report", metavar="FOLDER", help="A page with figures.")]
ListSettings = Annotated[bool, typer.Option("--settings", help="List the method's settings.")]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(calibrate)


def calibrate(
    method: MethodOrSet = "",
    data: Data = None,
    set_: Setting = None,
    given: Given = None,
    experiment: PriorsOf = None,
    output: Output = None,
    report: Report = None,
    settings: ListSettings = False,
    json: Json = False,
) -> None:
    """From what a laboratory measures to parameters with errors and correlations, and priors that fit and analyze read."""
    from backaction.calibration import METHODS
    from backaction.calibration.sets import run_set

    if json and (settings or not method):
        raise InputError(
            "--json prints the result of a method or set; the list is in `backaction list --json`, settings are text"
        )
    if not method:
        put("\n".join(f"{k:<20} {(c.__doc__ or '').splitlines()[0]}" for k, c in METHODS.items()))
        return
    if output is not None and output.suffix != ".json":
        raise InputError(f"-o {output}: name it *.json")
    distinct([output], [method, *(data or [])])
    if method.endswith(".toml"):
        if data or set_ or given or experiment or settings:
            raise InputError(f"{method}: a calibration set names its files and settings itself")
        with Progress("calibrate") as progress:
            found = run_set(method, progress)
    else:
        if method not in METHODS:
            raise InputError(f"calibrate {method}: unknown method{nearest(method, METHODS)}")
        if settings:
            put(_settings(METHODS[method]))
            return
        found = _run_method(method, data or [], set_ or [], given or [], experiment)
    _show(found, output, report, json)


def _run_method(
    method: str, data: list[str], set_: list[str], given: list[str], experiment: str | None
) -> CalibrationSet:
    """One calibration of the command line, as a set of its own."""
    from dataclasses import replace

    from backaction.calibration import METHODS
    from backaction.calibration.sets import combine, run_one, source_of
    from backaction.experiment.experiment import Experiment
    from backaction.experiment.toml import read_overrides

    cls = METHODS[method]
    chosen = cls.from_table(method, dict(read_overrides(set_)), "--set")
    said = dict(read_overrides(given, "--given"))
    with Progress("calibrate") as progress:
        progress(method)
        result = run_one(chosen, data, said)
    found = combine(method, [result], Experiment.load(experiment) if experiment else None)
    return replace(found, sources={method: source_of(cls, read_overrides(set_), data, said, {})})


def _show(found: CalibrationSet, output: Path | None, report: Path | None, json: bool) -> None:
    """Write report and calibration file, print the result, and fail where a model does not describe its data."""
    from backaction.files import replacing, to_json

    if report is not None:
        from backaction.report import calibration

        calibration.write_calibration_report(found, report)
        say(f"report: {report / 'index.html'}")
    if output is not None:
        with replacing(output) as path:
            path.write_text(to_json(found.document()), "utf-8")
    put(to_json(found.document()) if json else _text(found))
    for warning in found.warnings:
        say(f"warning: {warning}")
    if not found.passed:
        raise CheckError("a calibration's model does not describe its data")


def _settings(cls: Any) -> str:
    from dataclasses import MISSING, fields

    lines = [" ".join((cls.__doc__ or "").split()), "", f"data: {cls.reads}", ""]
    for f in fields(cls):
        if f.name == "name":
            continue
        unit = f.metadata.get("unit", f.metadata.get("series", ""))
        words = "|".join(c for c in f.metadata.get("choices", ()) if c)
        must = f.default is MISSING and f.default_factory is MISSING
        default = "required" if must else "" if f.default in (None, "", (), False) else f"default {f.default}"
        lines.append(f"  {f.name:<28}{words or unit:<28}{default:<22}{f.metadata.get('doc', '')}".rstrip())
    return "\n".join(lines)


def _text(found: CalibrationSet) -> str:
    from backaction.report.calibration import shown

    lines = []
    for r in found.results:
        lines.append(f"{r.name} ({r.method})")
        for k, q in r.quantities.items():
            lines.append(f"  {k:<30}{shown(q.value, q.sd):>32} {q.unit:<8} {q.meaning}".rstrip())
        if r.deviance is not None and r.p is not None and r.condition is not None:
            lines.append(
                f"  chi2 {r.deviance:.4g} for {r.dof} degrees of freedom, p = {r.p:.2g}; condition {r.condition:.3g}"
            )
        lines += [f"  {t}" for t in r.notes]
    if found.priors:
        lines.append("priors")
        lines += [f"  {k:<38}{shown(q.value, q.sd):>28} {q.unit}" for k, q in found.priors.items()]
    return "\n".join(lines)
