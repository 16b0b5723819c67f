"""A base as a folder: ordinary, whole or not at all."""

from __future__ import annotations

import json
import os

import pytest
import torch
from peft import LoraConfig
from safetensors import SafetensorError
from safetensors.torch import load_file

from orthoplex.errors import BaseModelError, ConfigurationError, OutputError
from orthoplex.merging import merge
from orthoplex.models import check_pipeline_folder, load_base, saving
from tests.pico import make_concept


def test_a_merge_is_saved_with_weights_tokens_and_recipe(pico, tmp_path, capfd):
    both = merge([(make_concept(pico, "anna"), 1.0), (make_concept(pico, "rex", seed=1, num_vectors=2), 0.8)])
    folder = tmp_path / "new" / "merged"
    with pico.folded(both):
        assert pico.save(folder) == folder
        weights = {name: layer.weight.clone() for name, layer in pico.family.every_layer().items()}
        rows = pico.pipeline.text_encoder.get_input_embeddings().weight.clone()
    assert json.loads((folder / "recipe.json").read_text()) == both.recipe.to_json()
    again = load_base(folder)
    for name, layer in again.family.every_layer().items():
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
    with pytest.raises(
        ConfigurationError, match=r"full: holds mine.txt, which is no part of its pipeline and would be"
    ):
        pico.save(folder, overwrite=True)
    (folder / "mine.txt").rename(folder / "recipe.json")
    pico.save(folder, overwrite=True)
    assert not (folder / "recipe.json").exists() and (folder / "model_index.json").is_file()
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
    with pytest.raises(OutputError, match="merged was filled by another process meanwhile; give another name"):
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

    monkeypatch.setattr(os, "replace", mounted)
    pico.save(folder)
    assert folder.stat().st_ino == number and load_base(folder).identity.hash == pico.identity.hash
    assert not list(tmp_path.rglob(".*"))


def test_a_place_that_cannot_be_written_to_is_refused_before_any_work(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="merged cannot be written: .*Not a directory"):
        check_pipeline_folder(tmp_path / "file" / "merged")
    check_pipeline_folder(tmp_path / "new" / "merged")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


COMPONENTS = ("unet", "vae", "text_encoder")


@pytest.fixture(scope="module")
def half_folder(shared_pico, tmp_path_factory):
    """The pico pipeline in float16; read only."""
    return shared_pico.save(tmp_path_factory.mktemp("half") / "pipeline", dtype=torch.float16)


def stored(folder):
    """Every tensor of a folder, by component and name."""
    return {
        f"{component}.{name}": values
        for component in COMPONENTS
        for file in (folder / component).glob("*.safetensors")
        for name, values in load_file(file).items()
    }


def types(folder):
    return {name.partition(".")[0]: values.dtype for name, values in stored(folder).items()}


def sizes(folder):
    return {path.relative_to(folder): path.stat().st_size for path in folder.rglob("*.safetensors")}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_folder_keeps_the_type_of_the_one_it_came_from(half_folder, tmp_path, dtype):
    base = load_base(half_folder, dtype=dtype)
    before = {name: values.clone() for name, values in base.pipeline.unet.state_dict().items()}
    base.save(tmp_path / "again")
    assert types(tmp_path / "again") == dict.fromkeys(COMPONENTS, torch.float16)
    assert sizes(tmp_path / "again") == sizes(half_folder)
    for name, values in base.pipeline.unet.state_dict().items():
        assert values.dtype == dtype and torch.equal(values, before[name]), name
    if dtype != torch.bfloat16:
        again, first = stored(tmp_path / "again"), stored(half_folder)
        assert again.keys() == first.keys() and all(torch.equal(again[name], first[name]) for name in first)


def test_float32_stays_float32_unless_less_is_in_memory_or_asked_for(pico, pico_folder, tmp_path):
    pico.save(tmp_path / "whole")
    assert types(tmp_path / "whole") == dict.fromkeys(COMPONENTS, torch.float32)
    load_base(pico_folder, dtype=torch.float16).save(tmp_path / "half")
    assert types(tmp_path / "half") == dict.fromkeys(COMPONENTS, torch.float16)
    pico.save(tmp_path / "asked", dtype=torch.bfloat16)
    assert types(tmp_path / "asked") == dict.fromkeys(COMPONENTS, torch.bfloat16)
    with pytest.raises(ConfigurationError, match=r"dtype is torch.float64, allowed are torch.float16, torch.bfloat16,"):
        pico.save(tmp_path / "double", dtype=torch.float64)
    assert not (tmp_path / "double").exists()


