"""Concept files: saved and loaded exactly, and every damage refused by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors
import torch
from PIL import Image

from orthoplex.adapters import LowRank
from orthoplex.concepts import BaseIdentity, Concept, load_concept, read_manifest, save_concept
from orthoplex.concepts import file as file_module
from orthoplex.errors import ConceptFileError, OutputError
from orthoplex.files import read_header
from orthoplex.files import tensors as tensors_module
from tests.pico import PICO_IDENTITY, make_manifest, tokens_of, vectors_of

K = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
Q = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
FLAT_K = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
FLAT_Q = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"


@pytest.fixture
def concept() -> Concept:
    generator = torch.Generator().manual_seed(0)
    return Concept(
        make_manifest(),
        {
            K: LowRank(torch.randn(4, 2, generator=generator), torch.randn(2, 3, generator=generator)),
            Q: LowRank(torch.randn(5, 1, generator=generator), torch.randn(1, 5, generator=generator)),
        },
        tokens_of({token: torch.randn(6, generator=generator) for token in ("<anna>", "<anna>_1")}),
    )


@pytest.fixture
def path(concept, tmp_path) -> Path:
    path = tmp_path / "anna.safetensors"
    save_concept(concept, path)
    return path


def rewrite(path: Path, change) -> None:
    """Let ``change`` edit the header's JSON in place, and write the file with the same tensor bytes."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


def rewrite_manifest(path: Path, change) -> None:
    def edit(header):
        manifest = json.loads(header["__metadata__"]["orthoplex"])
        change(manifest)
        header["__metadata__"]["orthoplex"] = json.dumps(manifest)

    rewrite(path, edit)


def refused(path: Path, *parts: str, base: BaseIdentity | None = PICO_IDENTITY) -> None:
    """Loading must raise a ConceptFileError that names the file and every part."""
    with pytest.raises(ConceptFileError) as error:
        load_concept(path, base=base)
    for part in (path.name, *parts):
        assert part in str(error.value), f"{part!r} not in {error.value!s}"


@pytest.mark.parametrize("dtype", [None, torch.float32, torch.float16, torch.bfloat16])
def test_save_then_load_is_exact(concept, tmp_path, dtype):
    path = tmp_path / "new" / "anna.safetensors"
    manifest = save_concept(concept, path, dtype=dtype)
    again = load_concept(path, base=PICO_IDENTITY)
    assert again.manifest == manifest == read_manifest(path)
    assert list(again.layers) == sorted(concept.layers) and again.tokens.keys() == concept.tokens.keys()
    for name, factors in concept.layers.items():
        expected = factors.up.dtype if dtype is None else dtype
        assert again.layers[name].up.dtype == expected
        assert torch.equal(again.layers[name].up, factors.up.to(expected))
        assert torch.equal(again.layers[name].down, factors.down.to(expected))
    for token, vector in vectors_of(concept.tokens).items():
        assert torch.equal(vectors_of(again.tokens)[token], vector)


def test_saving_fills_in_what_is_known_only_then(concept, path):
    manifest = read_manifest(path)
    assert manifest.layers == {K: (4, 2, 3), Q: (5, 1, 5)}
    assert manifest.content_hash == concept.content_hash and len(manifest.content_hash) == 64
    assert manifest.package_version and manifest.created == "2026-01-01T00:00:00+00:00"
    assert replace(concept.manifest, created="").created == ""
    fresh = save_concept(replace(concept, manifest=replace(concept.manifest, created="")), path)
    assert fresh.created.endswith("+00:00")


def test_equal_concepts_are_equal_files_whatever_the_order(concept, path, tmp_path):
    backwards = replace(concept, layers=dict(reversed(concept.layers.items())))
    save_concept(backwards, tmp_path / "b.safetensors")
    assert (tmp_path / "b.safetensors").read_bytes() == path.read_bytes()


def test_content_hash_sees_every_value_name_and_token(concept):
    hashes = {concept.content_hash}
    factors = concept.layers[K]
    hashes.add(replace(concept, layers={**concept.layers, K: factors.scaled(1.0001)}).content_hash)
    hashes.add(replace(concept, layers={"unet.x": factors, Q: concept.layers[Q]}).content_hash)
    hashes.add(replace(concept, tokens={"<anna>": concept.tokens["<anna>"]}).content_hash)
    hashes.add(replace(concept, tokens={**concept.tokens, **tokens_of({"<anna>": torch.zeros(6)})}).content_hash)
    assert len(hashes) == 5
    assert replace(concept, manifest=make_manifest("rex")).content_hash == concept.content_hash


