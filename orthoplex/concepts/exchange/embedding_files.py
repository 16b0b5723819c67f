"""Embeddings in a LoRA file, and beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from orthoplex.concepts.exchange.contents import BUNDLED, LoraContents
from orthoplex.concepts.exchange.stored_changes import read_tensor
from orthoplex.concepts.layer_table import layer_table
from orthoplex.files import write_tensors

_FIRST = "string_to_param.*"
Embeddings = Mapping[str, Mapping[str, Tensor]]


def read_bundled_embeddings(contents: LoraContents) -> tuple[dict[str, dict[str, Tensor]], dict[str, str]]:
    """Return token to text encoder to vectors, and keys that cannot be read with the reasons."""
    embeddings: dict[str, dict[str, Tensor]] = {}
    refused: dict[str, str] = {}
    encoders = _encoders(contents.detected.version)
    for key in contents.embedding_keys:
        token, _, name = key.removeprefix(BUNDLED).partition(".")
        encoder = encoders.get(name)
        if encoder is None or not token:
            refused[key] = f"is no embedding of a text encoder, allowed are {', '.join(encoders)}"
            continue
        tensor = read_tensor(contents.path, contents.header, key)
        embeddings.setdefault(token, {})[encoder] = tensor if tensor.ndim == 2 else tensor.reshape(1, -1)
    return embeddings, refused


def bundled_embeddings(embeddings: Embeddings, version: str | None) -> dict[str, Tensor]:
    """Return key to tensor, as kohya's files bundle embeddings."""
    names = {encoder: name for name, encoder in reversed(_encoders(version).items())}
    return {
        f"{BUNDLED}{token}.{names.get(encoder, encoder)}": vectors.contiguous()
        for token, encoders in embeddings.items()
        for encoder, vectors in encoders.items()
    }


def write_embeddings_beside(embeddings: Embeddings, path: Path, version: str | None) -> list[Path]:
    """Write every embedding into a file of its own, named after the LoRA file and the token."""
    files = []
    for token, encoders in embeddings.items():
        file = path.with_name(f"{path.stem}.{token.strip('<>')}.safetensors")
        names = {encoder: name for name, encoder in reversed(_encoders(version).items())}
        only = len(encoders) == 1
        write_tensors(
            {
                "emb_params" if only else names.get(encoder, encoder): vectors.to(torch.float32)
                for encoder, vectors in encoders.items()
            },
            file,
        )
        files.append(file)
    return files


def _encoders(version: str | None) -> dict[str, str]:
    """Name in a file -> text encoder."""
    table = None if version is None else layer_table(version)
    tags = (
        {} if table is None else {tags["comfy"]: name for name, tags in table.encoder_tags.items() if "comfy" in tags}
    )
    return {_FIRST: "text_encoder", "emb_params": "text_encoder", **tags}
