"""Two tiny concepts, and everything that a benchmark needs of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from orthoplex.benchmark import ConceptSource

COLOURS = {"anna": "red", "rex": "blue", "boro": "green"}


def draw_concept(folder: Path, colour: str, count: int = 8) -> Path:
    """Write small pictures of one colour in different places, with captions."""
    folder.mkdir(parents=True)
    for number in range(count):
        picture = Image.new("RGB", (32, 32), "white")
        ImageDraw.Draw(picture).ellipse((2 + number, 4, 20 + number, 24), fill=colour)
        picture.save(folder / f"{number:02d}.png")
        (folder / f"{number:02d}.txt").write_text("a photo of {trigger}")
    return folder


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[ConceptSource, ...]:
    """Two people and a subject."""
    root = tmp_path_factory.mktemp("concepts")
    kinds = {"anna": ("person", "person"), "rex": ("person", "person"), "boro": ("subject", "dog")}
    return tuple(
        ConceptSource(name, kind, word, draw_concept(root / name, COLOURS[name]))
        for name, (kind, word) in kinds.items()
    )
