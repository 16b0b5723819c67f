"""The text of a batch as a denoiser takes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor


@final
@dataclass(frozen=True, eq=False)
class Conditioning:
    """Prompts as a family's denoiser takes them; made by ``Family.condition``, read by ``Family.predict``.

    Attributes:
        features: What layers that see the text are given, ``(n, length, width)``. Tokens with vectors of single
            layers, or with keys and values of their own, make it wider.
        extras: What else a family's denoiser takes, by name, one row a prompt: pooled features, masks, a guidance.
            Only the family reads it.
        mask: Which positions hold text, ``(n, length)`` bool; None where all of them count.
    """

    features: Tensor
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    mask: Tensor | None = None

    def __len__(self) -> int:
        """The number of prompts."""
        return len(self.features)

    def take(self, chosen: Tensor) -> Conditioning:
        """The prompts numbered ``chosen``, ``(m,)`` int64; a prompt may be chosen more than once."""
        return self._each(lambda rows: rows[chosen.to(rows.device)])

    def to(self, dtype: torch.dtype | None = None, device: torch.device | None = None) -> Conditioning:
        """The same in another data type, or elsewhere; whole numbers and truth values keep their type."""
        return self._each(lambda rows: rows.to(device, dtype if rows.is_floating_point() else None))

    def trimmed(self) -> Conditioning:
        """The same up to the last position that holds text in any prompt; without masks, all of it."""
        if self.mask is None:
            return self
        length = max(1, int(self.mask.any(0).nonzero().amax()) + 1) if self.mask.any() else 1
        return Conditioning(self.features[:, :length], self.extras, self.mask[:, :length])

    @staticmethod
    def cat(parts: Sequence[Conditioning]) -> Conditioning:
        """All prompts of some parts of one family, in their order; with masks, shorter ones are filled with zeros."""
        extras = {name: torch.cat([part.extras[name] for part in parts]) for name in parts[0].extras}
        masks = [part.mask for part in parts if part.mask is not None]
        if not masks:
            return Conditioning(torch.cat([part.features for part in parts]), extras)
        length = max(mask.shape[1] for mask in masks)
        features = [_filled_up(part.features, length) for part in parts]
        return Conditioning(torch.cat(features), extras, torch.cat([_filled_up(mask, length) for mask in masks]))

    @staticmethod
    def filled(parts: Sequence[Conditioning], empty: Conditioning) -> list[Conditioning]:
        """The parts at the length of the longest; behind the features of shorter ones stand those of the empty prompt.

        Extras, which are not of single positions, stay.

        Args:
            parts: Of one family; their lengths are multiples of that of ``empty``.
            empty: The empty prompt alone.
        """
        length = max(part.features.shape[1] for part in parts)
        filled = []
        for part in parts:
            missing = (length - part.features.shape[1]) // empty.features.shape[1]
            chunks = empty.features.to(part.features).repeat(len(part), missing, 1)
            filled.append(Conditioning(torch.cat([part.features, chunks], dim=1), part.extras))
        return filled

    def _each(self, change: Callable[[Tensor], Tensor]) -> Conditioning:
        mask = None if self.mask is None else change(self.mask)
        return Conditioning(change(self.features), {name: change(rows) for name, rows in self.extras.items()}, mask)


def _filled_up(rows: Tensor, length: int) -> Tensor:
    """Rows ``(n, l, …)`` with zeros behind them up to a length."""
    missing = length - rows.shape[1]
    return torch.cat([rows, rows.new_zeros(len(rows), missing, *rows.shape[2:])], dim=1) if missing else rows
