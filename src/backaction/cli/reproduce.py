"""`backaction reproduce`: a paper's claims and figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from backaction.cli.common import Json, Progress, put, say
from backaction.errors import InputError


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(reproduce)


def reproduce(
    key: Annotated[
        str, typer.Argument(metavar="KEY", help="A paper: moller2017, huang2018, ockeloen2018, thomas2021.")
    ],
    figures: Annotated[
        Path | None, typer.Option("--figures", metavar="DIR", help="Also write the figures here.")
    ] = None,
    claim: Annotated[str | None, typer.Option("--claim", metavar="ID", help="One claim only.")] = None,
    json: Json = False,
) -> None:
    """Show side by side what a paper says and what its stated parameters give."""
    from backaction.files import provenance, to_json
    from backaction.papers import paper, run
    from backaction.papers.frame import show

    chosen = paper(key)
    if figures is not None and figures.is_file():
        raise InputError(f"--figures {figures}: is a file; name a folder")
    context = chosen.context()
    with Progress("reproduce") as progress:
        outcomes = run(chosen, claim, lambda text, part: progress(f"claims: {text}", part), context)
        if figures is not None:
            _draw(chosen, context, figures, progress)
    if json:
        document = {"schema": "backaction/reproduce/1", "paper": key, "reference": chosen.reference}
        put(to_json(document | {"provenance": provenance(), "claims": [o.document() for o in outcomes]}))
        return
    put(chosen.reference + "\n")
    width = max(len(o.claim.id) for o in outcomes)
    for o in outcomes:
        c = o.claim
        printed = f"{c.printed:g} {'+-' if c.stated else '(+-)'} {c.error:g} {c.unit}".strip()
        put(f"{c.id:<{width}}  {printed:<24} {show(o.computed):<20} {o.agreement:7.2f} errors  {o.verdict}")
        if claim is not None:
            put("\n".join(x for x in (f"  {c.text} ({c.where})", f"  {c.note}" if c.note else "") if x))
    if claim is None:
        for title, make in chosen.sections.items():
            put(f"\n{title}\n" + make(context))
    counts = {v: sum(o.verdict.startswith(v) for o in outcomes) for v in ("reproduces", "differs", "not determined")}
    put("\n" + ", ".join(f"{n} {v}" for v, n in counts.items()))


def _draw(chosen: object, context: Any, folder: Path, progress: Progress) -> None:
    from backaction.files import replacing
    from backaction.papers import Paper

    assert isinstance(chosen, Paper)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        raise InputError(f"--figures {folder}: cannot make this folder") from None
    for name, make in chosen.figures.items():
        progress(f"figures: {name}")
        with replacing(folder / f"{name}.png") as temporary:
            make(context).savefig(temporary, format="png", dpi=150)
    say(f"wrote {len(chosen.figures)} figures to {folder}")
