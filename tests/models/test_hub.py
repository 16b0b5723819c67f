"""Bases by their names on the hub: from its cache, and fetched where that is asked for."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from types import SimpleNamespace

import httpx2
import huggingface_hub
import pytest
from huggingface_hub import constants, errors

from orthoplex.errors import BaseModelError
from orthoplex.models import BaseChoice, load_base, training_defaults
from orthoplex.models.base_files import BaseFiles
from orthoplex.models.hub import HubName, _fetched_index, needed_files
from tests.checkpoints import stable_diffusion_parts, write_checkpoint
from tests.pico_anima import build_anima

NAME, COMMIT = "somebody/pico-diffusion", "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of the hub, without any net."""
    folder = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return folder


def put(cache: Path, source: Path, *, name: str = NAME, revision: str = "main", commit: str = COMMIT) -> Path:
    """Write a pipeline as the hub's cache has it: blobs, links to them in a snapshot, and the name of a revision."""
    place = cache / f"models--{name.replace('/', '--')}"
    snapshot = place / "snapshots" / commit
    for number, path in enumerate(sorted(path for path in source.rglob("*") if path.is_file())):
        blob, link = place / "blobs" / f"{commit[:8]}{number:032x}", snapshot / path.relative_to(source)
        blob.parent.mkdir(parents=True, exist_ok=True)
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, blob)
        link.symlink_to(blob)
    (place / "refs").mkdir(exist_ok=True)
    (place / "refs" / revision).write_text(commit)
    return snapshot


def test_a_name_in_the_cache_is_loaded_as_its_folder_is(cache, pico_folder, pico):
    put(cache, pico_folder)
    base = load_base(NAME)
    assert base.identity.hash == pico.identity.hash and base.identity.name == NAME
    assert training_defaults(NAME) == training_defaults(pico_folder) != {}


def test_a_revision_is_named_behind_an_at(cache, pico_folder, pico, tmp_path):
    other = shutil.copytree(pico_folder, tmp_path / "other")
    (other / "model_index.json").write_text("{}")
    put(cache, other)
    put(cache, pico_folder, revision="v1.1", commit="a" * 40)
    assert load_base(f"{NAME}@v1.1").identity == load_base(f"{NAME}@{'a' * 40}").identity
    assert load_base(f"{NAME}@v1.1").identity.hash == pico.identity.hash
    with pytest.raises(BaseModelError, match="base '.*@v2' is no folder, nor in the hub's cache"):
        load_base(f"{NAME}@v2")


def test_a_name_that_the_cache_lacks_is_not_fetched_unasked(cache):
    with pytest.raises(BaseModelError) as caught:
        load_base(NAME)
    assert str(caught.value) == (
        f"base '{NAME}' is no folder, nor in the hub's cache, and Orthoplex fetches nothing unasked; give --download "
        f"(download=True), or run 'hf download {NAME}'"
    )
    assert training_defaults(NAME) == {} and BaseFiles.of(NAME) is None


def test_without_a_net_nothing_is_fetched(cache):
    with pytest.raises(BaseModelError, match="is not whole in the hub's cache, and HF_HUB_OFFLINE forbids to fetch it"):
        load_base(NAME, download=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a/b", HubName("a/b")),
        ("a-b.c/d_e-1.5", HubName("a-b.c/d_e-1.5")),
        ("a/b@fp16", HubName("a/b", "fp16")),
        ("a/b@refs/pr/1", HubName("a/b", "refs/pr/1")),
        ("a", None),
        ("a/b/c", None),
        ("/a/b", None),
        ("./b", None),
        ("../b", None),
        ("a/..", None),
        ("a/b@", None),
        ("https://host/a", None),
        ("", None),
    ],
)
def test_a_name_of_the_hub_is_told_from_a_path(text, expected):
    assert HubName.of(text) == expected
    assert expected is None or str(expected) == text


def test_a_folder_of_that_name_goes_before_the_hub(cache, pico_folder, tmp_path, monkeypatch):
    shutil.copytree(pico_folder, tmp_path / NAME)
    monkeypatch.chdir(tmp_path)
    assert load_base(NAME).identity.name == "pico-diffusion"


def test_the_chat_template_of_a_tokenizer_is_fetched():
    names = ["tokenizer/chat_template.jinja", "tokenizer/code.py", "other/chat_template.jinja"]
    assert needed_files(names, ["tokenizer"], ()) == ["model_index.json", "tokenizer/chat_template.jinja"]


FILES = (
    "model_index.json README.md code.py unet/config.json unet/code.py unet/diffusion_pytorch_model.bin "
    "unet/diffusion_pytorch_model.safetensors unet/diffusion_pytorch_model.fp16.safetensors "
    "text_encoder/config.json text_encoder/model.safetensors.index.json text_encoder/model-00001-of-00002.safetensors "
    "text_encoder/model-00002-of-00002.safetensors text_encoder/model.safetensors.index.fp16.json "
    "text_encoder/model.fp16-00001-of-00001.safetensors vae/config.json vae/diffusion_pytorch_model.bin "
    "tokenizer/vocab.json tokenizer/merges.txt safety_checker/model.safetensors all.safetensors"
).split()
PARTS = ("unet", "vae", "text_encoder", "tokenizer")
SETTINGS = (
    "model_index.json unet/config.json vae/config.json text_encoder/config.json tokenizer/merges.txt "
    "tokenizer/vocab.json"
).split()


