"""Layers that cannot be changed in place: each kind is refused in one line, and no weight is changed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers.hooks import apply_group_offloading
from peft import LoraConfig
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from orthoplex.adapters import AdapterConfig, create_adapter
from orthoplex.errors import BaseModelError
from orthoplex.merging import merge
from orthoplex.models import Base, load_base
from tests.pico import make_concept

ATTENTION = "mid_block.attentions.0.transformer_blocks.0.attn2"
KEY = f"unet.{ATTENTION}.to_k"
VALUE = f"unet.{ATTENTION}.to_v"
OUT = f"unet.{ATTENTION}.to_out.0"


@pytest.fixture
def base(pico_folder) -> Base:
    """A base of its own: what is done to its modules stays."""
    return load_base(pico_folder)


def key(base: Base) -> nn.Linear:
    return base.pipeline.unet.get_submodule(ATTENTION).to_k


def put(base: Base, layer: nn.Module) -> None:
    base.pipeline.unet.get_submodule(ATTENTION).to_k = layer


def refused(base: Base, message: str, layer: str = KEY) -> None:
    """Folding raises the message, in one line, for the layer; every weight is what it was."""
    concept = make_concept(untouched(base))
    before = [
        (parameter, parameter.data) for module in base.family.components().values() for parameter in module.parameters()
    ]
    change = replace(concept, layers=dict(reversed(concept.layers.items())))  # the refused layer is not the first
    with pytest.raises(BaseModelError, match=f"^layer '{layer}' cannot be changed in place: [^\n]*{message}[^\n]*$"):
        base.fold(change)
    assert all(parameter.data is data or torch.equal(parameter.data, data) for parameter, data in before)
    assert base.recipe is None and base.tokens == ()


def untouched(base: Base) -> Base:
    """An untouched base with the identity of one whose modules were changed."""
    return Base(load_base(base.pipeline.config._name_or_path).pipeline, base.identity)


def alone(base: Base, message: str, layer: str = KEY) -> None:
    """As ``refused``, with a concept of this one layer."""
    concept = make_concept(untouched(base), selection="linear", text_encoder=True)
    with pytest.raises(BaseModelError, match=f"^layer '{layer}' cannot be changed in place: [^\n]*{message}[^\n]*$"):
        base.fold(replace(concept, layers={layer: concept.layers[layer]}))
    assert base.recipe is None and base.tokens == ()


class Packed(Tensor):
    """A stand-in for the weights of quantising libraries: a tensor subclass with numbers that are not the weight's."""


class PackedParameter(nn.Parameter):
    """Another: a parameter subclass."""


class Quantising(nn.Linear):
    """A stand-in for their layers, which compute with something else than the plain weight."""

    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.linear(input, self.weight.round(decimals=1))


def test_fused_projections_are_refused_until_they_are_unfused(base):
    concept = make_concept(base, selection="attention")
    base.pipeline.fuse_qkv_projections(vae=False)
    alone(base, f"it is unused, because 'unet.{ATTENTION}.to_kv' computes in its place .*unfuse_qkv_projections")
    inner = KEY.replace("attn2", "attn1")
    alone(base, "attn1.to_qkv' computes in its place", inner)
    alone(base, "attn1.to_qkv' computes", inner.replace("to_k", "to_q"))
    for used in (OUT, KEY.replace("to_k", "to_q")):  # a fused cross-attention still uses these
        base.fold(replace(concept, layers={used: concept.layers[used]})).restore()
    base.pipeline.unfuse_qkv_projections(vae=False)
    base.fold(concept).restore()


def test_fused_projections_are_no_place_for_adapters_either(base):
    base.pipeline.fuse_qkv_projections(vae=False)
    config = AdapterConfig(method="lora", rank=2)
    adapter = create_adapter(config, layer=KEY, out_features=32, in_features=24, concept_id="anna", seed=0)
    with pytest.raises(BaseModelError, match=f"layer '{KEY}' cannot be changed in place: it is unused"):
        base.attached({KEY: adapter}).__enter__()


def test_fusing_after_the_fold_is_refused_when_a_strength_is_turned(base):
    undo = base.fold(make_concept(base))
    base.pipeline.fuse_qkv_projections(vae=False)
    with pytest.raises(BaseModelError, match="cannot be changed in place: it is unused"):
        undo.strengths["anna"] = 0.5
    assert undo.strengths["anna"] == 1.0
    undo.restore()


@pytest.mark.parametrize("integers", [torch.int8, torch.uint8])
def test_quantised_weights_are_refused(base, integers):
    weight = torch.zeros(32, 24, dtype=integers)
    key(base).weight = nn.Parameter(weight, requires_grad=False)
    refused(base, f"its weight is stored as {integers}; load the model without quantisation")


