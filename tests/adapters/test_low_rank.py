"""Low-rank changes and their exact addition to weights."""

import pytest
import torch

from orthoplex.adapters import LowRank, fold_stack
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


def test_fold_stack_written_out():
    weights = torch.tensor([[[10.0, 20.0, 30.0], [40.0, 50.0, 60.0]], [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]])
    ups, downs = torch.stack([FIRST.up, 2 * FIRST.up]), torch.stack([FIRST.down, FIRST.down])
    folded = fold_stack(weights, ups, downs)
    assert folded.tolist() == [[[13, 20, 31], [46, 50, 62]], [[6, 0, 2], [13, 1, 5]]]
    assert weights[0, 0, 0] == 10  # the originals stay


@pytest.mark.parametrize(
    ("weights", "ups", "downs"),
    [
        ((2, 4, 3), (2, 4, 5), (2, 4, 3)),
        ((2, 4, 3), (1, 4, 5), (1, 5, 3)),
        ((2, 4, 3), (2, 3, 5), (2, 5, 4)),
        ((2, 4, 3), (2, 4, 5), (2, 5, 1)),
        ((4, 3), (4, 5), (5, 3)),
    ],
)
def test_fold_stack_refuses_shapes_that_do_not_fit(weights, ups, downs):
    with pytest.raises(ConfigurationError, match=r"do not fit; allowed are \(b, out, in\)"):
        fold_stack(torch.ones(weights), torch.ones(ups), torch.ones(downs))


def problem(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return weights of a usual size, twelve stacked changes of a tenth of it, and the float64 sum."""
    generator = torch.Generator().manual_seed(0)
    weights = (torch.randn(3, 96, 64, generator=generator) / 8).to(dtype)
    ups = torch.randn(3, 96, 48, generator=generator) / 80
    downs = torch.randn(3, 48, 64, generator=generator) / 8
    return weights, ups, downs, weights.double() + ups.double() @ downs.double()


@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16))
def test_half_precision_fold_is_the_float64_sum_rounded_once(dtype):
    weights, ups, downs, exact = problem(dtype)
    folded, floor = fold_stack(weights, ups, downs), exact.to(dtype)
    assert folded.dtype == dtype
    error, floor_error = (folded.double() - exact).norm(), (floor.double() - exact).norm()
    assert error <= floor_error * 1.001
    assert (folded != floor).double().mean() < 1e-3  # ties within float32's own error may fall the other way
    one_by_one = weights
    for part in range(12):
        columns = slice(4 * part, 4 * part + 4)
        one_by_one = one_by_one + (ups[:, :, columns] @ downs[:, columns]).to(dtype)
    assert (one_by_one.double() - exact).norm() > 2 * floor_error  # what adding one after the other costs


def test_float32_fold_is_near_one_rounding():
    weights, ups, downs, exact = problem(torch.float32)
    folded = fold_stack(weights, ups, downs)
    floor_error = (exact.float().double() - exact).norm()
    assert (folded.double() - exact).norm() < 1.5 * floor_error
    assert (folded.double() - exact).abs().max() < 4 * torch.finfo(torch.float32).eps * exact.abs().max()


def test_float64_fold_stays_float64():
    weights, ups, downs, exact = problem(torch.float64)
    torch.testing.assert_close(fold_stack(weights, ups, downs), exact, atol=1e-14, rtol=0)
