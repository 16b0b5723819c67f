"""Variants of weights, weights in shards, and shards of variants."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from orthoplex.errors import BaseModelError
from orthoplex.models import BaseChoice, hash_cache, load_base
from orthoplex.models.base_files import BaseFiles
from orthoplex.models.weight_files import find_weights, needed_weights, variants_of

NETWORKS = ("unet", "vae", "text_encoder")


@pytest.fixture
def folder(pico_folder, tmp_path):
    """A copy of the pipeline folder that a test may change."""
    return shutil.copytree(pico_folder, tmp_path / "base")


def save(base, folder, component, *, variant=None, shards=False):
    """Write a component as its library does, beside what is there."""
    network = base.pipeline.components[component]
    size = {"max_shard_size": "20KB"} if shards else {}
    network.save_pretrained(folder / component, variant=variant, **size)


def refusal(folder, **options):
    with pytest.raises(BaseModelError) as caught:
        load_base(folder, **options)
    line = str(caught.value)
    assert "\n" not in line and line.startswith(f"base '{folder}' cannot be loaded: ")
    return line


@pytest.fixture
def hashes(tmp_path, monkeypatch):
    """An empty cache of hashes, which remembers new files too."""
    monkeypatch.setattr(hash_cache, "_RACE_NS", 0)
    monkeypatch.setattr(hash_cache, "cache_file", lambda: tmp_path / "hashes.json")


def test_a_variant_is_read_where_it_is_asked_for(folder, pico_folder, pico, hashes):
    other = load_base(pico_folder)
    with torch.no_grad():
        next(other.pipeline.unet.parameters()).add_(0.5)
    save(other, folder, "unet", variant="ema")
    plain, ema = load_base(folder).identity, load_base(folder, variant="ema").identity
    assert plain.hash == pico.identity.hash != ema.hash
    choice = BaseChoice(str(folder), variant="ema")
    assert load_base(choice).identity == load_base(choice, download=True).identity == ema
    assert load_base(folder).identity == plain
    assert BaseFiles.of(BaseChoice(str(folder), variant="ema")) is None
    assert variants_of(folder / "unet", "unet") == ["ema"] and variants_of(folder / "vae", "vae") == []


def test_a_variant_is_checked_whatever_is_remembered_of_its_folder(folder, pico_folder, hashes):
    other = load_base(pico_folder)
    load_base(folder)
    with torch.no_grad():
        next(other.pipeline.unet.parameters()).fill_(float("nan"))
    save(other, folder, "unet", variant="ema")
    load_base(folder)
    with pytest.raises(BaseModelError, match="holds numbers that are not finite"):
        load_base(folder, variant="ema")


def test_a_base_as_files_is_that_of_the_files_it_reads(folder, pico_folder, hashes):
    other = load_base(pico_folder)
    with torch.no_grad():
        next(other.pipeline.unet.parameters()).add_(0.5)
    save(other, folder, "unet", variant="ema")
    base = load_base(BaseChoice(str(folder), variant="ema")).save(folder.parent / "saved")
    name = "unet/diffusion_pytorch_model"
    shutil.copy(folder / f"{name}.safetensors", base / f"{name}.ema.safetensors")
    varied = load_base(base, variant="ema").identity
    assert BaseFiles.of(str(base)) is None
    plain = load_base(base).identity
    files = BaseFiles.of(str(base))
    assert files is not None and files.identity == plain != varied


@pytest.mark.parametrize("component", NETWORKS)
def test_shards_of_variants_are_read(folder, pico_folder, component):
    base = load_base(pico_folder)
    save(base, folder, component, variant="fp16", shards=True)
    files = find_weights(folder / component, component, "fp16")
    assert files is not None and files.has_index and len(files.files) > 1 and files.variant == "fp16"
    names = {path.name for path in (folder / component).iterdir()}
    assert set(needed_weights(names, component, "fp16")) == {path.name for path in (*files.files, files.main)}
    for path in (folder / component).glob("*.safetensors"):
        if path not in files.files:
            path.unlink()
    assert load_base(folder).identity.hash == load_base(folder, variant="fp16").identity.hash


def test_a_variant_that_no_part_has_is_refused(folder, pico):
    assert refusal(folder, variant="fp16").endswith("variant is 'fp16', allowed are none: the weights have one form")
    save(pico, folder, "vae", variant="ema")
    save(pico, folder, "unet", variant="fp32", shards=True)
    assert refusal(folder, variant="fp16").endswith("variant is 'fp16', allowed are ema, fp32")


INDEX = "diffusion_pytorch_model.safetensors.index.json"


def sharded(folder, pico):
    """Write the U-Net in shards; returns the index and the values of it."""
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    save(pico, folder, "unet", shards=True)
    path = folder / "unet" / INDEX
    return path, json.loads(path.read_text())


def test_a_tensor_in_two_shards_is_refused(folder, pico):
    path, values = sharded(folder, pico)
    first, second = sorted(set(values["weight_map"].values()))[:2]
    twice = next(name for name, file in values["weight_map"].items() if file == first)
    tensors = load_file(path.with_name(first))
    save_file(load_file(path.with_name(second)) | {twice: tensors[twice]}, path.with_name(second))
    assert refusal(folder).endswith(
        f"unet/{second} holds {twice}, which unet/{first} holds too; allowed is one place for each tensor"
    )


@pytest.mark.parametrize("change", ["another tensor", "another shard"])
def test_an_index_that_names_what_is_not_there_is_refused(folder, pico, change):
    path, values = sharded(folder, pico)
    files = sorted(set(values["weight_map"].values()))
    name = next(name for name, file in values["weight_map"].items() if file == files[0])
    if change == "another tensor":
        name = "conv_in.other"
    values["weight_map"][name] = files[1]
    path.write_text(json.dumps(values))
    assert refusal(folder).endswith(
        f"unet/{INDEX} names 1 tensors that are not in the shards it gives: {name} in {files[1]}; download the "
        "component again"
    )


@pytest.mark.parametrize(
    "text", ["[]", "{", "{}", *(json.dumps({"weight_map": each}) for each in ([1], {}, {"a": 1}, {"a": "../b"}))]
)
def test_an_index_of_another_form_is_refused(folder, pico, text):
    path, _ = sharded(folder, pico)
    path.write_text(text)
    assert f"unet/{INDEX} is damaged; allowed is a weight_map of each tensor to the name of its file" in refusal(folder)
