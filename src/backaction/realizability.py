"""Checks of a `LinearSystem`: stability, realizability (commutators) and non-demolition of measured currents.

With [x_i, x_j] = i Om_x and [w_i(t), w_j(t')] = i Om_w delta(t - t') a quantum system must satisfy

    A Om_x + Om_x A^T + B Om_w B^T = 0            (commutators of the state are kept)
    Om_x C^T + B Om_w D^T = 0                     (outputs commute with the state's future: [x(t), y(t')] = 0, t > t')
    D Om_w D^T = Om_y                             (output fields are fields; currents commute: Om_y = 0)

The last two lines for the currents alone say that the measurement is non-demolition (James, Nurdin, Petersen 2008).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from backaction.matrices import symplectic, transpose

if TYPE_CHECKING:
    from backaction.system import LinearSystem


@dataclass(frozen=True)
class Check:
    """Result of `LinearSystem.check()`; defects are relative to the size of the terms that should cancel."""

    stable: bool
    slowest_rate_hz: float
    slowest_mode: str
    commutator_defect: float
    commutator_mode: str
    output_defect: float
    nondemolition_defect: float
    tolerance: float

    @property
    def realizable(self) -> bool:
        """Whether state and output commutators hold within the tolerance."""
        return max(self.commutator_defect, self.output_defect) <= self.tolerance

    @property
    def nondemolition(self) -> bool:
        """Whether every measured current commutes with itself and with the state's future."""
        return self.nondemolition_defect <= self.tolerance

    def warnings(self) -> list[str]:
        """What a user should know; empty when all is well."""
        out = []
        if self.commutator_defect > self.tolerance:
            out.append(
                f"commutators of '{self.commutator_mode}' decay: relative defect {self.commutator_defect:.2g} "
                "(velocity damping is exact quantum mechanics only to gamma/omega)"
            )
        if self.output_defect > self.tolerance or not self.nondemolition:
            out.append(f"outputs do not commute as fields and currents must: defect {self.output_defect:.2g}")
        return out

    def __str__(self) -> str:
        state = "stable" if self.stable else "UNSTABLE"
        good = "hold" if self.realizable else f"violated by {max(self.commutator_defect, self.output_defect):.2g}"
        return (
            f"{state}: slowest pole {self.slowest_rate_hz:.6g} Hz in '{self.slowest_mode}'; commutators {good}; "
            f"currents {'non-demolition' if self.nondemolition else 'NOT non-demolition'}"
        )


def check(system: LinearSystem, tolerance: float = 1e-6) -> Check:
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
    return Check(stable, slowest, mode, commutator, where, output, nondemolition, tolerance)


def _slowest(system: LinearSystem) -> tuple[bool, float, str]:
    if not system.A.size:
        return True, float("inf"), ""
    every, all_vectors = np.linalg.eig(system.A)
    point = np.unravel_index(int(np.argmax(np.max(every.real, axis=-1))), every.shape[:-1])
    values, vectors = every[point], all_vectors[point]
    k = int(np.argmax(values.real))
    weight = np.abs(vectors[:, k]) ** 2
    sizes: dict[str, Any] = {m.name: float(np.sum(weight[system.mode(m.name)])) for m in system.modes}
    return bool(values[k].real < 0), float(-values[k].real / (2 * np.pi)), max(sizes, key=lambda n: sizes[n])
