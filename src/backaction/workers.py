"""Connection to a Dask scheduler, for work that outgrows one machine."""

from __future__ import annotations

from typing import Any

from backaction.errors import InputError


def connect_scheduler(scheduler: str) -> Any:
    """A client of the scheduler at this address.

    Raises
    ------
    InputError
        If Dask is not installed or nothing answers there.
    """
    try:
        from distributed import Client
    except ImportError:
        raise InputError("--scheduler needs Dask: pip install 'backaction[scale]'") from None
    try:
        return Client(scheduler, timeout="10s")
    except (OSError, ValueError, TimeoutError) as error:
        raise InputError(f"--scheduler {scheduler}: no Dask scheduler answers there ({type(error).__name__})") from None
