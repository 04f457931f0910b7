"""Checks of a `LinearSystem`: stability, realizability (commutators) and non-demolition of measured currents.

With [x_i, x_j] = i Om_x and [w_i(t), w_j(t')] = i Om_w delta(t - t') a quantum system must satisfy

    A Om_x + Om_x A^T + B Om_w B^T = 0            (commutators of the state are kept)
    Om_x C^T + B Om_w D^T = 0                     (outputs commute with the state's future: [x(t), y(t')] = 0, t > t')
    D Om_w D^T = Om_y                             (output fields are fields; currents commute: Om_y = 0)

The last two lines for the currents alone say that the measurement is non-demolition (James, Nurdin, Petersen 2008).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Realizability:
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
