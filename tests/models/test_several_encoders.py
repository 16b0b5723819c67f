"""Tokens in a base with two text encoders of different widths, whose tokenizers number tokens differently."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from orthoplex.concepts.tokens.keys_values import KeysValues
from orthoplex.concepts.tokens.layer_vectors import LayerVectors
from orthoplex.concepts.tokens.vector import Vector
from orthoplex.errors import BaseModelError, ConfigurationError
from orthoplex.models.words.extension import TokenExtension
from orthoplex.models.words.replacement import Replacement
from orthoplex.models.words.tokens_in import TokensIn
from orthoplex.models.words.words import Reader, Words
from tests.pico import MAX_LENGTH, TEXT_WIDTH, build_text_encoder, build_tokenizer

WIDTHS = {"text_encoder": TEXT_WIDTH, "text_encoder_2": 16}
PROMPT = ["a photo of <anna>"]


class CrossAttention(nn.Module):
    """What hooks see of a cross-attention layer: its keys and values."""

    def __init__(self):
        super().__init__()
        self.to_k, self.to_v = (nn.Linear(sum(WIDTHS.values()), 8) for _ in range(2))

    def forward(self, hidden, encoder_hidden_states):
        return torch.stack([self.to_k(encoder_hidden_states), self.to_v(encoder_hidden_states)])


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        one, two = (build_tokenizer(folder / name) for name in ("one", "two"))
        two.add_tokens(["another"])
        sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        ends = {"bos_token_id": two.bos_token_id, "eos_token_id": two.eos_token_id, "pad_token_id": two.pad_token_id}
        config = CLIPTextConfig(vocab_size=len(two), max_position_embeddings=MAX_LENGTH, **sizes, **ends)
        return SimpleNamespace(
            tokenizer=one,
            tokenizer_2=two,
            text_encoder=build_text_encoder(one).eval(),
            text_encoder_2=CLIPTextModel(config).eval(),
            layers={name: CrossAttention() for name in ("first", "second", "third")},
        )


@pytest.fixture
def readers(pipeline):
    return [Reader(pipeline), Reader(pipeline, "text_encoder_2", "tokenizer_2")]


@pytest.fixture
def tokens_in(pipeline, readers):
    return TokensIn(readers, lambda: pipeline.layers)


def vectors(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {encoder: torch.randn(*shape, width, generator=generator) for encoder, width in WIDTHS.items()}


@torch.no_grad()
def features(readers):
    """What a pipeline concatenates."""
    return torch.cat([reader.network(reader.ids(PROMPT))[0] for reader in readers], dim=-1)


def read(pipeline, given):
    with torch.no_grad():
        return torch.stack([layer(None, encoder_hidden_states=given) for layer in pipeline.layers.values()])


def test_every_encoder_has_its_row_under_its_number(tokens_in, readers):
    own, before = vectors(), features(readers)
    with TokenExtension({"<anna>": Vector(own)}, tokens_in).put_in() as names:
        assert names == ("<anna>",) == Words(readers, seen="text_encoder").tokens
        numbers = [reader.ids_of(names)[0] for reader in readers]
        assert numbers[1] == numbers[0] + 1
        for reader, number in zip(readers, numbers, strict=True):
            assert torch.equal(reader.table[number], own[reader.component])
            assert (reader.ids(PROMPT) == number).sum() == 1
        inside = features(readers)
    assert torch.equal(features(readers), before) and not torch.allclose(inside, before, atol=1e-3)


def test_every_layer_reads_its_vector_of_every_encoder(tokens_in, readers, pipeline):
    own, layers, expected = vectors(3), tuple(pipeline.layers), []
    for i, layer in enumerate(pipeline.layers.values()):
        one = {encoder: rows[i] for encoder, rows in own.items()}
        with TokenExtension({"<anna>": Vector(one)}, tokens_in).put_in(), torch.no_grad():
            expected.append(layer(None, encoder_hidden_states=features(readers)))
    with TokenExtension({"<anna>": LayerVectors(own, layers)}, tokens_in).put_in():
        wide = features(readers)
        assert wide.shape[-1] == 3 * sum(WIDTHS.values())
        torch.testing.assert_close(read(pipeline, wide), torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_keys_and_values_are_added_once_where_the_token_stands(tokens_in, readers, pipeline):
    own = vectors()
    added = {layer: torch.randn(2, 8, generator=torch.Generator().manual_seed(1)) for layer in pipeline.layers}
    with TokenExtension({"<anna>": Vector(own)}, tokens_in).put_in():
        plain = read(pipeline, features(readers))
        place = Words(readers, seen="text_encoder").places(torch.cat([r.ids(PROMPT) for r in readers], 1), ["<anna>"])
    with TokenExtension({"<anna>": KeysValues(own, added)}, tokens_in).put_in():
        difference = read(pipeline, features(readers)) - plain
    expected = torch.stack([added[layer] for layer in pipeline.layers]).unsqueeze(2).unsqueeze(2) * place[0, 0].view(
        1, 1, 1, -1, 1
    )
    torch.testing.assert_close(difference, expected, rtol=1e-4, atol=1e-5)


def test_plain_vectors_of_all_encoders_are_split(tokens_in, readers):
    own, words = vectors(1, 1, 1), Words(readers, seen="text_encoder")
    split = words.split(torch.cat(list(own.values()), dim=-1))
    assert split.keys() == own.keys() and all(torch.equal(split[encoder], own[encoder]) for encoder in own)
    one = {encoder: rows[0, 0, 0] for encoder, rows in own.items()}
    with TokenExtension({"<anna>": Vector(one)}, tokens_in).put_in():
        expected = features(readers)
    zeros = {encoder: torch.zeros(width) for encoder, width in WIDTHS.items()}
    with TokenExtension({"<anna>": Vector(zeros)}, tokens_in).put_in():
        tokens_in.put(put := Replacement(("<anna>",), split))
        torch.testing.assert_close(features(readers), expected)
        tokens_in.take(put)


def test_a_replaced_encoder_is_noticed(tokens_in, readers, pipeline):
    layers, own = tuple(pipeline.layers), vectors(3)
    prepared = TokenExtension({"<anna>": LayerVectors(own, layers)}, tokens_in)
    original = pipeline.text_encoder
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        pipeline.text_encoder = build_text_encoder(pipeline.tokenizer).eval()
    try:
        message = "tokens <anna> were prepared for a base with other tokens, text encoders or weights than it has now"
        with pytest.raises(BaseModelError, match=message), prepared.put_in():
            pass
        with TokenExtension({"<anna>": LayerVectors(own, layers)}, tokens_in).put_in():
            assert pipeline.text_encoder(readers[0].ids(PROMPT))[0].shape[-1] == 3 * TEXT_WIDTH
            assert original(readers[0].ids(["a cat"]))[0].shape[-1] == TEXT_WIDTH
        assert not pipeline.text_encoder._forward_hooks and not pipeline.text_encoder._forward_pre_hooks
    finally:
        pipeline.text_encoder = original


def test_tokens_that_are_not_in_are_refused_and_leave_nothing(tokens_in, readers):
    before = features(readers)
    with TokenExtension({"<anna>": Vector(vectors())}, tokens_in).put_in():
        message = "token '<rex>' is none that tokenizer knows; allowed are <anna>"
        with pytest.raises(ConfigurationError, match=message):
            tokens_in.put(Replacement(("<rex>",), vectors(1, 1, 1)))
    with pytest.raises(ConfigurationError, match="is none that tokenizer_2 knows; allowed are none"):
        readers[1].ids_of(["<anna>"])
    assert torch.equal(features(readers), before)
