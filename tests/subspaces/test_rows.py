"""The choice of rows: slots are disjoint, random rows meet as often as chance says, nothing is shared by mistake."""

import itertools
import math

import pytest
import torch

from orthoplex.errors import CapacityError, ConfigurationError
from orthoplex.subspaces import (
    capacity,
    choose_rows,
    gaussian_rows,
    overlap,
    proportional_rank,
    shared_basis,
    shared_basis_rows,
    slot_from_id,
)


def random_rows(width: int, rank: int, concept_id: str, layer: str = "unet.to_k") -> torch.Tensor:
    return choose_rows("random", width=width, rank=rank, concept_id=concept_id, layer=layer)


def slot_rows(width: int, rank: int, slot: int | None) -> torch.Tensor:
    return choose_rows("slot", width=width, rank=rank, concept_id="anna", layer="unet.to_k", slot=slot)


def test_capacity_and_proportional_rank():
    assert [capacity(width, 20) for width in (320, 640, 768, 1280)] == [16, 32, 38, 64]
    assert [proportional_rank(width, 64) for width in (320, 768, 1280)] == [5, 12, 20]
    assert proportional_rank(16, 64) == 1
    assert capacity(5, 6) == 0


def test_slots_are_consecutive_rows():
    assert slot_rows(320, 3, 0).tolist() == [0, 1, 2]
    assert slot_rows(320, 3, 5).tolist() == [15, 16, 17]
    assert slot_rows(320, 3, 5).dtype == torch.int64


@pytest.mark.parametrize("width", (64, 128, 192, 320, 640, 768, 1280))
def test_slots_do_not_meet(width):
    rank = proportional_rank(width, 16)
    downs = torch.stack([shared_basis_rows(width, slot_rows(width, rank, slot)) for slot in range(16)])
    products = torch.einsum("irn,jsn->ijrs", downs.double(), downs.double())
    apart = ~torch.eye(16, dtype=torch.bool)
    assert products[apart].abs().max() < 1e-6
    assert (products[~apart] - torch.eye(rank)).abs().max() < 1e-6


@pytest.mark.parametrize("slot", (-1, 16, 400))
def test_slot_beyond_capacity_is_refused(slot):
    with pytest.raises(
        CapacityError, match=f"layer unet.to_k: slot is {slot}; at width 320 .* capacity is 16.*0 to 15"
    ):
        slot_rows(320, 20, slot)


def half_rows(width: int, rank: int, slot: int | None) -> torch.Tensor:
    return choose_rows("half", width=width, rank=rank, concept_id="anna", layer="unet.to_k", slot=slot)


def test_identical_rows_are_those_of_slot_0_for_everyone():
    for concept_id, slot in (("anna", None), ("rex", 3), ("rex", 4000)):
        rows = choose_rows("identical", width=320, rank=5, concept_id=concept_id, layer="unet.to_k", slot=slot)
        assert torch.equal(rows, slot_rows(320, 5, 0)) and rows.dtype == torch.int64


def test_half_rows_are_half_common_and_half_a_slots_own():
    assert half_rows(20, 4, 0).tolist() == [0, 1, 2, 3]
    assert half_rows(20, 4, 1).tolist() == [0, 1, 4, 5]
    assert half_rows(20, 4, 8).tolist() == [0, 1, 18, 19]
    assert half_rows(20, 5, 1).tolist() == [0, 1, 5, 6, 7]  # of an odd rank the smaller half is common
    assert half_rows(20, 1, 7).tolist() == [7]
    assert half_rows(20, 4, 8).dtype == torch.int64


