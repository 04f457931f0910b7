"""Pages that are generated from the code when the documentation is built: elements and command line."""

import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path

from backaction.calibration.catalogue import METHODS
from backaction.elements import ELEMENTS, Drive


def _table(cls):
    rows = ["| field | unit | allowed | default | meaning |", "|---|---|---|---|---|"]
    for f in dataclasses.fields(cls):
        m = f.metadata
        if f.name == "name":
            continue
        allowed = ", ".join(m["choices"]) if "choices" in m else ""
        if "unit" in m:
            low, high, above = m["minimum"], m["maximum"], m["above"]
            if above is not None:
                allowed = f"> {above:g}" if high is None else f"({above:g}, {high:g}]"
            elif low is not None:
                allowed = f">= {low:g}" if high is None else f"[{low:g}, {high:g}]"
        missing = f.default is dataclasses.MISSING
        default = "**required**" if missing else "" if f.default in (None, ()) else f"`{f.default}`"
        rows.append(
            f"| `{f.name}` | {m.get('unit', m.get('series', ''))} | {allowed} | {default} | {m.get('doc', '').replace('|', chr(92) + '|')} |"
        )
    groups = ["give only one of " + ", ".join(f"`{k}`" for k in g) for g in cls.groups]
    return "\n".join(rows) + ("\n\n" + "; ".join(groups) + "." if groups else "")


def _elements():
    parts = ["# Elements", "", "Generated from the code. In TOML each is an `[[element]]` with `name` and `kind`.", ""]
    for kind, cls in ELEMENTS.items():
        parts += [f"## `{kind}`", "", "```text", inspect.cleandoc(cls.__doc__ or ""), "```", "", _table(cls), ""]
        for f in dataclasses.fields(cls):
            if f.metadata.get("parts") and f.name != "drive":
                parts += [f"Each entry of `{f.name}` (`[[element.{f.name}]]`):", "", _table(f.metadata["parts"]), ""]
    parts += ["## Noise at an input field", "", "Every element has `drive` (`[[element.drive]]`, or `--set spin.in.excess_sn=1.22`).", "",
              "```text", inspect.cleandoc(Drive.__doc__), "```", "", _table(Drive), ""]  # fmt: skip
    return "\n".join(parts)


def _methods():
    parts = ["# Methods of calibration", "", "Generated from the code. On the command line settings are `--set name=value`; in a calibration set",
             "they are keys of a `[[calibration]]`. `backaction calibrate METHOD --settings` prints the same.", ""]  # fmt: skip
    for kind, cls in METHODS.items():
        doc = inspect.cleandoc(cls.__doc__ or "")
        parts += [f"## `{kind}`", "", "```text", doc, "", f"data: {cls.reads}", "```", "", _table(cls), ""]
    return "\n".join(parts)


def _commands():
    def text(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "backaction", *arguments, "--help"], capture_output=True, text=True, check=True
        )
        return done.stdout

    parts = ["# Command line", "", "Exit codes: 0 good; 2 bad input; 3 the model has no such answer; 4 computed, but checks of the",
             "model against the data failed; 130 interrupted. JSON Schemas are shipped in `backaction/data/schemas/`.", ""]  # fmt: skip
    for name in (
        "list",
        "show",
        "state",
        "spectrum",
        "analyze",
        "fit",
        "sbc",
        "calibrate",
        "track",
        "simulate",
        "optimize",
        "sweep",
        "sense",
        "reproduce",
    ):
        parts += [f"## `backaction {name}`", "", "```text", text(name).strip(), "```", ""]
    return "\n".join(parts)


def on_pre_build(config, **_):
    """Draw the figures of every paper beside its page."""
    from backaction.papers import KEYS, paper

    for key in KEYS:
        chosen = paper(key)
        folder = Path(config["docs_dir"]) / "papers" / key
        folder.mkdir(parents=True, exist_ok=True)
        context = chosen.context()
        for name, make in chosen.figures.items():
            make(context).savefig(folder / f"{name}.png", dpi=110)


def _paper(key):
    from backaction.papers import paper, run
    from backaction.papers.frame import table

    chosen = paper(key)
    context = chosen.context()
    parts = [f"# {key}", "", chosen.reference, "", chosen.intro, "", "## Claims", "",
             "Errors in parentheses are not the paper's: half a unit of the last printed digit, or for words such as \"about\" and for",
             "limits of formulas a width of ours. No value is tuned to agree.", "",
             table(run(chosen, context=context)), ""]  # fmt: skip
    for title, make in chosen.sections.items():
        parts += [f"## {title}", "", (make.__doc__ or "").strip(), "", make(context), ""]
    parts += ["## Figures", ""]
    for name, make in chosen.figures.items():
        parts += [f"### {name}", "", f"![{name}]({key}/{name}.png)", "", (make.__doc__ or "").strip(), ""]
    parts += ["## Each number in Python", "", "```python", "from backaction.papers import paper, run", "",
              f'thomas = paper("{key}")', "context = thomas.context()", "",
              'print(run(thomas, "vc")[0])                 # one claim, judged', "",
              "for claim in thomas.claims:                  # every number, by the function that computes it",
              "    print(claim.id, claim.compute(context))", "",
              'figure = thomas.figures["fig3b"](context)    # a matplotlib figure', "```", ""]  # fmt: skip
    return "\n".join(parts)


def on_page_markdown(markdown, page, **_):
    """Replace the body of the generated pages."""
    if page.file.src_uri.startswith(("papers/", "elements", "command-line", "calibration-methods")):
        page.meta["hide"] = ["toc"]  # the tables need the width
    if page.file.src_uri.startswith("papers/"):
        return _paper(Path(page.file.src_uri).stem)
    if page.file.src_uri == "elements.md":
        return _elements()
    if page.file.src_uri == "calibration-methods.md":
        return _methods()
    if page.file.src_uri == "command-line.md":
        return _commands()
    return markdown
