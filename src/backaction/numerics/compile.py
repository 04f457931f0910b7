"""Compiled loops, kept on disk: numba functions made for their sizes, without the interpreter lock.

Sources are written to a cache folder (BACKACTION_CACHE, or the user's), where the compiled code is kept too; without a
folder that can be written they are compiled anew in each process.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import inspect
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from backaction.numerics.loops import unrolled

OPTIONS = "nogil=True, error_model='numpy', fastmath={{{math}}}"
STRICT, SUMS = "'contract'", "'contract', 'reassoc'"
"""Sums are reordered only in `SUMMED` loops, which store nothing: elsewhere the compiler asks at run time whether arrays
overlap, and the last digit of a reordered sum would depend on where memory happens to lie."""
SUMMED = ("gather", "some_gather")


def cache_folder() -> Path | None:
    """Where generated kernels are kept, or None where nothing can be written."""
    import platformdirs

    given = os.environ.get("BACKACTION_CACHE")
    folder = Path(given) if given else platformdirs.user_cache_path("backaction", appauthor=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def kept(kind: str, source: str, name: str) -> Callable[..., Any]:
    """The function `name` of a source, from the cache folder where there is one."""
    folder = cache_folder()
    if folder is not None:
        path = folder / f"{kind}_{hashlib.sha256(source.encode()).hexdigest()[:16]}.py"
        try:
            if not path.is_file() or path.read_bytes() != source.encode():
                handle, temporary = tempfile.mkstemp(dir=folder, suffix=".tmp")
                with os.fdopen(handle, "wb") as file:
                    file.write(source.encode())
                os.chmod(temporary, 0o644)  # a cache may be shared: mkstemp's own mode hides it from others
                os.replace(temporary, path)
            spec = importlib.util.spec_from_file_location(f"_backaction_{path.stem}", path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module  # the stored code is found again under this name
            spec.loader.exec_module(module)
            return getattr(module, name)
        except (OSError, RuntimeError):
            pass
    names: dict[str, Any] = {}
    exec(source.replace("cache=True, ", ""), names)
    return names[name]


class _Specialised(ast.NodeTransformer):
    """The functions of a module of loops with sizes that are known: `n = len(A)` becomes `n = 6`; imports fall away."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self.sizes = sizes

    def visit_Import(self, node: ast.Import) -> None:
        """The compiled source has its own."""

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """Modules that call each other are compiled together."""

    def visit_Assign(self, node: ast.Assign) -> ast.Assign:
        """A size that is read from the shape of an argument (the first statements of a loop) is a number."""
        names = [t.id for t in ast.walk(node.targets[0]) if isinstance(t, ast.Name)]
        read = all(isinstance(v, (ast.Call, ast.Subscript)) for v in _values_of(node))
        if read and all(name in self.sizes for name in names):
            value = ast.parse(", ".join(str(self.sizes[name]) for name in names), mode="eval").body
            return ast.Assign(node.targets, value, lineno=node.lineno)
        return node


def _values_of(node: ast.Assign) -> list[ast.expr]:
    return node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]


def _functions(text: str, sizes: Mapping[str, int]) -> tuple[list[ast.stmt], dict[str, ast.FunctionDef]]:
    """Constants and functions of a module's source, specialised."""
    body = _Specialised(sizes).visit(ast.parse(text)).body
    functions = {f.name: f for f in body if isinstance(f, ast.FunctionDef)}
    return [s for s in body if not isinstance(s, (ast.FunctionDef, ast.Expr))], functions


def _text(constants: Iterable[ast.stmt], functions: Mapping[str, ast.FunctionDef]) -> str:
    """Source of a module in which every function is compiled."""
    for name, f in functions.items():
        options = OPTIONS.format(math=SUMS if name in SUMMED else STRICT)
        f.decorator_list = [ast.parse(f"numba.njit(cache=True, {options})", mode="eval").body]
    later = [c for c in constants if any(isinstance(m, ast.Name) and m.id in functions for m in ast.walk(c))]
    first = [c for c in constants if c not in later]
    module = ast.Module([*first, *functions.values(), *later], [])
    return "import math\n\nimport numba\nimport numpy as np\n" + ast.unparse(ast.fix_missing_locations(module)) + "\n"


@functools.cache
def library(*names: str, n: int | None = None, q: int | None = None) -> Any:
    """The functions of one or more modules of `loops` (`program`, `riccati`, ...), compiled together, as a namespace.

    With `n` the number of states is that number, with `q` that of currents: short loops of known length are unrolled by the
    compiler. (Closures over n would say so without text, but functions that call each other through closures are compiled
    again in every process.)
    """
    constants: list[ast.stmt] = []
    functions: dict[str, ast.FunctionDef] = {}
    sizes = {name: size for name, size in (("n", n), ("q", q)) if size is not None}
    for name in names:
        module = importlib.import_module(f"backaction.numerics.loops.{name}")
        own, found = _functions(inspect.getsource(module), sizes)
        if name == "spectrum" and n:  # in the place of the names of the general loops
            made = _functions(unrolled.unrolled_source(n), {})[1]
            own = [c for c in own if not any(isinstance(m, ast.Name) and m.id in made for m in ast.walk(c))]
            found |= made
        constants += own
        functions |= found
    ending = f"def functions():\n    return {{{', '.join(f'{f!r}: {f}' for f in functions)}}}\n"
    return SimpleNamespace(**kept("_".join(names), _text(constants, functions) + ending, "functions")())


@functools.cache
def compiled(name: str, n: int, q: int) -> Callable[..., Any]:
    """One of the loops of `loops.kalman`, compiled for n states and q currents: short inner loops are unrolled."""
    from backaction.numerics.loops import kalman

    function = _functions(inspect.getsource(getattr(kalman, name)), {"n": n, "q": q})[1]
    return kept(name, _text([], function), name)
