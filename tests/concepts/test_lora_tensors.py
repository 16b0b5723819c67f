"""The tensors of a concept file: one type, one rank, alpha equal to it, and everything as it was after loading."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from orthoplex.adapters import LowRank
from orthoplex.concepts import Concept, load_concept, read_manifest, save_concept
from orthoplex.concepts.lora_tensors import lora_tensors, type_names
from orthoplex.errors import ConceptFileError
from orthoplex.files import read_header
from tests.concepts.test_layerwise_tokens import rewrite, vectors
from tests.pico import make_manifest

F16, BF16, F32 = torch.float16, torch.bfloat16, torch.float32
A, B = "unet.mid_block.attn1.to_k", "unet.mid_block.attn1.to_v"
FLAT_A, FLAT_B = "lora_unet_mid_block_attn1_to_k", "lora_unet_mid_block_attn1_to_v"


def change(rank: int, up: torch.dtype, down: torch.dtype) -> LowRank:
    return LowRank(vectors(4, rank).to(up), vectors(rank, 3, seed=1).to(down))


def saved(layers: dict[str, LowRank], folder: Path) -> Path:
    save_concept(Concept(make_manifest(), layers), folder / "anna.safetensors")
    return folder / "anna.safetensors"


@pytest.mark.parametrize(
    ("types", "ranks", "stored"),
    [
        ((F16, F16, F16, F16), (1, 3), F16),
        ((F16, F32, F16, F32), (2, 2), F32),
        ((F16, F16, F16, F32), (2, 5), F32),
        ((BF16, BF16, BF16, BF16), (3, 1), BF16),
        ((BF16, F16, BF16, F16), (1, 2), F32),
        ((BF16, BF16, BF16, BF16), (257, 1), F32),  # bfloat16 has no 257
        ((BF16, BF16, BF16, BF16), (258, 1), BF16),
        ((F16, F16, F16, F16), (2049, 1), F32),
    ],
)
def test_one_type_and_one_rank_that_loading_takes_back(types, ranks, stored, tmp_path):
    layers = {A: change(ranks[0], *types[:2]), B: change(ranks[1], *types[2:])}
    path, rank = saved(layers, tmp_path), max(ranks)
    tensors = load_file(path)
    assert {tensor.dtype for tensor in tensors.values()} == {stored}
    for layer, flat in ((A, FLAT_A), (B, FLAT_B)):
        up, down, alpha = (tensors[f"{flat}.{end}"] for end in ("lora_up.weight", "lora_down.weight", "alpha"))
        assert (tuple(up.shape), tuple(down.shape), alpha.shape, alpha.item()) == ((4, rank), (rank, 3), (), rank)
        torch.testing.assert_close(alpha.item() / rank * up.double() @ down.double(), delta(layers[layer]))
    again = load_concept(path)
    for layer, own in layers.items():
        for part in ("up", "down"):
            theirs, ours = getattr(again.layers[layer], part), getattr(own, part)
            assert theirs.dtype == ours.dtype and torch.equal(theirs, ours) and theirs.is_contiguous()
    assert again.content_hash == Concept(make_manifest(), layers).content_hash
    save_concept(again, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def delta(layer: LowRank) -> torch.Tensor:
    return layer.up.double() @ layer.down.double()


def test_types_are_noted_once_but_for_exceptions():
    layers = {A: change(1, F16, F32), B: change(1, F16, F16), "unet.x": change(1, F16, F32)}
    assert type_names(layers) == {"up": "F16", "down": "F32", f"{B} down": "F16"}
    assert type_names({}) == {} and lora_tensors({}, "sd1") == {}


@pytest.fixture
def path(tmp_path) -> Path:
    return saved({A: change(1, F16, F32), B: change(2, F16, F32)}, tmp_path)


@pytest.mark.parametrize(
    ("name", "place", "value", "message"),
    [
        (f"{FLAT_A}.alpha", (), 1.0, f"tensor '{FLAT_A}.alpha' is 1, allowed is 2"),
        (f"{FLAT_A}.alpha", (), float("nan"), f"tensor '{FLAT_A}.alpha' is nan, allowed is 2"),
        (f"{FLAT_A}.lora_up.weight", (0, 1), 1.0, f"tensors of '{FLAT_A}' hold numbers beyond rank 1, which the"),
        (f"{FLAT_A}.lora_down.weight", (1, 2), 1.0, f"tensors of '{FLAT_A}' hold numbers beyond rank 1, which the"),
        (
            f"{FLAT_B}.lora_up.weight",
            (0, 1),
            1 + 1e-6,
            f"'{FLAT_B}.lora_up.weight' holds numbers that are none of type",
        ),
        (f"{FLAT_B}.lora_down.weight", (0, 1), 1.0, "manifest field 'content_hash' is"),
    ],
)
def test_what_other_programs_would_read_otherwise_is_refused(path, name, place, value, message):
    tensors = load_file(path)
    tensors[name][place] = value
    save_file(tensors, path, metadata=dict(read_header(path).metadata))
    with pytest.raises(ConceptFileError, match=message) as error:
        load_concept(path)
    assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("types", "message"),
    [
        ({"up": "F16"}, "manifest field 'types.down' is None, allowed are F16, BF16, F32"),
        ({"up": "I8", "down": "F32"}, "manifest field 'types.up' is 'I8', allowed are F16, BF16, F32"),
        ({"up": "F16", "down": "F32", f"{B} up": "x"}, f"manifest field 'types.{B} up' is 'x', allowed are"),
        ({"up": "F16", "down": "F16"}, "has data type 'F32', allowed is F16"),
    ],
)
def test_types_that_no_file_has_are_refused(path, types, message):
    rewrite(path, types=types)
    with pytest.raises(ConceptFileError, match=message):
        load_concept(path)


def test_layers_of_one_flat_name_are_refused(tmp_path):
    with pytest.raises(ConceptFileError, match=r"anna.safetensors: layers 'unet.a.b_c' and 'unet.a_b.c' have the same"):
        saved({"unet.a.b_c": change(1, F16, F16), "unet.a_b.c": change(1, F16, F16)}, tmp_path)
    assert not list(tmp_path.iterdir())


def test_every_key_is_one_of_a_lora(path):
    """diffusers, kohya's merge_lora, InvokeAI and Forge refuse or skip files with others."""
    keys = read_header(path).entries
    ends = (".lora_down.weight", ".lora_up.weight", ".alpha")
    assert len(keys) == 6 and all(key.startswith("lora_") and key.endswith(ends) for key in keys)


def test_a_header_is_json_that_others_read(path):
    metadata = read_header(path).metadata
    assert json.loads(metadata["orthoplex"])["layers"] == {A: [4, 1, 3], B: [4, 2, 3]}
    assert read_manifest(path).rank == 2
    named = replace(read_manifest(path), layers={})
    assert named.rank == 0
