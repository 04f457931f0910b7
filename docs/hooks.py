"""Pages that are made from the code when the documentation is built: elements, results, commands, API, papers, code that runs.

Figures and claims of the papers take minutes; they are kept beside their pages (`docs/papers/KEY/`) under a digest of the source
and made again only when it changes, two papers at a time. `python docs/hooks.py KEY` makes those of one paper.
"""

import ast
import contextlib
import dataclasses
import functools
import hashlib
import inspect
import io
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from literal import literal  # noqa: E402

import backaction  # noqa: E402
from backaction.calibration.catalogue import METHODS  # noqa: E402
from backaction.elements.base import Drive  # noqa: E402
from backaction.elements.kinds import ELEMENTS  # noqa: E402

SOURCE = Path(backaction.__file__).parent


def say(text):
    """Progress, on stderr."""
    print(f"docs: {text}", file=sys.stderr, flush=True)


# -- the papers -------------------------------------------------------------------------------------------------------


@functools.cache
def _digest():
    """Of everything that decides a claim or a figure."""
    hashed = hashlib.sha256()
    for file in sorted(SOURCE.rglob("*")):
        apart = file.relative_to(SOURCE).parts
        if file.suffix in (".py", ".toml") and apart[0] not in ("cli", "analysis"):
            hashed.update(file.read_bytes())
    return hashed.hexdigest()


def make_paper(key):
    """Figures and the page of one paper, into its folder."""
    from backaction.papers import paper, run
    from backaction.papers.frame import table

    folder = HERE / "papers" / key
    folder.mkdir(parents=True, exist_ok=True)
    chosen = paper(key)
    context = chosen.context()
    for name, make in chosen.figures.items():
        say(f"{key}: {name}")
        make(context).savefig(folder / f"{name}.png", dpi=110)
    say(f"{key}: claims")
    parts = [f"# {key}", "", literal(chosen.reference), "", literal(chosen.intro), "", "## Claims", "",
             "Errors in parentheses are not the paper's: half a unit of the last printed digit, or for words such as \"about\" and for",
             "limits of formulas a width of ours. No value is tuned to agree.", "",
             literal(table(run(chosen, context=context))), ""]  # fmt: skip
    for title, make in chosen.sections.items():
        parts += [f"## {title}", "", literal((make.__doc__ or "").strip()), "", literal(make(context)), ""]
    parts += ["## Figures", ""]
    for name, make in chosen.figures.items():
        parts += [f"### {name}", "", f"![{name}]({key}/{name}.png)", "", literal((make.__doc__ or "").strip()), ""]
    parts += ["## Each number in Python", "", "```python", "from backaction.papers import paper, run", "",
              f'thomas = paper("{key}")', "context = thomas.context()", "",
              'print(run(thomas, "vc")[0])                 # one claim, judged', "",
              "for claim in thomas.claims:                  # every number, by the function that computes it",
              "    print(claim.id, claim.compute(context))", "",
              f'figure = thomas.figures["{next(iter(chosen.figures))}"](context)    # a matplotlib figure', "```", ""]  # fmt: skip
    (folder / "page.txt").write_text("\n".join(parts), "utf-8")
    (folder / "digest").write_text(_digest())


def on_pre_build(config, **_):
    """Make what is not there or not of this source."""
    from backaction.papers import KEYS

    def current(key):
        mark = HERE / "papers" / key / "digest"
        return mark.is_file() and mark.read_text() == _digest()

    stale = [k for k in KEYS if not current(k)]
    say(
        f"{len(KEYS) - len(stale)} of {len(KEYS)} papers are unchanged"
        + (f"; making {', '.join(stale)}" if stale else "")
    )
    start = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:  # a process each: the longest first
        calls = [pool.submit(subprocess.run, [sys.executable, __file__, k], check=True) for k in reversed(stale)]
        for call in calls:
            call.result()
    if stale:
        say(f"papers made in {time.perf_counter() - start:.0f} s")


