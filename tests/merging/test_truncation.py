"""Truncation from factors: the singular value decomposition's answer, without its matrix."""

import pytest
import torch

from orthoplex.adapters import LowRank
from orthoplex.errors import ConfigurationError
from orthoplex.merging import Truncation, truncate
from orthoplex.merging.truncation import energy_of, truncate_matrix


def drawn(out: int, rank: int, width: int, seed: int = 0) -> LowRank:
    generator = torch.Generator().manual_seed(seed)
    return LowRank(torch.randn(out, rank, generator=generator), torch.randn(rank, width, generator=generator))


DIAGONAL = LowRank(torch.diag(torch.tensor([3.0, 2.0, 1.0])), torch.eye(3, 4))
TWICE = LowRank(drawn(30, 4, 20).up.repeat(1, 2), drawn(30, 4, 20).down.repeat(2, 1))
NEARLY_TWICE = LowRank(TWICE.up + 1e-6 * drawn(30, 8, 20, 5).up, drawn(30, 8, 20, 6).down)


def test_written_out():
    cut = truncate(DIAGONAL, Truncation(rank=2))
    torch.testing.assert_close(cut.change.delta(), torch.diag(torch.tensor([3.0, 2.0, 0.0, 0.0]))[:3])
    assert (cut.change.rank, cut.rank_before) == (2, 3)
    assert cut.energy == pytest.approx(14) and cut.lost == pytest.approx(1)


@pytest.mark.parametrize(
    "change",
    [
        drawn(40, 12, 30),
        drawn(30, 12, 40),
        drawn(20, 35, 30),
        drawn(30, 35, 20),
        drawn(30, 25, 20),
        TWICE,
        NEARLY_TWICE,
    ],
)
def test_nothing_is_nearer(change):
    exact = change.up.double() @ change.down.double()
    best = torch.linalg.svdvals(exact)[3:].square().sum()
    cut = truncate(change, Truncation(rank=3))
    assert cut.change.rank == 3
    error = (cut.change.up.double() @ cut.change.down.double() - exact).square().sum()
    assert float(error) == pytest.approx(float(best), rel=1e-6)
    assert cut.lost == pytest.approx(float(best), rel=1e-9)
    assert cut.energy == pytest.approx(float(exact.square().sum())) == energy_of(change)
    dense = truncate_matrix(exact, Truncation(rank=3))
    torch.testing.assert_close(dense.change.delta(), cut.change.delta(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("energy", "max_rank", "rank"), [(0.6, None, 1), (0.65, None, 2), (0.93, None, 3), (1.0, None, 3), (1.0, 2, 2)]
)
def test_the_lowest_rank_that_keeps_a_share(energy, max_rank, rank):
    """Squared singular values 9, 4 and 1 of 14: shares 0.643, 0.929 and 1."""
    assert truncate(DIAGONAL, Truncation(energy=energy, max_rank=max_rank)).change.rank == rank


@pytest.mark.parametrize("truncation", [Truncation(rank=3), Truncation(rank=9), Truncation(energy=1.0)])
def test_what_is_low_enough_stays_the_very_same(truncation):
    assert truncate(DIAGONAL, truncation).change is DIAGONAL


def test_a_change_of_nothing_stays_nothing():
    cut = truncate(LowRank(torch.zeros(8, 4), torch.ones(4, 9)), Truncation(rank=2))
    assert not cut.change.delta().any() and cut.lost == 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "a truncation has rank None, energy None and max_rank None; allowed are a rank alone"),
        ({"rank": 4, "energy": 0.9}, "a truncation has rank 4, energy 0.9"),
        ({"rank": 4, "max_rank": 8}, "allowed are a rank alone"),
        ({"rank": 0}, "truncation rank is 0; allowed"),
        ({"energy": 1.5}, r"truncation energy is 1\.5; allowed"),
    ],
)
def test_refused(fields, message):
    with pytest.raises(ConfigurationError, match=message):
        Truncation(**fields)


@pytest.mark.parametrize("rank", [4, 20])
def test_numbers_that_are_not_finite_are_named(rank):
    change = drawn(20, rank, 18)
    change.up[0, 0] = float("nan")
    with pytest.raises(ConfigurationError, match="layer unet.x has numbers that are not finite"):
        truncate(change, Truncation(rank=2), layer="unet.x")
