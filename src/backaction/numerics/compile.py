"""Compiled loops, kept on disk: numba functions made for their sizes, without the interpreter lock.

Sources are written to a cache folder (BACKACTION_CACHE, or the user's), where the compiled code is kept too; without a
folder that can be written they are compiled anew in each process.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from backaction.numerics.loops import unrolled

_OPTIONS = "nogil=True, error_model='numpy', fastmath={'contract', 'reassoc'}"


def cache_folder() -> Path | None:
    """Where generated kernels are kept, or None where nothing can be written."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get("BACKACTION_CACHE") or Path(home) / "backaction")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def _kept(kind: str, source: str, name: str) -> Callable[..., Any]:
    """The function `name` of a source, from the cache folder where there is one."""
    folder = cache_folder()
    if folder is not None:
        path = folder / f"{kind}_{hashlib.sha256(source.encode()).hexdigest()[:16]}.py"
        try:
            if not path.is_file() or path.read_text() != source:
                handle, temporary = tempfile.mkstemp(dir=folder, suffix=".tmp")
                with os.fdopen(handle, "w") as file:
                    file.write(source)
                os.replace(temporary, path)
            spec = importlib.util.spec_from_file_location(f"_backaction_{path.stem}", path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module  # the stored code is found again under this name
            spec.loader.exec_module(module)
            return getattr(module, name)  # type: ignore[no-any-return]
        except (OSError, RuntimeError):
            pass
    names: dict[str, Any] = {}
    exec(source.replace("cache=True, ", ""), names)
    return names[name]  # type: ignore[no-any-return]


@functools.cache
def library(*names: str, n: int | None = None) -> Any:
    """The functions of one or more modules of loops (`spectrum`, `program`, ...), compiled together, as a namespace.

    With `n` the lines `n = len(a)` of the modules say that number instead: short loops of known length are unrolled.
    """
    import importlib
    import inspect
    import re

    decorator = f"@numba.njit(cache=True, {_OPTIONS})\n"
    parts = ["import math", "", "import numba", "import numpy as np"]
    functions: list[str] = []
    for name in names:
        text = inspect.getsource(importlib.import_module(f"backaction.numerics.loops.{name}"))
        body = re.sub(r"^(from __future__|import|from) .*$", "", text, flags=re.MULTILINE)
        functions += re.findall(r"^def (\w+)", body, flags=re.MULTILINE)
        if n is not None:
            body = re.sub(r"\bn = len\(\w+\)$", f"n = {n}", body, flags=re.MULTILINE)
            if name == "spectrum" and n > 0:
                made = unrolled.unrolled_source(n)
                at = body.index("def turned(")  # after the general loops, before those that call them
                body = body[:at] + made + "\n\n" + body[at:]
        parts.append(re.sub(r"^def ", decorator + "def ", body, flags=re.MULTILINE))
    parts.append("def functions():\n    return {" + ", ".join(f"'{f}': {f}" for f in dict.fromkeys(functions)) + "}\n")
    return SimpleNamespace(**_kept("_".join(names), "\n".join(parts), "functions")())


@functools.cache
def compiled(name: str, n: int, q: int) -> Callable[..., Any]:
    """One of the loops of `loops.kalman`, compiled for n states and q currents: short inner loops are unrolled."""
    import inspect

    from backaction.numerics.loops import kalman

    body = inspect.getsource(getattr(kalman, name))
    signature, rest = body.split("\n", 1)
    sizes = f"    n, q = {n}, {q}\n"
    source = rest.replace(kalman.SIZES, sizes)
    assert source != rest
    head = f"import numba\nimport numpy as np\n\n\n@numba.njit(cache=True, {_OPTIONS})\n"
    return _kept(name, f"{head}{signature}\n{source}", name)
