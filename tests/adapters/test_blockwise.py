"""Blockwise adapters: what is outside the block is zero and stays zero; sums touch every weight once."""

import pytest
import torch

from orthoplex.adapters import AdapterConfig, create_adapter, owned_slot
from orthoplex.errors import CapacityError, ConfigurationError
from orthoplex.merging import Part, WeightChanges, create_algorithm


def adapter_of(blocks, slot, *, out_features=32, in_features=48, slots=4, rank=3):
    config = AdapterConfig(method="blockwise", blocks=blocks, slot=slot, slots=slots, rank=rank)
    return create_adapter(
        config, layer="unet.x", out_features=out_features, in_features=in_features, concept_id=f"c{slot}", seed=0
    )


def trained(blocks, slot):
    adapter = adapter_of(blocks, slot)
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=0.1, weight_decay=0.1)
    x = torch.randn(64, 48, generator=torch.Generator().manual_seed(slot))
    for _ in range(5):
        optimizer.zero_grad()
        (adapter(x) - 1.0).square().mean().backward()
        optimizer.step()
    return adapter


@pytest.mark.parametrize("slot", (0, 2, 3))
def test_rows_outside_the_block_never_move(slot):
    adapter = trained("rows", slot)
    owned = torch.zeros(32, dtype=torch.bool)
    owned[8 * slot : 8 * slot + 8] = True
    assert (adapter.up[owned] != 0).all() and (adapter.up[~owned] == 0).all()
    assert (adapter.down != 0).all()


@pytest.mark.parametrize("slot", (0, 2, 3))
def test_columns_outside_the_block_never_move_and_those_inside_learn(slot):
    adapter, before = trained("columns", slot), adapter_of("columns", slot).down
    owned = torch.zeros(48, dtype=torch.bool)
    owned[12 * slot : 12 * slot + 12] = True
    assert (adapter.down[:, ~owned] == 0).all() and (adapter.down[:, owned] != before[:, owned]).all()
    assert before[:, owned].abs().max() <= 12**-0.5
    assert (adapter.up != 0).all()


@pytest.mark.parametrize("blocks", ("rows", "columns"))
def test_a_sum_of_all_slots_touches_every_weight_at_most_once(blocks):
    deltas = [trained(blocks, slot).delta().detach() for slot in range(4)]
    assert (sum((delta != 0).int() for delta in deltas) <= 1).all()
    parts = tuple(Part(str(i), trained(blocks, i).factors(), 1.0) for i in range(4))
    whole = create_algorithm("sum").merge(WeightChanges("unet.x", parts, 4)).delta()
    for delta in deltas:
        torch.testing.assert_close(whole[delta != 0], delta[delta != 0], rtol=1e-5, atol=1e-6)


def test_columns_of_two_concepts_are_orthogonal():
    first, second = trained("columns", 0), trained("columns", 1)
    assert torch.equal(first.down @ second.down.T, torch.zeros(3, 3))


def test_slots_and_blocks_are_checked():
    with pytest.raises(CapacityError, match="layer unet.x: slot is 4; of 4 slots, allowed are 0 to 3"):
        adapter_of("rows", 4)
    with pytest.raises(ConfigurationError, match="layer unet.x: slots is 40; allowed are 1 to 32"):
        adapter_of("rows", 0, slots=40)
    with pytest.raises(ConfigurationError, match="blocks is 'both'; allowed are 'rows', 'columns'"):
        AdapterConfig(method="blockwise", blocks="both")


def test_every_blockwise_concept_has_a_slot_whatever_the_basis():
    config = AdapterConfig(method="blockwise", basis="random", slots=8)
    assert owned_slot(config, "anna") in range(8)
    assert owned_slot(AdapterConfig(method="orthogonal", basis="random"), "anna") is None
    assert owned_slot(AdapterConfig(method="lora"), "anna") is None
