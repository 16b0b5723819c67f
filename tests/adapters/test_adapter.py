"""Configuration, starting values and training behaviour of the adapters."""

import math

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from orthoplex.adapters import METHODS, Adapter, AdapterConfig, LowRank, Orthogonal, create_adapter, owned_slot
from orthoplex.errors import CapacityError, ConfigurationError
from orthoplex.subspaces import choose_rows, gaussian_rows, overlap, shared_basis_rows, slot_from_id

LAYER = "unet.mid_block.attentions.0.to_k"


def build(config: AdapterConfig, layer: str = LAYER, in_features: int = 64, concept_id: str = "anna", seed: int = 0):
    return create_adapter(
        config, layer=layer, out_features=24, in_features=in_features, concept_id=concept_id, seed=seed
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rank": "half"}, "rank is 'half'"),
        ({"rank": 2.0}, "rank is 2.0"),
        ({"basis": "best"}, "basis is 'best'; allowed are 'slot', 'random', 'gaussian', 'identical', 'half'"),
        ({"alpha": 0.0}, "alpha is 0.0; allowed are finite numbers above 0, or none"),
        ({"alpha": math.nan}, "alpha is nan"),
        ({"slots": 0}, "slots is 0"),
        ({"slot": -1}, "slot is -1"),
        ({"down_scale": 0.0}, "down_scale is 0.0"),
        ({"down_scale": math.inf}, "down_scale is inf"),
    ],
)
def test_values_outside_their_range_are_named(values, message):
    with pytest.raises(ConfigurationError, match=message):
        AdapterConfig(**values)


@pytest.mark.parametrize("rank", [-3, -1, 0])
@pytest.mark.parametrize(("method", "lowest"), [("orthogonal", 1), ("lora", 1), ("dual", 0)])
def test_a_rank_below_the_methods_lowest_is_named_with_it(method, lowest, rank):
    if rank >= lowest:
        assert build(AdapterConfig(method=method, rank=rank)).rank == 1  # the dual direction alone
        return
    message = f"rank is {rank}; allowed are whole numbers from {lowest} and 'proportional'"
    with pytest.raises(ConfigurationError, match=message):
        build(AdapterConfig(method=method, rank=rank))


def test_unknown_method_is_named():
    with pytest.raises(ConfigurationError, match="method is 'dora'; allowed are lora, orthogonal"):
        build(AdapterConfig(method="dora"))


@pytest.mark.parametrize("method", ("lora", "orthogonal"))
def test_rank_above_the_width_is_refused(method):
    with pytest.raises(ConfigurationError, match=f"layer {LAYER}: rank is 65; allowed are 1 to 64"):
        build(AdapterConfig(method=method, rank=65))


def test_slot_beyond_capacity_is_refused():
    assert build(AdapterConfig(slot=15)).rank == 4
    with pytest.raises(CapacityError, match=f"layer {LAYER}: slot is 16; .* capacity is 16"):
        build(AdapterConfig(slot=16))
    with pytest.raises(CapacityError, match="capacity is 8"):
        build(AdapterConfig(rank=8, slot=8))


def test_rank_is_fixed_or_proportional():
    assert [AdapterConfig(slots=64).rank_of(width) for width in (320, 768, 1280, 16)] == [5, 12, 20, 1]
    assert AdapterConfig(rank=8).rank_of(320) == 8
    assert build(AdapterConfig(method="lora", slots=32)).rank == 2


def test_slot_is_given_or_derived_or_absent():
    assert owned_slot(AdapterConfig(slot=3), "anna") == 3
    assert owned_slot(AdapterConfig(slots=7), "anna") == slot_from_id("anna", 7)
    assert owned_slot(AdapterConfig(basis="half", slot=3), "anna") == 3
    assert owned_slot(AdapterConfig(basis="random", slot=3), "anna") is None
    assert owned_slot(AdapterConfig(basis="identical", slot=3), "anna") is None
    assert owned_slot(AdapterConfig(method="dual", basis="half", slot=3), "anna") == 3
    assert owned_slot(AdapterConfig(method="dual", basis="half", rank=0, slot=3), "anna") is None
    assert owned_slot(AdapterConfig(method="lora", slot=3), "anna") is None


def test_orthogonal_down_is_scaled_rows_and_frozen():
    adapter = build(AdapterConfig(slot=2))
    assert torch.equal(adapter.down, 0.5 * shared_basis_rows(64, range(8, 12)))
    assert [name for name, _ in adapter.named_parameters()] == ["up"]
    assert [name for name, _ in adapter.named_buffers()] == ["down"]
    assert torch.equal(build(AdapterConfig(slot=2, down_scale=2.0)).down, 4 * adapter.down)


def test_orthogonal_random_and_gaussian_rows_belong_to_concept_and_layer():
    rows = choose_rows("random", width=64, rank=4, concept_id="anna", layer=LAYER)
    assert torch.equal(build(AdapterConfig(basis="random")).down, 0.5 * shared_basis_rows(64, rows))
    gaussian = gaussian_rows(width=64, rank=4, concept_id="anna", layer=LAYER)
    assert torch.equal(build(AdapterConfig(basis="gaussian")).down, 0.5 * gaussian)
    for basis in ("random", "gaussian"):
        config = AdapterConfig(basis=basis)
        assert torch.equal(build(config).down, build(config, seed=1).down)
        assert not torch.equal(build(config).down, build(config, concept_id="rex").down)
        assert not torch.equal(build(config).down, build(config, layer="unet.to_v").down)


