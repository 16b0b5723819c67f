"""``orthoplex merge``: concepts and a base become an ordinary pipeline folder."""

import time
from pathlib import Path
from typing import Annotated

import typer

from orthoplex.cli.console import (
    AlgorithmName,
    AlgorithmOption,
    check_merge_options,
    errors_shown,
    load_concepts,
    parse_options,
    refuse_existing,
)
from orthoplex.names import AUTO


def merge(
    concepts: Annotated[list[str], typer.Argument(help="Concept files, each with @STRENGTH if it is not 1.")],
    output: Annotated[Path, typer.Option(help="Folder of the merged pipeline.")],
    scale: Annotated[float, typer.Option(help="Strength of the whole (lambda).")] = 1.0,
    algorithm: AlgorithmName = AUTO,
    option: AlgorithmOption = None,
    base: Annotated[str, typer.Option(help="vignette, or a pipeline folder.")] = "vignette",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing folder.")] = False,
) -> None:
    """Merge concepts into a base and write an ordinary pipeline folder, with the recipe in it."""
    with errors_shown():
        refuse_existing(output, overwrite)

        from orthoplex.models import check_pipeline_folder, check_pipeline_tokens, load_base
        from orthoplex.training import merge_for

        check_pipeline_folder(output, overwrite=overwrite)
        options = parse_options(option or [])
        check_merge_options(algorithm=algorithm, options=options, scale=scale)
        model = load_base(base)
        loaded = load_concepts(concepts, model)
        layered = [item for item, _ in loaded if item.token_layers or item.keys_values]
        check_pipeline_tokens([token for item in layered for token in item.tokens])
        began = time.monotonic()
        merged = merge_for(model, loaded, algorithm=algorithm, options=options, scale=scale)
        with model.folded(merged):
            seconds = time.monotonic() - began
            model.save(output, overwrite=overwrite)
        noun = "concept" if len(loaded) == 1 else "concepts"
        typer.echo(f"{output}: {len(loaded)} {noun} merged by {merged.recipe['algorithm']} in {seconds:.2f} s")
