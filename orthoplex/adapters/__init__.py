"""Adapters: trainable changes of one weight. A new method is one file here and one line in ``METHODS``."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from orthoplex.adapters.adapter import Adapter, AdapterConfig, Basis, Blocks, Site, share_directions
from orthoplex.adapters.blockwise import Blockwise
from orthoplex.adapters.dual import Dual
from orthoplex.adapters.full import Full
from orthoplex.adapters.lora import Lora
from orthoplex.adapters.low_rank import LowRank
from orthoplex.adapters.orthogonal import Orthogonal
from orthoplex.errors import ConfigurationError
from orthoplex.subspaces import capacity

METHODS: dict[str, type[Adapter]] = {
    "lora": Lora,
    "orthogonal": Orthogonal,
    "blockwise": Blockwise,
    "dual": Dual,
    "full": Full,
}


def check_config(config: AdapterConfig) -> type[Adapter]:
    """Return the class of a configuration's method.

    Raises:
        ConfigurationError: when the method is unknown, or it cannot have the rank.
    """
    if config.method not in METHODS:
        raise ConfigurationError(f"method is {config.method!r}; allowed are {', '.join(METHODS)}")
    method = METHODS[config.method]
    method.check_rank(config)
    return method


def owned_slot(config: AdapterConfig, concept_id: str) -> int | None:
    """Return the slot that a concept owns, or None where the method and its options use no slots."""
    return config.slot_of(concept_id) if check_config(config).owns_slot(config) else None


def slot_partition(recorded: Mapping[str, Any]) -> str:
    """Return which directions a concept's slots divide, in words; slots of one partition are apart, unless by design.

    Args:
        recorded: the adapter configuration as a manifest has it; options that this version does not know are left out,
            and a method that it does not know counts as one that divides directions by its basis. Values that it does
            not allow make a partition of their own.
    """
    options = {item.name for item in fields(AdapterConfig)}
    try:
        config = AdapterConfig(**{name: value for name, value in recorded.items() if name in options})
    except ConfigurationError:
        return ", ".join(f"{name}={value}" for name, value in sorted(recorded.items()))
    return METHODS.get(config.method, Adapter).partition(config)


def slot_capacity(recorded: Mapping[str, Any], widths: Sequence[int]) -> int | None:
    """Return how many concepts may own slots in all layers of some widths; None where nothing says so.

    Args:
        recorded: see ``slot_partition``.
        widths: the inputs of the layers.
    """
    options = {item.name for item in fields(AdapterConfig)}
    try:
        config = AdapterConfig(**{name: value for name, value in recorded.items() if name in options})
    except ConfigurationError:
        return None
    limit = METHODS[config.method].slot_limit(config) if config.method in METHODS else None
    if limit is not None or not config.has_slots:
        return limit
    ranks = [(width, config.rank_of(width)) for width in widths]
    common = [rank // 2 if config.basis == "half" else 0 for _, rank in ranks]
    counts = (
        capacity(width - shared, rank - shared)
        for (width, rank), shared in zip(ranks, common, strict=True)
        if rank > shared
    )
    return min(counts, default=None)


def create_adapter(
    config: AdapterConfig, *, layer: str, out_features: int, in_features: int, concept_id: str, seed: int
) -> Adapter:
    """Build the adapter of one layer; before training its change is zero.

    Args:
        config: the method and its options.
        layer: the layer's full name, component first.
        out_features: rows of the layer's weight.
        in_features: columns of the layer's weight.
        concept_id: the concept's id.
        seed: the training seed.

    Raises:
        ConfigurationError: when the method is unknown, or the rank exceeds the layer's width.
        CapacityError: when the slot lies beyond the layer's capacity.
    """
    check_config(config)
    rank = config.rank_of(in_features)
    if rank > in_features:
        raise ConfigurationError(f"layer {layer}: rank is {rank}; allowed are 1 to {in_features}, the layer's width")
    return METHODS[config.method](config, Site(layer, out_features, in_features, concept_id, seed))


__all__ = [
    "METHODS",
    "Adapter",
    "AdapterConfig",
    "Basis",
    "Blocks",
    "Blockwise",
    "Dual",
    "Full",
    "Lora",
    "LowRank",
    "Orthogonal",
    "Site",
    "check_config",
    "create_adapter",
    "owned_slot",
    "share_directions",
    "slot_capacity",
    "slot_partition",
]
