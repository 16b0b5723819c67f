"""Token vectors, or keys and values, of every layer's own, frozen ones, and trainings of the token side alone."""

import math
from contextlib import closing
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from orthoplex.activations import gather_inputs
from orthoplex.activations.random_concepts import replaced_vectors, word_spread
from orthoplex.concepts import load_concept, read_manifest
from orthoplex.errors import ConfigurationError
from orthoplex.generation import generate
from orthoplex.merging import ALGORITHMS, merge
from orthoplex.models import Words
from orthoplex.training import checkpoint_path, stages, starting_tokens, train
from orthoplex.training.run import Run
from orthoplex.training.sampling import make_pictures
from orthoplex.training.starting_vectors import initial_vectors
from tests.pico import linear_layers, make_concept, tokens_of, vectors_of
from tests.training.test_loop import assert_same_concept, last_of, snapshot

DIM, LAYERS = 24, 4
ALONE = {"layers": "none", "erasure": 0.0}
VARIANTS = {
    "layer-wise": {"token_vectors": "layer-wise"},
    "layer-wise, both encoders": {"token_vectors": "layer-wise", "text_encoder": True, "method": "lora", "rank": 4},
    "layer-wise, prediction": {"token_vectors": "layer-wise", "erasure_form": "prediction", "prior_weight": 0.5},
    "layer-wise, first": {"token_vectors": "layer-wise", "token_steps": 3},
    "keys and values": {"token_vectors": "keys-and-values"},
    "keys and values, both encoders": {
        "token_vectors": "keys-and-values", "text_encoder": True, "method": "lora", "rank": 4,
    },
    "keys and values, prediction": {
        "token_vectors": "keys-and-values", "erasure_form": "prediction", "prior_weight": 0.5, "token_steps": 3,
    },
    "keys and values alone": {"token_vectors": "keys-and-values", "num_vectors": 1, **ALONE},
    "values": {"token_vectors": "values"},
    "values alone": {"token_vectors": "values", "num_vectors": 1, **ALONE},
    "frozen": {"token_vectors": "frozen"},
    "rare word": {"token_vectors": "frozen", "token_start": "rare word", "num_vectors": 1},
    "tokens alone": ALONE,
    "layer-wise tokens alone": {"token_vectors": "layer-wise", "num_vectors": 1, **ALONE},
}  # fmt: skip


@pytest.fixture(params=VARIANTS)
def variant(request, config):
    return replace(config, **VARIANTS[request.param])


def starting_vectors(base, dataset, config):
    """What stands in the place of the tokens before anything is learned, ``(k, dim)`` or ``(k, L, dim)``."""
    run = Run.of(base, dataset, config)
    return torch.stack([*vectors_of(run.tokens(run.learning.initial())).values()])


def test_every_variant_trains_and_comes_back_from_a_break(base, dataset, variant, tmp_path):
    straight, broken = tmp_path / "straight.safetensors", tmp_path / "broken.safetensors"
    before = snapshot(base)
    whole = list(train(base, dataset, variant, output=straight))
    with closing(train(base, dataset, variant, output=broken)) as records:
        first = list(islice(records, 4))
    rest = list(train(base, dataset, variant, output=broken, resume=True))
    assert [record.loss for record in first + rest] == [record.loss for record in whole]
    assert all(math.isfinite(record.loss) for record in whole[1:])
    assert_same_concept(straight, broken)
    after = snapshot(base)
    assert base.tokens == () and all(torch.equal(value, after[name]) for name, value in before.items())
    assert not any(
        module._forward_hooks or module._forward_pre_hooks
        for root in base.family.components().values()
        for module in root.modules()
    )


