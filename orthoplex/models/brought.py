"""What comes with a base beside its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from orthoplex import vignette

HEADS = ("scene", "style")
"""What heads may read off pictures."""


@final
@dataclass(frozen=True)
class Brought:
    """Files that come with a base.

    Attributes:
        foreign_prompts: Prompts of the base's own words, without any concept; empty where none come with it.
        heads: What a head reads, one of ``HEADS``, to its file; empty where none come with it.
    """

    foreign_prompts: tuple[str, ...] = ()
    heads: Mapping[str, Path] = field(default_factory=dict)


def brought_by_vignette() -> Brought:
    """Return what comes with the embedded base."""
    return Brought(tuple(vignette.foreign_prompts()), {head: vignette.head_file(head) for head in HEADS})
