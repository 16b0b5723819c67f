"""Tokens as an embedding."""

from __future__ import annotations

import pytest
import torch

from orthoplex.concepts import Concept, concept_embedding
from orthoplex.concepts.tokens.vector import Vector
from orthoplex.errors import ConfigurationError
from tests.pico import make_manifest, tokens_of


def test_rows_are_in_the_order_of_a_prompt():
    rows = {f"<anna>_{i}" if i else "<anna>": torch.full((3,), float(i)) for i in range(12)}
    (embedding,) = concept_embedding(Concept(make_manifest(), {}, tokens_of(dict(sorted(rows.items()))))).values()
    assert embedding.shape == (12, 3) and embedding[:, 0].tolist() == list(range(12))


def test_every_text_encoder_has_its_own():
    tokens = {"<anna>": Vector({"text_encoder_2": torch.ones(5), "text_encoder": torch.zeros(3).half()})}
    embedding = concept_embedding(Concept(make_manifest(), {}, tokens))
    assert {encoder: tuple(rows.shape) for encoder, rows in embedding.items()} == {
        "text_encoder": (1, 3),
        "text_encoder_2": (1, 5),
    }
    assert list(embedding) == ["text_encoder", "text_encoder_2"] and embedding["text_encoder"].dtype == torch.float32


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ({}, "concept anna has no tokens, allowed for an embedding is at least one"),
        (
            tokens_of({"<anna>": torch.ones(2, 3)}, ("a", "b")),
            "token '<anna>' of concept anna has a vector for each of 2 cross-attention layers, which no embed",
        ),
        (
            tokens_of({"<anna>": torch.ones(3)}, keys_values={"<anna>": {"a": torch.ones(2, 4)}}),
            "has a key and a value for each of 1 cross-attention layers, which no embedding file holds; allowed are t",
        ),
    ],
)
def test_what_no_embedding_holds_is_refused(tokens, message):
    with pytest.raises(ConfigurationError, match=message):
        concept_embedding(Concept(make_manifest(), {}, tokens))
