"""Concept files of older versions in today's layout."""

from __future__ import annotations

from pathlib import Path

from orthoplex.concepts.file import load_concept, save_concept
from orthoplex.concepts.manifest import Manifest


def convert_concept(path: str | Path, output: str | Path, *, overwrite: bool = True) -> Manifest:
    """Write a concept file of any version anew in today's layout; its content hash and its dates stay.

    Args:
        path: The file.
        output: A name that ends in ``.safetensors``; it may be the same file.
        overwrite: Replace an existing file; else it is refused.

    Returns:
        The manifest as written.

    Raises:
        ConceptFileError: See ``load_concept`` and ``save_concept``.
        OutputError: When it cannot be written.
    """
    return save_concept(load_concept(path), output, overwrite=overwrite)
