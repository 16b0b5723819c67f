"""Adapters attached by hooks: the training-time path."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from orthoplex.adapters import METHODS, AdapterConfig, LowRank, create_adapter
from orthoplex.errors import BaseModelError
from tests.pico import linear_layers, make_concept

KEY = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"


def adapters_of(concept, pico, method="lora"):
    """Adapters that hold the concept's factors."""
    adapters = {}
    for name, factors in concept.layers.items():
        num_token_directions = 1 if METHODS[method].reads_tokens else 0  # these directions come on top of the rank
        rank = "proportional" if method == "full" else factors.rank - num_token_directions
        factors = LowRank.of_matrix(factors.delta()) if method == "full" else factors
        config = AdapterConfig(method=method, rank=rank, duals=1)
        adapters[name] = create_adapter(
            config, layer=name, out_features=factors.shape[0], in_features=factors.shape[1], concept_id="anna", seed=0
        )
        adapters[name].load_factors(factors)
    return adapters


def denoise(pico):
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, 8, 8, generator=generator)
    tokens = pico.pipeline.tokenizer(["a photo of a cat", "a dog"], padding="max_length", return_tensors="pt").input_ids
    text = pico.pipeline.text_encoder(tokens).last_hidden_state
    return pico.pipeline.unet(latents, torch.tensor([3, 700]), text).sample


@pytest.mark.parametrize("method", METHODS)
def test_attached_equals_folded(pico, method):
    concept = replace(make_concept(pico, selection="linear", text_encoder=True), tokens={})
    with torch.no_grad():
        plain = denoise(pico)
        with pico.attached(adapters_of(concept, pico, method)) as inside:
            assert inside is pico
            attached = denoise(pico)
        with pico.folded(concept):
            folded = denoise(pico)
        assert torch.equal(denoise(pico), plain)
    assert (attached - plain).abs().max() > 1e-2
    torch.testing.assert_close(attached, folded, rtol=1e-4, atol=1e-5)


def test_a_written_out_hook(pico):
    layer = linear_layers(pico, "cross-attention-kv")[KEY]
    factors = LowRank(torch.zeros(32, 1), torch.zeros(1, 24))
    factors.up[3, 0], factors.down[0, 5] = 2.0, 0.25
    concept = replace(make_concept(pico), layers={KEY: factors})
    x = torch.zeros(1, 24)
    x[0, 5] = 4.0
    with torch.no_grad(), pico.attached(adapters_of(concept, pico)):
        difference = layer(x) - torch.nn.functional.linear(x, layer.weight, layer.bias)
    assert difference[0].tolist() == pytest.approx([2.0 if i == 3 else 0.0 for i in range(32)], abs=1e-6)


def test_gradients_reach_the_adapters_and_only_them(pico):
    adapters = adapters_of(make_concept(pico), pico, "orthogonal")
    with pico.attached(adapters):
        denoise(pico).square().mean().backward()
    for adapter in adapters.values():
        assert adapter.up.grad is not None and adapter.up.grad.abs().max() > 0
        assert adapter.down.grad is None
    assert all(p.grad is None for module in pico.family.components().values() for p in module.parameters())


def test_leaving_removes_the_hooks_also_after_an_error(pico):
    with pytest.raises(ZeroDivisionError), pico.attached(adapters_of(make_concept(pico), pico)):
        raise ZeroDivisionError
    assert not any(layer._forward_hooks for layer in linear_layers(pico, "linear").values())


def test_a_half_precision_base_keeps_its_dtype(pico_folder):
    from orthoplex.models import load_base

    base = load_base(pico_folder, dtype=torch.bfloat16)
    with base.attached(adapters_of(make_concept(base), base)), torch.no_grad():
        layer = linear_layers(base, "cross-attention-kv")[KEY]
        assert layer(torch.ones(1, 24, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_a_missing_layer_and_a_wrong_shape_are_named_before_any_hook(pico):
    concept = make_concept(pico)
    adapters = adapters_of(concept, pico)
    stray = {**adapters, "unet.nowhere": adapters[KEY]}
    with pytest.raises(BaseModelError, match="layer 'unet.nowhere' is not in the base"), pico.attached(stray):
        pass
    swapped = {KEY: adapters[KEY.replace("to_k", "to_q")]}
    with pytest.raises(BaseModelError, match=r"the change has shape \(32, 32\)"), pico.attached(swapped):
        pass
    assert not any(layer._forward_hooks for layer in linear_layers(pico, "linear").values())
