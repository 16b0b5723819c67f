"""What layers read of the text, without the denoiser, is what they are given in it."""

import pytest
import torch

from orthoplex.activations import observed_inputs, read_features
from orthoplex.activations.grams import add_text, collected_grams
from tests.pico import make_concept

PROMPTS = ["a photo of <anna> person", "<anna>", "a dog"]
TOKENS = {
    "plain": {},
    "layer-wise": {"layerwise": True},
    "keys and values": {"keys_values": True},
    "layer-wise beside keys and values": None,
}


@pytest.mark.parametrize("options", TOKENS.values(), ids=TOKENS)
def test_what_is_read_is_what_the_denoiser_gives_its_layers(pico, options):
    if options is None:
        tokens = {
            **make_concept(pico, "anna", selection="none", layerwise=True).tokens,
            **make_concept(pico, "rex", selection="none", seed=2, keys_values=True).tokens,
        }
    else:
        tokens = make_concept(pico, "anna", selection="none", **options).tokens
    seen, family = {}, pico.family
    with torch.no_grad(), pico.with_tokens(tokens):
        conditioning = family.condition(PROMPTS)
        with observed_inputs(family.feature_layers(), lambda layer, _, x: seen.update({layer: x.clone()})):
            noise = family.noise(len(PROMPTS), torch.Generator().manual_seed(0))
            family.predict(noise, torch.zeros(len(PROMPTS), dtype=torch.int64), conditioning)
        read = read_features(pico, conditioning.features)
    assert read.keys() == seen.keys() == family.feature_layers().keys()
    assert all(torch.equal(read[layer], seen[layer]) for layer in read)
    several = options is None or "layerwise" in options
    assert len({id(part) for part in read.values()}) == (len(pico.cross_attention_layers) if several else 1)


def test_a_family_that_changes_features_first_is_asked(pico, monkeypatch):
    layers = list(pico.family.feature_layers())
    with torch.no_grad():
        conditioning = pico.family.condition(PROMPTS[2:])
        with collected_grams(pico, layers) as read:
            add_text(pico, conditioning, read)
        monkeypatch.setattr(type(pico.family), "passes_features", property(lambda family: False))
        with collected_grams(pico, layers) as given:
            add_text(pico, conditioning, given)
    assert all(torch.equal(read[layer].value(layer), given[layer].value(layer)) for layer in layers)
