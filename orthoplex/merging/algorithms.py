"""The ways to bring the changes of one weight together: pure functions on low-rank factors."""

from collections.abc import Callable, Sequence

from orthoplex.adapters import LowRank

Parts = Sequence[tuple[LowRank, float]]
"""The changes of one weight with their strengths, one for each concept that changes it."""

Algorithm = Callable[[Parts, int], LowRank]
"""(changes of one weight with strengths, number of concepts in the merge) -> one change."""


def sum_of_changes(parts: Parts, num_concepts: int) -> LowRank:
    """Return ``Σ_i s_i ΔW_i``: every concept keeps its strength, however many there are.

    Reference: Po et al., arXiv 2312.02432, section 4 (there all ``s_i = λ = 0.6``).

    Args:
        parts: changes ``ΔW_i`` of one weight with strengths ``s_i``.
        num_concepts: concepts in the merge; the sum takes no notice of it.
    """
    return LowRank.stack([_float32(change).scaled(strength) for change, strength in parts])


def mean_of_changes(parts: Parts, num_concepts: int) -> LowRank:
    """Return ``1/k Σ_i s_i ΔW_i``, the average of the k concepts' weights (federated averaging).

    A concept that leaves the weight alone counts as a zero change.

    Args:
        parts: changes ``ΔW_i`` of one weight with strengths ``s_i``.
        num_concepts: k, the concepts in the merge.
    """
    return LowRank.stack([_float32(change).scaled(strength / num_concepts) for change, strength in parts])


def _float32(change: LowRank) -> LowRank:
    return LowRank(change.up.float(), change.down.float())


ALGORITHMS: dict[str, Algorithm] = {
    "sum": sum_of_changes,
    "mean": mean_of_changes,
}
