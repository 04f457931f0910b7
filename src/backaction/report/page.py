"""The page that reports share: one template, escaped by itself; figures within it; files that appear together."""

from __future__ import annotations

import base64
import contextlib
import functools
import io
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from backaction.errors import InputError

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem;border-bottom:1px solid #d0d7de;padding-bottom:.2rem}
.verdict{padding:.8rem 1rem;border-left:6px solid #57606a;background:#f6f8fa;font-size:1.1rem}
.yes{border-color:#1a7f37}.no{border-color:#9a6700}.withheld{border-color:#cf222e}
table{border-collapse:collapse;width:100%;font-size:.9rem}
td,th{text-align:left;padding:.25rem .6rem;border-bottom:1px solid #eaeef2}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}img{max-width:100%}.bad{color:#cf222e;font-weight:600}.good{color:#1a7f37}
.wide{overflow-x:auto}figure{margin:1rem 0}
@media(max-width:40rem){table{font-size:.8rem}td,th{padding:.25rem .3rem;overflow-wrap:anywhere}
th,td.n,.good,.bad{overflow-wrap:normal}}
footer{color:#57606a;font-size:.85rem;margin-top:2rem}
"""


@dataclass(frozen=True)
class Cell:
    """Text of a table and its class: `n` a number, `good`, `bad`."""

    text: str
    style: str = ""


@dataclass(frozen=True)
class Picture:
    """A PNG within the page."""

    data: str
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """A heading and what is under it; a section without anything is left out."""

    title: str
    head: Sequence[Cell] = ()
    rows: Sequence[Sequence[Cell]] = ()
    paragraphs: Sequence[str] = ()
    items: Sequence[str] = ()
    figures: Sequence[Picture] = field(default_factory=list)
    kind: str = ""


def page(
    title: str,
    heading: str,
    verdict: str,
    kind: str,
    sections: Sequence[Section],
    warnings: Sequence[str] = (),
    footer: Sequence[str] = (),
) -> str:
    """The page as HTML, everything in it; `kind` of the verdict is yes, no, withheld or plain."""
    shown = [s for s in sections if s.rows or s.paragraphs or s.items or s.figures]
    return str(
        _template().render(
            title=title, heading=heading, verdict=verdict, kind=kind, sections=shown, warnings=warnings, footer=footer,
            style=STYLE,
        )
    )  # fmt: skip


@functools.cache
def _template() -> Any:
    import jinja2

    text = (resources.files("backaction") / "data" / "templates" / "page.html.j2").read_text("utf-8")
    return jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(text)


def numbers(*texts: str) -> list[Cell]:
    """Cells of numbers."""
    return [Cell(t, "n") for t in texts]


@contextlib.contextmanager
def staged(folder: str | Path) -> Iterator[tuple[Path, Path]]:
    """(a folder to write into, the report's own): the files move there together when all of them are made.

    Raises
    ------
    InputError
        If the folder cannot be made or written.
    """
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError:
        raise InputError(f"{target}: cannot make this folder") from None
    if not os.access(target, os.W_OK):
        raise InputError(f"{target}: this folder cannot be written")
    work = Path(tempfile.mkdtemp(prefix=".report.", dir=target))
    try:
        yield work, target
        for item in sorted(work.iterdir()):
            item.replace(target / item.name)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def save(figure: Any, path: Path, dpi: int = 150) -> str:
    """Write a figure as PNG; returns it as text for a page."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    path.write_bytes(buffer.getvalue())
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def shown(value: float, sd: float) -> str:
    """`1.2345 ± 0.0012`: two digits of the error."""
    if not (np.isfinite(sd) and sd > 0):
        return f"{value:.6g}"
    digits = int(1 - np.floor(np.log10(sd)))
    if digits <= 7 and abs(value) < 1e9:
        return f"{round(value, digits):.{max(0, digits)}f} ± {round(sd, digits):.{max(0, digits)}f}"
    places = max(1, int(np.floor(np.log10(max(abs(value), sd)))) + digits)
    return f"{value:.{places}e} ± {sd:.1e}"
