"""Textual-inversion embeddings: files with the vectors of tokens, read and written."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from torch import Tensor

from orthoplex.concepts.exchange.embedding_keys import (
    CLIP_ENCODERS,
    TOKEN_KEY,
    EmbeddingPlaces,
    EncoderKeys,
    embedding_places,
    place_keys,
)
from orthoplex.concepts.exchange.encoders import encoders_of
from orthoplex.concepts.exchange.payloads.scaling import read_values, rounded
from orthoplex.errors import ConfigurationError, FileFormatError
from orthoplex.files import read_header, write_tensors

Embeddings = Mapping[str, Mapping[str, Tensor]]
"""Token to text encoder to vectors, ``(k, width)``."""
_PICKLES = (".pt", ".bin")
_PICKLE_LIMIT_BYTES = 64 * 1024 * 1024
_AS_SAFETENSORS = "get its .safetensors file, or save it as one in the program that made it"


def read_embedding(path: Path | str, encoders: Mapping[str, EncoderKeys] = CLIP_ENCODERS) -> Embeddings:
    """Return the embeddings of a file: of A1111, ComfyUI, diffusers or OneTrainer, or bundled ones that stand alone.

    A ``.pt`` or ``.bin`` file is opened as PyTorch opens weights alone, and only if it holds nothing besides tensors,
    numbers and text.

    Args:
        path: The file. Its name is the token where keys do not name one.
        encoders: Text encoder to its keys in files; those of Stable Diffusion 1, 2 and XL.

    Raises:
        FileFormatError: when it is no file of embeddings, or a tensor of it cannot be read; names the key.
    """
    path = Path(path)
    if path.suffix.lower() in _PICKLES:
        tensors = _pickled(path)
        shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
        places = _read_places(shapes, path, path.stem, encoders)
        return vectors_of({key: tensors[key] for key in places.places}, places, str(path))
    header = read_header(path)
    header.check_whole(path)
    shapes = {key: entry.shape for key, entry in header.entries.items()}
    places = _read_places(shapes, path, header.metadata.get(TOKEN_KEY, path.stem), encoders)
    with safe_open(path, framework="pt") as file:
        return vectors_of({key: file.get_tensor(key) for key in places.places}, places, str(path))


def pickled_embedding(path: Path) -> Embeddings | None:
    """Return the embeddings of a ``.pt`` or ``.bin`` file, opened as ``read_embedding`` does; None for all else.

    Args:
        path: The file; its name is the token.
    """
    if path.suffix.lower() not in _PICKLES or not path.is_file():
        return None
    try:
        return read_embedding(path, encoders_of(None))
    except FileFormatError:
        return None


def write_embedding(
    tokens: Embeddings,
    path: Path,
    *,
    style: str,
    encoders: Mapping[str, EncoderKeys] = CLIP_ENCODERS,
    overwrite: bool = True,
) -> None:
    """Write embeddings into a safetensors file of their own; equal content gives equal bytes.

    Args:
        tokens: Token to text encoder to vectors, ``(k, width)``.
        path: The file to write; in style ``comfy`` its name is the token that other programs read.
        style: ``comfy`` (also A1111, Forge), ``diffusers``, or ``bundle``; see ``place_keys``.
        encoders: Text encoder to its keys in files.
        overwrite: Replace an older file; else it is refused.

    Raises:
        ConfigurationError: when the style does not hold them.
        OutputError: when the file cannot be written, or is there and ``overwrite`` is False.
    """
    places = place_keys(tokens, style, encoders)
    tensors = {key: tokens[place.token][place.encoder] for key, place in places.items()}
    named = {TOKEN_KEY: next(iter(tokens))} if len(tokens) == 1 else {}
    write_tensors(tensors, path, {"format": "pt", **named}, overwrite=overwrite)


def vectors_of(tensors: Mapping[str, Tensor], places: EmbeddingPlaces, label: str) -> Embeddings:
    """Return token to text encoder to vectors, ``(k, width)``, of tensors whose places are known.

    Args:
        tensors: Key to tensor.
        places: What the keys are.
        label: The file, for errors.

    Raises:
        FileFormatError: when values cannot be used, or the text encoders of a token have different numbers of vectors.
    """
    tokens: dict[str, dict[str, Tensor]] = {}
    for key, place in sorted(places.places.items(), key=lambda item: (item[1].token, item[1].encoder)):
        try:
            values = rounded(read_values(key, tensors[key]))
        except ConfigurationError as error:
            raise FileFormatError(f"{label}: {error}") from error
        tokens.setdefault(place.token, {})[place.encoder] = values.reshape(-1, values.shape[-1])
    for token, vectors in tokens.items():
        if len({len(values) for values in vectors.values()}) > 1:
            numbers = ", ".join(f"{len(values)} for {encoder}" for encoder, values in vectors.items())
            raise FileFormatError(f"{label}: token '{token}' has {numbers} vectors; allowed is one number for all")
    return tokens


def _read_places(
    shapes: Mapping[str, tuple[int, ...]], path: Path, token: str, encoders: Mapping[str, EncoderKeys]
) -> EmbeddingPlaces:
    places = embedding_places(shapes, token, encoders)
    if places is None:
        keys = ", ".join([*shapes][:3]) or "none"
        raise FileFormatError(
            f"{path}: is no file of embeddings (its keys begin with {keys}); allowed are the keys emb_params, clip_l, "
            "clip_g, or a token for each tensor of the width of a text encoder"
        )
    for key, reason in places.refused.items():
        raise FileFormatError(f"{path}: {key} {reason}")
    return places


def _pickled(path: Path) -> dict[str, Tensor]:
    """Return key to tensor of a file of PyTorch, without running anything that it holds."""
    if not path.is_file():
        raise FileFormatError(f"{path}: there is no such file")
    size = path.stat().st_size
    if size > _PICKLE_LIMIT_BYTES:
        raise FileFormatError(f"{path}: has {size} bytes; a pickle of embeddings has at most {_PICKLE_LIMIT_BYTES}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise FileFormatError(
            f"{path}: is a pickle that holds more than tensors, numbers and text, and is not opened; {_AS_SAFETENSORS}"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, TypeError, IndexError) as error:
        raise FileFormatError(f"{path}: is no file of PyTorch that can be read; {_AS_SAFETENSORS}") from error
    if not isinstance(content, dict):
        raise FileFormatError(f"{path}: holds a {type(content).__name__}; allowed is a table of embeddings")
    table = cast(dict[Any, Any], content)
    tensors: Any = table.get("string_to_param", table)
    if not isinstance(tensors, dict):
        raise FileFormatError(f"{path}: string_to_param is a {type(tensors).__name__}; allowed is a table of tensors")
    if tensors is not table:
        rows = cast(dict[Any, Any], tensors)
        tensors = {"string_to_param.*" if key == "*" else key: value for key, value in rows.items()}
        lost = [str(key) for key, value in table.items() if isinstance(value, Tensor)]
        if lost:
            raise FileFormatError(f"{path}: has the tensors {', '.join(lost)} beside string_to_param; allowed are none")
    for key, value in cast(dict[Any, Any], tensors).items():
        if not isinstance(key, str) or not isinstance(value, Tensor) or value.layout != torch.strided:
            raise FileFormatError(f"{path}: '{key}' is a {type(value).__name__}; allowed are names of tensors")
    return cast(dict[str, Tensor], tensors)
