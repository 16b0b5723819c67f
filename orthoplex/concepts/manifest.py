"""The manifest of a concept: the description in its file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from orthoplex.concepts.base_identity import BaseIdentity
from orthoplex.concepts.kinds import KINDS
from orthoplex.concepts.tokens import TOKENS
from orthoplex.errors import ConfigurationError

NAME_PATTERN = re.compile(r"[a-z0-9_-]{1,64}")
THUMBNAIL_LIMIT_BYTES = 6 * 1024


@dataclass(frozen=True)
class StoredTokens:
    """Tokens as a file holds them, read without torch.

    Attributes:
        kind: A name in ``TOKENS``.
        fields: The manifest's fields that hold them, as plain JSON values: ``tokens``, token to base64 of its numbers
            (float32, little endian), and those of the kind.
    """

    kind: str = "vector"
    fields: Mapping[str, Any] = field(default_factory=lambda: {"tokens": {}})

    @property
    def names(self) -> tuple[str, ...]:
        """The tokens, ``<name>``, ``<name>_1``, …, as the file orders them."""
        return tuple(self.fields["tokens"])


@dataclass(frozen=True)
class Manifest:
    """The content of a concept file besides its tensors.

    Attributes:
        name: Concept name, ``[a-z0-9_-]{1,64}``.
        kind: One of ``KINDS``.
        class_word: The ordinary word for its class, for example ``"person"``.
        trigger: The prompt fragment that calls it, for example ``"<anna> person"``.
        base: The base it was trained on.
        method: Name of the adapter method.
        adapter: The adapter configuration as plain JSON values.
        basis_id: Identity of the shared basis its directions come from, or None.
        slot: The slot it owns, or None.
        training: The training configuration as plain JSON values.
        dataset_hash: SHA-256 (hex) over pictures and captions, or the empty string.
        package_version: Version of orthoplex that wrote it.
        created: ISO 8601 date and time.
        thumbnail: A small JPEG or PNG in base64 (at most 6 KiB encoded), or the empty string.
        layers: Layer name to ``(out_features, rank, in_features)``; filled in when the concept is saved.
        tokens: The tokens; filled in when the concept is saved.
        content_hash: SHA-256 (hex) over all tensors and tokens; filled in when the concept is saved.
        inputs: ``(k, in)`` in base64 (float16, little endian), whose Gram matrix is that of every layer's inputs under
            prompts of the concept; empty if it is not stored; filled in when the concept is saved.
    """

    name: str
    kind: str
    class_word: str
    trigger: str
    base: BaseIdentity
    method: str
    adapter: Mapping[str, Any] = field(default_factory=dict)
    basis_id: str | None = None
    slot: int | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    dataset_hash: str = ""
    package_version: str = ""
    created: str = ""
    thumbnail: str = ""
    layers: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    tokens: StoredTokens = field(default_factory=StoredTokens)
    content_hash: str = ""
    inputs: str = ""

    def __post_init__(self) -> None:
        """Refuse a name, kind, slot, thumbnail, or inputs beside tokens, that no file may carry."""
        check_name(self.name)
        if self.kind not in KINDS:
            raise ConfigurationError(f"concept '{self.name}': kind '{self.kind}' is not one of {', '.join(KINDS)}")
        if self.slot is not None and self.slot < 0:
            raise ConfigurationError(f"concept '{self.name}': slot is {self.slot}, allowed are numbers from 0, or none")
        if len(self.thumbnail) > THUMBNAIL_LIMIT_BYTES:
            raise ConfigurationError(
                f"concept '{self.name}': thumbnail takes {len(self.thumbnail)} bytes, "
                f"at most {THUMBNAIL_LIMIT_BYTES} are allowed"
            )
        if self.inputs and not TOKENS[self.tokens.kind].has_common_inputs:
            fields = " and ".join(TOKENS[self.tokens.kind].fields)
            raise ConfigurationError(f"concept '{self.name}': has {fields} and inputs, allowed is one of them")

    @property
    def picture(self) -> str:
        """The content of the thumbnail in words, as in "a small training picture"."""
        if not self.thumbnail:
            return "no picture"
        is_generated = self.training.get("thumbnail") == "generated"
        return "a small generated picture" if is_generated else "a small training picture"

    @property
    def rank(self) -> int:
        """The largest rank of any layer, 0 when the concept changes no weight."""
        return max((rank for _, rank, _ in self.layers.values()), default=0)

    def with_content(
        self,
        *,
        layers: Mapping[str, tuple[int, int, int]],
        tokens: StoredTokens,
        content_hash: str,
        inputs: str = "",
    ) -> Manifest:
        """Return the same manifest with the shape table, tokens, inputs and hash of the content that is written."""
        return replace(self, layers=dict(layers), tokens=tokens, content_hash=content_hash, inputs=inputs)


def check_name(name: str) -> None:
    """Refuse a concept name outside ``[a-z0-9_-]{1,64}``.

    Raises:
        ConfigurationError: If the name does not match.
    """
    if not NAME_PATTERN.fullmatch(name):
        raise ConfigurationError(
            f"concept name '{name}' is not allowed: 1 to 64 characters, each a lower-case letter, a digit, '_' or '-'"
        )


def token_names(name: str, num_vectors: int = 1) -> tuple[str, ...]:
    """The tokens of a concept: ``<name>``, ``<name>_1``, … one for each learned vector.

    Raises:
        ConfigurationError: If the name is not allowed or ``num_vectors`` is below 1.
    """
    check_name(name)
    if num_vectors < 1:
        raise ConfigurationError(f"concept '{name}': {num_vectors} token vectors asked for, at least 1 is needed")
    return tuple(f"<{name}>" if i == 0 else f"<{name}>_{i}" for i in range(num_vectors))