def test_the_safetensors_library_and_other_programs_can_read_it(concept, path):
    with safetensors.safe_open(path, "pt") as file:
        ends = ("alpha", "lora_down.weight", "lora_up.weight")
        assert sorted(file.keys()) == [f"{layer}.{end}" for layer in (FLAT_Q, FLAT_K) for end in ends]
        assert torch.equal(file.get_tensor(f"{FLAT_K}.lora_down.weight"), concept.layers[K].down)
        assert torch.equal(file.get_tensor(f"{FLAT_K}.lora_up.weight"), concept.layers[K].up)
        metadata = file.metadata()
    assert metadata["modelspec.title"] == "anna"
    assert metadata["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert metadata["modelspec.trigger_phrase"] == "<anna> person"
    assert (metadata["ss_output_name"], metadata["ss_network_dim"], metadata["ss_network_alpha"]) == ("anna", "2", "2")
    assert metadata["format"] == "pt" and "lora_adapter_metadata" not in metadata
    assert (int.from_bytes(path.read_bytes()[:8], "little")) % 8 == 0


@pytest.mark.parametrize(
    ("version", "architecture"),
    [
        ("sd1", "stable-diffusion-v1/lora"),
        ("sd2", "stable-diffusion-v2-512/lora"),
        ("sd2-v", "stable-diffusion-v2-768-v/lora"),
        ("vignette", "vignette/lora"),
        ("something", "something/lora"),
    ],
)
def test_the_architecture_is_that_of_the_base(concept, path, version, architecture):
    base = replace(concept.manifest.base, family=version)
    save_concept(replace(concept, manifest=replace(concept.manifest, base=base)), path)
    assert read_header(path).metadata["modelspec.architecture"] == architecture


def test_reading_the_manifest_touches_the_header_only(concept, tmp_path, monkeypatch):
    big = LowRank(torch.ones(512, 64), torch.ones(64, 512))
    path = tmp_path / "big.safetensors"
    save_concept(replace(concept, layers={"unet.big": big}), path)
    header_bytes = read_header(path).data_start
    assert path.stat().st_size > 20 * header_bytes
    read = []
    original = Path.open

    def counting_open(self, mode="r", **options):
        file = original(self, mode, **options)
        inner = file.read

        class Counting:
            def __enter__(self):
                return self

            def __exit__(self, *error):
                file.close()

            def fileno(self):
                return file.fileno()

            def read(self, size):
                read.append(size)
                return inner(size)

        return Counting()

    monkeypatch.setattr(Path, "open", counting_open)
    assert read_manifest(path).name == "anna"
    assert sum(read) == header_bytes


def test_the_manifest_of_a_file_cut_off_in_its_tensors_can_be_read_but_not_loaded(path):
    data = path.read_bytes()
    path.write_bytes(data[:-7])
    assert read_manifest(path).trigger == "<anna> person"
    refused(path, "truncated", "bytes of tensors, the header announces")


@pytest.mark.parametrize("kept", [0, 5, 8, 60])
def test_a_file_cut_off_in_its_header_is_refused(path, kept):
    path.write_bytes(path.read_bytes()[:kept])
    refused(path, "truncated" if kept >= 8 else f"holds {kept} bytes")


def test_bytes_after_the_end_are_refused(path):
    path.write_bytes(path.read_bytes() + b"more")
    refused(path, "has bytes after its end")


def test_a_missing_file_is_refused(tmp_path):
    refused(tmp_path / "nobody.safetensors", "there is no such file")
    refused(tmp_path, "is a folder, allowed is a safetensors file")
    refused(tmp_path / ("x" * 256), "cannot be read: ", "File name too long")


@pytest.mark.parametrize("suffix", [".pt", ".ckpt", ".bin", ".pth", ".pkl"])
def test_pickle_suffixes_are_never_opened(path, suffix):
    other = path.rename(path.with_suffix(suffix))
    refused(other, f"'{suffix}' is a pickle format", "allowed: .safetensors")


@pytest.mark.parametrize("new_format", [True, False])
def test_pickles_are_refused_whatever_their_name(tmp_path, new_format):
    path = tmp_path / "anna.safetensors"
    torch.save({"a": torch.ones(2)}, path, _use_new_zipfile_serialization=new_format)
    refused(path, "holds a pickle and is never opened", "allowed is a safetensors file")


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "anna.safetensors"
    path.write_bytes(b"just some text that is long enough")
    refused(path, "is not a safetensors file", "it is a text file ('just some text that is long enough')")
    path.write_bytes(bytes(range(255, 200, -1)))
    refused(path, "is no safetensors file (it begins with the bytes ")
    path.write_bytes((4).to_bytes(8, "little") + b"abcd")
    refused(path, "is no safetensors file (it begins with the bytes 04 00 00 00 00 00 00 00); get the .safetensors")
    path.write_bytes((5).to_bytes(8, "little") + b"{abcd")
    refused(path, "is not a safetensors file", "not JSON")


def test_a_plain_lora_file_is_no_concept_file(tmp_path):
    path = tmp_path / "plain.safetensors"
    safetensors.torch.save_file({"unet.a.lora_A.weight": torch.ones(2, 2)}, path, metadata={"format": "pt"})
    refused(
        path, "is a LoRA of diffusers, not a concept of Orthoplex", "orthoplex inspect and orthoplex convert read it"
    )
    safetensors.torch.save_file({"some.thing": torch.ones(2, 2)}, path, metadata={"format": "pt"})
    refused(path, "is not a concept file", "'orthoplex' is missing", "found format")


def test_another_base_is_refused_with_both_names(path):
    other = BaseIdentity(family="sd1", hash="f" * 64, name="dreams")
    refused(path, "trained on base 'pico'", "0" * 12, "allowed is 'dreams'", "f" * 12, base=other)
    assert load_concept(path, base=replace(PICO_IDENTITY, name="renamed")).name == "anna"
    assert load_concept(path).name == "anna"


def test_an_unknown_format_version_is_refused(path):
    rewrite_manifest(path, lambda manifest: manifest.update(format_version=6))
    refused(path, "format_version 6 is unknown", "reads 1, 2, 3, 4, 5")


def test_a_missing_tensor_is_named(path):
    rewrite(path, lambda header: header.pop(f"{FLAT_K}.lora_up.weight"))
    refused(path, f"tensor '{FLAT_K}.lora_up.weight' of shape (4, 2) is missing")


def test_a_renamed_tensor_is_named_with_its_new_name(path):
    rewrite(path, lambda header: header.update({"unet.who.lora_B.weight": header.pop(f"{FLAT_K}.lora_up.weight")}))
    refused(path, f"tensor '{FLAT_K}.lora_up.weight'", "is missing", "unknown tensor 'unet.who.lora_B.weight'")


def test_an_unknown_tensor_is_named(path):
    rewrite(path, lambda header: header.update({"unet.who.alpha": {**header[f"{FLAT_K}.lora_down.weight"]}}))
    refused(path, "tensor 'unet.who.alpha' is unknown", "the manifest lists 6 tensors")


def test_a_wrong_shape_is_named(path):
    rewrite(path, lambda header: header[f"{FLAT_K}.lora_down.weight"].update(shape=[3, 2]))
    refused(path, f"tensor '{FLAT_K}.lora_down.weight' has shape (3, 2), allowed is (2, 3)")


def test_an_unexpected_data_type_is_named(path):
    rewrite(path, lambda header: header[f"{FLAT_K}.lora_down.weight"].update(dtype="I32"))
    refused(path, f"tensor '{FLAT_K}.lora_down.weight' has data type 'I32', allowed are F16, BF16, F32")


@pytest.mark.parametrize("entry", [{}, {"dtype": "F32", "shape": [2], "data_offsets": [0]}, "x", None])
def test_a_malformed_header_entry_is_named(path, entry):
    rewrite(path, lambda header: header.update({f"{FLAT_K}.lora_down.weight": entry}))
    refused(path, f"entry of tensor '{FLAT_K}.lora_down.weight' is malformed")


@pytest.mark.parametrize("dtype", [[], {}, None])
def test_a_data_type_that_is_no_text_is_named(path, dtype):
    rewrite(path, lambda header: header[f"{FLAT_K}.lora_down.weight"].update(dtype=dtype))
    refused(path, f"{FLAT_K}.lora_down.weight", f"data type '{dtype}', allowed are names of data types")


@pytest.mark.parametrize("text", [b'{"a":' + b"[" * 200000, b'{"\\ud800": 1}'])
def test_a_header_that_no_one_can_read_or_show_is_refused(path, text):
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    refused(path, "header is not JSON")


def test_offsets_that_do_not_fit_the_shape_are_refused(path):
    rewrite(path, lambda header: header[f"{FLAT_K}.lora_down.weight"].update(data_offsets=[0, 4]))
    refused(path, "is not a whole safetensors file")


def test_metadata_that_is_not_text_is_refused(path):
    rewrite(path, lambda header: header.update(__metadata__={"orthoplex": 3}))
    refused(path, "'__metadata__' must map text to text")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_refused_on_saving(concept, tmp_path, value):
    concept.layers[K].up[1, 1] = value
    with pytest.raises(ConceptFileError, match=r"anna.safetensors: up of layer '.*attn2.to_k' holds 1 numbers"):
        save_concept(concept, tmp_path / "anna.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_numbers_too_large_for_float16_are_refused_on_saving(concept, tmp_path):
    concept.layers[K].down[0] = 1e6
    with pytest.raises(ConceptFileError, match="down of layer '.*to_k' holds 3 numbers that are not finite"):
        save_concept(concept, tmp_path / "anna.safetensors", dtype=torch.float16)


def test_numbers_that_are_not_finite_are_refused_on_loading(concept, path, monkeypatch):
    concept.layers[K].up[1, 1] = float("nan")
    vectors_of(concept.tokens)["<anna>"][2] = float("inf")
    monkeypatch.setattr(file_module, "_check_finite", lambda *arguments: None)
    save_concept(replace(concept, tokens={}), path)
    save_concept(replace(concept, layers={}), path.with_name("tokens.safetensors"))
    monkeypatch.undo()
    refused(path, f"up of layer '{K}' holds 1 numbers that are not finite, allowed: none")
    refused(path.with_name("tokens.safetensors"), "token '<anna>' holds 1 numbers that are not finite")


def test_a_changed_byte_is_noticed(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    refused(path, "'content_hash'", "the content was changed")


def test_a_changed_token_is_noticed_and_a_broken_one_named(path):
    def block(**changes):
        rewrite_manifest(path, lambda manifest: manifest["numbers"]["tokens"].update(changes))

    rows = read_manifest(path).numbers["tokens"].data
    block(data="AAAA" + rows[4:])
    refused(path, "'content_hash'", "the content was changed")
    block(data="%")
    refused(path, "block 'tokens' is not base64")
    block(data=rows, shapes={"text_encoder": [3, 4]})
    refused(path, "block 'tokens' has shape (3, 4) for 'text_encoder', allowed is a row for each of 2 tokens")
    block(shapes={"text_encoder": [2, 2, 3]})
    refused(path, "token '<anna>' has shape (2, 3), allowed is (dim,)")


def test_tokens_that_are_not_named_after_the_concept_are_refused(concept, path):
    with pytest.raises(
        ConceptFileError, match="tokens of concept 'rex' are <anna>, <anna>_1, allowed are <rex>, <rex>_1"
    ):
        save_concept(replace(concept, manifest=make_manifest("rex")), path)
    rewrite_manifest(path, lambda manifest: manifest.update(tokens=["<anna>_1", "<max>"]))
    refused(path, "tokens of concept 'anna' are <anna>_1, <max>, allowed are <anna>, <anna>_1")


def test_a_name_without_the_suffix_is_refused(concept, tmp_path):
    with pytest.raises(ConceptFileError, match=r"anna.pt: a concept file is named '\*.safetensors', not '\*.pt'"):
        save_concept(concept, tmp_path / "anna.pt")


def test_layers_of_no_component_and_odd_data_types_are_refused_on_saving(concept, tmp_path):
    factors = concept.layers[K]
    with pytest.raises(ConceptFileError, match="layer 'vae.x' must start with one of unet, text_enc"):
        save_concept(replace(concept, layers={"vae.x": factors}), tmp_path / "a.safetensors")
    double = LowRank(factors.up.double(), factors.down.double())
    with pytest.raises(ConceptFileError, match="up of layer '.*to_k' is torch.float64, allowed are F16, BF16, F32"):
        save_concept(replace(concept, layers={K: double}), tmp_path / "a.safetensors")


def test_a_failing_write_leaves_the_old_file_and_nothing_else(concept, path, monkeypatch):
    before = path.read_bytes()

    def failing(tensor):
        raise OSError("disk full")

    monkeypatch.setattr(tensors_module, "tensor_bytes", failing)
    with pytest.raises(OutputError, match="cannot be written: disk full"):
        save_concept(concept, path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_concept_of_tokens_alone(concept, tmp_path):
    path = tmp_path / "words.safetensors"
    save_concept(replace(concept, layers={}), path)
    again = load_concept(path)
    assert again.layers == {} and torch.equal(vectors_of(again.tokens)["<anna>"], vectors_of(concept.tokens)["<anna>"])


def test_what_stands_in_the_place_of_a_concept_leads_to_its_use(tmp_path):
    path = tmp_path / "anna.safetensors"
    Image.new("RGB", (16, 16)).save(path, format="PNG")
    refused(path, "it is a picture (PNG); orthoplex train makes a concept of a folder of pictures")
    (tmp_path / "model_index.json").write_text("{}")
    refused(tmp_path, "is a folder, allowed is a safetensors file", "; it holds a pipeline, which is a base (--base)")
