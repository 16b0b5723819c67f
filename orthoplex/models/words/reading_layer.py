"""Cross-attention layers that read their part of wide text features, and change keys and values where tokens stand.

Layer l computes ``K = W_k h + marks @ δk_l`` and ``V = W_v h + marks @ δv_l`` from its own features h, and adds
``up (marks · down h)`` of every token that has low-rank maps: one stacked pair for all tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from orthoplex.models.words.feature_layout import FeatureLayout
from orthoplex.models.words.replacement import Replacement, Replacements

PROJECTIONS = ("to_k", "to_v")

Marked = tuple[Replacement, int] | None
"""The replacement of a token that counts, and the token's place in it; None if it adds nothing."""


@final
class ReadingLayer:
    """The hooks of one cross-attention layer; features of plain width pass as they are."""

    def __init__(
        self,
        name: str,
        index: int,
        module: nn.Module,
        layout: Callable[[], FeatureLayout],
        replacements: Replacements,
    ) -> None:
        """Let a layer read wide features, until ``remove``.

        Args:
            name: The layer's name.
            index: Its number among the base's cross-attention layers.
            module: The layer, with the projections ``to_k`` and ``to_v``.
            layout: The layout of wide features now.
            replacements: The replacements that are in.
        """
        self._name, self._index = name, index
        self._layout, self._replacements = layout, replacements
        self._marks: Tensor | None = None  # of the current call, for the projections inside it
        self._handles: list[RemovableHandle] = [
            module.register_forward_pre_hook(self._begin, with_kwargs=True),
            module.register_forward_hook(self._end, always_call=True),
            *(
                module.get_submodule(projection).register_forward_hook(self._adding(row))
                for row, projection in enumerate(PROJECTIONS)
            ),
        ]

    def remove(self) -> None:
        """Take the hooks out."""
        for handle in self._handles:
            handle.remove()

    def _begin(
        self, module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        features = keywords.get("encoder_hidden_states")
        if not isinstance(features, Tensor) or self._layout().is_plain(features):
            return arguments, keywords
        own, self._marks = self._layout().own(features, self._index)
        return arguments, {**keywords, "encoder_hidden_states": own}

    def _end(self, module: nn.Module, arguments: object, output: object) -> None:
        self._marks = None

    def _adding(self, row: int) -> Any:  # noqa: ANN401  (a hook)
        """A forward hook of the projection to keys (row 0) or values (row 1)."""

        def add(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            marks = self._marks
            if marks is None or marks.shape[-1] == 0:
                return None
            marked = list(self._replacements.marked.values())
            rows, maps = self._rows(row, marked), self._maps(row, marked)
            if rows:
                added = torch.stack([values.to(marks) for values in rows.values()])
                output = output + (marks[..., list(rows)] @ added).to(output.dtype)
            if maps:
                ranks = torch.tensor([len(down) for _, down, _ in maps], device=marks.device)
                weights = marks[..., [place for place, _, _ in maps]].repeat_interleave(ranks, -1)
                inner = functional.linear(arguments[0].to(marks), torch.cat([down.to(marks) for _, down, _ in maps]))
                ups = torch.cat([up.to(marks) for _, _, up in maps], 1)
                output = output + functional.linear(weights * inner, ups).to(output.dtype)
            return output

        return add

    def _rows(self, row: int, marked: Sequence[Marked]) -> dict[int, Tensor]:
        """Place of a mark to what its token adds to keys (row 0) or values (row 1), ``(out,)``."""
        return {
            place: one[0].keys_values[self._name][one[1], row]
            for place, one in enumerate(marked)
            if one is not None and one[0].keys_values
        }

    def _maps(self, row: int, marked: Sequence[Marked]) -> list[tuple[int, Tensor, Tensor]]:
        """Places of marks with the down and up factors of their tokens' maps, ``(r, in)`` and ``(out, r)``."""
        maps: list[tuple[int, Tensor, Tensor]] = []
        for place, one in enumerate(marked):
            if one is not None and one[0].key_value_maps:
                down, up = one[0].key_value_maps[self._name][one[1]]
                maps.append((place, down[row], up[row]))
        return maps
