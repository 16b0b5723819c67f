"""Files with the vectors of tokens, of every program that writes them."""

import subprocess
import sys
import warnings

import pytest
import torch
from torch import Tensor

from orthoplex.concepts.exchange.embedding_keys import (
    CLIP_ENCODERS,
    EmbeddingPlace,
    bundled_places,
    embedding_places,
    encoder_keys,
    place_keys,
)
from orthoplex.concepts.exchange.embeddings import read_embedding, write_embedding
from orthoplex.errors import ConfigurationError, FileFormatError
from orthoplex.files import write_tensors

L, G = torch.arange(1536.0).reshape(2, 768), torch.arange(2560.0).reshape(2, 1280)
FLUX = encoder_keys(
    {"text_encoder": "clip_l", "text_encoder_2": "t5xxl"}, {"text_encoder": 768, "text_encoder_2": 4096}
)


def same(read, expected: dict[str, dict[str, Tensor]]) -> bool:
    return {token: {*vectors} for token, vectors in read.items()} == {
        token: {*vectors} for token, vectors in expected.items()
    } and all(torch.equal(read[t][e], values) for t, vectors in expected.items() for e, values in vectors.items())


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        ({"emb_params": L}, {"cat": {"text_encoder": L}}),
        ({"emb_params": L[0]}, {"cat": {"text_encoder": L[:1]}}),
        ({"emb_params": G}, {"cat": {"text_encoder_2": G}}),
        ({"emb_params": torch.ones(1, 1024)}, {"cat": {"text_encoder": torch.ones(1, 1024)}}),
        ({"string_to_param.*": L}, {"cat": {"text_encoder": L}}),
        ({"clip_l": L}, {"cat": {"text_encoder": L}}),
        ({"clip_l": L, "clip_g": G}, {"cat": {"text_encoder": L, "text_encoder_2": G}}),
        ({"<cat-toy>": L[0]}, {"<cat-toy>": {"text_encoder": L[:1]}}),
        ({"<a.b>": L, "<c>": L[:1]}, {"<a.b>": {"text_encoder": L}, "<c>": {"text_encoder": L[:1]}}),
        ({"<cat>": G}, {"<cat>": {"text_encoder_2": G}}),
        ({"bundle_emb.ann.clip_l": L, "bundle_emb.ann.clip_g": G}, {"ann": {"text_encoder": L, "text_encoder_2": G}}),
        ({"bundle_emb.a.b.string_to_param.*": L}, {"a.b": {"text_encoder": L}}),
        ({"bundle_emb.v1.5.emb_params": L}, {"v1.5": {"text_encoder": L}}),
        ({"emb_params": L.half()}, {"cat": {"text_encoder": L.half()}}),
        ({"emb_params": torch.ones(1, 768, dtype=torch.float64)}, {"cat": {"text_encoder": torch.ones(1, 768)}}),
    ],
)
def test_files_are_read(tmp_path, tensors, expected):
    write_tensors(tensors, tmp_path / "cat.safetensors")
    assert same(read_embedding(tmp_path / "cat.safetensors"), expected)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            {"string_to_token": {"*": 265}, "string_to_param": {"*": L}, "name": "x", "step": 9, "sd_checkpoint": None},
            {"cat": {"text_encoder": L}},
        ),
        ({"string_to_param": {"*": torch.nn.Parameter(L)}}, {"cat": {"text_encoder": L}}),
        ({"string_to_param": {"sks": L}}, {"sks": {"text_encoder": L}}),
        ({"<cat>": L[0]}, {"<cat>": {"text_encoder": L[:1]}}),
        ({"clip_g": G, "clip_l": L}, {"cat": {"text_encoder": L, "text_encoder_2": G}}),
    ],
)
@pytest.mark.parametrize("name", ["cat.pt", "cat.bin"])
@pytest.mark.parametrize("is_zip", [True, False])
def test_files_of_pytorch_are_read(tmp_path, content, expected, name, is_zip):
    torch.save(content, tmp_path / name, _use_new_zipfile_serialization=is_zip)
    assert same(read_embedding(tmp_path / name), expected)


