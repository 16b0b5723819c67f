"""From the tensors of one module to an exact change."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from orthoplex.adapters import LowRank
from orthoplex.concepts.exchange.payloads import NUMBERS
from orthoplex.concepts.exchange.payloads.row import Form, Shapes
from orthoplex.concepts.exchange.payloads.scaling import read_factor, read_values
from orthoplex.errors import ConfigurationError


@final
@dataclass(frozen=True, eq=False)
class Difference:
    """A full difference of one parameter at strength 1.

    Attributes:
        values: The difference, of the parameter's own shape.
    """

    values: Tensor


class Payload(ABC):
    """The arithmetic of one kind of payload; its row in ``PAYLOADS`` says how files spell it."""

    form: ClassVar[staticmethod[[Shapes], Form]]
    """The shapes of the parts to the form of the change."""

    @final
    def change(
        self, parts: Mapping[str, Tensor], *, shape: tuple[int, ...] | None = None, factor: float | None = None
    ) -> LowRank | Difference:
        """Return the exact change at strength 1: factors of ``ΔW (out, in · height · width)``, or the whole difference.

        Types stay as they are stored where nothing must be rounded; else the change is float32, rounded once from
        exact or float64 products. float64 is read to float32, fp8 exactly to float16.

        Args:
            parts: Part, as in the row, to its tensor.
            shape: The shape of the changed parameter; None if no table knows it.
            factor: What stands before the product where the file says it outside of its tensors, such as PEFT's
                ``alpha / sqrt(rank)``; None for ``alpha / rank``, or 1 where there is no alpha.

        Raises:
            ConfigurationError: when shapes do not fit, alpha or a factor is no usable number, or a value is not
                finite.
        """
        tensors = {part: tensor for part, tensor in parts.items() if part not in NUMBERS}
        form = type(self).form({part: tuple(tensor.shape) for part, tensor in tensors.items()})
        numbers = {part: parts[part] for part in NUMBERS if part in parts}
        scale = read_factor(numbers, form.rank, factor)
        if shape is not None and not _same_numbers(form.shape, shape):
            raise ConfigurationError(f"is a change of a parameter of shape {form.shape}; the base's has shape {shape}")
        values = {part: read_values(part, tensor) for part, tensor in tensors.items()}
        change = self._change(values, form, scale)
        if isinstance(change, Difference) and shape is not None:
            return Difference(change.values.reshape(shape))
        return change

    @abstractmethod
    def _change(self, parts: Mapping[str, Tensor], form: Form, factor: float) -> LowRank | Difference:
        """Return the change of checked parts; see ``change``."""


def _same_numbers(own: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Return True if both are one matrix after flattening."""
    return own[0] == other[0] and math.prod(own) == math.prod(other)
