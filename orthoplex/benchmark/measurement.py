"""From features to the numbers of one concept: alone, in the merge, and the base without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import torch
from torch import Tensor

from orthoplex.benchmark.sources import ConceptSource, open_pictures
from orthoplex.errors import ConfigurationError
from orthoplex.evaluation import (
    Encoder,
    Interval,
    found_references,
    identity_rate,
    identity_threshold,
    image_alignment,
    mean_interval,
    recognised,
    recognised_rate,
    retention_interval,
    scores,
    shares,
)

_Owner = TypeVar("_Owner", str, tuple[str, ...])


@dataclass(frozen=True, eq=False)
class References:
    """Features of a concept's real pictures.

    Attributes:
        kind: The concept's kind; it is told apart from concepts of the same kind only.
        training: `(n, d)` of the pictures it was trained on: what recognising compares with.
        held_out: `(m, d)` of pictures it never saw: what alignment compares with.
    """

    kind: str
    training: Tensor
    held_out: Tensor


@dataclass(frozen=True)
class TextValue:
    """Text alignment of pictures: what they show of that which their prompts ask for besides the concept.

    Attributes:
        text: The mean over pictures.
        choice: The same among the names that the experiment's prompts ask for, chance taken off; None without choice.
    """

    text: float
    choice: float | None = None


@dataclass(frozen=True)
class TextShown:
    """Text alignment of a concept's generated pictures.

    Attributes:
        base: Of the base alone.
        single: Of the concept alone.
        merged: Concepts in a merge -> of merges of that size.
    """

    base: TextValue
    single: TextValue
    merged: Mapping[int, TextValue]

    def numbers(self, size: int) -> dict[str, float | None]:
        """The fields of a `Measurement` of merges of a size."""
        states = {"base": self.base, "single": self.single, "merged": self.merged[size]}
        texts: dict[str, float | None] = {f"{state}_text": value.text for state, value in states.items()}
        return texts | {f"{state}_choice": value.choice for state, value in states.items()}


@dataclass(frozen=True, eq=False)
class Shown:
    """Features of a concept's generated pictures, all from the same prompts and noise.

    Attributes:
        base: `(n, d)` of the base alone, the class word in the concept's place.
        single: `(n, d)` of the concept alone.
        merged: Concepts in a merge -> `(n, d)` of merges of that size that the concept is in.
        text: Their text alignment; None where no prompt asks for anything that can be read.
    """

    base: Tensor
    single: Tensor
    merged: Mapping[int, Tensor]
    text: TextShown | None = None


@dataclass(frozen=True)
class Measurement:
    """The numbers of one concept, variant, seed and size of merges; `base`, `single` and `merged` as in `Shown`.

    Attributes:
        variant: The variant's name.
        size: Concepts in a merge.
        seed: The training seed.
        concept: The concept's name.
        kind: The concept's kind.
        base_alignment: Mean pairwise cosine to the held-out pictures.
        single_alignment: The same, concept alone.
        merged_alignment: The same, in the merge.
        base_recognised: Share recognised as the concept among the concepts of its kind.
        single_recognised: The same, concept alone.
        merged_recognised: The same, in the merge.
        single_identity: Share above the identity threshold, which at most 5 % of impostors pass, or a published one.
        merged_identity: The same, in the merge.
        single_as: What the pictures of the concept alone are recognised as: concept of the kind -> share.
        merged_as: The same, in the merge. What this has more of another concept in the merge than `single_as` is bleed.
        base_text: Text alignment of the base's pictures; None where no prompt asks for anything that can be read.
        single_text: The same, concept alone.
        merged_text: The same, in the merge.
        base_choice: See `TextValue.choice`; of the base's pictures.
        single_choice: The same, concept alone.
        merged_choice: The same, in the merge.
    """

    variant: str
    size: int
    seed: int
    concept: str
    kind: str
    base_alignment: float
    single_alignment: float
    merged_alignment: float
    base_recognised: float
    single_recognised: float
    merged_recognised: float
    single_identity: float
    merged_identity: float
    single_as: Mapping[str, float]
    merged_as: Mapping[str, float]
    base_text: float | None = None
    single_text: float | None = None
    merged_text: float | None = None
    base_choice: float | None = None
    single_choice: float | None = None
    merged_choice: float | None = None


def read_references(concepts: Sequence[ConceptSource], encoder: Encoder) -> dict[str, References]:
    """Encode the real pictures of concepts, split as everywhere (`ConceptSource.split`).

    Pictures in which the encoder finds nothing to compare are left out.

    Raises:
        DatasetError: when a concept would be left without pictures.
    """
    references = {}
    for concept in concepts:
        split = concept.split()
        training, held_out = (
            found_references(encoder.encode(open_pictures(files)), f"concept {concept.name!r}")
            for files in (split.training, split.held_out)
        )
        references[concept.name] = References(concept.kind, training, held_out)
    return references


def gallery_of(concept: str, references: Mapping[str, References]) -> dict[str, Tensor]:
    """The training pictures of all concepts of the concept's kind, by name."""
    kind = references[concept].kind
    return {name: entry.training for name, entry in references.items() if entry.kind == kind}


