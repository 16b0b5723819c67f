"""The file beside a concept file, for numbers that are too large for a header."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from orthoplex.concepts.blocks import Companion
from orthoplex.concepts.manifest import Manifest
from orthoplex.concepts.manifest_json import read_manifest
from orthoplex.errors import ConceptFileError
from orthoplex.files import tensor_bytes, write_tensors

_LOG = logging.getLogger(__name__)
Blocks = Mapping[str, Mapping[str, Tensor]]
"""Block to part to numbers."""


def write_companion(blocks: Blocks, path: Path, *, rest: str) -> Companion:
    """Write numbers beside a concept file, under a name that no other content has.

    Args:
        blocks: Block to part to numbers.
        path: The concept file, which is written afterwards: until then the older pair stays whole.
        rest: The concept's content hash without these numbers, if it is whole without them; else empty.

    Raises:
        OutputError: When it cannot be written.
    """
    tensors = _tensors(blocks)
    digest = _hash(tensors)
    companion = Companion(_file_name(path, digest), digest, tuple(sorted(blocks)), rest)
    write_tensors(tensors, path.with_name(companion.file), {"format": "pt"})
    return companion


def read_companion(manifest: Manifest, path: Path) -> dict[str, dict[str, Tensor]] | None:
    """Return the numbers beside a concept file by their blocks.

    Args:
        manifest: Its manifest.
        path: The concept file.

    Returns:
        The blocks; None, with a warning, if the file beside is missing and the concept is whole without it.

    Raises:
        ConceptFileError: If it is missing otherwise, or its content is another; names both files.
    """
    companion = manifest.companion
    if companion is None:
        return {}
    beside = path.with_name(companion.file)
    content = " and ".join(companion.blocks)
    if not beside.exists():
        if companion.rest:
            _LOG.warning("%s: its file beside, %s, with its %s, is missing; it is read without", path, beside, content)
            return None
        raise ConceptFileError(
            f"{path}: its file beside, {beside}, with its {content}, is missing; allowed are both in one folder"
        )
    try:
        if beside.is_dir():
            raise ConceptFileError(f"{path}: its file beside, {beside}, is a folder; allowed is the file as it was")
        tensors = safetensors.torch.load_file(beside)
    except (safetensors.SafetensorError, OSError) as error:
        raise ConceptFileError(f"{path}: its file beside, {beside}, cannot be read: {error}") from error
    shapes = {
        f"{name}.{part}": shape for name in companion.blocks for part, shape in manifest.numbers[name].shapes.items()
    }
    if {name: tuple(tensor.shape) for name, tensor in tensors.items()} != shapes or _hash(tensors) != companion.hash:
        raise ConceptFileError(
            f"{path}: its file beside, {beside}, holds other content than was written with it "
            f"(hash {companion.hash[:12]}); allowed are both as they were"
        )
    blocks: dict[str, dict[str, Tensor]] = {name: {} for name in companion.blocks}
    for name, tensor in tensors.items():
        block, _, part = name.partition(".")
        blocks[block][part] = tensor
    return blocks


def companion_at(path: Path) -> Companion | None:
    """Return the file beside of a concept file that will be replaced; None if there is none, or no concept file.

    Args:
        path: The file.
    """
    try:
        return read_manifest(path).companion
    except ConceptFileError:
        return None


def remove_companion(companion: Companion | None, path: Path) -> None:
    """Remove the file beside of a concept file that was replaced; nothing if there is none, or it is another's.

    Args:
        companion: That of the replaced file.
        path: The concept file.
    """
    if companion is not None and companion.file == _file_name(path, companion.hash):
        path.with_name(companion.file).unlink(missing_ok=True)


def _file_name(path: Path, digest: str) -> str:
    """The name of the file beside a concept file, of the hash of its content."""
    return f"{path.stem}.{digest[:12]}.orthoplex"


def _tensors(blocks: Blocks) -> dict[str, Tensor]:
    return {f"{name}.{part}": tensor for name, parts in blocks.items() for part, tensor in parts.items()}


def _hash(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()
