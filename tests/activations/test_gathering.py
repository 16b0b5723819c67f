"""A concept's own prompts, and the Gram matrices under them."""

from dataclasses import replace

import pytest
import torch

from orthoplex.activations import (
    FOREIGN_PROMPTS,
    default_foreign_prompts,
    foreign_gram,
    gather_grams,
    gather_inputs,
    inputs_for,
    stored_inputs,
    with_inputs,
)
from orthoplex.activations.stored_inputs import NUM_FOREIGN, has_foreign_gram
from orthoplex.concepts import KINDS
from orthoplex.errors import BaseModelError, ConfigurationError
from orthoplex.merging import create_algorithm, foreign_store, merge
from orthoplex.merging.systems import dense
from orthoplex.models import load_base
from tests.pico import linear_layers, make_concept, make_manifest

PROMPTS = ("a car", "a person with red hair in a city", "a person", "a person in a forest", "a person")


def own_prompts(manifest):
    return KINDS[manifest.kind].own_prompts(manifest.trigger)


def test_own_prompts_are_the_templates_and_plain_places():
    prompts = own_prompts(make_manifest("anna"))
    assert prompts[:4] == (
        "a photo of <anna> person",
        "a drawing of <anna> person",
        "<anna> person",
        "<anna> person in a garden",
    )
    assert all(prompt.startswith("<anna> person in a ") for prompt in prompts[3:])


def test_own_prompts_say_nothing_else_of_the_concept():
    """No other thing stands where the concept does, and no trait is told that it may not have."""
    for kind, beside in (("scene", "a dog in <anna> thing"), ("style", "a dog, <anna> thing")):
        manifest = replace(make_manifest("anna"), kind=kind, class_word="thing", trigger="<anna> thing")
        assert beside in own_prompts(manifest)


def test_a_base_without_prompts_of_its_own_has_as_many_as_a_merge_looks_at():
    assert len(set(FOREIGN_PROMPTS)) == len(FOREIGN_PROMPTS) == NUM_FOREIGN


@pytest.mark.parametrize("kind", ("subject", "scene", "style", "other"))
def test_every_kind_has_prompts_with_its_trigger(kind):
    manifest = replace(make_manifest("anna"), kind=kind, class_word="thing", trigger="<anna> thing")
    found = own_prompts(manifest)
    assert 10 <= len(found) == len(set(found)) and all(prompt.count("<anna> thing") == 1 for prompt in found)


def test_inputs_of_all_concepts_and_of_none(pico):
    concepts = [make_concept(pico, "anna", seed=1), make_concept(pico, "rex", selection="cross-attention-kv", seed=2)]
    inputs = gather_inputs(pico, concepts, prompts=PROMPTS)
    layers = set(concepts[0].layers)
    assert set(inputs.concepts) == {concept.content_hash for concept in concepts}
    assert all(set(grams) == layers for grams in (*inputs.concepts.values(), inputs.foreign))
    anna = gather_grams(pico, sorted(layers), own_prompts(concepts[0].manifest), change=concepts[0])
    for layer, gram in anna.items():
        assert torch.equal(inputs.concepts[concepts[0].content_hash][layer], gram)
    merged = merge([(concept, 1.0) for concept in concepts], algorithm="ssr", inputs=inputs)
    with pico.folded(merged):
        assert pico.recipe.inputs == inputs.content_hash


def test_least_squares_is_nearer_to_every_concept_on_its_own_inputs_than_the_sum(pico):
    concepts = [make_concept(pico, name, seed=seed) for seed, name in enumerate(("anna", "rex", "boro"))]
    inputs = gather_inputs(pico, concepts, prompts=PROMPTS)
    pairs = [(concept, 1.0) for concept in concepts]
    errors = {}
    for algorithm in ("sum", "ssr", "least-squares"):
        merged = merge(pairs, algorithm=algorithm, inputs=inputs)
        errors[algorithm] = 0.0
        for concept in concepts:
            for layer, change in concept.layers.items():
                gap = merged.layers[layer].delta() - change.delta()
                errors[algorithm] += float(((gap @ inputs.concepts[concept.content_hash][layer]) * gap).sum())
    assert errors["least-squares"] < errors["ssr"] < errors["sum"]


def test_the_text_encoder_is_merged_first_and_the_denoiser_sees_what_it_then_says(pico):
    concepts = [make_concept(pico, name, seed=seed, text_encoder=True) for seed, name in enumerate(("anna", "rex"))]
    way = create_algorithm("least-squares")
    inputs = inputs_for(way, pico, [(concept, 1.0) for concept in concepts])
    assert inputs is not None
    alone = gather_inputs(pico, concepts, with_foreign=False)
    merged = merge([(concept, 1.0) for concept in concepts], algorithm="least-squares", inputs=inputs)
    fused = {layer: change.low_rank for layer, change in merged.layers.items() if layer.startswith("text_encoder.")}
    anna = replace(concepts[0], layers={**concepts[0].layers, **fused})
    names = sorted(concepts[0].layers)
    expected = gather_grams(pico, names, own_prompts(concepts[0].manifest), change=anna)
    found, plain = (grams.concepts[concepts[0].content_hash] for grams in (inputs, alone))
    for layer in names:
        if layer in fused:
            torch.testing.assert_close(found[layer], plain[layer])
        else:
            torch.testing.assert_close(found[layer], expected[layer])
    moved = [
        layer for layer in names if layer.endswith("attn2.to_k") and not torch.allclose(found[layer], plain[layer])
    ]
    assert fused and moved


