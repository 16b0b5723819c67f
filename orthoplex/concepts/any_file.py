"""A concept from any file: ours, or a LoRA of another program."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from orthoplex.concepts.base_identity import BaseIdentity
from orthoplex.concepts.concept import Concept
from orthoplex.concepts.exchange.adapter_settings import CONFIG_NAME
from orthoplex.concepts.exchange.embedding_files import with_embeddings_beside
from orthoplex.concepts.exchange.embeddings import pickled_embedding
from orthoplex.concepts.exchange.lora_file import LoraFile
from orthoplex.concepts.exchange.reading import read_lora
from orthoplex.concepts.file import load_concept
from orthoplex.concepts.foreign_files import holds_changes
from orthoplex.concepts.layer_table import layer_table
from orthoplex.concepts.lora_concept import foreign_concept
from orthoplex.concepts.manifest_json import MANIFEST_KEY
from orthoplex.errors import FileFormatError, OrthoplexError
from orthoplex.files import read_header


def read_concept(path: str | Path, base: BaseIdentity) -> Concept:
    """Read a concept file, or a LoRA file of another program as a concept of a base, with embeddings beside it.

    Args:
        path: The file, or a folder as PEFT writes one.
        base: The base that a LoRA of another program shall work on; a concept file names its own.

    Raises:
        ConceptFileError: See ``load_concept``, ``read_lora`` and ``foreign_concept``.
    """
    path = Path(path)
    return foreign_concept(with_embeddings_beside(_read(path, base)), base) if is_foreign(path) else load_concept(path)


def _read(path: Path, base: BaseIdentity) -> LoraFile:
    """Read a LoRA file; names that several families have, and sizes of no published version, are the base's."""
    try:
        return read_lora(path)
    except FileFormatError:
        table = layer_table(base.family)
        for name in () if table is None else (base.family, table.family):
            with suppress(OrthoplexError):
                return read_lora(path, family=name)
        raise


def is_foreign(path: Path) -> bool:
    """Return True for a LoRA of another program: a file without our manifest, or a folder as PEFT writes one.

    A ``.pt`` or ``.bin`` file is one if it is an embedding of PyTorch.

    Args:
        path: The file; what cannot be read is not foreign, and ``load_concept`` says why.
    """
    if path.is_dir():
        return (path / CONFIG_NAME).is_file()
    if pickled_embedding(path) is not None:
        return True
    try:
        header = read_header(path)
    except FileFormatError:
        return False
    return MANIFEST_KEY not in header.metadata and holds_changes(header)
