"""An experiment's pictures on one sheet: one row for every variant, one column for every concept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from orthoplex.benchmark.plots import font_file
from orthoplex.files import read_picture, written_atomically

Row = Mapping[str, Path]
"""Name of a column -> one picture."""
SEVERAL = " + "
"""Between the names of concepts that share a picture."""

CELL, GAP, LINE, MOST_COLUMNS = 64, 2, 13, 8
"""Pixels: a picture's side, between pictures, of a line of text; and how many columns are shown."""
STEP = CELL + GAP
_QUALITY = 75
INK, SOFT, GROUND = (29, 33, 41), (93, 102, 115), (251, 251, 250)
"""Colours of sheets: of what matters, of what explains it, and behind."""


@dataclass(frozen=True)
class Block:
    """Rows of pictures that have the same columns.

    Attributes:
        title: The text above them.
        rows: Label -> its pictures, which may lack columns.
    """

    title: str
    rows: Mapping[str, Row]

    @property
    def columns(self) -> list[str]:
        """Names of the columns that are shown, in the order in which the rows bring them."""
        return list(dict.fromkeys(name for row in self.rows.values() for name in row))[:MOST_COLUMNS]

    @property
    def head(self) -> int:
        """Pixels of its title and its columns' names, one concept a line."""
        return LINE * (2 + max((name.count(SEVERAL) + 1 for name in self.columns), default=0))


def write_contact_sheet(blocks: Sequence[Block], path: Path) -> Path:
    """Write a JPEG: blocks one below the other, in each a row for every label and a column for each of its first names.

    Args:
        blocks: The blocks, from the top.
        path: The file.

    Returns:
        The file.

    Raises:
        MissingExtraError: When matplotlib, which brings the letters, is not installed.
    """
    font = ImageFont.truetype(font_file(), 10)
    labels = [label for block in blocks for label in block.rows]
    left = 2 * GAP + max((int(font.getlength(label)) + 1 for label in labels), default=0)
    width = left + max((len(block.columns) for block in blocks), default=0) * STEP
    width = max([width, *(2 * GAP + int(font.getlength(block.title)) + 1 for block in blocks)])
    height = sum(block.head + len(block.rows) * STEP for block in blocks)
    sheet = Image.new("RGB", (width, height), GROUND)
    draw, top = ImageDraw.Draw(sheet), 0
    for block in blocks:
        draw.text((GAP, top + GAP), block.title, fill=INK, font=font)
        places = {name: left + number * STEP for number, name in enumerate(block.columns)}
        for name, place in places.items():
            for line, part in enumerate(name.split(SEVERAL), start=1):
                draw.text((place, top + GAP + LINE * line), _shortened(part, font), fill=SOFT, font=font)
        top += block.head
        for label, row in block.rows.items():
            draw.text((GAP, top + (CELL - LINE) // 2), label, fill=INK, font=font)
            for name, place in places.items():
                if name in row:
                    sheet.paste(ImageOps.fit(read_picture(row[name]), (CELL, CELL)), (place, top))
            top += STEP
    with written_atomically(path) as temporary:
        sheet.save(temporary, format="JPEG", quality=_QUALITY)
    return path


def _shortened(name: str, font: ImageFont.FreeTypeFont) -> str:
    """The name, or as much of it as a column is wide."""
    while font.getlength(name) > CELL and len(name) > 1:
        name = name.removesuffix("…")[:-1] + "…"
    return name
