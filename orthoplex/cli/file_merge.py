"""``orthoplex merge`` into one LoRA file, without a base."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from orthoplex.cli.console import refuse_existing
from orthoplex.cli.file_arguments import parse_file, warn_left_out
from orthoplex.cli.streams import note, say, say_table
from orthoplex.errors import ConfigurationError
from orthoplex.options import AUTO

if TYPE_CHECKING:
    import torch

    from orthoplex.concepts.exchange import LoraFile
    from orthoplex.merging import FileMerge, Strengths, Truncation
    from orthoplex.models import BaseChoice

_SHOWN_LAYERS = 5


@dataclass(frozen=True)
class FileMergeRequest:
    """The options of a merge into a file, as the command line gives them.

    Attributes:
        files: Files with their strengths.
        algorithm: A name in ``ALGORITHMS``; ``auto`` is ``sum``.
        options: Its options.
        scale: The strength of the whole.
        rank: The rank of the result, or None.
        energy: The share of energy that a truncation keeps, or None.
        max_rank: The highest rank that ``energy`` gives, or None.
        text_encoders: The strength of text encoders of files that name none, or None.
        blocks: Block weights of files that name none, or None.
        only: Parts of the model that are merged; empty for all.
        style: How the result names its layers, or None for that of the first file.
        dtype: Name of the type of its numbers, or None for that of the files.
        family: The family of the files, where their names do not say it, or None.
        partial: True if keys that cannot be read are left out.
        verify: True if the written file is compared with the sum in float64.
    """

    files: Sequence[str]
    algorithm: str = AUTO
    options: Mapping[str, float] | None = None
    scale: float = 1.0
    rank: int | None = None
    energy: float | None = None
    max_rank: int | None = None
    text_encoders: float | None = None
    blocks: str | None = None
    only: Sequence[str] = ()
    style: str | None = None
    dtype: str | None = None
    family: str | None = None
    partial: bool = False
    verify: bool = False


def merge_to_file(request: FileMergeRequest, output: Path, *, overwrite: bool) -> None:
    """Merge LoRA files and write one.

    Raises:
        ConfigurationError: When an option is not allowed or the output exists; see ``merge_files``.
        FileFormatError: When a file cannot be read.
        OutputError: When the output cannot be written.
    """
    from orthoplex.concepts.exchange import read_lora
    from orthoplex.files import check_writable
    from orthoplex.merging import FileSettings, merge_files

    _check_verify(request)
    refuse_existing(output, overwrite)
    check_writable(output)
    named = [parse_file(text) for text in request.files]
    strengths = [_completed(own, request) for _, own in named]
    truncation = _truncation(request)
    _refuse_input(output, [path for path, _ in named])
    files = [read_lora(path, partial=request.partial, family=request.family) for path, _ in named]
    for lora in files:
        warn_left_out(lora)
    began = time.monotonic()
    merged = merge_files(
        list(zip(files, strengths, strict=True)),
        algorithm="sum" if request.algorithm == AUTO else request.algorithm,
        options=request.options,
        scale=request.scale,
        truncation=truncation,
        only=request.only,
        name=output.stem,
    )
    settings = FileSettings(request.style or files[0].style, request.dtype, request.family, request.partial)
    _write(
        merged.with_settings(settings),
        list(zip(files, strengths, strict=True)),
        output,
        request,
        began,
        overwrite=overwrite,
    )


def merge_with_base(
    request: FileMergeRequest, base: BaseChoice, files: Sequence[tuple[Path, float]], output: Path, *, overwrite: bool
) -> None:
    """Merge concept and LoRA files with a base at hand, and write one LoRA file.

    Raises:
        ConfigurationError: When an option is not allowed or the output exists.
        BaseModelError: When the base cannot be loaded, or a file does not fit it.
    """
    from orthoplex.activations import merge_to_lora
    from orthoplex.concepts.exchange import read_lora
    from orthoplex.files import check_writable

    refuse_existing(output, overwrite)
    check_writable(output)
    _refuse_input(output, [path for path, _ in files])
    began = time.monotonic()
    lora, recipe = merge_to_lora(
        base, files, algorithm=request.algorithm, options=request.options, scale=request.scale,
        truncation=_truncation(request), name=output.stem,
    )  # fmt: skip
    stored, dtype, rounding = _stored(lora, [path for path, _ in files], request.dtype)
    if rounding is not None and request.rank is request.energy is None:
        note(rounding)
    style = request.style or (lora.style if lora.family is None else read_lora(files[0][0], partial=True).style)
    written = _written(stored, output, style, dtype, request, overwrite=overwrite)
    noun = "file" if len(files) == 1 else "files"
    say(f"{output}: {len(files)} {noun} merged by {recipe.algorithm} in {time.monotonic() - began:.2f} s")
    for beside in written[1:]:
        say(f"{beside}: embedding")


def merge_by_recipe(
    recipe_file: Path, folder: Path | None, request: FileMergeRequest, output: Path, *, overwrite: bool
) -> None:
    """Make the merge of a merged file again, from files in a folder; None for the folder of that file.

    Raises:
        ConfigurationError: When the file has no recipe, files are missing or have other content.
    """
    from orthoplex.concepts.exchange import read_lora
    from orthoplex.files import check_writable, read_header
    from orthoplex.merging import FileRecipe, Strengths, merge_again

    check_writable(output)
    _refuse_input(output, [recipe_file])
    recipe = FileRecipe.of_metadata(read_header(recipe_file).metadata, str(recipe_file))
    settings = replace(
        recipe.settings, style=request.style or recipe.settings.style, dtype=request.dtype or recipe.settings.dtype
    )
    request = replace(request, algorithm=recipe.algorithm, dtype=settings.dtype)
    _check_verify(request)
    began = time.monotonic()
    files = recipe.find(
        recipe_file.parent if folder is None else folder,
        lambda path: read_lora(path, partial=settings.partial, family=settings.family),
    )
    _refuse_input(output, [file.path for file in files if file.path is not None])
    for lora in files:
        warn_left_out(lora)
    merged = merge_again(recipe, files, name=output.stem).with_settings(settings)
    strengths = [Strengths.read(item.strengths) for item in recipe.files]
    _write(merged, list(zip(files, strengths, strict=True)), output, request, began, overwrite=overwrite)


def _check_verify(request: FileMergeRequest) -> None:
    if request.verify and request.algorithm not in (AUTO, "sum", "mean"):
        raise ConfigurationError(
            f"--verify is given and the algorithm is {request.algorithm!r}; allowed for a verification are sum and mean"
        )


def _truncation(request: FileMergeRequest) -> Truncation | None:
    from orthoplex.merging import Truncation

    if request.rank is None and request.energy is None and request.max_rank is None:
        return None
    return Truncation(request.rank, request.energy, request.max_rank)


def _completed(strengths: Strengths, request: FileMergeRequest) -> Strengths:
    """A file's strengths, with those of the whole command where it names none of its own."""
    from orthoplex.merging import BlockWeights

    if strengths.text_encoders is None and request.text_encoders is not None:
        strengths = replace(strengths, text_encoders=request.text_encoders)
    if request.blocks is not None and not strengths.blocks.text:
        strengths = replace(strengths, blocks=BlockWeights.read(request.blocks))
    return strengths


