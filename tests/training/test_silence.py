"""Erasure in closed form: silent where the concept is not, itself where it is."""

from dataclasses import replace

import pytest
import torch

from orthoplex.concepts import load_concept
from orthoplex.errors import BaseModelError
from orthoplex.merging import crosstalk
from orthoplex.models import gather_grams
from orthoplex.training import silenced, train
from tests.pico import make_concept

FOREIGN = ("a photo of a cat", "a dog in a forest", "", "a red car", "a woman in a city", "a green room at night")
TEXT_ONLY = {"layers": "cross-attention-kv", "slots": 3}


def trained(base, dataset, config, path, **changes):
    config = replace(config, **{"steps": 3, "erasure": 0.0, **changes})
    for _ in train(base, dataset, config, output=path, foreign_prompts=FOREIGN):
        pass
    return load_concept(path, base=base.identity)


def said(base, concept, prompts, change=None):
    """What a concept's weights add, as a share of what the base's give, mean over layers."""
    grams = gather_grams(base, list(concept.layers), prompts, change=change, num_inference_steps=2)
    weights = base.linear_layers("linear", text_encoder=True)
    shares = [crosstalk(part, weights[layer].weight, grams[layer]) for layer, part in concept.layers.items()]
    return sum(shares) / len(shares)


@pytest.mark.parametrize("changes", [TEXT_ONLY, {"layers": "attention"}], ids=["text", "attention"])
def test_it_says_less_on_foreign_prompts_than_on_its_own(base, dataset, config, tmp_path, changes):
    concept = trained(base, dataset, config, tmp_path / "anna.safetensors", **changes)
    quiet = silenced(base, concept, replace(config, erasure=10.0, erasure_form="closed-form"), foreign_prompts=FOREIGN)
    own = "a photo of <anna> person"
    left = said(base, quiet, [own], quiet) / said(base, concept, [own], concept)
    stray = said(base, quiet, FOREIGN) / said(base, concept, FOREIGN)
    assert stray < 0.35 and stray < 0.85 * left


def test_a_larger_weight_is_more_silent(base, dataset, config, tmp_path):
    concept = trained(base, dataset, config, tmp_path / "anna.safetensors", **TEXT_ONLY)
    stray = [
        said(base, silenced(base, concept, replace(config, erasure=weight), foreign_prompts=FOREIGN), FOREIGN)
        for weight in (1.0, 10.0, 100.0)
    ]
    assert stray[0] > stray[1] > stray[2]


@pytest.mark.parametrize(
    "changes",
    [
        TEXT_ONLY,
        {**TEXT_ONLY, "method": "lora", "text_encoder": True},
        {**TEXT_ONLY, "token_vectors": "layer-wise"},
        {**TEXT_ONLY, "token_vectors": "keys-and-values", "num_vectors": 1},
        {"method": "dual", "layers": "cross-attention-kv", "slots": 3},
    ],
    ids=["orthogonal", "lora with text encoder", "layer-wise", "keys and values", "dual"],
)
def test_training_ends_with_what_a_plain_training_made_silent(base, dataset, config, tmp_path, changes):
    plain = trained(base, dataset, config, tmp_path / "plain.safetensors", **changes)
    options = {"erasure": 5.0, "erasure_form": "closed-form"}
    found = trained(base, dataset, config, tmp_path / "silent.safetensors", **changes, **options)
    expected = silenced(base, plain, replace(config, **changes, **options), foreign_prompts=FOREIGN)
    for layer, part in expected.layers.items():
        assert torch.equal(part.up, found.layers[layer].up) and torch.equal(part.down, found.layers[layer].down)
        assert not torch.equal(part.down, plain.layers[layer].down.float())
    for token, vector in plain.tokens.items():
        assert torch.equal(vector, found.tokens[token])


def test_the_manifest_says_what_was_done(base, dataset, config, tmp_path):
    concept = trained(base, dataset, config, tmp_path / "anna.safetensors", **TEXT_ONLY, slot=1)
    assert concept.manifest.slot == 1 and concept.manifest.basis_id is not None
    quiet = silenced(base, concept, replace(config, erasure=10.0, erasure_form="closed-form"))
    told = quiet.manifest.training
    assert (quiet.manifest.slot, quiet.manifest.basis_id) == (None, None)
    assert (told["erasure"], told["erasure_form"], told["learning_rate"]) == (10.0, "closed-form", None)
    assert concept.manifest.slot == 1  # the concept that was given is as before


def test_the_base_is_as_before_and_nothing_is_random(base, dataset, config, tmp_path):
    concept = trained(base, dataset, config, tmp_path / "anna.safetensors", **TEXT_ONLY)
    before = {name: value.clone() for name, value in base.pipeline.unet.state_dict().items()}
    first, second = (silenced(base, concept, replace(config, erasure=2.0)) for _ in range(2))
    assert first.content_hash == second.content_hash
    assert all(torch.equal(value, before[name]) for name, value in base.pipeline.unet.state_dict().items())
    assert not base.has_guests


def test_concepts_without_weights_or_without_tokens(base, dataset, config):
    concept = make_concept(base, "anna")
    assert silenced(base, replace(concept, layers={}), config).layers == {}
    tokenless = replace(concept, tokens={}, manifest=replace(concept.manifest, trigger="a person"))
    assert set(silenced(base, tokenless, config).layers) == set(concept.layers)


def test_a_layer_that_the_base_has_not(base, config):
    concept = make_concept(base, "anna")
    stranger = replace(concept, layers={"unet.nowhere": next(iter(concept.layers.values()))})
    with pytest.raises(BaseModelError, match="unet.nowhere"):
        silenced(base, stranger, config)