def test_tensor_subclasses_are_refused(base):
    key(base).weight = nn.Parameter(key(base).weight.data.as_subclass(Packed))
    refused(base, r"its weight is a \S*Packed, not a plain tensor; load the model without quantisation")


def test_parameter_subclasses_are_refused_whatever_their_shape(base):
    key(base).weight = PackedParameter(torch.zeros(768, 1, dtype=torch.uint8), requires_grad=False)
    refused(base, r"its weight is a \S*PackedParameter, not a plain tensor")


def test_layers_that_compute_otherwise_are_refused(base):
    put(base, Quantising(24, 32, bias=False))
    refused(base, r"it is a \S*Quantising, which computes unlike a linear layer")


def test_computed_weights_are_refused(base):
    parametrizations.weight_norm(key(base))
    refused(base, "its weight is computed from other parameters; remove the parametrisation first")


def test_layers_that_a_lora_wraps_are_refused(base):
    base.pipeline.unet.add_adapter(LoraConfig(r=2, target_modules=["to_k"]))
    refused(base, r"it is wrapped by peft\.\S*Linear; unload the LoRA that wraps it first")
    base.pipeline.unload_lora_weights()
    base.fold(make_concept(base)).restore()


def test_other_modules_are_refused(base):
    put(base, nn.Identity())
    alone(base, r"it is a torch\.nn\.\S*Identity; allowed are linear layers")


@pytest.mark.parametrize("component", ["unet", "text_encoder"])
def test_compiled_components_are_refused(base, component):
    layer = KEY if component == "unet" else "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
    setattr(base.pipeline, component, torch.compile(base.family.components()[component], backend="eager"))
    alone(base, f"'{component}' is compiled by torch.compile, .*compile in place instead", layer)


def test_compiled_blocks_are_refused(base):
    base.pipeline.unet.mid_block = torch.compile(base.pipeline.unet.mid_block, backend="eager")
    alone(base, r"'unet.mid_block' is compiled by torch.compile, .*by unet.mid_block.compile\(\)")


def test_modules_compiled_in_place_are_folded_into(base):
    attention, inputs = base.pipeline.unet.get_submodule(ATTENTION), torch.ones(1, 3, 24)
    attention.to_k.compile(backend="eager")
    before = attention.to_k(inputs)
    with base.folded(make_concept(base)):
        expected = nn.functional.linear(inputs, attention.to_k.weight)
        assert torch.equal(attention.to_k(inputs), expected) and not torch.equal(expected, before)
    assert torch.equal(attention.to_k(inputs), before)


def test_offloaded_weights_are_refused(base):
    base.pipeline.unet.to("meta")
    alone(base, r"its weight is offloaded \(on the meta device\); load the model without sequential offloading")


def test_group_offloading_is_refused(base):
    apply_group_offloading(
        base.pipeline.unet,
        onload_device=torch.device("cpu"),
        offload_device=torch.device("cpu"),
        offload_type="block_level",
        num_blocks_per_group=1,
    )
    alone(base, "is under group offloading, which has copies of its weights; load it without")


def test_float8_storage_is_refused(base):
    base.pipeline.unet.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    alone(
        base,
        "its weight is stored as torch.float8_e4m3fn, which rounds a small change away; put the change in unmerged",
    )


def test_shared_weights_are_refused(base):
    other = base.pipeline.unet.get_submodule(ATTENTION).to_v
    other.weight = key(base).weight
    refused(base, f"it shares its weight with '{KEY}'; give each a weight of its own", VALUE)
    alone(base, f"it shares its weight with '{VALUE}'")  # which the concept does not change


def test_one_layer_of_two_names_is_refused(base):
    base.pipeline.unet.get_submodule(ATTENTION).to_v = key(base)
    refused(base, f"it shares its weight with '{KEY}'", VALUE)


def test_views_of_one_storage_are_folded_apart(base):
    attention = base.pipeline.unet.get_submodule(ATTENTION)
    attention.to_v.weight = nn.Parameter(attention.to_k.weight.data)
    concept = make_concept(base)
    original = attention.to_k.weight.detach().clone()
    with base.folded(concept):
        for part in ("to_k", "to_v"):
            change = concept.layers[f"unet.{ATTENTION}.{part}"]
            torch.testing.assert_close(attention.get_submodule(part).weight, original + change.delta())
    assert torch.equal(attention.to_k.weight, original) and torch.equal(attention.to_v.weight, original)


@pytest.mark.parametrize("hash_of_base", ["", "1" * 64])
def test_a_change_of_another_base_is_refused(base, hash_of_base):
    merged = merge([(make_concept(base), 1.0)])
    other = replace(merged.recipe, base=replace(merged.recipe.base, hash=hash_of_base))
    with pytest.raises(BaseModelError, match="^anna: trained on base 'pipeline' .*, this is 'pipeline'"):
        base.fold(replace(merged, recipe=other))
    assert base.recipe is None and base.tokens == ()
