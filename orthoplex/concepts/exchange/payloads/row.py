"""A kind of payload, described without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, final

Shapes = Mapping[str, tuple[int, ...]]
"""Part to the shape of its tensor, as a file's header says it."""
ADAPTER = "{adapter}"
"""Stands in an ending for the name that PEFT gives an adapter."""


@final
@dataclass(frozen=True)
class Form:
    """What the shapes of a payload's parts say about the change.

    Attributes:
        shape: The shape of the changed parameter as far as the parts know it: ``(out, in)``, ``(out, in, height,
            width)``, ``(out, in · height · width)`` where the window is not stored, or ``(length,)``.
        rank: The rank as the writing program counts it, which divides alpha; None where alpha has no effect.
        exact_rank: The rank of the factors that the change is read into; None if it is read as a full difference.
    """

    shape: tuple[int, ...]
    rank: int | None
    exact_rank: int | None


@final
@dataclass(frozen=True)
class PayloadRow:
    """A kind of payload: how files spell its parts, and where its arithmetic is.

    Attributes:
        description: The kind in words, with its article.
        parts: Part to the endings of its keys. ``{adapter}`` stands for any name without a dot.
        required: Sets of parts; a payload has all parts of one of them, and none of the others'. Other parts may be
            missing.
        form: The shapes of the parts to the form of the change; None for a kind that is refused.
        module: The file of its class, in this folder.
        payload: The final class of ``Payload`` in that file.
        parameter: The parameter of the layer that is changed.
        refusal: Why no file of our own can hold the kind, and what to do; empty for a kind that is read.
    """

    description: str
    parts: Mapping[str, tuple[str, ...]]
    required: tuple[tuple[str, ...], ...] = ()
    form: Callable[[Shapes], Form] | None = None
    module: str = ""
    payload: str = ""
    parameter: Literal["weight", "bias"] = "weight"
    refusal: str = ""

    @property
    def identifying(self) -> frozenset[str]:
        """The parts that a payload of this kind has and others have not."""
        return frozenset(part for parts in self.required for part in parts)
