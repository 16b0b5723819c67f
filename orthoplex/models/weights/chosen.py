"""The engine that folds changes into plain weights, and computes them beside quantised ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import final

import torch
from torch import nn

from orthoplex.adapters import LowRank
from orthoplex.concepts import Ingredient, Stack
from orthoplex.errors import ConfigurationError
from orthoplex.models.weights.changes import Foldable, stacks_of
from orthoplex.models.weights.engine import WeightEngine
from orthoplex.models.weights.folded import FoldedWeights
from orthoplex.models.weights.quantised import quantisation_of
from orthoplex.models.weights.refusals import parameter_place
from orthoplex.models.weights.token_masks import TokenMasks
from orthoplex.models.weights.unmerged import UnmergedWeights
from orthoplex.options import OriginalsPlace


@final
class ChosenWeights(WeightEngine):
    """Two engines as one: every layer's change is folded in, or computed beside it."""

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        owners: Sequence[Ingredient] = (),
        locked: Callable[[], AbstractContextManager[object]] = nullcontext,
        *,
        unmerged: bool | None = None,
        originals: OriginalsPlace = "memory",
    ) -> None:
        """Prepare both engines; see ``WeightEngine``.

        Args:
            modules: See ``FoldedWeights``.
            owners: See ``WeightEngine``.
            locked: See ``WeightEngine``.
            unmerged: True computes all changes beside their layers, False folds all, None only where layers are plain.
            originals: See ``Originals``.
        """
        super().__init__(owners, locked)
        self._modules, self._unmerged = modules, unmerged
        self._beside: dict[str, bool] = {}
        self._folds, self._hooks = FoldedWeights(modules, originals=originals), UnmergedWeights(modules)

    @property
    def changes(self) -> Mapping[str, Stack]:
        """Layer to the change that is in it or beside it now."""
        return {**self._folds.changes, **self._hooks.changes}

    @property
    def unmerged_layers(self) -> tuple[str, ...]:
        """The layers whose changes are beside them now."""
        return tuple(self._hooks.changes)

    @property
    def num_bytes(self) -> int:
        """The bytes besides weights and changes: see ``FoldedWeights``."""
        return self._folds.num_bytes

    def arrange(self, layers: Mapping[str, LowRank]) -> None:
        """Arrange the factors of a concept for quick products; see ``ArrangedFactors``.

        Args:
            layers: Layer to its change; layers that are missing or computed beside are left out.
        """
        groups: defaultdict[tuple[torch.dtype, torch.device], dict[str, LowRank]] = defaultdict(dict)
        for name, change in layers.items():
            if name in self._modules and not self._is_beside(name):
                weight = self._modules[name]._parameters.get("weight")
                if weight is not None and not weight.is_meta:
                    groups[weight.dtype, weight.device][name] = change
        for (dtype, device), group in groups.items():
            self._folds.arranged.arrange(group, dtype, device)

    def disarrange(self, layers: Mapping[str, LowRank]) -> None:
        """Let go of what ``arrange`` copied.

        Args:
            layers: Layer to its change.
        """
        self._folds.arranged.drop(layers.values())

    def apply(self, changes: Mapping[str, Stack]) -> None:
        """Put changes in; see ``WeightEngine.apply``."""
        beside, prepared = self._prepared(changes)
        self._folds.apply({name: change for name, change in changes.items() if name not in beside})
        self._hooks.put(prepared)

    def switch(self, changes: Mapping[str, Stack]) -> None:
        """Put changes in and take all others out; see ``WeightEngine.switch``."""
        beside, prepared = self._prepared(changes)
        self._folds.switch({name: change for name, change in changes.items() if name not in beside})
        self._hooks.put(prepared)
        self._hooks.take([name for name in self._hooks.changes if name not in beside])

    def set_masks(self, masks: TokenMasks | None) -> None:
        """Weigh concepts at the positions of layers; see ``UnmergedWeights.set_masks``.

        Raises:
            ConfigurationError: See ``UnmergedWeights.set_masks``; or if a change is folded in.
            BaseModelError: See ``UnmergedWeights.set_masks``.
        """
        if masks is not None:
            _check_unfolded(self._folds.changes)
        self._hooks.set_masks(masks)

    def restore(self) -> None:
        """Take everything out; see ``WeightEngine.restore``."""
        self._hooks.restore()
        self._folds.restore()
        self.strengths.close()

    def _prepared(self, changes: Mapping[str, Stack]) -> tuple[dict[str, Stack], dict[str, tuple[nn.Module, Stack]]]:
        """The changes that are computed beside their layers, and what ``UnmergedWeights.prepared`` makes of them."""
        beside = {name: change for name, change in changes.items() if self._is_beside(name)}
        if self._hooks.has_masks:
            _check_unfolded([name for name in changes if name not in beside])
        return beside, self._hooks.prepared(beside)

    def _is_beside(self, name: str) -> bool:
        if self._unmerged is not None:
            return self._unmerged
        if name not in self._beside:
            self._beside[name] = quantisation_of(parameter_place(name, self._modules)[0]) is not None
        return self._beside[name]


def _check_unfolded(layers: Collection[str]) -> None:
    """Refuse changes that are folded in, which no mask reaches."""
    if layers:
        raise ConfigurationError(
            f"the change of layer '{next(iter(layers))}' is folded into its weight; masks are allowed with "
            "unmerged=True"
        )


def chosen_weights(
    modules: Mapping[str, nn.Module],
    change: Foldable,
    locked: Callable[[], AbstractContextManager[object]] = nullcontext,
    *,
    unmerged: bool | None = None,
    originals: OriginalsPlace = "memory",
) -> ChosenWeights:
    """Put a change into modules.

    Args:
        modules: See ``FoldedWeights``.
        change: The change.
        locked: See ``WeightEngine``.
        unmerged: See ``ChosenWeights``.
        originals: See ``Originals``.

    Raises:
        BaseModelError: See ``WeightEngine.apply``.
        ConfigurationError: If a weight would not be finite; names the layer and the strengths.
    """
    engine = ChosenWeights(modules, change.recipe.present, locked, unmerged=unmerged, originals=originals)
    try:
        engine.apply(stacks_of(change))
    except ConfigurationError as error:
        raise ConfigurationError(f"{error}; strengths are {change.recipe.strengths}") from error
    return engine
