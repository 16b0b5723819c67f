"""The merges of an experiment: their members, and the concepts that are measured in each."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from orthoplex.errors import ConfigurationError
from orthoplex.options import check_fields, option


@dataclass(frozen=True)
class MergeSettings:
    """Options of the merges of an experiment.

    Attributes:
        sizes: Concepts in a merge; empty for one merge of all.
        draws: In how many merges of every size each measured concept is seen, each time with other companions.
        seed: Decides the groups.
        companions: Who fills a group: others drawn at `"random"`, or the `"first"` ones in the experiment's order, so
            that a larger merge holds what a smaller one does.
        measured: Names of the concepts that are pictured and measured; empty for all. The others are companions.
    """

    sizes: tuple[int, ...] = option((), lowest=1)
    draws: int = option(1, lowest=1, highest=1000)
    seed: int = option(0, lowest=0)
    companions: Literal["random", "first"] = "random"
    measured: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse values of the wrong type or outside their range; lists become tuples."""
        check_fields(self, "merges")

    def check(self, names: Sequence[str]) -> None:
        """Refuse merges that these concepts cannot form.

        Raises:
            ConfigurationError: For a size above the number of concepts, a size that is there twice, or an unknown name.
        """
        for size in self.sizes:
            if size > len(names):
                raise ConfigurationError(f"merges have the size {size}; allowed: 1 to {len(names)}, the concepts")
            if self.sizes.count(size) > 1:
                raise ConfigurationError(f"merges have the size {size} {self.sizes.count(size)} times; allowed: once")
        for name in self.measured:
            if name not in names:
                raise ConfigurationError(f"merges measure {name!r}; allowed: {', '.join(names)}")
            if self.measured.count(name) > 1:
                raise ConfigurationError(f"merges measure {name!r} {self.measured.count(name)} times; allowed: once")


@dataclass(frozen=True)
class MergeGroup:
    """The members of one merge.

    Attributes:
        members: Names of the concepts in it, sorted.
        measured: Those that are pictured and measured in it, in the experiment's order.
    """

    members: tuple[str, ...]
    measured: tuple[str, ...]


def merge_groups(settings: MergeSettings, names: Sequence[str]) -> dict[int, tuple[MergeGroup, ...]]:
    """Return the groups of an experiment: size of a merge -> its groups.

    In every draw the measured concepts are shuffled and cut into groups of the size asked for; where a group is short
    it is filled with others, who are companions there only. So a concept is measured once in every draw.

    Args:
        settings: Sizes, draws and companions.
        names: All concepts of the experiment.
    """
    measured = list(settings.measured or names)
    groups_of_size: dict[int, tuple[MergeGroup, ...]] = {}
    for size in settings.sizes or (len(names),):
        draws = 1 if size == len(names) else settings.draws
        groups: list[MergeGroup] = []
        for draw in range(draws):
            rng = random.Random(f"{settings.seed}/{size}/{draw}")
            shuffled = rng.sample(measured, len(measured))
            for start in range(0, len(shuffled), size):
                own = shuffled[start : start + size]
                others = [name for name in names if name not in own]
                lacking = size - len(own)
                members = own + (rng.sample(others, lacking) if settings.companions == "random" else others[:lacking])
                groups.append(MergeGroup(tuple(sorted(members)), tuple(name for name in names if name in own)))
        groups_of_size[size] = tuple(groups)
    return groups_of_size
