"""The step of exact first derivatives: f'(x) = Im f(x + i h)/h for analytic f, without cancellation."""

from __future__ import annotations

STEP = 1e-30
"""Size of the complex step."""
