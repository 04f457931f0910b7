"""The command line within this process, and the schemas of what it prints."""

import json
from importlib import resources

import pytest

from backaction.cli import main


def call(capsys, *arguments):
    """The command within this process."""
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return stop.value.code or 0, captured.out, captured.err


def schema(name):
    return json.loads((resources.files("backaction") / "data" / "schemas" / f"{name}.json").read_text())