def ceilings(references: Mapping[str, References]) -> dict[str, dict[str, float]]:
    """What real held-out pictures reach: alignment to the training pictures, and how often they are recognised."""
    return {
        name: {
            "alignment": image_alignment(entry.held_out, entry.training),
            "recognised": recognised_rate(entry.held_out, gallery_of(name, references), name),
        }
        for name, entry in references.items()
    }


def measure(
    variant: str,
    seed: int,
    shown: Mapping[str, Shown],
    references: Mapping[str, References],
    *,
    identity_cosine: float | None = None,
) -> list[Measurement]:
    """Measure every concept of one variant and seed.

    The identity threshold of a concept is set on impostors: the base's class-word pictures and the other concepts of
    its kind, each alone, all from the same prompts; the same threshold judges the concept alone and in the merge.

    Args:
        variant: The variant's name.
        seed: The training seed.
        shown: Concept -> features of its generated pictures.
        references: Concept -> features of its real pictures.
        identity_cosine: A published threshold of these features, which then judges instead of one set on impostors.
    """
    rows = []
    for name, pictures in shown.items():
        own, gallery, text = references[name], gallery_of(name, references), pictures.text
        threshold = identity_cosine
        if threshold is None:
            others = [shown[other].single for other in gallery if other != name and other in shown]
            impostors = torch.cat([pictures.base, *others])
            threshold = identity_threshold(scores(impostors, {name: own.training})[:, 0])
        single_as = shares(sorted(recognised(pictures.single, gallery)))
        for size, merged in pictures.merged.items():
            merged_as = shares(sorted(recognised(merged, gallery)))
            rows.append(
                Measurement(
                    variant=variant,
                    size=size,
                    seed=seed,
                    concept=name,
                    kind=own.kind,
                    base_alignment=image_alignment(pictures.base, own.held_out),
                    single_alignment=image_alignment(pictures.single, own.held_out),
                    merged_alignment=image_alignment(merged, own.held_out),
                    base_recognised=recognised_rate(pictures.base, gallery, name),
                    single_recognised=single_as.get(name, 0.0),
                    merged_recognised=merged_as.get(name, 0.0),
                    single_identity=identity_rate(pictures.single, own.training, threshold),
                    merged_identity=identity_rate(merged, own.training, threshold),
                    single_as=single_as,
                    merged_as=merged_as,
                    **(text.numbers(size) if text else {}),
                )
            )
    return rows


def recognition(rows: Sequence[Measurement], kind: str) -> tuple[tuple[str, ...], tuple[str, ...], Tensor]:
    """Prompted concept against recognised concept, of one kind: what merged pictures are taken for.

    Args:
        rows: Measurements of one variant and size; seeds are averaged.
        kind: The kind.

    Returns:
        The prompted concepts; they, and then whatever else is recognised; and `(prompted, recognised)` float64 shares.
        A row sums to 1; the diagonal is the share of pictures recognised as their own concept.
    """
    of_kind = [row for row in rows if row.kind == kind]
    prompted = tuple(dict.fromkeys(row.concept for row in of_kind))
    others = sorted({winner for row in of_kind for winner in row.merged_as} - {*prompted})
    columns, seeds = (*prompted, *others), len({row.seed for row in of_kind})
    matrix = torch.zeros(len(prompted), len(columns), dtype=torch.float64)
    for row in of_kind:
        for winner, share in row.merged_as.items():
            matrix[prompted.index(row.concept), columns.index(winner)] += share / seeds
    return prompted, columns, matrix


