"""A base as a folder: ordinary, whole or not at all."""

from __future__ import annotations

import json
import os

import pytest
import torch
from safetensors import SafetensorError

from orthoplex.errors import ConfigurationError, OutputError
from orthoplex.merging import merge
from orthoplex.models import check_pipeline_folder, load_base, saving
from orthoplex.models.layers import all_linear_layers
from tests.pico import make_concept


def test_a_merge_is_saved_with_weights_tokens_and_recipe(pico, tmp_path, capfd):
    both = merge([(make_concept(pico, "anna"), 1.0), (make_concept(pico, "rex", seed=1, num_vectors=2), 0.8)])
    folder = tmp_path / "new" / "merged"
    with pico.folded(both):
        assert pico.save(folder) == folder
        weights = {name: layer.weight.clone() for name, layer in all_linear_layers(pico.modules()).items()}
        rows = pico.pipeline.text_encoder.get_input_embeddings().weight.clone()
    assert json.loads((folder / "recipe.json").read_text()) == both.recipe
    again = load_base(folder)
    for name, layer in all_linear_layers(again.modules()).items():
        assert torch.equal(layer.weight, weights[name]), name
    assert torch.equal(again.pipeline.text_encoder.get_input_embeddings().weight, rows)
    assert again.tokens == ("<anna>", "<rex>", "<rex>_1")
    assert again.pipeline.tokenizer.model_max_length == 32
    assert again.identity.hash != pico.identity.hash
    assert [path.name for path in folder.parent.iterdir()] == ["merged"]
    assert not list(folder.rglob("*.bin")) and list(folder.rglob("*.safetensors"))
    assert capfd.readouterr() == ("", "")


def test_a_plain_base_has_no_recipe(pico, tmp_path):
    pico.save(tmp_path / "plain")
    assert not (tmp_path / "plain" / "recipe.json").exists()
    assert load_base(tmp_path / "plain").identity.hash == pico.identity.hash


def test_a_folder_that_holds_something_is_refused_unless_told(pico, tmp_path):
    folder = tmp_path / "full"
    folder.mkdir()
    pico.save(folder)
    (folder / "mine.txt").write_text("precious")
    with pytest.raises(ConfigurationError, match="full: the folder is not empty, allowed is .*overwrite=True"):
        pico.save(folder)
    assert (folder / "mine.txt").read_text() == "precious"
    pico.save(folder, overwrite=True)
    assert not (folder / "mine.txt").exists() and (folder / "model_index.json").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_a_file_in_the_way_is_refused(pico, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="file: is a file, a folder is needed"):
        pico.save(tmp_path / "file", overwrite=True)


def test_a_failing_write_leaves_the_old_folder_and_nothing_else(pico, tmp_path, monkeypatch):
    folder = tmp_path / "merged"
    pico.save(folder)
    before = sorted(path.relative_to(folder) for path in folder.rglob("*"))

    def failing(pipeline, target, **options):
        target.mkdir()
        (target / "half").write_text("")
        raise OSError("disk full")

    monkeypatch.setattr(saving, "write_pipeline", failing)
    with pytest.raises(OutputError, match="merged cannot be written: disk full"):
        pico.save(folder, overwrite=True)
    assert sorted(path.relative_to(folder) for path in folder.rglob("*")) == before
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]


def test_a_folder_that_is_no_pipeline_is_never_overwritten(pico, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "anna.jpg").write_bytes(b"picture")
    with pytest.raises(ConfigurationError, match="photos: holds no model_index.json, only a pipeline folder may be"):
        pico.save(tmp_path / "photos", overwrite=True)
    assert (tmp_path / "photos" / "anna.jpg").read_bytes() == b"picture"


def test_the_weights_library_has_errors_of_its_own(pico, tmp_path, monkeypatch):
    def failing(pipeline, target, **options):
        raise SafetensorError("I/O error: no space left")

    monkeypatch.setattr(saving, "write_pipeline", failing)
    with pytest.raises(OutputError, match="merged cannot be written: I/O error: no space left"):
        pico.save(tmp_path / "merged")


@pytest.mark.parametrize("is_there", [False, True])
def test_a_folder_that_another_process_filled_meanwhile_is_kept(pico, tmp_path, monkeypatch, is_there):
    folder, original = tmp_path / "merged", saving.write_pipeline
    if is_there:
        folder.mkdir()

    def slowly(pipeline, target, **options):
        original(pipeline, target, **options)
        monkeypatch.setattr(saving, "write_pipeline", original)
        original(pipeline, folder)
        (folder / "theirs.txt").write_text("precious")

    monkeypatch.setattr(saving, "write_pipeline", slowly)
    with pytest.raises(OutputError, match="merged cannot be written: .*not empty"):
        pico.save(folder)
    assert (folder / "theirs.txt").read_text() == "precious" and load_base(folder).identity.hash == pico.identity.hash
    assert not list(tmp_path.rglob(".*"))


def test_an_empty_folder_that_cannot_be_renamed_is_filled(pico, tmp_path, monkeypatch):
    folder, rename = tmp_path / "mounted", os.replace
    folder.mkdir()
    number = folder.stat().st_ino

    def mounted(source, target):
        assert folder not in (source, target), "a mount point is busy"
        rename(source, target)

    monkeypatch.setattr(saving.os, "replace", mounted)
    pico.save(folder)
    assert folder.stat().st_ino == number and load_base(folder).identity.hash == pico.identity.hash
    assert not list(tmp_path.rglob(".*"))


def test_a_place_that_cannot_be_written_to_is_refused_before_any_work(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="merged cannot be written: .*Not a directory"):
        check_pipeline_folder(tmp_path / "file" / "merged")
    check_pipeline_folder(tmp_path / "new" / "merged")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
