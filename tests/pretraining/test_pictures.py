"""A collection of pictures is made once, goes on where it was stopped, and is never mixed with another."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pretraining import pictures
from pretraining.compose import Factors
from pretraining.seeds import COLLECTION, COMPOSITES, HEADS, MEASURED, PAINTED


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures whose grey is their number, two in a shard."""

    def compose(seed: int, index: int) -> tuple[Image.Image, Factors]:
        return Image.new("RGB", (4, 4), (10 * seed + index,) * 3), Factors((), f"scene {index}", None)

    monkeypatch.setattr(pictures, "compose", compose)
    monkeypatch.setattr(pictures, "SHARD", 2)


def greys(folder: Path) -> list[int]:
    data, factors = pictures.load(folder)
    assert data.shape[1:] == (4, 4, 3)
    assert [row.scene for row in factors] == [f"scene {index}" for index in range(len(data))]
    assert pictures.load_factors(folder) == factors
    return data[:, 0, 0, 0].tolist()


def test_a_stopped_collection_goes_on_and_a_larger_one_keeps_what_is_there(tmp_path: Path) -> None:
    pictures.build(tmp_path, 3, seed=5, workers=1)
    assert greys(tmp_path) == [50, 51, 52]
    stamp = (tmp_path / "pictures-0000.npy").stat().st_mtime_ns
    pictures.build(tmp_path, 5, seed=5, workers=1)
    assert greys(tmp_path) == [50, 51, 52, 53, 54]
    assert (tmp_path / "pictures-0000.npy").stat().st_mtime_ns == stamp
    assert np.load(tmp_path / "pictures-0001.npy").shape == (2, 4, 4, 3)


def test_pictures_without_factors_are_refused(tmp_path: Path) -> None:
    pictures.build(tmp_path, 3, seed=5, workers=1)
    rows = tmp_path / "pictures-0001.jsonl"
    rows.write_text(rows.read_text() * 2)
    with pytest.raises(ValueError, match="holds 3 pictures and the factors of 4; build it again"):
        pictures.load(tmp_path)


@pytest.mark.parametrize("seed", [MEASURED, HEADS])
def test_what_is_measured_on_is_never_a_collection(tmp_path: Path, seed: int) -> None:
    assert len({MEASURED, HEADS, COLLECTION, COMPOSITES, PAINTED}) == 5
    with pytest.raises(ValueError, match=f"seed is {seed}, whose pictures are measured on; allowed are others"):
        pictures.build(tmp_path / "new", 2, seed=seed, workers=1)
    assert not (tmp_path / "new").exists()


def test_another_seed_or_another_vocabulary_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures.build(tmp_path, 2, seed=1, workers=1)
    with pytest.raises(ValueError, match="holds pictures of another seed or vocabulary; move it away"):
        pictures.build(tmp_path, 2, seed=5, workers=1)
    manifest = tmp_path / "collection.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "code": "0"}))
    with pytest.raises(ValueError, match="another seed or vocabulary"):
        pictures.build(tmp_path, 2, seed=1, workers=1)
    assert greys(tmp_path) == [10, 11]
