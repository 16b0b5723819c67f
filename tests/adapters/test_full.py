"""The whole weight: nothing is frozen, nothing is left out, and its factors are itself and an identity."""

import pytest
import torch

from orthoplex.adapters import AdapterConfig, Full, LowRank, create_adapter, owned_slot
from orthoplex.errors import ConfigurationError

LAYER = "unet.mid_block.attentions.0.to_k"


def build(out_features: int = 3, in_features: int = 5, **options):
    config = AdapterConfig(method="full", **options)
    return create_adapter(
        config, layer=LAYER, out_features=out_features, in_features=in_features, concept_id="anna", seed=0
    )


def filled(out_features: int, in_features: int, seed: int = 0) -> Full:
    adapter = build(out_features, in_features)
    assert isinstance(adapter, Full)
    torch.nn.init.normal_(adapter.up, generator=torch.Generator().manual_seed(seed))
    return adapter


def test_every_entry_of_the_weight_learns_and_nothing_else():
    adapter = build()
    assert [(name, tuple(value.shape)) for name, value in adapter.named_parameters()] == [("up", (3, 5))]
    assert torch.equal(adapter.down, torch.eye(5)) and adapter.rank == 5
    target = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.SGD(adapter.parameters(), lr=1.0)
    (0.5 * (adapter(torch.eye(5)).T - target).square().sum()).backward()
    optimizer.step()
    torch.testing.assert_close(adapter.delta(), target)  # of any rank, in one step


def test_it_owns_no_slot_and_takes_no_notice_of_alpha_and_slots():
    assert owned_slot(AdapterConfig(method="full", slot=3), "anna") is None
    assert not Full.uses_basis(AdapterConfig(method="full"))
    assert build(alpha=2.0).scaling == 1.0
    build(slot=400, slots=1)


@pytest.mark.parametrize("rank", (1, 5, 6))
def test_a_rank_is_refused(rank):
    with pytest.raises(ConfigurationError, match=f"rank is {rank} with method 'full'; allowed is 'proportional'"):
        build(rank=rank)


@pytest.mark.parametrize("shape", ((3, 5), (5, 3), (4, 4)))
def test_factors_are_the_change_and_the_smaller_identity(shape):
    adapter = filled(*shape)
    factors = adapter.factors()
    assert factors.rank == min(shape)
    assert torch.equal(factors.delta(), adapter.up)
    factors.up.fill_(7)
    factors.down.fill_(7)
    assert not torch.equal(adapter.up, torch.full(shape, 7.0))


@pytest.mark.parametrize("shape", ((3, 5), (5, 3)))
def test_factors_in_half_precision_load_too(shape):
    factors = filled(*shape).factors()
    other = build(*shape)
    other.load_factors(LowRank(factors.up.half(), factors.down.half()))
    assert torch.equal(other.delta(), factors.delta().half().float())


def test_factors_that_are_no_whole_change_are_refused():
    message = rf"layer {LAYER}: factors have shapes up \(3, 2\) and down \(2, 5\); allowed are a change \(3, 5\) and, "
    with pytest.raises(ConfigurationError, match=message + "as its up, an identity of width 3"):
        build().load_factors(LowRank(torch.ones(3, 2), torch.ones(2, 5)))
    with pytest.raises(ConfigurationError, match="as its down, an identity of width 3"):
        build(5, 3).load_factors(LowRank(torch.ones(5, 3), torch.ones(3, 3)))


def test_forward_makes_no_product_with_the_identity():
    adapter = filled(3, 5)
    x = torch.randn(4, 5, dtype=torch.float64)
    assert torch.equal(adapter(x), torch.nn.functional.linear(x, adapter.up.double()))
