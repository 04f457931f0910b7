"""The page of a calibration: results with errors and correlations, the fits as pictures, the prior block."""

from __future__ import annotations

import base64
import io
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np

from backaction._version import __version__
from backaction.calibration.method import Result
from backaction.calibration.sets import SCHEMA, CalibrationSet
from backaction.files import to_json
from backaction.report.calibration_figures import figure
from backaction.report.page import STYLE, escaped, writable


def write_calibration_report(found: CalibrationSet, folder: str | Path) -> Path:
    """Write `index.html`, `calibration.json` and one figure per calibration into `folder`, once all of them are made.

    Figures of an earlier calibration report in the folder are removed.

    Raises
    ------
    InputError
        If the folder cannot be made or written.
    """
    target = writable(folder)
    work = Path(tempfile.mkdtemp(prefix=".calibration.", dir=target))
    try:
        images = {}
        names = _files(found)
        for r in found.results:
            if r.panels:
                buffer = io.BytesIO()
                figure(r).savefig(buffer, format="png", dpi=140)
                (work / names[r.name]).write_bytes(buffer.getvalue())
                images[r.name] = base64.b64encode(buffer.getvalue()).decode("ascii")
        (work / "calibration.json").write_text(to_json(found.document()), "utf-8")
        (work / "index.html").write_text(page(found, images), "utf-8")
        for old in _earlier(target):
            old.unlink(missing_ok=True)
        for item in sorted(work.iterdir()):
            item.replace(target / item.name)
    finally:
        shutil.rmtree(work, ignore_errors=True)
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


def page(found: CalibrationSet, images: dict[str, str]) -> str:
    """The page as HTML, everything in it."""
    bad = [r.name for r in found.results if r.p is not None and r.p <= 1e-3]
    kind, text = (
        ("withheld", f"these models do not describe their data: {', '.join(bad)}")
        if bad
        else ("yes", "every model describes its data")
    )
    parts = [f"<h1>{escaped(found.name)}</h1>", f'<p class="verdict {kind}">{escaped(text)}</p>']
    if found.warnings:
        parts.append("<h2>Warnings</h2><ul>" + "".join(f"<li>{escaped(w)}</li>" for w in found.warnings) + "</ul>")
    if found.priors:
        rows = "".join(
            f"<tr><td>{escaped(k)}</td><td class='n'>{shown(q.value, q.sd)}</td><td>{escaped(q.unit)}</td></tr>"
            for k, q in found.priors.items()
        )
        parts.append(
            f"<h2>Priors</h2><table><tr><th>field</th><th class='n'>value</th><th>unit</th></tr>{rows}</table>"
        )
    for r in found.results:
        parts.append(_section(r, images.get(r.name)))
    parts.append(f"<footer>backaction {__version__}; numbers: calibration.json</footer>")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escaped(found.name)} – "
        f"backaction</title><style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _section(r: Result, image: str | None) -> str:
    rows = "".join(
        f"<tr><td>{escaped(k)}</td><td "
        f"class='n'>{shown(q.value, q.sd)}</td><td>{escaped(q.unit)}</td><td>{escaped(q.meaning)}</td></tr>"
        for k, q in r.quantities.items()
    )
    out = f"<h2>{escaped(r.name)} <small>({escaped(r.method)})</small></h2><table>{rows}</table>"
    facts = []
    if r.deviance is not None and r.dof is not None and r.p is not None:
        facts.append(f"χ² {r.deviance:.4g} for {r.dof} degrees of freedom, p = {r.p:.2g}")
    if r.condition is not None:
        facts.append(f"condition {r.condition:.3g}")
    strong = r.document()["correlations"]
    if strong:
        facts.append("correlations " + ", ".join(f"{k} {v:+.2f}" for k, v in list(strong.items())[:8]))
    items = [*facts, *r.notes]
    out += "<ul>" + "".join(f"<li>{escaped(t)}</li>" for t in items) + "</ul>" if items else ""
    if image:
        out += f'<figure><img alt="data and fit of {escaped(r.name)}" src="data:image/png;base64,{image}"></figure>'
    return out


def shown(value: float, sd: float) -> str:
    """`1.2345 ± 0.0012`: two digits of the error."""
    if not (np.isfinite(sd) and sd > 0):
        return f"{value:.6g}"
    digits = int(1 - np.floor(np.log10(sd)))
    if digits <= 9 and abs(value) < 1e9:
        return f"{round(value, digits):.{max(0, digits)}f} ± {round(sd, digits):.{max(0, digits)}f}"
    places = max(1, int(np.floor(np.log10(max(abs(value), sd)))) + digits)
    return f"{value:.{places}e} ± {sd:.1e}"
