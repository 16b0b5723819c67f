"""Keys and values of a token's own: added at its positions, nowhere else, and nothing is left behind."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from orthoplex.activations import gather_grams, observed_inputs
from orthoplex.concepts.tokens.masked_lora import MaskedLora
from orthoplex.errors import BaseModelError, ConfigurationError
from orthoplex.merging import merge
from tests.models.test_vectors import (
    DIM,
    LAYERS,
    PROMPTS,
    encode,
    features,
    keys,
    latents,
    putting,
    random_vectors,
    untouched,
)
from tests.pico import linear_layers, make_concept, plain_tokens, tokens_of


def of_tokens(base, count, *, seed=0):
    """Layer to what is added to keys and values of each of some tokens, ``(count, 2, out)``."""
    generator = torch.Generator().manual_seed(seed)
    return {layer: torch.randn(count, 2, width, generator=generator) for layer, width in base.key_widths.items()}


def of_token(added, position=0):
    return {layer: values[position] for layer, values in added.items()}


def adding(base, vectors, added):
    """The base with tokens in that add keys and values, token to layer to ``(2, out)``."""
    return base.with_tokens(tokens_of(vectors, keys_values=added))


def added_of(concept):
    """Token to layer to what is added to its key and value."""
    return {token: item.placement.keys_values for token, item in concept.tokens.items()}


def without_added(change):
    """A concept or merge whose tokens add nothing to keys and values."""
    return replace(change, tokens=plain_tokens(change.tokens))


@contextmanager
def added_by_hand(base, positions, added):
    """Add ``added[layer][:, row]`` to keys (row 0) and values (row 1) where ``positions (n, length, k)`` are true."""
    handles, linears = [], linear_layers(base, "cross-attention-kv")
    for layer, values in added.items():
        for row, name in enumerate(("to_k", "to_v")):
            term = positions.float() @ values[:, row]
            handles.append(linears[f"{layer}.{name}"].register_forward_hook(lambda m, a, y, term=term: y + term))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def positions_of(base, prompts, tokens):
    tokenizer = base.pipeline.tokenizer
    ids = tokenizer(prompts, padding="max_length", max_length=32, return_tensors="pt").input_ids
    return torch.stack([ids == tokenizer.convert_tokens_to_ids(token) for token in tokens], dim=-1)


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_they_are_what_is_added_by_hand(pico, guidance_scale):
    """Two tokens, twice in a prompt and in the negative one, two pictures a prompt, a prompt without any."""
    vectors, added = random_vectors(2, DIM), of_tokens(pico, 2)
    tokens = {"<anna>": vectors[0], "<rex>": vectors[1]}
    prompts, negative = ["<anna> and <rex> and <anna>", "a cat"], ["a red <rex>", "a red <rex>"]
    options = {"negative_prompt": negative, "num_images_per_prompt": 2, "guidance_scale": guidance_scale}
    with putting(pico, tokens):
        seen = prompts if guidance_scale == 1.0 else [*negative, *prompts]
        positions = positions_of(pico, seen, tokens).repeat_interleave(2, dim=0)
        assert positions.sum() == (2 * 3 if guidance_scale == 1.0 else 2 * 5)
        with added_by_hand(pico, positions, added):
            expected = latents(pico, prompts, **options)
        before = latents(pico, prompts, **options)
    with adding(pico, tokens, {token: of_token(added, i) for i, token in enumerate(tokens)}):
        found = latents(pico, prompts, **options)
    assert torch.equal(found, expected)
    assert not torch.allclose(found[:2], before[:2], atol=1e-3)
    if guidance_scale == 1.0:
        assert torch.equal(found[2:], before[2:])


def test_prompts_without_the_token_are_as_before_bit_by_bit(pico):
    plain, before = features(pico, ["a cat", ""]), latents(pico, ["a cat", "a dog"], negative_prompt=["a red", ""])
    with pico.folded(make_concept(pico, selection="none", keys_values=True)):
        wide = features(pico, ["a cat", ""])
        assert wide.shape[-1] == DIM + 1 and not wide[..., DIM:].any() and torch.equal(wide[..., :DIM], plain)
        assert torch.equal(latents(pico, ["a cat", "a dog"], negative_prompt=["a red", ""]), before)


def test_features_of_ordinary_width_pass_as_they_are(pico):
    with torch.no_grad():
        given = {"prompt_embeds": features(pico, ["a cat"]), "negative_prompt_embeds": features(pico, [""])}
    before = latents(pico, None, **given)
    with pico.folded(make_concept(pico, selection="none", keys_values=True)):
        latents(pico, ["a photo of <anna>"])  # whose marks are forgotten
        assert torch.equal(latents(pico, None, **given), before)


def test_a_concept_alone_is_the_same_among_others_bit_by_bit(pico):
    """Nothing that such concepts add can meet, however many there are."""
    concepts = [
        make_concept(pico, name, selection="none", num_vectors=2, keys_values=True, seed=seed)
        for seed, name in enumerate(("anna", "rex", "tom"))
    ]
    merged = merge([(concept, 1.0) for concept in concepts])
    for concept in concepts:
        prompts = [f"a photo of <{concept.name}>"]
        with pico.folded(concept):
            alone = latents(pico, prompts)
        with pico.folded(merge([(concept, 1.0)])):
            assert torch.equal(latents(pico, prompts), alone)
        with pico.folded(merged):
            assert torch.equal(latents(pico, prompts), alone)


def test_each_of_two_in_a_prompt_adds_its_own(pico):
    anna, rex = (make_concept(pico, name, selection="none", keys_values=True) for name in ("anna", "rex"))
    opposite = {layer: -values for layer, values in added_of(anna)["<anna>"].items()}
    rex = replace(rex, tokens={"<rex>": replace(rex.tokens["<rex>"], keys_values=opposite)})
    both = merge([(anna, 1.0), (rex, 1.0)])
    linears = linear_layers(pico, "cross-attention-kv")
    layer = pico.cross_attention_layers[0]
    seen = []
    for change in (both, without_added(both)):
        with pico.folded(change):
            positions = positions_of(pico, ["<anna> and <rex>"], ["<anna>", "<rex>"])[0]
            handle = linears[f"{layer}.to_k"].register_forward_hook(lambda m, a, y: seen.append(y.detach()))
            latents(pico, ["<anna> and <rex>"], num_inference_steps=1, guidance_scale=1.0)
            handle.remove()
    moved, delta = (seen[0] - seen[1])[0], added_of(anna)["<anna>"][layer][0]
    torch.testing.assert_close(moved[positions[:, 0]], delta.unsqueeze(0))
    torch.testing.assert_close(moved[positions[:, 1]], -delta.unsqueeze(0))
    assert not moved[~positions.any(1)].any()


def test_strength_changes_weights_alone(pico):
    concept = make_concept(pico, keys_values=True)
    merged = merge([(concept, 0.25)])
    assert merged.tokens == concept.tokens and merged.layers.keys() == concept.layers.keys()


def test_beside_layerwise_and_shared_tokens(pico):
    """The prompt's layers see what they see without keys and values, and these are added to it."""
    anna = make_concept(pico, "anna", layerwise=True)
    rex = make_concept(pico, "rex", seed=1)
    tom = make_concept(pico, "tom", num_vectors=2, keys_values=True, seed=2)
    together = merge([(anna, 1.0), (rex, 1.0), (tom, 1.0)])
    prompts = ["<anna> and <rex> and <tom>", "a cat and <tom>", "<anna>"]
    spelled_out = [prompt.replace("<tom>", "<tom> <tom>_1") for prompt in prompts]  # as the pipeline does it
    with untouched(pico):
        with pico.folded(without_added(together)):
            plain = features(pico, spelled_out)
            positions = positions_of(pico, spelled_out, tom.tokens)
            added = {layer: torch.stack([own[layer] for own in added_of(tom).values()]) for layer in pico.key_widths}
            with added_by_hand(pico, positions, added):
                expected = latents(pico, prompts, guidance_scale=1.0)
        with pico.folded(together):
            wide = features(pico, spelled_out)
            assert wide.shape[-1] == LAYERS * DIM + 2 and torch.equal(wide[..., : LAYERS * DIM], plain)
            assert torch.equal(wide[..., LAYERS * DIM :].bool(), positions)
            assert torch.equal(latents(pico, prompts, guidance_scale=1.0), expected)


