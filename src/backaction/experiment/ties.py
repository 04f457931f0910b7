"""Arithmetic over fields, such as `100 * spin.intrinsic_linewidth_hz * (spin.occupation + 0.5)`, for ties.

Only numbers, names, + - * / **, and a few functions: nothing else of Python is evaluated. Expressions are analytic, so
that complex steps pass through them.
"""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from backaction.errors import InputError, nearest

FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "sqrt": np.sqrt,
    "exp": np.exp,
    "log": np.log,
    "sin_deg": lambda x: np.sin(x * (np.pi / 180)),
    "cos_deg": lambda x: np.cos(x * (np.pi / 180)),
    "tan_deg": lambda x: np.tan(x * (np.pi / 180)),
}
"""What may be called in an expression."""

_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.Pow: lambda a, b: a**b,
}


@dataclass(frozen=True)
class Expression:
    """A parsed expression: `names` that it uses, and its value given a function from name to value."""

    text: str
    names: tuple[str, ...]

    def __call__(self, value_of: Callable[[str], Any]) -> Any:
        """The value, with every name looked up by `value_of`."""
        try:
            return _evaluate(_parse(self.text).body, self.text, value_of)
        except ArithmeticError as error:
            raise InputError(f"'{self.text}': {error}") from None


def expression(text: str) -> Expression:
    """Parse an expression over fields (`element.field`), variables and numbers.

    Raises
    ------
    InputError
        Naming what is not allowed in it.
    """
    names: list[str] = []

    def collect(name: str) -> float:
        names.append(name)
        return 1.0

    with np.errstate(all="ignore"), contextlib.suppress(ArithmeticError):
        _evaluate(_parse(text).body, text, collect)
    return Expression(text, tuple(dict.fromkeys(names)))


def follow_ties(ties: Mapping[str, Expression], of: Callable[[str], Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Values of tied fields, in the order in which they depend on one another; `of` gives what is not `known`.

    Raises
    ------
    InputError
        If ties go in a circle.
    """
    made: dict[str, Any] = {}
    waiting: list[str] = []

    def value(name: str) -> Any:
        if name in made:
            return made[name]
        if name in ties:
            if name in waiting:
                raise InputError(f"[tie] {' -> '.join([*waiting, name])}: ties go in a circle")
            waiting.append(name)
            made[name] = ties[name](value)
            waiting.pop()
            return made[name]
        return known[name] if name in known else of(name)

    for name in ties:
        value(name)
    return made


def _parse(text: str) -> ast.Expression:
    try:
        return ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError):
        raise InputError(f"'{text}': not an arithmetic expression over fields and numbers") from None


def _evaluate(node: ast.expr, text: str, value_of: Callable[[str], Any]) -> Any:
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
        return float(node.value)
    if isinstance(node, (ast.Name, ast.Attribute)):
        return value_of(_name(node, text))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        value = _evaluate(node.operand, text, value_of)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = (_evaluate(n, text, value_of) for n in (node.left, node.right))
        return _OPERATORS[type(node.op)](left, right)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) == 1 and not node.keywords:
        name = node.func.id
        if name not in FUNCTIONS:
            raise InputError(f"'{text}': no function '{name}'{nearest(name, FUNCTIONS)}; known: {', '.join(FUNCTIONS)}")
        return FUNCTIONS[name](_evaluate(node.args[0], text, value_of))
    raise InputError(f"'{text}': only numbers, fields, + - * / ** and {', '.join(FUNCTIONS)} are allowed")


def _name(node: ast.expr, text: str) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_name(node.value, text)}.{node.attr}"
    raise InputError(f"'{text}': names are of the form element.field")
