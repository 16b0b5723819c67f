"""The interface of merging algorithms: the changes of one weight by all concepts -> one change."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from orthoplex.adapters import LowRank
from orthoplex.concepts import Run, Stack
from orthoplex.merging.systems import Gram, SharedSystems
from orthoplex.options import check_field_names, check_fields

LARGEST = 2**62
"""Of options without an upper limit of their own: their products must stay finite."""


@dataclass(frozen=True, eq=False)
class Part:
    """One concept's change of one weight.

    Attributes:
        concept: The concept's content hash; it decides what is random.
        change: ``ΔW_i``.
        strength: ``s_i``.
    """

    concept: str
    change: LowRank
    strength: float


@dataclass(frozen=True, eq=False)
class WeightChanges:
    """All changes of one weight.

    Attributes:
        layer: The layer's name.
        parts: One for every concept that changes it, in the order of the merge; at least one.
        num_concepts: Concepts in the merge, those that leave this weight alone too.
        grams: Content hash of every concept in the merge to ``G_i = E[x xᵀ]``, ``(in, in)``, over the layer's inputs
            under the concept's own prompts; empty where nobody gathered them.
        foreign: ``E[x xᵀ]`` under prompts without any concept, ``(in, in)``, or None.
        systems: What layers with the same inputs share; those of one merge have one.
    """

    layer: str
    parts: tuple[Part, ...]
    num_concepts: int
    grams: Mapping[str, Gram] = field(default_factory=dict)
    foreign: Gram | None = None
    systems: SharedSystems = field(default_factory=SharedSystems)

    @property
    def shape(self) -> tuple[int, int]:
        """The weight's shape ``(out, in)``."""
        return self.parts[0].change.shape

    def scaled(self) -> list[LowRank]:
        """``s_i ΔW_i`` of every part, float32."""
        return [LowRank(part.change.up.float(), part.change.down.float()).scaled(part.strength) for part in self.parts]

    def deltas(self) -> Iterator[Tensor]:
        """``s_i ΔW_i`` of every part as a matrix ``(out, in)``, float32."""
        return (change.delta() for change in self.scaled())

    def stacked(self) -> Stack:
        """``Σ s_i ΔW_i`` without cross terms, float32; every concept owns its columns."""
        return Stack(tuple(Run(part.concept, part.change, part.strength) for part in self.parts))


@dataclass(frozen=True)
class Algorithm(ABC):
    """A rule that merges changes; its dataclass fields are its options.

    A change ``Σ_i s_i up_i · down'_i`` whose ``down'_i`` are free of all strengths keeps the columns of every concept
    apart: they are owned, and a strength may be turned afterwards. Any other change is one run without an owner.

    Attributes:
        needs_inputs: True if the algorithm needs the Gram matrices of the layers' inputs.
    """

    needs_inputs: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse values of the wrong type or outside their range."""
        check_fields(self, "merging option")

    @property
    def needs_foreign(self) -> bool:
        """True if the algorithm also needs the Gram matrix of prompts without any concept."""
        return False

    @abstractmethod
    def merge(self, changes: WeightChanges) -> Stack:
        """Return the one change of a weight, float32; a pure function of the changes."""

    def to_json(self) -> dict[str, float | int]:
        """The options as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, Any]) -> "Algorithm":
        """Build the algorithm from plain values.

        Args:
            name: Its name in errors.
            options: Option to value; those that are missing take their defaults.

        Raises:
            ConfigurationError: For an unknown option (names the nearest) or a value that is not allowed.
        """
        check_field_names(options, cls, f"merging algorithm {name!r}")
        return cls(**options)