def test_one_kind_is_taken_out_while_the_other_stays(pico):
    added = of_token(of_tokens(pico, 1))
    with untouched(pico), adding(pico, {"<anna>": random_vectors(DIM)}, {"<anna>": added}):
        narrow, before = features(pico, PROMPTS), latents(pico, PROMPTS)
        with putting(pico, {"<rex>": random_vectors(LAYERS, DIM, seed=1)}):
            assert features(pico, PROMPTS).shape[-1] == LAYERS * DIM + 1
            assert torch.equal(latents(pico, PROMPTS), before)
        assert torch.equal(features(pico, PROMPTS), narrow)
    with untouched(pico), putting(pico, {"<rex>": random_vectors(LAYERS, DIM, seed=1)}):
        with adding(pico, {"<anna>": random_vectors(DIM)}, {"<anna>": added}):
            assert torch.equal(latents(pico, PROMPTS), before)
        assert features(pico, PROMPTS[1:]).shape[-1] == LAYERS * DIM


def test_states_and_pooled_output_stay_usable(pico):
    tokens, encoder = {"<anna>": random_vectors(DIM)}, pico.pipeline.text_encoder
    with putting(pico, tokens):
        plain = encode(pico, PROMPTS, output_hidden_states=True)
        normed = encoder.final_layer_norm(plain.hidden_states[-2])
        positions = positions_of(pico, PROMPTS, tokens)
    with adding(pico, tokens, {"<anna>": of_token(of_tokens(pico, 1))}):
        wide = encode(pico, PROMPTS, output_hidden_states=True)
        as_tuple = encode(pico, PROMPTS, return_dict=False)
        again = encoder.final_layer_norm(wide.hidden_states[-2])
    assert torch.equal(wide.pooler_output, plain.pooler_output) and torch.equal(as_tuple[1], plain.pooler_output)
    assert torch.equal(again[..., :DIM], normed) and torch.equal(again[..., DIM:].bool(), positions)
    for states, expected in zip((*wide.hidden_states, as_tuple[0]), (*plain.hidden_states, plain[0]), strict=True):
        assert torch.equal(states[..., :DIM], expected) and torch.equal(states[..., DIM:].bool(), positions)