def test_a_concept_without_a_text_encoder_of_its_own_sees_the_merged_one(pico):
    anna = make_concept(pico, "anna", seed=0, text_encoder=True)
    rex = make_concept(pico, "rex", seed=1)
    inputs = inputs_for(create_algorithm("least-squares"), pico, [(anna, 1.0), (rex, 1.0)])
    assert inputs is not None
    fused = {layer: change for layer, change in anna.layers.items() if layer.startswith("text_encoder.")}
    merged = merge([(anna, 1.0), (rex, 1.0)], algorithm="least-squares", inputs=inputs)
    assert fused.keys() < merged.layers.keys()
    names = sorted(rex.layers)
    theirs = {layer: change.low_rank for layer, change in merged.layers.items() if layer in fused}
    changed = replace(rex, layers={**rex.layers, **theirs})
    expected = gather_grams(pico, names, own_prompts(rex.manifest), change=changed)
    for layer in names:
        torch.testing.assert_close(inputs.concepts[rex.content_hash][layer], expected[layer])


def test_the_denoiser_sees_the_text_encoder_at_the_strengths_and_scale_of_the_merge_under_foreign_prompts_too(pico):
    anna = make_concept(pico, "anna", seed=0, text_encoder=True)
    way = create_algorithm("custom-diffusion")
    inputs = inputs_for(way, pico, [(anna, 0.5)], scale=0.5)
    assert inputs is not None
    merged = merge([(anna, 0.5)], algorithm="custom-diffusion", scale=0.5, inputs=inputs)
    fused = {layer: change.low_rank for layer, change in merged.layers.items() if layer.startswith("text_encoder.")}
    layer = next(layer for layer in anna.layers if layer.endswith("attn2.to_k"))
    told = {"own": (inputs.concepts[anna.content_hash], {**anna.layers, **fused}, own_prompts(anna.manifest))}
    told["foreign"] = (inputs.foreign, fused, tuple(dict.fromkeys(default_foreign_prompts(pico)))[:NUM_FOREIGN])
    for found, layers, prompts in told.values():
        expected = gather_grams(pico, [layer], prompts, change=replace(anna, layers=layers))
        torch.testing.assert_close(found[layer], expected[layer])


def test_what_needs_no_inputs_gathers_none(pico):
    assert inputs_for(create_algorithm("sum"), pico, [(make_concept(pico, "anna"), 1.0)]) is None


def keeper(base, name="anna", **options):
    return with_inputs(base, make_concept(base, name, selection="cross-attention-kv", **options))


def refuse(change, layers, prompts):
    raise AssertionError(f"gathered for {prompts[0]}")


@pytest.mark.parametrize("keys_values", [False, True])
def test_what_a_concept_keeps_is_what_its_layers_see(pico, keys_values):
    anna = keeper(pico, keys_values=keys_values)
    layers = list(anna.layers)
    gathered = gather_grams(pico, layers, own_prompts(anna.manifest), change=anna)
    kept = gather_inputs(pico, [anna], with_foreign=False, gather=refuse).concepts[anna.content_hash]
    assert kept.keys() == gathered.keys() and anna.inputs.dtype == torch.float16
    for layer in layers:
        torch.testing.assert_close(
            dense(kept[layer]).float(), gathered[layer], rtol=2e-3, atol=2e-3 * gathered[layer].trace().item()
        )
        assert len(anna.inputs) < len(gathered[layer])  # directions in which nothing is seen are left out


def test_a_merge_of_what_concepts_keep_is_that_of_what_is_gathered(pico):
    concepts = [keeper(pico, name, seed=seed) for seed, name in enumerate(("anna", "rex", "boro"))]
    pairs = [(concept, 1.0) for concept in concepts]
    kept = merge(pairs, algorithm="least-squares")  # no model at hand
    gathered = merge(
        [(replace(concept, inputs=None), 1.0) for concept in concepts],
        algorithm="least-squares",
        inputs=gather_inputs(pico, [replace(concept, inputs=None) for concept in concepts]),
    )
    told = merge(pairs, algorithm="least-squares", inputs=inputs_for(create_algorithm("least-squares"), pico, pairs))
    for layer, change in kept.layers.items():
        weight, expected = change.up @ change.down, gathered.layers[layer].up @ gathered.layers[layer].down
        weight, expected = weight.double(), expected.double()
        grams = gather_inputs(pico, concepts).concepts
        gram = sum(dense(grams[concept.content_hash][layer]) for concept in concepts)
        error = weight - expected
        assert ((error @ gram) * error).sum() < 1e-3 * ((expected @ gram) * expected).sum()
        assert torch.equal(change.down, told.layers[layer].down)


