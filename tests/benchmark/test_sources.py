"""The split of a concept's pictures: in one place, and the held-out ones never reach training."""

import json
import shutil
from dataclasses import replace

import pytest
from PIL import Image

from orthoplex.benchmark import ConceptSource, split_pictures
from orthoplex.benchmark.sources import indexed_sources, open_pictures, training_folder
from orthoplex.errors import ConfigurationError, DatasetError
from orthoplex.training import ConceptDataset


@pytest.mark.parametrize(("count", "held_out"), [(4, 1), (7, 1), (12, 3), (13, 3), (16, 4)])
def test_the_last_quarter_is_held_out(tmp_path, count, held_out):
    for number in range(count):
        (tmp_path / f"{number:02d}.png").write_bytes(bytes([number]))
    (tmp_path / "00.txt").touch()
    (tmp_path / "zz.png").mkdir()
    split = split_pictures(tmp_path)
    assert [path.name for path in split.held_out] == [f"{n:02d}.png" for n in range(count - held_out, count)]
    assert [path.name for path in split.training] == [f"{n:02d}.png" for n in range(count - held_out)]


def test_too_few_pictures_and_no_folder_are_refused(tmp_path):
    (tmp_path / "a.png").touch()
    with pytest.raises(DatasetError, match=r"holds 1 pictures; allowed: 4 or more"):
        split_pictures(tmp_path)
    with pytest.raises(DatasetError, match=r"none does not exist"):
        split_pictures(tmp_path / "none")


def test_a_concept_may_hold_out_another_number(sources, tmp_path):
    anna = replace(sources[0], held_out=5)
    assert [path.name for path in anna.split().held_out] == [f"{n:02d}.png" for n in range(3, 8)]
    copied = training_folder(anna, tmp_path)
    assert sorted(path.name for path in copied.glob("*.png")) == ["00.png", "01.png", "02.png"]
    with pytest.raises(DatasetError, match=r"holds 8 pictures, 8 held out; allowed: fewer held out"):
        replace(anna, held_out=8).split()
    with pytest.raises(ConfigurationError, match=r"concept 'anna': held_out is 0; allowed are whole numbers from 1"):
        replace(anna, held_out=0)


def test_an_index_lists_concepts_beside_it(tmp_path):
    index = tmp_path / "concepts.json"
    anna = {"name": "anna", "kind": "person", "class_word": "person", "held_out": 8, "licence": "CC0"}
    rows = [anna, {"name": "den", "kind": "scene", "class_word": "place"}]
    index.write_text(json.dumps(rows))
    first = ConceptSource("anna", "person", "person", tmp_path / "anna", held_out=8)
    second = ConceptSource("den", "scene", "place", tmp_path / "den")
    assert indexed_sources(index) == (first, second)
    assert indexed_sources(index, names=["den"]) == indexed_sources(index, kinds=["scene"]) == (second,)
    with pytest.raises(ConfigurationError, match="lists no person among den"):
        indexed_sources(index, names=["den"], kinds=["person"])
    with pytest.raises(ConfigurationError, match="lists no concept of the name 'rex'; allowed: anna, den"):
        indexed_sources(index, names=["rex"])
    with pytest.raises(ConfigurationError, match="lists no concept of the kind 'style'; allowed: person, scene"):
        indexed_sources(index, kinds=["style"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("5", "is 5; allowed are lists of tables"),
        ('[{"name": "anna"}]', "entry 1 lacks kind, class_word; allowed: all three"),
        ('[{"name": 5, "kind": "person", "class_word": "person"}]', "concept 5: name is 5; allowed are texts"),
    ],
)
def test_an_index_that_is_none_is_refused(tmp_path, text, message):
    (tmp_path / "concepts.json").write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        indexed_sources(tmp_path / "concepts.json")
    with pytest.raises(ConfigurationError, match="missing.json cannot be read"):
        indexed_sources(tmp_path / "missing.json")


