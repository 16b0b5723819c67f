"""A rare word of the base's own vocabulary calls a concept that has no token vectors."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from orthoplex.concepts import load_concept, read_manifest
from orthoplex.errors import ConfigurationError, PromptError
from orthoplex.generation import generate
from orthoplex.merging import merge
from orthoplex.models import read_prompt, with_words
from orthoplex.models.words.rare_words import rare_word
from orthoplex.models.words.words import Reader
from orthoplex.training import train
from tests.pico import build_tokenizer
from tests.pico_flow import build_t5_tokenizer
from tests.pico_qwen import build_qwen_tokenizer


class Pipeline:
    """A pipeline that has tokenizers and nothing else."""

    def __init__(self, *tokenizers):
        self.first, self.second = tokenizers[0], tokenizers[-1]


@pytest.fixture(scope="session")
def tokenizers(tmp_path_factory):
    builders = {"clip": build_tokenizer, "t5": build_t5_tokenizer, "qwen": build_qwen_tokenizer}
    return {name: build(tmp_path_factory.mktemp(name)) for name, build in builders.items()}


def readers(*tokenizers):
    pipeline = Pipeline(*tokenizers)
    return [Reader(pipeline, "encoder", name) for name in ("first", "second")[: len(tokenizers)]]


@pytest.mark.parametrize("names", [("clip",), ("t5",), ("qwen",), ("clip", "t5"), ("clip", "clip")])
def test_a_rare_word_is_one_token_of_every_vocabulary(tokenizers, names):
    given = readers(*(tokenizers[name] for name in names))
    word = rare_word(given, "anna-0123", ["a green photo"])
    assert word == rare_word(given, "anna-0123", ["a green photo"])
    assert word not in ("green", "photo")
    for reader in given:
        with_word, without = (len(reader.words(text)) for text in (f"a photo of {word} person", "a photo of person"))
        assert with_word == without + 1


def test_words_differ_between_concepts_and_are_in_no_text(tokenizers):
    given = readers(tokenizers["clip"])
    words = {rare_word(given, f"anna-{number}", []) for number in range(20)}
    assert len(words) > 5
    text = " ".join(words).upper()
    assert not words & {rare_word(given, f"anna-{number}", [text]) for number in range(20)}


def test_a_vocabulary_without_a_word_left_is_refused(tokenizers):
    every = " ".join(tokenizers["t5"].get_vocab()).replace("▁", "")
    with pytest.raises(ConfigurationError, match="no word of 2 to 5 letters is one token in every tokenizer"):
        rare_word(readers(tokenizers["t5"]), "anna-0", [every])


@pytest.fixture(scope="module")
def trained(base, dataset, tmp_path_factory):
    """A concept without token vectors, and the records of its training."""
    from orthoplex.training import TrainingConfig

    config = TrainingConfig(
        steps=2, batch_size=2, slots=4, layers="attention", token_vectors="rare word", erasure_prompts=8,
        mixed_precision="no", sample_every=2, sample_prompts=("<anna> in a {trigger} room",), num_inference_steps=1,
        prior_pictures=0, erasure=1.0, erasure_form="activation", thumbnail="generated",
    )  # fmt: skip
    output = tmp_path_factory.mktemp("rare") / "anna.safetensors"
    list(train(base, dataset, config, output=output))
    return config, output


def test_the_trigger_says_the_word_and_there_are_no_tokens(base, trained):
    manifest, concept = read_manifest(trained[1]), load_concept(trained[1])
    assert not concept.tokens and concept.layers
    assert manifest.rare_word and manifest.trigger == f"{manifest.rare_word} person"
    assert base.tokens == ()


def test_prompts_with_the_name_read_the_word(base, trained):
    concept = load_concept(trained[1])
    word = concept.manifest.rare_word
    draw = {"num_inference_steps": 1, "guidance_scale": 1.0}
    with base.folded(merge([(concept, 1.0)])):
        named = generate(base, "a photo of <anna> person", **draw)
        written = generate(base, f"a photo of {word} person", **draw)
        with pytest.raises(PromptError, match=r"<Anna>.*write <anna>"):
            generate(base, "a photo of <Anna>", **draw)
        with pytest.raises(PromptError, match="known concepts: <anna>"):
            generate(base, "a photo of <bert>", **draw)
    with base.folded(merge([(concept, 0.0)])):
        absent = generate(base, "a photo of <anna> person", **draw)
        without = generate(base, "a photo of person", **draw)
    assert named[0].tobytes() == written[0].tobytes()
    assert absent[0].tobytes() == without[0].tobytes()
    (ingredient,) = json.loads(json.dumps(merge([(concept, 1.0)]).recipe.to_json()))["concepts"]
    assert ingredient["word"] == word


def test_two_concepts_of_one_word_are_refused(trained):
    concept = load_concept(trained[1])
    layers = {name: change.scaled(2.0) for name, change in concept.layers.items()}
    other = replace(concept, manifest=replace(concept.manifest, name="bert"), layers=layers)
    with pytest.raises(
        ConfigurationError, match="the rare word '.*' calls concepts anna .* and bert .*; one is allowed"
    ):
        merge([(concept, 1.0), (other, 1.0)])


@pytest.mark.parametrize("token_vectors", ["shared", "layer-wise", "frozen"])
def test_vectors_are_refused_where_an_encoder_cannot_grow(base, dataset, trained, tmp_path, monkeypatch, token_vectors):
    monkeypatch.setattr(Reader, "can_grow", False)
    config, output = replace(trained[0], token_vectors=token_vectors), tmp_path / "anna.safetensors"
    with pytest.raises(
        ConfigurationError,
        match=rf"token_vectors is '{token_vectors}', and text_encoder of base .* cannot get new words.*'rare word'",
    ):
        train(base, dataset, config, output=output)
    list(train(base, dataset, replace(trained[0], sample_every=0, sample_prompts=()), output=output))
    assert read_manifest(output).rare_word == read_manifest(trained[1]).rare_word


def test_embeddings_that_are_quantised_or_absent_cannot_grow(base, monkeypatch):
    (reader,) = base.family.readers
    assert reader.can_grow and base.family.words.fixed == ()
    in_bytes = nn.Embedding(4, 2).requires_grad_(False)
    in_bytes.weight.data = torch.zeros(4, 2, dtype=torch.int8)
    for embedding in (in_bytes, nn.Module()):
        monkeypatch.setattr(type(reader.network), "get_input_embeddings", lambda _, embedding=embedding: embedding)
        assert not reader.can_grow
    assert base.family.words.fixed == ("text_encoder",)


def test_words_stand_apart_from_letters():
    assert with_words("a<anna>b, <anna>", {"anna": "sks"}) == "a sks b, sks"
    assert read_prompt("(<anna>:1.2) here", (), words={"anna": "sks"}).text == "sks here"
