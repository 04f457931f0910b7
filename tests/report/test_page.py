"""The report's page in a real browser: Debian's chromium, headless, from the file."""

import shutil
import subprocess

import pytest

from backaction import analyze
from backaction.records.simulation import reference, simulate
from backaction.report import analysis as report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (CI installs Debian's)")
def test_report_page_in_chromium(thomas, tmp_path):
    """The page renders its verdict, tables and four pictures, without a network and without script errors."""
    made = simulate(thomas, 0.05, 1e7, seed=1)
    found = analyze(thomas, made.record, reference("shot", thomas, 0.05, 1e7, seed=2), quick=True)
    page = report.write_report(found, tmp_path / "report") / "index.html"
    common = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [*common, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    assert found.verdict.split(":")[0] in done.stdout
    assert done.stdout.count("<img") == 5
    shot = tmp_path / "page.png"
    subprocess.run(
        [*common, f"--screenshot={shot}", "--window-size=1000,4200", page.as_uri()],
        capture_output=True,
        timeout=120,
        check=True,
    )

    from matplotlib.image import imread

    pixels = imread(shot)[..., :3]
    # pictures: coloured (unequal red, green, blue) pixels well beyond the text's
    coloured = (pixels.max(axis=-1) - pixels.min(axis=-1)) > 0.2
    assert pixels.shape[:2] == (4200, 1000)
    assert coloured.mean() > 0.03