def denoised(base, wide):
    unet, generator = base.pipeline.unet, torch.Generator().manual_seed(0)
    return unet(torch.randn(len(wide), 4, 8, 8, generator=generator), 500, wide).sample


def test_a_gradient_reaches_the_keys_and_values_of_the_tokens_in_the_prompt(pico):
    learned = {layer: values.requires_grad_() for layer, values in of_tokens(pico, 2).items()}
    rows = {"<anna>": random_vectors(DIM), "<rex>": random_vectors(DIM)}
    own = tokens_of(rows, keys_values={token: of_token(learned, i) for i, token in enumerate(rows)})
    with putting(pico, rows):
        with pico.replaced_tokens(own):
            denoised(pico, features(pico, ["a photo of <rex>", "a cat"])).square().sum().backward()
            for values in learned.values():
                assert values.grad is not None and not values.grad[0].any() and values.grad[1].any(dim=1).all()
                values.grad = None
            denoised(pico, features(pico, ["", "a cat"])).sum().backward()
    assert all(values.grad is not None and not values.grad.any() for values in learned.values())


def test_what_is_put_in_last_counts(pico):
    first, second, row = of_tokens(pico, 2), of_tokens(pico, 1, seed=1), random_vectors(1, 1, 1, DIM, seed=3)
    tokens = dict(zip(("<anna>", "<rex>"), random_vectors(2, DIM), strict=True))
    prompts = ["<anna> and <rex>"]
    last = {"<anna>": of_token(first), "<rex>": of_token(second)}
    with adding(pico, tokens, last):
        expected = latents(pico, prompts)
    with adding(pico, {"<anna>": tokens["<anna>"], "<rex>": row[0, 0, 0]}, {"<anna>": of_token(first)}):
        foreign = latents(pico, prompts)
    with untouched(pico):
        with adding(pico, tokens, {token: of_token(first, i) for i, token in enumerate(tokens)}):
            own = tokens_of(tokens, keys_values={"<rex>": of_token(second)})
            with pico.replaced_tokens({"<rex>": own["<rex>"]}):
                assert torch.equal(latents(pico, prompts), expected)
                with pico.replaced_vectors(["<rex>"], row):
                    assert features(pico, prompts).shape[-1] == DIM + 2
                    assert torch.equal(latents(pico, prompts), foreign)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_outputs_keep_their_type(pico, dtype):
    tokens, added = {"<anna>": random_vectors(DIM)}, of_token(of_tokens(pico, 1))
    seen = []
    projection = next(iter(keys(pico).values()))
    with adding(pico, tokens, {"<anna>": added}), torch.autocast("cpu", dtype):
        handle = projection.register_forward_hook(lambda m, a, y: seen.append(y))
        found = denoised(pico, features(pico, PROMPTS))
        handle.remove()
    assert seen[0].dtype == dtype and torch.isfinite(found).all()


