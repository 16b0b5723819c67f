"""Crosstalk on matrices whose answer is known."""

import pytest
import torch

from orthoplex.adapters import LowRank
from orthoplex.errors import ConfigurationError
from orthoplex.merging import crosstalk


def test_it_is_the_ratio_of_output_norms():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 6, generator=generator)
    weight, up, down = (torch.randn(*size, generator=generator) for size in ((4, 6), (4, 2), (2, 6)))
    expected = (x @ (up @ down).T).norm() / (x @ weight.T).norm()
    assert crosstalk(LowRank(up, down), weight, x.T @ x / 50) == pytest.approx(float(expected), rel=1e-5)


def test_an_update_that_hears_nothing_of_the_inputs_is_silent():
    gram = torch.diag(torch.tensor([1.0, 1.0, 0.0]))
    change = LowRank(torch.ones(2, 1), torch.tensor([[0.0, 0.0, 5.0]]))
    assert crosstalk(change, torch.ones(2, 3), gram) == 0.0


def test_what_does_not_belong_together_is_refused():
    change = LowRank(torch.ones(2, 1), torch.ones(1, 3))
    with pytest.raises(ConfigurationError, match=r"a weight \(2, 4\)"):
        crosstalk(change, torch.ones(2, 4), torch.eye(4))
    with pytest.raises(ConfigurationError, match=r"Gram matrix \(2, 2\)"):
        crosstalk(change, torch.ones(2, 3), torch.eye(2))
    with pytest.raises(ConfigurationError, match="have the energy 0.0"):
        crosstalk(change, torch.zeros(2, 3), torch.eye(3))