def test_only_what_keeps_nothing_is_gathered(pico):
    anna, rex = keeper(pico), make_concept(pico, "rex", selection="cross-attention-kv", seed=1)
    asked = []

    def gather(change, layers, prompts):
        asked.append(prompts[0])
        return gather_grams(pico, layers, prompts, change=change)

    gather_inputs(pico, [anna, rex], gather=gather, with_foreign=False)
    assert asked == ["a photo of <rex> person"]


def test_what_is_kept_does_not_serve_layers_that_see_pictures_nor_another_text_encoder(pico):
    anna, rex = keeper(pico), make_concept(pico, "rex", seed=1)
    inputs = gather_inputs(pico, [anna, rex], with_foreign=False)
    assert inputs.concepts[anna.content_hash].keys() == rex.layers.keys()
    boro = make_concept(pico, "boro", seed=2, selection="cross-attention-kv", text_encoder=True)
    found = inputs_for(create_algorithm("least-squares"), pico, [(anna, 1.0), (boro, 1.0)])
    layer = next(iter(anna.layers))
    kept = dense(gather_inputs(pico, [anna], with_foreign=False).concepts[anna.content_hash][layer])
    assert not torch.allclose(found.concepts[anna.content_hash][layer], kept.float(), rtol=0.01)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"selection": "none"},
        {"selection": "cross-attention-kv", "text_encoder": True},
        {"selection": "cross-attention-kv", "layerwise": True},
    ],
    ids=["attention", "tokens alone", "text encoder", "layer-wise"],
)
def test_concepts_whose_layers_see_different_things_keep_nothing(pico, options):
    concept = make_concept(pico, "anna", **options)
    assert with_inputs(pico, concept) is concept and concept.inputs is None
    with pytest.raises(
        ConfigurationError, match="needs Gram matrices of the layers' inputs, and there is none of the prompts of anna"
    ):
        merge([(concept, 1.0)], algorithm="least-squares")


def test_what_a_base_answers_is_stored_of_the_base_alone(pico_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(foreign_store, "cache_folder", lambda: tmp_path)
    base = load_base(pico_folder)
    with base.folded(make_concept(base, "anna", text_encoder=True)), pytest.raises(BaseModelError, match="folded in"):
        foreign_gram(base)
    assert not (tmp_path / "foreign-inputs").exists()
    first = foreign_gram(base)
    layer = next(iter(linear_layers(base, "cross-attention-kv")))
    assert torch.equal(first.gram, gather_grams(base, [layer], FOREIGN_PROMPTS)[layer])
    with base.folded(make_concept(base, "anna", text_encoder=True)):
        assert torch.equal(foreign_gram(base).gram, first.gram)  # stored
    base.pipeline.text_encoder.get_input_embeddings().weight.data.mul_(1.5)  # other words, which the hash leaves out
    assert not torch.equal(foreign_gram(base).gram, first.gram)


def test_a_coarse_base_stores_nothing(pico_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(foreign_store, "cache_folder", lambda: tmp_path)
    foreign_gram(load_base(pico_folder, dtype=torch.bfloat16))
    assert not (tmp_path / "foreign-inputs").exists()


def test_a_remembered_answer_is_asked_for_anew_when_something_changes(pico_folder, tmp_path, monkeypatch):
    base, asked = load_base(pico_folder), []
    sought = stored_inputs._sought
    monkeypatch.setattr(stored_inputs, "_sought", lambda *args: asked.append(0) or sought(*args))
    monkeypatch.setattr(foreign_store, "cache_folder", lambda: tmp_path / "first")
    monkeypatch.setattr(stored_inputs, "cache_folder", lambda: tmp_path / "first")
    first = foreign_gram(base)
    assert foreign_gram(base) is first and has_foreign_gram(base) and len(asked) == 1
    with base.folded(make_concept(base, "anna", text_encoder=True)):
        assert has_foreign_gram(base) and torch.equal(foreign_gram(base).gram, first.gram)

    monkeypatch.setattr(foreign_store, "cache_folder", lambda: tmp_path / "second")
    monkeypatch.setattr(stored_inputs, "cache_folder", lambda: tmp_path / "second")
    assert not has_foreign_gram(base) and torch.equal(foreign_gram(base).gram, first.gram)
    assert list((tmp_path / "second" / "foreign-inputs").iterdir())

    base.pipeline.text_encoder.get_input_embeddings().weight.data.mul_(1.5)
    assert not has_foreign_gram(base)
    other = foreign_gram(base)
    assert other.key != first.key and not torch.equal(other.gram, first.gram)
