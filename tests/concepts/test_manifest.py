"""The manifest: what may stand in it, and how it is written and read."""

from __future__ import annotations

import base64
import io
import json
import struct
from dataclasses import replace

import pytest
import torch
from PIL import Image

from orthoplex.concepts import KINDS, StoredTokens, check_name, decode_thumbnail, encode_thumbnail, token_names
from orthoplex.concepts.base_identity import BaseIdentity
from orthoplex.concepts.blocks import Block, Companion
from orthoplex.concepts.coding import decode_block, encode_block
from orthoplex.concepts.manifest import THUMBNAIL_LIMIT_BYTES
from orthoplex.concepts.manifest_json import manifest_from_json, manifest_to_json
from orthoplex.errors import ConceptFileError, ConfigurationError
from tests.pico import make_manifest

INPUTS = {"type": "F16", "shapes": {"inputs": [1, 1]}, "data": ""}
BESIDE = {"file": "a.0123456789ab.orthoplex", "hash": "0", "blocks": [], "rest": ""}


def altered(**changes) -> str:
    """The JSON of a good manifest with some fields changed; a field set to ``...`` is left out."""
    values = json.loads(manifest_to_json(make_manifest()))
    values.update(changes)
    return json.dumps({key: value for key, value in values.items() if value is not ...})


@pytest.mark.parametrize("name", ["a", "anna", "my_cat-2", "0", "x" * 64])
def test_names_that_are_allowed(name):
    check_name(name)
    assert replace(make_manifest(), name=name).name == name


@pytest.mark.parametrize("name", ["", "Anna", "an na", "anna!", "ännä", "x" * 65, "anna\n", "<anna>", "../anna"])
def test_names_that_are_refused(name):
    with pytest.raises(ConfigurationError, match="1 to 64 characters") as error:
        make_manifest(name)
    assert f"'{name}'" in str(error.value)


def test_an_unknown_kind_is_refused_with_the_list():
    with pytest.raises(ConfigurationError, match="kind 'animal' is not one of " + ", ".join(KINDS)):
        make_manifest(kind="animal")


def test_a_large_thumbnail_is_refused():
    with pytest.raises(ConfigurationError, match="thumbnail takes 6145 bytes, at most 6144"):
        replace(make_manifest(), thumbnail="x" * 6145)


def test_token_names():
    assert token_names("anna") == ("<anna>",)
    assert token_names("anna", 3) == ("<anna>", "<anna>_1", "<anna>_2")
    with pytest.raises(ConfigurationError, match="'anna': 0 token vectors asked for, at least 1"):
        token_names("anna", 0)


def test_rank_is_the_largest():
    manifest = replace(make_manifest(), layers={"unet.a": (4, 2, 3), "unet.b": (4, 5, 8)})
    assert manifest.rank == 5
    assert make_manifest().rank == 0


def test_blocks_are_little_endian_numbers_part_after_part():
    block = encode_block({"b": torch.tensor([[3.0]]), "a": torch.tensor([1.0, -2.5])})
    assert block.type == "F32" and block.shapes == {"a": (2,), "b": (1, 1)}
    assert base64.b64decode(block.data) == struct.pack("<3f", 1.0, -2.5, 3.0)
    assert base64.b64decode(encode_block({"a": torch.ones(1).half()}).data) == struct.pack("<e", 1.0)
    parts = {"x": torch.randn(2, 3), "y": torch.randn(4)}
    assert all(torch.equal(tensor, parts[part]) for part, tensor in decode_block(encode_block(parts), "z").items())


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (Block("F32", {"a": (1,)}, "?"), "block 'x' is not base64"),
        (Block("F32", {"a": (1,)}, "AAAA"), "block 'x' holds 3 bytes, its shapes take 4"),
        (Block("F16", {"a": (2,), "b": (3, 1)}, "AAAA"), "block 'x' holds 3 bytes, its shapes take 10"),
        (Block("I64", {"a": (1,)}, "AAAA"), "block 'x' has data type 'I64', allowed are F16, F32"),
    ],
)
def test_broken_blocks_are_refused(block, message):
    with pytest.raises(ConceptFileError, match=message):
        decode_block(block, "x")


