"""The prompts that ship with the base are in its words, all different, and never empty."""

from pathlib import Path

import pytest

from pretraining.compose import Factors
from pretraining.foreign_prompts import foreign_prompts, write

ROWS = [Factors((), f"scene {number}", "ink" if number % 3 == 0 else None) for number in range(60)]


def test_they_differ_and_are_never_empty(tmp_path: Path) -> None:
    found = foreign_prompts(ROWS, 30)
    assert len(set(found)) == len(found) == 30 and all(found)
    assert all("scene" in text or "place" in text for text in found)
    assert found == foreign_prompts(ROWS, 30)
    write([Factors((), f"scene {number}", None) for number in range(600)], tmp_path / "prompts.txt")
    assert len((tmp_path / "prompts.txt").read_text().splitlines()) == 400


def test_too_small_a_collection_is_named() -> None:
    with pytest.raises(ValueError, match="2 pictures have . different captions; 5 are asked for"):
        foreign_prompts(ROWS[:2], 5)
