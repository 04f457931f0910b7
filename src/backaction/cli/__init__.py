"""The command line: `backaction COMMAND ...`. Presentation only; heavy imports happen inside the commands."""

from __future__ import annotations

import sys
from typing import Any

import typer

from backaction.cli import calibrations, design, fits, limits, records, reproduce, states
from backaction.cli.common import Command
from backaction.errors import BackactionError

app = typer.Typer(
    name="backaction",
    help="Continuously measured linear quantum systems: spectra by source, conditional states, entanglement, records.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
states.register(app)
records.register(app)
fits.register(app)
calibrations.register(app)
design.register(app)
limits.register(app)
reproduce.register(app)
for _command in app.registered_commands:
    _command.cls = Command


# the base of every usage error, wherever this version of typer keeps it
_USAGE_ERROR: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


def np_error() -> Any:
    """NumPy's LinAlgError, if NumPy was ever imported."""
    numpy = sys.modules.get("numpy")
    return numpy.linalg.LinAlgError if numpy is not None else ()


def main(arguments: list[str] | None = None) -> None:
    """Run one command and exit: 0 good, 2 bad input, 3 no such answer, 4 checks failed, 130 interrupted."""
    try:
        code = app(arguments, prog_name="backaction", standalone_mode=False) or 0
        if code == 130:  # how typer hands on an interrupt
            raise KeyboardInterrupt
        sys.exit(code)
    except _USAGE_ERROR as error:
        text = error.format_message()
        sys.stderr.write(text + "\n" if "\n" in text else f"backaction: {text} (see backaction --help)\n")
        sys.exit(2)
    except BackactionError as error:
        sys.stderr.write(f"backaction: {error}\n")
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write("backaction: interrupted\n")
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except np_error() as error:
        sys.stderr.write(f"backaction: numerically singular for these values ({error}); are they meant?\n")
        sys.exit(3)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        sys.stderr.write(f"backaction: {where}{error.strerror or error}\n")
        sys.exit(2)
    except MemoryError:
        sys.stderr.write("backaction: not enough memory for this request\n")
        sys.exit(2)