def test_bases_for_the_ablation_share_rows_of_the_shared_basis_on_purpose():
    downs = {
        basis: [build(AdapterConfig(basis=basis, slot=slot), concept_id=f"concept-{slot}").down for slot in (0, 5)]
        for basis in ("identical", "half")
    }
    assert torch.equal(*downs["identical"])
    assert torch.equal(downs["identical"][1], 0.5 * shared_basis_rows(64, range(4)))
    assert overlap(*downs["half"]) == pytest.approx(math.sqrt(1 / 2), abs=1e-6)
    for basis in ("identical", "half"):
        assert METHODS["orthogonal"].uses_basis(AdapterConfig(basis=basis))
    build(AdapterConfig(basis="identical", slot=400))  # there is nothing to run out of
    with pytest.raises(CapacityError, match=f"layer {LAYER}: slot is 31; .* capacity is 31"):
        build(AdapterConfig(basis="half", slot=31))


def test_lora_starts_as_peft_does_and_by_seed_layer_and_concept():
    config = AdapterConfig(method="lora", rank=16)
    down = build(config).down
    bound = 1 / math.sqrt(64)
    assert down.abs().max() <= bound
    assert down.abs().max() > 0.98 * bound
    assert down.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    torch.rand(7)  # neither the global generator nor what was built before matters
    build(config, layer="unet.to_v")
    assert torch.equal(down, build(config).down)
    assert not torch.equal(down, build(config, seed=1).down)
    assert not torch.equal(down, build(config, layer="unet.to_v").down)
    # √(16/64) is expected of independent rows, 1 or more of equal ones
    assert overlap(down, build(config, concept_id="rex").down) < 0.7


def test_alpha_over_rank_scales_the_change():
    adapter = build(AdapterConfig(rank=4, alpha=2.0, slot=0))
    torch.nn.init.ones_(adapter.up)
    ones = torch.ones(24, 4)
    torch.testing.assert_close(adapter.delta(), 0.5 * ones @ adapter.down)
    torch.testing.assert_close(adapter.delta(0.1), 0.05 * ones @ adapter.down)
    assert torch.equal(adapter.factors().up, 0.5 * ones)


def test_factors_are_copies_apart_from_the_graph():
    adapter = build(AdapterConfig(slot=0))
    factors = adapter.factors()
    factors.up.fill_(1)
    factors.down.fill_(1)
    assert not factors.up.requires_grad
    assert adapter.up.abs().max() == 0 and adapter.down.abs().max() < 1


def test_loading_factors_of_another_shape_is_refused():
    adapter = build(AdapterConfig(slot=0))
    with pytest.raises(ConfigurationError, match=rf"layer {LAYER}: factors have shapes up \(24, 3\) .*\(24, 4\) and"):
        adapter.load_factors(LowRank(torch.ones(24, 3), torch.ones(3, 64)))
    assert adapter.up.abs().max() == 0


def saved_shapes(adapter: Adapter, x: torch.Tensor) -> list[tuple[int, ...]]:
    """Return the shapes of what one forward pass keeps for backward."""
    shapes: list[tuple[int, ...]] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(tensor.shape))
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        adapter(x).square().sum().backward()
    return shapes


@pytest.mark.parametrize("shape", [(50, 64), (2, 25, 64)])
@pytest.mark.parametrize("deep", [False, True])
def test_frozen_down_keeps_no_inputs(shape, deep):
    """Only ``down x`` with its r columns (and the small factors) is kept; LoRA keeps x, 64 columns wide."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).requires_grad_(deep)
    sizes = {torch.Size(kept).numel() for kept in saved_shapes(build(AdapterConfig(slot=0)), x)}
    assert x.numel() not in sizes
    assert 50 * 4 in sizes
    lora_sizes = {torch.Size(kept).numel() for kept in saved_shapes(build(AdapterConfig(method="lora")), x)}
    assert x.numel() in lora_sizes


def test_frozen_down_keeps_no_inputs_under_autocast():
    x = torch.randn(50, 64, generator=torch.Generator().manual_seed(0))
    adapter = build(AdapterConfig(slot=0))
    with torch.autocast("cpu", torch.bfloat16):
        shapes = saved_shapes(adapter, x)
    assert (50, 64) not in shapes and (50, 4) in shapes
    assert adapter.up.grad is not None and adapter.up.grad.dtype == torch.float32


@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16))
def test_forward_follows_the_dtype_of_its_input(dtype):
    adapter = build(AdapterConfig(slot=0))
    torch.nn.init.normal_(adapter.up, generator=torch.Generator().manual_seed(0))
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(1))
    output = adapter(x.to(dtype))
    assert output.dtype == dtype
    torch.testing.assert_close(output.float(), adapter(x), atol=0.05, rtol=0.05)


def test_training_moves_up_only():
    adapter = build(AdapterConfig(slot=1))
    down = adapter.down.clone()
    target = torch.randn(24, 4, generator=torch.Generator().manual_seed(0)) @ down
    optimizer = torch.optim.Adam(adapter.parameters(), lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        (adapter.delta() - target).square().mean().backward()
        optimizer.step()
    assert torch.equal(adapter.down, down)
    assert (adapter.delta() - target).abs().max() < 0.01


def test_state_of_an_adapter_is_up_and_down():
    assert isinstance(build(AdapterConfig(slot=1)), Orthogonal)
    assert set(build(AdapterConfig(slot=1)).state_dict()) == {"up", "down"}
    assert set(build(AdapterConfig(method="lora")).state_dict()) == {"up", "down"}
