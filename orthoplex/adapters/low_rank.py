"""A low-rank change of one weight, as plain tensors."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from orthoplex.errors import ConfigurationError


@dataclass(frozen=True, eq=False)
class LowRank:
    """The change ``ΔW = up · down`` of one weight ``W`` of shape ``(out, in)``.

    Args:
        up: ``(out, r)``; PEFT calls it ``lora_B``.
        down: ``(r, in)``; PEFT calls it ``lora_A``.

    Raises:
        ConfigurationError: when the two factors are no matrices or have different ranks.
    """

    up: Tensor
    down: Tensor

    def __post_init__(self) -> None:
        """Refuse factors that cannot be multiplied."""
        if self.up.ndim != 2 or self.down.ndim != 2 or self.up.shape[1] != self.down.shape[0]:
            raise ConfigurationError(
                f"low-rank factors have shapes up {tuple(self.up.shape)} and down {tuple(self.down.shape)}; "
                "allowed are up (out, r) and down (r, in) with the same r"
            )

    @cached_property
    def rank(self) -> int:
        """The number r of directions."""
        return self.up.shape[1]

    @cached_property
    def shape(self) -> tuple[int, int]:
        """The shape ``(out, in)`` of the weight that is changed."""
        return self.up.shape[0], self.down.shape[1]

    def delta(self) -> Tensor:
        """Return ``ΔW = up · down``, shape ``(out, in)``, float32."""
        return self.up.float() @ self.down.float()

    def energy(self, gram: Tensor) -> float:
        """Return ``E‖ΔW x‖² = tr(ΔW G ΔWᵀ)``, in float64, for inputs x of which only ``G = E[x xᵀ]`` is known.

        Args:
            gram: ``G (in, in)``.
        """
        up, down, seen = (part.detach().cpu().double() for part in (self.up, self.down, gram))
        return float((up.T @ up * (down @ seen @ down.T)).sum())

    def scaled(self, strength: float) -> "LowRank":
        """Return ``strength · ΔW``; the strength goes into ``up``, so strength 1 changes no bit."""
        return LowRank(self.up * strength, self.down)

    @staticmethod
    def of_matrix(delta: Tensor) -> "LowRank":
        """Return any change ``(out, in)`` as exact factors: the change, and an identity of its smaller side.

        The rank is ``min(out, in)``, so nothing is saved. It is meant for changes without a lower rank.
        """
        out_features, in_features = delta.shape
        identity = torch.eye(min(out_features, in_features), dtype=delta.dtype, device=delta.device)
        return LowRank(identity, delta) if out_features <= in_features else LowRank(delta, identity)

    @staticmethod
    def stack(parts: Sequence["LowRank"]) -> "LowRank":
        """Return ``Σ ΔW_i`` without cross terms: the ups side by side, the downs one below the other.

        ``[up_1 … up_k] · [down_1; …; down_k] = Σ up_i · down_i``.

        Args:
            parts: changes of the same weight; ranks may differ. The order is kept.

        Raises:
            ConfigurationError: when there is nothing to stack, or the weights' shapes differ.
        """
        if not parts:
            raise ConfigurationError("a stack of 0 low-rank changes was asked for; at least 1 is allowed")
        if len({part.shape for part in parts}) > 1:
            shapes = ", ".join(str(part.shape) for part in parts)
            raise ConfigurationError(f"low-rank changes of weights {shapes} cannot be stacked; all must have one shape")
        if len(parts) == 1:
            return parts[0]
        return LowRank(torch.cat([part.up for part in parts], dim=1), torch.cat([part.down for part in parts], dim=0))