def test_json_comes_back_equal():
    manifest = replace(
        make_manifest(),
        layers={"unet.a": (4, 2, 3)},
        types={"up": "F16", "down": "F32"},
        tokens=StoredTokens("layer-vectors", ("<anna>",), {"token_layers": ["b", "a"]}),
        numbers={"tokens": Block("F32", {"text_encoder": (1, 2, 3)})},
        companion=Companion("a.0123456789ab.orthoplex", "0123456789ab", ("tokens",)),
        slot=3,
        basis_id="dct2-sha256-v1",
        training={"steps": 5, "note": "ünïcode", "nested": {"a": [1, 2.5, None]}},
        base_sample="x",
        trained_on=BaseIdentity("sd1", "1" * 64, "first"),
        lengthened_from=(3, 5),
    )
    again = manifest_from_json(manifest_to_json(manifest), source="here")
    assert again == manifest
    assert again.layers["unet.a"] == (4, 2, 3)
    assert json.loads(manifest_to_json(manifest))["needs"] == ["layer-vectors", "companion"]
    assert json.loads(manifest_to_json(make_manifest()))["needs"] == []


def test_fields_of_later_versions_are_left_out_with_a_line(caplog):
    later = {"x": {"type": "F64", "shapes": {"a": [1]}, "data": "AAAA"}}
    again = manifest_from_json(altered(colour="red", scent=None, numbers=later), source="here")
    assert again == manifest_from_json(altered(), source="here")
    assert caplog.messages == [
        "here: manifest fields colour, scent are unknown to this version and are left out",
        "here: manifest field 'numbers': blocks x are unknown to this version and are left out",
    ]


def test_a_feature_of_later_versions_is_refused_by_name():
    message = (
        r"here: needs the feature 'regions', which orthoplex .* does not have \(it has layer-vectors, keys-values, "
    )
    with pytest.raises(ConceptFileError, match=message):
        manifest_from_json(altered(needs=["regions"]), source="here")


@pytest.mark.parametrize("version", [0, 6, "1", None, 1.0, True, 5.0])
def test_an_unknown_format_version_is_refused(version):
    with pytest.raises(ConceptFileError, match=rf"here: format_version {version!r} is unknown.*reads 1"):
        manifest_from_json(altered(format_version=version), source="here")


def test_a_missing_format_version_is_refused():
    with pytest.raises(ConceptFileError, match="here: format_version None is unknown"):
        manifest_from_json(altered(format_version=...), source="here")


