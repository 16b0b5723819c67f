"""Weights, chunks and long prompts, against their definition and against compel used alone."""

from __future__ import annotations

import copy
import itertools
import math
import random
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from orthoplex.errors import MissingExtraError, PromptError
from orthoplex.generation import generate, read_prompt
from orthoplex.merging import merge
from orthoplex.models import Fragment, Prompt
from orthoplex.models.quiet import quiet
from orthoplex.models.words.weighted import chunks_at_once
from orthoplex.models.words.words import Reader
from tests.pico import MAX_LENGTH, make_concept

with quiet():
    from compel import Compel
    from compel.embeddings_provider import EmbeddingsProvider

KINDS = [{}, {"num_vectors": 3}, {"layerwise": True}, {"keys_values": True, "num_vectors": 2}]


@torch.no_grad()
def features(base, *chunks):
    """Of chunks of (text, weight)."""
    return seen_of(base, Prompt("", tuple(tuple(Fragment(*part) for part in chunk) for chunk in chunks)))


@torch.no_grad()
def seen_of(base, prompt):
    return base.family.condition_weighted(prompt).features


@torch.no_grad()
def plain(base, prompt):
    return base.family.condition([prompt]).features


@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_moves_features_away_from_those_of_the_empty_prompt(pico, kind):
    with pico.folded(make_concept(pico, **kind)):
        places = pico.family.words.places(pico.family.words.ids(["a <anna> cat"]), pico.tokens)[0].any(0)
        without, with_text = plain(pico, ""), plain(pico, "a <anna> cat")
        expected = with_text.clone()
        expected[:, places] = without[:, places] + 1.4 * (with_text[:, places] - without[:, places])
        seen = features(pico, [("a ", 1), ("<anna>", 1.4), (" cat", 1)])
        torch.testing.assert_close(seen, expected)
        assert not torch.equal(seen, with_text)
        torch.testing.assert_close(features(pico, [("a <anna> ", 1), ("cat", 1)]), with_text)


@torch.no_grad()
def masked(base, prompt, places):
    """The features of a prompt whose text encoder does not see some positions."""
    network, ids = base.pipeline.text_encoder, base.family.words.ids([prompt])
    mask = torch.ones_like(ids)
    mask[0, places] = 0
    return network(ids, mask)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_weights_below_one_blend_with_the_prompt_in_which_the_words_are_masked(pico, kind):
    """``(z_w + Σ t_i z_without_i) / (1 + Σ t_i)`` with ``t_i = tan((1 - w_i) π / 2)``."""
    with pico.folded(make_concept(pico, **kind)):
        words = pico.family.words
        anna = words.places(words.ids(["a <anna> cat"]), pico.tokens)[0].any(0).nonzero().flatten()
        cat, empty = anna[-1:] + 1, plain(pico, "")

        def moved(features):
            result = features.clone()
            for places, weight in ((anna, 0.25), (cat, 0.5)):
                result[:, places] = empty[:, places] + weight * (features[:, places] - empty[:, places])
            return result

        first, second = (math.tan((1 - weight) * math.pi / 2) for weight in (0.25, 0.5))
        total = moved(plain(pico, "a <anna> cat")) + first * moved(masked(pico, "a <anna> cat", anna))
        expected = (total + second * moved(masked(pico, "a <anna> cat", cat))) / (1 + first + second)
        torch.testing.assert_close(features(pico, [("a ", 1), ("<anna>", 0.25), (" cat", 0.5)]), expected)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("a (red:1.4) cat", "a (red)1.4 cat"),
        ("a (red:0.5) cat in the (night:1.2)", "a (red)0.5 cat in the (night)1.2"),
        (f"a (red:1.4) cat, {'a dog by day, ' * 12}a man", f"a (red)1.4 cat, {'a dog by day, ' * 12}a man"),
        ("a cat BREAK a (red:1.4) dog", ("a cat", "a (red)1.4 dog")),
    ],
)
def test_features_and_pictures_are_those_of_compel_alone(pico, ours, theirs):
    pipeline = pico.pipeline
    compel = Compel(pipeline.tokenizer, pipeline.text_encoder, truncate_long_prompts=False)
    with torch.no_grad(), quiet():
        parts = [theirs] if isinstance(theirs, str) else theirs
        expected = torch.cat([compel(part) for part in parts], dim=1)
        expected, negative = compel.pad_conditioning_tensors_to_same_length([expected, compel("night")])
        seen = seen_of(pico, read_prompt(ours, ()))
    torch.testing.assert_close(seen, expected)
    options = {"num_inference_steps": 2, "guidance_scale": 4.0}
    generator = torch.Generator().manual_seed(3)
    picture = pipeline(prompt_embeds=expected, negative_prompt_embeds=negative, generator=generator, **options).images[
        0
    ]
    own = generate(pico, ours, negative_prompt="night", seed=3, **options)[0]
    assert np.abs(np.asarray(own, np.int16) - np.asarray(picture, np.int16)).max() <= 1


