"""The sheet of an experiment's pictures: everything in its row and column."""

from PIL import Image

from orthoplex.benchmark.contact_sheet import CELL, GAP, HEAD, LABEL, MOST_COLUMNS, STEP, joined, write_contact_sheet


def one(folder, colour):
    path = folder / f"{colour}.png"
    Image.new("RGB", (32, 32), colour).save(path)
    return path


def colour_at(sheet, left, top):
    """Which of red, green and blue is strongest there, None where nothing is."""
    pixel = sheet.getpixel((left + CELL // 2, top + CELL // 2))
    return None if min(pixel) > 200 else ("red", "lime", "blue")[pixel.index(max(pixel))]


def test_every_picture_stands_in_its_row_and_column(tmp_path):
    red, lime, blue = (one(tmp_path, colour) for colour in ("red", "lime", "blue"))
    looks = {"first": {"real": {"anna": red, "rex": lime}, "merged": {"rex": blue}}, "pairs": {"sum": {"a + b": lime}}}
    with Image.open(write_contact_sheet(looks, tmp_path / "sheet.jpg")) as sheet:
        assert sheet.size == (LABEL + 2 * STEP + GAP, 2 * HEAD + 3 * STEP + GAP)
        rows = [[colour_at(sheet, LABEL + column * STEP, top) for column in range(2)] for top in (HEAD, HEAD + STEP)]
        assert rows == [["red", "lime"], [None, "blue"]]
        assert colour_at(sheet, LABEL, 2 * HEAD + 2 * STEP) == "lime"


def test_columns_beyond_the_first_are_left_out(tmp_path):
    many = {"real": dict.fromkeys((f"c{number}" for number in range(MOST_COLUMNS + 3)), one(tmp_path, "red"))}
    with Image.open(write_contact_sheet({"all": many}, tmp_path / "sheet.jpg")) as sheet:
        assert sheet.width == LABEL + MOST_COLUMNS * STEP + GAP


def test_looks_are_joined_row_by_row():
    first, second = {"a": {"real": {"x": 1}, "one": {"x": 2}}}, {"a": {"real": {"x": 9}, "two": {"x": 3}}, "b": {}}
    both = joined(first, second)
    assert both == {"a": {"real": {"x": 1}, "one": {"x": 2}, "two": {"x": 3}}, "b": {}}
    assert list(both["a"]) == ["real", "one", "two"]
