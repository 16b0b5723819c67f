"""A base as its user names it, and how it is read; without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import final


@final
@dataclass(frozen=True)
class BaseChoice:
    """The name of a base, and how it is read.

    Attributes:
        name: ``"vignette"``, a pipeline folder, a checkpoint file, or the name of a pipeline on the hub, as
            ``owner/name`` or ``owner/name@revision``.
        variant: Which of a pipeline's weights are read, as ``fp16`` of ``model.fp16.safetensors``; parts without them
            have their only ones. By default plain names go before variants.
        config: For a checkpoint file: a pipeline folder of its family, or the name of one on the hub, whose settings
            and tokenizers it takes, and whose weights for the parts that it lacks.
        download: Fetch from the hub what its cache on this machine lacks.
    """

    name: str
    variant: str | None = None
    config: str | None = None
    download: bool = False

    def __str__(self) -> str:
        """The name alone, as errors show it."""
        return self.name


BaseName = str | Path | BaseChoice
"""What a base is asked for by."""


def choice_of(base: BaseName) -> BaseChoice:
    """Return a name as a choice."""
    return base if isinstance(base, BaseChoice) else BaseChoice(str(base))
