"""Sections of a report and their charts: pictures of several concepts, crosstalk, and published figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orthoplex.benchmark.group_pictures import GroupPictures, GroupSummary
from orthoplex.benchmark.layer_crosstalk import CrosstalkSummary
from orthoplex.benchmark.plots import bars, dots, scatter
from orthoplex.benchmark.settings import Published
from orthoplex.evaluation import Interval
from orthoplex.files import markdown_table


def published_section(published: Published | None) -> str:
    """Figures of others, as they published them."""
    if published is None:
        return ""
    rows = [[name, *(f"{number:.3f}" for number in numbers)] for name, numbers in published.rows.items()]
    table = markdown_table(["method", *published.columns], rows)
    return f"\n## Published figures\n\n{published.source}\n\n{table}"


def groups_section(tables: Sequence[GroupPictures], summaries: Sequence[GroupSummary]) -> str:
    """Write, for every table, the shares of recognised concepts and the alignment of whole pictures."""
    chunks = []
    for table in tables:
        merged = f"merges of {len(table.kinds) + table.companions}"
        rows = [row for row in summaries if row.table == table.name]
        chunks.append(
            f"\n## Together: {table.name}\n\n{table.draws} combinations of {' + '.join(table.kinds)} in {merged}. "
            "Shares of pictures in which a concept, and in which every one, is recognised. *Alone*: the concept is the "
            "only one in the base, class words stand in the others' places; the product of these shares is what all "
            "would reach if none disturbed another and each of two things stood on a side of its own. Image alignment "
            "of whole pictures; the base's pictures of the same prompts hold class words.\n\n"
        )
        kinds = _numbered(table.kinds)
        alone = [f"{kind} alone" for kind in kinds]
        header = ["variant", *kinds, "all", *alone, "all / product alone", *(f"{kind} alignment" for kind in kinds)]
        base, empty = rows[0], ["–" for _ in kinds]
        lines = [["the base", *empty, str(base.base_all_recognised), *empty, "–", *map(str, base.base_alignment)]]
        for row in rows:
            share = "–" if row.of_expected is None else str(row.of_expected)
            numbers = map(str, (*row.recognised, row.all_recognised, *row.alone))
            lines.append([row.variant, *numbers, share, *map(str, row.alignment)])
        chunks.append(markdown_table(header, lines))
    return "".join(chunks)


def groups_chart(tables: Sequence[GroupPictures], summaries: Sequence[GroupSummary]) -> str:
    """Bars: shares of pictures in which each concept, and every one, is recognised; nothing without tables."""
    groups: dict[str, dict[str, Interval]] = {}
    for table in tables:
        names = [*_numbered(table.kinds), "all"]
        for row in summaries:
            if row.table == table.name:
                label = row.variant if len(tables) == 1 else f"{table.name}: {row.variant}"
                groups[label] = dict(zip(names, (*row.recognised, row.all_recognised), strict=True))
    return bars(groups, title="Recognised in pictures of several concepts") if groups else ""


def _numbered(kinds: Sequence[str]) -> list[str]:
    """Kinds that come twice get a number."""
    return [
        f"{kind} {kinds[: place + 1].count(kind)}" if kinds.count(kind) > 1 else kind
        for place, kind in enumerate(kinds)
    ]


def crosstalk_section(summaries: Sequence[CrosstalkSummary]) -> str:
    """Write, for every layer, the effect of a concept's change on its own inputs, and that of all other changes."""
    if not summaries:
        return ""
    variants = list(dict.fromkeys(variant for row in summaries for variant in row.own))
    header = ["layer", "correlation with loss"]
    for variant in variants:
        header += [f"{variant}: own", "others", "directions shared", "at random"]
    rows = []
    for row in summaries:
        cells = [row.layer, "–" if row.correlation is None else f"{row.correlation:.2f}"]
        for variant in variants:
            means = (row.own, row.others, row.shared, row.expected_shared)
            cells += [f"{mean[variant]:.3f}" if variant in mean else "–" for mean in means]
        rows.append(cells)
    return (
        "\n## Crosstalk\n\n`own` is ‖ΔW_i X_i‖ / ‖W X_i‖, `others` ‖Σ_{j≠i} ΔW_j X_i‖ / ‖W X_i‖ in the largest "
        "merges, *directions shared* ‖down_i down_jᵀ‖_F², beside r_i r_j / in of directions at random; means over "
        "concepts and seeds. The correlation is Spearman's, within a variant, of `others` with the alignment lost "
        "there.\n\n" + markdown_table(header, rows)
    )


def crosstalk_chart(summaries: Sequence[CrosstalkSummary], *, title: str) -> str:
    """Dots for every layer and variant, beside how well they foretell what is lost; nothing without summaries."""
    if not summaries:
        return ""
    panels: dict[str, dict[str, dict[str, float]]] = {"‖Σ ΔW_j X_i‖ / ‖W X_i‖": {}, "correlation with loss": {}}
    others, correlations = panels.values()
    for row in summaries:
        for variant, value in row.others.items():
            others.setdefault(variant, {})[row.layer] = value
        if row.correlation is not None:
            correlations.setdefault("all variants", {})[row.layer] = row.correlation
    return dots({name: series for name, series in panels.items() if series}, title=title)


def erasure_chart(
    summaries: Sequence[CrosstalkSummary], retentions: Mapping[str, Mapping[str, Interval]], *, title: str
) -> str:
    """Draw a point for every variant: the crosstalk of the other concepts, and the retention of the concept.

    The former is a mean over all layers that any variant changes; layers that a variant leaves alone count as 0.

    Args:
        summaries: One for every layer.
        retentions: Measure -> variant -> merged / alone.
        title: Above the panels.

    Returns:
        A whole SVG document; nothing without summaries.
    """
    said: dict[str, list[float]] = {}
    for row in summaries:
        for variant, value in row.others.items():
            said.setdefault(variant, []).append(value)
    means = {variant: sum(values) / len(summaries) for variant, values in said.items()}
    panels = {
        measure: {variant: (means[variant], interval) for variant, interval in left.items() if variant in means}
        for measure, left in retentions.items()
    }
    panels = {f"{measure}, merged / alone": points for measure, points in panels.items() if points}
    return scatter(panels, across="‖Σ ΔW_j X_i‖ / ‖W X_i‖, mean over layers", title=title) if panels else ""
