"""Changes that are computed beside their layers, by one stacked pair a layer: ``W x + up · diag(s) · down x``.

No weight is touched, so that layers may be quantised, offloaded or stored in any type. Factors are ``down (R, in)`` and
``up (out, R)`` for all concepts together. Between the two, the strengths are a vector of R numbers, or one such vector
for each row of a batch; masks weigh every column at every position.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import final

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from orthoplex.concepts import Ingredient, Stack
from orthoplex.errors import BaseModelError, ConfigurationError
from orthoplex.models.weights.added_change import AddedChange, RowStack
from orthoplex.models.weights.engine import WeightEngine
from orthoplex.models.weights.refusals import check_hookable
from orthoplex.models.weights.token_masks import TokenMasks

_OUTPUT_TYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
"""Types of weights whose layers return the same type."""


@final
class UnmergedWeights(WeightEngine):
    """Changes that forward hooks add to the outputs of linear layers and convolutions, and to their biases."""

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        owners: Sequence[Ingredient] = (),
        locked: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """Prepare hooks on modules; see ``WeightEngine``.

        Args:
            modules: Name to module, of all modules of the components; see ``named_modules``.
            owners: See ``WeightEngine``.
            locked: See ``WeightEngine``.
        """
        super().__init__(owners, locked)
        self._modules = modules
        self._added: dict[str, AddedChange] = {}
        self._modules_of: dict[str, nn.Module] = {}
        self._handles: dict[str, RemovableHandle] = {}
        self._masks: TokenMasks | None = None

    @property
    def changes(self) -> Mapping[str, Stack]:
        """Layer to the change that is computed beside it now."""
        return {name: added.change for name, added in self._added.items()}

    @property
    def has_masks(self) -> bool:
        """True if concepts are weighed at the positions of layers."""
        return self._masks is not None

    def apply(self, changes: Mapping[str, Stack]) -> None:
        """Compute changes beside their layers; see ``WeightEngine.apply``."""
        self.put(self.prepared(changes))

    def prepared(self, changes: Mapping[str, Stack]) -> dict[str, tuple[nn.Module, Stack]]:
        """Check changes, and return them with their modules; nothing is put in.

        Raises:
            BaseModelError: See ``apply``.
            ConfigurationError: See ``apply``.
        """
        modules = check_hookable({name: change.shape for name, change in changes.items()}, self._modules)
        if self._masks is not None:
            for name, change in changes.items():
                _check_masked(name, change, modules[name], self._masks)
        for name, change in changes.items():
            if not (change.down.isfinite().all() and change.low_rank.up.isfinite().all()):
                raise ConfigurationError(f"layer '{name}' would get a change that is not finite")
        return {name: (modules[name], change) for name, change in changes.items()}

    def put(self, prepared: Mapping[str, tuple[nn.Module, Stack]]) -> None:
        """Put in what ``prepared`` returned."""
        for name, (module, change) in prepared.items():
            if name in self._added:
                self._added[name].set(change)
            else:
                self._add(AddedChange(name, change), name, module)

    def put_rows(self, rows: Mapping[str, RowStack]) -> None:
        """Compute changes beside their layers, another set for each row of a batch.

        A batch of ``m · n`` is m repetitions of the n rows, as guidance makes them: row i uses the set ``i mod n``.

        Args:
            rows: Layer to the changes of all rows; of an engine that holds no other changes.

        Raises:
            BaseModelError: See ``apply``; or if a layer is a convolution in groups.
            ConfigurationError: See ``apply``. After any error nothing is in.
        """
        prepared = self.prepared({name: stack.change for name, stack in rows.items()})
        for name, (module, _) in prepared.items():
            _check_apart(name, module, "rows")
        try:
            for name, (module, change) in prepared.items():
                self._add(AddedChange(name, change, rows[name].strengths), name, module)
        except BaseException:
            self.restore()
            raise

    def set_masks(self, masks: TokenMasks | None) -> None:
        """Weigh concepts at the positions of layers; None lets them work everywhere again.

        Raises:
            ConfigurationError: If columns of a layer have no owner, or masks do not suit a layer. Then nothing changes.
            BaseModelError: If a layer is a convolution in groups.
        """
        if masks is not None:
            for name, added in self._added.items():
                _check_masked(name, added.change, self._modules_of[name], masks)
        self._masks = masks
        for added in self._added.values():
            added.masks = masks

    def _add(self, added: AddedChange, name: str, module: nn.Module) -> None:
        added.masks = self._masks
        weight = module._parameters.get("weight")
        if weight is not None and not weight.is_meta and weight.dtype in _OUTPUT_TYPES:
            added.place(weight.dtype, weight.device)  # now, so that compiled code finds them
        self._added[name], self._modules_of[name] = added, module
        self._handles[name] = module.register_forward_hook(added, with_kwargs=True)

    def switch(self, changes: Mapping[str, Stack]) -> None:
        """Compute changes beside their layers, and no others; see ``WeightEngine.switch``."""
        self.put(self.prepared(changes))
        self.take([name for name in self._added if name not in changes])

    def take(self, names: Sequence[str]) -> None:
        """Remove the hooks of some layers; this cannot fail."""
        for name in names:
            del self._added[name], self._modules_of[name]
            self._handles.pop(name).remove()

    def restore(self) -> None:
        """Remove the hooks; no weight was changed."""
        for handle in self._handles.values():
            handle.remove()
        self._handles.clear()
        self._added.clear()
        self._modules_of.clear()
        self.strengths.close()


def _check_apart(name: str, module: nn.Module, what: str) -> None:
    """Refuse a convolution in groups, whose columns are not computed one by one."""
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) and module.groups > 1:
        raise BaseModelError(
            f"layer '{name}' is a convolution in {module.groups} groups; allowed with {what} are linear layers and "
            "convolutions in one group"
        )


def _check_masked(name: str, change: Stack, module: nn.Module, masks: TokenMasks) -> None:
    """Refuse a layer whose columns cannot be weighed at every position."""
    masks.check(name)
    _check_apart(name, module, "masks")
    if not change.is_owned:
        raise ConfigurationError(
            f"layer '{name}' has columns that are mixed from several concepts; masks are allowed where every column "
            "has an owner, as of algorithm 'sum'"
        )
