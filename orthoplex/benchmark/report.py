"""Results as files: JSON for machines, Markdown for people, a bar chart for a glance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from orthoplex.benchmark.experiment import folder_name
from orthoplex.benchmark.experiment_result import ExperimentResult
from orthoplex.benchmark.machine import machine
from orthoplex.benchmark.measurement import ceilings, recognition
from orthoplex.benchmark.plots import bars, curves, heat_maps
from orthoplex.benchmark.sections import (
    crosstalk_chart,
    crosstalk_section,
    erasure_chart,
    groups_chart,
    groups_section,
    published_section,
)
from orthoplex.benchmark.summary import Difference, Summary
from orthoplex.evaluation import Interval
from orthoplex.files import markdown_table, write_json, write_text


def write_result(result: ExperimentResult, folder: Path) -> None:
    """Write `NAME.json`, and from its numbers `NAME.md` and the charts (see `orthoplex.benchmark.run`)."""
    summaries, differences = result.summaries(), result.differences()
    together, crosstalk = result.group_summaries(), result.crosstalk_summaries()
    name = result.experiment.name
    values = {
        "experiment": result.experiment.to_json(),
        "base": asdict(result.base),
        "encoder": result.encoder,
        "text": result.text,
        "machine": machine(),
        "ceilings": _ceilings(result),
        "summary": [asdict(summary) for summary in summaries],
        "differences": [asdict(row) for row in differences],
        "measurements": [asdict(row) for row in result.measurements],
        "seconds": [asdict(row) for row in result.seconds],
    }
    if together:
        values["together_summary"] = [asdict(row) for row in together]
        values["together"] = [asdict(row) for row in result.together]
    if crosstalk:
        values["crosstalk"] = [asdict(row) for row in crosstalk]
    write_json(folder / f"{name}.json", values)
    texts = {
        ".md": _markdown(result, summaries, differences)
        + groups_section(result.experiment.together, together)
        + crosstalk_section(crosstalk)
        + published_section(result.experiment.published),
        ".svg": _chart(result, summaries),
        "-recognised.svg": _recognised(result),
        "-together.svg": groups_chart(result.experiment.together, together),
        "-crosstalk.svg": crosstalk_chart(crosstalk, title=f"{name}: what the others do to a concept's inputs"),
        "-silence.svg": erasure_chart(
            crosstalk,
            _of_size(summaries, max(result.experiment.groups)),
            title=f"{name}: does it foretell what is left?",
        ),
    }
    for suffix, text in texts.items():
        if not text:
            (folder / f"{name}{suffix}").unlink(missing_ok=True)  # of an experiment that asked for it once
            continue
        write_text(folder / f"{name}{suffix}", text)


def _ceilings(result: ExperimentResult) -> dict[str, dict[str, float | None]]:
    """Return the limits that real pictures reach; `text` is that of all pictures of a concept with their captions."""
    return {
        name: {**limits, "text": result.real_text.get(name)} for name, limits in ceilings(result.references).items()
    }


def _markdown(result: ExperimentResult, summaries: Sequence[Summary], differences: Sequence[Difference]) -> str:
    experiment = result.experiment
    sizes = list(experiment.groups)
    chunks = [
        f"# {experiment.name}\n\n"
        f"{len(experiment.measured)} of {len(experiment.concepts)} concepts measured on "
        f"`{folder_name(experiment.base)}` in merges of {', '.join(map(str, sizes))}, "
        f"seeds {', '.join(map(str, experiment.seeds))}; features: {result.encoder}. "
        f"Numbers are means over concepts{' and seeds' * (len(experiment.seeds) > 1)} with 95 % bootstrap intervals "
        "over them; concepts that share a merge are not independent, and one merge is not all merges. Retention is "
        "merged / alone.\n"
        + (f"Text alignment, what prompts ask for besides the concept: {result.text}; " if result.text else "")
        + ("choice: among the names that the prompts ask for, chance taken off.\n" if result.text else "")
    ]
    for size in sizes:
        if len(sizes) > 1:
            chunks.append(f"\n## Merges of {size}\n")
        chunks.append(_summary_tables([summary for summary in summaries if summary.size == size]))
        chunks.append(_difference_table([row for row in differences if row.size == size]))
    chunks += [
        f"\nEvery concept, {experiment.variants[0].name}, merges of {max(sizes)}, means over seeds:\n\n",
        _concept_table(result),
        "\nWall time in seconds (several processes may have shared the machine):\n\n",
        markdown_table(
            ["variant", "seed", "training", "generation", f"a merge of {max(sizes)}"],
            [
                [row.variant, str(row.seed), f"{row.training:.0f}", f"{row.generation:.0f}", f"{row.merging:.2g}"]
                for row in result.seconds
            ],
        ),
    ]
    return "".join(chunks)


def _summary_tables(summaries: Sequence[Summary]) -> str:
    """Alignment, then recognition and identity, then text alignment, one row for each variant."""
    alignment = markdown_table(
        ["variant", "alignment base", "alone", "merged", "retention", "gain kept", "deviation of retention"],
        [
            [
                row.variant,
                *map(_number, (row.base_alignment, row.single_alignment, row.merged_alignment)),
                *map(_number, (row.alignment_retention, row.gain_retention)),
                "–" if row.seed_deviation is None else f"{row.seed_deviation:.3f}",
            ]
            for row in summaries
        ],
    )
    identity = markdown_table(
        [
            "variant",
            "recognised base",
            "alone",
            "merged",
            "retention",
            "bleed",
            "identity base",
            "alone",
            "merged",
            "retention",
        ],
        [
            [
                row.variant,
                _number(row.base_recognised),
                *map(_number, (row.single_recognised, row.merged_recognised, row.recognised_retention, row.bleed)),
                *map(_number, (row.base_identity, row.single_identity)),
                *map(_number, (row.merged_identity, row.identity_retention)),
            ]
            for row in summaries
        ],
    )
    text = markdown_table(
        ["variant", "text base", "alone", "merged", "retention", "choice base", "alone", "merged", "retention"],
        [
            [
                row.variant,
                *map(_number, (row.base_text, row.single_text, row.merged_text, row.text_retention)),
                *map(_number, (row.base_choice, row.single_choice, row.merged_choice, row.choice_retention)),
            ]
            for row in summaries
        ],
    )
    return f"\n{alignment}\n{identity}\n{text}"


def _difference_table(differences: Sequence[Difference]) -> str:
    """Every variant against the experiment's first, paired by concept and seed; nothing where there is one only."""
    if not differences:
        return ""
    rows = [
        [
            row.variant,
            *map(_number, (row.single_alignment, row.merged_alignment, row.merged_recognised, row.merged_identity)),
        ]
        for row in differences
    ]
    header = ["variant", "alignment alone", "merged", "recognised merged", "identity merged"]
    return f"\nBeyond {differences[0].other}, pair by pair of concept and seed:\n\n{markdown_table(header, rows)}"


