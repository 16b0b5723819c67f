"""``orthoplex bench``: compute what an experiment asks for, or what of it is missing."""

import os
from pathlib import Path
from typing import Annotated

import typer

from orthoplex.cli.console import errors_shown, refuse_file, show_events
from orthoplex.cli.streams import say


def bench(
    experiment: Annotated[Path, typer.Argument(help="TOML file, for example experiments/merge-of-twelve.toml.")],
    results: Annotated[Path, typer.Option(help="Folder of the result files.")] = Path("results"),
    work: Annotated[Path, typer.Option(help="Folder that remembers what was computed.")] = Path("work/concepts"),
    processes: Annotated[int, typer.Option(help="How many processes share the work.")] = min(2, os.cpu_count() or 1),
) -> None:
    """Run an experiment: train, merge, make pictures, measure, and write tables and a chart."""
    with errors_shown():
        from orthoplex.benchmark.runner import run

        for folder in (results, work):
            refuse_file(folder)
        last = show_events(run(experiment, results=results, work=work, processes=processes))
    say(last["report"].message)
