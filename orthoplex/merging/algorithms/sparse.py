"""TIES and DARE: which entries of the changes are kept, and which of them agree."""

from collections.abc import Iterable, Iterator, Sequence
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

    Of entries of one size, the first are kept.

    Reference: Yadav et al., arXiv 2306.01708, section 4, step 1.

    Args:
        change: Any shape with n entries.
        density: Share that is kept, in (0, 1].
    """
    num_entries = max(1, int(density * change.numel()))
    sizes = change.abs().flatten()
    smallest = sizes.kthvalue(len(sizes) - num_entries + 1).values  # many times quicker than a topk of so many
    is_large = sizes > smallest
    ties = (sizes == smallest).nonzero()[: num_entries - int(is_large.sum())]
    is_large[ties] = True
    return change * is_large.view_as(change)


def elect_and_average(changes: Sequence[Tensor]) -> Tensor:
    """Return, entry by entry, the mean of the values whose sign is that of the sum; zeros do not count.

    Reference: Yadav et al., arXiv 2306.01708, section 4, steps 2 and 3.

    Args:
        changes: Tensors of one shape.
    """
    is_positive = _total(changes) >= 0
    total, count = torch.zeros_like(changes[0]), torch.zeros_like(changes[0])
    for change in changes:  # one by one: all of them side by side would be several times as large
        agreeing = torch.where(is_positive, change > 0, change < 0)
        total += change * agreeing
        count += agreeing
    return total.div_(count.clamp_min_(1))


def _total(changes: Iterable[Tensor]) -> Tensor:
    """The sum of matrices, one after the other."""
    iterator = iter(changes)
    total = next(iterator).clone()
    for change in iterator:
        total += change
    return total


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
    return (change * mask).div_(1.0 - drop)


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
        return Stack.of(None, LowRank.of_matrix(_total(_dropped(changes, self.drop, self.seed))))


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
        return Stack.of(None, LowRank.of_matrix(elect_and_average([*_dropped(changes, self.drop, self.seed)])))


def _dropped(changes: WeightChanges, drop: float, seed: int) -> Iterator[Tensor]:
    for delta, part in zip(changes.deltas(), changes.parts, strict=True):
        yield drop_and_rescale(delta, drop, seed=seed, names=(changes.layer, part.concept))