class Surprise:
    """Writes a file where a pickle of it is opened."""

    def __reduce__(self):
        return (open, ("opened", "w"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"emb_params": L, "other": Surprise()}, "is a pickle that holds more than tensors, numbers and text"),
        ({"string_to_param": torch.nn.ParameterDict({"a": L})}, "is a pickle that holds more than tensors"),
        ([L], "holds a list; allowed is a table of embeddings"),
        ({"string_to_param": [L]}, "string_to_param is a list; allowed is a table of tensors"),
        ({"string_to_param": {"*": L}, "more": L}, "has the tensors more beside string_to_param"),
        ({"emb_params": [1, 2]}, "'emb_params' is a list; allowed are names of tensors"),
        ({1: L}, "'1' is a Tensor; allowed are names of tensors"),
        ({"emb_params": torch.ones(1, 768).to_sparse()}, "'emb_params' is a Tensor; allowed are names"),
        ({"model.weight": L}, "is no file of embeddings .its keys begin with model.weight"),
    ],
)
def test_other_files_of_pytorch_are_refused(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "cat.pt")
    with pytest.raises(FileFormatError, match=f"cat.pt: {message}"):
        read_embedding(tmp_path / "cat.pt")
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04broken", b"\x80\x02", b"\x80\x02}q\x00."])
def test_files_that_are_none_of_pytorch_are_refused(tmp_path, content):
    (tmp_path / "cat.pt").write_bytes(content)
    with pytest.raises(FileFormatError, match=r"cat\.pt: (is no file of PyTorch|is a pickle that holds more)"):
        read_embedding(tmp_path / "cat.pt")


def test_missing_and_large_files_of_pytorch_are_refused(tmp_path):
    with pytest.raises(FileFormatError, match="there is no such file"):
        read_embedding(tmp_path / "cat.pt")
    with (tmp_path / "model.bin").open("wb") as file:
        file.truncate(65 * 1024 * 1024)
    with pytest.raises(FileFormatError, match="a pickle of embeddings has at most 67108864"):
        read_embedding(tmp_path / "model.bin")


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            {"emb_params": torch.ones(1, 4096)},
            "emb_params has width 4096, that of no text encoder; known are text_encoder 768",
        ),
        ({"emb_params": torch.ones(1, 1, 768)}, r"emb_params has shape \(1, 1, 768\); allowed are"),
        ({"clip_l": torch.ones(1, 1280)}, "clip_l has width 1280; text_encoder has 768 or 1024"),
        ({"clip_l": L, "clip_l_out": L}, "clip_l_out is a vector that OneTrainer puts behind the text encoder"),
        ({"clip_l": L, "clip_g": G[:1]}, "token 'cat' has 2 for text_encoder, 1 for text_encoder_2 vectors"),
        ({"emb_params": L, "clip_l": L}, "emb_params is a second embedding of 'cat' for text_encoder"),
        ({"bundle_emb.ann.t5": L}, "bundle_emb.ann.t5 is of a text encoder 't5' that the family has not"),
        ({"bundle_emb.clip_l": L}, "bundle_emb.clip_l names no token"),
        ({"emb_params": L / 0}, "emb_params has 1536 of 1536 values that are not finite"),
        ({"emb_params": L.long()}, "emb_params has type int64"),
        ({"a.lora_A.weight": L}, "is no file of embeddings .its keys begin with a.lora_A.weight"),
        ({"a": L, "b": torch.ones(3)}, "is no file of embeddings"),
        ({}, "is no file of embeddings .its keys begin with none"),
    ],
)
def test_other_files_are_refused(tmp_path, tensors, message):
    write_tensors(tensors, tmp_path / "cat.safetensors")
    with pytest.raises(FileFormatError, match=f"cat.safetensors: {message}"):
        read_embedding(tmp_path / "cat.safetensors")