@pytest.mark.parametrize(
    ("weighed", "variant", "weights"),
    [
        ((), None, []),
        (
            PARTS[:3],
            None,
            "unet/diffusion_pytorch_model.safetensors vae/diffusion_pytorch_model.bin "
            "text_encoder/model.safetensors.index.json text_encoder/model-00001-of-00002.safetensors "
            "text_encoder/model-00002-of-00002.safetensors".split(),
        ),
        (
            PARTS[:3],
            "fp16",
            "unet/diffusion_pytorch_model.fp16.safetensors vae/diffusion_pytorch_model.bin "
            "text_encoder/model.safetensors.index.fp16.json text_encoder/model.fp16-00001-of-00001.safetensors".split(),
        ),
    ],
)
def test_only_files_that_are_read_are_fetched(weighed, variant, weights):
    assert sorted(needed_files(FILES, PARTS, weighed, variant)) == sorted([*SETTINGS, *weights])


@pytest.fixture
def net(cache, pico_folder, monkeypatch) -> list[str]:
    """A hub that has one pipeline; returns the names of what was fetched from it."""
    fetched: list[str] = []
    sizes = {str(path.relative_to(pico_folder)): path.stat().st_size for path in pico_folder.rglob("*.*")}
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    local = huggingface_hub.snapshot_download

    def one(repo_id, revision, filename):
        fetched.append(filename)
        return str(pico_folder / filename)

    def several(repo_id, revision, allow_patterns, local_files_only=False):
        if not local_files_only:
            fetched.extend(allow_patterns)
            put(cache, pico_folder)
        return local(repo_id, revision=revision, allow_patterns=allow_patterns, local_files_only=True)

    def info(self, repo_id, revision, files_metadata):
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name, size=size) for name, size in sizes.items()])

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", one)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", several)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", info)
    return fetched


def test_what_is_asked_for_is_fetched_once_and_said_in_one_line(net, pico, caplog):
    caplog.set_level(logging.INFO, "orthoplex")
    assert load_base(BaseChoice(NAME, download=True)).identity.hash == pico.identity.hash
    (line,) = caplog.messages
    assert line.startswith(f"fetching {NAME} from the hub: ") and line.endswith(" GB, into its cache")
    assert "unet/diffusion_pytorch_model.safetensors" in net
    net.clear()
    assert load_base(NAME, download=True).identity.hash == load_base(NAME).identity.hash and net == []


def refusing(kind: type[Exception], monkeypatch) -> None:
    response = httpx2.Response(404, request=httpx2.Request("GET", "https://huggingface.co/api"))

    def refuse(**options):
        raise kind("no", response=response) if issubclass(kind, errors.HfHubHTTPError) else kind("no")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (errors.GatedRepoError, "is open to those alone who accepted its terms: accept them on its page, and log in"),
        (errors.RepositoryNotFoundError, "is not on the hub, or not open to you; check the name, or 'hf auth login'"),
        (errors.RevisionNotFoundError, "has no such revision on the hub; allowed are its branches, tags and commits"),
        (errors.RemoteEntryNotFoundError, "is no pipeline: the hub has no model_index.json of it; give its checkpoint"),
        (errors.LocalEntryNotFoundError, "is not whole in the hub's cache, and the hub cannot be reached"),
        (TimeoutError, "cannot be fetched from the hub: TimeoutError: no"),
    ],
)
def test_what_the_hub_refuses_is_said_in_one_line(cache, monkeypatch, kind, expected):
    refusing(kind, monkeypatch)
    with pytest.raises(BaseModelError) as caught:
        load_base(NAME, download=True)
    assert str(caught.value).startswith(f"base '{NAME}' {expected}") and "\n" not in str(caught.value)


def test_a_pipeline_of_no_family_is_not_fetched(net, pico_folder, tmp_path, monkeypatch):
    index = tmp_path / "index.json"
    index.write_text(json.dumps({"_class_name": "MusicPipeline"}))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda **options: str(index))
    with pytest.raises(BaseModelError, match="base 'somebody/.*' is a MusicPipeline, supported are .*StableDiffusion"):
        load_base(NAME, download=True)
    assert net == []


def test_a_pipeline_that_is_not_whole_in_the_cache_says_how_it_becomes_so(cache, pico_folder):
    snapshot = put(cache, pico_folder)
    (snapshot / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(BaseModelError) as caught:
        load_base(NAME)
    assert str(caught.value).startswith(f"base '{NAME}' cannot be loaded: vae has no weights; allowed are ")
    assert str(caught.value).endswith("; --download (download=True) fetches what the hub's cache lacks")


def test_weights_that_a_checkpoint_file_holds_are_not_fetched(net, pico, pico_folder, tmp_path):
    path = write_checkpoint(tmp_path / "mix.safetensors", stable_diffusion_parts(pico.pipeline)[:2])
    base = load_base(path, config=NAME, download=True)
    assert base.identity.hash == pico.identity.hash
    assert [name for name in net if name.endswith(".safetensors")] == ["text_encoder/model.safetensors"]


def test_a_modular_pipeline_has_an_index_of_its_own(cache, tmp_path, monkeypatch):
    """Its folder on the hub has no other, and its parts are read beside it."""
    source = build_anima(tmp_path / "anima")
    snapshot = put(cache, source)
    base = load_base(NAME)
    assert base.identity.hash == load_base(source).identity.hash and base.training_defaults == training_defaults(NAME)
    assert "modular_model_index.json" in needed_files({"modular_model_index.json": 1}, (), ())
    asked = []

    def one(filename: str, **where: str) -> str:
        asked.append(filename)
        if filename == "model_index.json":
            raise errors.RemoteEntryNotFoundError(
                "none", response=httpx2.Response(404, request=httpx2.Request("GET", "x"))
            )
        return str(snapshot / filename)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", one)
    assert _fetched_index({"repo_id": NAME}).endswith("modular_model_index.json")
    assert asked == ["model_index.json", "modular_model_index.json"]
