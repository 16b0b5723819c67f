"""New tokens: in, used, out without a trace."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from orthoplex.concepts.tokens.vector import Vector
from orthoplex.errors import ConfigurationError

ROW = torch.arange(24, dtype=torch.float32)
ANNA = Vector.of(ROW)


def ids(base, text):
    return base.pipeline.tokenizer(text).input_ids


def test_tokens_have_rows_and_are_found_in_text(pico):
    size = len(pico.pipeline.tokenizer)
    cat = ids(pico, "cat")[1]
    with pico.with_tokens({"<anna>": ANNA, "<anna>_1": Vector.of(-ROW)}) as names:
        assert names == ("<anna>", "<anna>_1")
        assert pico.pipeline.tokenizer.convert_tokens_to_ids(list(names)) == [size, size + 1]
        assert ids(pico, "cat <anna> <anna>_1<anna>, cat")[1:6] == [cat, size, size + 1, size, ids(pico, ",")[1]]
        embedding = pico.pipeline.text_encoder.get_input_embeddings()
        assert torch.equal(embedding.weight[size], ROW) and torch.equal(embedding.weight[size + 1], -ROW)
        assert embedding.num_embeddings == pico.pipeline.text_encoder.config.vocab_size == size + 2
        assert pico.tokens == ("<anna>", "<anna>_1")
        assert torch.isfinite(pico.pipeline.text_encoder(torch.tensor([ids(pico, "<anna>")])).last_hidden_state).all()


def test_leaving_restores_the_very_same_objects(pico):
    encoder = pico.pipeline.text_encoder
    embedding = encoder.get_input_embeddings()
    before = pico.pipeline.tokenizer, embedding.weight, encoder.config.vocab_size, embedding.num_embeddings
    values, vocabulary = embedding.weight.clone(), dict(pico.pipeline.tokenizer.get_vocab())
    with pytest.raises(ZeroDivisionError), pico.with_tokens({"<anna>": ANNA}):
        assert "<anna>" not in before[0].get_vocab()
        with torch.no_grad():
            encoder.get_input_embeddings().weight.add_(1.0)
        raise ZeroDivisionError
    after = pico.pipeline.tokenizer, embedding.weight, encoder.config.vocab_size, embedding.num_embeddings
    assert after[0] is before[0] and after[1] is before[1] and after[2:] == before[2:]
    assert torch.equal(embedding.weight, values) and pico.pipeline.tokenizer.get_vocab() == vocabulary


def test_the_old_words_keep_their_rows(pico):
    old = pico.pipeline.text_encoder.get_input_embeddings().weight
    with pico.with_tokens({"<anna>": ANNA}):
        assert torch.equal(pico.pipeline.text_encoder.get_input_embeddings().weight[: len(old)], old)


def test_spare_rows_are_used_before_new_ones_are_made(pico):
    encoder = pico.pipeline.text_encoder
    embedding, size = encoder.get_input_embeddings(), len(pico.pipeline.tokenizer)
    original = embedding.weight
    embedding.weight = nn.Parameter(torch.cat([original, torch.zeros(3, 24)]), requires_grad=False)
    try:
        with pico.with_tokens({"<anna>": ANNA}):
            assert embedding.weight.shape[0] == size + 3
            assert torch.equal(embedding.weight[size], ROW)
    finally:
        embedding.weight = original


def test_extensions_nest(pico):
    with pico.with_tokens({"<anna>": ANNA}):
        with pico.with_tokens({"<rex>": ANNA}):
            assert pico.tokens == ("<anna>", "<rex>")
        assert pico.tokens == ("<anna>",)


def test_no_tokens_is_no_change(pico):
    with pico.with_tokens({}) as names:
        assert names == () and pico.tokens == ()


def test_a_token_in_the_vocabulary_is_refused(pico):
    with pico.with_tokens({"<anna>": ANNA}):
        with pytest.raises(ConfigurationError, match="token '<anna>' is in the base already"):
            with pico.with_tokens({"<anna>": ANNA}):
                pass
        assert pico.tokens == ("<anna>",)


@pytest.mark.parametrize("token", ["cat", "<Anna>", "<an na>", "anna>", "<anna>_0", "<anna>_x", "<|endoftext|>", ""])
def test_tokens_of_another_form_are_refused(pico, token):
    with pytest.raises(ConfigurationError) as error, pico.with_tokens({token: ANNA}):
        pass
    assert f"token '{token}' is not allowed: '<name>' or '<name>_1'" in str(error.value)


@pytest.mark.parametrize("shape", [(23,), (1, 24), ()])
def test_an_embedding_of_another_shape_is_refused(pico, shape):
    with pytest.raises(ConfigurationError) as error, pico.with_tokens({"<anna>": Vector.of(torch.zeros(shape))}):
        pass
    assert f"token '<anna>': embedding has shape {shape}, allowed is (24,)" in str(error.value)
