"""Pictures of several concepts: their combinations, and the recognition of every concept in them."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from orthoplex.benchmark.measurement import References, gallery_of
from orthoplex.benchmark.sources import ConceptSource
from orthoplex.benchmark.summary import seed_table
from orthoplex.concepts import KINDS
from orthoplex.errors import ConfigurationError
from orthoplex.evaluation import Interval, crossed_interval, identity_threshold, image_alignment, scores
from orthoplex.options import FILLED, check_fields, limited, option

THINGS = tuple(name for name, kind in KINDS.items() if kind.is_thing)
"""Kinds that stand somewhere in a picture; scenes and styles are everywhere in it."""


@dataclass(frozen=True)
class GroupPictures:
    """A table `[[together]]` of an experiment: pictures of several concepts.

    Attributes:
        name: Name of the table.
        kinds: Kinds of the concepts in a picture: `{1}` in a prompt is a concept of the first kind, and so on.
        prompts: Prompts; each has `{1}`, `{2}`, … once.
        draws: The number of different combinations of concepts.
        seed: Seed of the draw.
        companions: How many concepts more are in the merge, drawn from all others.
    """

    name: str = field(metadata=limited(FILLED))
    kinds: tuple[str, ...]
    prompts: tuple[str, ...]
    draws: int = option(8, lowest=1, highest=1000)
    seed: int = option(0, lowest=0)
    companions: int = option(0, lowest=0)

    def __post_init__(self) -> None:
        """Refuse values of the wrong type or outside their range; lists become tuples."""
        check_fields(self, "together:")
        where = f"together {self.name!r}"
        if len(self.kinds) < 2:
            raise ConfigurationError(f"{where} has {len(self.kinds)} kinds; allowed: 2 or more")
        for kind in self.kinds:
            if kind not in KINDS:
                raise ConfigurationError(f"{where} has the kind {kind!r}; allowed: {', '.join(KINDS)}")
        if sum(kind in THINGS for kind in self.kinds) > 2:
            raise ConfigurationError(
                f"{where} has the kinds {', '.join(self.kinds)}; allowed: at most 2 of {', '.join(THINGS)}, because "
                "they are looked for in the left and the right of a picture"
            )
        for prompt in self.prompts or [""]:
            for place in range(1, len(self.kinds) + 1):
                if prompt.count(f"{{{place}}}") != 1:
                    raise ConfigurationError(
                        f"{where} has the prompt {prompt!r}; allowed: 1 or more prompts with "
                        f"{', '.join(f'{{{number}}}' for number in range(1, len(self.kinds) + 1))}, each once"
                    )

    @property
    def alone(self) -> bool:
        """True if a picture shows only one thing that stands in a place."""
        return sum(kind in THINGS for kind in self.kinds) == 1

    def fill(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the prompts with the concepts' names in their places."""
        filled = []
        for prompt in self.prompts:
            for place, name in enumerate(names, start=1):
                prompt = prompt.replace(f"{{{place}}}", name)
            filled.append(prompt)
        return tuple(filled)


@dataclass(frozen=True)
class Combination:
    """Concepts that are pictured together.

    Attributes:
        shown: Names of the concepts in the picture, in the order of the table's kinds.
        members: Names of all in the merge, sorted.
    """

    shown: tuple[str, ...]
    members: tuple[str, ...]


def combinations(table: GroupPictures, concepts: Sequence[ConceptSource]) -> tuple[Combination, ...]:
    """Draw combinations, no two alike, in which every concept comes about equally often.

    Args:
        table: How many, of which kinds.
        concepts: All concepts that may be drawn, as companions too.

    Raises:
        ConfigurationError: when there are fewer combinations, or fewer companions, than asked for.
    """
    pools = [[concept.name for concept in concepts if concept.kind == kind] for kind in table.kinds]
    possible = [row for row in itertools.product(*pools) if len(set(row)) == len(row)]
    if len(possible) < table.draws:
        raise ConfigurationError(
            f"together {table.name!r} has draws = {table.draws}; allowed: 1 to {len(possible)}, the combinations of "
            f"{', '.join(table.kinds)} that there are"
        )
    num_others = len(concepts) - len(table.kinds)
    if table.companions > num_others:
        raise ConfigurationError(
            f"together {table.name!r} has companions = {table.companions}; allowed: 0 to {num_others}, the others"
        )
    # of kinds, not of the table's name: tables that differ in their companions alone picture the same combinations
    rng = random.Random(f"{table.seed}/{'/'.join(table.kinds)}")
    rng.shuffle(possible)
    used: Counter[str] = Counter()
    drawn = []
    for _ in range(table.draws):
        shown = min(possible, key=lambda row: sorted((used[name] for name in row), reverse=True))
        possible.remove(shown)
        used.update(shown)
        others = [concept.name for concept in concepts if concept.name not in shown]
        drawn.append(Combination(shown, tuple(sorted((*shown, *rng.sample(others, table.companions))))))
    return tuple(drawn)


