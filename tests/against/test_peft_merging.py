"""TIES and the sum beside PEFT's own functions on the same matrices."""

import pytest
import torch
from peft.utils.merge_utils import task_arithmetic, ties

from orthoplex.adapters import LowRank
from orthoplex.merging import Part, WeightChanges, create_algorithm


@pytest.mark.parametrize("density", (0.1, 0.35, 0.99))
@pytest.mark.parametrize("count", (2, 5))
def test_ties_and_the_sum_are_peft_s(density, count):
    """With one strength for all: PEFT lets strengths scale those that won the election, ours count in it."""
    generator = torch.Generator().manual_seed(count)
    deltas = [torch.randn(20, 30, generator=generator) for _ in range(count)]
    strengths = [0.75] * count
    parts = tuple(Part(str(i), LowRank.of_matrix(delta), strengths[i]) for i, delta in enumerate(deltas))
    ours = create_algorithm("ties", {"density": density}).merge(WeightChanges("layer", parts, count)).delta()
    theirs = ties(deltas, torch.tensor(strengths), density)
    torch.testing.assert_close(ours, theirs)
    summed = create_algorithm("sum").merge(WeightChanges("layer", parts, count)).delta()
    torch.testing.assert_close(summed, task_arithmetic(deltas, torch.tensor(strengths)), rtol=1e-4, atol=1e-5)
