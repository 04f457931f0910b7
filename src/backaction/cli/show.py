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
        lines += ["", f"rates of {mode} (quanta/s)", *rate_lines(rates)]
    lines += ["", "sources  " + ", ".join(facts["sources"]), facts["check"]]
    return "\n".join(lines)


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
