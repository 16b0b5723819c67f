"""Numbers that are too large for a header lie in a file beside."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from orthoplex.adapters import LowRank
from orthoplex.concepts import Concept, load_concept, read_manifest, renamed, save_concept
from orthoplex.concepts import file as file_module
from orthoplex.concepts.exchange import LoraFile, write_lora
from orthoplex.errors import ConceptFileError, OutputError
from orthoplex.files import HEADER_LIMIT_BYTES, read_header
from tests.concepts.test_layerwise_tokens import K, rewrite, vectors
from tests.pico import make_manifest, tokens_of


@pytest.fixture
def small_headers(monkeypatch) -> None:
    """Headers have room for 64 letters of numbers: for the vector of a token, and nothing else."""
    monkeypatch.setattr(file_module, "IN_HEADER_LIMIT_BYTES", 64)


@pytest.fixture
def concept() -> Concept:
    layers = {K: LowRank(torch.ones(4, 1), torch.ones(1, 3))}
    return Concept(make_manifest(), layers, tokens_of({"<anna>": vectors(5)}), inputs=vectors(40, 3).half())


def keyed(concept: Concept, seed: int = 0) -> Concept:
    added = {"<anna>": {"unet.mid_block.attn2": vectors(2, 40, seed=seed)}}
    return replace(concept, tokens=tokens_of({"<anna>": vectors(5)}, keys_values=added))


def beside(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix == ".orthoplex")


@pytest.mark.usefixtures("small_headers")
@pytest.mark.parametrize("blocks", [("inputs",), ("inputs", "keys_values")])
def test_saved_and_loaded_exactly(concept, tmp_path, blocks):
    path = tmp_path / "anna.safetensors"
    concept = concept if len(blocks) == 1 else keyed(concept)
    manifest = save_concept(concept, path)
    assert manifest.companion is not None and manifest.companion.blocks == blocks
    assert beside(tmp_path) == [manifest.companion.file] == [f"anna.{manifest.companion.hash[:12]}.orthoplex"]
    again = load_concept(path)
    assert torch.equal(again.inputs, concept.inputs) and again.content_hash == concept.content_hash
    assert again.manifest == manifest == read_manifest(path)
    assert {name.partition(".")[0] for name in load_file(tmp_path / manifest.companion.file)} == set(blocks)
    assert ('"needs":["keys-values","companion"]' in read_header(path).metadata["orthoplex"]) == (len(blocks) == 2)
    save_concept(again, path)
    assert load_concept(path).content_hash == concept.content_hash and len(beside(tmp_path)) == 1


@pytest.mark.usefixtures("small_headers")
def test_without_inputs_a_concept_is_read_with_a_warning(concept, tmp_path, caplog):
    path = tmp_path / "anna.safetensors"
    save_concept(concept, path)
    (tmp_path / beside(tmp_path)[0]).unlink()
    again = load_concept(path)
    assert again.inputs is None and again.content_hash == replace(concept, inputs=None).content_hash
    assert again.manifest.content_hash == again.content_hash and not again.manifest.has_inputs
    (message,) = caplog.messages
    assert message.startswith(f"{path}: its file beside, {tmp_path}/anna.")
    assert message.endswith(".orthoplex, with its inputs, is missing; it is read without")
    save_concept(again, tmp_path / "again.safetensors")
    assert load_concept(tmp_path / "again.safetensors").manifest.companion is None
    torn = path.read_bytes()
    path.write_bytes(torn[:-1] + bytes([torn[-1] ^ 1]))
    with pytest.raises(ConceptFileError, match="the content was changed"):
        load_concept(path)


@pytest.mark.usefixtures("small_headers")
def test_without_tokens_both_files_are_named(concept, tmp_path):
    path = tmp_path / "anna.safetensors"
    save_concept(keyed(concept), path)
    other = tmp_path / beside(tmp_path)[0]
    other.unlink()
    message = f"{path}: its file beside, {other}, with its inputs and keys_values, is missing; allowed are both in one"
    with pytest.raises(ConceptFileError, match=message):
        load_concept(path)
    assert read_manifest(path).name == "anna"


@pytest.mark.usefixtures("small_headers")
@pytest.mark.parametrize(
    "damage", ["another number", "another shape", "another tensor", "cut off", "no file of tensors"]
)
def test_damage_beside_names_both_files(concept, tmp_path, damage):
    path = tmp_path / "anna.safetensors"
    save_concept(concept, path)
    other = tmp_path / beside(tmp_path)[0]
    tensors = {name: tensor.clone() for name, tensor in load_file(other).items()}
    match damage:
        case "another number":
            tensors["inputs.inputs"][0, 0] += 1
        case "another shape":
            tensors["inputs.inputs"] = tensors["inputs.inputs"].T.contiguous()
        case "another tensor":
            tensors["more"] = torch.ones(1)
        case _:
            tensors = {}
    if tensors:
        save_file(tensors, other)
    else:
        other.write_bytes(other.read_bytes()[:-1] if damage == "cut off" else b"text")
    reason = "holds other content than was written with it" if tensors else "cannot be read: "
    with pytest.raises(ConceptFileError, match=f"{path}: its file beside, {other}, {reason}"):
        load_concept(path)


@pytest.mark.usefixtures("small_headers")
def test_overwriting_and_renaming_take_it_along(concept, tmp_path):
    path = tmp_path / "anna.safetensors"
    save_concept(concept, path)
    first = beside(tmp_path)
    save_concept(replace(concept, inputs=vectors(40, 3, seed=1).half()), path)
    second = beside(tmp_path)
    assert len(second) == 1 and second != first
    save_concept(renamed(load_concept(path), "bob"), tmp_path / "bob.safetensors")
    assert [name.partition(".")[0] for name in beside(tmp_path)] == ["anna", "bob"]
    assert torch.equal(load_concept(tmp_path / "bob.safetensors").inputs, load_concept(path).inputs)
    (tmp_path / "copy.safetensors").write_bytes(path.read_bytes())
    save_concept(replace(concept, inputs=None), tmp_path / "copy.safetensors")  # the other file is not its own
    save_concept(replace(concept, inputs=None), tmp_path / "bob.safetensors")
    assert beside(tmp_path) == second


@pytest.mark.usefixtures("small_headers")
def test_a_failing_write_leaves_the_old_pair(concept, tmp_path, monkeypatch):
    path = tmp_path / "anna.safetensors"
    save_concept(concept, path)

    def failing(*arguments, overwrite):
        raise OutputError("disk full")

    monkeypatch.setattr(file_module, "write_tensors", failing)
    with pytest.raises(OutputError, match="disk full"):
        save_concept(replace(concept, inputs=vectors(40, 3, seed=1).half()), path)
    assert load_concept(path).content_hash == concept.content_hash


@pytest.mark.usefixtures("small_headers")
@pytest.mark.parametrize("name", ["../anna.0123456789ab.orthoplex", "/tmp/a.0123456789ab.orthoplex", "a.orthoplex", ""])
def test_a_name_that_is_none_of_a_file_beside_is_refused(concept, tmp_path, name):
    path = tmp_path / "anna.safetensors"
    companion = save_concept(concept, path).companion
    rewrite(path, companion={"file": name, "hash": companion.hash, "blocks": ["inputs"], "rest": companion.rest})
    with pytest.raises(
        ConceptFileError, match=f"'companion.file' is '{name}', allowed is 'NAME.<12 digits>.orthoplex'"
    ):
        load_concept(path)


def test_a_concept_of_the_size_of_sdxl_has_a_header_that_is_read(tmp_path):
    """70 cross-attention layers, inputs of width 2048, and two text encoders."""
    sizes = [640] * 10 + [1280] * 60
    names = [f"unet.blocks.{i}.attn2" for i in range(len(sizes))]
    layers = {
        f"{name}.{end}": LowRank(torch.zeros(size, 1).half(), torch.zeros(1, 2048).half())
        for name, size in zip(names, sizes, strict=True)
        for end in ("to_k", "to_v")
    }
    added = {name: torch.zeros(2, size) for name, size in zip(names, sizes, strict=True)}
    widths = {"text_encoder": 768, "text_encoder_2": 1280}
    tokens = {
        token: replace(item, vectors={encoder: torch.zeros(width) for encoder, width in widths.items()})
        for token, item in tokens_of(
            dict.fromkeys(("<anna>", "<anna>_1"), torch.zeros(1)),
            keys_values=dict.fromkeys(("<anna>", "<anna>_1"), added),
        ).items()
    }
    path = tmp_path / "anna.safetensors"
    concept = Concept(make_manifest(), layers, tokens, inputs=torch.zeros(1024, 2048).half())
    concept = replace(concept, manifest=replace(concept.manifest, base=replace(concept.manifest.base, family="sd1")))
    manifest = save_concept(concept, path)
    assert read_header(path).data_start < 1024 * 1024 < HEADER_LIMIT_BYTES
    assert manifest.companion is not None and manifest.companion.blocks == ("inputs", "keys_values")
    assert load_concept(path).content_hash == concept.content_hash


@pytest.mark.usefixtures("small_headers")
def test_renamed_in_place_the_file_beside_stays(concept, tmp_path):
    """Its content is the same, and so is its name; what else the manifest says of it differs."""
    path = tmp_path / "anna.safetensors"
    save_concept(concept, path)
    save_concept(renamed(load_concept(path), "bert"), path)
    assert load_concept(path).inputs is not None and len(beside(tmp_path)) == 1


@pytest.mark.usefixtures("small_headers")
def test_the_file_beside_of_another_concept_is_not_removed(concept, tmp_path):
    """Whose name begins with this one's, as a copy of that file under this name has it in its manifest."""
    other, path = tmp_path / "anna.v2.safetensors", tmp_path / "anna.safetensors"
    save_concept(concept, other)
    path.write_bytes(other.read_bytes())
    save_concept(replace(concept, inputs=None), path)
    assert load_concept(other).inputs is not None


@pytest.mark.usefixtures("small_headers")
def test_a_folder_in_the_place_of_the_file_beside_is_named(concept, tmp_path):
    path = tmp_path / "anna.safetensors"
    companion = tmp_path / save_concept(concept, path).companion.file
    companion.unlink()
    companion.mkdir()
    with pytest.raises(ConceptFileError, match="orthoplex, is a folder; allowed is the file as it was"):
        load_concept(path)


@pytest.mark.usefixtures("small_headers")
def test_a_lora_file_in_the_place_of_a_concept_leaves_no_file_beside(concept, tmp_path):
    path = tmp_path / "anna.safetensors"
    save_concept(concept, path)
    write_lora(LoraFile("a", "kohya", None, None, {}, differences={"a.weight": torch.ones(2, 2)}), path, style="kohya")
    assert beside(tmp_path) == []
