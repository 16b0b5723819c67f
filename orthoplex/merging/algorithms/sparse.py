"""TIES and DARE: which entries of the changes are kept, and which of them agree."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from orthoplex.adapters import LowRank
from orthoplex.concepts import Stack
from orthoplex.merging.algorithms.algorithm import LARGEST, Algorithm, WeightChanges
from orthoplex.options import option
from orthoplex.subspaces import seeded


def trim(change: Tensor, density: float) -> Tensor:
    """Return the change with all but its ``⌊density · n⌋`` largest entries (at least one) set to zero.

    Reference: Yadav et al., arXiv 2306.01708, section 4, step 1.

    Args:
        change: Any shape with n entries.
        density: Share that is kept, in (0, 1].
    """
    num_entries = max(1, int(density * change.numel()))
    largest = change.abs().flatten().topk(num_entries).indices
    trimmed = torch.zeros_like(change).flatten()
    trimmed[largest] = change.flatten()[largest]
    return trimmed.view_as(change)


def elect_and_average(changes: Sequence[Tensor]) -> Tensor:
    """Return, entry by entry, the mean of the values whose sign is that of the sum; zeros do not count.

    Reference: Yadav et al., arXiv 2306.01708, section 4, steps 2 and 3.

    Args:
        changes: Tensors of one shape.
    """
    stacked = torch.stack(list(changes))
    elected = torch.where(stacked.sum(0) >= 0, 1.0, -1.0)
    agreeing = stacked.sign() == elected
    return (stacked * agreeing).sum(0) / agreeing.sum(0).clamp_min(1)


def drop_and_rescale(change: Tensor, drop: float, *, seed: int, names: Sequence[str]) -> Tensor:
    """Return the change with each entry dropped with probability ``drop``, the others divided by ``1 − drop``.

    Reference: Yu et al., arXiv 2311.03099, section 3.2.

    Args:
        change: Any shape.
        drop: In [0, 1).
        seed: With ``names`` it decides which entries are dropped.
        names: What the entries belong to.
    """
    mask = torch.rand(change.shape, generator=seeded(seed, *names)) >= drop
    return change * mask / (1.0 - drop)


@final
@dataclass(frozen=True)
class Ties(Algorithm):
    """TIES: trim every ``s_i ΔW_i``, elect a sign for every entry, average those that have it.

    Entries are trimmed weight by weight, as PEFT does (the paper trims over all weights at once). Strengths count in
    the election too, as in mergekit (in PEFT they scale the winners only).
    Reference: Yadav et al., arXiv 2306.01708, section 4.

    Attributes:
        density: Share of entries that trimming keeps, in (0, 1].
    """

    density: float = option(0.2, above=0, highest=1)

    def merge(self, changes: WeightChanges) -> Stack:
        """Merge the changes as matrices; the result has full rank, and its columns have no owner."""
        return Stack.of(
            None, LowRank.of_matrix(elect_and_average([trim(delta, self.density) for delta in changes.deltas()]))
        )


@final
@dataclass(frozen=True)
class Dare(Algorithm):
    """DARE: ``Σ_i s_i drop(ΔW_i) / (1 − p)``, every entry dropped with probability p.

    Which entries are dropped depends on the seed, the layer and the concept only, not on the others in the merge.
    Reference: Yu et al., arXiv 2311.03099, section 3.2.

    Attributes:
        drop: p, in [0, 1).
        seed: Decides which entries are dropped.
    """

    drop: float = option(0.9, lowest=0, below=1)
    seed: int = option(0, lowest=-LARGEST, highest=LARGEST)

    def merge(self, changes: WeightChanges) -> Stack:
        """Merge the changes as matrices; the result has full rank, and its columns have no owner."""
        return Stack.of(None, LowRank.of_matrix(torch.stack(_dropped(changes, self.drop, self.seed)).sum(0)))


@final
@dataclass(frozen=True)
class DareTies(Algorithm):
    """DARE, then TIES' election and average in the place of the sum.

    Attributes:
        drop: As in ``Dare``.
        seed: As in ``Dare``.
    """

    drop: float = option(0.9, lowest=0, below=1)
    seed: int = option(0, lowest=-LARGEST, highest=LARGEST)

    def merge(self, changes: WeightChanges) -> Stack:
        """Merge the changes as matrices; the result has full rank, and its columns have no owner."""
        return Stack.of(None, LowRank.of_matrix(elect_and_average(_dropped(changes, self.drop, self.seed))))


def _dropped(changes: WeightChanges, drop: float, seed: int) -> list[Tensor]:
    return [
        drop_and_rescale(delta, drop, seed=seed, names=(changes.layer, part.concept))
        for delta, part in zip(changes.deltas(), changes.parts, strict=True)
    ]
