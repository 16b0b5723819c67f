from collections import Counter
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from orthoplex import vignette
from orthoplex.adapters import create_adapter
from orthoplex.errors import ConfigurationError
from orthoplex.models import Base, Brought, load_base
from orthoplex.training import FOREIGN_PROMPTS, TrainingConfig, stages, train
from orthoplex.training.foreign import (
    CLASS_WORDS,
    compose_foreign_prompts,
    draw_foreign_inputs,
    gather_statistics,
    make_prior_pictures,
    position_weights,
    random_vectors,
    with_article,
)
from orthoplex.training.prediction_erasure import PredictionErasure
from orthoplex.training.prompts import default_foreign_prompts
from orthoplex.training.run import Run
from orthoplex.training.text import word_spread
from tests.pico import linear_layers, tokens_of

DIM = 24


def compose(count, prompts=FOREIGN_PROMPTS, seed=0):
    config = TrainingConfig(erasure_prompts=count)
    generator = torch.Generator().manual_seed(seed)
    return compose_foreign_prompts(config, token="<anna>", class_word="person", prompts=prompts, generator=generator)


def adapters_of(base, config, layers="cross-attention"):
    return {
        layer: create_adapter(
            config.adapter,
            layer=layer,
            out_features=linear.out_features,
            in_features=linear.in_features,
            concept_id="x",
            seed=0,
        )
        for layer, linear in linear_layers(base, layers).items()
    }


@pytest.mark.parametrize("count", [1, 2, 8, 64, 300])
def test_number_of_prompts(count):
    prompts = compose(count)
    assert len(prompts.plain) + len(prompts.tokened) == count
    assert len(prompts.tokened) == count // 4
    assert "" in prompts.plain


def test_random_vectors_of_no_words(base):
    found = random_vectors(base, (), num_vectors=2, generator=torch.Generator())
    assert found.shape == (0, 2, base.pipeline.text_encoder.get_input_embeddings().embedding_dim)


def test_no_class_word_stands_for_most_concepts_that_do_not_exist():
    words = Counter(compose(128).words)
    assert set(words) == {"person", *CLASS_WORDS}
    assert max(words.values()) <= 10  # of 32


def test_only_tokened_prompts_hold_the_token():
    prompts = compose(64)
    assert all("<anna>" in prompt for prompt in prompts.tokened)
    assert not any("<anna>" in prompt for prompt in prompts.plain)


def test_class_word_and_other_words_are_there():
    prompts = compose(64)
    assert "a photo of a person" in prompts.plain
    assert "a photo of <anna> person" in prompts.tokened
    assert any("<anna> animal" in prompt for prompt in prompts.tokened)
    assert all(f"<anna> {word}" in prompt for prompt, word in zip(prompts.tokened, prompts.words, strict=True))
    assert {"person", "food", "building", "place"} <= set(prompts.words)
    assert prompts.about_class == tuple(
        template.format("a person")
        for template in (
            "a drawing of {}",
            "a picture of {}",
            "a view of {}",
            "{}",
            "a photo of {}",
        )
    )


def test_class_words_have_their_article():
    config, generator = TrainingConfig(erasure_prompts=16), torch.Generator().manual_seed(0)
    prompts = compose_foreign_prompts(
        config, token="<otto>", class_word="animal", prompts=["a tree"], generator=generator
    )
    assert "a drawing of an animal" in prompts.plain and not any("a animal" in prompt for prompt in prompts.plain)
    assert [with_article(word) for word in ("person", "animal", "object")] == ["a person", "an animal", "an object"]


def test_prompts_that_name_a_class_word_get_the_token_in_its_place():
    prompts = compose(8, prompts=["a person on a beach", "a tree"])
    assert "<anna> person on a beach" in prompts.tokened


def test_order_is_decided_by_the_generator():
    assert compose(64, seed=1).plain == compose(64, seed=1).plain != compose(64, seed=2).plain


def test_no_prompts_are_refused():
    with pytest.raises(ConfigurationError, match="foreign_prompts holds 0 prompts"):
        compose(8, prompts=())


def test_default_prompts_depend_on_the_base(base):
    bringing = Base(base.pipeline, base.identity, brought=Brought(foreign_prompts=("a person",)))
    assert default_foreign_prompts(base) == FOREIGN_PROMPTS
    assert default_foreign_prompts(bringing) == ("a person",)
    assert default_foreign_prompts(load_base("vignette")) == tuple(vignette.foreign_prompts())