@pytest.mark.parametrize("prompt", ["cat. " * 3 + "dog " * 28, "cat! cat; cat, " + "dog " * 28, "dog " * 31])
def test_all_text_encoders_get_the_chunks_that_the_shortest_can_read(pico, prompt):
    reader = pico.family.readers[0]
    tokenizer = copy.deepcopy(reader.tokenizer)
    tokenizer.model_max_length = MAX_LENGTH // 2
    short = Reader(SimpleNamespace(tokenizer=tokenizer, text_encoder=reader.network))
    read = read_prompt(prompt, ())
    both = chunks_at_once([reader, short], read)
    assert both == chunks_at_once([short], read) and both != chunks_at_once([reader], read)
    for chunks, limit in ((both, MAX_LENGTH // 2 - 2), (chunks_at_once([reader], read), MAX_LENGTH - 2)):
        assert "".join(part.text for chunk in chunks for part in chunk).split() == prompt.split()
        assert all(len(reader.words(part.text)) <= limit for chunk in chunks for part in chunk)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("cat. dog, man " + "dog " * 28, ["cat.", " dog,", " man" + " dog" * 28]),
        ("cat! " + "dog " * 30, ["cat!", " dog" * 30]),
        ("dog " * 31, ["dog" + " dog" * 29, " dog"]),
        ("q" * 45, ["q" * 22, "q" * 23]),
    ],
)
def test_long_prompts_are_divided_behind_sentences_phrases_words_and_letters(pico, prompt, expected):
    chunks = chunks_at_once(pico.family.readers, read_prompt(prompt, ()))
    assert [[part.text for part in chunk] for chunk in chunks] == [[text] for text in expected]


def test_a_text_encoder_computes_where_the_pipeline_says(pico, monkeypatch):
    """Offloaded weights wait elsewhere; the device of pictures is asked for."""
    asked = []
    original = EmbeddingsProvider.get_embeddings_for_weighted_prompt_fragments

    def recording(self, *arguments, device):
        asked.append((device, self.device, self.text_encoder.device))
        return original(self, *arguments, device=device)

    monkeypatch.setattr(EmbeddingsProvider, "get_embeddings_for_weighted_prompt_fragments", recording)
    device = torch.device("cpu", 0)  # which equals no other name of it
    monkeypatch.setattr(type(pico.pipeline), "_execution_device", device)
    generate(pico, "a (cat:1.2) BREAK [dog]", num_inference_steps=1)
    assert asked == [(device, device, device)] * 2


@pytest.mark.gpu
@pytest.mark.parametrize("prompt", ["a cat", "a (cat:1.4) and a (dog:0.6) BREAK a man", "dog " * 40])
def test_prompts_on_an_offloaded_base_draw_what_they_draw_on_the_device(pico, prompt):
    base, options = copy.deepcopy(pico), {"num_inference_steps": 2, "negative_prompt": "(night:1.2)"}
    base.pipeline.to("cuda")
    expected = generate(base, prompt, **options)[0]
    base.pipeline.to("cpu")
    base.pipeline.enable_model_cpu_offload()
    for _ in range(2):
        seen = generate(base, prompt, **options)[0]
        assert np.abs(np.asarray(seen, np.int16) - np.asarray(expected, np.int16)).max() <= 1


def test_chunks_lie_behind_one_another(pico):
    both = features(pico, [("a cat", 1)], [("a dog", 1)])
    torch.testing.assert_close(both, torch.cat([plain(pico, "a cat"), plain(pico, "a dog")], dim=1))


