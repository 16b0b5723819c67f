"""Vectors of every cross-attention layer's own: each layer sees its features, and nothing is left behind."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest
import torch

from orthoplex.activations import gather_grams, observed_inputs
from orthoplex.concepts.tokens.layer_vectors import LayerVectors
from orthoplex.errors import BaseModelError, ConfigurationError
from orthoplex.merging import merge
from orthoplex.models.layer_names import cross_attention_modules
from tests.pico import linear_layers, make_concept, tokens_of, vectors_of

DIM, LAYERS = 24, 4
PROMPTS = ["a photo of <anna>", "a cat"]


def random_vectors(*shape, seed=0):
    return 0.02 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def putting(base, vectors):
    """The base with tokens in, whose vectors are ``(dim,)`` or ``(L, dim)``."""
    return base.with_tokens(tokens_of(vectors, base.cross_attention_layers))


def number_of(base, token):
    return base.pipeline.tokenizer.convert_tokens_to_ids(token)


def encode(base, prompts, **options):
    tokens = base.pipeline.tokenizer(prompts, padding="max_length", max_length=32, return_tensors="pt")
    return base.pipeline.text_encoder(tokens.input_ids, **options)


def features(base, prompts):
    return encode(base, prompts)[0]


def latents(base, prompts, **options):
    generator = torch.Generator().manual_seed(0)
    options = {"num_inference_steps": 2, "guidance_scale": 3.0, "output_type": "latent", **options}
    return base.pipeline(prompts, generator=generator, **options).images


def keys(base):
    """The key projection of every cross-attention layer, in the order of the layers."""
    every = linear_layers(base, "cross-attention-kv")
    return {layer: every[f"{layer}.to_k"] for layer in base.cross_attention_layers}


def hooks(base):
    """How many hooks each module has."""
    return {
        (component, name): (len(module._forward_hooks), len(module._forward_pre_hooks))
        for component, root in base.family.components().items()
        for name, module in root.named_modules()
    }


@contextmanager
def untouched(base):
    """Whatever happens inside, the base's hooks, parameters and tokenizer are the very same afterwards."""
    parameters = {
        name: (parameter, parameter.clone())
        for m in base.family.components().values()
        for name, parameter in m.named_parameters()
    }
    before, tokenizer, clean = hooks(base), base.pipeline.tokenizer, features(base, ["a cat"])
    yield
    assert hooks(base) == before and base.pipeline.tokenizer is tokenizer
    for module in base.family.components().values():
        for name, parameter in module.named_parameters():
            assert parameter is parameters[name][0] and torch.equal(parameter, parameters[name][1]), name
    assert torch.equal(features(base, ["a cat"]), clean)


def test_layers_are_named_in_the_order_of_their_use(pico):
    modules, used = cross_attention_modules(pico.pipeline.unet), []
    handles = [
        module.register_forward_hook(lambda *_, path=path: used.append(f"unet.{path}"))
        for path, module in modules.items()
    ]
    latents(pico, "a cat", num_inference_steps=1)
    for handle in handles:
        handle.remove()
    assert tuple(used) == pico.cross_attention_layers and len(used) == LAYERS
    assert [layer.split(".")[1] for layer in used] == ["down_blocks", "mid_block", "up_blocks", "up_blocks"]