# -- generated tables -------------------------------------------------------------------------------------------------


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
        meaning = literal(m.get("doc", "").replace("|", chr(92) + "|"))
        rows.append(
            f"| `{f.name}` | {m.get('unit', m.get('series', ''))} | {literal(allowed)} | {default} | {meaning} |"
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

    listed = re.findall(r"^  (\w+)  ", text().partition("Commands:")[2], flags=re.MULTILINE)
    parts = ["# Command line", "", "Exit codes: 0 good; 2 bad input; 3 the model has no such answer; 4 computed, but checks of the",
             "model against the data failed; 130 interrupted. JSON Schemas are shipped in `backaction/data/schemas/`.", ""]  # fmt: skip
    with ThreadPoolExecutor(2) as pool:
        for name, shown in zip(listed, pool.map(text, listed), strict=True):
            parts += [f"## `backaction {name}`", "", "```text", shown.strip(), "```", ""]
    return "\n".join(parts)


def _results():
    """What can be asked of the shipped two-mode experiments, with values."""
    from backaction import Experiment, evaluate
    from backaction.experiment.results import pole_names
    from backaction.states.measures import measures
    from backaction.systems.view import STATES

    parts = ["# Results", "", f"A result is `STATE.MEASURE`; STATE is {', '.join(f'`{s}`' for s in STATES)}, or `dynamics`. Every one can be evaluated, swept,",
             "optimised, and differentiated. Generated from the code; the values are those of the shipped experiments.", ""]  # fmt: skip
    for key, state in (("thomas2021", "conditional"), ("huang2018", "unconditional")):
        e = Experiment.load(key)
        names = [f"{state}.{m}" for m in measures(e.view)]
        names += ["unconditional.epr_at_conditional.variance"] if key == "thomas2021" else []
        rows = [f"| `{n}` | {float(evaluate(n, e)):.6g} |" for n in [*names, *(f"dynamics.{p}" for p in pole_names(e))]]
        parts += [f"## `{key}`", "", "| result | value |", "|---|---|", *rows, ""]
    return "\n".join(parts)


def _api(package):
    """The exports of a package, each where it is defined."""
    folder = SOURCE if package == "root" else SOURCE / package
    name = "backaction" if package == "root" else f"backaction.{package}"
    doc = ast.get_docstring(ast.parse((folder / "__init__.py").read_text("utf-8"))) or ""
    parts = [f"# `{name}`", "", literal(doc), ""]
    for module, export in re.findall(r"from \.(\S+) import (\w+) as", (folder / "__init__.pyi").read_text("utf-8")):
        if package == "root":
            parts.append(f"* `{export}`: `{name}.{module}`")
        else:
            parts += [f"::: {name}.{module}.{export}", ""]
    return "\n".join(parts)


def _executed(markdown):
    """Blocks marked `python exec` with what they print under them, one namespace a page."""
    names = {}

    def run(match):
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(compile(match[1], "page", "exec"), names)
        shown = said.getvalue().rstrip()
        return f"```python\n{match[1]}```\n" + (f"\n```text\n{shown}\n```\n" if shown else "")

    return re.sub(r"```python exec\n(.*?)```\n", run, markdown, flags=re.DOTALL)


def on_page_markdown(markdown, page, **_):
    """Replace the body of the generated pages."""
    uri = page.file.src_uri
    made = {"reference/elements.md": _elements, "reference/calibration-methods.md": _methods, "reference/command-line.md": _commands,
            "reference/results.md": _results}  # fmt: skip
    if uri.startswith("papers/") or uri in made:
        page.meta["hide"] = ["toc"]  # the tables need the width
    if uri.startswith("papers/"):
        return (HERE / "papers" / Path(uri).stem / "page.txt").read_text("utf-8")
    if uri in made:
        say(uri)
        return made[uri]()
    if uri.startswith("api/"):
        return _api(Path(uri).stem)
    if "```python exec" in markdown:
        say(f"{uri}: running its code")
        return _executed(markdown)
    return markdown


if __name__ == "__main__":
    make_paper(sys.argv[1])
