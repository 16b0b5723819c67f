"""Embeddings in a LoRA file, and beside it."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from orthoplex.concepts.exchange.contents import LoraContents
from orthoplex.concepts.exchange.embedding_keys import EmbeddingPlaces, place_keys
from orthoplex.concepts.exchange.embeddings import Embeddings, vectors_of, write_embedding
from orthoplex.concepts.exchange.encoders import encoders_of
from orthoplex.concepts.exchange.stored_changes import read_tensor


def read_embeddings(contents: LoraContents) -> Embeddings:
    """Return the embeddings of a file: token to text encoder to vectors.

    Raises:
        FileFormatError: If values cannot be used; names the key.
    """
    tensors = {key: read_tensor(contents.path, contents.header, key) for key in contents.embeddings}
    return vectors_of(tensors, EmbeddingPlaces(contents.embeddings, {}), str(contents.path))


def bundled_embeddings(embeddings: Embeddings, version: str | None) -> dict[str, Tensor]:
    """Return key to tensor, as LoRA files bundle embeddings.

    Raises:
        ConfigurationError: If a text encoder has no key.
    """
    places = place_keys(embeddings, "bundle", encoders_of(version))
    return {key: embeddings[place.token][place.encoder].contiguous() for key, place in places.items()}


def write_embeddings_beside(embeddings: Embeddings, path: Path, version: str | None) -> list[Path]:
    """Write every embedding into a file of its own, named after the LoRA file and the token.

    Raises:
        ConfigurationError: If a text encoder has no key.
        OutputError: If a file cannot be written.
    """
    files = []
    for token, vectors in embeddings.items():
        name = "".join(sign for sign in token if sign.isalnum() or sign in "-_.")
        file = path.with_name(f"{path.stem}.{name}.safetensors")
        write_embedding({token: vectors}, file, style="comfy", encoders=encoders_of(version))
        files.append(file)
    return files
