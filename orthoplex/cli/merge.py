"""``orthoplex merge``: concepts and a base become an ordinary pipeline folder."""

from pathlib import Path
from typing import Annotated

import typer

from orthoplex.cli.console import (
    AlgorithmName,
    AlgorithmOption,
    check_merge_options,
    errors_shown,
    parse_options,
    parse_strength,
    refuse_existing,
)
from orthoplex.cli.streams import say
from orthoplex.options import AUTO, WeightType


def merge(
    concepts: Annotated[list[str], typer.Argument(help="Concept files, each with @STRENGTH if it is not 1.")],
    output: Annotated[Path, typer.Option(help="Folder of the merged pipeline.")],
    scale: Annotated[float, typer.Option(help="Strength of the whole (lambda).")] = 1.0,
    algorithm: AlgorithmName = AUTO,
    option: AlgorithmOption = None,
    base: Annotated[str, typer.Option(help="vignette, or a pipeline folder.")] = "vignette",
    dtype: Annotated[WeightType | None, typer.Option(help="Type of the weights; by default that of the base.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing folder.")] = False,
) -> None:
    """Merge concepts into a base and write an ordinary pipeline folder, with the recipe in it."""
    with errors_shown():
        refuse_existing(output, overwrite)

        import torch

        from orthoplex.activations import merge_to_folder

        options = parse_options(option or [])
        check_merge_options(algorithm=algorithm, options=options, scale=scale)
        files = [parse_strength(text) for text in concepts]
        merged = merge_to_folder(
            base,
            files,
            output,
            algorithm=algorithm,
            options=options,
            scale=scale,
            overwrite=overwrite,
            dtype=None if dtype is None else getattr(torch, dtype),
        )
        noun = "concept" if len(files) == 1 else "concepts"
        summary = f"{len(files)} {noun} merged by {merged.recipe.algorithm} in {merged.seconds:.2f} s"
        say(f"{output}: {summary}")