def test_equal_vectors_are_a_shared_one(pico):
    vector = random_vectors(DIM)
    with putting(pico, {"<anna>": vector}):
        shared, shared_latents = features(pico, PROMPTS), latents(pico, PROMPTS)
    with putting(pico, {"<anna>": vector.repeat(LAYERS, 1)}):
        torch.testing.assert_close(features(pico, PROMPTS), shared.repeat(1, 1, LAYERS), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(latents(pico, PROMPTS), shared_latents, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_every_layer_sees_the_features_of_its_own_vector(pico, guidance_scale):
    vectors = random_vectors(2, LAYERS, DIM)
    expected = []
    for i in range(LAYERS):
        with putting(pico, {"<anna>": vectors[0, i], "<anna>_1": vectors[1, i]}), torch.no_grad():
            parts = [features(pico, ["<anna> <anna>_1 room"] * 2), features(pico, ["a red <anna> <anna>_1"] * 2)]
        expected.append(torch.cat(parts[:1] if guidance_scale == 1.0 else [parts[1], parts[0]]))
    seen = {layer: [] for layer in pico.cross_attention_layers}
    with (
        putting(pico, {"<anna>": vectors[0], "<anna>_1": vectors[1]}),
        observed_inputs(keys(pico), lambda layer, _, x: seen[layer].append(x.detach())),
    ):
        latents(
            pico,
            "<anna> room",
            negative_prompt="a red <anna>",
            num_images_per_prompt=2,
            guidance_scale=guidance_scale,
        )
    assert not torch.allclose(expected[0], expected[1], atol=1e-3)
    for own, inputs in zip(expected, seen.values(), strict=True):
        assert len(inputs) == 2
        for x in inputs:
            torch.testing.assert_close(x, own, rtol=1e-4, atol=1e-5)


def test_prompts_without_such_tokens_are_read_once_and_as_before(pico):
    plain, plain_latents = features(pico, ["a cat", ""]), latents(pico, "a cat")
    rows = []
    handle = pico.pipeline.text_encoder.get_input_embeddings().register_forward_hook(
        lambda m, a, y: rows.append(len(y))
    )
    with putting(pico, {"<anna>": random_vectors(LAYERS, DIM)}):
        assert torch.equal(features(pico, ["a cat", ""]), plain.repeat(1, 1, LAYERS))
        assert torch.equal(latents(pico, "a cat"), plain_latents)
        features(pico, PROMPTS)
    handle.remove()
    assert rows == [2, 1, 1, 2 * LAYERS]


def test_features_of_ordinary_width_pass_as_they_are(pico):
    with torch.no_grad():
        text, empty = features(pico, ["a cat"]), features(pico, [""])
    given = {"prompt_embeds": text, "negative_prompt_embeds": empty}
    before = latents(pico, None, **given)
    with putting(pico, {"<anna>": random_vectors(LAYERS, DIM)}):
        assert torch.equal(latents(pico, None, **given), before)


def test_a_gradient_reaches_the_vector_of_its_layer_alone(pico):
    vectors = random_vectors(1, 2, LAYERS, DIM).requires_grad_()
    with putting(pico, dict.fromkeys(("<anna>", "<anna>_1"), torch.zeros(LAYERS, DIM))) as names:
        with pico.replaced_vectors(names, vectors):
            wide = features(pico, ["<anna> <anna>_1 cat", "a cat"])
            for layer, part in enumerate(wide.split(DIM, dim=-1)):
                (gradient,) = torch.autograd.grad(part.square().sum(), vectors, retain_graph=True)
                lengths = gradient[0].norm(dim=-1)
                assert (lengths[:, layer] > 0).all() and lengths.sum() == lengths[:, layer].sum()
    assert pico.pipeline.text_encoder.get_input_embeddings().weight.grad is None


def test_a_batch_without_the_token_still_has_a_gradient_of_zero(pico):
    """As with shared vectors: a step whose captions are all dropped must not fail."""
    vectors = random_vectors(1, 1, LAYERS, DIM).requires_grad_()
    with putting(pico, {"<anna>": torch.zeros(LAYERS, DIM)}) as names, pico.replaced_vectors(names, vectors):
        features(pico, ["", ""]).sum().backward()
    assert vectors.grad is not None and not vectors.grad.any()


def test_shared_vectors_may_stand_in_for_a_layerwise_token(pico):
    each = random_vectors(2, 1, 1, DIM, seed=1)
    with putting(pico, {"<anna>": random_vectors(LAYERS, DIM)}) as names:
        with pico.replaced_vectors(names, each):
            wide = features(pico, ["a <anna>", "a <anna>"])
    for i in range(2):
        with putting(pico, {"<anna>": each[i, 0, 0]}):
            own = features(pico, ["a <anna>"]).repeat(1, 1, LAYERS)
        torch.testing.assert_close(wide[i : i + 1], own)


def test_states_and_pooled_output_stay_usable(pico):
    vectors, encoder = random_vectors(LAYERS, DIM), pico.pipeline.text_encoder
    outputs = []
    for vector in vectors:
        with putting(pico, {"<anna>": vector}):
            outputs.append(encode(pico, PROMPTS, output_hidden_states=True))
    with putting(pico, {"<anna>": vectors}):
        wide = encode(pico, PROMPTS, output_hidden_states=True)
        as_tuple = encode(pico, PROMPTS, return_dict=False)
        normed = encoder.final_layer_norm(wide.hidden_states[-2])
    assert torch.equal(as_tuple[0], wide[0]) and torch.equal(as_tuple[1], wide.pooler_output)
    torch.testing.assert_close(wide.pooler_output, outputs[0].pooler_output)
    for number, states in enumerate(wide.hidden_states):
        expected = torch.cat([output.hidden_states[number] for output in outputs], dim=-1)
        torch.testing.assert_close(states, expected, rtol=1e-4, atol=1e-5)
    expected = torch.cat([encoder.final_layer_norm(output.hidden_states[-2]) for output in outputs], dim=-1)
    torch.testing.assert_close(normed, expected, rtol=1e-4, atol=1e-5)


def test_an_attention_mask_is_repeated_too(pico):
    ids = torch.tensor([pico.pipeline.tokenizer("a cat").input_ids] * 2)
    with putting(pico, {"<anna>": random_vectors(LAYERS, DIM)}):
        ids[:, 2] = number_of(pico, "<anna>")
        mask = torch.ones_like(ids)
        plain = pico.pipeline.text_encoder(input_ids=ids)[0]
        torch.testing.assert_close(pico.pipeline.text_encoder(input_ids=ids, attention_mask=mask)[0], plain)


def test_nothing_is_left_behind_also_after_errors_and_nested(pico):
    many = random_vectors(LAYERS, DIM)
    with untouched(pico):
        with pytest.raises(ZeroDivisionError), putting(pico, {"<anna>": many}):
            with putting(pico, {"<rex>": many[0], "<tom>": many}):
                features(pico, ["<anna> <rex> <tom>"])
            inner = features(pico, ["<anna>"])
            assert inner.shape == (1, 32, LAYERS * DIM)
            raise ZeroDivisionError
        with pytest.raises(ConfigurationError, match="is in the base already"):
            with putting(pico, {"<anna>": many}), putting(pico, {"<anna>": many}):
                pass
        with pytest.raises(BaseModelError, match="cannot be taken out before"), ExitStack() as stack:
            outer = pico.fold(make_concept(pico, "anna", layerwise=True))
            stack.callback(outer.restore)
            with putting(pico, {"<rex>": many}):
                outer.restore()


def test_an_error_in_the_encoder_leaves_the_embedding_in_order(pico):
    encoder = pico.pipeline.text_encoder
    with untouched(pico), putting(pico, {"<anna>": random_vectors(LAYERS, DIM)}):
        row = torch.tensor([[number_of(pico, "<anna>")]])
        with pytest.raises(ValueError):
            encoder(row.repeat(1, 40))  # longer than the encoder reads
        table = encoder.get_input_embeddings()
        torch.testing.assert_close(table(row)[0, 0], table.weight[row[0, 0]])


@pytest.mark.parametrize("shape", [(3, DIM), (LAYERS, 23), (1, LAYERS, DIM)])
def test_another_shape_is_refused(pico, shape):
    message = rf"has shape \({', '.join(map(str, shape))}\), allowed is \(4, 24\) of text_encoder"
    with untouched(pico), pytest.raises(ConfigurationError, match=message):
        with pico.with_tokens({"<anna>": LayerVectors.of(torch.zeros(shape), pico.cross_attention_layers)}):
            pass


def test_layerwise_shared_and_tokens_alone_in_one_merge(pico):
    anna = make_concept(pico, "anna", layerwise=True, num_vectors=2)
    rex = make_concept(pico, "rex", seed=1)
    tom = make_concept(pico, "tom", selection="none", layerwise=True, seed=2)
    both = merge([(anna, 1.0), (rex, 0.5), (tom, 1.0)])
    prompt, expected = "<anna> <anna>_1 and <rex> and <tom>", []
    with untouched(pico):
        for i in range(LAYERS):
            tokens = vectors_of({**anna.tokens, **rex.tokens, **tom.tokens})
            rows = {token: vector if vector.ndim == 1 else vector[i] for token, vector in tokens.items()}
            with pico.folded(replace(both, tokens=tokens_of(rows))):
                expected.append(features(pico, [prompt]))
        with pico.folded(both):
            assert pico.tokens == ("<anna>", "<anna>_1", "<rex>", "<tom>")
            torch.testing.assert_close(features(pico, [prompt]), torch.cat(expected, dim=-1), rtol=1e-4, atol=1e-5)
            assert torch.isfinite(latents(pico, "<anna> and <rex>")).all()


def test_gram_matrices_are_those_of_each_layers_own_features(pico):
    concept = make_concept(pico, "anna", layerwise=True)
    layers = [f"{layer}.to_k" for layer in pico.cross_attention_layers]
    grams = gather_grams(pico, layers, ["a photo of <anna>"], change=concept, num_inference_steps=1)
    with pico.folded(concept):
        parts = features(pico, ["a photo of <anna>"])[0].split(DIM, dim=-1)
    for layer, x in zip(layers, parts, strict=True):
        torch.testing.assert_close(grams[layer], x.T @ x / len(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("merged", [False, True])
def test_tokens_of_other_layers_are_not_folded(pico, merged):
    concept, names = make_concept(pico, "anna", layerwise=True), pico.cross_attention_layers
    rows = vectors_of(concept.tokens)
    shorter = {token: vectors[:-1] for token, vectors in rows.items()}
    with untouched(pico):
        for tokens, message in (
            (
                tokens_of(rows, (*names[:-1], "unet.nowhere")),
                "4 cross-attention layers, the base has 4; layer 'unet.nowhere' is not in the base",
            ),
            (
                tokens_of(shorter, names[:-1]),
                f"3 cross-attention layers, the base has 4; layer '{names[-1]}' is missing in the token",
            ),
        ):
            other = replace(concept, tokens=tokens)
            change = merge([(other, 1.0), (make_concept(pico, "rex", layerwise=True), 1.0)]) if merged else other
            with pytest.raises(BaseModelError, match=message), pico.folded(change):
                pass
            assert pico.recipe is None


def test_layers_are_matched_by_name_whatever_their_order(pico):
    concept, names = make_concept(pico, "anna", layerwise=True), pico.cross_attention_layers
    backwards = {token: vectors.flip(0) for token, vectors in vectors_of(concept.tokens).items()}
    with pico.folded(concept):
        expected, expected_latents = features(pico, PROMPTS), latents(pico, PROMPTS)
    with pico.folded(replace(concept, tokens=tokens_of(backwards, names[::-1]))):
        assert torch.equal(features(pico, PROMPTS), expected)
        assert torch.equal(latents(pico, PROMPTS), expected_latents)


def test_features_of_another_width_are_refused(pico):
    """Such as those that were made while other tokens were in."""
    with torch.no_grad():
        plain = features(pico, PROMPTS)
    message = "text features have the width 48; allowed are 24, the text encoders' own, and 96, as they give them while"
    with untouched(pico), putting(pico, {"<anna>": random_vectors(LAYERS, DIM)}):
        with pytest.raises(BaseModelError, match=message):
            latents(pico, None, prompt_embeds=plain.repeat(1, 1, 2), guidance_scale=1.0)


def test_a_pipeline_folder_cannot_hold_them(pico, tmp_path):
    both = merge([(make_concept(pico, "anna", layerwise=True), 1.0), (make_concept(pico, "rex", seed=1), 1.0)])
    with pico.folded(both), pytest.raises(ConfigurationError) as error:
        pico.save(tmp_path / "merged")
    assert "tokens <anna> have vectors of single cross-attention layers" in str(error.value)
    assert "token_vectors = 'shared'" in str(error.value) and not (tmp_path / "merged").exists()
