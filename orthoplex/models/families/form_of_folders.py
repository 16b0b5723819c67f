"""Pipeline folders whose files take a merge, without any network: what such folders of a family hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final


@final
@dataclass(frozen=True)
class FolderForm:
    """A folder of a family as it is written here, with one text encoder.

    Attributes:
        changed: The components that concepts may change; each has one file of weights and ``config.json``.
        unchanged: The other components with weights, likewise.
        text_encoder: The component of the text encoder, one of ``changed``.
        embedding: The weight of its file that holds the embeddings of tokens.
        version: Component to the values of its configuration -> the base's version, as concepts name it. Components
            are those with weights, and ``scheduler``.
    """

    changed: tuple[str, ...]
    unchanged: tuple[str, ...]
    text_encoder: str
    embedding: str
    version: Callable[[Mapping[str, Mapping[str, Any]]], str]
