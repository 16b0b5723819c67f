"""The gallery as single pictures, for places that show no pages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from orthoplex.benchmark.contact_sheet import GROUND, INK, SOFT
from orthoplex.benchmark.gallery import Gallery, Row
from orthoplex.files import written_atomically

SHEET, STRIP, COMBINATIONS = "gallery_sheet.png", "strip.jpg", "combinations.jpg"
_CELL, _GAP, _HEAD, _LABEL, _BLOCK_GAP = 112, 4, 44, 84, 28
_LINE = 16
_STEP = _CELL + _GAP
_QUALITY = 88


def write_sheet(gallery: Gallery, folder: Path) -> Path:
    """Write `gallery_sheet.png`: the five columns of every concept in two blocks, then the combinations.

    Args:
        gallery: What is shown; of every cell the first picture.
        folder: The gallery's folder, to which its paths are relative.

    Returns:
        The file.
    """
    half = (len(gallery.rows) + 1) // 2
    blocks = [_block(rows, folder) for rows in (gallery.rows[:half], gallery.rows[half:]) if rows]
    width = sum(block.width for block in blocks) + (len(blocks) - 1) * _BLOCK_GAP
    below = _combinations(gallery, folder, width)
    sheet = Image.new("RGB", (width, blocks[0].height + below.height), GROUND)
    left = 0
    for block in blocks:
        sheet.paste(block, (left, 0))
        left += block.width + _BLOCK_GAP
    sheet.paste(below, (0, blocks[0].height))
    return _save(sheet, folder / SHEET)


def write_strip(gallery: Gallery, folder: Path, names: Sequence[str]) -> Path:
    """Write `strip.jpg`: the five columns of a few concepts.

    Args:
        gallery: What is shown; of every cell the first picture.
        folder: The gallery's folder, to which its paths are relative.
        names: The concepts, from the top.

    Returns:
        The file.
    """
    rows = {row.name: row for row in gallery.rows}
    return _save(_block([rows[name] for name in names], folder), folder / STRIP)


def write_combinations(gallery: Gallery, folder: Path) -> Path | None:
    """Write `combinations.jpg`: of every combination the first merged picture, with its prompt.

    Returns:
        The file; None for a gallery without combinations, where an older file is removed.
    """
    if not gallery.combinations:
        (folder / COMBINATIONS).unlink(missing_ok=True)
        return None
    width = 2 * _GAP + len(gallery.combinations) * _STEP
    return _save(_combinations(gallery, folder, width), folder / COMBINATIONS)


def _block(rows: Sequence[Row], folder: Path) -> Image.Image:
    """Names at the left, and a column for every title."""
    titles = list(rows[0].columns)
    sheet = Image.new("RGB", (2 * _GAP + _LABEL + len(titles) * _STEP, _HEAD + len(rows) * _STEP), GROUND)
    for column, title in enumerate(titles):
        _write(sheet, (_GAP + _LABEL + column * _STEP, 4), title.split(", "), SOFT)
    for line, row in enumerate(rows):
        top = _HEAD + line * _STEP
        _write(sheet, (_GAP, top + _CELL // 2 - _LINE), [row.name], INK)
        _write(sheet, (_GAP, top + _CELL // 2), [row.kind], SOFT)
        for column, files in enumerate(row.columns.values()):
            if files:
                _paste(sheet, folder / files[0], (_GAP + _LABEL + column * _STEP, top))
    return sheet


def _combinations(gallery: Gallery, folder: Path, width: int) -> Image.Image:
    """Pictures of several concepts with their prompts, as many in a line as there is room for."""
    shown = [combination for combination in gallery.combinations if combination.merged]
    prompts = [_wrapped(combination.prompt) for combination in shown]
    per_line = max(1, (width - 2 * _GAP) // _STEP)
    step = _STEP + _LINE * max(map(len, prompts), default=0) + _GAP
    sheet = Image.new("RGB", (width, _GAP + -(-len(shown) // per_line) * step), GROUND)
    for number, (combination, prompt) in enumerate(zip(shown, prompts, strict=True)):
        line, column = divmod(number, per_line)
        left, top = _GAP + column * _STEP, _GAP + line * step
        _paste(sheet, folder / combination.merged[0], (left, top))
        _write(sheet, (left, top + _STEP), prompt, SOFT)
    return sheet


def _wrapped(text: str) -> list[str]:
    """The text in lines that are no wider than a cell, broken at spaces."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and _font().getlength(longer) <= _CELL:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(12)


def _write(sheet: Image.Image, place: tuple[int, int], lines: Sequence[str], colour: tuple[int, int, int]) -> None:
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        draw.text((place[0], place[1] + number * _LINE), line, fill=colour, font=_font())


def _paste(sheet: Image.Image, path: Path, place: tuple[int, int]) -> None:
    with Image.open(path) as picture:
        sheet.paste(picture.convert("RGB").resize((_CELL, _CELL), Image.Resampling.LANCZOS), place)


def _save(sheet: Image.Image, path: Path) -> Path:
    with written_atomically(path) as temporary:
        if path.suffix == ".png":
            sheet.save(temporary, format="PNG")
        else:
            sheet.save(temporary, format="JPEG", quality=_QUALITY, subsampling=0)
    return path
