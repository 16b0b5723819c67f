"""Files whose tokens have keys and values of their own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from orthoplex.adapters import LowRank
from orthoplex.concepts import Concept, Token, load_concept, read_manifest, save_concept
from orthoplex.concepts.manifest_json import manifest_to_json
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
    manifest = read_manifest(path)
    assert manifest.tokens.kind == "keys-values" and manifest.numbers["keys_values"].shapes.keys() == WIDTHS.keys()
    save_concept(again, path.with_name("again.safetensors"))
    assert path.with_name("again.safetensors").read_bytes() == path.read_bytes()


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


def block(*shape: int, data: str = "AAAA") -> dict[str, object]:
    """The fields of keys and values of one layer."""
    return {"type": "F32", "shapes": {"a": shape}, "data": data}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"token_kind": "vector"}, "manifest field 'content_hash' is"),
        ({"numbers": ...}, "manifest field 'numbers' is missing"),
        ({"keys_values": None}, "manifest field 'numbers.keys_values' is missing, allowed is a block for tokens"),
        ({"keys_values": block(2, 2, 1)}, "block 'keys_values' holds 3 bytes, its shapes take 16"),
        (
            {"keys_values": block(3, 1, data="A" * 16)},
            r"'keys_values' has shape \(3, 1\) for 'a', allowed is a row for",
        ),
        (
            {"keys_values": block(2, 1, data="A" * 11 + "=")},
            r"layer 'a' have shape \(1,\), allowed is \(2, out\), a key",
        ),
        ({"keys_values": block(2, 2, 1, data="A" * 22 + "==")}, "manifest field 'content_hash' is"),
    ],
)
def test_damage_is_named(path, changes, message):
    numbers = json.loads(manifest_to_json(read_manifest(path)))["numbers"]
    if "keys_values" in changes:
        numbers |= changes
        changes = {"numbers": {name: block for name, block in numbers.items() if block}}
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
