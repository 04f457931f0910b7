"""The facts that `backaction show` prints."""

from __future__ import annotations

from math import isfinite
from typing import Any


def text(facts: dict[str, Any]) -> str:
    """The facts for people."""
    lines = [facts["experiment"]["name"], facts["experiment"]["description"], ""]
    for name, table in facts["resolved"].items():
        lines.append(f"{name}  ({table['kind']})")
        lines += [f"    {k:<28} {_value(v)}" for k, v in table.items() if k != "kind"]
        for k, v in facts["derived"].get(name, {}).items():
            lines.append(f"  > {k}: {_value(v)}")
    lines += ["", "poles (frequency, full linewidth, mode)"]
    lines += [f"    {p['frequency_hz']:16.6f} Hz  {p['linewidth_hz']:14.6f} Hz  {p['mode']}" for p in facts["poles"]]
    for mode, rates in facts["rates"].items():
        states = {k: s[mode] for k, s in facts["by_mode"].items() if s is not None and mode in s}
        lines += ["", mode, *(f"    {k:<48} {mode_line(m)}" for k, m in states.items())]
        lines += [f"  rates of {mode} (quanta/s)", *rate_lines(rates)]
    lines += ["", "sources  " + ", ".join(facts["sources"]), facts["check"]]
    return "\n".join(lines)


def mode_line(m: dict[str, float]) -> str:
    """Occupation, purity and squeezing of one mode."""
    facts = f"{m['occupation']:.5g} quanta (thermal {m['thermal_occupation']:.5g}), purity {m['purity']:.5g}"
    return f"{facts}, squeezing {m['squeezing_db']:+.4g} dB at {m['squeezed_angle_deg']:.4g} deg"


def rate_lines(rates: dict[str, float]) -> list[str]:
    """Rates, total efficiency and cooperativities of one mode."""
    words = {
        "back_action_rate": "back-action", "thermal_rate": "thermal", "technical_rate": "technical noise",
        "decoherence_rate": "decoherence, all of these", "measurement_rate": "measurement",
        "eta_total": "total efficiency", "cooperativity_thomas": "cooperativity Thomas/Moller, back-action/thermal",
        "cooperativity_huang": "cooperativity Huang, twice that",
    }  # fmt: skip
    shown = [k for k in words if isfinite(rates[k]) and (rates[k] or k != "technical_rate")]
    return [f"    {words[k]:<48} {rates[k]:.6g}" for k in shown]


def _value(v: Any) -> str:
    return f"{v:.10g}" if isinstance(v, float) else str(v)
