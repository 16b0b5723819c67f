"""The file of drawings holds what the base's pictures are made of, pixel for pixel, and nothing else."""

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from pretraining import assets

SUBJECTS = {"fox": ("fox", "animal"), "cat": ("cat", "animal"), "key": ("old-key", "object")}
SCENES = {"a hill": ("background", "hills/hill.png"), "a hall": ("panorama", "hall")}
CACHED = (assets._icons, assets.background)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The art of two families and two scenes, with as much that is not used."""
    root = tmp_path / "assets"
    icons = {name: {"body": f"<g id='{name}'/>"} for name in ("fox", "cat-face", "key", "octopus")}
    for family in ("one", "two"):
        (root / family / "package").mkdir(parents=True)
        data = {"icons": icons, "aliases": {"old-key": {"parent": "key"}, "kraken": {"parent": "octopus"}}, "width": 8}
        (root / family / "package" / "icons.json").write_text(json.dumps(data))
    for path in (
        "panoramas/package/hdri/hall.exr.js",
        "panoramas/package/hdri/venice.exr.js",
        "clip/bpe_simple_vocab.gz",
    ):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)
    hills = root / "procgen" / "procgen" / "data" / "assets" / "hills"
    hills.mkdir(parents=True)
    for name in ("hill", "candy1"):
        Image.effect_noise((900, 600), 80).convert("RGB").save(hills / f"{name}.png")
    monkeypatch.setattr(assets, "ASSETS", root)
    monkeypatch.setattr(assets, "FAMILIES", ("one", "two"))
    monkeypatch.setattr(assets, "SUBJECTS", SUBJECTS)
    monkeypatch.setattr(assets, "SCENES", SCENES)
    for cached in CACHED:
        cached.cache_clear()
    yield root
    for cached in CACHED:
        cached.cache_clear()


def test_what_is_packed_draws_the_same_and_holds_nothing_else(root: Path, tmp_path: Path, monkeypatch) -> None:
    file, other = tmp_path / "art.tar.xz", tmp_path / "other"
    hill = assets.background("hills/hill.png").tobytes()
    assert assets.pack(file, root) == file.stat().st_size
    with tarfile.open(file) as archive:
        names = {member.name for member in archive if member.isfile()}
    assert names == {
        "one/package/icons.json",
        "two/package/icons.json",
        "panoramas/package/hdri/hall.exr.js",
        "clip/bpe_simple_vocab.gz",
        "procgen/procgen/data/assets/hills/hill.png",
    }
    assets.unpack(file, other)
    monkeypatch.setattr(assets, "ASSETS", other)
    for cached in CACHED:
        cached.cache_clear()
    assert assets.background("hills/hill.png").tobytes() == hill
    kept = assets._icons("one")
    assert kept["icons"].keys() == {"fox", "cat-face", "key"} and kept["width"] == 8
    assert [assets.icon_name("one", name) for name, _ in SUBJECTS.values()] == ["fox", "cat-face", "key"]
    with pytest.raises(KeyError, match="one draws no kraken"):
        assets.icon_name("one", "kraken")


def test_folders_that_are_there_stay(root: Path, tmp_path: Path) -> None:
    assets.pack(tmp_path / "art.tar.xz", root)
    (tmp_path / "other" / "one").mkdir(parents=True)
    assets.unpack(tmp_path / "art.tar.xz", tmp_path / "other")
    assert not list((tmp_path / "other" / "one").iterdir())
    assert sorted(path.name for path in (tmp_path / "other").iterdir()) == [
        "clip",
        "one",
        "panoramas",
        "procgen",
        "two",
    ]
