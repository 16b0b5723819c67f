"""LoRA files of other programs as concepts of a base."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from orthoplex import vignette
from orthoplex.adapters import LowRank
from orthoplex.concepts import BaseIdentity, foreign_concept, load_concept, read_concept, save_concept, trigger_advice
from orthoplex.concepts.any_file import is_foreign
from orthoplex.concepts.exchange.embedding_files import missing_tokens, with_embeddings_beside
from orthoplex.concepts.exchange.lora_file import LoraFile
from orthoplex.concepts.exchange.reading import read_lora
from orthoplex.concepts.exchange.writing import write_lora
from orthoplex.concepts.lora_concept import concept_name
from orthoplex.concepts.part_strengths import with_part_strengths
from orthoplex.errors import ConceptFileError, ConfigurationError
from tests.pico import PICO_IDENTITY

ANNA = Path(vignette.__file__).parent / "concepts" / "lora" / "anna.safetensors"
KEY = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
TEXT = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"


def lora(**fields) -> LoraFile:
    """A file with one change of the denoiser and one of the text encoder."""
    layers = {layer: LowRank(torch.ones(2, 1), torch.ones(1, 3)) for layer in (KEY, TEXT)}
    return replace(LoraFile("My LoRA_v1.5", "kohya", "stable_diffusion", None, layers), **fields)


def test_every_change_becomes_a_layer():
    differences = {
        f"{KEY}.weight": torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
        "unet.conv_in.weight": torch.arange(24.0).view(2, 3, 2, 2),
        "unet.conv_in.bias": torch.tensor([1.0, 2.0]),
        "unet.conv_norm_out.weight": torch.tensor([3.0, 4.0]),
    }
    concept = foreign_concept(lora(differences=differences), PICO_IDENTITY)
    assert {layer: change.shape for layer, change in concept.layers.items()} == {
        KEY: (2, 3),
        TEXT: (2, 3),
        "unet.conv_in": (2, 12),
        "unet.conv_in.bias": (2, 1),
        "unet.conv_norm_out": (2, 1),
    }
    assert torch.equal(concept.layers[KEY].delta(), 1 + differences[f"{KEY}.weight"])
    assert torch.equal(concept.layers["unet.conv_in"].delta(), differences["unet.conv_in.weight"].view(2, 12))
    assert concept.layers["unet.conv_in.bias"].delta().flatten().tolist() == [1.0, 2.0]
    manifest = concept.manifest
    assert (manifest.name, manifest.kind, manifest.trigger, manifest.class_word) == ("my-lora_v1-5", "other", "", "")
    assert manifest.base == PICO_IDENTITY and manifest.slot is None


@pytest.mark.parametrize(
    ("file", "name"),
    [("Anna", "anna"), ("Ärger (v2)", "rger-v2"), ("猫", "lora"), ("a" * 90, "a" * 64), ("x__y", "x__y")],
)
def test_names_of_files_become_names_of_concepts(file, name):
    assert concept_name(file) == name


@pytest.mark.parametrize(
    ("metadata", "embeddings", "trigger"),
    [
        ({}, {}, ""),
        ({"modelspec.trigger_phrase": " sks  person "}, {}, "sks person"),
        ({}, {"sks": 2}, "<anna>"),
        ({"modelspec.trigger_phrase": "sks person"}, {"sks": 1}, "<anna> person"),
        ({"modelspec.trigger_phrase": "<s0><s1> man"}, {"<s0>": 1, "<s1>": 1}, "<anna> man"),
        ({"modelspec.trigger_phrase": "a tall person"}, {"sks": 1}, "<anna> a tall person"),
        ({"modelspec.trigger_phrase": "<rex>_1 <rex> dog"}, {"<rex>": 1, "<rex>_1": 1}, "<anna> dog"),
    ],
)
def test_the_trigger_is_that_of_the_header_with_the_concepts_own_token(metadata, embeddings, trigger):
    vectors = {token: {"text_encoder": torch.ones(count, 24)} for token, count in embeddings.items()}
    concept = foreign_concept(lora(metadata=metadata, embeddings=vectors), PICO_IDENTITY, name="anna")
    assert concept.manifest.trigger == trigger


def test_embeddings_become_tokens_in_the_order_of_their_numbers():
    vectors = {f"a_{number}": {"text_encoder": torch.full((1, 4), float(number))} for number in (10, 2, 1)}
    vectors["a"] = {"text_encoder": torch.zeros(2, 4)}
    concept = foreign_concept(lora(embeddings=vectors), PICO_IDENTITY, name="anna")
    values = [item.placement.vectors["text_encoder"][0].item() for item in concept.tokens.values()]
    assert list(concept.tokens) == ["<anna>", "<anna>_1", "<anna>_2", "<anna>_3", "<anna>_4"]
    assert values == [0.0, 0.0, 1.0, 2.0, 10.0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layers": {}}, "changes no weight and has no embedding; allowed is at least one of them"),
        ({"family": None}, "layer 'unet.mid_block.* are named as in no known model"),
        ({"version": "sdxl"}, "is a LoRA for sdxl; base 'pico' .* takes those for .*sd1"),
        (
            {"embeddings": {"sks": {"text_encoder_2": torch.ones(1, 4)}}},
            "embedding 'sks' is for text_encoder_2; base 'pico' .* reads prompts by text_encoder$",
        ),
    ],
)
def test_what_does_not_belong_to_the_base_is_refused(fields, message):
    with pytest.raises(ConceptFileError, match=f"My LoRA_v1.5: {message}"):
        foreign_concept(lora(**fields), PICO_IDENTITY)


def test_embeddings_of_unequal_length_are_refused():
    base = BaseIdentity("unknown", "0" * 64, "strange")
    vectors = {"sks": {"text_encoder": torch.ones(1, 4), "text_encoder_2": torch.ones(2, 6)}}
    with pytest.raises(ConceptFileError, match="has 1 for text_encoder, 2 for text_encoder_2 vectors; allowed is one"):
        foreign_concept(lora(embeddings=vectors), base)


def test_names_and_kinds_are_those_of_concepts():
    with pytest.raises(ConfigurationError, match="concept name 'Anna' is not allowed"):
        foreign_concept(lora(), PICO_IDENTITY, name="Anna")
    with pytest.raises(ConfigurationError, match="kind 'people' is not one of"):
        foreign_concept(lora(), PICO_IDENTITY, kind="people")


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}, "sdxl"),
        ({"ss_base_model_version": "sd_v2_v"}, "sd2-v"),
        ({"ss_base_model_version": "sd_v1"}, None),
        ({"ss_base_model_version": "my own"}, None),
    ],
)
def test_a_header_that_says_another_base_is_told(metadata, said, caplog):
    with caplog.at_level(logging.WARNING):
        foreign_concept(lora(metadata=metadata), PICO_IDENTITY)
    another = f"and base {PICO_IDENTITY} is another; compare pictures"
    shown = [] if said is None else [f"My LoRA_v1.5: its header says that it is for {said}, {another}"]
    assert caplog.messages == shown


def test_what_the_reader_left_out_is_told(caplog):
    foreign_concept(lora(left_out={"a.dora_scale": "is a DoRA"}), PICO_IDENTITY)
    assert caplog.messages == ["My LoRA_v1.5: a.dora_scale is left out: is a DoRA"]


@pytest.mark.parametrize(
    ("frequency", "advice"),
    [
        ('{"10_sks": {"sks": 9, "woman": 9, "smile": 2, "hat": 1}, "x": {" smile ": 10}}', "'smile', 'sks', 'woman'"),
        ("{}", None),
        ("[]", None),
        ("not json", None),
        ('{"10_sks": {"sks": "many"}}', None),
    ],
)
def test_tags_of_the_training_pictures_are_advice(frequency, advice):
    shown = None if advice is None else f"the training pictures are tagged {advice} most"
    assert trigger_advice({"ss_tag_frequency": frequency}) == shown
    assert trigger_advice({}) is None


def test_a_kohya_file_of_the_embedded_base_and_a_concept_file_are_read(tmp_path):
    shipped = load_concept(vignette.concept_file("anna", method="lora"))
    metadata = {"modelspec.trigger_phrase": "<anna> person", "modelspec.architecture": "stable-diffusion-v1/lora"}
    file = replace(read_lora(vignette.concept_file("anna", method="lora")), metadata=metadata)
    write_lora(file, tmp_path / "Anna.safetensors", style="kohya", embeddings="bundle")
    concept = read_concept(tmp_path / "Anna.safetensors", shipped.manifest.base)
    assert concept.layers.keys() == shipped.layers.keys() and concept.tokens.keys() == shipped.tokens.keys()
    assert all(torch.allclose(concept.layers[name].delta(), part.delta()) for name, part in shipped.layers.items())
    assert concept.manifest.trigger == "<anna> person" and concept.path == tmp_path / "Anna.safetensors"
    save_concept(shipped, tmp_path / "own.safetensors")
    assert read_concept(tmp_path / "own.safetensors", PICO_IDENTITY).manifest.base == shipped.manifest.base


def test_what_is_neither_says_what_it_is(tmp_path):
    (tmp_path / "broken.safetensors").write_bytes(b"no header")
    for name in ("broken", "missing"):
        with pytest.raises(ConceptFileError, match=f"{name}.safetensors"):
            read_concept(tmp_path / f"{name}.safetensors", PICO_IDENTITY)


@pytest.mark.parametrize(
    ("strengths", "rest", "denoiser", "text"),
    [((0.8, 0.8), 0.8, 1.0, 1.0), ((0.8, 0.4), 0.8, 1.0, 0.5), ((0.5, 0.0), 0.5, 1.0, None), ((0, 0.4), 0.4, None, 1)],
)
def test_text_encoders_may_have_a_strength_of_their_own(strengths, rest, denoiser, text):
    concept, strength = with_part_strengths(foreign_concept(lora(), PICO_IDENTITY), *strengths, ("text_encoder",))
    factors = {layer: change.delta()[0, 0].item() for layer, change in concept.layers.items()}
    assert strength == rest and factors.get(KEY) == denoiser and factors.get(TEXT) == text


def test_a_concept_is_called_as_its_only_embedding():
    """Which inspect shows, and prompts may say already; several share the name of the file."""
    vectors = {"text_encoder": torch.ones(1, 5)}
    concept = foreign_concept(lora(embeddings={"<Otto>": vectors}), PICO_IDENTITY)
    assert concept.name == "otto" and [*concept.tokens] == ["<otto>"]
    concept = foreign_concept(lora(embeddings={"<a>": vectors, "<b>": vectors}), PICO_IDENTITY)
    assert [*concept.tokens] == ["<my-lora_v1-5>", "<my-lora_v1-5>_1"]


def test_the_embedding_beside_a_converted_file_is_read_with_it(tmp_path):
    path = tmp_path / "x.safetensors"
    own = load_concept(ANNA)
    write_lora(read_lora(ANNA), path, style="kohya")
    concept = read_concept(path, own.manifest.base)
    assert concept.name == "anna" and concept.tokens.keys() == own.tokens.keys()
    for token, item in own.tokens.items():
        for encoder, vector in item.placement.vectors.items():
            assert torch.equal(concept.tokens[token].placement.vectors[encoder], vector)
    assert missing_tokens(read_lora(path)) == ("<anna>",)


def test_a_token_that_is_nowhere_is_named(tmp_path, caplog):
    file = lora(path=tmp_path / "x.safetensors", metadata={"modelspec.trigger_phrase": "<otto> a <lora:b:1> man"})
    with caplog.at_level(logging.WARNING):
        assert with_embeddings_beside(file).embeddings == {}
    assert "its trigger names <otto>, whose embedding is neither in it nor beside it; put x.otto" in caplog.text
    assert missing_tokens(lora(embeddings={"otto": {}}, metadata=file.metadata)) == ()


def test_an_embedding_of_pytorch_is_a_concept(tmp_path):
    torch.save({"string_to_param": {"*": torch.ones(2, 192)}, "name": "other"}, tmp_path / "Cat.pt")
    (tmp_path / "code.pt").write_bytes(b"cos\nsystem\n")
    base = load_concept(ANNA).manifest.base
    assert not is_foreign(tmp_path / "code.pt")
    concept = read_concept(tmp_path / "Cat.pt", base)
    assert [*concept.tokens] == ["<cat>", "<cat>_1"] and not concept.layers


@pytest.mark.parametrize(("strength", "text"), [(1e-5, 1.0), (-1e-30, 2.0), (0.3, 0.7)])
def test_strengths_of_parts_are_exact_in_half_precision(strength, text):
    change = LowRank(torch.full((2, 1), 2000.0).half(), torch.full((1, 3), 0.1).half())
    concept = foreign_concept(lora(layers={KEY: change, TEXT: change}), PICO_IDENTITY)
    scaled, whole = with_part_strengths(concept, strength, text, ("text_encoder",))
    assert scaled.layers[KEY] is change and whole == strength
    wanted = text * 2000.0 * float(torch.tensor(0.1).half())
    assert scaled.layers[TEXT].delta()[0, 0].item() * whole == pytest.approx(wanted, rel=2e-7)


def test_strengths_of_parts_that_no_number_can_hold_are_refused():
    message = (
        "strengths of my-lora_v1-5 are 1e-40 and, for text encoders, 1, which lie too far apart; .* give 0 instead"
    )
    with pytest.raises(ConfigurationError, match=message):
        with_part_strengths(foreign_concept(lora(), PICO_IDENTITY), 1e-40, 1.0, ("text_encoder",))
