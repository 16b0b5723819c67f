"""Files whose tokens have a vector for each cross-attention layer."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from orthoplex.adapters import LowRank
from orthoplex.concepts import Concept, StoredTokens, load_concept, read_manifest, save_concept
from orthoplex.concepts.tokens.layer_vectors import LayerVectors
from orthoplex.concepts.tokens.vector import Vector
from orthoplex.errors import ConceptFileError
from tests.pico import make_manifest, tokens_of, vectors_of

LAYERS = tuple(f"unet.{block}.attn2" for block in ("down_blocks.1", "mid_block", "up_blocks.0"))
K = "unet.mid_block.attn2.to_k"


def vectors(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def concept() -> Concept:
    tokens = tokens_of({"<anna>": vectors(3, 6), "<anna>_1": vectors(3, 6, seed=1)}, LAYERS)
    return Concept(make_manifest(), {K: LowRank(torch.ones(4, 1), torch.ones(1, 3))}, tokens)


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
    rows = vectors_of(concept.tokens)
    assert again.tokens.keys() == rows.keys()
    assert all(torch.equal(vector, rows[token]) for token, vector in vectors_of(again.tokens).items())
    assert all(item.placement.layers == LAYERS for item in again.tokens.values())
    assert again.content_hash == concept.content_hash == again.manifest.content_hash
    manifest = read_manifest(path)
    assert manifest.tokens == StoredTokens("layer-vectors", ("<anna>", "<anna>_1"), {"token_layers": list(LAYERS)})
    both = torch.stack(list(rows.values())).numpy().astype("<f4").tobytes()
    assert base64.b64decode(manifest.numbers["tokens"].data) == both
    save_concept(again, path.with_name("again.safetensors"))
    assert path.with_name("again.safetensors").read_bytes() == path.read_bytes()


def test_tokens_alone_are_a_whole_concept(concept, tmp_path):
    path = tmp_path / "anna.safetensors"
    for alone in (
        replace(concept, layers={}),
        replace(concept, layers={}, tokens=tokens_of({"<anna>": vectors(6)})),
    ):
        save_concept(alone, path)
        again = load_concept(path)
        assert again.layers == {} and again.content_hash == alone.content_hash
        assert again.manifest.rank == 0
        assert torch.equal(vectors_of(again.tokens)["<anna>"], vectors_of(alone.tokens)["<anna>"])


def test_files_are_as_format_5_wrote_them(concept, tmp_path):
    path, tokens = tmp_path / "anna.safetensors", tokens_of({"<anna>": torch.arange(6.0).view(3, 2)}, LAYERS)
    save_concept(replace(concept, tokens=tokens, manifest=replace(concept.manifest, package_version="1")), path)
    assert (
        hashlib.sha256(path.read_bytes()).hexdigest()
        == "2b3b043b5158c4a171a45b4b0d44598784a2e36031bd5554b0d1b9783a4821b0"
    )


def test_the_hash_covers_layers_and_shape(concept):
    (first, *others), rows = LAYERS, vectors_of(concept.tokens)
    flat = {token: vector.view(2, 9) for token, vector in rows.items()}
    every = (
        tokens_of(rows, LAYERS),
        tokens_of(rows, (*others, first)),
        tokens_of(rows),
        tokens_of(flat, LAYERS),
    )
    hashes = [replace(concept, tokens=tokens).content_hash for tokens in every]
    assert hashes[0] == concept.content_hash and len(set(hashes)) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"token_layers": ...}, "manifest field 'token_layers' is missing"),
        ({"token_layers": []}, r"'token_layers' is \[\], allowed is a list of at least one text"),
        ({"token_layers": "mid_block"}, "'token_layers' is 'mid_block', allowed is a list"),
        ({"token_layers": ["a", 1]}, r"'token_layers' is \['a', 1\], allowed is a list"),
        ({"token_layers": ["a", "b", "a"]}, "token '<anna>' names a layer twice, allowed is once"),
        ({"token_layers": ["a", "b"]}, r"token '<anna>' has shape \(3, 6\), allowed is \(2, dim\), a row for each"),
        ({"token_layers": ["a", "b", "c"]}, "manifest field 'content_hash' is"),
        ({"token_kind": "vector"}, r"token '<anna>' has shape \(3, 6\), allowed is \(dim,\)"),
        ({"tokens": []}, "manifest field 'content_hash' is"),
    ],
)
def test_damage_is_named(path, changes, message):
    refused_when_changed(path, changes, message)


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (Vector.of(vectors(3, 6)), r"token '<anna>' has shape \(3, 6\), allowed is \(dim,\)"),
        (
            LayerVectors.of(vectors(6), LAYERS),
            r"has shape \(6,\), allowed is \(3, dim\), a row for each of the token_layers",
        ),
        (LayerVectors.of(vectors(2, 6), LAYERS), r"token '<anna>' has shape \(2, 6\), allowed is \(3, dim\)"),
        (LayerVectors.of(vectors(3, 6), ("a", "b", "a")), "token '<anna>' names a layer twice, allowed is once"),
        (
            LayerVectors.of(vectors(3, 6).fill_(torch.nan), LAYERS),
            "token '<anna>' holds 18 numbers that are not finite",
        ),
    ],
)
def test_what_cannot_be_saved_is_named(concept, tmp_path, token, message):
    with pytest.raises(ConceptFileError, match=message):
        save_concept(replace(concept, tokens={"<anna>": token}), tmp_path / "anna.safetensors")
    assert not (tmp_path / "anna.safetensors").exists()


def test_tokens_of_other_layers_than_the_first_are_refused(concept, tmp_path):
    tokens = {**concept.tokens, "<anna>_1": LayerVectors.of(vectors(2, 6), LAYERS[:2])}
    message = f"token '<anna>_1' has vectors for layers {LAYERS[0]}, {LAYERS[1]}, allowed are those of token '<anna>', "
    with pytest.raises(ConceptFileError, match=message):
        save_concept(replace(concept, tokens=tokens), tmp_path / "anna.safetensors")
