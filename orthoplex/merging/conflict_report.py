"""What a set of files would do to one another in a merge, as frozen numbers and words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, final

from orthoplex.merging.conflict_identity import LEVELS, Clash, Level
from orthoplex.merging.conflict_verdict import Quantity

_LISTED_LAYERS = 10
"""Layers of a pair in JSON, those with the largest share of the pair's energy times overlap."""


@final
@dataclass(frozen=True)
class FileLoad:
    """The size of one file's change.

    Attributes:
        name: The file.
        strength: ``s`` of the whole.
        strengths: All its strengths as text, such as ``0.8; te=0.5; blocks=MIDD``.
        norm: ``‖s ΔW‖`` over all layers.
        of_base: The same in units of the norm of the weights that are changed; None where they are not known.
        overlap: The sum of its input overlaps with all others.
        disturbance: How strongly all others together act along the directions that the file reads, in units of its own
            effect there.
        crosstalk: The sum of the others' effects on inputs under its own prompts, in units of its own; None where these
            inputs are not known.
        level: The level of its crosstalk or, where that is not known for all files, of its disturbance.
    """

    name: str
    strength: float
    strengths: str
    norm: float
    of_base: float | None
    overlap: float
    disturbance: float
    crosstalk: float | None
    level: Level


@final
@dataclass(frozen=True)
class LayerConflict:
    """Two files' changes of one layer.

    Attributes:
        layer: The layer.
        share: The layer's share ``‖ΔW_a‖ ‖ΔW_b‖`` of the pair's energy, in [0, 1].
        cosine: Cosine of the two changes as vectors.
        input_overlap: Overlap of the directions that are read, weighted by energy: 0 is orthogonal, 1 the same.
        output_overlap: The same of the directions that are written.
        sign_conflict: Share of the product of entries' sizes where their signs disagree; one half is chance.
    """

    layer: str
    share: float
    cosine: float
    input_overlap: float
    output_overlap: float
    sign_conflict: float


@final
@dataclass(frozen=True)
class PairConflict:
    """Two files: the sums over layers, weighted by energy, and a verdict.

    A layer that only one of the two changes counts as no overlap there.

    Attributes:
        first: One file.
        second: The other.
        cosine: Cosine of all changes of the two as one vector each.
        input_overlap: See ``LayerConflict``.
        output_overlap: See ``LayerConflict``.
        sign_conflict: See ``LayerConflict``; None if no layer is shared.
        first_disturbed: How strongly the second acts along the directions that the first reads, in units of the first's
            own effect there.
        second_disturbed: The same, the other one of the two.
        first_crosstalk: The second's effect on inputs under the first's own prompts, in units of the first's own; None
            where these inputs are not known.
        second_crosstalk: The same, the other one of the two.
        level: The verdict of the two without the others.
        layers: The layers that both change.
    """

    first: str
    second: str
    cosine: float
    input_overlap: float
    output_overlap: float
    sign_conflict: float | None
    first_disturbed: float
    second_disturbed: float
    first_crosstalk: float | None
    second_crosstalk: float | None
    level: Level
    layers: tuple[LayerConflict, ...]

    def score(self, quantity: Quantity) -> float:
        """The mean of the two files' crosstalk or disturbance by one another.

        Args:
            quantity: Which of the two; crosstalk that is not known counts as 0.
        """
        if quantity == "crosstalk":
            return ((self.first_crosstalk or 0.0) + (self.second_crosstalk or 0.0)) / 2
        return (self.first_disturbed + self.second_disturbed) / 2


@final
@dataclass(frozen=True)
class NormBudget:
    """The size of the sum of all changes.

    Attributes:
        together: ``‖Σ s ΔW‖``.
        apart: ``√Σ ‖s ΔW‖²``, which it would be if no two changes had to do with each other.
        largest: The largest single ``‖s ΔW‖``.
        of_base: ``‖Σ s ΔW‖`` in units of the norm of the weights that are changed; None where they are not known.
        layer: The layer in which the sum is largest against the single ones, or against the weight where it is known.
    """

    together: float
    apart: float
    largest: float
    of_base: float | None
    layer: str | None


@final
@dataclass(frozen=True)
class ConflictReport:
    """Conflicts of a set of files.

    Attributes:
        files: The size of each file's change, and how much it meets the others, in the order given.
        pairs: Every pair.
        budget: The sum of all.
        clashes: Tokens, trigger words, bases, shapes and copies that go against each other.
        quantity: The number that the verdict looks at: ``crosstalk`` where it is known for all files, else
            ``disturbance``.
        score: Its mean over files.
        level: The verdict of the set: the level of its score, or that of its worst clash.
        cures: What to do about it, the most important first; empty at level ``none``.
        notes: What was not compared, and why.
    """

    files: tuple[FileLoad, ...]
    pairs: tuple[PairConflict, ...]
    budget: NormBudget
    quantity: Quantity
    score: float
    clashes: tuple[Clash, ...] = ()
    level: Level = "none"
    cures: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def worst(self) -> PairConflict | None:
        """The pair with the largest score; None without pairs."""
        return max(self.pairs, key=lambda pair: pair.score(self.quantity), default=None)

    def to_json(self, *, every_layer: bool = False) -> dict[str, Any]:
        """Return the report as JSON values.

        Args:
            every_layer: True lists all layers of every pair; else the ten with the largest overlap.
        """
        values: dict[str, Any] = asdict(self)
        if not every_layer:
            for pair in values["pairs"]:
                pair["layers"] = sorted(pair["layers"], key=_weight, reverse=True)[:_LISTED_LAYERS]
        return values


def _weight(layer: Mapping[str, Any]) -> float:
    return layer["share"] * layer["input_overlap"]


def worst_level(levels: Iterable[Level]) -> Level:
    """Return the worst of some levels; ``none`` if there are none."""
    worst: Level = "none"
    for level in levels:
        if LEVELS.index(level) > LEVELS.index(worst):
            worst = level
    return worst
