"""The kinds of tokens, and how each learns: one row a kind, read without torch.

A new kind is one file in this folder, with a final class of ``Token`` and those of ``TokenLearning`` that it learns by,
and one row in ``TOKENS``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orthoplex.concepts.tokens.learning import TokenLearning
    from orthoplex.concepts.tokens.token import Token


RARE_WORD = "rare word"
"""The value of the training option ``token_vectors`` with which a concept has no tokens: a rare word calls it."""


@dataclass(frozen=True)
class Learning:
    """A value of the training option ``token_vectors``.

    Attributes:
        learning: The class of ``TokenLearning``, in the file of the kind.
        moves: The part that the optimizer moves: ``"embedding"``, ``"keys and values"`` or ``"nothing"``.
        starts: The values of ``token_start`` that it allows; empty for all.
    """

    learning: str
    moves: str = "embedding"
    starts: tuple[str, ...] = ()


@dataclass(frozen=True)
class TokenKind:
    """A kind of token, described without importing its file.

    Attributes:
        module: The file in this folder.
        token: The class of ``Token`` in it.
        fields: The manifest's fields that hold it besides its numbers, with their JSON types.
        blocks: The blocks of numbers that hold it besides ``tokens``.
        has_common_inputs: True if all layers see the same of a prompt with such tokens.
        learnings: Value of the training option ``token_vectors`` to how such tokens learn.
        description: Its content for each cross-attention layer, in words; ``{count}`` is the number of layers.
    """

    module: str
    token: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    blocks: tuple[str, ...] = ()
    has_common_inputs: bool = True
    learnings: Mapping[str, Learning] = field(default_factory=dict)
    description: str = ""


TOKENS: dict[str, TokenKind] = {
    "vector": TokenKind(
        "vector",
        "Vector",
        learnings={
            "shared": Learning("LearnedVectors"),
            "frozen": Learning("LearnedVectors", moves="nothing"),
            RARE_WORD: Learning("NoVectors", moves="nothing"),
        },
    ),
    "layer-vectors": TokenKind(
        "layer_vectors",
        "LayerVectors",
        fields={"token_layers": list[str]},
        has_common_inputs=False,
        learnings={"layer-wise": Learning("LearnedLayerVectors")},
        description="a vector for each of {count} cross-attention layers",
    ),
    "keys-values": TokenKind(
        "keys_values",
        "KeysValues",
        blocks=("keys_values",),
        learnings={
            "keys-and-values": Learning("LearnedKeysValues", moves="keys and values"),
            "values": Learning("LearnedValues", moves="keys and values", starts=("class word",)),
        },
        description="a key and a value for each of {count} cross-attention layers",
    ),
    "masked-lora": TokenKind(
        "masked_lora",
        "MaskedLora",
        blocks=("masked_down", "masked_up"),
        learnings={"masked-lora": Learning("LearnedMaskedLora", moves="keys and values")},
        description="a LoRA of keys and values for each of {count} cross-attention layers",
    ),
}
"""Name to kind."""


def token_class(kind: str) -> type[Token]:
    """Return the class of a kind of token.

    Args:
        kind: A name in ``TOKENS``.
    """
    row = TOKENS[kind]
    return getattr(import_module(f"{__name__}.{row.module}"), row.token)


def learnings() -> dict[str, Learning]:
    """Return every value of the training option ``token_vectors`` with how tokens learn by it."""
    return {option: learning for row in TOKENS.values() for option, learning in row.learnings.items()}


def learning_class(option: str) -> type[TokenLearning]:
    """Return how tokens learn by a value of the training option ``token_vectors``."""
    row = next(row for row in TOKENS.values() if option in row.learnings)
    return getattr(import_module(f"{__name__}.{row.module}"), row.learnings[option].learning)
