"""A collection of pictures is made once, goes on where it was stopped, and is never mixed with another."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pretraining import pictures
from pretraining.compose import Factors


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
    pictures.build(tmp_path, 3, seed=2, workers=1)
    assert greys(tmp_path) == [20, 21, 22]
    stamp = (tmp_path / "pictures-0000.npy").stat().st_mtime_ns
    pictures.build(tmp_path, 5, seed=2, workers=1)
    assert greys(tmp_path) == [20, 21, 22, 23, 24]
    assert (tmp_path / "pictures-0000.npy").stat().st_mtime_ns == stamp
    assert np.load(tmp_path / "pictures-0001.npy").shape == (2, 4, 4, 3)


def test_another_seed_or_another_vocabulary_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures.build(tmp_path, 2, seed=1, workers=1)
    with pytest.raises(ValueError, match="holds pictures of another seed or vocabulary; move it away"):
        pictures.build(tmp_path, 2, seed=2, workers=1)
    manifest = tmp_path / "collection.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "code": "0"}))
    with pytest.raises(ValueError, match="another seed or vocabulary"):
        pictures.build(tmp_path, 2, seed=1, workers=1)
    assert greys(tmp_path) == [10, 11]