@dataclass(frozen=True)
class GroupMeasurement:
    """The numbers of one combination, variant and seed.

    Attributes:
        table: The table's name.
        variant: The variant's name.
        seed: The training seed.
        shown: The concepts in the picture.
        recognised: For each of them, the share of pictures in which it is recognised.
        alignment: For each of them, the mean pairwise cosine of whole pictures to its held-out pictures.
        all_recognised: Share of pictures in which every one is recognised, two things on a side each.
        alone: For each of them, the share in which it is recognised where it is the only concept in the base, class
            words in the others' places.
        base_alignment: `alignment` of the base's pictures, class words in the concepts' places.
        base_all_recognised: `all_recognised` of the base's pictures.
    """

    table: str
    variant: str
    seed: int
    shown: tuple[str, ...]
    recognised: tuple[float, ...]
    alignment: tuple[float, ...]
    all_recognised: float
    alone: tuple[float, ...]
    base_alignment: tuple[float, ...]
    base_all_recognised: float

    @property
    def expected(self) -> float:
        """The product of the shares alone.

        It is what all would reach if none disturbed another and each of two things stood on a side of its own: alone a
        thing may be recognised in either part, and figures in the middle keep all below the product.
        """
        return math.prod(self.alone)


@dataclass(frozen=True, eq=False)
class CombinationViews:
    """Features of one combination's pictures, all of the same prompts and noise.

    Attributes:
        together: With all concepts of the merge in the base.
        alone: For each shown concept, with it alone, class words in the others' places.
        base: With none, class words in all places.
    """

    together: Views
    alone: tuple[Views, ...]
    base: Views


@dataclass(frozen=True, eq=False)
class Views:
    """Features of pictures, `(3, n, d)`: whole, left part and right part (`orthoplex.evaluation.halves`)."""

    features: Tensor

    def of(self, kind: str, *, alone: bool) -> Tensor:
        """`(v, n, d)`: where a concept is looked for. Two things: in the halves; one: in all views; else: whole."""
        if kind not in THINGS:
            return self.features[:1]
        return self.features if alone else self.features[1:]


def measure_groups(
    table: GroupPictures,
    variant: str,
    seed: int,
    shown: Mapping[Combination, CombinationViews],
    impostors: Mapping[tuple[str, ...], Views],
    references: Mapping[str, References],
    words: Mapping[str, str],
    *,
    identity_cosine: float | None = None,
) -> list[GroupMeasurement]:
    """Measure the combinations of one table.

    A concept is recognised in a view of a picture when it is the nearest of its kind there (centroid of the training
    pictures) and nearer than a threshold. At most 5 % of the impostors pass it: the base's pictures of those prompts in
    which the concept's own class word stands in its place.

    Args:
        table: The table.
        variant: The variant's name.
        seed: The training seed.
        shown: Combination -> features of its pictures.
        impostors: Class words, one for each place -> features of other pictures by the base of the prompts with them.
        references: Concept -> features of its real pictures.
        words: Concept -> its class word.
        identity_cosine: A published threshold of these features, which then judges instead.
    """
    thresholds = {
        (place, name): _threshold(table, place, name, impostors, references, words)
        if identity_cosine is None
        else identity_cosine
        for place, name in {role for combination in shown for role in enumerate(combination.shown)}
    }

    def judge(views: Views, place: int, name: str) -> tuple[Tensor, Tensor]:
        seen = views.of(table.kinds[place], alone=table.alone)
        return _judged(seen, name, references, thresholds[place, name])

    rows = []
    for combination, pictures in shown.items():
        places = list(enumerate(combination.shown))
        judged, by_chance = ([judge(views, *place) for place in places] for views in (pictures.together, pictures.base))
        alone = [judge(views, *place)[0] for views, place in zip(pictures.alone, places, strict=True)]
        rows.append(
            GroupMeasurement(
                table=table.name,
                variant=variant,
                seed=seed,
                shown=combination.shown,
                recognised=tuple(float(passed.any(0).double().mean()) for passed, _ in judged),
                alignment=_alignments(pictures.together, combination.shown, references),
                all_recognised=float(_every(judged, table.kinds).double().mean()),
                alone=tuple(float(passed.any(0).double().mean()) for passed in alone),
                base_alignment=_alignments(pictures.base, combination.shown, references),
                base_all_recognised=float(_every(by_chance, table.kinds).double().mean()),
            )
        )
    return rows


def _threshold(
    table: GroupPictures,
    place: int,
    name: str,
    impostors: Mapping[tuple[str, ...], Views],
    references: Mapping[str, References],
    words: Mapping[str, str],
) -> float:
    """A concept's threshold in one of a prompt's places, on the base's pictures with its class word there."""
    others = [
        pictures.of(table.kinds[place], alone=table.alone)
        for class_words, pictures in impostors.items()
        if class_words[place] == words[name]
    ]
    own = _gallery_scores(torch.cat(others, dim=1), {name: references[name].training})[..., 0]
    return identity_threshold(own.amax(0))


