"""What holds for every kind of token, and for all of its learning. A new row in ``TOKENS`` is tested from here on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from orthoplex.concepts import TOKENS, Concept, Token, load_concept, read_manifest, save_concept
from orthoplex.concepts.tokens import RARE_WORD, learning_class, learnings, token_class
from orthoplex.concepts.tokens.learning import TokenGround, TokenLearning
from orthoplex.concepts.tokens.token import TEXT_ENCODER, named_tensors
from orthoplex.errors import BaseModelError
from orthoplex.models import Base
from tests.models.test_vectors import features, latents, untouched
from tests.pico import TEXT_WIDTH, make_manifest, tokens_of

NAMES = ("<anna>", "<anna>_1")
PROMPT = "a photo of <anna> <anna>_1 room"
SECOND = "text_encoder_2"

WITH_TOKENS = [option for option in learnings() if option != RARE_WORD]


def begin(base: Base, option: str, widths: Mapping[str, int] | None = None) -> TokenLearning:
    """Return how two tokens of a base learn by a value of ``token_vectors``, with random vectors to start from."""
    generator = torch.Generator().manual_seed(0)
    widths = widths or {TEXT_ENCODER: TEXT_WIDTH}
    start = {encoder: 0.02 * torch.randn(2, width, generator=generator) for encoder, width in widths.items()}
    ground = TokenGround(base.key_widths, lambda: dict.fromkeys(base.key_widths, (2.0, 3.0)))
    return learning_class(option)(start, ground)


def learned(learning: TokenLearning) -> dict[str, Token]:
    """Return the tokens of random numbers."""
    rows = learning.initial()
    moved = rows + torch.randn(rows.shape, generator=torch.Generator().manual_seed(1))
    return dict(zip(NAMES, learning.tokens(moved), strict=True))


def tokens_of_kind(base: Base, kind: str, widths: Mapping[str, int] | None = None) -> dict[str, Token]:
    """Return two tokens of a kind with random numbers."""
    return learned(begin(base, next(iter(TOKENS[kind].learnings)), widths))


def numbers(tokens: Mapping[str, Token]) -> dict[str, dict[str, Tensor]]:
    """Return everything that tokens do, as tensors after their names."""
    return {
        token: {
            **item.placement.vectors,
            **dict(named_tensors({token: item})),
        }
        for token, item in tokens.items()
    }


def assert_same(found: Mapping[str, Token], expected: Mapping[str, Token]) -> None:
    assert found.keys() == expected.keys()
    for token, own in numbers(expected).items():
        assert type(found[token]) is type(expected[token])
        assert found[token].placement.layers == expected[token].placement.layers
        theirs = numbers(found)[token]
        assert theirs.keys() == own.keys() and all(torch.equal(theirs[name], value) for name, value in own.items())


def test_rows_name_their_classes_and_no_option_twice():
    for name, row in TOKENS.items():
        assert token_class(name).kind == name
        assert row.learnings and all(issubclass(learning_class(option), TokenLearning) for option in row.learnings)
        assert {learning.moves for learning in row.learnings.values()} <= {"embedding", "keys and values", "nothing"}
    assert sum(len(row.learnings) for row in TOKENS.values()) == len(learnings())


@pytest.mark.parametrize("kind", TOKENS)
def test_blocks_and_fields_hold_tokens_exactly(pico, kind):
    tokens = tokens_of_kind(pico, kind)
    numbers = token_class(kind).encode(tokens)
    assert numbers.names == NAMES and numbers.blocks.keys() == {"tokens", *TOKENS[kind].blocks}
    assert all(len(rows) == len(NAMES) for parts in numbers.blocks.values() for rows in parts.values())
    assert numbers.fields.keys() == TOKENS[kind].fields.keys()
    again = replace(numbers, fields=json.loads(json.dumps(numbers.fields)))
    assert_same(token_class(kind).decode(again), tokens)


@pytest.mark.parametrize("kind", TOKENS)
@pytest.mark.parametrize("widths", [{TEXT_ENCODER: TEXT_WIDTH}, {SECOND: 3, TEXT_ENCODER: 5}, {SECOND: 3}])
def test_saved_and_loaded_exactly(pico, kind, widths, tmp_path):
    concept = Concept(make_manifest(base=pico.identity), {}, tokens_of_kind(pico, kind, widths))
    path = tmp_path / "anna.safetensors"
    save_concept(concept, path)
    again, manifest = load_concept(path), read_manifest(path)
    assert_same(again.tokens, concept.tokens)
    assert (manifest.tokens.kind, manifest.tokens.names) == (kind, NAMES)
    assert again.content_hash == concept.content_hash == manifest.content_hash
    save_concept(again, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("kind", TOKENS)
def test_a_base_takes_them_and_is_as_before(pico, kind):
    before = latents(pico, "a photo of room")
    with untouched(pico), pico.with_tokens(tokens_of_kind(pico, kind)) as names:
        assert names == NAMES == pico.tokens
        assert not torch.allclose(latents(pico, PROMPT), before, atol=1e-3)
    assert torch.equal(latents(pico, "a photo of room"), before)


@pytest.mark.parametrize("kind", TOKENS)
@pytest.mark.parametrize("encoders", [(SECOND,), (TEXT_ENCODER, SECOND)])
def test_tokens_of_other_text_encoders_are_refused_by_name(pico, kind, encoders):
    tokens = tokens_of_kind(pico, kind, dict.fromkeys(encoders, TEXT_WIDTH))
    given = ", ".join(encoders)
    with untouched(pico), pytest.raises(BaseModelError, match=f"'<anna>' has vectors of {given}, allowed are text_enc"):
        with pico.with_tokens(tokens):
            pass


@pytest.mark.parametrize("kind", TOKENS)
def test_the_hash_knows_text_encoders_apart(pico, kind):
    widths = {TEXT_ENCODER: TEXT_WIDTH, SECOND: TEXT_WIDTH}
    each = [tokens_of_kind(pico, kind, widths), tokens_of_kind(pico, kind, dict(reversed(widths.items())))]
    hashes = {Concept(make_manifest(base=pico.identity), {}, tokens).content_hash for tokens in each}
    assert len(hashes) == 2


@pytest.mark.parametrize("option", WITH_TOKENS)
def test_what_learns_begins_with_no_change(pico, option):
    learning = begin(pico, option)
    plain = tokens_of(dict(zip(NAMES, learning.start[TEXT_ENCODER], strict=True)))
    with pico.with_tokens(plain):
        expected = latents(pico, PROMPT)
        with pico.replaced_tokens(dict(zip(NAMES, learning.tokens(learning.initial()), strict=True))):
            torch.testing.assert_close(latents(pico, PROMPT), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("option", WITH_TOKENS)
def test_gradients_reach_every_row_and_nothing_else(pico, option):
    learning = begin(pico, option)
    rows = learning.initial().requires_grad_()
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with pico.with_tokens(dict(zip(NAMES, learning.tokens(rows.detach()), strict=True))):
        with pico.replaced_tokens(dict(zip(NAMES, learning.tokens(rows), strict=True))):
            pico.pipeline.unet(noise, 500, features(pico, [PROMPT])).sample.square().sum().backward()
        assert pico.pipeline.text_encoder.get_input_embeddings().weight.grad is None
    assert rows.grad is not None and rows.grad.shape == rows.shape
    assert (rows.grad.flatten(1).norm(dim=1) > 0).all()


@pytest.mark.parametrize("option", WITH_TOKENS)
def test_the_concept_does_what_was_learned(pico, option):
    """In a base's place for learning, and folded in."""
    tokens = learned(begin(pico, option))
    concept = Concept(make_manifest(base=pico.identity), {}, tokens)
    with pico.with_tokens(tokens_of(dict.fromkeys(NAMES, torch.zeros(TEXT_WIDTH)))):
        with pico.replaced_tokens(tokens):
            expected = latents(pico, PROMPT)
    with pico.folded(concept):
        assert torch.equal(latents(pico, PROMPT), expected)


@pytest.mark.parametrize("option", learnings())
def test_numbers_are_shared_out_among_text_encoders(pico, option):
    widths = {TEXT_ENCODER: 3, SECOND: 5}
    learning = begin(pico, option, widths)
    for i, token in enumerate(learning.tokens(learning.initial())):
        vectors = token.placement.vectors
        assert {encoder: rows.shape[-1] for encoder, rows in vectors.items()} == widths
        for encoder, rows in vectors.items():
            assert torch.equal(rows, learning.start[encoder][i].expand_as(rows))
