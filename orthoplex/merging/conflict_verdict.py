"""The verdict: how much input overlap a set of files may have, by measured pictures."""

from __future__ import annotations

from orthoplex.merging.conflict_identity import Level

MILD, STRONG = 0.30, 0.71
"""Overlaps from which a set is said to conflict; ``python -m benchmarks.conflicts`` measures them."""


def level_of(overlap: float) -> Level:
    """Return the level of an overlap.

    The overlap is the sum of a file's input overlaps with all others of a set; for a whole set, the mean of these sums.
    Of all quantities that need no base it foretells best how much of each concept a plain sum keeps
    (``results/conflicts.json``).

    Args:
        overlap: From 0; at most the number of the other files.
    """
    return "strong" if overlap >= STRONG else "mild" if overlap >= MILD else "none"
