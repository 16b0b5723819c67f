"""Files whose tokens have keys and values of their own: format version 3."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from orthoplex.adapters import LowRank
from orthoplex.concepts import Concept, Token, format_version, load_concept, read_manifest, save_concept
from orthoplex.errors import ConceptFileError
from tests.concepts.test_layerwise_tokens import K, refused_when_changed, vectors
from tests.pico import make_manifest, plain_tokens, tokens_of, vectors_of

WIDTHS = {"unet.down_blocks.1.attn2": 4, "unet.mid_block.attn2": 6}
FIRST = "unet.down_blocks.1.attn2"


def keys_values(seed: int = 0) -> dict[str, torch.Tensor]:
    return {layer: vectors(2, width, seed=seed + i) for i, (layer, width) in enumerate(WIDTHS.items())}


def with_added(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> dict[str, Token]:
    """Two tokens that add keys and values."""
    rows = {"<anna>": vectors(5), "<anna>_1": vectors(5, seed=1)}
    return tokens_of(rows, keys_values={"<anna>": first, "<anna>_1": second})


@pytest.fixture
def concept() -> Concept:
    layers = {K: LowRank(torch.ones(4, 1), torch.ones(1, 3))}
    return Concept(make_manifest(), layers, with_added(keys_values(), keys_values(7)))


@pytest.fixture
def path(concept, tmp_path) -> Path:
    save_concept(concept, tmp_path / "anna.safetensors")
    return tmp_path / "anna.safetensors"


def test_saved_and_loaded_exactly(concept, path):
    again = load_concept(path)
    assert again.tokens.keys() == concept.tokens.keys()
    for token, item in concept.tokens.items():
        found, expected = again.tokens[token].placement, item.placement
        assert found.keys_values.keys() == expected.keys_values.keys() and found.layers == ()
        assert all(torch.equal(found.keys_values[layer], values) for layer, values in expected.keys_values.items())
        assert torch.equal(vectors_of(again.tokens)[token], vectors_of(concept.tokens)[token])
    assert again.content_hash == concept.content_hash == again.manifest.content_hash
    assert format_version(read_manifest(path)) == 3
    save_concept(again, path.with_name("again.safetensors"))
    assert path.with_name("again.safetensors").read_bytes() == path.read_bytes()


def test_every_tensor_is_still_a_lora_key(path):
    with safe_open(path, "pt") as file:
        assert all(".lora_" in name for name in file.keys())  # noqa: SIM118  (not a mapping)


def test_the_hash_covers_them(concept):
    own, other = keys_values(), keys_values(7)
    every = (
        concept.tokens,
        plain_tokens(concept.tokens),
        with_added(other, own),
        with_added(own, {**other, FIRST: other[FIRST].flip(0)}),
        with_added(own, {**other, FIRST: other[FIRST].T}),
    )
    assert len({replace(concept, tokens=tokens).content_hash for tokens in every}) == 5


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
        (
            {"keys_values": {"<anna>": {"a": "?"}, "<anna>_1": {"a": "?"}}},
            "manifest field 'keys_values.<anna>.a': it is not base64",
        ),
        (
            {"keys_values": dict.fromkeys(("<anna>", "<anna>_1"), {"a": "AAAAAAAAAAAAAAAA"})},
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
    tokens = with_added({**keys_values(), FIRST: changed}, keys_values(7))
    with pytest.raises(ConceptFileError, match=message):
        save_concept(replace(concept, tokens=tokens), tmp_path / "anna.safetensors")
    assert not (tmp_path / "anna.safetensors").exists()


def test_layerwise_vectors_beside_them_are_refused(concept, tmp_path):
    both = {**concept.tokens, **tokens_of({"<anna>_1": vectors(2, 5)}, tuple(WIDTHS))}
    message = "token '<anna>_1' is of kind layer-vectors, allowed is that of '<anna>', keys-values"
    with pytest.raises(ConceptFileError, match=message):
        save_concept(replace(concept, tokens=both), tmp_path / "anna.safetensors")


def test_a_token_without_any_layer_is_refused(concept, tmp_path):
    message = r"anna.safetensors: keys_values of token '<anna>' name 0 layers, allowed is at least 1"
    with pytest.raises(ConceptFileError, match=message):
        save_concept(replace(concept, tokens=with_added({}, {})), tmp_path / "anna.safetensors")