def test_a_width_of_two_encoders_is_named():
    encoders = encoder_keys({"a": "clip_l", "b": "clip_g"}, {"a": 768, "b": 768})
    places = embedding_places({"emb_params": (1, 768)}, "cat", encoders)
    assert "that of several text encoders (a, b)" in places.refused["emb_params"]


def test_other_families_bring_their_encoders(tmp_path):
    tokens = {"ann": {"text_encoder": L, "text_encoder_2": torch.ones(2, 4096)}}
    write_embedding(tokens, tmp_path / "ann.safetensors", style="comfy", encoders=FLUX)
    assert same(read_embedding(tmp_path / "ann.safetensors", FLUX), tokens)
    assert bundled_places({"bundle_emb.ann.t5": (2, 4096), "x.alpha": ()}, FLUX).places == {
        "bundle_emb.ann.t5": EmbeddingPlace("ann", "text_encoder_2")
    }
    assert encoder_keys({"a": "qwen"}, {})["a"].widths == ()


@pytest.mark.parametrize(
    ("tokens", "style", "keys"),
    [
        ({"cat": {"text_encoder": L}}, "comfy", ["cat"]),
        ({"cat": {"text_encoder_2": G}}, "comfy", ["clip_g"]),
        ({"cat": {"text_encoder": L, "text_encoder_2": G}}, "comfy", ["clip_l", "clip_g"]),
        ({"<a>": {"text_encoder": L}, "<b>": {"text_encoder": L}}, "diffusers", ["<a>", "<b>"]),
        ({"a.b": {"text_encoder": L}}, "bundle", ["bundle_emb.a.b.clip_l"]),
        (
            {"a": {"text_encoder": L}, "b": {"text_encoder_2": G}},
            "bundle",
            ["bundle_emb.a.clip_l", "bundle_emb.b.clip_g"],
        ),
    ],
)
def test_files_that_are_written_are_read_back(tmp_path, tokens, style, keys):
    assert [*place_keys(tokens, style)] == keys
    write_embedding(tokens, tmp_path / "cat.safetensors", style=style)
    assert same(read_embedding(tmp_path / "cat.safetensors"), tokens)


@pytest.mark.parametrize(
    ("tokens", "style", "message"),
    [
        ({"a": {"text_encoder": L}, "b": {"text_encoder": L}}, "comfy", "has one token; these are a, b"),
        ({}, "comfy", "has one token; these are none"),
        (
            {"a": {"text_encoder": L, "text_encoder_2": G}},
            "diffusers",
            "has one text encoder; these are text_encoder, text_encoder_2",
        ),
        (
            {"a": {"text_encoder_9": L}},
            "bundle",
            "token 'a' is of text_encoder_9; allowed are text_encoder, text_encoder_2",
        ),
        (
            {"a": {"text_encoder": L}},
            "kohya",
            "embedding style 'kohya' is unknown; allowed are comfy, diffusers, bundle",
        ),
    ],
)
def test_styles_refuse_what_they_cannot_hold(tmp_path, tokens, style, message):
    with pytest.raises(ConfigurationError, match=message):
        write_embedding(tokens, tmp_path / "cat.safetensors", style=style)
    assert not (tmp_path / "cat.safetensors").exists()


def test_places_are_told_without_torch():
    code = (
        "import sys\nfrom orthoplex.concepts.exchange.embedding_keys import embedding_places\n"
        "assert embedding_places({'clip_l': (1, 768)}, 'cat').places['clip_l'].encoder == 'text_encoder'\n"
        "assert embedding_places({'a.lora_A.weight': (4, 768)}, 'cat') is None\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_files_for_diffusers_are_read_by_diffusers(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from diffusers.loaders.textual_inversion import load_textual_inversion_state_dicts
    write_embedding({"<cat>": {"text_encoder": L}}, tmp_path / "cat.safetensors", style="diffusers")
    (state,) = load_textual_inversion_state_dicts([str(tmp_path / "cat.safetensors")])
    assert torch.equal(state["<cat>"], L) and CLIP_ENCODERS["text_encoder"].names[0] == "clip_l"
