"""Dual directions: they hear their own inputs with energy 1, and the rest as little as can be."""

import pytest
import torch

from orthoplex.errors import ConfigurationError
from orthoplex.subspaces import dual_rows


def gram(width=12, count=60, seed=0):
    x = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    return x.T @ x / count


def ratio(row, inputs, g):
    return float((inputs @ row).square().mean() / (row @ g @ row))


def test_written_out():
    """Inputs along the first axis are loud, along the second quiet: the dual of (1, 1) listens to the second."""
    rows = dual_rows(torch.tensor([[1.0, 1.0]]), torch.diag(torch.tensor([99.0, 1.0])), count=1, ridge=1e-9)
    torch.testing.assert_close(rows.abs(), torch.tensor([[0.01, 0.99]]), rtol=1e-4, atol=1e-5)


def test_own_inputs_are_heard_with_energy_one():
    inputs = 3 * torch.randn(6, 12, generator=torch.Generator().manual_seed(1))
    rows = dual_rows(inputs, gram(), count=3, ridge=1e-3)
    torch.testing.assert_close((inputs @ rows.T).square().mean(0), torch.ones(3), rtol=1e-4, atol=1e-5)


def test_no_other_row_has_a_larger_ratio_and_the_clearest_comes_first():
    inputs, g = 3 * torch.randn(6, 12, generator=torch.Generator().manual_seed(1)), gram()
    rows = dual_rows(inputs, g, count=3, ridge=1e-9)
    ratios = [ratio(row, inputs, g) for row in rows]
    assert ratios == sorted(ratios, reverse=True)
    for seed in range(20):
        other = rows[0] + 0.3 * torch.randn(12, generator=torch.Generator().manual_seed(10 + seed)) * rows[0].norm()
        assert ratio(other, inputs, g) < ratios[0]


def test_inputs_that_hardly_differ_give_one_direction_and_no_loud_ones():
    """Directions that tell twins apart would hear everything else louder: they are left out."""
    one = torch.randn(1, 12, generator=torch.Generator().manual_seed(2)) * 3
    twins = one + 1e-3 * torch.randn(4, 12, generator=torch.Generator().manual_seed(3))
    rows = dual_rows(twins, gram(), count=3, ridge=1e-3)
    assert rows[0].norm() > 0 and torch.equal(rows[1:], torch.zeros(2, 12))
    single = dual_rows(one, gram(), count=1, ridge=1e-3)
    assert abs(torch.nn.functional.cosine_similarity(rows[0], single[0], dim=0)) > 0.999


def test_what_cannot_be_is_named():
    inputs = torch.randn(2, 12)
    with pytest.raises(ConfigurationError, match=r"width 12 and a Gram matrix \(3, 3\)"):
        dual_rows(inputs, torch.eye(3), count=1, ridge=1e-3)
    with pytest.raises(ConfigurationError, match="ridge is 0.0; allowed are numbers above 0"):
        dual_rows(inputs, gram(), count=1, ridge=0.0)
    with pytest.raises(ConfigurationError, match="3 dual directions of 2 inputs were asked for; allowed are 1 to 2"):
        dual_rows(inputs, gram(), count=3, ridge=1e-3)
