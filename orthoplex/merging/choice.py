"""Which algorithm suits a set of concepts, for those who ask for none."""

from collections.abc import Sequence

from orthoplex.concepts import Concept

AUTO = "auto"
"""Stands for the algorithm that suits."""
_ELSEWHERE = 3.0


def suited_algorithm(concepts: Sequence[tuple[Concept, float]]) -> tuple[str, dict[str, float]]:
    """Return an algorithm and its options: ``least-squares`` for keys and values of cross-attention, else ``sum``.

    Least squares with some silence elsewhere keeps most of fifteen concepts (docs/results.md), and takes a moment where
    files keep ``inputs``; what others' layers see, which is the text alone, is soon gathered. Of one concept there is
    nothing to bring together: ``sum`` is that concept, exactly.

    Args:
        concepts: The concepts of the merge with their strengths; tokens alone, and strength 0, have no say.
    """
    changing = [concept for concept, strength in concepts if concept.layers and strength != 0]
    if len(changing) > 1 and all(concept.changes_keys_values_alone for concept in changing):
        return "least-squares", {"foreign": _ELSEWHERE}
    return "sum", {}
