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
from orthoplex.concepts.coding import decode_token, encode_token
from orthoplex.concepts.manifest import THUMBNAIL_LIMIT_BYTES
from orthoplex.concepts.manifest_json import manifest_from_json, manifest_to_json
from orthoplex.errors import ConceptFileError, ConfigurationError
from tests.pico import make_manifest


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


def test_token_text_is_little_endian_float32():
    assert base64.b64decode(encode_token(torch.tensor([1.0, -2.5]))) == struct.pack("<2f", 1.0, -2.5)
    vector = torch.randn(24)
    assert torch.equal(decode_token(encode_token(vector)), vector)


@pytest.mark.parametrize(("text", "message"), [("?", "not base64"), ("AAAA", "holds 3 bytes"), ("", "holds 0 bytes")])
def test_broken_token_text_is_refused(text, message):
    with pytest.raises(ConceptFileError, match=message):
        decode_token(text)


def test_json_comes_back_equal():
    manifest = replace(
        make_manifest(),
        layers={"unet.a": (4, 2, 3)},
        tokens=StoredTokens("vector", {"tokens": {"<anna>": encode_token(torch.ones(2))}}),
        slot=3,
        basis_id="dct2-sha256-v1",
        training={"steps": 5, "note": "ünïcode", "nested": {"a": [1, 2.5, None]}},
    )
    again = manifest_from_json(manifest_to_json(manifest), source="here")
    assert again == manifest
    assert again.layers["unet.a"] == (4, 2, 3)


@pytest.mark.parametrize("version", [0, 5, "1", None, 1.0, True])
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


def test_an_unknown_field_is_named():
    with pytest.raises(ConceptFileError, match="here: manifest field 'colour' is unknown, allowed are adapter, base"):
        manifest_from_json(altered(colour="red"), source="here")


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
        ("tokens", {"<anna>": 1.5}, "'tokens.<anna>' is 1.5"),
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
