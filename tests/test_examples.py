import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_examples_run(path, capsys):
    runpy.run_path(str(path), run_name="__main__")
    assert "EPR variance" in capsys.readouterr().out


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "docs/quickstart.md",
        *(f"docs/guide/{p}.md" for p in ("states", "spectra", "tracking", "inference", "calibration")),
    ],
)
def test_code_in_pages_runs(page):
    """Every Python block of the page, in order, in one namespace."""
    namespace: dict = {}
    blocks = re.split(r"```python(?: exec)?\n", (ROOT / page).read_text())[1:]
    assert blocks
    for block in blocks:
        exec(compile(block.split("```")[0], page, "exec"), namespace)


def test_experiment_in_the_docs_loads():
    from backaction import Experiment

    text = (ROOT / "docs/guide/experiments.md").read_text().split("```toml\n")[1].split("```")[0]
    assert Experiment.from_toml(text).priors