@pytest.mark.parametrize(("width", "rank"), [(64, 4), (320, 20), (96, 7)])
def test_two_concepts_of_half_rows_share_half(width, rank):
    a, b = (shared_basis_rows(width, half_rows(width, rank, slot)) for slot in (0, 3))
    assert overlap(a, b) == pytest.approx(math.sqrt((rank // 2) / rank), abs=1e-6)


def test_half_rows_end_where_the_slots_own_halves_do():
    with pytest.raises(CapacityError, match="layer unet.to_k: slot is 9; at width 20 and rank 4 the capacity is 9"):
        half_rows(20, 4, 9)
    with pytest.raises(CapacityError, match="at width 20 and rank 5 the capacity is 6, so allowed are 0 to 5"):
        half_rows(20, 5, 6)
    with pytest.raises(ConfigurationError, match="slot is None; choice 'half' needs a whole number from 0"):
        half_rows(20, 4, None)


def test_random_rows_are_different_and_inside():
    rows = random_rows(320, 20, "anna").tolist()
    assert len(set(rows)) == 20
    assert 0 <= min(rows) and max(rows) < 320
    assert sorted(random_rows(64, 64, "anna").tolist()) == list(range(64))


def test_random_rows_never_change():
    assert random_rows(320, 6, "anna").tolist() == [219, 82, 289, 7, 34, 145]


def test_layers_and_concepts_get_their_own_rows():
    """The trap: one seed for everything gives every concept, or every layer, the same rows."""
    layers = [random_rows(320, 20, "anna", f"unet.block.{index}.to_k").tolist() for index in range(30)]
    concepts = [random_rows(320, 20, f"concept-{index}").tolist() for index in range(30)]
    for rows in (layers, concepts):
        assert len({tuple(sorted(row)) for row in rows}) == 30


@pytest.mark.parametrize(("width", "rank"), [(64, 4), (320, 20)])
def test_random_rows_share_r_squared_over_n(width, rank):
    """Shared rows of two concepts are hypergeometric: mean r²/n, variance r²(n − r)²/(n²(n − 1))."""
    sets = [set(random_rows(width, rank, f"concept-{index}").tolist()) for index in range(150)]
    shared = [len(a & b) for a, b in itertools.combinations(sets, 2)]
    # pairs of one collection are pairwise independent, so the mean's variance is the plain one
    spread = rank * (width - rank) / width / math.sqrt(width - 1) / math.sqrt(len(shared))
    assert abs(sum(shared) / len(shared) - rank**2 / width) < 4 * spread


def test_overlap_of_random_rows_is_counted_by_shared_rows():
    a, b = random_rows(64, 16, "anna"), random_rows(64, 16, "rex")
    shared = len(set(a.tolist()) & set(b.tolist()))
    assert shared > 0
    basis = shared_basis(64)
    assert overlap(basis[a], basis[b]) == pytest.approx(math.sqrt(shared / 16), abs=1e-6)


def test_overlap_written_out():
    a = torch.tensor([[1.0, 0, 0], [0, 1, 0]])
    b = torch.tensor([[0, 0.5, 0], [0, 0, 0.5]])
    assert overlap(a, b) == pytest.approx(math.sqrt(1 / 2))
    assert overlap(a, a) == pytest.approx(1)
    assert overlap(a, 0.5 * a) == pytest.approx(1)  # lengths do not count
    assert overlap(a[:1], b[1:]) == 0
    assert overlap(a, a[:1]) == pytest.approx(1)  # the smaller one lies inside


def test_overlap_of_different_widths_is_refused():
    with pytest.raises(ConfigurationError, match="widths 3 and 4"):
        overlap(torch.ones(1, 3), torch.ones(1, 4))


def test_gaussian_rows_have_variance_one_over_width():
    rows = gaussian_rows(width=320, rank=20, concept_id="anna", layer="to_k")
    assert rows.shape == (20, 320) and rows.dtype == torch.float32
    assert rows.square().sum(dim=1).mean() == pytest.approx(1, abs=4 * math.sqrt(2 / 320 / 20))
    assert torch.equal(rows, gaussian_rows(width=320, rank=20, concept_id="anna", layer="to_k"))


def test_gaussian_rows_overlap_as_expected():
    """E‖A Bᵀ‖²_F = r²/n, so the overlap is about √(r/n) = 0.25 at width 320 and rank 20."""
    downs = [gaussian_rows(width=320, rank=20, concept_id=f"concept-{index}", layer="to_k") for index in range(8)]
    overlaps = [overlap(a, b) for a, b in itertools.combinations(downs, 2)]
    assert sum(overlaps) / len(overlaps) == pytest.approx(math.sqrt(20 / 320), abs=0.01)
    other_layer = gaussian_rows(width=320, rank=20, concept_id="concept-0", layer="to_v")
    assert overlap(downs[0], other_layer) < 0.3


def test_slot_from_id_is_fixed_and_fair():
    assert [slot_from_id(name, 16) for name in ("anna", "rex", "beach")] == [7, 2, 7]
    counts = torch.bincount(torch.tensor([slot_from_id(f"concept-{index}", 16) for index in range(1600)]), minlength=16)
    assert (counts - 100).abs().max() < 5 * math.sqrt(100)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: capacity(320, 0), "rank is 0; allowed are whole numbers from 1"),
        (lambda: proportional_rank(320, 0), "slots is 0; allowed are whole numbers from 1"),
        (lambda: slot_from_id("anna", 0), "slots is 0; allowed are whole numbers from 1"),
        (lambda: slot_rows(320, 20, None), "layer unet.to_k: slot is None"),
        (lambda: random_rows(8, 9, "anna"), "layer unet.to_k: rank is 9; allowed are 1 to 8"),
        (lambda: gaussian_rows(width=8, rank=0, concept_id="a", layer="to_v"), "layer to_v: rank is 0"),
        (
            lambda: choose_rows("best", width=8, rank=1, concept_id="a", layer="to_v"),
            "layer to_v: choice of rows is 'best'; allowed are slot, random, identical, half",
        ),
    ],
)
def test_wrong_values_are_named(call, message):
    with pytest.raises(ConfigurationError, match=message):
        call()
