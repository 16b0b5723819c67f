"""The result of an experiment: its measurements and wall times, and the summaries made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orthoplex.benchmark.experiment import Experiment
from orthoplex.benchmark.group_pictures import GroupMeasurement, GroupSummary, summarise_groups
from orthoplex.benchmark.layer_crosstalk import CrosstalkSummary, LayerCrosstalk, summarise_crosstalk
from orthoplex.benchmark.measurement import Measurement, References
from orthoplex.benchmark.summary import Difference, Summary, compare, summarise
from orthoplex.concepts import BaseIdentity


@dataclass(frozen=True)
class Seconds:
    """Wall time of one variant and seed.

    Attributes:
        variant: The variant's name.
        seed: The training seed.
        training: Seconds of training all its concepts.
        generation: Seconds of making its pictures, alone and merged.
        merging: Mean seconds of a largest merge: gathering the Gram matrices that its algorithm needs, and merging;
            folding into the base is not included.
    """

    variant: str
    seed: int
    training: float
    generation: float
    merging: float


@dataclass(frozen=True, eq=False)
class ExperimentResult:
    """The content of the result files.

    Attributes:
        experiment: The experiment.
        base: The base it was computed on.
        encoder: Name of the features.
        text: Name of the reader of text alignment; None without one.
        real_text: Concept -> text alignment of its real pictures with their captions; None without a reader.
        references: Concept -> features of its real pictures.
        measurements: One for every variant, seed and concept.
        seconds: One for every variant and seed.
        together: One for every combination, variant and seed.
        crosstalk: One for every layer, concept, variant and seed.
    """

    experiment: Experiment
    base: BaseIdentity
    encoder: str
    text: str | None
    real_text: Mapping[str, float | None]
    references: Mapping[str, References]
    measurements: Sequence[Measurement]
    seconds: Sequence[Seconds]
    together: Sequence[GroupMeasurement] = ()
    crosstalk: Sequence[LayerCrosstalk] = ()

    def summaries(self) -> list[Summary]:
        """One summary for every size of merges and every variant, in the experiment's order."""
        return [
            summarise([row for row in self.measurements if (row.variant, row.size) == (variant.name, size)])
            for size in self.experiment.groups
            for variant in self.experiment.variants
        ]

    def differences(self) -> list[Difference]:
        """For every size of merges, every variant but the first set beside the first."""
        first, *others = [variant.name for variant in self.experiment.variants]
        of = {
            (variant, size): [row for row in self.measurements if (row.variant, row.size) == (variant, size)]
            for size in self.experiment.groups
            for variant in (first, *others)
        }
        return [compare(of[other, size], of[first, size]) for size in self.experiment.groups for other in others]

    def group_summaries(self) -> list[GroupSummary]:
        """One summary for every table of combinations and every variant, in the experiment's order."""
        return [
            summarise_groups(
                [row for row in self.together if (row.table, row.variant) == (table.name, variant.name)], table.kinds
            )
            for table in self.experiment.together
            for variant in self.experiment.variants
        ]

    def crosstalk_summaries(self) -> tuple[CrosstalkSummary, ...]:
        """One summary for every layer, with its correlation with the losses of the largest merges."""
        largest = max(self.experiment.groups)
        return summarise_crosstalk(self.crosstalk, [row for row in self.measurements if row.size == largest])
