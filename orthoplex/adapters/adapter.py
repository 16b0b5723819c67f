"""The base class of adapters, trainable low-rank changes of one weight, and their configuration."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from orthoplex.adapters.low_rank import LowRank
from orthoplex.errors import ConfigurationError
from orthoplex.options import Basis, check_fields, option
from orthoplex.subspaces import proportional_rank, seeded, slot_from_id

Blocks = Literal["rows", "columns"]


@dataclass(frozen=True)
class AdapterConfig:
    """The configuration of a concept's adapters; one serves all layers of the concept.

    Args:
        method: a name in ``METHODS``.
        rank: directions per layer, or ``"proportional"``: ``max(1, ⌊in_features / slots⌋)``; ``dual`` may have 0, which
            leaves its dual directions alone, and ``full`` has none.
        alpha: the change is multiplied by ``alpha / rank``; None means a factor of 1; ``full`` ignores it.
        basis: where the frozen directions of ``orthogonal`` and ``dual`` come from; other methods ignore it.
            ``"identical"`` and ``"half"`` are for comparisons: concepts share directions on purpose.
        blocks: which factor of ``blockwise`` lives on a block: ``"rows"`` (of up) or ``"columns"`` (of down).
        slot: the slot of bases ``"slot"`` and ``"half"``, or the block of ``blockwise``; None means that it is
            derived from the concept's id.
        slots: the number of concepts that a layer should hold; sets the proportional rank, the number of
            blocks and the range of derived slots.
        down_scale: the length of every frozen direction (the paper's code uses 0.5).
        duals: how many directions of the concept's tokens ``dual`` has; other methods ignore it.

    Raises:
        ConfigurationError: when a value is outside its range.
    """

    method: str = "orthogonal"
    rank: int | Literal["proportional"] = "proportional"  # each method has its own lowest rank
    alpha: float | None = option(None, above=0)
    basis: Basis = "slot"
    blocks: Blocks = "rows"
    slot: int | None = option(None, lowest=0)
    slots: int = option(16, lowest=1)
    down_scale: float = option(0.5, above=0)
    duals: int = option(1, lowest=1)

    def __post_init__(self) -> None:
        """Refuse values of the wrong type or outside their range."""
        check_fields(self)

    def rank_of(self, in_features: int) -> int:
        """Return the rank r at a layer with ``in_features`` inputs."""
        return proportional_rank(in_features, self.slots) if self.rank == "proportional" else self.rank

    @property
    def has_slots(self) -> bool:
        """True if the basis gives every slot directions of its own: all of its rows, or half of them."""
        return self.basis in ("slot", "half")

    def slot_of(self, concept_id: str) -> int:
        """Return the configured slot, or the slot derived from the concept's id.

        ``Adapter.owns_slot`` decides if the concept owns it.
        """
        return slot_from_id(concept_id, self.slots) if self.slot is None else self.slot


@dataclass(frozen=True)
class Site:
    """The weight that an adapter changes, and the concept it belongs to.

    Args:
        layer: the layer's full name, component first; errors name it.
        out_features: rows of the weight.
        in_features: columns of the weight.
        concept_id: the concept's id; it decides random directions and derived slots.
        seed: the training seed; with the layer's name and the id it decides every random starting value.
    """

    layer: str
    out_features: int
    in_features: int
    concept_id: str
    seed: int

    def generator(self) -> torch.Generator:
        """Return a generator seeded by SHA-256 of (seed, layer, concept_id): construction order does not matter.

        Concepts of one seed start with different directions. Equal starting directions would collide more in a sum
        than independent directions do.
        """
        return seeded(self.seed, self.layer, self.concept_id)


class Adapter(nn.Module, ABC):
    """A change ``ΔW = (alpha / rank) · up · down`` of one weight; ``up`` starts at zero, so the first change is zero.

    Attributes:
        up: ``(out, r)`` parameter.
        down: ``(r, in)``, a parameter or a frozen buffer.
        scaling: ``alpha / rank``; 1 after ``load_factors``.
        rank: the rank r.
        lowest_rank: the lowest rank that a configuration may ask for.
        reads_tokens: True if training sets directions of the concept's own tokens (``set_token_directions``).
        has_frozen_directions: True if ``down`` is frozen; ``set_directions`` may replace it while ``up`` learns.
        learning_rate: the default learning rate of its weights.
    """

    up: nn.Parameter
    down: Tensor
    lowest_rank: ClassVar[int] = 1
    reads_tokens: ClassVar[bool] = False
    has_frozen_directions: ClassVar[bool] = False
    learning_rate: ClassVar[float] = 2e-3

    @classmethod
    def check_rank(cls, config: AdapterConfig) -> None:
        """Refuse a rank that the method does not allow.

        Raises:
            ConfigurationError: when the rank is below ``lowest_rank``.
        """
        if config.rank != "proportional" and config.rank < cls.lowest_rank:
            raise ConfigurationError(
                f"rank is {config.rank!r}; allowed are whole numbers from {cls.lowest_rank} and 'proportional'"
            )

    @classmethod
    def owns_slot(cls, config: AdapterConfig) -> bool:
        """Return True if a concept of this method owns a slot."""
        return config.has_slots

    @classmethod
    def uses_basis(cls, config: AdapterConfig) -> bool:
        """Return True if directions are rows of the shared basis."""
        return False

    @classmethod
    def partition(cls, config: AdapterConfig) -> str:
        """Return which directions slots divide, in words; slots of different partitions may meet."""
        size = f"slots={config.slots}" if config.rank == "proportional" else f"rank={config.rank}"
        return f"basis={config.basis}, {size}"

    @classmethod
    def slot_limit(cls, config: AdapterConfig) -> int | None:
        """Return how many slots a configuration has, whatever the layer; None if the layers' widths decide."""
        return None

    def __init__(self, config: AdapterConfig, site: Site) -> None:
        """Build the change of the weight at ``site``; subclasses decide about ``down``."""
        super().__init__()
        self.site = site
        self.rank = self._rank(config, site)
        self.scaling = 1.0 if config.alpha is None else config.alpha / self.rank
        self.up = nn.Parameter(torch.zeros(site.out_features, self.rank))
        self._rounded = RoundedDirections()
        self._set_down(self._initial_down(config, site))

    def _rank(self, config: AdapterConfig, site: Site) -> int:
        """Return how many directions there are in all."""
        return config.rank_of(site.in_features)

    @abstractmethod
    def _initial_down(self, config: AdapterConfig, site: Site) -> Tensor:
        """Return the starting ``down``, ``(r, in)`` float32."""

    @abstractmethod
    def _set_down(self, down: Tensor) -> None:
        """Make ``down`` a parameter or a buffer."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``ΔW x`` at strength 1, without the base's own output.

        Args:
            x: ``(..., in)``; the product is made in its dtype (or autocast's).

        Returns:
            ``(..., out)``.
        """
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        down = self._rounded.of(self.down, dtype) if self.has_frozen_directions else self.down.to(x.dtype)
        directions = functional.linear(x, down)
        up = self.up if self.scaling == 1 else self.up * self.scaling  # a product by 1 takes time forward and backward
        return functional.linear(directions, up.to(directions.dtype))

    @torch.no_grad()
    def set_directions(self, rows: Tensor) -> None:
        """Replace the frozen directions, ``(r, in)``.

        Raises:
            ConfigurationError: when the method's directions are not frozen, or the shape differs.
        """
        if not self.has_frozen_directions or rows.shape != self.down.shape:
            allowed = tuple(self.down.shape) if self.has_frozen_directions else "methods with frozen directions"
            raise ConfigurationError(
                f"layer {self.site.layer}: {type(self).__name__} is given directions {tuple(rows.shape)}; allowed are "
                f"{allowed}"
            )
        self._replace_directions(rows)

    def _replace_directions(self, rows: Tensor) -> None:
        self.down, self._rounded = rows.to(self.down).clone(), RoundedDirections()  # others may share both

    def delta(self, strength: float = 1.0) -> Tensor:
        """Return ``strength · ΔW``, ``(out, in)``, differentiable; strength 0 is the base, 1 the concept."""
        return (self.up * self.scaling * strength) @ self.down

    @torch.no_grad()
    def factors(self) -> LowRank:
        """Return a copy of the factors, apart from the graph, ``alpha / rank`` already in ``up``."""
        return LowRank((self.up * self.scaling).detach().clone(), self.down.detach().clone())

    @torch.no_grad()
    def load_factors(self, factors: LowRank) -> None:
        """Copy factors in; ``factors()`` then returns them bit for bit, and ``scaling`` is 1.

        Raises:
            ConfigurationError: when the shapes or the rank are not this adapter's.
        """
        if factors.up.shape != self.up.shape or factors.down.shape != self.down.shape:
            raise ConfigurationError(
                f"layer {self.site.layer}: factors have shapes up {tuple(factors.up.shape)} and "
                f"down {tuple(factors.down.shape)}; allowed are {tuple(self.up.shape)} and {tuple(self.down.shape)}"
            )
        self.scaling = 1.0
        self.up.copy_(factors.up)
        if self.has_frozen_directions:
            self._replace_directions(factors.down)
        else:
            self.down.copy_(factors.down)


@final
class RoundedDirections:
    """Frozen directions in the type that products are made in, rounded once for all steps."""

    def __init__(self) -> None:
        self._source: tuple[Tensor, int] | None = None
        self._rounded: dict[torch.dtype, Tensor] = {}

    def of(self, directions: Tensor, dtype: torch.dtype) -> Tensor:
        """Return directions as ``dtype``; they are rounded anew when they are another tensor, or have been changed."""
        if directions.dtype == dtype:
            return directions
        if self._source is None or self._source[0] is not directions or self._source[1] != directions._version:
            self._source, self._rounded = (directions, directions._version), {}
        if dtype not in self._rounded:
            self._rounded[dtype] = directions.to(dtype)
        return self._rounded[dtype]


def share_directions(adapters: Iterable[Adapter]) -> None:
    """Let adapters whose frozen directions are equal hold one tensor: those of one slot are, at layers of one width.

    Args:
        adapters: All of them where they shall stay: moving an adapter to another device gives it a tensor of its own.
    """
    held: dict[tuple[torch.Size, torch.device, torch.dtype], list[Adapter]] = {}
    for adapter in adapters:
        if not adapter.has_frozen_directions:
            continue
        down = adapter.down
        candidates = held.setdefault((down.shape, down.device, down.dtype), [])
        equal = next((other for other in candidates if torch.equal(other.down, down)), None)
        if equal is None:
            candidates.append(adapter)
        else:
            adapter.down, adapter._rounded = equal.down, equal._rounded
