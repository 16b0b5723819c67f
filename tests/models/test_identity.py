"""The hash of a base: 0.1's digest, streamed from files, and remembered while they are as they were."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from orthoplex import vignette
from orthoplex.concepts import read_manifest
from orthoplex.errors import BaseModelError
from orthoplex.models import hash_cache, load_base, loading, streamed_identity
from orthoplex.models.families import parts
from orthoplex.models.identity import weights_hash
from orthoplex.models.streamed_identity import streamed_hash
from orthoplex.models.weight_files import find_weights, read_headers

WEIGHTS = {"unet": "diffusion_pytorch_model.safetensors", "text_encoder": "model.safetensors"}


@pytest.fixture
def folder(pico_folder, tmp_path):
    """A copy of the pipeline folder that a test may change."""
    return shutil.copytree(pico_folder, tmp_path / "pipeline")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of its own, which keeps hashes of files however new they are."""
    file = tmp_path / "home" / "cache" / "base-hashes.json"
    monkeypatch.setattr(hash_cache, "cache_file", lambda: file)
    monkeypatch.setattr(hash_cache, "_RACE_NS", 0)
    return file


@pytest.fixture
def streams(monkeypatch):
    """The number of times that files were streamed, as a list of ones."""
    calls, original = [], streamed_identity._streamed

    def counted(places, stop):
        calls.append(1)
        return original(places, stop)

    monkeypatch.setattr(streamed_identity, "_streamed", counted)
    return calls


def change(folder: Path, component: str, by) -> None:
    """Rewrite a component's weights."""
    path = folder / component / WEIGHTS[component]
    save_file(by(load_file(path)), path, metadata={"format": "pt"})


def with_inner_name(tensors):
    """The names of older text encoders, with the buffer that they stored."""
    renamed = {f"text_model.{name}": values for name, values in tensors.items()}
    return renamed | {"text_model.embeddings.position_ids": torch.arange(32)[None]}


def streamed(folder: Path) -> str | None:
    headers = {name: read_headers(find_weights(folder / name, name)) for name in WEIGHTS}
    assert all(headers.values())
    return streamed_hash(headers)


@pytest.mark.parametrize("names", ["with text_model", "without"])
@pytest.mark.parametrize("shape", ["one file", "shards"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_streamed_digest_is_that_of_the_loaded_weights(folder, dtype, shape, names, streams):
    for component in WEIGHTS:
        change(folder, component, lambda tensors: {name: values.to(dtype) for name, values in tensors.items()})
    if names == "with text_model":
        change(folder, "text_encoder", with_inner_name)
    if shape == "shards":
        network = UNet2DConditionModel.from_pretrained(folder / "unet", dtype=dtype)
        (folder / "unet" / WEIGHTS["unet"]).unlink()
        network.save_pretrained(folder / "unet", max_shard_size="50KB")
        assert len(list((folder / "unet").glob("*.safetensors"))) > 3
    base = load_base(folder)
    assert len(streams) == 1
    assert streamed(folder) == weights_hash(base.family.components()) == base.identity.hash
    assert base.stored_dtypes["unet"] == base.stored_dtypes["text_encoder"] == dtype


def test_weights_larger_than_a_chunk_are_hashed_whole(folder, pico, monkeypatch):
    monkeypatch.setattr(streamed_identity, "CHUNK_BYTES", 64)
    assert streamed(folder) == pico.identity.hash


def test_the_embedded_base_is_the_one_that_shipped_concepts_name():
    files = [vignette.concept_file(sample.name, method="orthogonal") for sample in vignette.sample_concepts()]
    hashes = {read_manifest(file).base.hash for file in files}
    assert hashes == {streamed(vignette.folder())}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_pickled_weights_are_hashed_as_they_are_loaded(folder, pico, dtype, cache, streams, capfd):
    for component, name in (("unet", "diffusion_pytorch_model.bin"), ("text_encoder", "pytorch_model.bin")):
        file = folder / component / WEIGHTS[component]
        torch.save(load_file(file), folder / component / name)
        file.unlink()
    for _ in range(2):
        base = load_base(folder, dtype=dtype)
        assert base.identity.hash == pico.identity.hash and base.dtype == dtype
    assert streams == [] and "unet" not in base.stored_dtypes
    assert capfd.readouterr() == ("", "")


def test_only_files_with_fp16_in_their_names_are_loaded(folder, pico, capfd):
    for file in folder.rglob("*.safetensors"):
        file.rename(file.with_name(f"{file.stem}.fp16.safetensors"))
    assert load_base(folder).identity.hash == pico.identity.hash
    assert capfd.readouterr() == ("", "")


def test_a_feature_extractor_that_is_named_and_not_there_is_not_missed(folder, pico):
    index = folder / "model_index.json"
    named = {"feature_extractor": ["transformers", "CLIPImageProcessor"]}
    index.write_text(json.dumps(json.loads(index.read_text()) | named))
    assert load_base(folder).identity.hash == pico.identity.hash


def test_tensors_that_the_model_does_not_have_are_not_hashed(folder, pico, streams):
    change(folder, "text_encoder", lambda tensors: tensors | {"text_projection.weight": torch.ones(2, 2)})
    assert load_base(folder, dtype=torch.bfloat16).identity.hash == pico.identity.hash


@pytest.mark.parametrize("component", list(WEIGHTS))
def test_a_missing_tensor_is_refused_by_name(folder, component):
    removed = sorted(load_file(folder / component / WEIGHTS[component]))[3]
    change(folder, component, lambda tensors: {key: tensors[key] for key in tensors if key != removed})
    file = f"{component}/{WEIGHTS[component]}"
    with pytest.raises(BaseModelError, match=rf"pipeline' cannot be loaded: {file} lacks 1 of \d+ tensors: {removed}$"):
        load_base(folder)


def test_names_that_no_encoder_has_are_refused(folder):
    change(folder, "text_encoder", lambda tensors: {f"text_modl.{name}": values for name, values in tensors.items()})
    with pytest.raises(BaseModelError, match=r"text_encoder/model.safetensors lacks .*; it holds .*: text_modl\."):
        load_base(folder)


@pytest.mark.parametrize("component", list(WEIGHTS))
def test_a_tensor_of_another_shape_is_refused_by_name(folder, component):
    name = sorted(load_file(folder / component / WEIGHTS[component]))[3]
    change(folder, component, lambda tensors: tensors | {name: torch.zeros(3)})
    with pytest.raises(BaseModelError, match=rf"cannot be loaded: {component}/{WEIGHTS[component]}.*{name}.*3"):
        load_base(folder)


def test_a_hash_is_remembered_for_every_type(folder, pico, cache, streams):
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        assert load_base(folder, dtype=dtype).identity.hash == pico.identity.hash
    assert len(streams) == 1 and len(json.loads(cache.read_text())["hashes"]) == 1


def test_a_changed_file_is_never_recalled(folder, pico, cache, streams):
    load_base(folder)
    path = folder / "unet" / WEIGHTS["unet"]
    before = path.stat()
    with path.open("r+b") as file:  # one number, as many bytes, and the time put back
        file.seek(-4, os.SEEK_END)
        file.write(b"\x00\x00\x80\x3f")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    changed = load_base(folder)
    assert (
        changed.identity.hash == weights_hash(changed.family.components()) != pico.identity.hash and len(streams) == 2
    )


def test_files_that_are_very_new_are_not_remembered(folder, cache, monkeypatch, streams):
    monkeypatch.setattr(hash_cache, "_RACE_NS", 10**12)
    load_base(folder)
    load_base(folder)
    assert len(streams) == 2 and not cache.exists()


def test_files_that_change_meanwhile_are_not_remembered(folder, cache, monkeypatch):
    original = loading.weights_hash
    monkeypatch.setattr(streamed_identity.FolderHash, "result", lambda self, modules: None)

    def touching(modules):
        (folder / "unet" / WEIGHTS["unet"]).touch()
        return original(modules)

    monkeypatch.setattr(loading, "weights_hash", touching)
    load_base(folder)
    assert not cache.exists()


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 99999, '{"scheme": "float16-sha256-v1", "hashes": [1]}', "\xff"])
def test_a_damaged_cache_is_written_anew(folder, pico, cache, streams, text):
    cache.parent.mkdir(parents=True)
    cache.write_bytes(text.encode("latin-1"))
    for _ in range(2):
        assert load_base(folder).identity.hash == pico.identity.hash
    assert len(streams) == 1