def test_random_vectors_lie_as_far_from_their_class_words_as_learned_ones(base):
    """In units of the words that the base uses: rows that no training has seen say nothing."""
    table = base.pipeline.text_encoder.get_input_embeddings().weight
    kept = table.detach().clone()
    unused = torch.ones(len(table), dtype=torch.bool)
    unused[torch.tensor(base.pipeline.tokenizer(" ".join(FOREIGN_PROMPTS)).input_ids)] = False
    words = ("person", "dog") * 100
    with torch.no_grad():
        before = random_vectors(base, words, num_vectors=2, generator=torch.Generator().manual_seed(0))
        table[unused] *= 0.001
        vectors = random_vectors(base, words, num_vectors=2, generator=torch.Generator().manual_seed(0))
        table.copy_(kept)
    assert torch.equal(vectors, before) and vectors.shape == (200, 2, DIM)
    spread = word_spread(base).deviation
    centres = torch.stack([base.family.words.class_vector(word) for word in words])
    moved = ((vectors - centres.unsqueeze(1)) / spread).square().mean((1, 2)).sqrt()
    near = torch.arange(200) % 4 != 3
    assert 0.3 < moved[near].min() < 0.8 and 1.3 < moved[near].max() < 2.2
    assert not torch.equal(vectors[0], vectors[8])


def test_positions_that_all_prompts_share_do_not_drown_the_tokens(base):
    with base.with_tokens(tokens_of(dict.fromkeys(("<anna>", "<anna>_1"), torch.zeros(DIM)))) as names:
        numbers = base.family.words.ids(["a photo of <anna> cat", "a dog", ""])
        weights = position_weights(base, numbers, names)
        plain = position_weights(base, numbers[1:], names)  # without tokens two groups share all
        tokens = torch.isin(numbers, torch.tensor(base.pipeline.tokenizer.convert_tokens_to_ids(names)))
    filling = (numbers == base.pipeline.tokenizer.eos_token_id).cumsum(1) > 0
    filling |= numbers == base.pipeline.tokenizer.bos_token_id
    third = numbers.numel() / 3
    for group in (tokens, filling, ~(tokens | filling)):
        assert float(weights[group].sum()) == pytest.approx(third, rel=1e-5)
        assert weights[group].unique().numel() == 1
    assert float(plain[filling[1:]].sum()) == pytest.approx(numbers[1:].numel() / 2, rel=1e-5)


def test_only_layers_that_see_the_text_weigh_positions(base, config):
    adapters = adapters_of(base, config)
    found = base.family.text_layers([*adapters, "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"])
    assert found == {
        *linear_layers(base, "cross-attention-kv"),
        "text_encoder.text_model.encoder.layers.0.self_attn.q_proj",
    }


def test_prior_pictures_are_latents_of_plain_prompts(base, config):
    config = replace(config, prior_pictures=5, batch_size=2)
    prior = make_prior_pictures(base, config, ("a dog", "a cat"))
    assert prior.latents.shape == (5, 4, 8, 8)
    assert prior.ids.shape[0] == 5 and torch.equal(prior.ids[0], prior.ids[2])
    assert not torch.equal(prior.latents[0], prior.latents[1])
    assert torch.equal(prior.latents, make_prior_pictures(base, config, ("a dog", "a cat")).latents)


@pytest.mark.parametrize("with_latents", [False, True])
def test_statistics_of_every_layer(base, config, with_latents):
    adapters = adapters_of(base, config)
    prompts = compose(8)
    latents = torch.randn(3, 4, 8, 8) if with_latents else None

    def gather():
        with base.with_tokens(tokens_of(dict.fromkeys(("<anna>", "<anna>_1"), torch.zeros(DIM)))) as names:
            inputs = draw_foreign_inputs(
                base,
                prompts=prompts,
                vectors=torch.ones(len(prompts.tokened), 2, DIM),
                latents=latents,
                generator=torch.Generator().manual_seed(3),
            )
            linears = linear_layers(base, "cross-attention")
            return gather_statistics(base, config, adapters, linears, inputs=inputs, tokens=names)

    statistics, again = gather(), gather()
    assert statistics.keys() == adapters.keys()
    for layer, adapter in adapters.items():
        gram = statistics[layer].gram
        assert gram.shape == (adapter.rank, adapter.rank)
        assert torch.linalg.eigvalsh(gram).min() > -1e-6 and gram.trace() > 0
        assert torch.equal(gram, again[layer].gram)
        assert not adapter.up.any()


