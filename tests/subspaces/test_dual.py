"""Dual directions: they hear their own vector with 1, the others with 0, and the rest as little as can be."""

import pytest
import torch

from orthoplex.errors import ConfigurationError
from orthoplex.subspaces import dual_rows


def gram(width=12, count=60, seed=0):
    x = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    return x.T @ x / count


def test_written_out():
    """Inputs along the first axis are loud, along the second quiet: the dual of (1, 1) listens to the second."""
    rows = dual_rows(torch.tensor([[1.0, 1.0]]), torch.diag(torch.tensor([99.0, 1.0])), ridge=1e-9)
    torch.testing.assert_close(rows, torch.tensor([[0.01, 0.99]]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", (1, 3))
def test_each_hears_its_own_vector_alone(count):
    vectors = torch.randn(count, 12, generator=torch.Generator().manual_seed(1))
    rows = dual_rows(vectors, gram(), ridge=1e-3)
    torch.testing.assert_close(rows @ vectors.T, torch.eye(count), rtol=1e-4, atol=1e-5)


def test_no_other_rows_that_hear_it_are_more_silent():
    vectors, g = torch.randn(2, 12, generator=torch.Generator().manual_seed(1)), gram()
    rows = dual_rows(vectors, g, ridge=1e-9)
    free = torch.eye(12) - torch.linalg.pinv(vectors) @ vectors  # moves that leave rows @ vectors.T as it is
    for seed in range(5):
        other = rows + 0.1 * torch.randn(2, 12, generator=torch.Generator().manual_seed(10 + seed)) @ free
        torch.testing.assert_close(other @ vectors.T, torch.eye(2), rtol=1e-3, atol=1e-4)
        assert ((other @ g) * other).sum() > ((rows @ g) * rows).sum()


def test_what_cannot_be_is_named():
    vectors = torch.randn(2, 12)
    with pytest.raises(ConfigurationError, match=r"width 12 and a Gram matrix \(3, 3\)"):
        dual_rows(vectors, torch.eye(3), ridge=1e-3)
    with pytest.raises(ConfigurationError, match="ridge is 0.0; allowed are numbers above 0"):
        dual_rows(vectors, gram(), ridge=0.0)
    with pytest.raises(ConfigurationError, match="2 vectors lie in fewer than 2 directions"):
        dual_rows(torch.stack([vectors[0], 2 * vectors[0]]), gram(), ridge=1e-3)
