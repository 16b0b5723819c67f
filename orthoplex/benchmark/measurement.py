"""Measurements of one concept from features: alone, in merges, and of the base without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from orthoplex.benchmark.sources import ConceptSource, open_pictures
from orthoplex.evaluation import (
    Encoder,
    comparable_references,
    identity_rate,
    identity_threshold,
    image_alignment,
    recognised,
    recognised_rate,
    scores,
    shares,
)

NOT_PROMPTED = "(not prompted)"
"""Column of pictures that are recognised as a concept that no prompt named."""


@dataclass(frozen=True, eq=False)
class References:
    """Features of a concept's real pictures.

    Attributes:
        kind: The concept's kind; recognition compares it with concepts of this kind only.
        training: `(n, d)` of its training pictures; recognition compares with these.
        held_out: `(m, d)` of its held-out pictures; alignment compares with these.
    """

    kind: str
    training: Tensor
    held_out: Tensor


@dataclass(frozen=True)
class TextValue:
    """Text alignment of pictures: the share of the prompt, besides the concept, that they show.

    Attributes:
        text: The mean over pictures.
        choice: The same among the names that the measured kinds' prompts ask for, chance taken off; None of one name.
    """

    text: float
    choice: float | None = None


@dataclass(frozen=True)
class ConceptText:
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
class ConceptFeatures:
    """Features of a concept's generated pictures, all from the same prompts and noise.

    Attributes:
        base: `(n, d)` of the base alone, the class word in the concept's place.
        single: `(n, d)` of the concept alone.
        merged: Concepts in a merge -> `(n, d)` of merges of that size that the concept is in.
        met: Concepts in a merge -> names of the others in the merges of that size that the concept is in.
        text: Their text alignment; None where no prompt asks for anything that can be read.
    """

    base: Tensor
    single: Tensor
    merged: Mapping[int, Tensor]
    met: Mapping[int, frozenset[str]]
    text: ConceptText | None = None


@dataclass(frozen=True)
class Measurement:
    """The numbers of one concept, variant, seed and size of merges.

    `base`, `single` and `merged` are those of `ConceptFeatures`.

    Attributes:
        variant: The variant's name.
        size: Concepts in a merge.
        seed: The training seed.
        concept: The concept's name.
        kind: The concept's kind.
        base_alignment: Mean pairwise cosine to the held-out pictures.
        single_alignment: The same, concept alone.
        merged_alignment: The same, in the merge.
        base_recognised: Share recognised as the concept among the concepts of its kind; None where it is the only one.
        single_recognised: The same, concept alone.
        merged_recognised: The same, in the merge.
        bleed: Share of pictures that are taken for others of its merges, beyond what each of them takes of the concept
            alone; None where there are no others of its kind.
        base_identity: Share above a published identity threshold; None where it was set on impostors, which the base's
            pictures are.
        single_identity: Share above the identity threshold, which at most 5 % of the impostors of either sort pass, or
            a published one; of the concept alone.
        merged_identity: The same, in the merge.
        single_as: What the pictures of the concept alone are recognised as: concept of the kind -> share.
        merged_as: The same, in the merge.
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
    base_recognised: float | None
    single_recognised: float | None
    merged_recognised: float | None
    bleed: float | None
    base_identity: float | None
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
            comparable_references(encoder.encode(open_pictures(files)), f"concept {concept.name!r}")
            for files in (split.training, split.held_out)
        )
        references[concept.name] = References(concept.kind, training, held_out)
    return references


def gallery_of(concept: str, references: Mapping[str, References]) -> dict[str, Tensor]:
    """The training pictures of all concepts of the concept's kind, by name."""
    kind = references[concept].kind
    return {name: entry.training for name, entry in references.items() if entry.kind == kind}


def threshold_of(concept: str, references: Mapping[str, References], base: Tensor) -> float:
    """The identity threshold of a concept: at most 5 % of either sort of impostors pass it.

    They are the base's class-word pictures `base` of its prompts, `(n, d)`, and all real pictures of the other concepts
    of its kind: the same for every variant and seed. In one heap the latter, hundreds of them where the pool comes
    along, would let all of the base's few pictures pass.
    """
    own = references[concept]
    others = [entry for name, entry in references.items() if entry.kind == own.kind and name != concept]
    real = [pictures for entry in others for pictures in (entry.training, entry.held_out)]
    sorts = [base, *([torch.cat(real)] if real else [])]
    return max(identity_threshold(scores(impostors, {concept: own.training})[:, 0]) for impostors in sorts)


def ceilings(references: Mapping[str, References]) -> dict[str, dict[str, float | None]]:
    """Return the alignment and the recognition rate of real held-out pictures, the upper limits of generated ones."""
    limits: dict[str, dict[str, float | None]] = {}
    for name, entry in references.items():
        gallery = gallery_of(name, references)
        limits[name] = {
            "alignment": image_alignment(entry.held_out, entry.training),
            "recognised": recognised_rate(entry.held_out, gallery, name) if len(gallery) > 1 else None,
        }
    return limits


def measure(
    variant: str,
    seed: int,
    shown: Mapping[str, ConceptFeatures],
    references: Mapping[str, References],
    *,
    identity_cosine: float | None = None,
) -> list[Measurement]:
    """Measure every concept of one variant and seed.

    The identity threshold of a concept is set on its impostors (`threshold_of`), the same for every variant and seed.

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
        threshold = threshold_of(name, references, pictures.base) if identity_cosine is None else identity_cosine
        of_base = None if identity_cosine is None else identity_rate(pictures.base, own.training, threshold)
        single_as = shares(sorted(recognised(pictures.single, gallery)))
        is_choice = len(gallery) > 1  # else everything is recognised as the only one there is
        for size, merged in pictures.merged.items():
            merged_as = shares(sorted(recognised(merged, gallery)))
            taken = [merged_as.get(other, 0.0) - single_as.get(other, 0.0) for other in pictures.met[size]]
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
                    base_recognised=recognised_rate(pictures.base, gallery, name) if is_choice else None,
                    single_recognised=single_as.get(name, 0.0) if is_choice else None,
                    merged_recognised=merged_as.get(name, 0.0) if is_choice else None,
                    bleed=sum(max(0.0, share) for share in taken) if is_choice else None,
                    base_identity=of_base,
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
        The prompted concepts; they, and `NOT_PROMPTED` for all others where any is recognised; and
        `(prompted, recognised)` float64 shares. A row sums to 1; the diagonal is the share of pictures recognised as
        their own concept.
    """
    of_kind = [row for row in rows if row.kind == kind]
    prompted = tuple(dict.fromkeys(row.concept for row in of_kind))
    others = {winner for row in of_kind for winner in row.merged_as} - {*prompted}
    columns, seeds = (*prompted, *([NOT_PROMPTED] if others else [])), len({row.seed for row in of_kind})
    matrix = torch.zeros(len(prompted), len(columns), dtype=torch.float64)
    for row in of_kind:
        for winner, share in row.merged_as.items():
            column = prompted.index(winner) if winner in prompted else len(prompted)
            matrix[prompted.index(row.concept), column] += share / seeds
    return prompted, columns, matrix
