"""Weights, chunks and long prompts, against their definition and against compel used alone."""

from __future__ import annotations

import copy
import random
import sys

import numpy as np
import pytest
import torch

from orthoplex.errors import MissingExtraError, PromptError
from orthoplex.generation import generate, read_prompt
from orthoplex.merging import merge
from orthoplex.models import Fragment
from orthoplex.models.quiet import quiet
from orthoplex.models.words.weighted import weighted_features
from tests.pico import MAX_LENGTH, make_concept

with quiet():
    from compel import Compel

KINDS = [{}, {"num_vectors": 3}, {"layerwise": True}, {"keys_values": True, "num_vectors": 2}]


@torch.no_grad()
def features(base, *chunks):
    """Of chunks of (text, weight)."""
    text = WeightedText(tuple(tuple(Fragment(*part) for part in chunk) for chunk in chunks))
    return weighted_features(base.family.readers[0], text)


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


@pytest.mark.parametrize("kind", KINDS)
def test_less_weight_is_nearer_to_the_prompt_without_the_words(pico, kind):
    with pico.folded(make_concept(pico, **kind)):
        first, half, none = (features(pico, [("a ", 1), ("<anna>", w), (" cat", 1)])[:, -1] for w in (1, 0.5, 0))
        assert 0 < (first - half).norm() < (first - none).norm()


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
        seen = weighted_features(pico.family.readers[0], read_prompt(ours, ()).weighted)
    torch.testing.assert_close(seen, expected)
    options = {"num_inference_steps": 2, "guidance_scale": 4.0}
    generator = torch.Generator().manual_seed(3)
    picture = pipeline(prompt_embeds=expected, negative_prompt_embeds=negative, generator=generator, **options).images[
        0
    ]
    own = generate(pico, ours, negative_prompt="night", seed=3, **options)[0]
    assert np.abs(np.asarray(own, np.int16) - np.asarray(picture, np.int16)).max() <= 1


def test_chunks_lie_behind_one_another(pico):
    both = features(pico, [("a cat", 1)], [("a dog", 1)])
    torch.testing.assert_close(both, torch.cat([plain(pico, "a cat"), plain(pico, "a dog")], dim=1))


@pytest.mark.parametrize(
    "prompt", ["<anna>" * 9, "<anna> " * 9, "(<anna>:1.2)" * 9, "cat " + "<anna>" * 8 + "(<anna>:1.2)"]
)
def test_a_concepts_tokens_stay_in_one_chunk(pico, prompt):
    with pico.folded(make_concept(pico, num_vectors=4)):
        reader, seen = pico.family.readers[0], []
        read = read_prompt(prompt, pico.tokens).weighted
        hook = reader.network.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0][0]))
        length = weighted_features(reader, read).shape[1]
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
            seen = weighted_features(pico.family.readers[0], read.weighted)
            assert torch.isfinite(seen).all() and seen.shape[1] % MAX_LENGTH == 0


def test_a_concept_longer_than_the_text_encoder_reads_is_refused(pico):
    with pico.folded(make_concept(pico, selection="none", num_vectors=31)):
        with pytest.raises(PromptError, match="'<anna>', which has 31 tokens; the base reads at most 30 at once"):
            generate(pico, "a cat and <anna>")


def test_without_the_extra_only_plain_prompts_are_drawn(pico, monkeypatch):
    monkeypatch.setitem(sys.modules, "compel.embeddings_provider", None)
    generate(pico, r"a cat \(red\)", num_inference_steps=1)
    for prompt in ("a cat\n(red)", "a cat BREAK b", "cat " * 31):
        with pytest.raises(MissingExtraError) as error:
            generate(pico, prompt, num_inference_steps=1)
        assert str(error.value).startswith("prompt '" + prompt[:3]) and "\n" not in str(error.value)
        assert str(error.value).endswith("install the extra: pip install 'orthoplex[prompts]'")
