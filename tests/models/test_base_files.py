"""A merge folded into files is the merge that is folded into a model and saved."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

from orthoplex.activations import merge_to_folder, with_inputs
from orthoplex.concepts import BaseIdentity, save_concept
from orthoplex.errors import BaseModelError, ConfigurationError
from orthoplex.generation import generate
from orthoplex.merging import merge
from orthoplex.models import hash_cache, load_base
from orthoplex.models.base_files import BaseFiles
from tests.pico import make_concept, vectors_of


@pytest.fixture(autouse=True)
def new_files_are_remembered(monkeypatch):
    monkeypatch.setattr(hash_cache, "_RACE_NS", 0)


@pytest.fixture(scope="module", params=[torch.float32, torch.float16], ids=["float32", "float16"])
def ours(request, pico_folder, tmp_path_factory):
    """A folder as we write it, in either type."""
    return load_base(pico_folder).save(tmp_path_factory.mktemp("ours") / "pico", dtype=request.param)


def contents(folder):
    return {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}


def assert_same_folder(first, second):
    one, other = contents(first), contents(second)
    assert one.keys() == other.keys()
    for name, path in one.items():
        if path.suffix != ".json":
            assert path.read_bytes() == other[name].read_bytes(), name
            continue
        values, others = (json.loads(file.read_text()) for file in (path, other[name]))
        if path.name == "tokenizer.json":  # of how it was last called
            for told in (values, others):
                del told["truncation"], told["padding"]
        assert values == others, name


def test_files_and_model_give_the_same_folder(ours, tmp_path):
    base, files = load_base(ours), BaseFiles.of(ours)
    assert files is not None and files.identity == base.identity
    concepts = [
        make_concept(base, "anna", text_encoder=True, num_vectors=2),
        make_concept(base, "rex", selection="linear", ranks=(1, 3), seed=1),
        make_concept(base, "tom", selection="none", seed=2),
    ]
    merged = merge([(concept, 1.0 - place / 4) for place, concept in enumerate(concepts)], algorithm="sum", scale=0.9)
    assert files.takes(merged)
    files.write(merged, tmp_path / "files")
    with base.folded(merged):
        base.save(tmp_path / "model")
        tokens = base.tokens
    assert_same_folder(tmp_path / "files", tmp_path / "model")
    again = load_base(tmp_path / "files")
    assert again.tokens == tokens
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path / "files" / "tokenizer")
    assert tokenizer.tokenize("<anna> <anna>_1 person") == ["<anna>", "<anna>_1", "person</w>"]
    generate(again, "<anna> person and <rex>", num_inference_steps=1)


def test_a_merged_folder_is_a_base_again(ours, tmp_path):
    first = merge([(make_concept(load_base(ours), "anna"), 1.0)], algorithm="sum")
    BaseFiles.of(ours).write(first, tmp_path / "first")
    base, files = load_base(tmp_path / "first"), BaseFiles.of(tmp_path / "first")
    second = merge([(make_concept(base, "rex", num_vectors=2), 1.0)], algorithm="sum")
    files.write(second, tmp_path / "files")
    with base.folded(second):
        base.save(tmp_path / "model")
    assert_same_folder(tmp_path / "files", tmp_path / "model")
    assert not files.takes(first)  # <anna> is in it already


def test_what_does_not_fit_is_left_to_a_model_which_says_why(ours, tmp_path):
    base, files = load_base(ours), BaseFiles.of(ours)
    assert not files.takes(make_concept(base, "anna", layerwise=True))
    assert not files.takes(make_concept(base, "anna", selection="none", keys_values=True))
    concept = make_concept(base, "anna")
    layer = next(iter(concept.layers))
    strange = make_concept(base, "anna")
    strange.layers[f"{layer}.inner"] = strange.layers.pop(layer)
    assert not files.takes(strange)
    save_concept(strange, tmp_path / "anna.safetensors")
    with pytest.raises(BaseModelError, match="here there is none"):
        merge_to_folder(ours, [(tmp_path / "anna.safetensors", 1.0)], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_change_of_another_base_is_refused(ours, tmp_path):
    files = BaseFiles.of(ours)
    assert files is not None
    merged = merge([(make_concept(load_base(ours)), 1.0)])
    dreams = replace(merged.recipe, base=BaseIdentity("sd1", "f" * 64, "dreams"))
    with pytest.raises(BaseModelError, match="trained on base 'dreams'"):
        files.write(replace(merged, recipe=dreams), tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_number_that_is_too_large_is_refused_and_nothing_is_written(ours, tmp_path):
    save_concept(make_concept(load_base(ours), "anna"), tmp_path / "anna.safetensors")
    with pytest.raises(ConfigurationError, match="no longer finite; strengths are anna@1e\\+39|float16 up to 65504"):
        merge_to_folder(ours, [(tmp_path / "anna.safetensors", 1e39)], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("lacking", ["tokenizer/tokenizer.json", "unet/config.json", "model_index.json"])
def test_a_folder_that_is_not_whole_is_loaded(ours, tmp_path, lacking):
    shutil.copytree(ours, tmp_path / "copy")
    (tmp_path / "copy" / lacking).unlink()
    assert BaseFiles.of(tmp_path / "copy") is None


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("model_index.json", {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]}),
        ("model_index.json", {"_class_name": "StableDiffusionXLPipeline"}),
        ("text_encoder/config.json", {"torch_dtype": "float16"}),
    ],
)
def test_a_folder_that_is_not_ours_is_loaded(ours, tmp_path, file, changes):
    shutil.copytree(ours, tmp_path / "copy")
    load_base(tmp_path / "copy")
    assert BaseFiles.of(tmp_path / "copy") is not None
    path = tmp_path / "copy" / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    assert BaseFiles.of(tmp_path / "copy") is None


def test_a_folder_has_to_be_loaded_once_and_again_when_its_weights_change(ours, tmp_path):
    shutil.copytree(ours, tmp_path / "copy")
    assert BaseFiles.of(tmp_path / "copy") is None
    base = load_base(tmp_path / "copy")
    assert BaseFiles.of(tmp_path / "copy").identity == base.identity
    path = tmp_path / "copy" / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({**load_file(path), "one more": torch.zeros(1)}, path, metadata={"format": "pt"})
    assert BaseFiles.of(tmp_path / "copy") is None


def test_a_path_of_the_machine_is_not_copied(ours, tmp_path):
    shutil.copytree(ours, tmp_path / "copy")
    path = tmp_path / "copy" / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"_name_or_path": "/home/someone/unet"}))
    base = load_base(tmp_path / "copy")
    BaseFiles.of(tmp_path / "copy").write(merge([(make_concept(base, "anna"), 1.0)]), tmp_path / "merged")
    assert not any("someone" in file.read_text() for file in (tmp_path / "merged").rglob("*.json"))


def test_a_token_that_the_type_cannot_hold_is_refused(ours, tmp_path):
    base = load_base(ours)
    concept = make_concept(base, "anna")
    vectors_of(concept.tokens)["<anna>"][0] = 1e6
    if next(iter(base.stored_dtypes.values())) == torch.float32:
        BaseFiles.of(ours).write(concept, tmp_path / "merged")
        return
    with pytest.raises(ConfigurationError, match="token_embedding.weight' holds 1e\\+06, torch.float16 up to 65504"):
        BaseFiles.of(ours).write(concept, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_folders_of_other_tools_are_loaded(pico_folder, tmp_path):
    assert BaseFiles.of(pico_folder) is None and BaseFiles.of(tmp_path / "nowhere") is None
    base = load_base(pico_folder)
    save_concept(make_concept(base, "anna"), tmp_path / "anna.safetensors")
    merged = merge_to_folder(pico_folder, [(tmp_path / "anna.safetensors", 1.0)], tmp_path / "merged")
    assert merged.folder == (tmp_path / "merged").resolve() and merged.recipe.algorithm == "sum"
    assert load_base(merged.folder).tokens == ("<anna>",)


def test_the_embedded_base_is_its_files():
    assert BaseFiles.of("vignette").identity == load_base("vignette").identity


def test_what_nobody_stored_is_gathered_once(ours, tmp_path):
    base = load_base(ours)
    files = []
    for seed, name in enumerate(("anna", "rex")):
        concept = with_inputs(base, make_concept(base, name, selection="cross-attention-kv", seed=seed))
        files.append((tmp_path / f"{name}.safetensors", 1.0))
        save_concept(concept, files[-1][0])
    folder = Path.home() / ".cache" / "orthoplex" / "foreign-inputs"
    for store in folder.glob(f"{base.identity.hash}-*.safetensors"):
        store.unlink()
    first = merge_to_folder(ours, files, tmp_path / "first")
    assert (
        len(list(folder.glob(f"{base.identity.hash}-*.safetensors"))) == 1 and first.recipe.algorithm == "least-squares"
    )
    second = merge_to_folder(ours, files, tmp_path / "second")
    assert second.recipe == first.recipe
    assert_same_folder(first.folder, second.folder)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_another_type_gives_the_same_folder_with_and_without_a_model(ours, tmp_path, dtype):
    base, files = load_base(ours), BaseFiles.of(ours)
    assert files is not None
    merged = merge([(make_concept(base, "anna", text_encoder=True), 0.7)])
    files.write(merged, tmp_path / "files", dtype=dtype)
    with base.folded(merged):
        base.save(tmp_path / "model", dtype=dtype)
    assert_same_folder(tmp_path / "files", tmp_path / "model")
    for path in (tmp_path / "files").rglob("*.safetensors"):
        assert {values.dtype for values in load_file(path).values()} == {dtype}


def test_a_type_that_weights_are_not_written_in_is_refused(ours, tmp_path):
    save_concept(make_concept(load_base(ours), "anna"), tmp_path / "anna.safetensors")
    with pytest.raises(ConfigurationError, match=r"dtype is torch.float64, allowed are torch.float16, torch.bfloat16"):
        merge_to_folder(ours, [(tmp_path / "anna.safetensors", 1.0)], tmp_path / "merged", dtype=torch.float64)
    files = BaseFiles.of(ours)
    assert files is not None
    with pytest.raises(ConfigurationError, match=r"dtype is torch.int8"):
        files.write(make_concept(load_base(ours)), tmp_path / "merged", dtype=torch.int8)
    assert not (tmp_path / "merged").exists()
