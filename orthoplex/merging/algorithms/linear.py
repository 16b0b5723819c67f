"""Sum and mean: exact, whatever the number of concepts."""

from dataclasses import dataclass
from typing import final

from orthoplex.concepts import Stack
from orthoplex.merging.algorithms.algorithm import Algorithm, WeightChanges


@final
@dataclass(frozen=True)
class Sum(Algorithm):
    """``Σ_i s_i ΔW_i``: every concept keeps its strength, however many there are.

    Reference: Po et al., arXiv 2312.02432, section 4 (there all ``s_i = λ = 0.6``).
    """

    def merge(self, changes: WeightChanges) -> Stack:
        """Stack the factors; no product is made."""
        return changes.stacked()


@final
@dataclass(frozen=True)
class Mean(Algorithm):
    """``1/k Σ_i s_i ΔW_i``, the average of the k concepts' weights (federated averaging).

    A concept that leaves the weight alone counts as a zero change.
    """

    def merge(self, changes: WeightChanges) -> Stack:
        """Stack the factors and divide them by k, which no strength that is turned later changes."""
        return changes.stacked().scaled(1.0 / changes.num_concepts)
