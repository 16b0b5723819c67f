"""The strengths with which papers merge concepts that were trained as they say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

PAPER_SCALES: Final[Mapping[str, tuple[str, float]]] = {
    "orthogonal-adaptation": ("Po et al., arXiv 2312.02432", 0.6),
    "blocklora": ("Zhu et al., arXiv 2503.08575", 1.0),
}
"""Preset of training -> its paper, and the strength λ of the whole; that of BlockLoRA is this project's reading."""


def paper_scale_note(presets: Iterable[object], scale: float) -> str | None:
    """Return the line of a merge of concepts whose papers merge with another strength; None if there is nothing to say.

    Args:
        presets: The presets that the concepts were trained by, as their files say.
        scale: The strength λ of the merge.
    """
    names = {*presets}
    other = {name: row for name, row in PAPER_SCALES.items() if name in names and row[1] != scale}
    if not other:
        return None
    texts = [f"preset {name} ({paper}) merges with --scale {own:g}" for name, (paper, own) in other.items()]
    return f"{'; '.join(texts)}; this merge has {scale:g}"
