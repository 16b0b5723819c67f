"""Files whose tokens have a vector for each cross-attention layer: format version 2, and version 1 as it was."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from orthoplex.adapters import LowRank
from orthoplex.concepts import Concept, load_concept, read_manifest, save_concept
from orthoplex.errors import ConceptFileError, ConfigurationError
from tests.pico import make_manifest

LAYERS = tuple(f"unet.{block}.attn2" for block in ("down_blocks.1", "mid_block", "up_blocks.0"))
K = "unet.mid_block.attn2.to_k"


def vectors(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def concept() -> Concept:
    tokens = {"<anna>": vectors(3, 6), "<anna>_1": vectors(3, 6, seed=1)}
    return Concept(make_manifest(), {K: LowRank(torch.ones(4, 1), torch.ones(1, 3))}, tokens, LAYERS)


@pytest.fixture
def path(concept, tmp_path) -> Path:
    save_concept(concept, tmp_path / "anna.safetensors")
    return tmp_path / "anna.safetensors"


def rewrite(path: Path, **changes: object) -> None:
    """Change fields of the manifest; a field set to ``...`` is left out."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    manifest = {**json.loads(header["__metadata__"]["orthoplex"]), **changes}
    kept = {key: value for key, value in manifest.items() if value is not ...}
    header["__metadata__"]["orthoplex"] = json.dumps(kept)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


def refused_when_changed(path: Path, changes: dict[str, object], message: str) -> None:
    """Change fields of the manifest; loading names the file and what is wrong."""
    rewrite(path, **changes)
    with pytest.raises(ConceptFileError, match=message) as error:
        load_concept(path)
    assert path.name in str(error.value)


def test_saved_and_loaded_exactly(concept, path):
    again = load_concept(path)
    assert again.token_layers == LAYERS and again.tokens.keys() == concept.tokens.keys()
    assert all(torch.equal(vector, concept.tokens[token]) for token, vector in again.tokens.items())
    assert again.content_hash == concept.content_hash == again.manifest.content_hash
    manifest = read_manifest(path)
    assert (manifest.format_version, manifest.token_layers) == (2, LAYERS)
    numbers = base64.b64decode(manifest.tokens["<anna>_1"])
    assert numbers == concept.tokens["<anna>_1"].numpy().astype("<f4").tobytes()
    save_concept(again, path.with_name("again.safetensors"))
    assert path.with_name("again.safetensors").read_bytes() == path.read_bytes()


def test_tokens_alone_are_a_whole_concept(concept, tmp_path):
    path = tmp_path / "anna.safetensors"
    for alone in (
        replace(concept, layers={}),
        replace(concept, layers={}, tokens={"<anna>": vectors(6)}, token_layers=()),
    ):
        save_concept(alone, path)
        again = load_concept(path)
        assert again.layers == {} and again.content_hash == alone.content_hash
        assert again.manifest.rank == 0 and torch.equal(again.tokens["<anna>"], alone.tokens["<anna>"])


def test_files_without_them_are_as_version_1_wrote_them(concept, tmp_path):
    path = tmp_path / "anna.safetensors"
    tokens = {"<anna>": torch.tensor([1.0, -2.0])}
    save_concept(
        replace(concept, tokens=tokens, token_layers=(), manifest=replace(concept.manifest, package_version="1")), path
    )
    text = path.read_bytes()
    assert b"token_layers" not in text and read_manifest(path).format_version == 1
    assert hashlib.sha256(text).hexdigest() == "7aa1e6e238f4872923620cd60d2a7a6cf61bfc93888d2c7259b96147a0c0de14"


def test_files_with_them_are_as_version_2_wrote_them(concept, tmp_path):
    path, tokens = tmp_path / "anna.safetensors", {"<anna>": torch.arange(6.0).view(3, 2)}
    save_concept(replace(concept, tokens=tokens, manifest=replace(concept.manifest, package_version="1")), path)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    assert found == "5cbdaf688b1f8b8311a4e94c73af9f5f82477e50f5dcb4f4c9c91e5bb33de801"


def test_the_hash_covers_layers_and_shape(concept):
    (first, *others), tokens = LAYERS, concept.tokens
    flat = {token: vector.view(2, 9) for token, vector in tokens.items()}
    hashes = {
        concept.content_hash,
        replace(concept, token_layers=(*others, first)).content_hash,
        replace(concept, token_layers=()).content_hash,
        replace(concept, tokens=flat).content_hash,
    }
    assert len(hashes) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 1}, "manifest field 'token_layers' is unknown"),
        ({"token_layers": ...}, "manifest field 'token_layers' is missing"),
        ({"token_layers": []}, r"'token_layers' is \[\], allowed is a list of at least one layer name"),
        ({"token_layers": "mid_block"}, "'token_layers' is 'mid_block', allowed is a list"),
        ({"token_layers": ["a", 1]}, r"'token_layers' is \['a', 1\], allowed is a list"),
        ({"token_layers": ["a", "b", "a"]}, "token_layers names a layer twice, allowed is once"),
        (
            {"token_layers": ["a", "b", "c", "d"]},
            r"'tokens.<anna>': token embedding holds 18 numbers, allowed is a mult",
        ),
        ({"token_layers": ["a", "b"]}, "manifest field 'content_hash' is"),
        ({"token_layers": ["a", "b", "c"]}, "manifest field 'content_hash' is"),
        ({"tokens": {}}, "token_layers names 3 layers and there is no token, allowed: none"),
        ({"tokens": {"<anna>": "AAAA"}}, "'tokens.<anna>': token embedding holds 3 bytes"),
    ],
)
def test_damage_is_named(path, changes, message):
    refused_when_changed(path, changes, message)


@pytest.mark.parametrize(
    ("tokens", "layers", "message"),
    [
        ({"<anna>": vectors(3, 6)}, (), r"token '<anna>' has shape \(3, 6\), allowed is \(dim,\)"),
        (
            {"<anna>": vectors(6)},
            LAYERS,
            r"has shape \(6,\), allowed is \(3, dim\), a row for each of the token_layers",
        ),
        ({"<anna>": vectors(2, 6)}, LAYERS, r"token '<anna>' has shape \(2, 6\), allowed is \(3, dim\)"),
        ({}, LAYERS, "token_layers names 3 layers and there is no token"),
        ({"<anna>": vectors(3, 6).fill_(torch.nan)}, LAYERS, "token '<anna>' holds 18 numbers that are not finite"),
    ],
)
def test_what_cannot_be_saved_is_named(concept, tmp_path, tokens, layers, message):
    with pytest.raises(ConceptFileError, match=message):
        save_concept(replace(concept, tokens=tokens, token_layers=layers), tmp_path / "anna.safetensors")
    assert not (tmp_path / "anna.safetensors").exists()


def test_a_layer_is_named_once():
    with pytest.raises(ConfigurationError, match="concept 'anna': token_layers names a layer twice"):
        replace(make_manifest(), token_layers=("a", "a"))
