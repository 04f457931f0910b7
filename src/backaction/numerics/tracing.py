"""The map from parameters to matrices as a straight-line program: traced once, run and reversed by compiled loops.

The builders of the elements are arithmetic on their fields. `Trace` gives them fields that write down what is done to
them; the result is a list of scalar operations (equal ones written once, zeros and ones folded) for the entries that are
asked for. Running it costs nanoseconds an operation instead of NumPy's overhead per matrix, and its reversal gives
the gradient of any function of the entries, exactly. What a builder decides by comparing numbers is decided
once, at the values of the trace: who uses a tape compares it with the builder elsewhere.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backaction.numerics.loops.program import (
    ADD,
    ATAN,
    COS,
    DIV,
    EXP,
    EXPM1,
    LOG,
    MUL,
    NORMAL,
    POW,
    QUANTILE,
    SIN,
    SQRT,
    SUB,
)
from backaction.numerics.matrices import Array

_UNARY: dict[int, Callable[[float], float]] = {
    SQRT: math.sqrt, COS: math.cos, SIN: math.sin, EXP: math.exp, LOG: math.log, ATAN: math.atan,
    NORMAL: lambda x: 0.5 * math.erfc(-x / math.sqrt(2)), QUANTILE: lambda x: statistics.NormalDist().inv_cdf(x),
    EXPM1: math.expm1,
}  # fmt: skip


class Var:
    """A number that remembers how it was made. Comparisons use its value at the trace."""

    __array_priority__ = 0.0
    __slots__ = ("index", "trace", "value")

    def __init__(self, trace: Trace, index: int, value: float) -> None:
        self.trace, self.index, self.value = trace, index, value

    def _binary(self, code: int, a: Any, b: Any) -> Any:
        return self.trace.apply(code, a, b)

    def __add__(self, other: Any) -> Any:
        return NotImplemented if isinstance(other, np.ndarray) else self._binary(ADD, self, other)

    def __radd__(self, other: Any) -> Any:
        return self._binary(ADD, other, self)

    def __sub__(self, other: Any) -> Any:
        return NotImplemented if isinstance(other, np.ndarray) else self._binary(SUB, self, other)

    def __rsub__(self, other: Any) -> Any:
        return self._binary(SUB, other, self)

    def __mul__(self, other: Any) -> Any:
        return NotImplemented if isinstance(other, np.ndarray) else self._binary(MUL, self, other)

    def __rmul__(self, other: Any) -> Any:
        return self._binary(MUL, other, self)

    def __truediv__(self, other: Any) -> Any:
        return NotImplemented if isinstance(other, np.ndarray) else self._binary(DIV, self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return self._binary(DIV, other, self)

    def __pow__(self, other: Any) -> Any:
        if isinstance(other, Var):
            return (other * self.log()).exp()
        if other == 2:
            return self * self
        if other == -1:
            return 1.0 / self
        return self._binary(POW, self, float(other))

    def __rpow__(self, other: Any) -> Any:
        return (self * math.log(other)).exp()

    def __neg__(self) -> Any:
        return self._binary(SUB, 0.0, self)

    def __pos__(self) -> Var:
        return self

    def __abs__(self) -> Any:
        return -self if self.value < 0 else self

    def sqrt(self) -> Any:
        """Square root, as `np.sqrt` of an array of variables calls it; so the functions below."""
        return self._binary(SQRT, self, 0.0)

    def cos(self) -> Any:
        """Cosine."""
        return self._binary(COS, self, 0.0)

    def sin(self) -> Any:
        """Sine."""
        return self._binary(SIN, self, 0.0)

    def tan(self) -> Any:
        """Tangent."""
        return self.sin() / self.cos()

    def exp(self) -> Any:
        """Exponential."""
        return self._binary(EXP, self, 0.0)

    def expm1(self) -> Any:
        """Exponential less one."""
        return self._binary(EXPM1, self, 0.0)

    def log(self) -> Any:
        """Natural logarithm."""
        return self._binary(LOG, self, 0.0)

    def arctan(self) -> Any:
        """Arc tangent."""
        return self._binary(ATAN, self, 0.0)

    def normal(self) -> Any:
        """Normal distribution function."""
        return self._binary(NORMAL, self, 0.0)

    def quantile(self) -> Any:
        """Its inverse."""
        return self._binary(QUANTILE, self, 0.0)

    def conjugate(self) -> Var:
        """Itself: variables are real."""
        return self

    def rint(self) -> float:
        """The nearest integer, as a plain number."""
        return float(np.rint(self.value))

    def isfinite(self) -> bool:
        """Whether the value is finite."""
        return math.isfinite(self.value)

    @property
    def real(self) -> Var:
        """Itself."""
        return self

    @property
    def imag(self) -> float:
        """Zero."""
        return 0.0

    def __float__(self) -> float:
        return self.value

    def __complex__(self) -> complex:
        return complex(self.value)

    def __bool__(self) -> bool:
        return self.value != 0

    def __lt__(self, other: Any) -> bool:
        return self.value < float(other)

    def __le__(self, other: Any) -> bool:
        return self.value <= float(other)

    def __gt__(self, other: Any) -> bool:
        return self.value > float(other)

    def __ge__(self, other: Any) -> bool:
        return self.value >= float(other)

    def __eq__(self, other: object) -> bool:
        return self.value == float(other)  # type: ignore[arg-type]

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # type: ignore[assignment]


class Trace:
    """Records operations. `inputs` (values at which decisions are taken) become `self.inputs`, a list of `Var`."""

    def __init__(self, inputs: Sequence[float]) -> None:
        self.codes: list[int] = []
        self.left: list[int] = []
        self.right: list[int] = []
        self.values: list[float] = []
        self.constant: list[bool] = []
        self._known: dict[tuple[Any, ...], Var] = {}
        self.inputs = [self._new(0, -1, -1, float(x), False) for x in inputs]

    def _new(self, code: int, a: int, b: int, value: float, constant: bool) -> Var:
        self.codes.append(code)
        self.left.append(a)
        self.right.append(b)
        self.values.append(value)
        self.constant.append(constant)
        return Var(self, len(self.codes) - 1, value)

    def number(self, value: Any) -> Var:
        """A constant (each value once), or the variable itself."""
        if isinstance(value, Var):
            return value
        x = complex(value)
        if x.imag != 0.0:
            raise TypeError("complex numbers are not traced")
        key = ("constant", x.real)
        if key not in self._known:
            self._known[key] = self._new(0, -1, -1, x.real, True)
        return self._known[key]

    def apply(self, code: int, a: Any, b: Any) -> Any:
        """The result of one operation; constants are folded and equal operations shared."""
        x, y = self.number(a), self.number(b)
        p, q = self.constant[x.index], self.constant[y.index]
        u, v = x.value, y.value
        value = _value(code, u, v)
        if p and q:
            return self.number(value)  # a variable still: NumPy calls its methods
        if code == MUL:
            if (p and u == 0.0) or (q and v == 0.0):
                return self.number(0.0)
            if p and u == 1.0:
                return y
            if q and v == 1.0:
                return x
        elif code == ADD:
            if p and u == 0.0:
                return y
            if q and v == 0.0:
                return x
        elif code == SUB:
            if q and v == 0.0:
                return x
            if x.index == y.index:
                return self.number(0.0)
        elif code == DIV:
            if p and u == 0.0:
                return self.number(0.0)
            if q and v == 1.0:
                return x
        first, second = (y.index, x.index) if code in (ADD, MUL) and y.index < x.index else (x.index, y.index)
        key = (code, first, second)
        if key not in self._known:
            self._known[key] = self._new(code, first, second, value, False)
        return self._known[key]

    def program(self, outputs: Sequence[Any]) -> Tape:
        """The operations that the `outputs` (variables or numbers) need."""
        wanted = [self.number(o).index for o in outputs]
        count = len(self.inputs)
        needed = np.zeros(len(self.codes), dtype=bool)
        needed[wanted] = True
        for i in range(len(self.codes) - 1, -1, -1):
            if needed[i] and self.codes[i]:
                needed[self.left[i]] = True
                needed[self.right[i]] = True
        needed[:count] = True
        order = np.flatnonzero(needed)
        # inputs first, then constants, then operations in the order in which they were written
        kind = np.array([0 if i < count else 1 if self.codes[i] == 0 else 2 for i in order])
        order = order[np.argsort(kind, kind="stable")]
        place = np.full(len(self.codes), -1)
        place[order] = np.arange(len(order))
        first = int(np.sum(kind < 2))
        ops = order[first:]
        return Tape(
            np.array([self.codes[i] for i in ops], dtype=np.int64),
            np.array([place[self.left[i]] for i in ops], dtype=np.int64),
            np.array([place[self.right[i]] for i in ops], dtype=np.int64),
            np.array([self.values[i] for i in order]),
            np.array([place[i] for i in wanted], dtype=np.int64),
            count,
        )


def _value(code: int, a: float, b: float) -> float:
    try:
        if code == ADD:
            return a + b
        if code == SUB:
            return a - b
        if code == MUL:
            return a * b
        if code == DIV:
            return a / b
        if code == POW:
            return float(a**b)
        return _UNARY[code](a)
    except (ArithmeticError, ValueError):
        return math.nan


@dataclass(frozen=True, eq=False)
class Tape:
    """Operations `codes[i]`: memory[first + i] = code(memory[left[i]], memory[right[i]]); results at `outputs`.

    `memory` holds the inputs, the constants and room for the results; its values are those of the trace.
    """

    codes: Array
    left: Array
    right: Array
    memory: Array
    outputs: Array
    inputs: int

    @property
    def arrays(self) -> tuple[Array, Array, Array]:
        """(codes, left, right), as the compiled loops take them."""
        return self.codes, self.left, self.right

    def __call__(self, inputs: Any) -> Array:
        """The outputs at one point (inputs,) or many (..., inputs); shape (..., outputs)."""
        from backaction.numerics.compile import library

        points = np.ascontiguousarray(np.asarray(inputs, dtype=float).reshape(-1, self.inputs))
        out = np.empty((len(points), len(self.outputs)))
        library("program").many(*self.arrays, self.memory.copy(), points, self.outputs, out)
        return out.reshape(*np.shape(inputs)[:-1], len(self.outputs))

    def gradient(self, inputs: Any, weights: Any) -> Array:
        """Gradient (inputs,) of the weighted sum of the outputs at one point."""
        from backaction.numerics.compile import library

        loops = library("program")
        memory, bar = self.memory.copy(), np.zeros(len(self.memory))
        memory[: self.inputs] = inputs
        loops.forward(*self.arrays, memory)
        np.add.at(bar, self.outputs, np.asarray(weights, dtype=float))
        loops.reverse(*self.arrays, memory, bar)
        return bar[: self.inputs]


def traced(values: Any) -> Array:
    """Variables as an array that the builders take: one leading axis of length one."""
    out = np.empty(1, dtype=object)
    out[0] = values
    return out
