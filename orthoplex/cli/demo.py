"""``orthoplex demo``: three concepts trained live, twelve merged, and a gallery of pictures."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import TaskID

from orthoplex.benchmark.demo import run_demo
from orthoplex.cli.console import errors_shown, progress_bar


def demo(
    output: Annotated[Path, typer.Option(help="Folder of the gallery.")] = Path("demo"),
    work: Annotated[Path | None, typer.Option(help="Folder of intermediate files; by default OUTPUT/work.")] = None,
) -> None:
    """Show what it is for: train three concepts, merge twelve, and make a gallery."""
    with errors_shown(), progress_bar() as bar:
        tasks: dict[tuple[str, str], TaskID] = {}
        summary: list[str] = []
        for event in run_demo(output, work=work or output / "work"):
            if event.stage == "measure":
                summary = event.message.split("; ")
            key = (event.stage, event.message)
            if key not in tasks:
                tasks[key] = bar.add_task(f"{event.stage}: {event.message}", total=event.total)
            bar.update(tasks[key], completed=event.done, total=event.total)
    for line in summary:
        typer.echo(line)
    typer.echo(f"gallery: {output / 'index.html'}")
