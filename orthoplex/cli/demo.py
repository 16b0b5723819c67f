"""``orthoplex demo``: three concepts trained live, twelve merged, and a gallery of pictures."""

from pathlib import Path
from typing import Annotated

import typer

from orthoplex.benchmark.demo import run_demo
from orthoplex.cli.console import errors_shown, show_events


def demo(
    output: Annotated[Path, typer.Option(help="Folder of the gallery.")] = Path("demo"),
    work: Annotated[Path | None, typer.Option(help="Folder of intermediate files; by default OUTPUT/work.")] = None,
) -> None:
    """Show what it is for: train three concepts, merge twelve, and make a gallery."""
    with errors_shown():
        last = show_events(run_demo(output, work=work or output / "work"))
    if "measure" in last:
        typer.echo(last["measure"].message.replace("; ", "\n"))
    typer.echo(f"gallery: {output / 'index.html'}")
