"""Files that hold the inputs of their layers."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from orthoplex.adapters import LowRank
from orthoplex.concepts import Concept, StoredTokens, load_concept, read_manifest, save_concept
from orthoplex.concepts.blocks import Block
from orthoplex.concepts.manifest_json import manifest_to_json
from orthoplex.errors import ConceptFileError, ConfigurationError
from tests.concepts.test_layerwise_tokens import LAYERS, K, refused_when_changed, vectors
from tests.pico import make_manifest, tokens_of


@pytest.fixture
def concept() -> Concept:
    layers = {K: LowRank(torch.ones(4, 1), torch.ones(1, 3))}
    return Concept(make_manifest(), layers, tokens_of({"<anna>": vectors(5)}), inputs=vectors(2, 3).half())


@pytest.fixture
def path(concept, tmp_path) -> Path:
    save_concept(concept, tmp_path / "anna.safetensors")
    return tmp_path / "anna.safetensors"


def test_saved_and_loaded_exactly(concept, path):
    again = load_concept(path)
    assert again.inputs is not None and again.inputs.dtype == torch.float16
    assert torch.equal(again.inputs, concept.inputs)
    assert again.content_hash == concept.content_hash == again.manifest.content_hash
    manifest = read_manifest(path)
    assert manifest.has_inputs and not manifest.without_inputs().has_inputs
    assert base64.b64decode(manifest.numbers["inputs"].data) == concept.inputs.numpy().astype("<f2").tobytes()
    save_concept(again, path.with_name("again.safetensors"))
    assert path.with_name("again.safetensors").read_bytes() == path.read_bytes()


def test_they_may_stand_beside_keys_and_values(concept, tmp_path):
    added = {"<anna>": {"unet.mid_block.attn2": vectors(2, 4)}}
    both = replace(concept, tokens=tokens_of({"<anna>": vectors(5)}, keys_values=added))
    assert save_concept(both, tmp_path / "anna.safetensors").numbers.keys() == {"tokens", "keys_values", "inputs"}
    again = load_concept(tmp_path / "anna.safetensors")
    assert torch.equal(again.inputs, concept.inputs) and again.content_hash == both.content_hash
    assert torch.equal(again.tokens["<anna>"].placement.keys_values["unet.mid_block.attn2"], vectors(2, 4))


def test_the_hash_covers_them(concept):
    inputs = concept.inputs
    kept = (inputs, None, inputs.flip(0), inputs[:1], inputs.reshape(3, 2))
    assert len({replace(concept, inputs=some).content_hash for some in kept}) == 5


def block(data: str = "AAAAAAAA", **shapes: list[int]) -> dict[str, object]:
    """The fields of inputs that are three zeros, or others."""
    return {"type": "F16", "shapes": shapes or {"inputs": [1, 3]}, "data": data}


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (block("?"), "block 'inputs' is not base64"),
        (block("AAAA"), "block 'inputs' holds 3 bytes, its shapes take 6"),
        (block(inputs=[3, 1]), r"inputs have shape \(3, 1\), allowed is \(k, 3\)"),
        (block(inputs=[3]), r"inputs have shape \(3,\), allowed is \(k, 3\)"),
        (block(a=[1, 1], b=[1, 2]), "block 'inputs' has parts a, b, allowed is inputs alone"),
        (block(), "manifest field 'content_hash' is"),
        (block("AHwAAAAA"), "inputs holds 1 numbers that are not finite"),
    ],
)
def test_damage_is_named(path, inputs, message):
    numbers = json.loads(manifest_to_json(read_manifest(path)))["numbers"]
    refused_when_changed(path, {"numbers": {**numbers, "inputs": inputs}}, message)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"inputs": vectors(2, 4)},
            r"inputs have shape \(2, 4\), allowed is \(k, 3\), as wide as those of layer '.*k'",
        ),
        ({"inputs": vectors(3)}, r"inputs have shape \(3,\), allowed is \(k, 3\)"),
        ({"inputs": vectors(0, 3)}, r"inputs have shape \(0, 3\), allowed is \(k, 3\)"),
        ({"inputs": vectors(2, 3) * 1e6}, "inputs holds 6 numbers that are not finite"),
        (
            {"layers": {}},
            "has inputs and changes layers none, allowed are keys and values of cross-attention",
        ),
        (
            {"layers": {"unet.mid_block.attn1.to_k": LowRank(torch.ones(4, 1), torch.ones(1, 3))}},
            "has inputs and changes layers unet.mid_block.attn1.to_k, allowed",
        ),
        ({"tokens": tokens_of({"<anna>": vectors(3, 5)}, LAYERS)}, "has token_layers and inputs, allowed is one"),
    ],
)
def test_what_cannot_be_saved_is_named(concept, tmp_path, changed, message):
    with pytest.raises(ConceptFileError, match=message):
        save_concept(replace(concept, **changed), tmp_path / "anna.safetensors")
    assert not (tmp_path / "anna.safetensors").exists()


def test_no_manifest_has_inputs_and_token_layers():
    numbers = {"inputs": Block("F16", {"inputs": (1, 3)})}
    with pytest.raises(ConfigurationError, match="concept 'anna': has token_layers and inputs, allowed is one of them"):
        replace(make_manifest(), tokens=StoredTokens("layer-vectors"), numbers=numbers)