def test_every_part_keeps_its_own_type(pico_folder, tmp_path):
    base = load_base(pico_folder)
    base.pipeline.vae.to(torch.bfloat16)
    base.stored_dtypes = {"unet": torch.float16}
    base.save(tmp_path / "mixed")
    kinds = {"unet": torch.float16, "vae": torch.bfloat16, "text_encoder": torch.float32}
    assert types(tmp_path / "mixed") == kinds
    assert load_base(tmp_path / "mixed").stored_dtypes == kinds


def test_a_fold_is_rounded_once(half_folder, tmp_path):
    base = load_base(half_folder)
    with base.folded(make_concept(base, "anna", text_encoder=True)):
        base.save(tmp_path / "merged")
        exact = {name: layer.weight.clone() for name, layer in base.family.every_layer().items()}
    found = stored(tmp_path / "merged")
    assert all(torch.equal(found[f"{name}.weight"], weights.half()) for name, weights in exact.items())


def test_a_weight_too_large_for_its_type_is_refused_by_name(half_folder, tmp_path):
    base = load_base(half_folder)
    base.pipeline.unet.conv_in.bias.data[0] = 1e6
    with pytest.raises(ConfigurationError, match=r"tensor 'conv_in.bias' holds 1e\+06, torch.float16 up to 65504"):
        base.save(tmp_path / "merged")
    assert not list(tmp_path.iterdir())
    base.save(tmp_path / "merged", dtype=torch.float32)


def test_how_weights_lie_in_memory_does_not_matter(pico_folder, tmp_path):
    base = load_base(pico_folder)
    base.save(tmp_path / "usual")
    base.family.channels_last()
    assert not base.pipeline.unet.conv_in.weight.is_contiguous()
    base.save(tmp_path / "turned")
    for path in (tmp_path / "usual").rglob("*.safetensors"):
        assert (tmp_path / "turned" / path.relative_to(tmp_path / "usual")).read_bytes() == path.read_bytes()


def test_nothing_tells_where_the_base_came_from(pico, pico_folder, tmp_path):
    pico.pipeline.tokenizer.init_kwargs["cache"] = str(pico_folder)
    with pico.folded(make_concept(pico, "anna")):
        pico.save(tmp_path / "merged")
    del pico.pipeline.tokenizer.init_kwargs["cache"]
    texts = {path: path.read_text("utf-8") for path in (tmp_path / "merged").rglob("*.json")}
    assert len(texts) > 6
    for path, text in texts.items():
        assert str(pico_folder.parent) not in text and "name_or_path" not in text and "is_local" not in text, path


def test_text_encoders_are_named_as_all_releases_read_them(pico, tmp_path):
    pico.save(tmp_path / "plain")
    names = load_file(tmp_path / "plain" / "text_encoder" / "model.safetensors")
    assert all(name.startswith("text_model.") for name in names)
    config = json.loads((tmp_path / "plain" / "text_encoder" / "config.json").read_text())
    assert config["torch_dtype"] == "float32" and "dtype" not in config


def test_a_pipeline_with_a_lora_in_it_is_refused(pico_folder, tmp_path):
    base = load_base(pico_folder)
    base.pipeline.unet.add_adapter(LoraConfig(r=2, target_modules=["to_k"]))
    with pytest.raises(BaseModelError, match=r"unet\..*to_k.*is no plain weight; unload LoRAs"):
        base.save(tmp_path / "merged")


def test_weights_without_plain_numbers_are_refused(pico_folder, tmp_path):
    base = load_base(pico_folder)
    base.pipeline.vae.to("meta")
    with pytest.raises(BaseModelError, match=r"vae\..* is torch.float32 on meta; allowed are plain weights"):
        base.save(tmp_path / "merged")
    base = load_base(pico_folder)
    base.pipeline.unet.conv_in.weight.data = base.pipeline.unet.conv_in.weight.data.to(torch.float8_e4m3fn)
    with pytest.raises(BaseModelError, match=r"unet.conv_in.weight is torch.float8_e4m3fn on cpu"):
        base.save(tmp_path / "merged")


def test_a_folder_that_a_killed_process_moved_aside_is_put_back(pico, tmp_path):
    pico.save(tmp_path / "merged")
    (tmp_path / "merged").rename(tmp_path / ".merged.0123abcd.replaced")
    with pytest.raises(ConfigurationError, match="not empty"):
        pico.save(tmp_path / "merged")
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]
    assert load_base(tmp_path / "merged").identity.hash == pico.identity.hash
