"""``orthoplex conflicts``: what several files would do to one another, before they are merged."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orthoplex.cli.base_arguments import BASE_HELP, BaseConfigOption, DownloadOption, VariantOption, chosen_base
from orthoplex.cli.console import errors_shown, refuse_existing
from orthoplex.cli.file_arguments import parse_file
from orthoplex.cli.streams import note, say, say_json, say_table

if TYPE_CHECKING:
    from orthoplex.concepts import Concept
    from orthoplex.concepts.exchange.lora_file import LoraFile
    from orthoplex.merging import ConflictReport, Level, Strengths
    from orthoplex.models import BaseChoice

EXIT_CODES: "dict[Level, int]" = {"none": 0, "mild": 1, "strong": 3}
"""Verdict -> exit code; 2 is an error."""
_MOST_PAIRS = 15
"""Pairs in the table, the worst ones."""


def conflicts(
    files: Annotated[
        list[str], typer.Argument(help="LoRA or concept files, with strengths as in a@0.8:0.5 or 'a@0.8;blocks=MIDD'.")
    ],
    base: Annotated[str | None, typer.Option(help=f"{BASE_HELP}: sizes and crosstalk are measured on it.")] = None,
    chart: Annotated[Path | None, typer.Option(help="Map of overlaps to write, *.png or *.svg.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing chart.")] = False,
    every_layer: Annotated[bool, typer.Option("--every-layer", help="With --json: all layers of every pair.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    variant: VariantOption = None,
    base_config: BaseConfigOption = None,
    download: DownloadOption = False,
) -> None:
    """Tell conflicts of files before a merge. Exit code 0 if there are none, 1 mild, 3 strong; 2 is an error."""
    with errors_shown():
        if chart is not None:
            _check_chart(chart, overwrite)
        report = _report(
            [(_load(path), strength) for path, strength in map(parse_file, files)],
            None if base is None else chosen_base(base, variant, base_config, download),
        )
        if chart is not None:
            from orthoplex.benchmark.conflict_chart import write_conflict_chart

            write_conflict_chart(report, chart)
        if as_json:
            say_json(report.to_json(every_layer=every_layer))
        else:
            _show(report)
            if chart is not None:
                note(f"{chart} written")
        raise typer.Exit(EXIT_CODES[report.level])


def _check_chart(chart: Path, overwrite: bool) -> None:
    """Refuse what no chart could be, before files are read."""
    from orthoplex.benchmark.conflict_chart import check_chart_name
    from orthoplex.benchmark.plots import check_charts

    check_chart_name(chart)
    refuse_existing(chart, overwrite)
    check_charts()


def _load(path: Path) -> "Concept | LoraFile":
    from orthoplex.concepts import load_concept
    from orthoplex.concepts.exchange import read_lora
    from orthoplex.concepts.manifest_json import MANIFEST_KEY
    from orthoplex.files import read_header

    if path.is_file() and MANIFEST_KEY in read_header(path).metadata:
        return load_concept(path)
    return read_lora(path, partial=True)


def _report(files: "list[tuple[Concept | LoraFile, Strengths]]", base: "BaseChoice | None") -> "ConflictReport":
    if base is None:
        from orthoplex.merging import conflicts as compare

        return compare(files)
    from orthoplex.activations import conflicts_for
    from orthoplex.concepts import Concept
    from orthoplex.models import load_base, on_base

    model = load_base(base)
    return conflicts_for(model, [(on_base(f, model) if isinstance(f, Concept) else f, s) for f, s in files])


def _show(report: "ConflictReport") -> None:
    """Print the tables of files and pairs, then the verdict, the clashes and the cures."""
    has_base = report.budget.of_base is not None
    heads = [
        "file",
        "strength",
        "size",
        *(["of base"] if has_base else []),
        "overlap with others",
        f"{report.quantity} by others",
        "verdict",
    ]
    rows = [
        (
            load.name,
            load.strengths,
            f"{load.norm:.3g}",
            *([f"{load.of_base:.1%}"] if load.of_base is not None else []),
            f"{load.overlap:.2f}",
            _number(load.crosstalk if report.quantity == "crosstalk" else load.disturbance),
            load.level,
        )
        for load in report.files
    ]
    say_table("Files", rows, heads)
    _show_pairs(report)
    _show_words(report)


def _show_pairs(report: "ConflictReport") -> None:
    shown = sorted(report.pairs, key=lambda pair: pair.score(report.quantity), reverse=True)[:_MOST_PAIRS]
    heads = ["pair", "inputs", "outputs", "cosine", "signs", report.quantity, "verdict"]
    rows = [
        (
            f"{pair.first} + {pair.second}",
            f"{pair.input_overlap:.2f}",
            f"{pair.output_overlap:.2f}",
            f"{pair.cosine:+.2f}",
            "–" if pair.sign_conflict is None else f"{pair.sign_conflict:.0%}",
            f"{pair.score(report.quantity):.2f}",
            pair.level,
        )
        for pair in shown
    ]
    left_out = len(report.pairs) - len(shown)
    say_table("Pairs" + (f", without the {left_out} of the least" if left_out else ""), rows, heads)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _show_words(report: "ConflictReport") -> None:
    budget, worst = report.budget, report.worst
    share = "" if budget.of_base is None else f", {budget.of_base:.1%} of the base's weights"
    say(
        f"Size of the sum: {budget.together:.3g}{share}; the largest file alone: {budget.largest:.3g}; without any "
        f"overlap: {budget.apart:.3g}"
    )
    for text in report.notes:
        say(f"Note: {text}")
    for clash in report.clashes:
        say(f"{clash.level.capitalize()} clash of {clash.first} and {clash.second}: {clash.message}")
    most = f"; most of it between {worst.first} and {worst.second}" if worst is not None and report.score else ""
    say(f"Conflict of all {len(report.files)}: {report.level} ({report.quantity} {report.score:.2f}{most})")
    for text in report.cures:
        say(f"To do: {text}")
