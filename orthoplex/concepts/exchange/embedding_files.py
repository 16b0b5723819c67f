"""Embeddings in a LoRA file, and beside it."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from orthoplex.concepts.exchange.contents import LoraContents
from orthoplex.concepts.exchange.embedding_keys import EmbeddingPlaces, place_keys
from orthoplex.concepts.exchange.embeddings import Embeddings, read_embedding, vectors_of, write_embedding
from orthoplex.concepts.exchange.encoders import encoders_of
from orthoplex.concepts.exchange.lora_file import LoraFile
from orthoplex.concepts.exchange.stored_changes import read_tensor

_LOG = logging.getLogger(__name__)
_TOKEN = re.compile(r"<[^<>\s:]+>")
_LONGEST = 64
"""Characters of a token in a file's name."""


def read_embeddings(contents: LoraContents) -> Embeddings:
    """Return the embeddings of a file: token to text encoder to vectors.

    Raises:
        FileFormatError: If values cannot be used; names the key.
    """
    tensors = {key: read_tensor(contents.path, contents.header, key) for key in contents.embeddings}
    return vectors_of(tensors, EmbeddingPlaces(contents.embeddings, {}), str(contents.path))


def missing_tokens(lora: LoraFile) -> tuple[str, ...]:
    """Return the tokens, such as ``<anna>``, that a file's trigger names and that are not in the file.

    Args:
        lora: The file.
    """
    named = dict.fromkeys(_TOKEN.findall(lora.metadata.get("modelspec.trigger_phrase", "")))
    return tuple(token for token in named if not {token, token.strip("<>")} & lora.embeddings.keys())


def with_embeddings_beside(lora: LoraFile) -> LoraFile:
    """Return a file with the embeddings that its trigger names, from the files beside that ``write_lora`` makes.

    A token that is nowhere is logged.

    Args:
        lora: The file.

    Raises:
        FileFormatError: If a file beside cannot be read.
    """
    tokens = missing_tokens(lora)
    if lora.path is None or not tokens:
        return lora
    beside = files_beside((*lora.embeddings, *tokens), lora.path)
    added: dict[str, Mapping[str, Tensor]] = {}
    for token in tokens:
        file = beside[token]
        if file.is_file():
            added[token] = next(iter(read_embedding(file, encoders_of(lora.version)).values()))
        else:
            _LOG.warning("%s: %s", lora.label, without_embedding(token, file))
    return replace(lora, embeddings={**lora.embeddings, **added})


def without_embedding(token: str, file: Path) -> str:
    """Say that a trigger names a token that is nowhere, and what to do.

    Args:
        token: The token.
        file: The file beside in which it would be.
    """
    return (
        f"its trigger names {token}, whose embedding is neither in it nor beside it; "
        f"put {file.name} beside it, or prompts say words in its place"
    )


def bundled_embeddings(embeddings: Embeddings, version: str | None) -> dict[str, Tensor]:
    """Return key to tensor, as LoRA files bundle embeddings.

    Raises:
        ConfigurationError: If a text encoder has no key.
    """
    places = place_keys(embeddings, "bundle", encoders_of(version))
    return {key: embeddings[place.token][place.encoder].contiguous() for key, place in places.items()}


def write_embeddings(
    embeddings: Embeddings, files: Mapping[str, Path], version: str | None, *, overwrite: bool = True
) -> None:
    """Write every embedding into a file of its own.

    Args:
        embeddings: Token to text encoder to vectors.
        files: Token to its file.
        version: That of the LoRA file, such as ``sdxl``; None if it is not known.
        overwrite: Replace older files; else they are refused.

    Raises:
        ConfigurationError: If a text encoder has no key.
        OutputError: If a file cannot be written.
    """
    encoders = encoders_of(version)
    for token, file in files.items():
        write_embedding({token: embeddings[token]}, file, style="comfy", encoders=encoders, overwrite=overwrite)


def files_beside(tokens: Iterable[str], path: Path) -> dict[str, Path]:
    """Return token to the file of its embedding beside a LoRA file, ``NAME.TOKEN.safetensors``; no two are equal.

    Args:
        tokens: The tokens.
        path: The LoRA file.
    """
    return {token: path.with_name(f"{path.stem}.{name}.safetensors") for token, name in file_names(tokens).items()}


def file_names(tokens: Iterable[str]) -> dict[str, str]:
    """Return token to a part of a file's name that every system takes and prompts can hold; no two are equal.

    Letters, digits, ``-``, ``_`` and ``.`` inside stay; ``<anna>`` is ``anna``. Names that differ only in capital
    letters, or in what was left out, are numbered.

    Args:
        tokens: The tokens.
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    for token in tokens:
        signs = (sign for sign in unicodedata.normalize("NFC", token) if sign.isalnum() or sign in "-_.")
        first = name = "".join(signs).strip(".")[:_LONGEST] or "token"
        number = 1
        while name.casefold() in taken:
            number += 1
            name = f"{first}-{number}"
        taken.add(name.casefold())
        names[token] = name
    return names
