"""An experiment's pictures on one sheet: what every variant makes of every concept, for eyes to judge the tables by."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from orthoplex.concepts import read_picture, written_atomically

Looks = dict[str, dict[str, dict[str, Path]]]
"""Title of a block -> label of a row -> name of a column -> one picture."""

CELL, GAP, LABEL, HEAD = 64, 2, 350, 40
"""Pixels: a picture's side, between pictures, left of a row for what it is called, above a block for its names."""
STEP = CELL + GAP
MOST_COLUMNS = 8
_QUALITY = 75
_INK, _SOFT, _GROUND = (29, 33, 41), (93, 102, 115), (251, 251, 250)


def joined(first: Looks, second: Looks) -> Looks:
    """Both in one, the first's rows first; where a block has the same row twice, the first's is kept."""
    return {
        title: {**first.get(title, {}), **second.get(title, {}), **first.get(title, {})} for title in (*first, *second)
    }


def write_contact_sheet(looks: Mapping[str, Mapping[str, Mapping[str, Path]]], path: Path) -> Path:
    """Write a JPEG: blocks one below the other, in each a row for every label and a column for each of its first names.

    Args:
        looks: See `Looks`; blocks, rows and columns stand in their order, and a row may lack columns.
        path: Where to.

    Returns:
        The file.
    """
    columns = {title: _names(rows) for title, rows in looks.items()}
    width = LABEL + max((len(names) for names in columns.values()), default=0) * STEP + GAP
    height = sum(HEAD + len(rows) * STEP for rows in looks.values()) + GAP
    sheet = Image.new("RGB", (width, height), _GROUND)
    draw, top = ImageDraw.Draw(sheet), 0
    for title, rows in looks.items():
        draw.text((GAP, top + 4), title, fill=_INK, font=ImageFont.load_default(12))
        for column, name in enumerate(columns[title]):
            for line, word in enumerate(name.split(" + ")):
                place = (LABEL + column * STEP, top + HEAD - 12 - 10 * line)
                draw.text(place, word, fill=_SOFT, font=ImageFont.load_default(9))
        top += HEAD
        for label, row in rows.items():
            draw.text((GAP, top + CELL // 2 - 6), label, fill=_INK, font=ImageFont.load_default(11))
            for name in [name for name in columns[title] if name in row]:
                small = read_picture(row[name]).resize((CELL, CELL), Image.Resampling.LANCZOS)
                sheet.paste(small, (LABEL + columns[title].index(name) * STEP, top))
            top += STEP
    with written_atomically(path) as temporary:
        sheet.save(temporary, format="JPEG", quality=_QUALITY)
    return path


def _names(rows: Mapping[str, Mapping[str, Path]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows.values() for name in row))[:MOST_COLUMNS]
