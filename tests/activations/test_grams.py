"""Gram matrices of what layers see: right, weighted by tokens, and without a trace."""

import pytest
import torch

from orthoplex.activations import gather_grams, observed_inputs
from orthoplex.errors import BaseModelError, ConfigurationError
from tests.pico import linear_layers, make_concept

PROMPTS = ("a cat", "a person in a forest", "a red car")


def text_features(base, prompts):
    ids = base.pipeline.tokenizer(
        list(prompts), padding="max_length", max_length=base.pipeline.tokenizer.model_max_length, return_tensors="pt"
    ).input_ids
    with torch.no_grad():
        return base.pipeline.text_encoder(ids)[0]


def key_layer(base) -> str:
    return next(iter(linear_layers(base, "cross-attention-kv")))


def test_a_layer_that_sees_text_gets_the_gram_of_the_text(pico):
    layer = key_layer(pico)
    features = text_features(pico, PROMPTS).flatten(0, 1)
    for others, runs in (((), 0), (linear_layers(pico, "cross-attention"), 3)):  # text alone needs no denoiser
        seen = []
        handle = pico.pipeline.unet.register_forward_pre_hook(lambda *_, its=seen: its.append(None))
        grams = gather_grams(
            pico, [layer, *(other for other in others if other != layer)], PROMPTS, num_inference_steps=3
        )
        handle.remove()
        assert len(seen) == runs
        torch.testing.assert_close(grams[layer], features.T @ features / len(features), rtol=1e-4, atol=1e-5)


def test_layers_with_token_vectors_of_their_own_see_different_text(pico):
    concept = make_concept(pico, "anna", selection="none", layerwise=True)
    layers = [layer for layer in linear_layers(pico, "cross-attention-kv") if layer.endswith("to_k")]
    grams = gather_grams(pico, layers, ["a photo of <anna>"], change=concept)
    assert not torch.allclose(grams[layers[0]], grams[layers[1]])


def test_the_energy_of_outputs_follows_from_the_gram(pico):
    """E‖W x‖² = tr(W G Wᵀ), for a layer that sees pictures, too."""
    layers = linear_layers(pico, "attention")
    outputs = {name: [] for name in layers}
    handles = [
        layer.register_forward_hook(lambda _, __, y, name=name: outputs[name].append(y.detach().flatten(0, -2)))
        for name, layer in layers.items()
    ]
    grams = gather_grams(pico, list(layers), PROMPTS, num_inference_steps=2, seed=3)
    for handle in handles:
        handle.remove()
    for name, layer in layers.items():
        weight = layer.weight.detach()
        y = torch.cat(outputs[name]) - (0 if layer.bias is None else layer.bias.detach())
        expected = y.square().sum(1).mean()
        torch.testing.assert_close(((weight @ grams[name]) * weight).sum(), expected, rtol=1e-3, atol=1e-5)


def test_more_prompts_than_a_batch_are_the_mean_of_all(pico):
    layer, prompts = key_layer(pico), [f"a {word}" for word in ("cat", "dog", "car", "city", "beach", "room")] * 2
    whole = gather_grams(pico, [layer], prompts, num_inference_steps=1)[layer]
    halves = [gather_grams(pico, [layer], part, num_inference_steps=1)[layer] for part in (prompts[:6], prompts[6:])]
    torch.testing.assert_close(whole, sum(halves) / 2, rtol=1e-5, atol=1e-6)


def test_a_folded_concept_is_seen_and_taken_out_again(pico):
    concept = make_concept(pico, "anna")
    layer = key_layer(pico)
    before = linear_layers(pico, "cross-attention-kv")[layer].weight.clone()
    grams = gather_grams(pico, [layer], ["a photo of <anna> person"], change=concept, num_inference_steps=1)
    with pico.folded(concept):
        features = text_features(pico, ["a photo of <anna> person"]).flatten(0, 1)
    torch.testing.assert_close(grams[layer], features.T @ features / len(features), rtol=1e-4, atol=1e-5)
    assert torch.equal(linear_layers(pico, "cross-attention-kv")[layer].weight, before)


def test_watching_ends_after_an_error(pico):
    layers = linear_layers(pico, "cross-attention-kv")
    with pytest.raises(KeyError), observed_inputs(layers, lambda *_: None):
        raise KeyError
    assert all(not layer._forward_pre_hooks for layer in layers.values())


@pytest.mark.parametrize(
    ("layers", "prompts", "options", "error", "message"),
    [
        (None, [], {}, ConfigurationError, "Gram matrices of 0 prompts"),
        (["unet.nowhere"], PROMPTS, {}, BaseModelError, "layer 'unet.nowhere' is not in the base"),
        (None, PROMPTS, {"num_inference_steps": 5000}, ConfigurationError, "num_inference_steps is 5000"),
    ],
)
def test_what_is_refused_is_named(pico, layers, prompts, options, error, message):
    with pytest.raises(error, match=message):
        gather_grams(pico, layers or [key_layer(pico)], prompts, **options)