def _alignments(views: Views, shown: Sequence[str], references: Mapping[str, References]) -> tuple[float, ...]:
    return tuple(image_alignment(views.features[0], references[name].held_out) for name in shown)


def _gallery_scores(views: Tensor, gallery: Mapping[str, Tensor]) -> Tensor:
    """`(v, n, g)`: how near every view is to each of g concepts."""
    return torch.stack([scores(view, gallery) for view in views])


def _judged(views: Tensor, name: str, references: Mapping[str, References], threshold: float) -> tuple[Tensor, Tensor]:
    """`(v, n)` bool, in which views the concept is recognised; and `(v, n)`, how near each of them is to it."""
    gallery = gallery_of(name, references)
    near, own = _gallery_scores(views, gallery), list(gallery).index(name)
    nearness = near[..., own]
    return (near.argmax(2) == own) & (nearness > threshold), nearness


def _every(judged: Sequence[tuple[Tensor, Tensor]], kinds: Sequence[str]) -> Tensor:
    """`(n,)` bool: whether every concept is recognised, two things each in the part that it is nearer to.

    The parts overlap in the middle of the picture: one figure that stands there and blends both is not nearer to one of
    them on the left and to the other on the right, but by chance.

    Args:
        judged: For each concept in which views it is recognised, and how near they are to it, `(v, n)` each.
        kinds: Their kinds.
    """
    things = [pair for pair, kind in zip(judged, kinds, strict=True) if kind in THINGS]
    others = [passed.any(0) for (passed, _), kind in zip(judged, kinds, strict=True) if kind not in THINGS]
    if len(things) == 2:
        (first, _), (second, _) = things
        leans = [nearness[0] - nearness[1] for _, nearness in things]  # above 0: more like it on the left
        as_named = first[0] & second[1] & (leans[0] > 0) & (leans[1] < 0)
        exchanged = first[1] & second[0] & (leans[0] < 0) & (leans[1] > 0)
        others.append(as_named | exchanged)
    else:
        others += [passed.any(0) for passed, _ in things]
    return torch.stack(others).all(0)


@dataclass(frozen=True)
class GroupSummary:
    """One table and variant over all combinations and seeds, with 95 % bootstrap intervals.

    Attributes:
        table: The table's name.
        variant: The variant's name.
        recognised: For each kind of the table, the share of pictures in which its concept is recognised.
        alignment: For each kind, the alignment of whole pictures.
        base_alignment: For each kind, that of the base's pictures.
        all_recognised: Share of pictures in which every concept is.
        alone: For each kind, the share in which its concept is recognised alone.
        of_expected: `all_recognised` as a share of `GroupMeasurement.expected`, of the same combinations; None where
            nothing is expected.
        base_all_recognised: The same as `all_recognised`, of the base's pictures.
    """

    table: str
    variant: str
    recognised: tuple[Interval, ...]
    alignment: tuple[Interval, ...]
    base_alignment: tuple[Interval, ...]
    all_recognised: Interval
    alone: tuple[Interval, ...]
    of_expected: Interval | None
    base_all_recognised: Interval


def summarise_groups(rows: Sequence[GroupMeasurement], kinds: Sequence[str]) -> GroupSummary:
    """Summarise the measurements of one table and variant: every combination once for every seed.

    Args:
        rows: The measurements.
        kinds: The kinds of the table's concepts, in order; combinations share concepts, and intervals are over these.

    Raises:
        ConfigurationError: when rows are missing or belong to more than one table or variant.
    """
    owners = sorted({(row.table, row.variant) for row in rows})
    if len(owners) != 1:
        raise ConfigurationError(f"a summary of {len(owners)} tables and variants {owners} was asked for; allowed: 1")

    owners_of_rows = sorted({row.shown for row in rows})

    def values_of(value: Callable[[GroupMeasurement], float]) -> Tensor:
        return seed_table([(row.shown, row.seed, value(row)) for row in rows], "combinations")

    def interval(value: Callable[[GroupMeasurement], float]) -> Interval:
        return crossed_interval(values_of(value), owners_of_rows, kinds)

    def intervals(values: Callable[[GroupMeasurement], tuple[float, ...]]) -> tuple[Interval, ...]:
        return tuple(interval(lambda row, place=place: values(row)[place]) for place in range(len(rows[0].shown)))

    every, expected = values_of(lambda row: row.all_recognised), values_of(lambda row: row.expected)
    return GroupSummary(
        table=owners[0][0],
        variant=owners[0][1],
        recognised=intervals(lambda row: row.recognised),
        alignment=intervals(lambda row: row.alignment),
        base_alignment=intervals(lambda row: row.base_alignment),
        all_recognised=interval(lambda row: row.all_recognised),
        alone=intervals(lambda row: row.alone),
        of_expected=crossed_interval(every, owners_of_rows, kinds, per=expected) if expected.sum() > 0 else None,
        base_all_recognised=interval(lambda row: row.base_all_recognised),
    )