def foreign_inputs(base, latents=None):
    prompts = compose(8)
    return draw_foreign_inputs(
        base,
        prompts=prompts,
        vectors=torch.randn(len(prompts.tokened), 2, DIM, generator=torch.Generator().manual_seed(1)),
        latents=latents,
        generator=torch.Generator().manual_seed(2),
    )


def test_pure_noise_stands_at_late_timesteps_and_prior_pictures_at_all(base):
    with base.with_tokens(tokens_of(dict.fromkeys(("<anna>", "<anna>_1"), torch.zeros(DIM)))):
        steps = len(base.pipeline.scheduler.alphas_cumprod)
        late = torch.cat([foreign_inputs(base).times for _ in range(4)])
        assert late.min() >= 0.8 * steps
        inputs = foreign_inputs(base, torch.full((3, 4, 8, 8), 100.0))
        assert len(inputs) == 8 and inputs.noisy.shape == (8, 4, 8, 8)
        assert inputs.times.min() < 0.8 * steps
        assert inputs.noisy.flatten(1).mean(1).max() > 10  # the latents are in it


def test_random_vectors_stand_in_the_token_s_place(base):
    """Only prompts with the token take notice of the vectors, and every prompt of its own."""
    with base.with_tokens(tokens_of(dict.fromkeys(("<anna>", "<anna>_1"), torch.zeros(DIM)))) as names, torch.no_grad():
        inputs = foreign_inputs(base)
        before = inputs.predict(base, names)
        moved = replace(inputs, vectors=inputs.vectors.flip(-1))
        differs = (moved.predict(base, names) - before).abs().flatten(1).amax(1) > 1e-6
        has_token = base.family.words.places(inputs.ids, names)[:, 0].any(1)
        assert has_token.any() and not has_token.all()
        assert torch.equal(differs, has_token)
        torch.testing.assert_close(inputs.take(torch.tensor([5, 2])).predict(base, names), before[[5, 2]])


def test_prediction_erasure_is_zero_for_the_base_and_the_square_of_what_moves(base, config):
    config = replace(config, erasure_batch_size=8)
    with base.with_tokens(tokens_of(dict.fromkeys(("<anna>", "<anna>_1"), torch.zeros(DIM)))) as names:
        inputs = foreign_inputs(base)
        erasure = PredictionErasure.prepare(base, config, inputs, names, "anna")
        adapters = adapters_of(base, config)
        with base.attached(adapters):
            assert erasure.penalty(0).item() == pytest.approx(0, abs=1e-10)
            for adapter in adapters.values():
                torch.nn.init.normal_(adapter.up, generator=torch.Generator().manual_seed(5))
            whole = erasure.penalty(0)
            with torch.no_grad():
                moved = inputs.predict(base, names)
        assert whole.item() == pytest.approx(float((moved - erasure.targets).square().mean()), rel=1e-4)
        few = replace(erasure, config=replace(config, erasure_batch_size=2))
        with base.attached(adapters):
            assert few.penalty(3).item() == few.penalty(3).item() != few.penalty(4).item()
            whole.backward()
        assert all(adapter.up.grad is not None for adapter in adapters.values())


@pytest.mark.parametrize("text_encoder", [False, True])
def test_layers_that_see_the_text_alone_learn_the_same_without_prior_pictures(
    base, dataset, config, tmp_path, monkeypatch, text_encoder
):
    config = replace(config, steps=2, layers="cross-attention-kv", text_encoder=text_encoder)
    made = []

    def making(*arguments):
        made.append(make_prior_pictures(*arguments))
        return made[-1]

    def trained(name, config):
        list(train(base, dataset, config, output=tmp_path / name))
        return load_file(tmp_path / name)

    monkeypatch.setattr(stages, "make_prior_pictures", making)
    without = trained("without.safetensors", config)
    assert not made
    monkeypatch.setattr(stages, "_are_seen", lambda *_: True)
    found = trained("with.safetensors", config)
    assert len(made) == 1
    assert found.keys() == without.keys() and all(torch.equal(found[name], without[name]) for name in found)


@pytest.mark.parametrize(
    "changes", [{"layers": "cross-attention"}, {"erasure_form": "prediction"}, {"prior_weight": 1.0}]
)
def test_prior_pictures_are_made_where_they_are_seen(base, dataset, config, changes):
    run = Run.of(base, dataset, replace(config, **{"layers": "cross-attention-kv", **changes}))
    assert stages._are_seen(base, run)
