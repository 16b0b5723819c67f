"""Cross-attention layers that read their part of wide text features, and add keys and values where tokens stand.

Layer l computes ``K = W_k h + marks @ δk_l`` and ``V = W_v h + marks @ δv_l`` from its own features h.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from orthoplex.models.words.feature_layout import FeatureLayout
from orthoplex.models.words.replacement import Replacements

PROJECTIONS = ("to_k", "to_v")


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

        def add(module: nn.Module, arguments: object, output: Tensor) -> Tensor | None:
            if self._marks is None or self._marks.shape[-1] == 0:
                return None
            rows = [
                output.new_zeros(output.shape[-1]) if one is None else one[0].keys_values[self._name][one[1], row]
                for one in self._replacements.marked.values()
            ]
            added = torch.stack([values.to(self._marks) for values in rows])
            return output + (self._marks @ added).to(output.dtype)

        return add
