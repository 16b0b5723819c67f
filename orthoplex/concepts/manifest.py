"""The manifest of a concept: the description in its file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from orthoplex.concepts.base_identity import BaseIdentity
from orthoplex.concepts.blocks import INPUTS_BLOCK, Block, Companion, StoredTokens
from orthoplex.concepts.kinds import KINDS
from orthoplex.concepts.tokens import TOKENS
from orthoplex.errors import ConfigurationError

NAME_PATTERN = re.compile(r"[a-z0-9_-]{1,64}")
THUMBNAIL_LIMIT_BYTES = 6 * 1024
FORMAT_VERSION = 5
"""The layout that concept files are written in; older ones are read."""


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
        base_sample: A sample of the base's weights as text, or the empty string.
        trained_on: The base of the training, where the concept is used on another one; else None.
        lengthened_from: The numbers of steps that the training had before it was lengthened, each time.
        dataset_hash: SHA-256 (hex) over pictures and captions, or the empty string.
        package_version: Version of orthoplex that wrote it.
        created: ISO 8601 date and time.
        thumbnail: A small JPEG or PNG in base64 (at most 6 KiB encoded), or the empty string.
        layers: Layer name to ``(out_features, rank, in_features)``; filled in when the concept is saved, as all below.
        types: Data types of the factors: those of most layers as ``up`` and ``down``, others as ``<layer> up`` and
            ``<layer> down``.
        shapes: Layer to the shape of its parameter where that is no matrix: ``(out, in, height, width)`` of a
            convolution, ``(n,)`` of a norm or a bias.
        tokens: The tokens.
        numbers: Block to numbers besides the changes of weights: of tokens, and the inputs of layers.
        companion: The file that holds blocks which are too large for a header; None without one.
        content_hash: SHA-256 (hex) over all factors, tokens and inputs.
        format_version: The layout of the file that it was read from.
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
    base_sample: str = ""
    trained_on: BaseIdentity | None = None
    lengthened_from: tuple[int, ...] = ()
    dataset_hash: str = ""
    package_version: str = ""
    created: str = ""
    thumbnail: str = ""
    layers: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    tokens: StoredTokens = field(default_factory=StoredTokens)
    numbers: Mapping[str, Block] = field(default_factory=dict)
    companion: Companion | None = None
    content_hash: str = ""
    format_version: int = FORMAT_VERSION

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
        if self.has_inputs and not TOKENS[self.tokens.kind].has_common_inputs:
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
    def rare_word(self) -> str:
        """The word of the base's own vocabulary that calls a concept without tokens; else empty."""
        word = self.training.get("rare_word", "")
        return word if isinstance(word, str) else ""

    @property
    def rank(self) -> int:
        """The largest rank of any layer, 0 when the concept changes no weight."""
        return max((rank for _, rank, _ in self.layers.values()), default=0)

    @property
    def has_inputs(self) -> bool:
        """True if the file holds the inputs of the concept's layers."""
        return INPUTS_BLOCK in self.numbers

    def without_inputs(self) -> Manifest:
        """Return the same manifest without the inputs of layers."""
        return replace(self, numbers={name: block for name, block in self.numbers.items() if name != INPUTS_BLOCK})


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
