"""Foreign inputs, prior pictures, and the statistics of them."""

from dataclasses import replace

import pytest
import torch

from orthoplex.activations import ErasureOptions
from orthoplex.activations.erasure_statistics import gather_statistics
from orthoplex.activations.foreign_inputs import PositionWeights, draw_foreign_inputs, position_weights
from orthoplex.activations.prior_pictures import make_prior_pictures
from orthoplex.adapters import AdapterConfig, create_adapter
from orthoplex.errors import OrthoplexError
from tests.activations.test_foreign_prompts import compose
from tests.pico import linear_layers, tokens_of

DIM = 24


def test_positions_that_all_prompts_share_do_not_drown_the_tokens(base):
    with base.with_tokens(tokens_of(dict.fromkeys(("<anna>", "<anna>_1"), torch.zeros(DIM)))) as names:
        numbers = base.family.words.ids(["a photo of <anna> cat", "a dog", ""])
        weights = position_weights(base, numbers, names).weights
        plain = position_weights(base, numbers[1:], names).weights  # without tokens two groups share all
        tokens = torch.isin(numbers, torch.tensor(base.pipeline.tokenizer.convert_tokens_to_ids(list(names))))
    filling = (numbers == base.pipeline.tokenizer.eos_token_id).cumsum(1) > 0
    filling |= numbers == base.pipeline.tokenizer.bos_token_id
    third = numbers.numel() / 3
    for group in (tokens, filling, ~(tokens | filling)):
        assert float(weights[group].sum()) == pytest.approx(third, rel=1e-5)
        assert weights[group].unique().numel() == 1
    assert float(plain[filling[1:]].sum()) == pytest.approx(numbers[1:].numel() / 2, rel=1e-5)


def test_only_layers_that_see_the_text_weigh_positions(base):
    adapters = adapters_of(base)
    found = base.family.text_layers([*adapters, "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"])
    assert found == {
        *linear_layers(base, "cross-attention-kv"),
        "text_encoder.text_model.encoder.layers.0.self_attn.q_proj",
    }


@pytest.mark.parametrize("shape", [(2, 3, 5), (1, 4, 5), (2, 1, 5), (2, 5)])
def test_inputs_of_other_positions_are_refused(shape):
    weights = PositionWeights(torch.rand(2, 3), torch.tensor([[False, False, True], [False, True, True]]))
    assert torch.equal(weights.of_inputs("a", torch.zeros(2, 2, 5)), weights.weights[:, :2])
    if shape == (2, 3, 5):
        assert torch.equal(weights.of_inputs("a", torch.zeros(shape)), weights.weights)
        return
    with pytest.raises(OrthoplexError, match=r"layer a: its inputs are .*; allowed is \(2, 3, …\)"):
        weights.of_inputs("a", torch.zeros(shape))


def test_prior_pictures_are_latents_of_plain_prompts(base):
    options = ErasureOptions(prior_pictures=5, batch_size=2, prior_inference_steps=1, mixed_precision="no")
    prior = make_prior_pictures(base, options, ("a dog", "a cat"))
    assert prior.latents.shape == (5, 4, 8, 8)
    assert prior.ids.shape[0] == 5 and torch.equal(prior.ids[0], prior.ids[2])
    assert not torch.equal(prior.latents[0], prior.latents[1])
    assert torch.equal(prior.latents, make_prior_pictures(base, options, ("a dog", "a cat")).latents)


def adapters_of(base, layers="cross-attention"):
    return {
        layer: create_adapter(
            AdapterConfig(slots=4),
            layer=layer,
            out_features=linear.out_features,
            in_features=linear.in_features,
            concept_id="x",
            seed=0,
        )
        for layer, linear in linear_layers(base, layers).items()
    }


@pytest.mark.parametrize("with_latents", [False, True])
def test_statistics_of_every_layer(base, with_latents):
    adapters = adapters_of(base)
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
            return gather_statistics(base, adapters, linears, inputs=inputs, tokens=names, batch_size=3)

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