def test_no_picture_can_be_on_both_sides(sources, tmp_path):
    folder = tmp_path / "twice"
    shutil.copytree(sources[0].folder, folder)
    shutil.copyfile(folder / "01.png", folder / "07.png")
    with pytest.raises(DatasetError, match=r"07.png is a duplicate of 01.png; allowed: each picture once"):
        split_pictures(folder)


def test_the_training_folder_holds_the_training_pictures_only(sources, tmp_path):
    folder = training_folder(sources[0], tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        f"{number:02d}.{ending}" for number in range(6) for ending in ("png", "txt")
    )
    dataset = ConceptDataset.from_folder(folder, resolution=32, token="<anna>", class_word="person", kind="person")
    assert len(dataset) == 6
    assert dataset.captions == ("a photo of <anna> person",)


def test_the_training_folder_is_made_once_and_anew_for_other_pictures(sources, tmp_path):
    first = training_folder(sources[0], tmp_path)
    stamp = (first / "00.png").stat().st_mtime_ns
    assert training_folder(sources[0], tmp_path) == first
    assert (first / "00.png").stat().st_mtime_ns == stamp
    changed = tmp_path / "changed"
    shutil.copytree(sources[0].folder, changed)
    (changed / "00.txt").write_text("a drawing of {trigger}")
    assert training_folder(ConceptSource("anna", "person", "person", changed), tmp_path) != first


def test_captions_of_every_source_reach_the_training_folder(sources, tmp_path):
    folder = tmp_path / "captions"
    shutil.copytree(sources[0].folder, folder)
    (folder / "00.txt").rename(folder / "00.caption")
    (folder / "00.caption").write_text("TOKEN by day\nTOKEN at night")
    copied = training_folder(ConceptSource("anna", "person", "person", folder), tmp_path)
    dataset = ConceptDataset.from_folder(copied, resolution=32, token="<anna>", class_word="person", kind="person")
    assert dataset.pictures[0].captions == ("<anna> person by day", "<anna> person at night")


def test_captions_in_one_table_are_cut_to_the_training_pictures(sources, tmp_path):
    folder = tmp_path / "table"
    folder.mkdir()
    lines = []
    for path in sorted(sources[0].folder.glob("*.png")):
        shutil.copyfile(path, folder / path.name)
        lines.append(json.dumps({"file_name": path.name, "text": f"{{trigger}} {path.stem}"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    copied = training_folder(ConceptSource("anna", "person", "person", folder), tmp_path)
    names = [json.loads(line)["file_name"] for line in (copied / "metadata.jsonl").read_text().splitlines()]
    assert names == [f"{number:02d}.png" for number in range(6)]
    (folder / "metadata.jsonl").write_text("\n".join(["[]", *lines]))
    with pytest.raises(DatasetError, match="metadata.jsonl line 1 cannot be read; allowed is"):
        training_folder(ConceptSource("anna", "person", "person", folder), tmp_path)


def test_pictures_are_read_as_rgb(tmp_path):
    Image.new("L", (5, 4), 7).save(tmp_path / "grey.png")
    (picture,) = open_pictures([tmp_path / "grey.png"])
    assert (picture.mode, picture.size, picture.getpixel((0, 0))) == ("RGB", (5, 4), (7, 7, 7))


def test_names_and_kinds_are_checked(tmp_path):
    with pytest.raises(ConfigurationError, match="Anna"):
        ConceptSource("Anna", "person", "person", tmp_path)
    with pytest.raises(ConfigurationError, match=r"kind 'hero'; allowed: person"):
        ConceptSource("anna", "hero", "person", tmp_path)
    with pytest.raises(ConfigurationError, match=r"concept 'anna': class_word is ' '; allowed are texts that are not"):
        ConceptSource("anna", "person", " ", tmp_path)
    assert ConceptSource("anna", "person", "person", tmp_path).token == "<anna>"
