"""Changes beside their layers: whatever the layers' weights are made of, the output is that of weight and change."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from diffusers import FluxTransformer2DModel
from diffusers.hooks import apply_group_offloading
from torch import nn

from orthoplex.adapters import AdapterConfig, LowRank, create_adapter
from orthoplex.concepts import Stack
from orthoplex.errors import BaseModelError, ConfigurationError
from orthoplex.merging import merge
from orthoplex.models import Base, load_base
from orthoplex.models.weights import (
    ChosenWeights,
    UnmergedWeights,
    linear_layers,
    named_modules,
    plain_weight,
    quantisation_of,
)
from tests.pico import make_concept
from tests.quantised import KINDS, quantise_layers

KEY = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 3e-2}


def stack_of(out_features: int, in_features: int, rank: int = 3, strength: float = 0.5, seed: int = 0) -> Stack:
    generator = torch.Generator().manual_seed(seed)
    up = torch.randn(out_features, rank, generator=generator)
    return Stack.of("a", LowRank(up, torch.randn(rank, in_features, generator=generator)), strength)


def close(first: torch.Tensor, second: torch.Tensor, dtype: torch.dtype) -> bool:
    error = (first.double() - second.double()).abs().max() / second.double().abs().max()
    return first.dtype == dtype and float(error) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", ["plain", *KINDS])
@torch.no_grad()
def test_the_output_is_that_of_the_dequantised_weight_and_the_change(kind, dtype):
    network = nn.Sequential(nn.Linear(64, 48, dtype=dtype))
    if kind != "plain":
        quantise_layers(network, kind)
    layer, x, change = network[0], torch.randn(2, 5, 64).to(dtype), stack_of(48, 64)
    before = layer(x)
    engine = UnmergedWeights({"n.0": layer})
    engine.apply({"n.0": change})
    exact = x.double() @ (plain_weight(layer).double() + change.delta().double()).T + layer.bias.double()
    assert close(layer(x), exact, dtype)
    assert plain_weight(layer).shape == (48, 64) and quantisation_of(layer) == library_of(kind)
    engine.restore()
    assert torch.equal(layer(x), before) and not layer._forward_hooks and not layer._forward_hooks_with_kwargs


def library_of(kind: str) -> str | None:
    names = {"bnb": "bitsandbytes", "torchao": "torchao", "gguf": "GGUF"}
    return names.get(kind.partition("-")[0])


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(4, 6, 3, padding=1), (2, 4, 5, 5)),
        (nn.Conv2d(4, 6, 3, stride=2, dilation=2, padding=2, padding_mode="reflect"), (1, 4, 8, 8)),
        (nn.Conv2d(4, 6, (1, 3), groups=2, bias=False), (2, 4, 5, 5)),
        (nn.Conv2d(4, 6, 1), (4, 5, 5)),
        (nn.Conv1d(4, 6, 3), (2, 4, 9)),
        (nn.Conv3d(4, 6, 2), (1, 4, 3, 3, 3)),
        (nn.Linear(4, 6), (2, 3, 4)),
        (nn.Linear(4, 6, bias=False), (4,)),
    ],
    ids=str,
)
@torch.no_grad()
def test_layers_of_every_kind_compute_as_with_the_change_folded_in(layer, shape):
    changes = {"n.0": stack_of(6, layer.weight[0].numel())}
    if layer.bias is not None:
        changes["n.0.bias"] = stack_of(6, 1, rank=1, seed=1)
    folded, x = copy.deepcopy(layer), torch.randn(shape)
    ChosenWeights({"n.0": folded}, unmerged=False).apply(changes)
    engine = ChosenWeights({"n.0": layer}, unmerged=True)
    engine.apply(changes)
    assert torch.allclose(layer(x), folded(x), atol=1e-4)
    if isinstance(layer, nn.Linear):
        assert torch.allclose(layer(input=x), folded(x), atol=1e-4)
    assert set(engine.unmerged_layers) == set(engine.changes) == set(changes)
    engine.restore()
    assert not layer._forward_hooks and engine.changes == {}


def flux() -> FluxTransformer2DModel:
    torch.manual_seed(0)
    return FluxTransformer2DModel(
        in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 6, 6),
    ).eval()  # fmt: skip


@pytest.mark.parametrize("kind", ["bnb-4bit", "torchao-int8", "gguf-Q8_0"])
@torch.no_grad()
def test_a_whole_transformer_computes_as_its_dequantised_weights_with_the_change_folded_in(kind):
    network = flux()
    quantised, first = copy.deepcopy(network), network.x_embedder
    quantised.x_embedder = nn.Identity()
    quantise_layers(quantised, kind)
    quantised.x_embedder = copy.deepcopy(first)
    for path, module in quantised.named_modules():
        if quantisation_of(module) is not None:
            network.get_submodule(path).weight.data = plain_weight(module).float().clone()
    layers = {f"t.{path}": m for path, m in network.named_modules() if isinstance(m, nn.Linear)}
    changes = {name: stack_of(*m.weight.shape, seed=i, strength=0.1) for i, (name, m) in enumerate(layers.items())}
    inputs = {
        "hidden_states": torch.randn(1, 4, 4), "encoder_hidden_states": torch.randn(1, 3, 32),
        "pooled_projections": torch.randn(1, 32), "timestep": torch.tensor([0.5]),
        "img_ids": torch.zeros(4, 3), "txt_ids": torch.zeros(3, 3),
    }  # fmt: skip
    before = network(**inputs).sample
    ChosenWeights(named_modules({"t": network})).apply(changes)
    engine = ChosenWeights(named_modules({"t": quantised}))
    engine.apply(changes)
    assert set(engine.unmerged_layers) == set(changes) - {"t.x_embedder"}  # which is plain: the change is in it
    ours, exact = quantised(**inputs).sample, network(**inputs).sample
    assert torch.allclose(ours, exact, atol=2e-3) and not torch.allclose(exact, before, atol=0.1)
    engine.restore()
    assert torch.allclose(quantised(**inputs).sample, before, atol=2e-3)


def features(base: Base) -> torch.Tensor:
    x = torch.linspace(-1, 1, 2 * 24).view(2, 24)
    return base.family.every_layer()[KEY](x.to(base.dtype)).detach().clone()


@pytest.fixture(scope="module")
def quantised(pico_folder) -> Base:
    return load_base(pico_folder, quantise="torchao-int8")


def test_a_quantised_base_has_the_identity_of_its_folder(pico, quantised):
    assert quantised.identity == pico.identity and quantised.dtype == torch.float32


def test_strengths_are_set_in_place_and_leave_no_trace(quantised):
    before, anna = features(quantised), make_concept(quantised, "anna", text_encoder=True, seed=1)
    rex = make_concept(quantised, "rex", selection="linear", seed=2)
    undo = quantised.fold(merge([(anna, 1.0), (rex, 0.5)]))
    both = features(quantised)
    placed = [hook._factors for hook in quantised.family.every_layer()[KEY]._forward_hooks.values()]
    undo.strengths["anna"] = 0.0
    with_rex = features(quantised)
    assert [hook._factors for hook in quantised.family.every_layer()[KEY]._forward_hooks.values()] == placed
    assert undo.strengths == {"anna": 0.0, "rex": 0.5} and "<anna>" in quantised.tokens
    assert not any(layer.startswith("text_encoder") for layer in undo.unmerged_layers)
    undo.strengths["anna"] = 1.0
    assert torch.equal(features(quantised), both)
    undo.restore()
    assert torch.equal(features(quantised), before) and not quantised.tokens
    with quantised.folded(rex):
        undo = quantised._undo
        assert undo is not None
        undo.strengths["rex"] = 0.5
        assert torch.allclose(features(quantised), with_rex, atol=1e-6)


@pytest.mark.parametrize("unmerged", [None, True])
def test_an_error_leaves_the_base_as_it_was(quantised, unmerged):
    before, concept = features(quantised), make_concept(quantised)
    layers = {**concept.layers, "unet.nowhere": LowRank(torch.ones(2, 1), torch.ones(1, 2))}
    with pytest.raises(BaseModelError, match="layer 'unet.nowhere' is not in the base"):
        quantised.fold(replace(concept, layers=layers), unmerged=unmerged)
    norm = {**concept.layers, "unet.conv_norm_out": LowRank(torch.full((16, 1), torch.inf), torch.ones(1, 1))}
    with pytest.raises((BaseModelError, ConfigurationError), match="conv_norm_out"):
        quantised.fold(replace(concept, layers=norm), unmerged=unmerged)
    with pytest.raises(ZeroDivisionError), quantised.folded(concept, unmerged=unmerged):
        raise ZeroDivisionError
    assert torch.equal(features(quantised), before) and quantised.recipe is None
    assert not any(module._forward_hooks for module in quantised.pipeline.unet.modules())


def test_a_plain_base_unmerged_draws_as_folded(pico):
    concept = make_concept(pico, selection="linear", text_encoder=True)
    plain, weight = features(pico), pico.family.every_layer()[KEY].weight.clone()
    with pico.folded(concept):
        folded = features(pico)
    with pico.folded(concept, unmerged=True):
        assert torch.equal(pico.family.every_layer()[KEY].weight, weight)
        assert torch.allclose(features(pico), folded, atol=1e-5) and not torch.equal(folded, plain)
    assert torch.equal(features(pico), plain)


def test_layer_wise_casting_is_no_hindrance_unmerged(pico_folder):
    base = load_base(pico_folder)
    base.pipeline.unet.enable_layerwise_casting(torch.float8_e4m3fn, torch.float32)
    concept, before = make_concept(base, num_vectors=0), features(base)
    with base.folded(concept, unmerged=True):
        x = torch.linspace(-1, 1, 2 * 24).view(2, 24)
        exact = before + x @ concept.layers[KEY].delta().T
        assert torch.allclose(features(base), exact, atol=1e-5)
    with pytest.raises(BaseModelError, match=r"stored as torch.float8_e4m3fn, .*; put the change in unmerged"):
        base.fold(concept)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            {"unet.conv_norm_out": LowRank(torch.ones(16, 1), torch.ones(1, 1))},
            r"layer 'unet.conv_norm_out' cannot be changed unmerged: it is a \S*GroupNorm; allowed are linear layers",
        ),
        (
            {"unet.conv_in": LowRank(torch.ones(16, 1), torch.ones(1, 9))},
            r"layer 'unet.conv_in': the change has shape \(16, 9\), the base's weight has \(16, 4, 3, 3\)",
        ),
        (
            {KEY: LowRank(torch.full((32, 1), torch.nan), torch.ones(1, 24))},
            f"layer '{KEY}' would get a change that is not finite; strengths are",
        ),
    ],
)
def test_what_cannot_be_unmerged_is_refused(pico, layers, message):
    with pytest.raises((BaseModelError, ConfigurationError), match=message):
        pico.fold(replace(make_concept(pico), layers=layers), unmerged=True)


def test_a_layer_in_two_places_is_refused_unmerged():
    layer = nn.Linear(2, 2)
    with pytest.raises(BaseModelError, match="layer 'n.0' cannot be changed unmerged: it stands in 2 places"):
        UnmergedWeights({"n.0": layer, "n.1": layer}).apply({"n.0": stack_of(2, 2)})


def test_layers_that_are_never_called_are_refused_unmerged():
    attention = nn.MultiheadAttention(4, 2)
    with pytest.raises(BaseModelError, match="layer 'n.out_proj' .*: torch.nn.MultiheadAttention reads its weight and"):
        UnmergedWeights(named_modules({"n": attention})).apply({"n.out_proj": stack_of(4, 4)})
    with pytest.raises(BaseModelError, match="never calls it; fold the change in instead"):
        linear_layers({"n.out_proj": (4, 4)}, named_modules({"n": attention}))
    ChosenWeights(named_modules({"n": attention})).apply({"n.out_proj": stack_of(4, 4)})


def test_folding_into_quantised_layers_is_refused(quantised):
    message = (
        f"layer '{KEY}' cannot be changed in place: it is quantised by torchao, whose rounding would lose small "
        r"changes; put the change in unmerged \(unmerged=True\), or load the model without quantisation"
    )
    concept = make_concept(quantised)
    with pytest.raises(BaseModelError, match=message):
        quantised.fold(replace(concept, layers={KEY: concept.layers[KEY]}), unmerged=False)


def test_saving_what_weights_do_not_hold_is_refused(pico, quantised, tmp_path):
    with pytest.raises(BaseModelError, match="base 'pipeline' cannot be saved: its unet is quantised; allowed are"):
        quantised.save(tmp_path / "a")
    with pico.folded(make_concept(pico), unmerged=True):
        with pytest.raises(BaseModelError, match="cannot be saved: the change of layer 'unet.* is beside it, not in"):
            pico.save(tmp_path / "b")
    assert not list(tmp_path.iterdir())


def test_factors_that_were_placed_without_gradients_serve_a_training(quantised):
    concept = make_concept(quantised, num_vectors=0)
    with quantised.folded(concept):
        layer, x = quantised.family.every_layer()[KEY], torch.randn(2, 24, requires_grad=True)
        with torch.inference_mode():
            layer(x)
        layer(x).sum().backward()
        exact = (plain_weight(layer) + concept.layers[KEY].delta()).sum(0)
        assert x.grad is not None and torch.allclose(x.grad, exact.expand(2, -1), atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_biases_and_norms_change_beside_quantised_layers(kind):
    network = nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64)).eval()
    quantise_layers(network, kind)
    x, layers = torch.randn(2, 64), {"n.0": network[0], "n.1": network[1]}
    before = network(x)
    bias, weight = stack_of(64, 1, rank=1), stack_of(64, 1, rank=1, seed=1)
    exact = nn.functional.layer_norm(
        network[0](x) + bias.delta()[:, 0], (64,), network[1].weight + weight.delta()[:, 0], network[1].bias
    )
    engine = ChosenWeights(layers)
    engine.apply({"n.0.bias": bias, "n.1": weight})
    assert engine.unmerged_layers == ("n.0.bias",) and torch.allclose(network(x), exact, atol=1e-4)
    engine.restore()
    assert torch.equal(network(x), before)


def test_group_offloading_is_no_hindrance_unmerged(pico_folder):
    base = load_base(pico_folder)
    concept, before = make_concept(base, num_vectors=0), features(base)
    device = torch.device("cpu")
    apply_group_offloading(base.pipeline.unet, device, device, offload_type="block_level", num_blocks_per_group=1)
    with base.folded(concept, unmerged=True):
        x = torch.linspace(-1, 1, 2 * 24).view(2, 24)
        assert torch.allclose(features(base), before + x @ concept.layers[KEY].delta().T, atol=1e-5)


@pytest.mark.parametrize("kind", ["bnb-4bit", "bnb-8bit", "torchao-int8"])
def test_adapters_of_another_shape_than_a_quantised_layer_are_refused(pico_folder, kind):
    base = load_base(pico_folder, quantise=kind)
    config = AdapterConfig(method="lora", rank=2)
    right, wrong = (
        create_adapter(config, layer=KEY, out_features=32, in_features=width, concept_id="anna", seed=0)
        for width in (24, 25)
    )
    with base.attached({KEY: right}):
        features(base)
    with pytest.raises(BaseModelError, match=r"the change has shape \(32, 25\), the base's weight has \(32, 24\)"):
        base.attached({KEY: wrong}).__enter__()
