"""``orthoplex doctor``: what this machine can do, in ten lines."""

from typing import Annotated

import typer

from orthoplex.cli.console import errors_shown
from orthoplex.cli.streams import say, say_json


def doctor(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print everything as JSON, with the size of every family.")
    ] = False,
) -> None:
    """Show devices, memory, packages, caches, and which families of bases fit; nothing is loaded."""
    with errors_shown():
        from orthoplex.models.doctor import machine_report

        report = machine_report()
        if as_json:
            say_json(report.to_json())
            return
        for line in report.lines():
            say(line)