@dataclass(frozen=True)
class Summary:
    """One variant and size of merges over all concepts and seeds; every number with its 95 % bootstrap interval.

    A retention is `mean(merged)/mean(single)`, None where the single value is 0. `gain_retention` is the stricter
    `(merged - base)/(single - base)` of alignment: what is left of what the concept added to the base.
    `base_recognised` is what the base's class-word pictures reach by chance: with three concepts of a kind a third.
    `seed_deviation` is the standard deviation over seeds of the retention of alignment, 0 for one seed. Numbers of text
    are over the concepts whose prompts ask for something that can be read, None where there is none; `text` is without
    styles, which hide scenes: there it would be the better the more of the style is lost.
    """

    variant: str
    size: int
    base_alignment: Interval
    single_alignment: Interval
    merged_alignment: Interval
    alignment_retention: Interval | None
    gain_retention: Interval | None
    base_recognised: Interval
    single_recognised: Interval
    merged_recognised: Interval
    recognised_retention: Interval | None
    single_identity: Interval
    merged_identity: Interval
    identity_retention: Interval | None
    seed_deviation: float
    base_text: Interval | None = None
    single_text: Interval | None = None
    merged_text: Interval | None = None
    text_retention: Interval | None = None
    base_choice: Interval | None = None
    single_choice: Interval | None = None
    merged_choice: Interval | None = None
    choice_retention: Interval | None = None


def seed_table(values: Sequence[tuple[_Owner, int, float]], what: str) -> Tensor:
    """Lay out one number of every owner and seed.

    Args:
        values: Owner, seed and number; every owner once for every seed.
        what: The owners in the plural, as the error calls them.

    Returns:
        `(owners, seeds)` float64, both sorted.

    Raises:
        ConfigurationError: when an owner lacks a seed or has it twice.
    """
    cells = {(owner, seed): value for owner, seed, value in values}
    owners, seeds = sorted({owner for owner, _ in cells}), sorted({seed for _, seed in cells})
    if len(cells) != len(values) or len(values) != len(owners) * len(seeds):
        raise ConfigurationError(
            f"{len(values)} measurements of {len(owners)} {what} and {len(seeds)} seeds; allowed: one for each pair"
        )
    return torch.tensor([[cells[owner, seed] for seed in seeds] for owner in owners], dtype=torch.float64)


_LABELS = ("variant", "size", "seed", "concept", "kind", "single_as", "merged_as")
_TEXTS = tuple(f"{state}_{what}" for what in ("text", "choice") for state in ("base", "single", "merged"))


def summarise(rows: Sequence[Measurement]) -> Summary:
    """Bring together the measurements of one variant and size of merges: every concept once for every seed.

    Raises:
        ConfigurationError: when rows are missing or belong to more than one variant or size.
    """
    variants = sorted({(row.variant, row.size) for row in rows})
    if len(variants) != 1:
        raise ConfigurationError(f"a summary of {len(variants)} variants {variants} was asked for; allowed: 1")
    numbers = [item.name for item in fields(Measurement) if item.name not in (*_LABELS, *_TEXTS)]
    values = {name: _table(rows, name) for name in numbers}
    texts: dict[str, Tensor] = {}
    for name in _TEXTS:
        kinds = {row.kind for row in rows} - ({"style"} if name.endswith("_text") else set())
        if read := [row for row in rows if row.kind in kinds and getattr(row, name) is not None]:
            texts[name] = _table(read, name)
    base, single, merged = (values[f"{state}_alignment"] for state in ("base", "single", "merged"))
    by_seed = merged.mean(dim=0) / single.mean(dim=0)
    return Summary(
        variant=variants[0][0],
        size=variants[0][1],
        **{name: mean_interval(table) for name, table in (values | texts).items()},
        alignment_retention=_retention(single, merged),
        gain_retention=_retention(single - base, merged - base),
        recognised_retention=_retention(values["single_recognised"], values["merged_recognised"]),
        identity_retention=_retention(values["single_identity"], values["merged_identity"]),
        seed_deviation=float(by_seed.std()) if len(by_seed) > 1 else 0.0,
        text_retention=_retention_of(texts, "text"),
        choice_retention=_retention_of(texts, "choice"),
    )


def _table(rows: Sequence[Measurement], what: str) -> Tensor:
    """`(concepts, seeds)` of one number."""
    return seed_table([(row.concept, row.seed, float(getattr(row, what))) for row in rows], "concepts")


def _retention(single: Tensor, merged: Tensor) -> Interval | None:
    return retention_interval(single, merged) if float(single.mean()) > 0.0 else None


def _retention_of(tables: Mapping[str, Tensor], what: str) -> Interval | None:
    return _retention(tables[f"single_{what}"], tables[f"merged_{what}"]) if f"single_{what}" in tables else None
