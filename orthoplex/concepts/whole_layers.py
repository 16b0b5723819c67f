"""All changes of a LoRA file as low-rank factors, full differences among them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import final

from torch import Tensor

from orthoplex.adapters import LowRank
from orthoplex.concepts.concept import Concept
from orthoplex.concepts.exchange.lora_file import LoraFile


@final
class WholeLayers(Mapping[str, LowRank]):
    """Layer to its whole change ``ΔW``: its factors, its full difference as exact factors, or the sum of both.

    A full difference of a weight belongs to the layer itself, that of a bias is the layer ``<layer>.bias``. Norms and
    biases have the shape ``(n, 1)``. A change is made each time it is asked for.

    Args:
        file: The file.
        matrices_alone: True leaves out norms and biases.
    """

    def __init__(self, file: LoraFile, *, matrices_alone: bool = False) -> None:
        self._file = file
        self._full = full_layers(file) if matrices_alone else _by_layer(file.differences)

    def __getitem__(self, layer: str) -> LowRank:
        """Return the whole change of a layer.

        Raises:
            ConfigurationError: When the layer has factors and a full difference of different shapes.
        """
        if layer not in self._full:
            return self._file.layers[layer]
        full = LowRank.of_matrix(_as_matrix(self._file.differences[self._full[layer]]))
        return LowRank.stack([self._file.layers[layer], full]) if layer in self._file.layers else full

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self._file.layers, *self._full)))

    def __len__(self) -> int:
        return len({*self._file.layers, *self._full})


def whole_layers(file: Concept | LoraFile) -> Mapping[str, LowRank]:
    """Return layer to whole change of a concept or a LoRA file.

    Args:
        file: The concept or file.
    """
    return WholeLayers(file) if isinstance(file, LoraFile) else file.layers


def full_layers(file: LoraFile) -> dict[str, str]:
    """Return layer to parameter of the full differences that are matrices or convolutions.

    Args:
        file: The file.
    """
    weights = [
        name for name, difference in file.differences.items() if name.endswith(".weight") and difference.ndim > 1
    ]
    return _by_layer(weights)


def _by_layer(parameters: Iterable[str]) -> dict[str, str]:
    return {parameter.removesuffix(".weight"): parameter for parameter in parameters}


def _as_matrix(difference: Tensor) -> Tensor:
    return difference.reshape(len(difference), -1) if difference.ndim else difference.reshape(1, 1)
