"""Summaries of measurements over concepts and seeds: means, retentions, and differences of variants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import torch
from torch import Tensor

from orthoplex.benchmark.measurement import Measurement
from orthoplex.errors import ConfigurationError
from orthoplex.evaluation import Interval, mean_interval, retention_interval

_Owner = TypeVar("_Owner", str, tuple[str, ...])


@dataclass(frozen=True)
class Summary:
    """One variant and size of merges over all concepts and seeds; every number with its 95 % bootstrap interval.

    A retention is `mean(merged)/mean(single)`, None if the interval of the single value reaches 0: a share of nothing
    is undefined. `gain_retention` is the stricter `(merged - base)/(single - base)` of alignment, the retention of the
    concept's addition to the base. `base_recognised` is the rate of the base's class-word pictures, which is chance: a
    third with three concepts of a kind. Rates of recognition are over the concepts that have others of their kind,
    None if there are no such concepts. `seed_deviation` is the standard deviation over seeds of the
    retention of alignment, None for one seed. Numbers of text are over the concepts whose prompts ask for something
    that can be read, None where there is none; `text` is without styles, which hide scenes: there it would be the
    better the more of the style is lost.
    """

    variant: str
    size: int
    base_alignment: Interval
    single_alignment: Interval
    merged_alignment: Interval
    alignment_retention: Interval | None
    gain_retention: Interval | None
    single_identity: Interval
    merged_identity: Interval
    identity_retention: Interval | None
    seed_deviation: float | None
    base_identity: Interval | None = None
    base_recognised: Interval | None = None
    single_recognised: Interval | None = None
    merged_recognised: Interval | None = None
    bleed: Interval | None = None
    recognised_retention: Interval | None = None
    base_text: Interval | None = None
    single_text: Interval | None = None
    merged_text: Interval | None = None
    text_retention: Interval | None = None
    base_choice: Interval | None = None
    single_choice: Interval | None = None
    merged_choice: Interval | None = None
    choice_retention: Interval | None = None


def seed_table(values: Sequence[tuple[_Owner, int, float]], owner_noun: str) -> Tensor:
    """Lay out one number of every owner and seed.

    Args:
        values: Owner, seed and number; every owner once for every seed.
        owner_noun: Plural noun for the owners, as used in the error message.

    Returns:
        `(owners, seeds)` float64, both sorted.

    Raises:
        ConfigurationError: when an owner lacks a seed or has it twice.
    """
    cells = {(owner, seed): value for owner, seed, value in values}
    owners, seeds = sorted({owner for owner, _ in cells}), sorted({seed for _, seed in cells})
    if len(cells) != len(values) or len(values) != len(owners) * len(seeds):
        raise ConfigurationError(
            f"{len(values)} measurements of {len(owners)} {owner_noun} and {len(seeds)} seeds; "
            "allowed: one for each pair"
        )
    return torch.tensor([[cells[owner, seed] for seed in seeds] for owner in owners], dtype=torch.float64)


_LABELS = ("variant", "size", "seed", "concept", "kind", "single_as", "merged_as")
_TEXTS = tuple(f"{state}_text" for state in ("base", "single", "merged"))


def summarise(rows: Sequence[Measurement]) -> Summary:
    """Summarise the measurements of one variant and size of merges: every concept once for every seed.

    Raises:
        ConfigurationError: when rows are missing or belong to more than one variant or size.
    """
    variants = sorted({(row.variant, row.size) for row in rows})
    if len(variants) != 1:
        raise ConfigurationError(f"a summary of {len(variants)} variants {variants} was asked for; allowed: 1")
    values: dict[str, Tensor] = {}
    for name in (item.name for item in fields(Measurement) if item.name not in _LABELS):
        plain = [row for row in rows if row.kind != "style"] if name in _TEXTS else rows
        if measured := [row for row in plain if getattr(row, name) is not None]:
            values[name] = _table(measured, name)
    base, single, merged = (values[f"{state}_alignment"] for state in ("base", "single", "merged"))
    by_seed = merged.mean(dim=0) / single.mean(dim=0)
    return Summary(
        variant=variants[0][0],
        size=variants[0][1],
        **{name: mean_interval(table) for name, table in values.items()},
        alignment_retention=_retention(single, merged),
        gain_retention=_retention(single - base, merged - base),
        recognised_retention=_retention_of(values, "recognised"),
        identity_retention=_retention_of(values, "identity"),
        seed_deviation=float(by_seed.std()) if len(by_seed) > 1 else None,
        text_retention=_retention_of(values, "text"),
        choice_retention=_retention_of(values, "choice"),
    )


@dataclass(frozen=True)
class Difference:
    """The difference of two variants on the same concepts, prompts and noise.

    Attributes:
        variant: Name of the variant.
        other: Name of the variant it is compared with.
        size: Concepts in a merge.
        single_alignment: Difference of the alignments alone, with its 95 % bootstrap interval.
        merged_alignment: The same in the merge, and so on.
        merged_recognised: See there; None where no concept has others of its kind.
        merged_identity: See there.
    """

    variant: str
    other: str
    size: int
    single_alignment: Interval
    merged_alignment: Interval
    merged_recognised: Interval | None
    merged_identity: Interval


def compare(rows: Sequence[Measurement], others: Sequence[Measurement]) -> Difference:
    """Compare two variants' measurements of the same concepts, seeds and size, pair by pair."""

    def difference(name: str) -> Interval | None:
        ours, theirs = ([row for row in side if getattr(row, name) is not None] for side in (rows, others))
        return mean_interval(_table(ours, name) - _table(theirs, name)) if ours else None

    names = [item.name for item in fields(Difference) if item.name not in ("variant", "other", "size")]
    differences: dict[str, Any] = {name: difference(name) for name in names}
    return Difference(rows[0].variant, others[0].variant, rows[0].size, **differences)


def _table(rows: Sequence[Measurement], name: str) -> Tensor:
    """`(concepts, seeds)` of one number."""
    return seed_table([(row.concept, row.seed, float(getattr(row, name))) for row in rows], "concepts")


def _retention(single: Tensor, merged: Tensor) -> Interval | None:
    return retention_interval(single, merged) if mean_interval(single).low > 0.0 else None


def _retention_of(tables: Mapping[str, Tensor], measure: str) -> Interval | None:
    return (
        _retention(tables[f"single_{measure}"], tables[f"merged_{measure}"]) if f"single_{measure}" in tables else None
    )