@pytest.mark.parametrize("key", ["name", "base", "layers", "training", "slot", "content_hash"])
def test_a_missing_field_is_named(key):
    with pytest.raises(ConceptFileError, match=f"here: manifest field '{key}' is missing"):
        manifest_from_json(altered(**{key: ...}), source="here")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("name", 3, "'name' is 3, allowed is a value of type str"),
        ("adapter", [], "'adapter' is [], allowed is a value of type dict"),
        ("slot", "2", "'slot' is '2', allowed is a value of type int"),
        ("basis_id", 2, "'basis_id' is 2, allowed is a value of type str"),
        ("base", {"family": "sd1", "hash": "0"}, "'base.name' is missing"),
        ("base", {"family": "sd1", "hash": "0", "name": "x", "size": 1}, "'base.size' is unknown"),
        ("base", {"family": "sd1", "hash": 0, "name": "x"}, "'base.hash' is 0"),
        ("tokens", {"<anna>": 1.5}, "'tokens' is {'<anna>': 1.5}, allowed is a list of texts"),
        ("tokens", ["<anna>", 3], "'tokens' is ['<anna>', 3], allowed is a list of texts"),
        ("tokens", ["<anna>"], "'numbers.tokens' is missing, allowed is a block for tokens"),
        ("needs", "x", "'needs' is 'x', allowed is a list of texts"),
        ("token_kind", "x", "'token_kind' is 'x', allowed are 'vector', 'layer-vectors', 'keys-values'"),
        ("token_kind", ["vector"], "'token_kind' is ['vector'], allowed are 'vector'"),
        ("token_kind", "layer-vectors", "'token_layers' is missing"),
        ("lengthened_from", [0], "'lengthened_from' is [0], allowed is a list of positive integers"),
        ("trained_on", {}, "'trained_on.family' is missing"),
        ("types", {"up": 3}, "'types.up' is 3"),
        (
            "numbers",
            {"inputs": {"type": "F16", "shapes": {"inputs": [2, 0]}, "data": ""}},
            "inputs' is [2, 0], allowed",
        ),
        ("numbers", {"inputs": {"type": "F16", "shapes": {}, "data": ""}}, "numbers.inputs.shapes' is empty"),
        ("numbers", {"inputs": INPUTS}, "'numbers.inputs': its numbers are neither in the header nor beside, allowed"),
        ("numbers", {"inputs": {"type": "F16", "data": ""}}, "'numbers.inputs.shapes' is missing"),
        ("companion", {**BESIDE, "file": "../a.0123456789ab.orthoplex"}, "'companion.file' is '../a.0123456789ab"),
        ("companion", {**BESIDE, "file": "a.safetensors"}, "allowed is 'NAME.<12 digits>.orthoplex'"),
        ("companion", {**BESIDE, "blocks": "tokens"}, "'companion.blocks' is 'tokens', allowed is a list of texts"),
        ("layers", {"unet.a": [1, 2]}, "'layers.unet.a' is [1, 2], allowed are 3 positive integers"),
        ("layers", {"unet.a": [1, 0, 2]}, "'layers.unet.a' is [1, 0, 2]"),
        ("layers", {"unet.a": "big"}, "'layers.unet.a' is 'big'"),
        ("name", "Anna!", "concept name 'Anna!' is not allowed"),
        ("kind", "animal", "kind 'animal' is not one of"),
        ("slot", -5, "slot is -5, allowed are numbers from 0, or none"),
        ("created", "\ud800", "manifest is not JSON"),
    ],
)
def test_a_malformed_field_is_named_with_its_value(key, value, message):
    with pytest.raises(ConceptFileError) as error:
        manifest_from_json(altered(**{key: value}), source="here")
    assert str(error.value).startswith("here: ")
    assert message in str(error.value)


def test_text_that_is_no_json_object_is_refused():
    with pytest.raises(ConceptFileError, match="here: manifest is not JSON"):
        manifest_from_json("{", source="here")
    with pytest.raises(ConceptFileError, match="here: manifest is not JSON: it is nested too deeply"):
        manifest_from_json("[" * 200000, source="here")
    with pytest.raises(ConceptFileError, match="here: manifest is a JSON list, allowed is an object"):
        manifest_from_json("[]", source="here")


def test_thumbnail_of_the_noisiest_picture_fits():
    noise = torch.randint(0, 256, (512, 512, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    text = encode_thumbnail(Image.fromarray(noise.numpy()))
    assert 0 < len(text) <= THUMBNAIL_LIMIT_BYTES
    replace(make_manifest(), thumbnail=text)
    picture = decode_thumbnail(text)
    assert picture is not None and picture.format == "JPEG" and max(picture.size) <= 96


def test_thumbnail_keeps_the_picture_and_its_shape():
    picture = decode_thumbnail(encode_thumbnail(Image.new("RGBA", (200, 100), (250, 10, 10, 255))))
    assert picture is not None and picture.size == (96, 48)
    red, green, _ = picture.convert("RGB").getpixel((10, 10))
    assert red > 230 and green < 30
    assert decode_thumbnail("") is None
    assert io.BytesIO(base64.b64decode(encode_thumbnail(Image.new("L", (4, 4))))).read(2) == b"\xff\xd8"
