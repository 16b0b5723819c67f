"""Latents and text features on disk: the same run, damaged files made anew, two processes at a time."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from orthoplex.concepts import load_concept
from orthoplex.errors import OutputError
from orthoplex.training import tensor_cache, train
from orthoplex.training.batches import TrainingData
from orthoplex.training.tensor_cache import TensorCache


def content(base, dataset, config, output, **options):
    list(train(base, dataset, config, output=output, **options))
    return load_concept(output).content_hash


@pytest.fixture
def encoded(base, monkeypatch):
    """What the base encodes: pictures and prompts."""
    calls, latents, condition = [], base.family.latents, base.family.condition
    monkeypatch.setattr(type(base.family), "latents", lambda _, pixels: calls.append("pictures") or latents(pixels))
    monkeypatch.setattr(type(base.family), "condition", lambda _, ids: calls.append("prompts") or condition(ids))
    return calls


@pytest.mark.parametrize(
    "values",
    [
        {"token_vectors": "rare word", "caption_dropout": 0.3, "prior_weight": 0.5},
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param({"token_vectors": "rare word", "mixed_precision": "bf16"}, marks=pytest.mark.slow),
        pytest.param({"token_vectors": "rare word", "text_encoder": True}, marks=pytest.mark.slow),
    ],
)
def test_a_run_from_the_cache_is_the_same_bit_for_bit(base, dataset, config, tmp_path, values):
    config, folder = replace(config, steps=1, erasure=0.0, **values), tmp_path / "cache"
    plain = content(base, dataset, config, tmp_path / "a.safetensors")
    assert content(base, dataset, config, tmp_path / "b.safetensors", cache_dir=folder) == plain
    names = sorted(path.name for path in folder.iterdir())
    assert {name.split("-")[0] for name in names} >= {"latents"}
    assert content(base, dataset, config, tmp_path / "c.safetensors", cache_dir=folder) == plain
    assert sorted(path.name for path in folder.iterdir()) == names


@pytest.mark.parametrize("token_vectors", ["layer-wise", pytest.param("keys-and-values", marks=pytest.mark.slow)])
def test_tokens_that_widen_features_leave_the_cache_of_others_alone(base, dataset, config, tmp_path, token_vectors):
    shared = replace(config, steps=1, erasure=0.0, prior_weight=0.5)
    wide = replace(shared, token_vectors=token_vectors)
    plain = content(base, dataset, shared, tmp_path / "a.safetensors")
    content(base, dataset, wide, tmp_path / "b.safetensors", cache_dir=tmp_path / "cache")
    assert content(base, dataset, shared, tmp_path / "c.safetensors", cache_dir=tmp_path / "cache") == plain


@pytest.mark.parametrize(("token_vectors", "expected"), [("rare word", set()), ("shared", {"prompts"})])
def test_nothing_that_is_stored_is_computed_again(base, dataset, config, tmp_path, encoded, token_vectors, expected):
    config = replace(config, erasure=0.0, token_vectors=token_vectors, steps=1)
    cache = TensorCache.of(tmp_path, base)
    dataset = dataset.called("dog") if token_vectors == "rare word" else dataset
    first = TrainingData.prepare(base, dataset, config, None, cache)
    assert "pictures" in encoded
    encoded.clear()
    again = TrainingData.prepare(base, dataset, config, None, cache)
    again.conditioning(base, again.batch(config, 0))
    assert set(encoded) == expected
    assert torch.equal(first.buckets[0].latents, again.buckets[0].latents)


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-3], lambda data: data[:-1] + b"\x7f", lambda _: b"", lambda _: b"x" * 99]
)
def test_a_damaged_file_is_made_anew(base, tmp_path, caplog, damage):
    cache, pixels = TensorCache.of(tmp_path, base), torch.rand(2, 3, 32, 32)
    expected = cache.latents(pixels, base.family.latents)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert torch.equal(cache.latents(pixels, base.family.latents), expected)
    assert path.read_bytes() == whole
    assert f"cache file {path} is damaged and is made anew" in caplog.text


@pytest.mark.parametrize("change", ["pixels", "precision", "base"])
def test_other_inputs_are_other_files(base, tmp_path, change):
    cache, ids = TensorCache.of(tmp_path, base), base.family.words.ids(["a dog"])
    cache.conditioning(ids, "no", base.family.condition)
    other = replace(cache, ground="another") if change == "base" else cache
    other_ids = base.family.words.ids(["a cat"]) if change == "pixels" else ids
    other.conditioning(other_ids, "bf16" if change == "precision" else "no", base.family.condition)
    assert len(list(tmp_path.iterdir())) == 2


def test_several_at_a_time_leave_one_whole_file(base, tmp_path):
    cache, pixels = TensorCache.of(tmp_path, base), torch.rand(1, 3, 32, 32)
    with ThreadPoolExecutor(4) as pool:
        latents = list(pool.map(lambda _: cache.latents(pixels, lambda part: part * 2), range(8)))
    assert all(torch.equal(one, pixels * 2) for one in latents)
    (path,) = tmp_path.iterdir()
    assert torch.equal(load_file(path)["latents"], pixels * 2)


def test_a_full_disk_ends_no_training(base, tmp_path, monkeypatch, caplog):
    def full(*_):
        raise OutputError("no space left")

    monkeypatch.setattr(tensor_cache, "write_tensors", full)
    cache, pixels = TensorCache.of(tmp_path, base), torch.rand(1, 3, 32, 32)
    assert torch.equal(cache.latents(pixels, lambda part: part), pixels)
    assert "is not stored: no space left" in caplog.text


def test_a_file_in_the_place_of_the_folder_is_refused(base, dataset, config, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(OutputError, match="cache .*cache cannot be made: .*; allowed is a folder"):
        train(base, dataset, config, output=tmp_path / "a.safetensors", cache_dir=tmp_path / "cache")