def _refuse_input(output: Path, inputs: Sequence[Path]) -> None:
    for path in inputs:
        if output.exists() and path.exists() and output.samefile(path):
            raise ConfigurationError(f"output {output} is one of the files that are merged; give another name")


def _write(
    merged: FileMerge,
    members: Sequence[tuple[LoraFile, Strengths]],
    output: Path,
    request: FileMergeRequest,
    began: float,
    *,
    overwrite: bool,
) -> None:
    paths = [file.path for file, _ in members if file.path is not None]
    lora, dtype, rounding = _stored(merged.lora, paths, request.dtype)
    for line in (*merged.notes, *([] if merged.lost else [rounding or merged.rounding])):
        if line is not None:
            note(line)
    written = _written(lora, output, merged.lora.style, dtype, request, overwrite=overwrite)
    seconds = time.monotonic() - began
    noun = "file" if len(merged.recipe.files) == 1 else "files"
    summary = f"{len(merged.recipe.files)} {noun} merged by {merged.recipe.algorithm} in {seconds:.2f} s"
    if merged.losses:
        summary += f", {merged.lost:.2%} of the energy cut off"
    say(f"{output}: {summary}")
    for beside in written[1:]:
        say(f"{beside}: embedding")
    if request.verify:
        _verify(output, merged, members)


