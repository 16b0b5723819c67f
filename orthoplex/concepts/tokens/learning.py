"""The base class of learning tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from orthoplex.concepts.tokens.token import Token


@dataclass(frozen=True, eq=False)
class TokenGround:
    """The part of a base that learning tokens need: its cross-attention layers.

    Attributes:
        key_widths: Layer to the number of numbers of its key, and of its value as many, in the order of their use.
        units: Measures, for each layer, the typical size of its keys and of its values for the concept's class word,
            per typical size of an embedding.
    """

    key_widths: Mapping[str, int]
    units: Callable[[], Mapping[str, tuple[float, float]]]


class TokenLearning(ABC):
    """Learning of a concept's k tokens: the numbers that an optimizer moves, and the tokens made from them."""

    def __init__(self, start: Mapping[str, Tensor], ground: TokenGround) -> None:
        """Begin with nothing learned.

        Args:
            start: Text encoder to the tokens' embeddings before training, ``(k, dim)``.
            ground: What the tokens learn on.
        """
        self.start = start
        self.ground = ground

    @abstractmethod
    def initial(self) -> Tensor:
        """Return the numbers that learn, untrained: ``(k, …)``, one row a token."""

    @abstractmethod
    def tokens(self, rows: Tensor) -> Sequence[Token]:
        """Return the tokens that numbers make; gradients flow into the numbers.

        Args:
            rows: As ``initial`` begins them.
        """

    def _split(self, rows: Tensor) -> dict[str, Tensor]:
        """Text encoder to its part of rows ``(…, Σ dim)``."""
        widths = [vectors.shape[-1] for vectors in self.start.values()]
        return dict(zip(self.start, rows.split(widths, dim=-1), strict=True))
