"""The page and the sheet: escaped, complete, honest where a number is missing."""

from dataclasses import fields, replace

import pytest
from PIL import Image

from orthoplex.benchmark.gallery import CombinationRow, Gallery, Row, write_gallery
from orthoplex.benchmark.gallery_sheet import write_combinations, write_sheet, write_strip
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
    colours = {"real": "red", "alone": "lime", "merged": "blue", "lora_sum": "white", "lora_best": "magenta"}
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
    assert "<dt>recognised</dt><dd>0.90 → 0.81, kept <b>0.90 <small>(0.85 to 0.95)</small></b></dd>" in page
    assert "<dt>added</dt><dd>kept <b>0.77 <small>(0.70 to 0.80)</small></b></dd>" in page
    text = " ".join(page.split())
    assert "asked for the class word only, has 0.31." in text and "The base alone has 0.34." in text


def test_figures_that_are_left_out_are_explained(tmp_path):
    shown = replace(gallery(tmp_path, row(tmp_path)), summaries=(), missing="Figures are left out: a <package>.")
    write_gallery(shown, tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert "<p>Figures are left out: a &lt;package&gt;.</p>" in page and "interval" not in page
    assert "<dt>training</dt><dd><b>75 s</b></dd>" in page


def test_a_page_without_combinations_has_no_section_for_them(tmp_path):
    assert "Several concepts" not in page_of(tmp_path, row(tmp_path))


def test_a_retention_without_meaning_is_a_dash(tmp_path):
    numbers = replace(SUMMARY, identity_retention=None)
    write_gallery(replace(gallery(tmp_path, row(tmp_path)), summaries=(numbers,)), tmp_path)
    assert "<b>–</b>" in (tmp_path / "index.html").read_text()


@pytest.mark.parametrize(("seconds", "text"), [(75.4, "75 s"), (2.345, "2.35 s"), (0.0123, "12 ms")])
def test_durations_have_fitting_units(tmp_path, seconds, text):
    page = page_of(tmp_path, row(tmp_path), seconds={"merging": seconds})
    assert f"<dt>merging</dt><dd><b>{text}</b></dd>" in page


def test_pictures_are_never_larger_than_they_are(tmp_path):
    """A picture of the base fills at most its own pixels, and no more than the column that a screen has for it."""
    rules = page_of(tmp_path, row(tmp_path))
    assert "img { display: block; width: 100%; max-width: 128px;" in rules
    assert "nowrap" not in rules.replace("padding: 0 .3rem; white-space: nowrap", "")  # only the badge may not break


COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (255, 0, 255)]
LEFT, TOP, STEP = 4 + 84 + 56, 44 + 56, 116  # the middle of the first cell; from cell to cell


def test_the_sheet_puts_every_picture_in_its_place(tmp_path):
    rows = [row(tmp_path, name) for name in ("anna", "rex", "boro")]
    yellow, black = cell(tmp_path, "both", "yellow"), cell(tmp_path, "both-lora", "black")
    combined = CombinationRow("both", yellow, black, black)
    path = write_sheet(gallery(tmp_path, *rows, combinations=[combined]), tmp_path)
    with Image.open(path) as sheet:
        assert [sheet.getpixel((LEFT + STEP * column, TOP)) for column in range(5)] == COLOURS
        assert sheet.getpixel((LEFT, TOP + STEP)) == COLOURS[0]  # the second row of the first block
        assert sheet.getpixel((8 + 84 + 5 * STEP + 28 + LEFT, TOP)) == COLOURS[0]  # the second block
        assert sheet.getpixel((4 + 56, 44 + 2 * STEP + 4 + 56)) == (255, 255, 0)  # the combination below


def test_a_sheet_without_combinations_is_shorter(tmp_path):
    combined = CombinationRow("both", cell(tmp_path, "both", "yellow"), (), ())
    with Image.open(write_sheet(gallery(tmp_path, row(tmp_path), combinations=[combined]), tmp_path)) as sheet:
        tall = sheet.height
    with Image.open(write_sheet(gallery(tmp_path, row(tmp_path)), tmp_path)) as sheet:
        assert sheet.height == tall - STEP - 16 - 4  # a picture and a line of its prompt


def close(seen, expected):
    """JPEG keeps colours nearly."""
    return all(abs(one - other) < 8 for one, other in zip(seen, expected, strict=True))


def test_the_strip_shows_the_concepts_that_are_named(tmp_path):
    rows = [row(tmp_path, name) for name in ("anna", "rex", "boro")]
    path = write_strip(gallery(tmp_path, *rows), tmp_path, ("boro", "anna"))
    with Image.open(path) as strip:
        assert strip.size == (8 + 84 + 5 * STEP, 44 + 2 * STEP)
        for column, colour in enumerate(COLOURS):
            assert close(strip.getpixel((LEFT + STEP * column, TOP)), colour)


def test_combinations_stand_in_one_line_with_their_prompts(tmp_path):
    long = CombinationRow("a cat and a dog and a bird in a garden", cell(tmp_path, "long", "lime"), (), ())
    short = CombinationRow("both", cell(tmp_path, "short", "blue"), (), ())
    path = write_combinations(gallery(tmp_path, row(tmp_path), combinations=[long, short]), tmp_path)
    with Image.open(path) as sheet:
        assert sheet.width == 8 + 2 * STEP
        assert close(sheet.getpixel((4 + 56, 4 + 56)), (0, 255, 0))
        assert close(sheet.getpixel((4 + STEP + 56, 4 + 56)), (0, 0, 255))
        below = sheet.crop((4, 4 + STEP + 2 * 16, 4 + STEP, sheet.height)).convert("L")
        beside = sheet.crop((4 + STEP, 4 + STEP + 2 * 16, sheet.width, sheet.height)).convert("L")
        assert below.getextrema()[0] < 150 < beside.getextrema()[0]  # the long prompt has a third line, the short none
    assert write_combinations(gallery(tmp_path, row(tmp_path)), tmp_path) is None
    assert not path.exists()
