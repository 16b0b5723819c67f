"""``orthoplex bench``: compute what an experiment asks for, or what of it is missing."""

import os
from pathlib import Path
from typing import Annotated

import typer

from orthoplex.cli.base_arguments import (
    BaseConfigOption,
    DownloadOption,
    OptionalBaseOption,
    VariantOption,
    chosen_base,
)
from orthoplex.cli.console import errors_shown, refuse_file, show_events
from orthoplex.cli.encoder_arguments import ENCODER_FORM, ENCODER_HELP, encoder_settings
from orthoplex.cli.streams import say
from orthoplex.errors import ConfigurationError


def bench(
    experiment: Annotated[Path, typer.Argument(help="TOML file, for example experiments/merge-of-twelve.toml.")],
    results: Annotated[Path, typer.Option(help="Folder of the result files.")] = Path("results"),
    work: Annotated[Path, typer.Option(help="Folder that remembers what was computed.")] = Path("work/concepts"),
    processes: Annotated[int, typer.Option(help="How many processes share the work.")] = min(2, os.cpu_count() or 1),
    base: OptionalBaseOption = None,
    pictures: Annotated[
        Path | None,
        typer.Option(help="Folder with concepts.json, and a folder of pictures for each concept in it."),
    ] = None,
    encoder: Annotated[
        list[str] | None,
        typer.Option(metavar=ENCODER_FORM, help=f"{ENCODER_HELP}; may be repeated."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, …")] = "cpu",
    variant: VariantOption = None,
    base_config: BaseConfigOption = None,
    download: DownloadOption = False,
) -> None:
    """Run an experiment: train, merge, make pictures, measure, and write tables and a chart."""
    with errors_shown():
        from orthoplex.benchmark.experiment import Choices
        from orthoplex.benchmark.runner import run

        for folder in (results, work):
            refuse_file(folder)
        if base is None and (variant is not None or base_config is not None or download):
            raise ConfigurationError(
                "--variant, --base-config and --download are given without --base; allowed with it"
            )
        choices = Choices(
            base=None if base is None else chosen_base(base, variant, base_config, download),
            pictures=pictures,
            encoders=tuple(encoder_settings(text) for text in encoder or []),
            device=device,
        )
        last = show_events(run(experiment, results=results, work=work, processes=processes, choices=choices))
    say(last["report"].message)
