"""Tokens as the manifest's fields hold them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor

from orthoplex.concepts.tokens.token import TEXT_ENCODER
from orthoplex.errors import ConceptFileError


@contextmanager
def decoding(field: str) -> Iterator[None]:
    """Inside, errors name the manifest's field."""
    try:
        yield
    except ConceptFileError as error:
        raise ConceptFileError(f"manifest field '{field}': {error}") from error


def only_encoder(token: str, vectors: Mapping[str, Tensor]) -> Tensor:
    """Return the vectors of the one text encoder that today's concept file has room for.

    Raises:
        ConceptFileError: If there are vectors of another, or of several.
    """
    if vectors.keys() != {TEXT_ENCODER}:
        raise ConceptFileError(
            f"token '{token}' has vectors of {', '.join(sorted(vectors)) or 'no text encoder'}, allowed is "
            f"{TEXT_ENCODER} alone"
        )
    return vectors[TEXT_ENCODER]
