"""Tables in Markdown, and the blocks of a page that a program writes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table: the first column to the left, the others to the right; cells may hold any text."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "".join(f"| {' | '.join(map(_cell, line))} |\n" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


def filled(text: str, blocks: Mapping[str, str]) -> str:
    """Return a page with the blocks between its markers ``<!-- NAME -->`` and ``<!-- /NAME -->``.

    Raises:
        ValueError: When a block's markers are not there exactly once.
    """
    for name, block in blocks.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if len(pattern.findall(text)) != 1:
            raise ValueError(f"markers of {name}: {len(pattern.findall(text))} pairs; allowed: 1")
        text = pattern.sub(lambda marks, block=block: f"{marks[1]}{block}\n{marks[2]}", text)
    return text