def _stored(
    lora: LoraFile, paths: Sequence[Path], asked: str | None
) -> tuple[LoraFile, torch.dtype | None, str | None]:
    """Return the changes as they are written, the type, and a sentence about what the type rounds; None for nothing.

    The type of the files is taken where it costs no more than its digits, and float32 where it would cost more.
    """
    import torch

    from orthoplex.merging.file_rounding import fitted, rounded

    dtype = common_type(paths) if asked is None else getattr(torch, asked)
    if dtype not in (torch.float16, torch.bfloat16):
        return lora, dtype, None
    name = str(dtype).removeprefix("torch.")
    balanced, rounding = fitted(lora, dtype)
    if not rounding.is_fit and asked is None:
        if not math.isfinite(rounding.error):
            return lora, torch.float32, f"written in float32: numbers are beyond the range of {name}"
        line = f"written in float32: {name} would round {rounding.error:.1e} of the change"
        return lora, torch.float32, f"{line}; --dtype {name} halves the file"
    if not math.isfinite(rounding.error):
        return lora, dtype, None  # writing refuses it, and names the number
    line = f"rounded once to {name}: {rounding.error:.1e} of the change; --dtype float32 rounds less"
    return rounded(balanced, dtype), dtype, line if rounding.error else None


def _written(
    lora: LoraFile, output: Path, style: str, dtype: torch.dtype | None, request: FileMergeRequest, *, overwrite: bool
) -> list[Path]:
    """Write a file; errors about the style name the option that gives another."""
    from orthoplex.concepts.exchange import write_lora

    try:
        return write_lora(lora, output, style=style, dtype=dtype, overwrite=overwrite)
    except ConfigurationError as error:
        if request.style is not None or "style" not in str(error):
            raise
        raise ConfigurationError(f"{error}; --to names the style, which is else that of the first file") from error


def common_type(paths: Sequence[Path]) -> torch.dtype | None:
    """Return the one half-precision type of all files' numbers; float32 where they are of several types, or wider.

    Only the headers are read. None without files.
    """
    import torch

    from orthoplex.concepts.exchange.contents import tensor_file
    from orthoplex.files import DTYPES, read_header

    types = {entry.dtype for path in paths for entry in read_header(tensor_file(path)).entries.values() if entry.shape}
    types = {"F16" if name.startswith("F8_") else name for name in types}
    if not types:
        return None
    return DTYPES[types.pop()] if len(types) == 1 and types <= DTYPES.keys() else torch.float32


def _verify(output: Path, merged: FileMerge, members: Sequence[tuple[LoraFile, Strengths]]) -> None:
    """Draw the distance of the written file to the sum in float64, of the layers that are furthest from it."""
    from orthoplex.concepts.exchange import read_lora
    from orthoplex.concepts.exchange.detection import OTHER
    from orthoplex.merging import verify

    recipe = merged.recipe
    errors = verify(
        read_lora(output, family=merged.lora.family or OTHER),
        members,
        algorithm=recipe.algorithm,
        scale=recipe.scale,
        truncated=recipe.truncation is not None,
        only=recipe.only,
    )
    worst = sorted(errors, key=lambda item: -item.error)
    rows = [(item.name, f"{item.error:.2e}", f"{item.floor:.2e}") for item in worst[:_SHOWN_LAYERS]]
    floor = "nearest of its ranks and type" if recipe.truncation is not None else "floor of its type"
    title = f"{output}: distance to the sum in float64, the furthest {len(rows)} of {len(worst)} layers"
    say_table(title, rows, ("layer", "distance", floor))
