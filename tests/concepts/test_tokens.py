"""Tokens as values: what they do, what messages call them, and what the tokens of one concept have in common."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from orthoplex.concepts import Concept, save_concept
from orthoplex.concepts.tokens import learning_class, token_class
from orthoplex.concepts.tokens.checks import check_tokens
from orthoplex.concepts.tokens.keys_values import KeysValues, LearnedValues
from orthoplex.concepts.tokens.layer_vectors import LayerVectors
from orthoplex.concepts.tokens.masked_lora import MaskedLora
from orthoplex.concepts.tokens.stored import TokenNumbers
from orthoplex.concepts.tokens.token import Token, named_tensors
from orthoplex.concepts.tokens.vector import Vector
from orthoplex.errors import ConceptFileError
from tests.pico import make_manifest

VECTOR = Vector.of(torch.ones(3))
LAYERED = LayerVectors.of(torch.ones(2, 3), ("a", "b"))
KEYED = KeysValues.of(torch.ones(3), {"a": torch.ones(2, 4)})
MASKED = MaskedLora({"text_encoder": torch.ones(3)}, {"a": torch.ones(2, 1, 3)}, {"a": torch.ones(2, 4, 1)})
KINDS = {"vector": VECTOR, "layer-vectors": LAYERED, "keys-values": KEYED, "masked-lora": MASKED}


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_gives_its_class(kind):
    assert token_class(kind) is type(KINDS[kind]) and KINDS[kind].kind == kind
    assert learning_class("values") is LearnedValues


def test_one_vector_alone_is_a_row_that_any_folder_holds():
    assert [token.placement.is_one_vector for token in KINDS.values()] == [True, False, False, False]


def test_every_number_has_a_name():
    both = Vector({"text_encoder": torch.ones(3), "text_encoder_2": torch.zeros(5)})
    names = {name: tuple(tensor.shape) for name, tensor in named_tensors({"<anna>": both, "<rex>": KEYED})}
    assert names == {
        "token '<anna>' of text_encoder": (3,),
        "token '<anna>' of text_encoder_2": (5,),
        "token '<rex>'": (3,),
        "keys_values of token '<rex>' in layer 'a'": (2, 4),
    }


def test_tokens_of_no_text_encoder_are_refused():
    with pytest.raises(ConceptFileError, match="token '<a>' has vectors of no text encoder, allowed is at least one"):
        check_tokens({"<a>": Vector({})})


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_of_several_kinds_are_refused_on_saving(kind, tmp_path):
    other = LAYERED if kind == "vector" else VECTOR
    concept = Concept(make_manifest(), {}, {"<anna>": KINDS[kind], "<anna>_1": other})
    message = rf"anna.safetensors: token '<anna>_1' is of kind {other.kind}, allowed is that of '<anna>', {kind}"
    with pytest.raises(ConceptFileError, match=message):
        save_concept(concept, tmp_path / "anna.safetensors")
    assert not (tmp_path / "anna.safetensors").exists()


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (Vector.of(torch.ones(1, 3)), r"token '<b>' has shape \(1, 3\), allowed is \(dim,\)"),
        (
            replace(LAYERED, layers=("b", "a")),
            "'<b>' has vectors for layers b, a, allowed are those of token '<a>', a, b",
        ),
        (
            Vector.of(torch.ones(4)),
            r"token '<b>' has vectors \(4,\) of text_encoder, allowed are those of token '<a>', \(3,\) of text_encoder",
        ),
        (
            Vector({"text_encoder_2": torch.ones(3)}),
            r"'<b>' has vectors \(3,\) of text_encoder_2, allowed are those of token '<a>', \(3,\) of text_encoder",
        ),
        (LayerVectors.of(torch.ones(0, 3), ()), r"token '<b>' has shape \(0, 3\), allowed is \(dim,\)"),
        (replace(KEYED, keys_values={"a": torch.ones(4)}), r"'a' have shape \(4,\), allowed is \(2, out\), a key and"),
        (
            replace(KEYED, keys_values={"a": torch.ones(2, 5)}),
            r"'<b>' in layer 'a' have shape \(2, 5\), allowed is that of token '<a>', \(2, 4\)",
        ),
        (replace(KEYED, keys_values={}), "'<b>' in layer 'a' have shape none, allowed is that of token '<a>'"),
        (
            replace(MASKED, ups={"a": torch.ones(2, 4, 2)}),
            r"maps of token '<b>' in layer 'a' have shapes \(2, 1, 3\) and \(2, 4, 2\), allowed are \(2, r, in\) and",
        ),
        (
            replace(MASKED, ups={"a": torch.ones(2, 5, 1)}),
            r"key_value_maps of token '<b>' in layer 'a' have shape \(\(2, 1, 3\), \(2, 5, 1\)\), allowed is that of",
        ),
    ],
)
def test_what_tokens_of_one_concept_must_have_in_common(token: Token, message):
    with pytest.raises(ConceptFileError, match=message):
        check_tokens({"<a>": KINDS[token.kind], "<b>": token})
    check_tokens({"<a>": KINDS[token.kind], "<b>": KINDS[token.kind]})
    check_tokens({})


@pytest.mark.parametrize(
    ("downs", "ups", "message"),
    [
        ({"a": (1, 2, 1, 3)}, {"b": (1, 2, 4, 1)}, r"masked_down has layers \['a'\]; allowed are those of masked_up"),
        ({"a": (1, 2, 2, 3)}, {"a": (1, 2, 4, 1)}, r"layer 'a' have shapes \(1, 2, 2, 3\) and \(1, 2, 4, 1\); allowed"),
        ({"a": (1, 3)}, {"a": (1, 2, 4, 1)}, r"layer 'a' have shapes \(1, 3\) and"),
    ],
)
def test_factors_that_do_not_belong_together_are_refused(downs, ups, message):
    blocks = {
        "tokens": {"text_encoder": torch.ones(1, 3)},
        "masked_down": {layer: torch.ones(shape) for layer, shape in downs.items()},
        "masked_up": {layer: torch.ones(shape) for layer, shape in ups.items()},
    }
    with pytest.raises(ConceptFileError, match=message):
        MaskedLora.decode(TokenNumbers(("<anna>",), blocks))