def test_inputs_of_the_projections_are_the_features_alone(pico):
    concept = make_concept(pico, keys_values=True)
    layers = [f"{layer}.to_k" for layer in pico.cross_attention_layers]
    grams = gather_grams(pico, layers, ["a photo of <anna>"], change=concept, num_inference_steps=1)
    with pico.folded(without_added(concept)):
        x = features(pico, ["a photo of <anna>"])[0]
    for layer in layers:
        torch.testing.assert_close(grams[layer], x.T @ x / len(x), rtol=1e-4, atol=1e-5)


def test_nothing_is_left_behind_also_after_errors(pico):
    with untouched(pico):
        with pytest.raises(ZeroDivisionError), pico.folded(make_concept(pico, keys_values=True)):
            latents(pico, PROMPTS)
            raise ZeroDivisionError
        with pico.folded(make_concept(pico, keys_values=True)), observed_inputs(keys(pico), _failing):
            with pytest.raises(ZeroDivisionError):
                latents(pico, PROMPTS)


def _failing(layer, linear, x):
    raise ZeroDivisionError


def test_others_than_the_bases_layers_are_refused(pico):
    concept, names = make_concept(pico, keys_values=True), pico.cross_attention_layers
    own = added_of(concept)["<anna>"]
    whole = "token '<anna>' has a key and a value for each of"
    for changed, message in (
        ({**own, "unet.nowhere": own[names[0]]}, f"{whole} 5 .* has 4; layer 'unet.nowhere' is not in the base"),
        ({layer: own[layer] for layer in names[1:]}, f"{whole} 3 .*; layer '{names[0]}' is missing in the token"),
        ({**own, names[2]: torch.zeros(2, 7)}, rf"'{names[2]}' have shape \(2, 7\), allowed is \(2, 32\)"),
        ({**own, names[2]: torch.zeros(32)}, rf"'{names[2]}' have shape \(32,\), allowed is \(2, 32\)"),
    ):
        other = replace(concept, tokens={"<anna>": replace(concept.tokens["<anna>"], keys_values=changed)})
        with untouched(pico), pytest.raises(BaseModelError, match=message):
            pico.fold(other)
        assert pico.recipe is None