def test_damaged_values_are_not_believed(folder, pico, cache):
    load_base(folder)
    known = json.loads(cache.read_text())
    for value in (7, None, "abc"):
        cache.write_text(json.dumps(known | {"hashes": dict.fromkeys(known["hashes"], value)}))
        assert load_base(folder).identity.hash == pico.identity.hash


def test_a_cache_that_cannot_be_written_is_no_error(folder, pico, cache, monkeypatch):
    cache.parent.parent.write_text("a file in the place of the folder")
    assert load_base(folder).identity.hash == pico.identity.hash

    def homeless():
        raise RuntimeError("no home")

    monkeypatch.setattr(hash_cache, "cache_file", homeless)
    assert load_base(folder).identity.hash == pico.identity.hash


def test_old_hashes_are_forgotten(cache, monkeypatch):
    monkeypatch.setattr(hash_cache, "_LIMIT", 2)
    files = [{f"/{name}": (1, 1, 1, 1)} for name in "abc"]
    for number, known in enumerate(files):
        hash_cache.remember(known, str(number) * 64)
    assert [hash_cache.recall(known) for known in files] == [None, "1" * 64, "2" * 64]


def test_processes_may_write_at_once(cache):
    code = (
        "import sys; from pathlib import Path; import hash_cache as c\n"
        "c.cache_file = lambda: Path(sys.argv[1])\n"
        "for i in range(100): c.remember({f'/{sys.argv[2]}{i}': (1, 1, 1, 1)}, 'a' * 64)"
    )
    room = Path(hash_cache.__file__).parent  # its file alone, so that neither process waits for torch
    running = [subprocess.Popen([sys.executable, "-c", code, str(cache), name], cwd=room) for name in "ab"]
    assert [process.wait(timeout=240) for process in running] == [0, 0]
    assert 100 <= len(json.loads(cache.read_text())["hashes"]) <= 200
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]


def test_no_thread_is_left_when_loading_fails(folder, monkeypatch):
    def failing(*arguments):
        raise BaseModelError("broken")

    monkeypatch.setattr(parts, "load_network", failing)
    with pytest.raises(BaseModelError, match="broken"):
        load_base(folder)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("weights-hash")]


def test_a_file_and_shards_side_by_side_are_left_to_the_library(folder, pico, streams):
    index = {"metadata": {}, "weight_map": dict.fromkeys(load_file(folder / "unet" / WEIGHTS["unet"]), WEIGHTS["unet"])}
    (folder / "unet" / f"{WEIGHTS['unet']}.index.json").write_text(json.dumps(index))
    assert load_base(folder).identity.hash == pico.identity.hash and streams == []


def test_two_threads_may_load_at_once(folder, pico):
    found = []
    threads = [threading.Thread(target=lambda: found.append(load_base(folder).identity.hash)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [pico.identity.hash] * 4
