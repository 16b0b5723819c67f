"""Files whose tokens have keys and values of their own: format version 3."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from orthoplex.adapters import LowRank
from orthoplex.concepts import Concept, load_concept, read_manifest, save_concept
from orthoplex.errors import ConceptFileError, ConfigurationError
from tests.concepts.test_layerwise_tokens import K, refused_when_changed, vectors
from tests.pico import make_manifest

WIDTHS = {"unet.down_blocks.1.attn2": 4, "unet.mid_block.attn2": 6}
FIRST = "unet.down_blocks.1.attn2"


def keys_values(seed: int = 0) -> dict[str, torch.Tensor]:
    return {layer: vectors(2, width, seed=seed + i) for i, (layer, width) in enumerate(WIDTHS.items())}


@pytest.fixture
def concept() -> Concept:
    tokens = {"<anna>": vectors(5), "<anna>_1": vectors(5, seed=1)}
    added = {"<anna>": keys_values(), "<anna>_1": keys_values(7)}
    layers = {K: LowRank(torch.ones(4, 1), torch.ones(1, 3))}
    return Concept(make_manifest(), layers, tokens, keys_values=added)


@pytest.fixture
def path(concept, tmp_path) -> Path:
    save_concept(concept, tmp_path / "anna.safetensors")
    return tmp_path / "anna.safetensors"


def test_saved_and_loaded_exactly(concept, path):
    again = load_concept(path)
    assert again.keys_values.keys() == concept.keys_values.keys() and again.token_layers == ()
    for token, layers in concept.keys_values.items():
        assert again.keys_values[token].keys() == layers.keys()
        assert all(torch.equal(again.keys_values[token][layer], values) for layer, values in layers.items())
        assert torch.equal(again.tokens[token], concept.tokens[token])
    assert again.content_hash == concept.content_hash == again.manifest.content_hash
    assert read_manifest(path).format_version == 3
    save_concept(again, path.with_name("again.safetensors"))
    assert path.with_name("again.safetensors").read_bytes() == path.read_bytes()


def test_every_tensor_is_still_a_lora_key(path):
    with safe_open(path, "pt") as file:
        assert all(".lora_" in name for name in file.keys())  # noqa: SIM118  (not a mapping)


def test_the_hash_covers_them(concept):
    own, other = concept.keys_values["<anna>"], concept.keys_values["<anna>_1"]
    hashes = {
        concept.content_hash,
        replace(concept, keys_values={}).content_hash,
        replace(concept, keys_values={"<anna>": other, "<anna>_1": own}).content_hash,
        replace(concept, keys_values={"<anna>": own, "<anna>_1": {**other, FIRST: other[FIRST].flip(0)}}).content_hash,
        replace(concept, keys_values={"<anna>": own, "<anna>_1": {**other, FIRST: other[FIRST].T}}).content_hash,
    }
    assert len(hashes) == 5


TEXT = "AAAAAAAAAAA="  # two zeros


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 1}, "manifest field 'keys_values' is unknown"),
        ({"format_version": 2}, "manifest field 'token_layers' is missing"),
        ({"token_layers": ["a"]}, "manifest field 'token_layers' is unknown"),
        ({"keys_values": ...}, "manifest field 'keys_values' is missing"),
        ({"keys_values": {}}, "manifest field 'keys_values' is {}, allowed is at least one token"),
        ({"keys_values": ["a"]}, r"'keys_values' is \['a'\], allowed is a value of type dict"),
        ({"keys_values": {"<anna>": "AAAA"}}, "'keys_values.<anna>' is 'AAAA', allowed is a value of type dict"),
        ({"keys_values": {"<anna>": {"a": 1}}}, "'keys_values.<anna>.a' is 1, allowed is a value of type str"),
        ({"keys_values": {"<anna>": {"a": "?"}}}, "manifest field 'keys_values.<anna>.a': it is not base64"),
        (
            {"keys_values": {"<anna>": {"a": "AAAAAAAAAAAAAAAA"}}},
            "'keys_values.<anna>.a': it holds 3 numbers, allowed is a multiple of 2, a key and a value",
        ),
        (
            {"keys_values": {"<anna>": {"a": TEXT}}},
            "keys_values are those of tokens <anna>, allowed are <anna>, <anna>_1",
        ),
        ({"keys_values": {"<anna>": {}, "<anna>_1": {}}}, "keys_values of token '<anna>' name 0 layers, allowed is at"),
        (
            {"keys_values": {"<anna>": {"a": TEXT, "b": TEXT}, "<anna>_1": {"a": TEXT}}},
            r"keys_values of token '<anna>_1' in layer 'b' have shape none, allowed is that of .*<anna>', \(2, 1\)",
        ),
        (
            {"keys_values": {"<anna>": {"a": TEXT}, "<anna>_1": {"a": TEXT, "b": TEXT}}},
            r"keys_values of token '<anna>_1' in layer 'b' have shape \(2, 1\), allowed is that of .*<anna>', none",
        ),
        ({"keys_values": {"<anna>": {"a": TEXT}, "<anna>_1": {"a": TEXT}}}, "manifest field 'content_hash' is"),
    ],
)
def test_damage_is_named(path, changes, message):
    refused_when_changed(path, changes, message)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (vectors(4), r"keys_values of token '<anna>' in layer '.*attn2' have shape \(4,\), allowed is \(2, out\)"),
        (vectors(3, 4), r"have shape \(3, 4\), allowed is \(2, out\), a key and a value"),
        (vectors(2, 5), r"'<anna>_1' in layer 'unet.down_blocks.1.attn2' have shape \(2, 4\), allowed is .* \(2, 5\)"),
        (
            vectors(2, 4).fill_(torch.inf),
            "keys_values of token '<anna>' in layer 'unet.down_blocks.1.attn2' holds 8 numbers that are not finite",
        ),
    ],
)
def test_what_cannot_be_saved_is_named(concept, tmp_path, changed, message):
    added = {**concept.keys_values, "<anna>": {**concept.keys_values["<anna>"], FIRST: changed}}
    with pytest.raises(ConceptFileError, match=message):
        save_concept(replace(concept, keys_values=added), tmp_path / "anna.safetensors")
    assert not (tmp_path / "anna.safetensors").exists()


def test_layerwise_vectors_beside_them_are_refused(concept, tmp_path):
    both = replace(concept, tokens={token: vectors(2, 5) for token in concept.tokens}, token_layers=tuple(WIDTHS))
    with pytest.raises(ConfigurationError, match="concept 'anna': has token_layers and keys_values, allowed is one"):
        save_concept(both, tmp_path / "anna.safetensors")
