"""The gallery on one picture, for places that show no pages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from orthoplex.benchmark.contact_sheet import GROUND, INK, SOFT
from orthoplex.benchmark.gallery import Gallery, Row
from orthoplex.concepts import written_atomically

NAME = "gallery_sheet.png"
_CELL, _GAP, _HEAD, _LABEL, _BLOCK_GAP = 112, 4, 30, 84, 28
_COLUMNS = ("real", "alone", "merged", "plain LoRA")
_STEP = _CELL + _GAP


def write_sheet(gallery: Gallery, folder: Path) -> Path:
    """Write `gallery_sheet.png`: every concept real, alone, merged and as plain LoRA, then the combinations.

    Args:
        gallery: What is shown; of every cell the first picture.
        folder: The gallery's folder, to which its paths are relative.

    Returns:
        The file.
    """
    half = (len(gallery.rows) + 1) // 2
    blocks = [block for block in (gallery.rows[:half], gallery.rows[half:]) if block]
    block_width = _LABEL + len(_COLUMNS) * _STEP
    width = len(blocks) * block_width + (len(blocks) - 1) * _BLOCK_GAP + 2 * _GAP
    per_line = max(1, (width - 2 * _GAP) // _STEP)
    combined = [file for combination in gallery.combinations for file in combination.merged]
    lines = -(-len(combined) // per_line)
    top_of_combined = _HEAD + half * _STEP
    height = top_of_combined + (_HEAD + lines * _STEP if combined else 0) + _GAP
    sheet = Image.new("RGB", (width, height), GROUND)
    for number, block in enumerate(blocks):
        _draw_block(sheet, block, _GAP + number * (block_width + _BLOCK_GAP), folder)
    if combined:
        _write(sheet, (_GAP, top_of_combined + 8), "several concepts in one picture, from the same merge", SOFT)
    for number, file in enumerate(combined):
        line, column = divmod(number, per_line)
        _paste(sheet, folder / file, (_GAP + column * _STEP, top_of_combined + _HEAD + line * _STEP))
    with written_atomically(folder / NAME) as temporary:
        sheet.save(temporary, format="PNG")
    return folder / NAME


def _draw_block(sheet: Image.Image, rows: Sequence[Row], left: int, folder: Path) -> None:
    for column, name in enumerate(_COLUMNS):
        _write(sheet, (left + _LABEL + column * _STEP, 8), name, SOFT)
    for line, row in enumerate(rows):
        top = _HEAD + line * _STEP
        _write(sheet, (left, top + _CELL // 2 - 16), row.name, INK)
        _write(sheet, (left, top + _CELL // 2 + 2), row.kind, SOFT)
        for column, files in enumerate((row.references, row.alone, row.merged, row.lora)):
            if files:
                _paste(sheet, folder / files[0], (left + _LABEL + column * _STEP, top))


def _write(sheet: Image.Image, place: tuple[int, int], text: str, colour: tuple[int, int, int]) -> None:
    ImageDraw.Draw(sheet).text(place, text, fill=colour, font=ImageFont.load_default(13))


def _paste(sheet: Image.Image, path: Path, place: tuple[int, int]) -> None:
    with Image.open(path) as picture:
        sheet.paste(picture.convert("RGB").resize((_CELL, _CELL), Image.Resampling.LANCZOS), place)
