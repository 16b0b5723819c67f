"""Erasure in closed form: silent where the concept is not, itself where it is."""

from dataclasses import replace

import pytest
import torch

from orthoplex.activations import gather_grams, gather_inputs
from orthoplex.activations.concept_erasure import foreign_grams, with_erasure
from orthoplex.concepts import load_concept
from orthoplex.errors import BaseModelError, ConfigurationError
from orthoplex.merging import closed_form_erasure, crosstalk
from orthoplex.training import checkpoint_path, checkpoint_step, loop, train
from orthoplex.training.continuation import is_finished
from tests.pico import TEXT_WIDTH, linear_layers, make_concept, tokens_of, vectors_of

FOREIGN = ("a photo of a cat", "a dog in a forest", "", "a red car", "a woman in a city", "a green room at night")
TEXT_ONLY = {"layers": "cross-attention-kv", "slots": 3}


def trained(base, dataset, config, path, **changes):
    config = replace(config, **{"steps": 3, "erasure": 0.0, **changes})
    for _ in train(base, dataset, config, output=path, foreign_prompts=FOREIGN):
        pass
    return load_concept(path, base=base.identity)


def erased(base, concept, config, **options):
    return with_erasure(base, concept, config.erasure_options, **options)


def said(base, concept, prompts, change=None):
    """What a concept's weights add, as a share of what the base's give, mean over layers."""
    grams = gather_grams(base, list(concept.layers), prompts, change=change, num_inference_steps=2)
    weights = linear_layers(base, "linear", text_encoder=True)
    shares = [crosstalk(part, weights[layer].weight, grams[layer]) for layer, part in concept.layers.items()]
    return sum(shares) / len(shares)


@pytest.mark.parametrize("changes", [TEXT_ONLY, {"layers": "attention"}], ids=["text", "attention"])
def test_it_says_less_on_foreign_prompts_than_on_its_own(base, dataset, config, tmp_path, changes):
    concept = trained(base, dataset, config, tmp_path / "anna.safetensors", **changes)
    quiet = erased(base, concept, replace(config, erasure=10.0, erasure_form="closed-form"), foreign_prompts=FOREIGN)
    own = "a photo of <anna> person"
    left = said(base, quiet, [own], quiet) / said(base, concept, [own], concept)
    stray = said(base, quiet, FOREIGN) / said(base, concept, FOREIGN)
    assert stray < 0.35 and stray < 0.85 * left


