"""``orthoplex silence``: erasure in closed form, of a concept file that was trained without it."""

import time
from pathlib import Path
from typing import Annotated

import typer

from orthoplex.cli.base_arguments import BaseConfigOption, BaseOption, DownloadOption, VariantOption, chosen_base
from orthoplex.cli.console import check_erasure_weight, errors_shown, named_file, refuse_concept_output
from orthoplex.cli.streams import say
from orthoplex.errors import ConfigurationError


def silence(
    concept: Annotated[str, typer.Argument(help="Concept file.")],
    output: Annotated[Path, typer.Option(help="Concept file to write.")],
    weight: Annotated[float, typer.Option(help="Weight of erasure against the concept's own prompts.")] = 30.0,
    base: BaseOption = "vignette",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing concept file.")] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, …")] = "cpu",
    variant: VariantOption = None,
    base_config: BaseConfigOption = None,
    download: DownloadOption = False,
) -> None:
    """Make a concept silent where it is not named (erasure in closed form); nothing is trained, no picture needed."""
    with errors_shown():
        refuse_concept_output(output, overwrite)
        file = named_file(concept)
        check_erasure_weight(weight)

        from orthoplex.activations import ErasureOptions, with_erasure
        from orthoplex.concepts import load_concept, save_concept
        from orthoplex.files import check_writable
        from orthoplex.models import load_base, on_base

        check_writable(output)
        model = load_base(chosen_base(base, variant, base_config, download), device=device)
        options = ErasureOptions(weight=weight).with_defaults(model.training_defaults)
        loaded = on_base(load_concept(file), model)
        if not loaded.layers:
            raise ConfigurationError(f"concept {loaded.name} changes no weight; there is nothing to silence")
        began = time.monotonic()
        save_concept(with_erasure(model, loaded, options), output, overwrite=overwrite)
        say(f"{output} in {time.monotonic() - began:.1f} s")
