"""Changes that are computed beside their layers, by one stacked pair a layer: ``W x + up · diag(s) · down x``.

No weight is touched, so that layers may be quantised, offloaded or stored in any type. Factors are ``down (R, in)`` and
``up (out, R)`` for all concepts together; the strengths are a vector of R numbers between the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from orthoplex.concepts import Ingredient, Stack
from orthoplex.errors import ConfigurationError
from orthoplex.models.weights.engine import WeightEngine
from orthoplex.models.weights.quantised import weight_shape
from orthoplex.models.weights.refusals import check_hookable

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


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
        self._handles: dict[str, RemovableHandle] = {}

    @property
    def changes(self) -> Mapping[str, Stack]:
        """Layer to the change that is computed beside it now."""
        return {name: added.change for name, added in self._added.items()}

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
                self._added[name] = AddedChange(change, is_bias=name.endswith(".bias"))
                self._handles[name] = module.register_forward_hook(self._added[name], with_kwargs=True)

    def switch(self, changes: Mapping[str, Stack]) -> None:
        """Compute changes beside their layers, and no others; see ``WeightEngine.switch``."""
        self.put(self.prepared(changes))
        self.take([name for name in self._added if name not in changes])

    def take(self, names: Sequence[str]) -> None:
        """Remove the hooks of some layers; this cannot fail."""
        for name in names:
            del self._added[name]
            self._handles.pop(name).remove()

    def restore(self) -> None:
        """Remove the hooks; no weight was changed."""
        for handle in self._handles.values():
            handle.remove()
        self._handles.clear()
        self._added.clear()
        self.strengths.close()


@final
class AddedChange:
    """The change of one layer as a forward hook, in the type and on the device of the layer's output.

    Attributes:
        change: The change.
    """

    change: Stack

    def __init__(self, change: Stack, *, is_bias: bool) -> None:
        """Take a change; its factors are brought to the layer's type and device at the first call, once.

        Args:
            change: Of a layer's weight, or of its bias.
            is_bias: True for a bias.
        """
        self.change = change
        self._is_bias = is_bias
        self._factors: tuple[Tensor, Tensor, Tensor] | None = None

    def set(self, change: Stack) -> None:
        """Take another change in the place of this one; other strengths of the same factors are copied in."""
        is_same = len(change.runs) == len(self.change.runs) and all(
            new.change is old.change and new.gain == old.gain
            for new, old in zip(change.runs, self.change.runs, strict=True)
        )
        self.change = change
        if not is_same:
            self._factors = None
        elif self._factors is not None:
            self._factors[1].copy_(change.column_strengths)

    def __call__(self, module: nn.Module, inputs: Sequence[Any], named: Mapping[str, Any], output: Tensor) -> Tensor:
        """Return a layer's output with the change of it.

        Args:
            module: The layer.
            inputs: What it was called with.
            named: Likewise, by name.
            output: What it returned.
        """
        down, strengths, up = self._placed(output)
        if self._is_bias:
            added = functional.linear(down[:, 0] * strengths, up)
            dimensions = len(module.kernel_size) if isinstance(module, _CONVOLUTIONS) else 0
            return output + added.view(-1, *(1,) * dimensions)
        x = (inputs[0] if inputs else named["input"]).to(output.dtype)
        if not isinstance(module, _CONVOLUTIONS):
            return output + functional.linear(functional.linear(x, down) * strengths, up).to(output.dtype)
        kernels = down.view(-1, *weight_shape(module)[1:])
        if module.groups > 1:  # each group of outputs reads inputs of its own
            delta = functional.linear((down.T * strengths), up).T.reshape(weight_shape(module))
            return output + module._conv_forward(x, delta, None).to(output.dtype)
        channels = -1 - len(module.kernel_size)
        directions = module._conv_forward(x, kernels, None).movedim(channels, -1)
        return output + functional.linear(directions * strengths, up).movedim(-1, channels).to(output.dtype)

    def _placed(self, output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Down, strengths and up in the type and on the device of an output."""
        factors = self._factors
        if factors is None or (factors[0].dtype, factors[0].device) != (output.dtype, output.device):
            with torch.inference_mode(False), torch.no_grad():  # a later training may read them, too
                change = self.change
                factors = (
                    change.down.to(output),
                    change.column_strengths.to(output, copy=True),
                    change.up.to(output),
                )
            self._factors = factors
        return factors
