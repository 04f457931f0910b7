"""Who does the work: threads here, or a Dask scheduler that outgrows one machine; and how far it is."""

from __future__ import annotations

import contextlib
import inspect
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from typing import Any, Literal, TypeVar

from backaction.errors import InputError

T = TypeVar("T")
Progress = Callable[[str, float | None], None]
"""What is being done, and which fraction of it (None where that is not known)."""


def quiet(text: str, part: float | None = None) -> None:
    """Progress that nobody watches."""


def listener(progress: Callable[..., Any] | None, former: Literal["text", "part"] = "text") -> Progress:
    """A caller's progress; one that takes a single argument gets `former` alone, as it was until the next release."""
    if progress is None:
        return quiet
    try:
        kinds = [p.kind for p in inspect.signature(progress).parameters.values()]
    except (TypeError, ValueError):  # a built-in function
        return progress
    many = inspect.Parameter.VAR_POSITIONAL in kinds
    if many or sum(k <= inspect.Parameter.POSITIONAL_OR_KEYWORD for k in kinds) != 1:
        return progress
    warnings.warn("progress is called with a text and a fraction (text, part)", DeprecationWarning, stacklevel=3)

    def heard(text: str, part: float | None = None) -> None:
        progress(text if former == "text" else part)

    return heard


@contextlib.contextmanager
def executor(scheduler: str | None = None, workers: int | None = None) -> Iterator[Executor]:
    """`workers` threads here (default: one per core), or the workers of the Dask scheduler at an address.

    What has not begun when the block is left is not begun.

    Raises
    ------
    InputError
        If Dask is not installed or nothing answers there.
    """
    if scheduler is not None:
        with connect_scheduler(scheduler) as client:
            distant = client.get_executor(pure=False)
            try:
                yield distant
            finally:
                distant.shutdown(wait=False)
        return
    pool = ThreadPoolExecutor(max(1, workers or os.cpu_count() or 1))
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def as_they_come(
    pool: Executor, work: Callable[..., T], arguments: Iterable[tuple[Any, ...]]
) -> Iterator[tuple[int, T]]:
    """(number, result) of `work(*arguments)` for every tuple, in the order in which they are done."""
    numbers = {pool.submit(work, *a): i for i, a in enumerate(arguments)}
    for future in as_completed(numbers):
        yield numbers[future], future.result()


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