def test_a_pipeline_folder_cannot_hold_them(pico, tmp_path):
    concepts = [make_concept(pico, "anna", keys_values=True), make_concept(pico, "rex", seed=1)]
    with pico.folded(merge([(concept, 1.0) for concept in concepts])), pytest.raises(ConfigurationError) as error:
        pico.save(tmp_path / "merged")
    assert "tokens <anna> have vectors of single cross-attention layers" in str(error.value)
    assert not (tmp_path / "merged").exists()


def test_maps_change_keys_and_values_where_their_token_stands_and_nowhere_else(pico):
    """Of two tokens with maps of different ranks, beside one that adds keys and values."""
    generator = torch.Generator().manual_seed(0)
    vectors = random_vectors(3, DIM)
    ranks = {"<anna>": 1, "<rex>": 3}
    factors = {
        token: {
            layer: (torch.randn(2, r, DIM, generator=generator), torch.randn(2, width, r, generator=generator))
            for layer, width in pico.key_widths.items()
        }
        for token, r in ranks.items()
    }
    masked = [
        MaskedLora(
            {"text_encoder": vectors[i]},
            {layer: down for layer, (down, _) in factors[token].items()},
            {layer: up for layer, (_, up) in factors[token].items()},
        )
        for i, token in enumerate(ranks)
    ]
    plain = tokens_of(dict(zip((*ranks, "<tom>"), vectors, strict=True)))
    added = {"<tom>": of_token(of_tokens(pico, 1))}
    prompts = ["<rex> and <anna> and <tom>", "a cat"]
    linears, handles = linear_layers(pico, "cross-attention-kv"), []
    with pico.with_tokens({"<tom>": tokens_of({"<tom>": vectors[2]}, keys_values=added)["<tom>"]}):
        with pico.with_tokens({token: plain[token] for token in ranks}):
            positions = positions_of(pico, prompts, ranks).float()
            for layer in pico.key_widths:
                for row, name in enumerate(("to_k", "to_v")):

                    def by_hand(module, arguments, output, layer=layer, row=row):
                        for i, token in enumerate(ranks):
                            down, up = factors[token][layer]
                            output = output + positions[..., i : i + 1] * (arguments[0] @ down[row].T @ up[row].T)
                        return output

                    handles.append(linears[f"{layer}.{name}"].register_forward_hook(by_hand))
            expected = latents(pico, prompts, guidance_scale=1.0)
            for handle in handles:
                handle.remove()
            before = latents(pico, prompts, guidance_scale=1.0)
        with pico.with_tokens(dict(zip(ranks, masked, strict=True))):
            found = latents(pico, prompts, guidance_scale=1.0)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found[0], before[0], atol=1e-3) and torch.equal(found[1], before[1])


@pytest.mark.parametrize(
    ("down", "up", "message"),
    [
        ((2, 1, 5), (2, 24, 1), r"maps of layer '.*' have shapes \(2, 1, 5\) and .*, allowed are \(2, r, "),
        ((2, 2, DIM), (2, 24, 1), "allowed are"),
    ],
)
def test_maps_of_other_widths_are_refused_by_name(pico, down, up, message):
    layers = pico.cross_attention_layers
    masked = MaskedLora(
        {"text_encoder": torch.ones(DIM)},
        dict.fromkeys(layers, torch.ones(down)),
        dict.fromkeys(layers, torch.ones(up)),
    )
    with untouched(pico), pytest.raises(BaseModelError, match=message), pico.with_tokens({"<anna>": masked}):
        pass
    few = MaskedLora(
        {"text_encoder": torch.ones(DIM)}, {layers[0]: torch.ones(2, 1, DIM)}, {layers[0]: torch.ones(2, 8, 1)}
    )
    with pytest.raises(BaseModelError, match="token '<anna>' has maps for each of 1 cross-attention layers"):
        with pico.with_tokens({"<anna>": few}):
            pass
