"""``orthoplex merge``: concepts and LoRA files become one LoRA file, or with a base an ordinary pipeline folder."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orthoplex.cli.bank import BankOption, banked
from orthoplex.cli.base_arguments import (
    BaseConfigOption,
    DownloadOption,
    OptionalBaseOption,
    VariantOption,
    chosen_base,
)
from orthoplex.cli.console import (
    AlgorithmName,
    AlgorithmOption,
    argument_folder,
    check_merge_options,
    errors_shown,
    parse_options,
    parse_strength,
    refuse_existing,
)
from orthoplex.cli.file_merge import FileMergeRequest, merge_by_recipe, merge_to_file, merge_with_base
from orthoplex.cli.streams import note, say
from orthoplex.errors import ConfigurationError, OrthoplexError
from orthoplex.options import AUTO, WeightType

if TYPE_CHECKING:
    from orthoplex.models import BaseChoice

_LORA_SUFFIX = ".safetensors"
_OTHER_SUFFIXES = (
    *(".bin", ".ckpt", ".gguf", ".json", ".onnx", ".pickle", ".pkl", ".png", ".pt", ".pth", ".safetensor", ".sft"),
    *(".tar", ".zip"),
)
"""Of files that this verb does not write."""


Rank = Annotated[int | None, typer.Option(help="LoRA file: rank of the result; all ranks by default.")]
Energy = Annotated[float | None, typer.Option(help="LoRA file: share of each layer's energy to keep, such as 0.99.")]
MaxRank = Annotated[int | None, typer.Option(help="LoRA file: the highest rank that --energy may give.")]
TextEncoder = Annotated[
    float | None, typer.Option(help="LoRA file: strength of text encoders, of files that name none.")
]
Blocks = Annotated[str | None, typer.Option(help="LoRA file: block weights, as numbers, a preset, or NAME=WEIGHT,….")]
Only = Annotated[
    list[str] | None, typer.Option(help="LoRA file: a part that is merged, such as attention; may be repeated.")
]
Style = Annotated[
    str | None, typer.Option("--to", help="LoRA file: its names: kohya, comfy, diffusers; those of the first file.")
]
Family = Annotated[str | None, typer.Option(help="LoRA file: family of the files, where their names do not say it.")]
RecipeFile = Annotated[
    str | None, typer.Option(help="LoRA file: a merged file that is made again from files in its folder.")
]
RecipeFolder = Annotated[str | None, typer.Option(help="LoRA file: another folder with the files of --recipe.")]
Dtype = Annotated[
    WeightType | None, typer.Option(help="Type of the weights; by default that of the base, or of the files.")
]


def merge(
    output: Annotated[Path, typer.Option(help="A LoRA file (.safetensors), or a folder for a merged pipeline.")],
    concepts: Annotated[
        list[str] | None,
        typer.Argument(help="Concept or LoRA files, each with @STRENGTH, or @STRENGTH:TEXT-ENCODERS, if it is not 1."),
    ] = None,
    bank: BankOption = None,
    scale: Annotated[float, typer.Option(help="Strength of the whole (lambda).")] = 1.0,
    algorithm: AlgorithmName = AUTO,
    option: AlgorithmOption = None,
    base: OptionalBaseOption = None,
    dtype: Dtype = None,
    rank: Rank = None,
    energy: Energy = None,
    max_rank: MaxRank = None,
    text_encoder: TextEncoder = None,
    blocks: Blocks = None,
    only: Only = None,
    to: Style = None,
    family: Family = None,
    recipe: RecipeFile = None,
    recipe_folder: RecipeFolder = None,
    partial: Annotated[bool, typer.Option("--partial", help="Leave out keys that cannot be read.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="LoRA file: show the error per layer.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    variant: VariantOption = None,
    base_config: BaseConfigOption = None,
    download: DownloadOption = False,
) -> None:
    """Merge concepts and LoRA files into one LoRA file, without any base, or into a base as a pipeline folder."""
    with errors_shown():
        options, concepts = parse_options(option or []), banked(concepts, bank)
        without_base = {
            "--text-encoder": text_encoder, "--blocks": blocks, "--only": only, "--family": family,
            "--partial": partial, "--recipe": recipe, "--recipe-folder": recipe_folder, "--verify": verify,
        }  # fmt: skip
        request = FileMergeRequest(
            files=concepts, algorithm=algorithm, options=options, scale=scale, rank=rank, energy=energy,
            max_rank=max_rank, text_encoders=text_encoder, blocks=blocks, only=only or (), style=to, dtype=dtype,
            family=family, partial=partial, verify=verify,
        )  # fmt: skip
        chosen = chosen_base("vignette" if base is None else base, variant, base_config, download)
        _refuse_other_files(output)
        _note_presets(concepts, scale)
        is_file = output.suffix.lower() == _LORA_SUFFIX
        if is_file and base is None:
            _into_file(request, output, recipe, recipe_folder, overwrite=overwrite)
            return
        if is_file and base is not None:
            _refuse_options(without_base, f"--base is {base}", "without --base")
            _with_base(request, chosen, output, overwrite=overwrite)
            return
        of_files = {"--rank": rank, "--energy": energy, "--max-rank": max_rank, "--to": to, **without_base}
        _refuse_options(of_files, f"the output is {output}", f"with an output that ends in {_LORA_SUFFIX}")
        _into_folder(concepts, output, scale, algorithm, options, chosen, dtype, overwrite=overwrite)


def _note_presets(files: list[str], scale: float) -> None:
    """Say with which strength the papers merge whose presets concepts were trained by."""
    from orthoplex.concepts import read_manifest
    from orthoplex.merging.paper_scales import paper_scale_note

    presets = set[object]()
    for text in files:
        with suppress(OrthoplexError):  # a LoRA file of others, or a file that is refused later
            presets.add(read_manifest(parse_strength(text)[0]).training.get("preset"))
    if line := paper_scale_note(presets, scale):
        note(line)


def _refuse_other_files(output: Path) -> None:
    """Refuse a name that looks like a file of another form, and would become a folder."""
    if output.suffix.lower() in _OTHER_SUFFIXES and not output.is_dir():
        raise ConfigurationError(
            f"output is {output}; allowed are a LoRA file, as in {output.with_suffix(_LORA_SUFFIX).name}, and a folder"
        )


def _into_file(
    request: FileMergeRequest, output: Path, recipe: str | None, recipe_folder: str | None, *, overwrite: bool
) -> None:
    if recipe is None:
        if recipe_folder is not None:
            raise ConfigurationError(f"--recipe-folder is {recipe_folder}, without a recipe; allowed is with --recipe")
        if not request.files:
            raise ConfigurationError("0 files are given; allowed are concept and LoRA files, or --recipe MERGED-FILE")
        merge_to_file(request, output, overwrite=overwrite)
        return
    if request.files:
        raise ConfigurationError(
            f"--recipe {recipe} names the files of its merge; allowed beside it is none, not {request.files[0]}"
        )
    of_recipe = {
        "--scale": None if request.scale == 1 else request.scale,
        "--algorithm": None if request.algorithm == AUTO else request.algorithm,
        "--option": request.options or None, "--rank": request.rank, "--energy": request.energy,
        "--max-rank": request.max_rank, "--text-encoder": request.text_encoders, "--blocks": request.blocks,
        "--only": request.only, "--family": request.family, "--partial": request.partial,
    }  # fmt: skip
    _refuse_options(of_recipe, f"--recipe is {recipe}, which says it too", "without --recipe")
    refuse_existing(output, overwrite)
    folder = None if recipe_folder is None else argument_folder(recipe_folder)
    merge_by_recipe(parse_strength(recipe)[0], folder, request, output, overwrite=overwrite)


def _with_base(request: FileMergeRequest, base: "BaseChoice", output: Path, *, overwrite: bool) -> None:
    if not request.files:
        raise ConfigurationError("0 files are given; allowed are concept and LoRA files")
    check_merge_options(algorithm=request.algorithm, options=dict(request.options or {}), scale=request.scale)
    merge_with_base(request, base, [parse_strength(text) for text in request.files], output, overwrite=overwrite)


def _refuse_options(options: dict[str, object], given: str, allowed: str) -> None:
    named = [
        name for name, value in options.items() if value is not None and value is not False and value not in ([], ())
    ]
    if named:
        raise ConfigurationError(f"{named[0]} is given and {given}; allowed is {named[0]} {allowed}")


def _into_folder(
    concepts: list[str],
    output: Path,
    scale: float,
    algorithm: str,
    options: dict[str, float],
    base: "BaseChoice",
    dtype: WeightType | None,
    *,
    overwrite: bool,
) -> None:
    if not concepts:
        raise ConfigurationError("0 files are given; allowed are concept and LoRA files")
    refuse_existing(output, overwrite)

    import torch

    from orthoplex.activations import merge_to_folder

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
    say(f"{output}: {len(files)} {noun} merged by {merged.recipe.algorithm} in {merged.seconds:.2f} s")
