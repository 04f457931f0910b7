"""The one noun: a linear quantum system with named ports.

    dx/dt = A x + B w,    y = C x + D w,    <w(t) w(t')^T>_sym = S delta(t - t')

with `[X, P] = i` for modes and `[X(t), P(t')] = i delta(t - t')` for travelling fields, so that the vacuum has
`S = 1/2` per quadrature. `S` is the symmetrised two-sided spectral density. All rates inside the matrices are angular
(rad/s); element fields are cyclic and are multiplied by 2 pi when an element builds its matrices.

Every array may carry leading axes, which broadcast: one point, a sweep and ten thousand posterior draws are one call.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from backaction.errors import ConventionError, InputError, ModelError
from backaction.numerics.matrices import (
    Array,
    block_diagonal,
    concrete,
    cos_sin_deg,
    join,
    product,
    rotation_matrix,
    solve,
    stack,
    symplectic,
    transpose,
)
from backaction.systems import realizability
from backaction.systems.labels import Mode, Port, _commutator, _describe, _find, _slices
from backaction.systems.poles import _slowest
from backaction.systems.realizability import Realizability


@dataclass(frozen=True, eq=False)
class LinearSystem:
    """dx/dt = A x + B w, y = C x + D w, <w w^T> = S, with labelled modes, inputs and outputs. Immutable.

    Shapes: A (..., n, n), B (..., n, m), C (..., p, n), D (..., p, m), S (..., m, m); leading axes broadcast.
    A, B in rad/s and sqrt(rad/s); S dimensionless (vacuum 1/2). Build one from an element or an `Experiment`, or
    directly; join them with `>>` (cascade), `+` (side by side) and `connect` (anything else).
    """

    A: Array
    B: Array
    C: Array
    D: Array
    S: Array
    modes: tuple[Mode, ...] = ()
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()

    def __post_init__(self) -> None:
        n, m, p = (sum(i.size for i in g) for g in (self.modes, self.inputs, self.outputs))
        expected = {"A": (n, n), "B": (n, m), "C": (p, n), "D": (p, m), "S": (m, m)}
        for name, shape in expected.items():
            got = np.asarray(getattr(self, name))
            if got.shape[-2:] != shape:
                raise InputError(
                    f"LinearSystem: {name} has shape {got.shape}, its labels say (..., {shape[0]}, {shape[1]})"
                )
            object.__setattr__(self, name, got)
        for group in (self.modes, self.inputs, self.outputs):
            _slices(group)

    # -- labels ---------------------------------------------------------------------------------------------------

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The leading axes, () for a single point."""
        return np.broadcast_shapes(*(m.shape[:-2] for m in (self.A, self.B, self.C, self.D, self.S)))

    def mode(self, name: str) -> slice:
        """Where the quadratures of mode `name` stand in the state."""
        return _find(name, self.modes, "mode")

    def input(self, name: str) -> slice:
        """Columns of B and D that belong to input `name`."""
        return _find(name, self.inputs, "input")

    def output(self, name: str) -> slice:
        """Rows of C and D that belong to output `name`."""
        return _find(name, self.outputs, "output")

    def port(self, name: str) -> Port:
        """The output port `name`."""
        self.output(name)
        return next(p for p in self.outputs if p.name == name)

    def indices(self, modes: Iterable[str]) -> list[int]:
        """State indices of the named modes, in that order."""
        return [i for name in modes for i in range(*self.mode(name).indices(self.A.shape[-1]))]

    @property
    def currents(self) -> tuple[str, ...]:
        """Names of the detected currents."""
        return tuple(p.name for p in self.outputs if p.kind == "current")

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the noise sources: the inputs."""
        return tuple(p.name for p in self.inputs)

    @property
    def state_commutator(self) -> Array:
        """Omega_x with [x_i, x_j] = i Omega_x; zero for classical variables. Shape (n, n)."""
        return _commutator(self.modes)

    @property
    def input_commutator(self) -> Array:
        """Omega_w with [w_i(t), w_j(t')] = i Omega_w delta(t - t'). Shape (m, m)."""
        return _commutator(self.inputs)

    # -- noise covariances ----------------------------------------------------------------------------------------

    def detected(self) -> LinearSystem:
        """The same system with its currents as the only outputs."""
        rows = [i for name in self.currents for i in range(*self.output(name).indices(self.C.shape[-2]))]
        ports = tuple(p for p in self.outputs if p.kind == "current")
        return replace(self, C=self.C[..., rows, :], D=self.D[..., rows, :], outputs=ports)

    def noise(self) -> tuple[Array, Array, Array]:
        """Q = B S B^T, N = B S D^T, R = D S D^T of the detected currents (process, cross, measurement noise)."""
        d = self.detected()
        BS = product(self.B, self.S)
        return BS @ transpose(self.B), product(BS, transpose(d.D)), product(d.D, self.S) @ transpose(d.D)

    # -- composition ----------------------------------------------------------------------------------------------

    def __add__(self, other: LinearSystem) -> LinearSystem:
        """Side by side, nothing connected."""
        return connect([self, other], {})

    def __rshift__(self, other: LinearSystem) -> LinearSystem:
        """Cascade: the one field output of `self` named `*.out` feeds the one field input of `other` named `*.in`."""
        return connect([self, other], {_single(self.outputs, ".out", "output"): _single(other.inputs, ".in", "input")})

    def feedback(self, output: str, input: str) -> LinearSystem:
        """Close a loop from one of this system's outputs to one of its inputs (algebraic loops are solved)."""
        return connect([self], {output: input})

    def rotated(self, output: str, angle_deg: Any) -> LinearSystem:
        """Turn the field `output` by +angle: (X + iP) -> e^{i angle}(X + iP)."""
        return self._transformed(output, rotation_matrix(angle_deg))

    def quadrature(self, output: str, angle_deg: Any, current: str) -> LinearSystem:
        """Replace the field `output` by the ideal current X sin(angle) + P cos(angle), named `current`."""
        c, s = cos_sin_deg(angle_deg)
        port = self.port(output)
        new = Port(current, "current", port.frame.pairs, port.frame)
        return self._transformed(output, stack([[s, c]]), new)

    def _transformed(self, output: str, matrix: Array, new: Port | None = None) -> LinearSystem:
        port = self.port(output)
        if port.kind != "field":
            raise InputError(f"output '{output}' is a {port.kind}, not a field: it has no quadratures to turn")
        parts_c, parts_d = [], []
        for p in self.outputs:
            rows = self.output(p.name)
            T = np.eye(p.size) if p.name != output else block_diagonal([matrix] * port.frame.pairs)
            parts_c.append(T @ self.C[..., rows, :])
            parts_d.append(T @ self.D[..., rows, :])
        outputs = tuple((new or p) if p.name == output else p for p in self.outputs)
        return replace(self, C=join(parts_c, -2), D=join(parts_d, -2), outputs=outputs)

    def __getitem__(self, index: Any) -> LinearSystem:
        """Select along the leading (batch) axes."""
        shape = self.batch_shape
        pick = {k: np.broadcast_to(v, shape + v.shape[-2:])[index] for k, v in self._matrices().items()}
        return replace(self, **pick)

    def _matrices(self) -> dict[str, Array]:
        return {k: getattr(self, k) for k in "ABCDS"}

    def with_noise(self, densities: Mapping[str, Array]) -> LinearSystem:
        """The same system with the symmetrised density S of the named inputs replaced (2x2 for a field)."""
        S = self.S.copy()
        for name, value in densities.items():
            cols = self.input(name)
            S[..., cols, :] = 0.0
            S[..., :, cols] = 0.0
            S[..., cols, cols] = value
        return replace(self, S=S)

    def check(self) -> realizability.Realizability:
        """Stability, realizability and non-demolition of this system: see `check`."""
        return check(self)

    def __repr__(self) -> str:
        batch = f"{self.batch_shape} points, " if self.batch_shape else ""
        lines = [f"LinearSystem: {batch}{self.A.shape[-1]} state variables, [X, P] = i, vacuum 1/2"]
        lines.append("  modes    " + ", ".join(_describe(m) for m in self.modes))
        lines.append("  inputs   " + ", ".join(_describe(p) for p in self.inputs))
        lines.append("  outputs  " + ", ".join(_describe(p) for p in self.outputs))
        return "\n".join(lines)


def connect(systems: Sequence[LinearSystem], connections: Mapping[str, str]) -> LinearSystem:
    """Join systems by `{output: input}` port names; connected ports vanish from the result.

    With stacked blocks and the connected outputs y_c = C_c x + D_cc w_c + D_ce w_e fed to w_c,

        w_c = (1 - D_cc)^-1 (C_c x + D_ce w_e),

    so algebraic loops through D are solved.

    Raises
    ------
    InputError
        For unknown or doubly used ports, or ports that are not fields.
    ConventionError
        If the two ports have unequal frames.
    ModelError
        If 1 - D_cc is singular (an algebraic loop of gain one).
    """
    A, B, C, D, S = (block_diagonal([getattr(s, k) for s in systems]) for k in "ABCDS")
    modes = tuple(m for s in systems for m in s.modes)
    inputs = tuple(p for s in systems for p in s.inputs)
    outputs = tuple(p for s in systems for p in s.outputs)
    whole = LinearSystem(A, B, C, D, S, modes, inputs, outputs)
    if not connections:
        return whole
    out_rows, in_cols = _joined(whole, connections)
    keep_in = [j for j in range(B.shape[-1]) if j not in set(in_cols)]
    keep_out = [i for i in range(C.shape[-2]) if i not in set(out_rows)]
    Cc, Ck = C[..., out_rows, :], C[..., keep_out, :]
    Dcc, Dce = D[..., out_rows, :][..., in_cols], D[..., out_rows, :][..., keep_in]
    Dkc, Dke = D[..., keep_out, :][..., in_cols], D[..., keep_out, :][..., keep_in]
    loop = np.eye(len(out_rows)) - Dcc
    if _singular(loop):
        names = ", ".join(f"{a} -> {b}" for a, b in connections.items())
        raise ModelError(
            f"singular algebraic loop (gain exactly one) through {names}: add a loss or a phase in the loop"
        )
    closed = solve(loop, np.eye(len(out_rows)))  # as a rule without leading axes: one small inverse for the whole batch
    gain_x, gain_w = product(closed, Cc), product(closed, Dce)
    Bc, Be = B[..., in_cols], B[..., keep_in]
    return LinearSystem(
        A + product(Bc, gain_x),
        Be + product(Bc, gain_w),
        Ck + product(Dkc, gain_x),
        Dke + product(Dkc, gain_w),
        S[..., keep_in, :][..., keep_in],
        modes,
        tuple(p for p in inputs if p.name not in connections.values()),
        tuple(p for p in outputs if p.name not in connections),
    )


def _joined(whole: LinearSystem, connections: Mapping[str, str]) -> tuple[list[int], list[int]]:
    """Rows of the connected outputs and columns of the inputs they feed; refuses what cannot be joined."""
    out_rows: list[int] = []
    in_cols: list[int] = []
    used: set[str] = set()
    for source, target in connections.items():
        rows, cols = whole.output(source), whole.input(target)
        a, b = whole.port(source), next(p for p in whole.inputs if p.name == target)
        if target in used:
            raise InputError(f"input '{target}' is connected twice")
        used.add(target)
        if a.kind != "field" or b.kind != "field":
            raise InputError(f"cannot connect '{source}' ({a.kind}) to '{target}' ({b.kind}): both must be fields")
        if a.frame != b.frame:
            raise ConventionError(f"cannot connect '{source}' in frame {a.frame} to '{target}' in frame {b.frame}")
        out_rows += range(rows.start, rows.stop)
        in_cols += range(cols.start, cols.stop)
    return out_rows, in_cols


def _singular(matrix: Array) -> bool:
    return bool(np.any(np.linalg.cond(concrete(matrix)) > 1e12))


def _single(ports: Sequence[Port], ending: str, word: str) -> str:
    names = [p.name for p in ports if p.kind == "field" and p.name.endswith(ending)]
    if len(names) != 1:
        raise InputError(f"a cascade needs one field {word} named '*{ending}', here: {names or 'none'}; use connect()")
    return names[0]


def check(system: LinearSystem, tolerance: float = 1e-6) -> Realizability:
    """Check a system, or the worst point of a batch; see the module's equations.

    `tolerance` is relative to |A| + |B|^2; 1e-6 lets velocity damping with gamma/omega below it pass.
    """
    A, B, C, D = system.A, system.B, system.C, system.D
    Ox, Ow = system.state_commutator, system.input_commutator
    scale = np.max(np.abs(A), axis=(-2, -1), initial=0.0) + np.max(np.abs(B), axis=(-2, -1), initial=0.0) ** 2 + 1e-300
    scale = scale[..., None, None]
    defect = np.abs(A @ Ox + Ox @ transpose(A) + B @ Ow @ transpose(B)) / scale
    commutator, where = 0.0, ""
    for m in system.modes:
        worst = float(np.max(defect[..., system.mode(m.name), :], initial=0.0))
        if worst >= commutator and m.kind != "classical":
            commutator, where = worst, m.name
    rows_count = C.shape[-2]
    Oy = np.zeros((rows_count, rows_count))
    for p in system.outputs:
        if p.kind == "field":
            Oy[system.output(p.name), system.output(p.name)] = symplectic(p.size // 2)
    state_output = np.abs(Ox @ transpose(C) + B @ Ow @ transpose(D)) / np.sqrt(scale)
    output_output = np.abs(D @ Ow @ transpose(D) - Oy)
    output = max(float(np.max(state_output, initial=0.0)), float(np.max(output_output, initial=0.0)))
    rows = [i for name in system.currents for i in range(*system.output(name).indices(rows_count))]
    nondemolition = max(
        float(np.max(state_output[..., rows], initial=0.0)),
        float(np.max(output_output[..., rows, :][..., rows], initial=0.0)),
    )
    stable, slowest, mode = _slowest(system)
    return Realizability(stable, slowest, mode, commutator, where, output, nondemolition, tolerance)
