"""Tokens as numbers that a concept file holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor


@final
@dataclass(frozen=True, eq=False)
class TokenNumbers:
    """All tokens of a concept, row by row.

    Attributes:
        names: The k tokens.
        blocks: Block to part to ``(k, …)``, a row for each token: ``tokens`` has the vectors by text encoder; others
            are those that the kind's row in ``TOKENS`` names.
        fields: The manifest's fields that the kind's row in ``TOKENS`` names, as plain JSON values.
    """

    names: tuple[str, ...]
    blocks: Mapping[str, Mapping[str, Tensor]]
    fields: Mapping[str, Any] = field(default_factory=dict)


def stacked(parts: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the parts of k tokens, each token's with the same names and shapes, as part to ``(k, …)``, float32."""
    rows = list(parts)
    return {name: torch.stack([row[name].detach().to("cpu", torch.float32) for row in rows]) for name in rows[0]}


def unstacked(block: Mapping[str, Tensor], count: int) -> list[dict[str, Tensor]]:
    """Return the parts of each of ``count`` tokens; what ``stacked`` put together."""
    return [{name: rows[i] for name, rows in block.items()} for i in range(count)]
