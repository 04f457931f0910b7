"""What an analysis assumes beside the model: unknown white noise, repeatability of shot levels, the witness, tails."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from backaction.errors import InputError, nearest
from backaction.experiment.prior import Prior
from backaction.units import number

if TYPE_CHECKING:
    from backaction.experiment.experiment import Experiment

EXCESS_SN = 0.02
"""Default scale of the half-normal prior of white noise that nobody knows of (shot-noise units)."""
REPRODUCIBILITY = 0.01
"""Default relative error of a shot level from one measurement to the next: power, alignment, gain."""

LIKELIHOODS = ("auto", "gamma", "thomas2021", "innovations")
"""How records may be compared with a model (`inference.scatter`)."""
STARTS = ("free", "fitted", "stationary")
"""How modes that a record does not resolve may start in it."""


@dataclass(frozen=True)
class Assumptions:
    """`[analysis]` of an experiment's file, but for its band.

    Parameters
    ----------
    excess_sd_sn
        Scale of the half-normal prior of every detector's `excess_noise_sn`; 0: none. A `[prior]` of that field wins.
    shot_reproducibility
        Relative error of a shot-noise level beside its statistics.
    epr
        (weight, angle in degrees) of the EPR pair that a verdict is about; default: what the priors predict.
    robust
        Whether normal priors are Student-t with 4 degrees of freedom instead (same centre and scale).
    likelihood, start
        How `analyze` compares a record with the model (`inference.scatter`): "auto", "gamma", "thomas2021" or "innovations";
        and how modes that the record does not resolve start there: anywhere ("free"), with an occupation that is fitted
        ("fitted"), or "stationary".
    """

    excess_sd_sn: float = EXCESS_SN
    shot_reproducibility: float = REPRODUCIBILITY
    epr: tuple[float, float] | None = None
    robust: bool = False
    likelihood: str = "auto"
    start: str = "free"

    def __post_init__(self) -> None:
        allowed("[analysis]", "likelihood", self.likelihood, LIKELIHOODS)
        allowed("[analysis]", "start", self.start, STARTS)

    @classmethod
    def keys(cls) -> tuple[str, ...]:
        """The keys in the file."""
        return tuple(f.name for f in fields(cls))

    @classmethod
    def from_table(cls, table: Mapping[str, Any], where: str) -> Assumptions:
        """Read the keys that are there.

        Raises
        ------
        InputError
            One line naming key, value and what is allowed.
        """
        here = f"{where}: [analysis]"
        given: dict[str, Any] = {}
        for key, unit in (("excess_sd_sn", "SN"), ("shot_reproducibility", "1")):
            if key in table:
                given[key] = number(table[key], unit, f"{here} {key}")
                if not 0 <= given[key] < 1:
                    raise InputError(f"{here} {key} = {given[key]:g}: must be from 0 to 1")
        if "robust" in table:
            if not isinstance(table["robust"], bool):
                raise InputError(f"{here} robust = {table['robust']!r}: must be true or false")
            given["robust"] = table["robust"]
        if "epr" in table:
            given["epr"] = _pair(table["epr"], f"{here} epr")
        for key, words in (("likelihood", LIKELIHOODS), ("start", STARTS)):
            if key in table:
                given[key] = str(table[key])
                allowed(here, key, given[key], words)
        return cls(**given)

    def to_table(self) -> dict[str, Any]:
        """The keys that are not at their defaults, as the file has them."""
        out = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        if self.epr is not None:
            out["epr"] = {"weight": self.epr[0], "angle_deg": self.epr[1]}
        return out


def allowed(where: str, key: str, value: str, words: tuple[str, ...]) -> None:
    """Refuse a value that is none of the words.

    Raises
    ------
    InputError
        One line with the words and the nearest.
    """
    if value not in words:
        raise InputError(f"{where} {key} = '{value}': must be one of {', '.join(words)}{nearest(value, words)}")


def excess_priors(experiment: Experiment) -> dict[str, Prior]:
    """The half-normal priors of white excess noise of the detectors that state none."""
    sd = experiment.assumed.excess_sd_sn
    found = {}
    for detector in experiment.detectors():
        path = f"{detector.name}.excess_noise_sn"
        if sd > 0 and path in experiment.fields() and path not in experiment.priors:
            found[path] = Prior(mean=0.0, sd=sd, lower=0.0)
    return found


def _pair(item: Any, here: str) -> tuple[float, float]:
    if not isinstance(item, Mapping) or set(item) != {"weight", "angle_deg"}:
        raise InputError(f"{here} = {item!r}: expected {{ weight = ..., angle_deg = ... }}")
    weight, angle = number(item["weight"], "1", f"{here}.weight"), number(item["angle_deg"], "deg", f"{here}.angle_deg")
    if not weight >= 0:
        raise InputError(f"{here}.weight = {weight:g}: must be >= 0")
    return weight, angle
