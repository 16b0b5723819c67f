"""The door: one file per verb. Errors go to standard error without a traceback, with exit code 2.

A verb imports what it needs when it is called, so that help, completion and ``inspect`` never load torch.
"""

import importlib.metadata
import signal
import sys

import typer

from orthoplex import __version__
from orthoplex.cli.bench import bench
from orthoplex.cli.check import check
from orthoplex.cli.demo import demo
from orthoplex.cli.evaluate import evaluate
from orthoplex.cli.generate import generate
from orthoplex.cli.guard import guarded
from orthoplex.cli.inspect import inspect
from orthoplex.cli.merge import merge
from orthoplex.cli.rename import rename
from orthoplex.cli.silence import silence
from orthoplex.cli.streams import say
from orthoplex.cli.train import train

app = typer.Typer(
    name="orthoplex",
    help="Concepts of a diffusion model that are trained apart and added together in an instant.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for verb in (train, check, silence, merge, generate, inspect, rename, evaluate, demo, bench):
    app.command()(verb)


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
    """Run the command line; a request to end (SIGTERM) is a Ctrl-C, so that training keeps its checkpoint."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(guarded(lambda: app(), sys.argv))


__all__ = ["app", "main"]