def test_what_learns_and_what_stays(base, dataset, variant, tmp_path):
    output = tmp_path / "anna.safetensors"
    last_of(train(base, dataset, variant, output=output))
    concept, start = load_concept(output, base=base.identity), starting_vectors(base, dataset, variant)
    learned = torch.stack([*vectors_of(concept.tokens).values()])
    assert learned.shape == start.shape
    assert torch.equal(learned, start) == (variant.token_moves != "embedding")
    before = torch.stack([*vectors_of(starting_tokens(base, concept)).values()])
    assert torch.equal(before, start[:, 0] if start.ndim == 3 else start)
    expected = {} if variant.layers == "none" else linear_layers(base, variant.layers, variant.text_encoder)
    assert set(concept.layers) == set(expected)
    assert all(factors.up.any() for factors in concept.layers.values())
    placements = [item.placement for item in concept.tokens.values()]
    kind = concept.manifest.tokens.kind
    if variant.token_moves == "keys and values":
        assert kind == "keys-values" and not any(placement.layers for placement in placements)
        for layers in (placement.keys_values for placement in placements):
            assert {layer: tuple(values.shape) for layer, values in layers.items()} == {
                layer: (2, width) for layer, width in base.key_widths.items()
            }
            assert all(values[1].any() for values in layers.values())
            assert all(values[0].any() == (variant.token_vectors != "values") for values in layers.values())
        return
    assert not any(placement.keys_values for placement in placements)
    if variant.token_vectors != "layer-wise":
        assert kind == "vector" and all(placement.is_one_vector for placement in placements)
        return
    assert kind == "layer-vectors" and {placement.layers for placement in placements} == {base.cross_attention_layers}
    assert (start == start[:, :1]).all()
    assert all(not torch.equal(learned[:, 0], learned[:, i]) for i in range(1, LAYERS))


def test_a_concept_that_does_not_say_how_it_was_trained_has_no_starting_tokens(base):
    with pytest.raises(ConfigurationError, match="concept rex does not say how it was trained; allowed are those"):
        starting_tokens(base, make_concept(base, "rex"))


def test_many_starting_tokens_are_those_of_their_number(base, dataset, config, tmp_path):
    """In a file `<anna>_10` comes before `<anna>_2`."""
    output = tmp_path / "anna.safetensors"
    last_of(train(base, dataset, replace(config, steps=1, num_vectors=12, token_vectors="frozen"), output=output))
    concept = load_concept(output)
    found, kept = vectors_of(starting_tokens(base, concept)), vectors_of(concept.tokens)
    assert found.keys() == kept.keys() and len(found) == 12
    for token, vector in found.items():
        assert torch.equal(vector, kept[token])  # frozen ones stay where they started


def test_a_concept_without_layers_says_so(base, dataset, config, tmp_path):
    output = tmp_path / "anna.safetensors"
    config = replace(config, slot=99, checkpoint_every=1, **ALONE)  # no layer, so no slot that it could be beyond
    records = train(base, dataset, config, output=output)
    assert [next(records).step, next(records).step] == [0, 1]
    kept = load_file(checkpoint_path(output))
    assert {name for name in kept if name.startswith("parameter")} == {"parameter token vectors"}
    rates = [record.learning_rate for record in records]
    assert max(rates) <= config.token_learning_rate
    manifest = read_manifest(output)
    assert (manifest.method, manifest.adapter, manifest.slot, manifest.basis_id) == ("none", {}, None, None)
    assert manifest.layers == {} and load_file(output) == {}


def test_no_erasure_is_prepared_where_no_weight_learns(base, dataset, config, tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "_erasure", None)
    monkeypatch.setattr(stages, "make_prior_pictures", None)
    last_of(train(base, dataset, replace(config, **ALONE), output=tmp_path / "anna.safetensors"))


def test_stages(config):
    def learning(**changes):
        return [
            (stage.start, stage.stop, stage.tokens, stage.weights)
            for stage in stages.stages(replace(config, **changes))
        ]

    assert learning() == [(0, 6, True, True)]
    assert learning(token_vectors="frozen") == [(0, 6, False, True)]
    assert learning(**ALONE) == [(0, 6, True, False)]
    assert learning(token_vectors="layer-wise", token_steps=2) == [(0, 2, True, False), (2, 6, False, True)]


