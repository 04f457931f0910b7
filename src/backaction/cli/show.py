"""The facts that `backaction show` prints."""

from __future__ import annotations

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
    lines += ["", "sources  " + ", ".join(facts["sources"]), facts["check"]]
    return "\n".join(lines)


def _value(v: Any) -> str:
    return f"{v:.10g}" if isinstance(v, float) else str(v)
