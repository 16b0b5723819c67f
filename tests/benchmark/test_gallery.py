"""The page and the sheet: escaped, complete, honest where a number is missing."""

from dataclasses import fields, replace

import pytest
from PIL import Image

from orthoplex.benchmark.gallery import Combination, Gallery, Row, write_gallery
from orthoplex.benchmark.gallery_sheet import write_sheet
from orthoplex.benchmark.summary import Summary
from orthoplex.evaluation import Interval

NUMBERS = {
    item.name: Interval(0.5, 0.4, 0.6) for item in fields(Summary) if item.name not in ("variant", "seed_deviation")
}
SUMMARY = replace(
    Summary(variant="orthogonal", seed_deviation=None, **NUMBERS),
    base_alignment=Interval(0.31, 0.3, 0.32),
    base_recognised=Interval(0.34, 0.3, 0.4),
    gain_retention=Interval(0.77, 0.7, 0.8),
    single_recognised=Interval(0.9, 0.8, 1.0),
    merged_recognised=Interval(0.81, 0.7, 0.9),
    recognised_retention=Interval(0.9, 0.85, 0.95),
)


def cell(folder, name, colour):
    (folder / "pictures").mkdir(exist_ok=True)
    Image.new("RGB", (16, 16), colour).save(folder / "pictures" / f"{name}.png")
    return (f"pictures/{name}.png",)


def row(folder, name="anna", live=False, prompt="a photo of <anna> person"):
    colours = {"references": "red", "alone": "lime", "merged": "blue", "lora": "white"}
    return Row(name, "person", prompt, live, **{key: cell(folder, f"{name}-{key}", c) for key, c in colours.items()})


def gallery(folder, *rows, combinations=(), seconds=None):
    return Gallery(tuple(rows), tuple(combinations), (SUMMARY,), seconds or {"training": 75.0})


def page_of(folder, *rows, **options):
    write_gallery(gallery(folder, *rows, **options), folder)
    return (folder / "index.html").read_text()


def test_prompts_are_text_and_never_tags(tmp_path):
    page = page_of(tmp_path, row(tmp_path, prompt='<script>"x" & y</script>'))
    assert "&lt;script&gt;&quot;x&quot; &amp; y&lt;/script&gt;" in page
    assert "<script" not in page


def test_the_page_fetches_nothing(tmp_path):
    page = page_of(tmp_path, row(tmp_path))
    assert "http" not in page and "@import" not in page and "url(" not in page
    assert "prefers-color-scheme: dark" in page


@pytest.mark.parametrize(
    ("live", "sentence"),
    [
        ((), "All of them ship with the package, trained."),
        (("anna",), "<b>anna</b> was trained on this machine just now."),
        (("anna", "rex"), "<b>anna</b>, <b>rex</b> were trained on this machine just now."),
    ],
)
def test_the_page_says_what_was_trained_here(tmp_path, live, sentence):
    page = page_of(tmp_path, *(row(tmp_path, name, live=name in live) for name in ("anna", "rex")))
    assert sentence in page
    assert page.count("trained here") == len(live)


def test_numbers_stand_with_their_interval_and_their_start(tmp_path):
    page = page_of(tmp_path, row(tmp_path))
    assert "<td>0.90 → 0.81<br><b>0.90 <small>(0.85–0.95)</small></b></td>" in page
    assert "<td>0.31</td><td>0.34</td><td><b>0.77 <small>(0.70–0.80)</small></b></td>" in page


def test_a_retention_without_meaning_is_a_dash(tmp_path):
    numbers = replace(SUMMARY, identity_retention=None)
    write_gallery(replace(gallery(tmp_path, row(tmp_path)), summaries=(numbers,)), tmp_path)
    assert "<b>–</b>" in (tmp_path / "index.html").read_text()


@pytest.mark.parametrize(("seconds", "text"), [(75.4, "75 s"), (2.345, "2.35 s"), (0.0123, "12 ms")])
def test_durations_have_fitting_units(tmp_path, seconds, text):
    assert f"<b>{text}</b><br>merging" in page_of(tmp_path, row(tmp_path), seconds={"merging": seconds})


def test_the_sheet_puts_every_picture_in_its_place(tmp_path):
    rows = [row(tmp_path, name) for name in ("anna", "rex", "boro")]
    combined = Combination("both", cell(tmp_path, "both", "yellow"), cell(tmp_path, "both-lora", "black"))
    path = write_sheet(gallery(tmp_path, *rows, combinations=[combined]), tmp_path)
    with Image.open(path) as sheet:
        middle = 30 + 56  # half a cell below the heading
        left = 4 + 84 + 56  # half a cell right of the names
        columns = [sheet.getpixel((left + 116 * column, middle)) for column in range(4)]
        assert columns == [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
        assert sheet.getpixel((left, middle + 116)) == (255, 0, 0)  # the second row of the first block
        assert sheet.getpixel((left + 84 + 4 * 116 + 28, middle)) == (255, 0, 0)  # the second block
        assert sheet.getpixel((4 + 56, 30 + 2 * 116 + 30 + 56)) == (255, 255, 0)  # the combination below


def test_a_sheet_without_combinations_is_shorter(tmp_path):
    combined = Combination("both", cell(tmp_path, "both", "yellow"), ())
    with Image.open(write_sheet(gallery(tmp_path, row(tmp_path), combinations=[combined]), tmp_path)) as sheet:
        tall = sheet.height
    with Image.open(write_sheet(gallery(tmp_path, row(tmp_path)), tmp_path)) as sheet:
        assert sheet.height == tall - 30 - 116
