"""``orthoplex demo``: three concepts trained live, twelve merged, and a gallery of pictures."""

from pathlib import Path
from typing import Annotated

import typer

from orthoplex.cli.console import errors_shown, refuse_file, show_events
from orthoplex.cli.streams import say


def demo(
    output: Annotated[Path, typer.Option(help="Folder of the gallery.")] = Path("demo"),
    work: Annotated[Path | None, typer.Option(help="Folder of intermediate files; by default OUTPUT/work.")] = None,
) -> None:
    """Show what it is for: train three concepts, merge twelve, and make a gallery."""
    work = work or output / "work"
    with errors_shown():
        from orthoplex.benchmark.demo_run import run_demo

        for folder in (output, work):
            refuse_file(folder)
        last = show_events(run_demo(output, work=work))
    if "measure" in last:
        say(last["measure"].message.replace("; ", "\n"))
    say(f"gallery: {output / 'index.html'}")
