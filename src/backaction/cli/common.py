"""What the commands share: reading experiments, frequency ranges, progress, output."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from backaction.errors import InputError

if TYPE_CHECKING:
    from backaction.experiment.experiment import Experiment
    from backaction.numerics.matrices import Array


ExperimentName = Annotated[str, typer.Argument(metavar="EXPERIMENT", help="A TOML file or a shipped name.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="ELEMENT.FIELD=VALUE", help="Override a field; repeatable; units allowed."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")]
Rate = Annotated[float | None, typer.Option("--rate", help="Sample rate in Hz, where the file does not say it.")]
SamplingRule = Annotated[
    str | None, typer.Option("--sampling", help="average or instantaneous, where the file does not say it.")
]
Unit = Annotated[str | None, typer.Option("--unit", help="Unit of the samples, where the file does not say it.")]
Scale = Annotated[float | None, typer.Option("--scale", help="Unit per count, where the file does not say it.")]


class Command(typer.core.TyperCommand):
    """A command that refuses an option of one value given twice: the last would silently win."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Count the options in a parsing of their own, then go on as ever."""
        order = self.make_parser(ctx).parse_args(args=list(args))[2]
        for p in order:
            one = isinstance(p, typer.core.TyperOption) and not (p.multiple or p.is_flag or p.count)
            if one and order.count(p) > 1:
                ctx.fail(f"{max(p.opts, key=len)}: given {order.count(p)} times, takes one value")
        return super().parse_args(ctx, args)


def load(name: str, overrides: list[str] | None) -> Experiment:
    """The experiment with its `--set` overrides."""
    from backaction.experiment.experiment import Experiment
    from backaction.experiment.toml import read_overrides

    experiment = Experiment.load(name)
    return experiment.overridden(read_overrides(overrides)) if overrides else experiment


def frequencies(text: str) -> Array:
    """`LO:HI:N` in Hz, units allowed: `1.3 MHz:1.45 MHz:500`."""
    import numpy as np

    from backaction.units import number

    parts = text.split(":")
    if len(parts) != 3:
        raise InputError(f"--f {text}: expected LO:HI:N, such as 1.3e6:1.45e6:500")
    low, high = (number(p, "Hz", f"--f {text}") for p in parts[:2])
    try:
        count = int(parts[2])
    except ValueError:
        raise InputError(f"--f {text}: N = {parts[2]!r}: expected a whole number") from None
    if not (low < high and 1 <= count <= 10_000_000):
        raise InputError(f"--f {text}: needs LO < HI and N from 1 to 10000000")
    return np.linspace(low, high, count)


def interval(text: str, option: str) -> tuple[float, float]:
    """LO:HI of frequencies in Hz."""
    from backaction.units import number

    parts = text.split(":")
    if len(parts) != 2:
        raise InputError(f"{option} {text}: expected LO:HI, such as 1.2e6:1.3e6")
    low, high = (number(p, "Hz", f"{option} {text}") for p in parts)
    if not 0 <= low < high:
        raise InputError(f"{option} {text}: needs 0 <= LO < HI")
    return low, high


def distinct(outputs: list[Any], inputs: list[Any]) -> None:
    """Refuse to write over a file that is read, or to write two things to one file."""
    from pathlib import Path

    seen = {Path(str(p)).resolve(): str(p) for p in inputs if p is not None}
    for path in (p for p in outputs if p is not None):
        key = Path(str(path)).resolve()
        if key in seen:
            raise InputError(f"{path}: would overwrite {seen[key]}; name another file")
        seen[key] = str(path)


def say(text: str) -> None:
    """One line on stderr."""
    sys.stderr.write(text + "\n")


def put(text: str) -> None:
    """Text on stdout."""
    sys.stdout.write(text + "\n")


class Progress:
    """Progress on stderr: a bar on a terminal, a line per step elsewhere."""

    def __init__(self, title: str) -> None:
        self.title, self.last = title, ""
        self.live: Any = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bar

            self.live = Bar(
                TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(),
                console=Console(stderr=True), transient=True,
            )  # fmt: skip
            self.task = self.live.add_task(title, total=None)

    def __enter__(self) -> Progress:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self.live:
            self.live.stop()

    def __call__(self, text: str, part: float | None = None) -> None:
        """Say what is done now, and which fraction of it."""
        if self.live:
            total, done = (None, 0) if part is None else (100, 100 * part)
            self.live.update(self.task, description=f"{self.title}: {text}", total=total, completed=done)
            return
        head = text.split(":")[0]
        if head != self.last:
            say(f"{self.title}: {head}")
            self.last = head
