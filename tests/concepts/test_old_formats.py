"""Files of orthoplex 0.1 (formats 1 to 4) are read, and converted without a change of their content."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from orthoplex.concepts import BaseIdentity, convert_concept, load_concept, read_manifest
from orthoplex.errors import ConceptFileError
from tests.concepts.test_layerwise_tokens import refused_when_changed, vectors
from tests.pico import make_manifest

OLD = Path(__file__).with_name("old")
HASHES = {
    "version1": "dfea8ac51156a7f795c1e2dbfcc81be35ad2bca5823d458c3dbe21f46fa1ca73",
    "version1_tokens_alone": "90e09770482f30114e5087222074ea63fed77df97ebd88b959f4842c341b1f26",
    "version2": "f6840dac00adbdaa60f37157e2db9378517099debe4cb0fc07183e6ff6554227",
    "version3": "04700bacaf8135e8dc32705c4227979e6de7434cf812b0b8217b2e5b3a00ddb9",
    "version4": "501fbf93f1396117aa395344310c6523200d9389d9d003d97d4a5e092633887c",
    "version4_with_keys": "1304700a519e20ba3bc86e9827a35d97f2d785101ca277dfbdeea8d473012449",
}
"""The content hashes that orthoplex 0.1 gave them."""
KINDS = {"version2": "layer-vectors", "version3": "keys-values", "version4_with_keys": "keys-values"}


@pytest.mark.parametrize("name", HASHES)
def test_they_are_read_and_converted_exactly(name, tmp_path):
    path, output = OLD / f"{name}.safetensors", tmp_path / "new.safetensors"
    before, manifest = load_concept(path), convert_concept(path, output)
    assert before.content_hash == HASHES[name] and before.manifest == read_manifest(path)
    assert str(before.manifest.format_version) == name[7]
    after = load_concept(output)
    assert after.content_hash == HASHES[name] and after.manifest == manifest
    assert after.manifest.tokens == before.manifest.tokens and after.manifest.tokens.kind == KINDS.get(name, "vector")
    same = {"types": manifest.types, "format_version": 5}
    assert replace(before.manifest, **same) == manifest
    for layer, change in before.layers.items():
        for part in ("up", "down"):
            ours, theirs = getattr(change, part), getattr(after.layers[layer], part)
            assert ours.dtype == theirs.dtype and torch.equal(ours, theirs)
    convert_concept(output, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == output.read_bytes()


def test_they_hold_what_was_saved():
    concept = load_concept(OLD / "version1.safetensors")
    assert torch.equal(concept.layers["unet.mid_block.attn2.to_k"].up, vectors(4, 2).half())
    assert torch.equal(concept.tokens["<anna>_1"].placement.vectors["text_encoder"], vectors(6, seed=1))
    layered = load_concept(OLD / "version2.safetensors").tokens["<anna>_1"].placement
    assert layered.layers == ("unet.down_blocks.1.attn2", "unet.mid_block.attn2")
    assert torch.equal(layered.vectors["text_encoder"], vectors(2, 6, seed=1))
    keyed = load_concept(OLD / "version4_with_keys.safetensors")
    added = keyed.tokens["<anna>_1"].placement.keys_values
    assert torch.equal(added["unet.mid_block.attn2"], vectors(2, 6, seed=2))
    assert torch.equal(keyed.inputs, vectors(2, 3).half())


def test_values_that_lay_in_the_training_have_fields():
    manifest = read_manifest(OLD / "version1.safetensors")
    assert (manifest.training, manifest.base_sample) == ({"steps": 5}, "0123456789abcdef:AAA=")
    assert manifest.trained_on == BaseIdentity("sd1", "f" * 64, "first") and manifest.lengthened_from == (3,)


@pytest.mark.parametrize(
    ("key", "value"), [("base_sample", 3), ("trained_on", {"family": 1}), ("lengthened_from", ["x"])]
)
def test_values_of_other_types_stay_in_the_training(key, value, tmp_path):
    path = tmp_path / "anna.safetensors"
    path.write_bytes((OLD / "version1.safetensors").read_bytes())
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    manifest = json.loads(header["__metadata__"]["orthoplex"])
    manifest["training"][key] = value
    header["__metadata__"]["orthoplex"] = json.dumps(manifest)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    read = load_concept(path).manifest
    assert read.training == {"steps": 5, key: value}
    assert getattr(read, key) == getattr(make_manifest(), key)


TEXT = "AAAAAAAAAAA="  # two zeros
BOTH = ("<anna>", "<anna>_1")


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("version1", {"colour": "red"}, "manifest field 'colour' is unknown, allowed are adapter, base"),
        ("version1", {"slot": ...}, "manifest field 'slot' is missing"),
        ("version1", {"slot": -1}, "slot is -1, allowed are numbers from 0, or none"),
        ("version1", {"format_version": 2}, "manifest field 'token_layers' is missing"),
        ("version1", {"tokens": {"<anna>": 1.5}}, "'tokens.<anna>' is 1.5, allowed is a value of type str"),
        ("version1", {"tokens": {"<anna>": "?"}}, "manifest field 'tokens.<anna>' is not base64"),
        (
            "version1",
            {"tokens": {"<anna>": "AAAA"}},
            "'tokens.<anna>' holds 3 bytes, allowed is a positive multiple of 4",
        ),
        ("version1", {"tokens": {"<anna>": ""}}, "'tokens.<anna>' holds 0 bytes"),
        (
            "version1",
            {"tokens": {"<anna>": TEXT, "<anna>_1": "AAAAAA=="}},
            "tokens have 2 of '<anna>', 1 of '<anna>_1' numbers in text_encoder, allowed is one count for all",
        ),
        ("version1", {"tokens": dict.fromkeys(BOTH, TEXT)}, "manifest field 'content_hash' is"),
        ("version2", {"format_version": 1}, "manifest field 'token_layers' is unknown"),
        ("version2", {"token_layers": []}, r"'token_layers' is \[\], allowed is a list of at least one text"),
        ("version2", {"token_layers": ["a", "a"]}, "token '<anna>' names a layer twice, allowed is once"),
        (
            "version2",
            {"token_layers": list("abcde")},
            "'tokens.<anna>' holds 48 bytes, allowed is a positive multiple of 20",
        ),
        ("version2", {"tokens": {}}, "token_layers names 2 layers and there is no token, allowed: none"),
        ("version3", {"keys_values": {}}, "keys_values are those of tokens none, allowed are <anna>, <anna>_1"),
        (
            "version3",
            {"keys_values": {"<anna>": {"a": TEXT}}},
            "keys_values are those of tokens <anna>, allowed are <a",
        ),
        ("version3", {"keys_values": dict.fromkeys(BOTH, {"a": "?"})}, "field 'keys_values.<anna>.a' is not base64"),
        ("version3", {"keys_values": dict.fromkeys(BOTH, {"a": "A" * 16})}, "'keys_values.<anna>.a' holds 12 bytes"),
        (
            "version3",
            {"keys_values": {"<anna>": {"a": TEXT, "b": TEXT}, "<anna>_1": {"a": TEXT}}},
            "token '<anna>_1' are those of layers a, allowed are those of token '<anna>', at least one: a, b",
        ),
        (
            "version3",
            {"keys_values": dict.fromkeys(BOTH, {})},
            "token '<anna>' are those of layers none, allowed are those of token '<anna>', at least one: n",
        ),
        ("version4", {"inputs": ...}, "manifest field 'inputs' is missing"),
        ("version4", {"inputs": ""}, "manifest field 'inputs' holds 0 bytes, allowed is a positive multiple of 6"),
        ("version4", {"inputs": "AAAAAA=="}, "'inputs' holds 4 bytes, allowed is a positive multiple of 6"),
        ("version4", {"inputs": "AHwAAAAA"}, "inputs holds 1 numbers that are not finite"),
        ("version4", {"inputs": "AAAAAAAA"}, "manifest field 'content_hash' is"),
        (
            "version4",
            {"layers": {}},
            "has inputs and changes layers none, allowed are keys and values of cross-attention",
        ),
    ],
)
def test_damage_is_named(name, changes, message, tmp_path):
    path = tmp_path / "anna.safetensors"
    path.write_bytes((OLD / f"{name}.safetensors").read_bytes())
    refused_when_changed(path, changes, message)


def test_a_missing_tensor_is_named(tmp_path):
    path = tmp_path / "anna.safetensors"
    path.write_bytes((OLD / "version1.safetensors").read_bytes().replace(b"to_k.lora_B", b"to_k.lora_C"))
    with pytest.raises(
        ConceptFileError, match=r"to_k.lora_B.weight' of shape \(4, 2\) is missing, found instead the un"
    ):
        load_concept(path)
