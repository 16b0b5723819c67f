"""One page for the results of several encoders: every variant, alone and merged."""

from __future__ import annotations

from collections.abc import Sequence

from orthoplex.benchmark.experiment import Experiment, folder_name
from orthoplex.benchmark.experiment_result import ExperimentResult
from orthoplex.benchmark.summary import Summary
from orthoplex.evaluation import Interval
from orthoplex.files import markdown_table

_Pair = tuple[Interval | None, Interval | None]


def side_by_side(experiment: Experiment, results: Sequence[ExperimentResult]) -> str:
    """A page of Markdown: means of concepts alone and in merges, by all encoders.

    Args:
        experiment: The whole experiment.
        results: One for every encoder that measured it; variants, sizes of merges and pictures are the same in all.
    """
    chunks = [
        f"# {experiment.name}\n\n"
        f"{len(experiment.concepts)} concepts on `{folder_name(experiment.base)}`, measured by several features: means "
        "over concepts and seeds, alone → in a merge. Intervals, single concepts and charts are in "
        f"{', '.join(f'[{part.experiment.name}.md]({part.experiment.name}.md)' for part in results)}.\n"
    ]
    left_out = {encoder.kind for encoder in experiment.further_encoders} - {
        result.experiment.encoder.kind for result in results
    }
    if left_out:
        chunks.append(f"\nNo concept is of a kind that {', '.join(sorted(left_out))} reads.\n")
    for number, size in enumerate(experiment.groups):
        rows = [[variant.name] for variant in experiment.variants]
        header = ["variant"]
        for result in results:
            summaries = [summary for summary in result.summaries() if summary.size == size]
            named = [_measures(summary) for summary in summaries]
            for measure in named[0]:
                header.append(f"{result.experiment.encoder.kind}: {measure}")
                for row, values in zip(rows, named, strict=True):
                    row.append(_pair(values[measure]))
        heading = f"\n## Merges of {size}\n" if len(experiment.groups) > 1 or number else ""
        chunks.append(f"{heading}\n{markdown_table(header, rows)}")
    return "".join(chunks)


def _measures(summary: Summary) -> dict[str, _Pair]:
    """Measure -> its value alone and merged; without those that this encoder does not have."""
    pairs: dict[str, _Pair] = {
        "alignment": (summary.single_alignment, summary.merged_alignment),
        "text": (summary.single_text, summary.merged_text),
        "recognised": (summary.single_recognised, summary.merged_recognised),
        "identity": (summary.single_identity, summary.merged_identity),
    }
    return {name: pair for name, pair in pairs.items() if pair[0] is not None}


def _pair(pair: _Pair) -> str:
    return " → ".join("–" if interval is None else f"{interval.value:.3f}" for interval in pair)
