"""The statistics of foreign inputs that erasure needs while a concept learns."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from orthoplex.activations.foreign_inputs import ForeignInputs, PositionWeights, position_weights
from orthoplex.activations.grams import observed_inputs
from orthoplex.adapters import Adapter
from orthoplex.errors import OrthoplexError
from orthoplex.models import Base, plain_weight


@dataclass(frozen=True, eq=False)
class ErasureStatistics:
    """Second moments of a layer's foreign inputs, as far as its adapter can see them.

    Attributes:
        gram: ``E[z zᵀ] / E‖W x‖²`` with ``z = down x``, ``(r, r)``, where ``down`` is frozen;
            ``E[x xᵀ] / E‖W x‖²``, ``(in, in)``, where it is trained. float32.
        frozen: True if ``down`` is frozen.
    """

    gram: Tensor
    frozen: bool

    def penalty(self, adapter: Adapter) -> Tensor:
        """Return ``E‖ΔW x‖² / E‖W x‖²``, a differentiable scalar."""
        gram = self.gram if self.frozen else adapter.down @ self.gram @ adapter.down.T
        up = adapter.up * adapter.scaling
        return ((up @ gram) * up).sum()


@final
class StatisticsCollector:
    """Sums over the foreign inputs of each layer; see ``collecting``.

    Attributes:
        weights: Layer that sees the text to how much every position of the prompts that run now counts in it; all count
            alike in other layers.
    """

    weights: Mapping[str, PositionWeights]

    def __init__(self, adapters: Mapping[str, Adapter]) -> None:
        """Begin with nothing seen."""
        self._adapters, self.weights = adapters, {}
        self._grams: dict[str, Tensor] = {}
        self._energies: dict[str, float] = {layer: 0.0 for layer in adapters}

    @torch.no_grad()
    def observe(self, layer: str, linear: nn.Linear, x: Tensor) -> None:
        """Add the inputs ``x (..., in)`` of one layer.

        The number of inputs needs no counting: it cancels in ``E[x xᵀ] / E‖W x‖²``. The root of an input's weight
        scales it.
        """
        adapter = self._adapters[layer]
        x = x.detach().float()
        if layer in self.weights:
            x = x * self.weights[layer].of_inputs(layer, x).sqrt().unsqueeze(-1).to(x)
        x = x.flatten(0, -2)
        output = functional.linear(x, plain_weight(linear).float())
        z = x if adapter.down.requires_grad else functional.linear(x, adapter.down.float())
        gram = (z.T @ z).double()
        self._grams[layer] = self._grams[layer] + gram if layer in self._grams else gram
        self._energies[layer] += float(output.square().sum(dtype=torch.float64))

    def statistics(self) -> dict[str, ErasureStatistics]:
        """Return the statistics of every layer.

        Raises:
            OrthoplexError: When a layer saw no input, or its weight answers every input with 0.
        """
        statistics: dict[str, ErasureStatistics] = {}
        for layer, adapter in self._adapters.items():
            energy = self._energies[layer]
            if layer not in self._grams or energy <= 0.0:
                raise OrthoplexError(f"layer {layer}: foreign prompts gave output energy {energy}; it must be above 0")
            gram = (self._grams[layer] / energy).float()
            statistics[layer] = ErasureStatistics(gram, frozen=not adapter.down.requires_grad)
        return statistics


@contextmanager
def collecting(linears: Mapping[str, nn.Linear], adapters: Mapping[str, Adapter]) -> Iterator[StatisticsCollector]:
    """Inside, every input that reaches one of the layers is added to the statistics.

    Args:
        linears: Layer name to the base's layer.
        adapters: Layer name to its adapter, for the same layers; not attached.
    """
    collector = StatisticsCollector(adapters)
    with observed_inputs({layer: linears[layer] for layer in adapters}, collector.observe):
        yield collector


@torch.no_grad()
def gather_statistics(
    base: Base,
    adapters: Mapping[str, Adapter],
    linears: Mapping[str, nn.Linear],
    *,
    inputs: ForeignInputs,
    tokens: Sequence[str],
    batch_size: int,
) -> dict[str, ErasureStatistics]:
    """Run the base over foreign inputs and return the statistics of its layers' inputs, positions of the text weighed.

    Args:
        base: The base, with no adapter attached; its tokenizer knows the concept's tokens.
        adapters: Layer name to adapter.
        linears: Layer name to the base's layer.
        inputs: Foreign inputs.
        tokens: The names of the concept's k tokens.
        batch_size: Inputs at a time.
    """
    encoders = {layer: base.family.reader_of(layer) for layer in base.family.text_layers(adapters)}
    weights = {name: position_weights(base, inputs.ids, tokens, name) for name in set(encoders.values())}
    with collecting(linears, adapters) as collector:
        for chosen in torch.arange(len(inputs)).split(batch_size):
            collector.weights = {layer: weights[encoder].take(chosen) for layer, encoder in encoders.items()}
            inputs.take(chosen).predict(base, tokens)
    return collector.statistics()