def test_the_first_step_is_that_of_shared_vectors(base, dataset, config, tmp_path):
    """As layers start with equal vectors, or none added, the first loss and what weights learn from it are the same."""
    found = {}
    for kind in ("shared", "layer-wise", "keys-and-values"):
        records = list(
            train(base, dataset, replace(config, steps=1, token_vectors=kind), output=tmp_path / "anna.safetensors")
        )
        found[kind] = records[-1], load_concept(tmp_path / "anna.safetensors")
    (shared, ours), *others = found.values()
    for record, theirs in others:
        assert record.loss == pytest.approx(shared.loss, rel=1e-5)
        for layer, factors in ours.layers.items():
            torch.testing.assert_close(theirs.layers[layer].delta(), factors.delta(), rtol=1e-2, atol=1e-4)


def test_gradients_of_the_text_encoders_adapters_come_from_all_layers(base, dataset, config):
    config = replace(config, text_encoder=True, token_vectors="layer-wise", method="lora", rank=4)
    run = Run.of(base, dataset, config)
    adapters = {name: item for name, item in run.adapters(base.device).items() if name.startswith("text_encoder")}
    (name, adapter), *_ = adapters.items()
    vectors = starting_vectors(base, dataset, config)
    tokens = tokens_of({"<anna>": vectors[0], "<anna>_1": vectors[1]}, base.cross_attention_layers)
    with base.with_tokens(tokens) as names, base.attached(adapters):
        with replaced_vectors(base, names, vectors.unsqueeze(0)):
            wide = base.family.condition(base.family.words.ids(["a photo of <anna>"])).features
    parts = [
        torch.autograd.grad(part.sum() + part.square().sum(), adapter.up, retain_graph=True)[0]
        for part in wide.split(DIM, -1)
    ]
    (whole,) = torch.autograd.grad(wide.sum() + wide.square().sum(), adapter.up)
    assert name.startswith("text_encoder") and all(part.any() for part in parts)
    torch.testing.assert_close(whole, sum(parts), rtol=1e-3, atol=1e-5)


def test_rare_words_start_away_from_the_class_word(base):
    generator = torch.Generator().manual_seed(0)
    vectors = initial_vectors(base, "person", 3, generator, start="rare word")
    spread = word_spread(base)
    word = initial_vectors(base, "person", 1, generator)
    assert 0.7 < ((vectors - spread.mean) / spread.deviation).std() < 1.4
    assert not torch.isclose(vectors, word).all(dim=1).any()
    both = initial_vectors(base, "person", 3, torch.Generator().manual_seed(0), start="rare and class word")
    assert torch.equal(both[:2], vectors[:2]) and torch.equal(both[2:], word)


def test_norms_are_limited_layer_by_layer(base, dataset, config, tmp_path):
    output = tmp_path / "anna.safetensors"
    config = replace(config, token_norm_limit=0.01, token_vectors="layer-wise", **ALONE)
    last_of(train(base, dataset, config, output=output))
    assert all((rows.norm(dim=1) <= 0.01001).all() for rows in vectors_of(load_concept(output).tokens).values())


