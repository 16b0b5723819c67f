"""Reading LoRA files of other programs."""

from __future__ import annotations

from pathlib import Path

from orthoplex.concepts.exchange.lora_file import LoraFile
from orthoplex.errors import ConceptFileError


def read_lora(path: str | Path, *, partial: bool = False, family: str | None = None) -> LoraFile:
    """Refuse; the reader comes later."""
    raise ConceptFileError(f"{path}: cannot be read yet")