@pytest.mark.parametrize(
    "prompt", ["<anna>" * 9, "<anna> " * 9, "(<anna>:1.2)" * 9, "cat " + "<anna>" * 8 + "(<anna>:1.2)"]
)
def test_a_concepts_tokens_stay_in_one_chunk(pico, prompt):
    with pico.folded(make_concept(pico, num_vectors=4)):
        reader, seen = pico.family.readers[0], []
        read = read_prompt(prompt, pico.tokens)
        hook = reader.network.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0][0]))
        length = seen_of(pico, read).shape[1]
        hook.remove()
        numbers = reader.ids_of(["<anna>", "<anna>_1", "<anna>_2", "<anna>_3"])
        words = [[number for number in ids.tolist() if number in numbers] for ids in seen]
    assert length == 2 * MAX_LENGTH
    assert sorted(len(row) for row in words if row) == [8, 28]
    assert all(row == numbers * (len(row) // 4) for row in words)


@pytest.mark.parametrize("text", ["", " ", "\u00a0", "\n\t"])
def test_words_without_tokens_are_the_empty_prompt(pico, text):
    torch.testing.assert_close(features(pico, [(text, 0.5)]), plain(pico, ""))
    torch.testing.assert_close(features(pico, [("a cat", 1), (text, 0.5)]), plain(pico, "a cat"))


PIECES = [
    *["cat", "a dog", "!", "é", "猫", ", ", ". ", " ", "\n", "(", ")", "[", "]", ":1.2)", ":0)", "\\(", " BREAK "],
    *["<anna>", "<rex> ", "(<anna>:0.3)", "(! wow:0.5)", "cat " * 9, "<anna>" * 5, "\u200b", "(\u00a0:0.5)"],
]


@pytest.mark.slow
@pytest.mark.parametrize("pad", ["<|endoftext|>", "!"])  # the latter as in Stable Diffusion 2
def test_any_prompt_that_is_understood_has_finite_features_of_whole_chunks(pico, monkeypatch, pad):
    chance, concepts = random.Random(0), [make_concept(pico, num_vectors=4, layerwise=True)]
    concepts.append(make_concept(pico, "rex", keys_values=True, seed=1))
    monkeypatch.setattr(pico.pipeline, "tokenizer", copy.deepcopy(pico.pipeline.tokenizer))
    pico.pipeline.tokenizer.pad_token = pad
    with pico.folded(merge([(concept, 1.0) for concept in concepts], algorithm="sum")), torch.no_grad():
        for _ in range(400):
            prompt = "".join(chance.choice(PIECES) for _ in range(chance.randint(1, 14)))
            try:
                read = read_prompt(prompt, pico.tokens)
            except PromptError as error:
                assert len(str(error).splitlines()) == 1
                continue
            seen = seen_of(pico, read)
            assert torch.isfinite(seen).all() and seen.shape[1] % MAX_LENGTH == 0


@pytest.mark.parametrize(("prompt", "negative"), [("a cat and <anna>", ""), ("a cat", "<anna>")])
def test_a_concept_longer_than_the_text_encoder_reads_is_refused(pico, prompt, negative):
    key = "negative_prompt" if negative else "prompt"
    with pico.folded(make_concept(pico, selection="none", num_vectors=31)):
        with pytest.raises(PromptError) as error:
            generate(pico, prompt, negative_prompt=negative)
    assert str(error.value) == f"{key} names '<anna>', which has 31 tokens; the base reads at most 30 at once"


def test_without_the_extra_only_plain_prompts_are_drawn(pico, monkeypatch):
    monkeypatch.setitem(sys.modules, "compel.embeddings_provider", None)
    generate(pico, r"a cat \(red\)", num_inference_steps=1)
    for key, prompt in itertools.product(("prompt", "negative_prompt"), ("a cat\n(red)", "a cat BREAK b", "cat " * 31)):
        with pytest.raises(MissingExtraError) as error:
            generate(pico, **{"prompt": "a cat", key: prompt}, num_inference_steps=1)
        assert str(error.value).startswith(f"{key} '{prompt[:3]}") and "\n" not in str(error.value)
        assert str(error.value).endswith("install the extra: pip install 'orthoplex[prompts]'")
