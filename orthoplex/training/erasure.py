"""Randomized output erasure: an update shall be silent on inputs that do not hold its concept.

Activation form. With ``x`` the inputs of a layer while the base, without any adapter, works on foreign prompts, and
``G = E[x xᵀ]``,

    E‖ΔW x‖² / E‖W x‖² = tr(ΔW G ΔWᵀ) / E‖W x‖²,    ΔW = up · down.

For a frozen ``down`` the inputs enter only as ``z = down x``, and ``tr(up G_z upᵀ)`` with the ``(r, r)`` matrix
``G_z = E[z zᵀ]`` is all that is needed; a trained ``down`` needs the ``(in, in)`` matrix. Both are gathered once,
before weights learn, so the penalty costs next to nothing per step. It is the expectation over the *base's*
activations: as long as the update is silent on foreign prompts, the adapted model's activations there are the same.

The abstract of BlockLoRA (Zhu et al., arXiv 2503.08575) names the idea without its loss; this is our reading of it.
"""

import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from orthoplex.activations.grams import observed_inputs
from orthoplex.adapters import Adapter
from orthoplex.errors import OrthoplexError


@dataclass(frozen=True, eq=False)
class ErasureStatistics:
    """What a layer's foreign inputs look like, as far as its adapter can see them.

    Attributes:
        gram: ``E[z zᵀ] / E‖W x‖²`` with ``z = down x``, ``(r, r)``, where ``down`` is frozen;
            ``E[x xᵀ] / E‖W x‖²``, ``(in, in)``, where it is trained. float32.
        frozen: Whether ``down`` is frozen.
    """

    gram: Tensor
    frozen: bool

    def penalty(self, adapter: Adapter) -> Tensor:
        """Return ``E‖ΔW x‖² / E‖W x‖²``, a differentiable scalar."""
        gram = self.gram if self.frozen else adapter.down @ self.gram @ adapter.down.T
        up = adapter.up * adapter.scaling
        return ((up @ gram) * up).sum()


class Erasure(Protocol):
    """What makes an update silent on foreign inputs, in either form."""

    def penalty(self, step: int) -> Tensor:
        """Return the penalty of one step, a differentiable scalar."""
        ...


@final
@dataclass(frozen=True, eq=False)
class ActivationErasure:
    """The activation form.

    Attributes:
        adapters: Layer name to adapter.
        statistics: Layer name to the statistics of its foreign inputs, for the same layers.
    """

    adapters: Mapping[str, Adapter]
    statistics: Mapping[str, ErasureStatistics]

    def penalty(self, step: int) -> Tensor:
        """Return the mean over layers of ``E‖ΔW x‖² / E‖W x‖²``; the same at every step, as it is an expectation."""
        return torch.stack([self.statistics[layer].penalty(item) for layer, item in self.adapters.items()]).mean()


def is_due(step: int, share: float) -> bool:
    """Whether step ``step``, from 0, is one of the evenly spread ``share`` of steps that erasure takes part in."""
    return math.floor((step + 1) * share + 1e-9) > math.floor(step * share + 1e-9)


@final
class StatisticsCollector:
    """Sums over the foreign inputs of each layer; see ``collecting``.

    Attributes:
        weights: How much every position of the prompts that run now counts in layers that see the text,
            ``(n, length)``; None for all alike.
    """

    weights: Tensor | None

    def __init__(self, adapters: Mapping[str, Adapter], text_layers: Collection[str]) -> None:
        """Begin with nothing seen."""
        self._adapters, self._text_layers, self.weights = adapters, text_layers, None
        self._grams: dict[str, Tensor] = {}
        self._energies: dict[str, float] = {layer: 0.0 for layer in adapters}

    @torch.no_grad()
    def observe(self, layer: str, linear: nn.Linear, x: Tensor) -> None:
        """Add the inputs ``x (..., in)`` of one layer.

        The number of inputs needs no counting: it cancels in ``E[x xᵀ] / E‖W x‖²``. What an input counts, its root
        scales it by.
        """
        adapter = self._adapters[layer]
        x = x.detach().float()
        if self.weights is not None and layer in self._text_layers:
            x = x * self.weights.sqrt().unsqueeze(-1).to(x)
        x = x.flatten(0, -2)
        output = functional.linear(x, linear.weight.detach().float())
        z = x if adapter.down.requires_grad else functional.linear(x, adapter.down.float())
        gram = (z.T @ z).double()
        self._grams[layer] = self._grams[layer] + gram if layer in self._grams else gram
        self._energies[layer] += float(output.square().sum(dtype=torch.float64))

    def statistics(self) -> dict[str, ErasureStatistics]:
        """Return the statistics of every layer.

        Raises:
            OrthoplexError: When a layer saw no input, or its weight answers every input with 0.
        """
        found: dict[str, ErasureStatistics] = {}
        for layer, adapter in self._adapters.items():
            energy = self._energies[layer]
            if layer not in self._grams or energy <= 0.0:
                raise OrthoplexError(f"layer {layer}: foreign prompts gave output energy {energy}; it must be above 0")
            gram = (self._grams[layer] / energy).float()
            found[layer] = ErasureStatistics(gram, frozen=not adapter.down.requires_grad)
        return found


@contextmanager
def collecting(
    linears: Mapping[str, nn.Linear], adapters: Mapping[str, Adapter], text_layers: Collection[str] = ()
) -> Iterator[StatisticsCollector]:
    """Within it, every input that reaches one of the layers is counted.

    Args:
        linears: Layer name to the base's layer.
        adapters: Layer name to its adapter, for the same layers; not attached.
        text_layers: Those of the layers whose inputs are positions of the text.
    """
    collector = StatisticsCollector(adapters, text_layers)
    with observed_inputs({layer: linears[layer] for layer in adapters}, collector.observe):
        yield collector