@pytest.mark.parametrize("kind", ["layer-wise", "keys-and-values", "values"])
def test_the_concept_equals_what_was_trained(base, dataset, config, tmp_path, kind):
    output = tmp_path / "anna.safetensors"
    config = replace(config, steps=2, sample_every=1, token_vectors=kind, token_learning_rate=0.1)
    records = list(train(base, dataset, config, output=output))
    with base.folded(load_concept(output)):
        images = make_pictures(base, config, ["a photo of <anna> person"], seed=0).images()
    pictures = (records[-1].images[0], images[0], records[0].images[0])
    trained, folded, before = (np.asarray(picture).astype(int) for picture in pictures)
    assert np.abs(trained - folded).max() <= 1 < np.abs(trained - before).max()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_trained_variants_merge_and_make_pictures(base, dataset, config, tmp_path, algorithm):
    concepts = [make_concept(base, "rex", layerwise=True, seed=1), make_concept(base, "cup", seed=2)]
    output = tmp_path / "anna.safetensors"
    last_of(train(base, dataset, replace(config, steps=1, **ALONE), output=output))
    concepts.append(load_concept(output))
    concepts.append(make_concept(base, "tom", keys_values=True, seed=3))
    inputs = gather_inputs(base, concepts) if ALGORITHMS[algorithm].needs_inputs else None
    merged = merge([(concept, 1.0) for concept in concepts], algorithm=algorithm, inputs=inputs)
    assert len(generate(base, "<anna> with <rex>, <cup> and <tom>", merge=merged, num_inference_steps=1)) == 1
    assert merge([(concepts[2], 1.0)], algorithm=algorithm, inputs=gather_inputs(base, concepts[2:3])).layers == {}


def test_the_random_tokens_of_foreign_prompts_have_no_keys_and_values(base, dataset, config):
    """And what is cached before, with all tokens in, has as many marks as the features that follow."""
    run = Run.of(base, dataset, replace(config, token_vectors="keys-and-values"))
    learned = torch.randn(run.learning.initial().shape, generator=torch.Generator().manual_seed(0))
    foreign = torch.zeros(1, 2, DIM)
    with (
        base.with_tokens(run.tokens(learned)) as names,
        run.put_in(base, learned),
        torch.no_grad(),
    ):
        every = base.family.words.ids(["a <anna> person"])  # spelled out in both tokens
        own = base.family.condition(every).features
        with replaced_vectors(base, names, foreign):
            others = base.family.condition(every).features
    assert own.shape == others.shape == (1, 32, DIM + 2)
    assert own[..., DIM:].sum() == 2 and not others[..., DIM:].any()


@pytest.mark.parametrize("kind", ["keys-and-values", "values"])
def test_units_are_the_size_of_each_layers_keys_and_values_per_that_of_embeddings(base, dataset, config, kind):
    learning = Run.of(base, dataset, replace(config, token_vectors=kind)).learning
    assert tuple(learning.units) == base.cross_attention_layers
    features = base.family.condition(base.family.words.ids(["person"])).features
    spread = word_spread(base).deviation.square().mean().sqrt()
    rows, start = torch.arange(2.0 * learning.size).view(2, -1), 0
    for layer, width in base.key_widths.items():
        for row, name in enumerate(("to_k", "to_v")):
            if name == "to_k" and kind == "values":
                assert not learning.layers(rows)[layer][:, row].any()
                continue
            unit = linear_layers(base, "cross-attention-kv")[f"{layer}.{name}"](features).square().mean().sqrt()
            expected = rows[:, start : start + width] * unit / spread
            torch.testing.assert_close(learning.layers(rows)[layer][:, row], expected)
            start += width
    assert start == learning.size


@pytest.mark.parametrize("option", ["layer-wise", "keys-and-values", "values"])
def test_tokens_of_single_layers_need_a_base_with_such_layers(base, dataset, config, option, monkeypatch):
    monkeypatch.setattr(type(base), "key_widths", {})
    message = f"token_vectors is '{option}' and base '.*' has no cross-attention layers; allowed are 'shared', 'frozen'"
    with pytest.raises(ConfigurationError, match=message):
        Run.of(base, dataset, replace(config, token_vectors=option))
    Run.of(base, dataset, replace(config, token_vectors="shared"))


def test_tokens_of_several_text_encoders_learn_side_by_side(base, dataset, config, monkeypatch):
    widths = {"text_encoder": DIM - 4, "text_encoder_2": 4}
    monkeypatch.setattr(Words, "widths", widths)
    run = Run.of(base, dataset, config)
    for token in run.tokens(run.learning.initial()).values():
        vectors = token.placement.vectors
        assert {encoder: vector.shape[-1] for encoder, vector in vectors.items()} == widths
