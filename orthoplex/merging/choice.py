"""Which algorithm suits a set of concepts, for those who ask for none."""

from collections.abc import Sequence

from orthoplex.concepts import Concept

AUTO = "auto"
"""Stands for the algorithm that suits."""
_ELSEWHERE = 3.0


def suited_algorithm(concepts: Sequence[Concept]) -> tuple[str, dict[str, float]]:
    """Return an algorithm and its options: ``least-squares`` where concepts keep what their layers see, else ``sum``.

    Least squares with some silence elsewhere keeps most of fifteen concepts (docs/results.md), and takes a moment where
    files keep ``inputs``. Of one concept there is nothing to bring together: ``sum`` is that concept, exactly.

    Args:
        concepts: The concepts of the merge; tokens alone have no say.
    """
    changing = [concept for concept in concepts if concept.layers]
    if len(changing) > 1 and all(concept.inputs is not None for concept in changing):
        return "least-squares", {"foreign": _ELSEWHERE}
    return "sum", {}
