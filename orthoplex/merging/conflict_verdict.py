"""The verdict: how much the other files of a set may act on what a file reads, by measured pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from orthoplex.merging.conflict_identity import Level

Quantity = Literal["crosstalk", "disturbance"]
LIMITS: Mapping[Quantity, tuple[float, float]] = {"crosstalk": (1.32, 1.49), "disturbance": (0.51, 0.56)}
"""Quantity -> from where a conflict is mild, and strong; ``python -m benchmarks.conflicts`` measures it."""


def level_of(value: float, quantity: Quantity) -> Level:
    """Return the level of a file's, a pair's or a set's crosstalk or disturbance.

    Args:
        value: From 0; of a set and a pair, the mean over files.
        quantity: Its name.
    """
    mild, strong = LIMITS[quantity]
    return "strong" if value >= strong else "mild" if value >= mild else "none"
