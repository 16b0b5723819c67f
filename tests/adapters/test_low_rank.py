"""Low-rank changes and their exact addition to weights."""

import pytest
import torch

from orthoplex.adapters import LowRank
from orthoplex.errors import ConfigurationError

FIRST = LowRank(torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0, 0.0, 1.0]]))
SECOND = LowRank(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 5.0]]))


def test_delta_written_out():
    assert FIRST.delta().tolist() == [[3, 0, 1], [6, 0, 2]]
    assert FIRST.rank == 1 and FIRST.shape == (2, 3)


def test_delta_of_half_precision_factors_is_float32():
    half = LowRank(FIRST.up.half(), FIRST.down.half())
    assert half.delta().dtype == torch.float32
    assert torch.equal(half.delta(), FIRST.delta())


def test_scaled_goes_into_up():
    scaled = FIRST.scaled(0.5)
    assert scaled.delta().tolist() == [[1.5, 0, 0.5], [3, 0, 1]]
    assert scaled.down is FIRST.down
    assert torch.equal(FIRST.scaled(1.0).up, FIRST.up)


def test_stack_is_the_sum_without_cross_terms():
    stack = LowRank.stack([FIRST, SECOND])
    assert stack.up.tolist() == [[1, 0, 1], [2, 1, 0]]
    assert stack.down.tolist() == [[3, 0, 1], [1, 1, 1], [0, 0, 5]]
    assert stack.delta().tolist() == [[3, 0, 6], [7, 1, 3]]
    assert LowRank.stack([FIRST]) is FIRST


@pytest.mark.parametrize(
    ("up", "down"),
    [(torch.ones(2, 1), torch.ones(2, 3)), (torch.ones(2), torch.ones(1, 3)), (torch.ones(2, 1), torch.ones(1, 3, 1))],
)
def test_factors_that_cannot_be_multiplied_are_refused(up, down):
    with pytest.raises(ConfigurationError, match=r"shapes up \(2.*allowed are up \(out, r\)"):
        LowRank(up, down)


def test_stack_of_nothing_or_of_different_weights_is_refused():
    with pytest.raises(ConfigurationError, match="stack of 0"):
        LowRank.stack([])
    with pytest.raises(ConfigurationError, match=r"weights \(2, 3\), \(3, 3\) cannot be stacked"):
        LowRank.stack([FIRST, LowRank(torch.ones(3, 1), torch.ones(1, 3))])
