"""Pipeline folders whose files take a merge, without any network: what such folders of a family hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final


@final
@dataclass(frozen=True)
class FolderReader:
    """A text encoder of a folder.

    Attributes:
        encoder: Its component, one of ``FolderForm.changed``.
        tokenizer: The component of its tokenizer.
        embedding: The weight of its file that holds the embeddings of tokens.
    """

    encoder: str = "text_encoder"
    tokenizer: str = "tokenizer"
    embedding: str = "text_model.embeddings.token_embedding.weight"


@final
@dataclass(frozen=True)
class FolderForm:
    """A folder of a family as it is written here.

    Attributes:
        changed: The components that concepts may change; each has one file of weights and ``config.json``.
        unchanged: The other components with weights, likewise.
        readers: The text encoders.
        version: Component to the values of its configuration -> the base's version, as concepts name it. Components
            are those with weights, and ``scheduler``.
    """

    changed: tuple[str, ...]
    unchanged: tuple[str, ...]
    readers: tuple[FolderReader, ...]
    version: Callable[[Mapping[str, Mapping[str, Any]]], str]
