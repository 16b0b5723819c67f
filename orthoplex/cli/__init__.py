"""The door: one file per verb. Errors go to standard error in one line.

Exit codes: 0, 2 for an error with a cure, 70 for an unforeseen one, 74 for standard output that took not all, 130 for
an interrupt; 1 and 3 for mild and strong conflicts (``conflicts``).

A verb imports what it needs when it is called, so that help, completion and ``inspect`` never load torch.
"""

import importlib.metadata
import sys

import typer

from orthoplex import __version__
from orthoplex.cli.adopt import adopt
from orthoplex.cli.bank import app as bank
from orthoplex.cli.bench import bench
from orthoplex.cli.check import check
from orthoplex.cli.conflicts import conflicts
from orthoplex.cli.convert import convert
from orthoplex.cli.demo import demo
from orthoplex.cli.doctor import doctor
from orthoplex.cli.evaluate import evaluate
from orthoplex.cli.generate import generate
from orthoplex.cli.guard import guarded
from orthoplex.cli.inspect import inspect
from orthoplex.cli.merge import merge
from orthoplex.cli.rename import rename
from orthoplex.cli.signals import ignore_interrupts, interrupt_once
from orthoplex.cli.silence import silence
from orthoplex.cli.spelled import SpelledCommand
from orthoplex.cli.streams import say
from orthoplex.cli.train import train

app = typer.Typer(
    name="orthoplex",
    help="Concepts of a diffusion model that are trained apart and added together in an instant.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
VERBS = (
    *(train, check, silence, adopt, conflicts, merge, generate, inspect, convert, rename, evaluate, demo, bench),
    doctor,
)
for verb in VERBS:
    app.command(cls=SpelledCommand if verb is train else None)(verb)
app.add_typer(bank, name="bank")


def _print_version(asked: bool) -> None:
    if asked:
        versions = {name: importlib.metadata.version(name) for name in ("torch", "diffusers")}
        others = ", ".join(f"{name} {version}" for name, version in versions.items())
        say(f"orthoplex {__version__} ({others})")
        raise typer.Exit()


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", help="Print the version.", callback=_print_version, is_eager=True),
) -> None:
    """Concepts of a diffusion model that are trained apart and added together in an instant."""


def main() -> None:
    """Run the command line; every request to end is a Ctrl-C, so that training keeps its checkpoint."""
    interrupt_once()
    code = guarded(lambda: app(), sys.argv)
    ignore_interrupts()
    sys.exit(code)


__all__ = ["app", "main"]
