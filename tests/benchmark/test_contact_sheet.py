"""The sheet of an experiment's pictures: everything in its row and column, and words that can be read."""

import json

import pytest
from PIL import Image

from orthoplex.benchmark import run, runner
from orthoplex.benchmark.contact_sheet import CELL, LINE, MOST_COLUMNS, STEP, Block, write_contact_sheet
from tests.benchmark.tiny import experiment_file


def one(folder, colour, size=(32, 32)):
    path = folder / f"{colour}.png"
    Image.new("RGB", size, colour).save(path)
    return path


def sheet_of(folder, *blocks):
    with Image.open(write_contact_sheet(blocks, folder / "sheet.jpg")) as sheet:
        return sheet.convert("RGB")


def colour_at(sheet, left, top):
    """Which of red, green and blue is strongest in a cell, None where nothing is."""
    pixel = sheet.getpixel((left + CELL // 2, top + CELL // 2))
    return None if min(pixel) > 200 else ("red", "lime", "blue")[pixel.index(max(pixel))]


def ink(sheet, box):
    """How far to the right and down a part of the sheet is written on; None where it is not."""
    part = sheet.crop(box).convert("L").point(lambda value: 255 if value < 200 else 0)
    return part.getbbox() and part.getbbox()[2:]


def test_every_picture_stands_in_its_row_and_column(tmp_path):
    red, lime, blue = (one(tmp_path, colour) for colour in ("red", "lime", "blue"))
    first = Block("first", {"real": {"anna": red, "rex": lime}, "merged": {"rex": blue}})
    pairs = Block("pairs", {"sum": {"a + b": lime}})
    sheet = sheet_of(tmp_path, first, pairs)
    assert (first.head, pairs.head) == (3 * LINE, 4 * LINE)
    assert sheet.height == first.head + pairs.head + 3 * STEP
    left = sheet.width - 2 * STEP
    rows = [[colour_at(sheet, left + n * STEP, top) for n in range(2)] for top in (3 * LINE, 3 * LINE + STEP)]
    assert rows == [["red", "lime"], [None, "blue"]]
    assert colour_at(sheet, left, first.head + 2 * STEP + pairs.head) == "lime"


def test_columns_beyond_the_first_are_left_out(tmp_path):
    many = dict.fromkeys((f"c{number}" for number in range(MOST_COLUMNS + 3)), one(tmp_path, "red"))
    block = Block("all", {"real": many})
    assert block.columns == [f"c{number}" for number in range(MOST_COLUMNS)]
    assert sheet_of(tmp_path, block).width < (MOST_COLUMNS + 1) * STEP


def test_long_labels_titles_and_names_do_not_run_into_pictures_or_each_other(tmp_path):
    red = one(tmp_path, "red")
    label, title, name = "silent slots: λ = 0.6 – " + 30 * "wide ", 60 * "title ", "a-very-long-name-of-a-concept"
    short, long = (sheet_of(tmp_path, Block("t", {words: {"a": red}})) for words in ("l", label))
    assert long.width > short.width + 100
    wide = sheet_of(tmp_path, Block(title, {"l": {"a": red}}))
    right, _ = ink(wide, (0, 0, wide.width, LINE))
    assert short.width < right < wide.width
    named = sheet_of(tmp_path, Block("t", {"l": {name: red, "b": red}}))
    left = named.width - 2 * STEP
    assert ink(named, (left, LINE, left + STEP, 2 * LINE))[0] <= CELL


def test_names_of_concepts_that_share_a_picture_stand_in_their_order(tmp_path):
    sheet = sheet_of(tmp_path, Block("", {"": {"iiii + WWWW": one(tmp_path, "red")}}))
    left = sheet.width - STEP
    first, second = (ink(sheet, (left, LINE * line, sheet.width, LINE * (line + 1)))[0] for line in (1, 2))
    only = sheet_of(tmp_path, Block("", {"": {"iiii": one(tmp_path, "red")}}))
    assert first == ink(only, (left, LINE, only.width, 2 * LINE))[0] != second


def test_letters_that_variants_use_are_drawn(tmp_path):
    pictures = {"a": one(tmp_path, "red")}
    drawn = [sheet_of(tmp_path, Block(letter, {"": pictures})).crop((0, 0, 20, LINE)).tobytes() for letter in "λ–×é∎"]
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize("size", [(96, 32), (32, 96)])
def test_pictures_that_are_not_square_are_cropped(tmp_path, size):
    picture = Image.new("RGB", size, "red")
    picture.paste("blue", (size[0] // 2 - 8, size[1] // 2 - 8, size[0] // 2 + 8, size[1] // 2 + 8))
    picture.save(tmp_path / "wide.png")
    sheet = sheet_of(tmp_path, Block("", {"": {"a": tmp_path / "wide.png"}}))
    left, top = sheet.width - STEP, 3 * LINE
    blue = [sheet.getpixel((left + x, top + CELL // 2))[2] > 150 for x in range(CELL)]
    assert CELL // 2 - 4 <= sum(blue) <= CELL // 2 + 4  # as wide as high: 16 of 32


PAIRS = """
[[together]]
name = "pairs"
kinds = ["person", "subject"]
prompts = ["{1} and {2}"]
draws = 2
"""


def recipe_of(picture):
    """How many concepts a picture of the work folder was made with; 0 for the base."""
    merge = json.loads((picture.parent / "set.json").read_text())["merge"]
    return len(merge["concepts"]) if merge else 0


def test_the_sheet_shows_what_is_real_alone_and_merged(pico_folder, sources, tmp_path, monkeypatch):
    path, shown = experiment_file(tmp_path, pico_folder, sources), []
    text = path.read_text().replace("seeds = [0]", "seeds = [0, 1]\nsheet = true")
    path.write_text(text.split('[[variants]]\nname = "lora sum"')[0] + "[merges]\nsizes = [2, 3]\n" + PAIRS)
    write = runner.write_contact_sheet
    monkeypatch.setattr(runner, "write_contact_sheet", lambda blocks, to: shown.extend(blocks) or write(blocks, to))
    list(run(path, results=tmp_path / "results", work=tmp_path / "work"))
    concepts, pairs = shown
    assert (concepts.title, pairs.title) == ("tiny", "pairs")
    assert concepts.columns == [source.name for source in sources]
    assert list(concepts.rows) == [
        "real",
        "the base",
        "slots: alone",
        "slots: 2 merged",
        "slots: 3 merged",
    ]  # one seed's
    for source in sources:
        assert concepts.rows["real"][source.name] in source.split().held_out
        made = [recipe_of(concepts.rows[label][source.name]) for label in list(concepts.rows)[1:]]
        assert made == [0, 1, 2, 3]
    assert pairs.columns == ["anna + boro", "rex + boro"] or pairs.columns == ["rex + boro", "anna + boro"]
    assert {label: {recipe_of(file) for file in row.values()} for label, row in pairs.rows.items()} == {
        "the base": {0},
        "slots: 2 merged": {2},
    }
    sheet = tmp_path / "results" / "tiny.jpg"
    assert sheet.is_file()
    path.write_text(path.read_text().replace("sheet = true", "sheet = false"))
    list(run(path, results=tmp_path / "results", work=tmp_path / "work"))
    assert not sheet.exists()