def _concept_table(result: ExperimentResult) -> str:
    variant, limits = result.experiment.variants[0].name, _ceilings(result)
    largest = [
        row for row in result.measurements if row.variant == variant and row.size == max(result.experiment.groups)
    ]
    rows = []
    for concept in result.experiment.measured:
        own = [row for row in largest if row.concept == concept.name]
        states = [
            [row.base_alignment for row in own],
            [row.single_alignment for row in own],
            [row.merged_alignment for row in own],
            [row.single_recognised for row in own],
            [row.merged_recognised for row in own],
            [row.base_text for row in own],
            [row.single_text for row in own],
            [row.merged_text for row in own],
        ]
        means = [_mean(values) for values in states]
        real = [_mean([limits[concept.name][measure]]) for measure in ("alignment", "recognised", "text")]
        rows.append([concept.name, concept.kind, *means[:3], real[0], *means[3:5], real[1], *means[5:], real[2]])
    header = ["concept", "kind", "alignment base", "alone", "merged", "real", "recognised alone", "merged", "real"]
    return markdown_table([*header, "text base", "alone", "merged", "real"], rows)


def _mean(values: Sequence[float | None]) -> str:
    numbers = [value for value in values if value is not None]
    return f"{sum(numbers) / len(numbers):.3f}" if numbers else "–"


def _number(interval: Interval | None) -> str:
    return "–" if interval is None else str(interval)


_RETENTIONS: dict[str, Callable[[Summary], Interval | None]] = {
    "gain of alignment": lambda row: row.gain_retention,
    "alignment": lambda row: row.alignment_retention,
    "recognised": lambda row: row.recognised_retention,
    "identity": lambda row: row.identity_retention,
    "text": lambda row: row.text_retention,
}


def _retentions(summaries: Sequence[Summary]) -> dict[str, dict[str, dict[int, Interval]]]:
    """Measure -> variant -> concepts in a merge -> retention."""
    retentions: dict[str, dict[str, dict[int, Interval]]] = {}
    for name, pick in _RETENTIONS.items():
        for row in summaries:
            if (interval := pick(row)) is not None:
                retentions.setdefault(name, {}).setdefault(row.variant, {})[row.size] = interval
    return retentions


def _of_size(summaries: Sequence[Summary], size: int) -> dict[str, dict[str, Interval]]:
    """Measure -> variant -> retention in merges of one size."""
    return {
        name: {variant: points[size] for variant, points in variants.items() if size in points}
        for name, variants in _retentions(summaries).items()
    }


def _chart(result: ExperimentResult, summaries: Sequence[Summary]) -> str:
    """Retention: bars where all merges have one size, curves where they have several."""
    sizes = list(result.experiment.groups)
    if len(sizes) > 1:
        title = f"{result.experiment.name}: what is left in a merge"
        return curves(_retentions(summaries), title=title, capacity=result.experiment.capacity)
    groups: dict[str, dict[str, Interval]] = {row.variant: {} for row in summaries}
    for name, variants in _of_size(summaries, sizes[0]).items():
        for variant, interval in variants.items():
            groups[variant][name] = interval
    return bars(groups, title=f"Retention in merges of {sizes[0]} (merged / alone)", reference=1.0)


def _recognised(result: ExperimentResult) -> str:
    """Draw prompted against recognised concepts of the largest merges: a map for each kind and variant."""
    size = max(result.experiment.groups)
    panels = {}
    for kind in dict.fromkeys(concept.kind for concept in result.experiment.measured):
        for variant in result.experiment.variants:
            rows = [row for row in result.measurements if (row.variant, row.size) == (variant.name, size)]
            if any(row.kind == kind and row.merged_recognised is not None for row in rows):
                panels[f"{kind}: {variant.name}"] = recognition(rows, kind)
    title = f"Prompted (rows) and recognised (columns) in merges of {size}, %"
    return heat_maps(panels, title=title) if panels else ""
