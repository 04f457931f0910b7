"""The page of a calibration: results with errors and correlations, the fits as pictures, the prior block."""

from __future__ import annotations

import json
from pathlib import Path

from backaction._version import __version__
from backaction.calibration.method import Result
from backaction.calibration.sets import SCHEMA, CalibrationSet
from backaction.files import to_json
from backaction.report.calibration_figures import figure
from backaction.report.page import Cell, Picture, Section, numbers, page, save, shown, staged


def write_calibration_report(found: CalibrationSet, folder: str | Path) -> Path:
    """Write `index.html`, `calibration.json` and one figure per calibration into `folder`, once all of them are made.

    Figures of an earlier calibration report in the folder are removed.

    Raises
    ------
    InputError
        If the folder cannot be made or written.
    """
    with staged(folder) as (work, target):
        names = _files(found)
        images = {r.name: save(figure(r), work / names[r.name], 140) for r in found.results if r.panels}
        (work / "calibration.json").write_text(to_json(found.document()), "utf-8")
        (work / "index.html").write_text(_page(found, images), "utf-8")
        for old in _earlier(target):
            old.unlink(missing_ok=True)
    return target


def _files(found: CalibrationSet) -> dict[str, str]:
    """A file name for each result's figure, all different."""
    out: dict[str, str] = {}
    for r in found.results:
        plain = "".join(c if c.isalnum() or c in "-_" else "_" for c in r.name)
        k = 1
        while (file := f"{plain}{'' if k == 1 else k}.png") in out.values():
            k += 1
        out[r.name] = file
    return out


def _earlier(folder: Path) -> list[Path]:
    """Figures that an earlier report of ours left in the folder."""
    try:
        document = json.loads((folder / "calibration.json").read_text("utf-8"))
        names = [r["name"] for r in document["results"]] if document["schema"] == SCHEMA else []
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [folder / ("".join(c if c.isalnum() or c in "-_" else "_" for c in n) + ".png") for n in names]


def _page(found: CalibrationSet, images: dict[str, str]) -> str:
    bad = [r.name for r in found.results if r.p is not None and r.p <= 1e-3]
    verdict = f"these models do not describe their data: {', '.join(bad)}" if bad else "every model describes its data"
    rows = [[Cell(k), *numbers(shown(q.value, q.sd)), Cell(q.unit)] for k, q in found.priors.items()]
    priors = Section("Priors", [Cell("field"), *numbers("value"), Cell("unit")], rows)
    sections = [priors, *(_section(r, images.get(r.name)) for r in found.results)]
    footer = [f"backaction {__version__}; numbers: calibration.json"]
    return page(found.name, found.name, verdict, "withheld" if bad else "yes", sections, found.warnings, footer)


def _section(r: Result, image: str | None) -> Section:
    rows = [[Cell(k), *numbers(shown(q.value, q.sd)), Cell(q.unit), Cell(q.meaning)] for k, q in r.quantities.items()]
    facts = []
    if r.deviance is not None and r.dof is not None and r.p is not None:
        facts.append(f"χ² {r.deviance:.4g} for {r.dof} degrees of freedom, p = {r.p:.2g}")
    if r.condition is not None:
        facts.append(f"condition {r.condition:.3g}")
    strong = r.document()["correlations"]
    if strong:
        facts.append("correlations " + ", ".join(f"{k} {v:+.2f}" for k, v in list(strong.items())[:8]))
    pictures = [Picture(image, f"data and fit of {r.name}")] if image else []
    return Section(r.name, rows=rows, items=[*facts, *r.notes], figures=pictures, kind=r.method)
