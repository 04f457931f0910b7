"""The frame of every reproduction: claims, how they are judged, and the table.

A claim is computed from the paper's stated parameters alone, by a function; nothing is tuned to agree (where a parameter is not
stated and one value is fitted to several claims at once, each of them says so). Where the text leaves
something open the function returns the range (lowest, highest) over what it leaves open. Verdicts:

    reproduces                     |computed - printed| <= 2 errors
    differs: <reason>              otherwise
    not determined by the text     a range that contains printed +- 2 errors, at least in part, and is wider than 4 errors

The error is the printed one (`stated`), or half a unit of the last printed digit, or for words such as "about" and for
limits of formulas a width of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backaction.errors import InputError, nearest
from backaction.workers import Progress

Computed = float | tuple[float, float]


@dataclass(frozen=True)
class Claim:
    """One number of a paper.

    `compute` takes the paper's context and returns a number, or (lowest, highest) over what the text leaves open.
    `stated` is False where the paper gives no error: `error` is then the rounding of the printed digits, or a width of ours.
    """

    id: str
    where: str
    text: str
    printed: float
    error: float
    compute: Callable[[Any], Computed]
    unit: str = ""
    stated: bool = False
    reason: str = ""
    note: str = ""


@dataclass(frozen=True)
class Outcome:
    """A claim with what came out: the computed value or range, the agreement in units of the error, the verdict."""

    claim: Claim
    computed: Computed
    agreement: float
    verdict: str

    def document(self) -> dict[str, Any]:
        """An entry of the JSON contract `backaction/reproduce/1`."""
        c = self.claim
        return {
            "id": c.id,
            "where": c.where,
            "text": c.text,
            "paper": c.printed,
            "paper_error": c.error,
            "error_is_stated": c.stated,
            "computed": list(self.computed) if isinstance(self.computed, tuple) else self.computed,
            "unit": c.unit,
            "agreement": self.agreement,
            "verdict": self.verdict,
            "note": c.note,
        }


@dataclass(frozen=True)
class Paper:
    """A paper: reference, claims, figures and further tables (name -> function of the context), and the context's maker."""

    key: str
    reference: str
    context: Callable[[], Any]
    claims: tuple[Claim, ...]
    figures: dict[str, Callable[[Any], Any]]
    sections: dict[str, Callable[[Any], str]] = field(default_factory=dict)
    intro: str = ""


def judge(claim: Claim, computed: Computed) -> Outcome:
    """Compare one computed value (or range) with the printed one."""
    if isinstance(computed, tuple):
        low, high = sorted(float(x) for x in computed)
        distance = max(low - claim.printed, claim.printed - high, 0.0) / claim.error
        if distance <= 2 and high - low > 4 * claim.error:
            return Outcome(claim, (low, high), distance, "not determined by the text")
        value: Computed = (low, high)
    else:
        value = float(computed)
        distance = abs(value - claim.printed) / claim.error
    if not np.all(np.isfinite(value)):
        return Outcome(claim, value, float("nan"), "differs: no finite value")
    if distance <= 2:
        return Outcome(claim, value, distance, "reproduces")
    return Outcome(claim, value, distance, f"differs: {claim.reason or 'no reason is known'}")


def run(paper: Paper, claim: str | None = None, progress: Progress | None = None, context: Any = None) -> list[Outcome]:
    """Compute and judge all claims, or one; in a `context` of the paper, or a new one.

    Raises
    ------
    InputError
        For an unknown claim.
    """
    chosen: Iterable[Claim] = paper.claims
    if claim is not None:
        chosen = [c for c in paper.claims if c.id == claim]
        if not chosen:
            raise InputError(f"{paper.key}: no claim '{claim}'{nearest(claim, [c.id for c in paper.claims])}")
    context = context or paper.context()
    out = []
    for c in chosen:
        if progress:
            progress(c.id, None)
        out.append(judge(c, c.compute(context)))
    return out


def show(value: Computed, digits: int = 4) -> str:
    """A number or a range for people."""
    if isinstance(value, tuple):
        return f"{value[0]:.{digits}g} .. {value[1]:.{digits}g}"
    return f"{value:.{digits}g}"


def _cell(text: str) -> str:
    """Text for a Markdown table: a bar would end the cell."""
    return text.replace("|", "\\|")


def table(outcomes: Iterable[Outcome]) -> str:
    """The claims as Markdown, most telling columns first."""
    rows = ["| claim | where | paper | computed | errors away | verdict |", "|---|---|---|---|---|---|"]
    for o in outcomes:
        c = o.claim
        sign = "±" if c.stated else "(±)"
        note = f" {c.note}" if c.note else ""
        rows.append(
            f"| {_cell(c.text)} | {c.where} | {c.printed:g} {sign} {c.error:g} {c.unit} | {show(o.computed)} "
            f"| {o.agreement:.2f} "
            f"| {_cell(o.verdict + '.' + note)} |"
        )
    return "\n".join(rows)