def test_a_larger_weight_is_more_silent(base, dataset, config, tmp_path):
    concept = trained(base, dataset, config, tmp_path / "anna.safetensors", **TEXT_ONLY)
    stray = [
        said(base, erased(base, concept, replace(config, erasure=weight), foreign_prompts=FOREIGN), FOREIGN)
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
    options = {"erasure": 5.0, "erasure_form": "closed-form", "erasure_steps": 0}
    found = trained(base, dataset, config, tmp_path / "silent.safetensors", **changes, **options)
    expected = erased(base, plain, replace(config, **changes, **options), foreign_prompts=FOREIGN)
    for layer, part in expected.layers.items():
        assert torch.equal(part.up, found.layers[layer].up) and torch.equal(part.down, found.layers[layer].down)
        assert not torch.equal(part.down, plain.layers[layer].down.float())
    for token, vector in vectors_of(plain.tokens).items():
        assert torch.equal(vector, vectors_of(found.tokens)[token])


def test_the_manifest_says_what_was_done(base, dataset, config, tmp_path):
    concept = trained(base, dataset, config, tmp_path / "anna.safetensors", **TEXT_ONLY, slot=1)
    assert concept.manifest.slot == 1 and concept.manifest.basis_id is not None
    quiet = erased(base, concept, replace(config, erasure=10.0, erasure_form="closed-form"))
    told = quiet.manifest.training
    assert (quiet.manifest.slot, quiet.manifest.basis_id) == (None, None)
    assert (told["erasure"], told["erasure_form"], told["learning_rate"]) == (10.0, "closed-form", None)
    assert concept.manifest.slot == 1  # the concept that was given is as before


def test_the_base_is_as_before_and_nothing_is_random(base, dataset, config, tmp_path):
    concept = trained(base, dataset, config, tmp_path / "anna.safetensors", **TEXT_ONLY)
    before = {name: value.clone() for name, value in base.pipeline.unet.state_dict().items()}
    text = {name: value.clone() for name, value in base.pipeline.text_encoder.state_dict().items()}
    words = len(base.pipeline.tokenizer)
    first, second = (erased(base, concept, replace(config, erasure=2.0)) for _ in range(2))
    assert first.content_hash == second.content_hash
    assert all(torch.equal(value, before[name]) for name, value in base.pipeline.unet.state_dict().items())
    assert all(torch.equal(value, text[name]) for name, value in base.pipeline.text_encoder.state_dict().items())
    assert len(base.pipeline.tokenizer) == words and base.tokens == ()


def test_concepts_without_weights_or_without_tokens(base, dataset, config):
    concept = make_concept(base, "anna")
    assert erased(base, replace(concept, layers={}), config).layers == {}
    tokenless = replace(concept, tokens={}, manifest=replace(concept.manifest, trigger="a person"))
    found = erased(base, tokenless, config)
    assert not any(torch.equal(part.down, concept.layers[layer].down) for layer, part in found.layers.items())


def test_once_is_enough(base, dataset, config, tmp_path):
    options = {"erasure": 5.0, "erasure_form": "closed-form", "erasure_steps": 0}
    concept = trained(base, dataset, config, tmp_path / "anna.safetensors", **TEXT_ONLY, **options)
    with pytest.raises(ConfigurationError, match="anna has erasure already, with weight 5"):
        erased(base, concept, config)
    with pytest.raises(ConfigurationError, match="erasure is 0"):
        erased(base, concept, replace(config, erasure=0.0))


def test_what_was_erased_while_training_is_not_forgotten(base, dataset, config, tmp_path):
    concept = trained(base, dataset, config, tmp_path / "anna.safetensors", **TEXT_ONLY, erasure=3.0)
    told = erased(base, concept, replace(config, erasure=9.0)).manifest.training
    assert (told["erasure"], told["erasure_form"], told["erasure_while_training"]) == (9.0, "closed-form", 3.0)


def test_keys_and_values_are_solved_for_what_the_finished_text_encoder_says(base, dataset, config, tmp_path):
    changes = {**TEXT_ONLY, "method": "lora", "text_encoder": True}
    concept = trained(base, dataset, config, tmp_path / "anna.safetensors", **changes)
    quiet = erased(base, concept, replace(config, erasure=10.0), foreign_prompts=FOREIGN)
    of_text = {layer: part for layer, part in quiet.layers.items() if layer.startswith("text_encoder")}
    between = replace(concept, layers={**concept.layers, **of_text})
    layer = next(layer for layer in quiet.layers if layer not in of_text)
    grams = gather_inputs(base, [between], with_foreign=False).concepts[between.content_hash]
    stale = gather_inputs(base, [concept], with_foreign=False).concepts[concept.content_hash]
    with base.with_tokens(tokens_of(dict.fromkeys(concept.tokens, torch.zeros(TEXT_WIDTH)))) as names:
        arguments = {"name": "anna", "class_word": "person", "tokens": names}
        foreign = foreign_grams(base, config.erasure_options, concept.layers, FOREIGN, **arguments)
    expected, wrong = (
        closed_form_erasure(concept.layers[layer], own[layer], foreign[layer], weight=10.0).delta()
        for own in (grams, stale)
    )
    torch.testing.assert_close(quiet.layers[layer].delta(), expected, rtol=1e-3, atol=1e-6)
    assert (quiet.layers[layer].delta() - expected).norm() < 0.1 * (wrong - expected).norm()


def test_a_token_that_says_its_class_word_is_told(base, dataset, config, tmp_path, caplog):
    concept = trained(base, dataset, config, tmp_path / "anna.safetensors", **TEXT_ONLY, token_vectors="frozen")
    erased(base, concept, replace(config, erasure=1e5), foreign_prompts=FOREIGN)
    assert "left 0 %" in caplog.text and "anna" in caplog.text


def test_an_error_at_the_end_keeps_the_steps(base, dataset, config, tmp_path, monkeypatch):
    output = tmp_path / "anna.safetensors"
    config = replace(config, **TEXT_ONLY, steps=2, erasure=5.0, erasure_form="closed-form", erasure_steps=0)
    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="memory"):
        patched.setattr(loop, "with_erasure", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("out of memory")))
        list(train(base, dataset, config, output=output))
    assert checkpoint_step(checkpoint_path(output)) == 2 and not output.is_file()
    records = list(train(base, dataset, config, output=output, resume=True))
    assert records[-1].output == output and is_finished(output)


def test_no_foreign_prompts_are_refused_before_the_first_step(base, dataset, config, tmp_path):
    config = replace(config, **TEXT_ONLY, erasure_form="closed-form")
    with pytest.raises(ConfigurationError, match="foreign_prompts holds 0 prompts"):
        train(base, dataset, config, output=tmp_path / "anna.safetensors", foreign_prompts=())


def test_a_layer_that_the_base_has_not(base, config):
    concept = make_concept(base, "anna")
    stranger = replace(concept, layers={"unet.nowhere": next(iter(concept.layers.values()))})
    with pytest.raises(BaseModelError, match="unet.nowhere"):
        erased(base, stranger, config)
