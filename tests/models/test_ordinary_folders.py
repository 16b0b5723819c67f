"""Ordinary folders of pipelines load in silence; for everything else a line says what to give."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from orthoplex.concepts import save_concept
from orthoplex.errors import BaseModelError
from orthoplex.models import base_folder, base_place, load_base, weight_files
from orthoplex.models.base_folder import check_weight_files
from orthoplex.models.weight_files import find_weights, has_single_file
from tests.pico import make_concept

INDEX = "model_index.json"
STEMS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"


@pytest.fixture
def folder(pico_folder, tmp_path):
    """A copy of the pipeline folder that a test may change."""
    return shutil.copytree(pico_folder, tmp_path / "base")


def weights(folder, component):
    return folder / component / f"{STEMS[component]}.safetensors"


def rename(folder, component, variant):
    path = weights(folder, component)
    path.rename(path.with_name(f"{STEMS[component]}.{variant}.safetensors"))


def to_pickle(folder, component):
    path = weights(folder, component)
    name = "pytorch_model" if component == "text_encoder" else STEMS[component]
    torch.save(load_file(path), path.with_name(f"{name}.bin"))
    path.unlink()


def to_shards(folder, component):
    path, stem = weights(folder, component), STEMS[component]
    tensors = load_file(path)
    files = {name: f"{stem}-0000{1 + place % 2}-of-00002.safetensors" for place, name in enumerate(sorted(tensors))}
    for file in set(files.values()):
        part = {name: values for name, values in tensors.items() if files[name] == file}
        save_file(part, path.with_name(file), metadata={"format": "pt"})
    text = json.dumps({"metadata": {"total_size": 1}, "weight_map": files})
    path.with_name(f"{stem}.safetensors.index.json").write_text(text)
    path.unlink()


def change_index(folder, **values):
    path = folder / INDEX
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


CHECKER = ["stable_diffusion", "StableDiffusionSafetyChecker"]
FORMS = {
    "fp16 alone": lambda folder: [rename(folder, component, "fp16") for component in STEMS],
    "fp16 of one part": lambda folder: rename(folder, "unet", "fp16"),
    "another variant": lambda folder: rename(folder, "unet", "non_ema"),
    "pickles": lambda folder: [to_pickle(folder, component) for component in STEMS],
    "shards": lambda folder: [to_shards(folder, component) for component in STEMS],
    "a pickle and a shard": lambda folder: [to_pickle(folder, "vae"), to_shards(folder, "text_encoder")],
    "a safety checker that is not there": lambda folder: change_index(
        folder, safety_checker=CHECKER, feature_extractor=["transformers", "CLIPImageProcessor"]
    ),
    "further entries": lambda folder: change_index(folder, image_encoder=["transformers", "Clip"], mine=["x", "Y"]),
    "other files": lambda folder: (folder / "v1-5-pruned.safetensors").write_bytes(b"x"),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_folders_load_in_silence(folder, pico, form, capfd, recwarn, caplog):
    FORMS[form](folder)
    assert load_base(folder).identity.hash == pico.identity.hash
    assert capfd.readouterr() == ("", "") and not list(recwarn) and not caplog.records


def refusal(given):
    with pytest.raises(BaseModelError) as caught:
        load_base(given)
    line = str(caught.value)
    assert "\n" not in line and line.startswith(f"base '{given}'")
    return line


@pytest.mark.parametrize("address", ["https://host/me/base", "file:///me/base", "hf://me/base"])
def test_an_address_is_to_be_downloaded(address):
    assert refusal(address).endswith("; an address is not read: download what it names first")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        (
            "sd15.ckpt",
            b"PK",
            "is a file of weights of another form; allowed are pipeline folders and .safetensors checkpoint files",
        ),
        ("notes.txt", b"", "is a file; allowed are 'vignette', pipeline folders and checkpoint files"),
        ("cut.safetensors", b"xy", "is a damaged file (holds 2 bytes, a safetensors file starts with 8"),
        ("sd15.safetensors", POINTER, "is a git-lfs pointer to a file that was not fetched; 'git lfs pull'"),
        ("model_index.json", b"{}", "is a file; give its folder '"),
    ],
)
def test_a_file_is_told_from_a_folder(tmp_path, name, content, expected):
    (tmp_path / name).write_bytes(content)
    assert expected in refusal(tmp_path / name)


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        (
            ("double_stream_modulation_img.lin.weight", "single_stream_modulation.lin.weight", "double_blocks.0.x"),
            "is a checkpoint file of FLUX.2 Klein, which is not supported; allowed are those of Stable Diffusion",
        ),
        (("net.llm_adapter.x", "net.blocks.0.x"), "is a checkpoint file of Anima, which is not supported; allowed are"),
        (
            ("input_blocks.0.0.weight", "output_blocks.0.0.weight"),
            "is a file of weights of Stable Diffusion without its denoiser; allowed is a file that holds it",
        ),
        (
            ("first_stage_model.decoder.conv_in.bias",),
            "is a file of weights, but of no known base; allowed are checkpoint files of Stable Diffusion",
        ),
        (
            ("lora_unet_mid_block.lora_up.weight",),
            "is a LoRA file, a change of a base; give the base that it was trained on",
        ),
        (("unet.mid_block.to_k.lora_A.weight",), "is a LoRA file"),
    ],
)
def test_a_file_of_tensors_is_told_by_its_names(tmp_path, monkeypatch, tensors, expected):
    loaded = {"StableDiffusionPipeline": base_place.FAMILIES["StableDiffusionPipeline"]}
    for module in (base_place, base_folder):
        monkeypatch.setattr(module, "FAMILIES", loaded)
    save_file({tensor: torch.zeros(1) for tensor in tensors}, tmp_path / "file.safetensors")
    assert expected in refusal(tmp_path / "file.safetensors")


def test_a_concept_file_is_no_base(pico, tmp_path):
    save_concept(make_concept(pico), tmp_path / "anna.safetensors")
    assert "is a concept file; give it as a concept, with the base" in refusal(tmp_path / "anna.safetensors")


def test_a_folder_one_level_too_high_or_too_low_is_told(folder, tmp_path):
    assert f"no class name in {INDEX}; give a folder in it: {folder}" in refusal(tmp_path)
    assert f"no class name in {INDEX}; it is one part of a pipeline, give '{folder}'" in refusal(folder / "unet")
    cache = tmp_path / "cache"
    shutil.move(folder, cache / "snapshots" / "0a1b")
    assert f"give a folder in it: {cache / 'snapshots' / '0a1b'}" in refusal(cache)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], f"no class name in {INDEX}; the folder is empty"),
        (["adapter_config.json"], "it holds a LoRA, a change of a base; give the pipeline folder of that base"),
        (["b.ckpt", "c.safetensors"], "it holds b.ckpt, c.safetensors; b.ckpt is a file of weights of"),
        (["a.txt", "b.txt", "c.txt", "d.txt"], "it holds a.txt, b.txt, c.txt, …"),
    ],
)
def test_a_folder_that_is_no_pipeline_is_described(tmp_path, names, expected):
    for name in names:
        (tmp_path / name).touch()
    assert expected in refusal(tmp_path)


@pytest.mark.parametrize("name", [INDEX, "unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"])
def test_a_pointer_of_git_lfs_is_told(folder, name):
    (folder / name).write_bytes(POINTER)
    line = refusal(folder)
    assert f"{name.partition('/')[0]}" in line and "a git-lfs pointer" in line
    assert "'git lfs pull' in the folder fetches it" in line


def test_other_files_in_the_place_of_weights_are_named_and_no_concept_is_spoken_of(folder):
    picture = b"\x89PNG\r\n\x1a\n" + bytes(range(64))
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(picture)
    line = refusal(folder)
    assert "is damaged: is not a safetensors file: it is a picture (PNG); copy or download it again" in line
    assert "concept" not in line


def test_missing_weights_are_told_with_what_is_there(folder):
    rename(folder, "vae", "fp16.old")
    assert (
        "vae has no weights; allowed are diffusion_pytorch_model.safetensors or diffusion_pytorch_model.bin, "
        "with .fp16 or another variant before the ending, or in shards"
    ) in refusal(folder)
    shutil.move(folder / "vae" / "diffusion_pytorch_model.fp16.old.safetensors", folder / "vae" / "ema.safetensors")
    assert refusal(folder).endswith("; there are ema.safetensors")


def test_a_missing_shard_is_told(folder):
    to_shards(folder, "unet")
    name = "diffusion_pytorch_model-00002-of-00002.safetensors"
    (folder / "unet" / name).unlink()
    assert f"unet/{name} is missing, which diffusion_pytorch_model.safetensors.index.json names" in refusal(folder)


def test_a_link_that_leads_nowhere_is_told(tmp_path):
    os.symlink(tmp_path / "gone", tmp_path / "link")
    assert "is a file; allowed are 'vignette', pipeline folders" in refusal(tmp_path / "link")


@pytest.mark.parametrize("ending", ["safetensors", "fp16.safetensors", "non_ema.safetensors", "bin"])
def test_one_file_and_shards_side_by_side_are_left_to_the_library(folder, ending):
    """``has_single_file`` and ``find_weights`` know the same names."""
    for path in (folder / "unet").glob("*.safetensors"):
        path.unlink()
    kind = ending.rpartition(".")[2]
    variant = ending.removesuffix(kind).strip(".")
    name = f"diffusion_pytorch_model.{kind}.index" + (f".{variant}" if variant else "") + ".json"
    (folder / "unet" / f"diffusion_pytorch_model.{ending}").touch()
    (folder / "unet" / name).write_text("{}")
    assert find_weights(folder / "unet", "unet") is None and has_single_file(folder / "unet", "unet")
    assert check_weight_files("unet", folder / "unet", None) is None


def test_every_header_is_read_once(folder, monkeypatch):
    read = []
    whole = base_folder.read_header
    for module in (base_folder, weight_files):
        monkeypatch.setattr(module, "read_header", lambda path: read.append(path.parent.name) or whole(path))
    load_base(folder)
    assert sorted(read) == ["text_encoder", "unet", "vae"]
