"""LoRA files written in the style of another program, layer by layer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from orthoplex.concepts.companion import companion_at, remove_companion
from orthoplex.concepts.exchange.embedding_files import bundled_embeddings, files_beside, write_embeddings
from orthoplex.concepts.exchange.file_metadata import written_metadata
from orthoplex.concepts.exchange.lora_file import LoraFile
from orthoplex.concepts.exchange.modules import WrittenModule, written_modules
from orthoplex.concepts.exchange.styles import STYLES, Style
from orthoplex.errors import ConfigurationError, OutputError
from orthoplex.files import DTYPES, is_finite, write_in_order, written_atomically

_LOG = logging.getLogger(__name__)
_ROUNDING = {torch.float16: "0.05 %, or 3e-8,", torch.bfloat16: "0.2 %"}
"""Half-precision type to its largest error, of normal numbers and of the smallest."""
EmbeddingsTarget = Literal["bundle", "files", "none"]


def write_lora(
    lora: LoraFile,
    path: str | Path,
    *,
    style: str,
    dtype: torch.dtype | None = None,
    keep_ranks: bool = False,
    embeddings: EmbeddingsTarget = "files",
    overwrite: bool = True,
) -> list[Path]:
    """Write a LoRA file, whole or not at all: one type, one rank that is also alpha; equal content gives equal bytes.

    Programs that ignore alpha, or take one alpha for all layers, read such a file right. Modules of a lower rank are
    filled up with zeros. Every change is exact unless ``dtype`` rounds it.

    Args:
        lora: The changes.
        path: A name that ends in ``.safetensors``; an existing file is replaced where ``overwrite`` allows it.
        style: A name in ``STYLES``.
        dtype: float16, bfloat16 or float32; None takes the smallest that holds every number exactly.
        keep_ranks: Let every module keep its own rank, which is then its alpha.
        embeddings: ``files`` writes them beside the file (``NAME.TOKEN.safetensors``), ``bundle`` into it, which
            several programs then refuse, ``none`` leaves them out.
        overwrite: Replace older files; else all of ``files_written`` are refused before anything is written.

    Returns:
        The files that were written: the file, and embeddings beside it.

    Raises:
        ConfigurationError: If the style or type is unknown, the style has no name or spelling for a change, or a file
            is there and ``overwrite`` is False.
        OutputError: If the name ends otherwise, a number is beyond the type's range, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".safetensors":
        raise OutputError(f"{path}: a LoRA file is named '*.safetensors', not '*{path.suffix}'")
    form = _form(style)
    if embeddings == "bundle" and lora.embeddings and not form.bundles_embeddings:
        bundling = ", ".join(name for name, each in STYLES.items() if each.bundles_embeddings)
        raise ConfigurationError(f"style '{style}' bundles no embeddings; allowed are files beside it, or {bundling}")
    if dtype is not None and dtype not in DTYPES.values():
        raise ConfigurationError(f"a LoRA file of {dtype} was asked for, allowed are {', '.join(DTYPES)}")
    own, beside = _files(lora, path, embeddings)
    if not overwrite:
        _refuse_existing([*own, *beside.values()])
    if not own:
        write_embeddings(lora.embeddings, beside, lora.version, overwrite=overwrite)
        return [*beside.values()]
    bundle = bundled_embeddings(lora.embeddings, lora.version) if embeddings == "bundle" else {}
    _write(lora, path, form, dtype, bundle, keep_ranks=keep_ranks, overwrite=overwrite)
    write_embeddings(lora.embeddings, beside, lora.version, overwrite=overwrite)
    return [path, *beside.values()]


def _write(
    lora: LoraFile,
    path: Path,
    form: Style,
    dtype: torch.dtype | None,
    bundle: Mapping[str, Tensor],
    *,
    keep_ranks: bool,
    overwrite: bool,
) -> None:
    """Write the file of the changes."""
    modules = written_modules(lora, form, dtype)
    stored = dtype or exact_type(modules)
    _log_rounding(lora, modules, stored)
    rank = None if keep_ranks else max((module.rank for module in modules), default=0)
    if dtype is not None:
        bundle = {key: _rounded(key, tensor, dtype, lora) for key, tensor in bundle.items()}
    plan = _plan(modules, form, stored, rank)
    shapes = {key: torch.empty(shape, device="meta") for key, (shape, _) in plan.items()}
    metadata = written_metadata(lora, form, modules, lambda module: written_rank(module.rank, stored, rank))
    replaced = companion_at(path)
    with written_atomically(path, overwrite=overwrite) as temporary:
        write_in_order(
            {**dict.fromkeys(plan, stored), **{key: tensor.dtype for key, tensor in bundle.items()}},
            {**shapes, **bundle},
            metadata,
            temporary,
            lambda key: bundle[key] if key in bundle else _rounded(key, plan[key][1](), stored, lora),
        )
    remove_companion(replaced, path)


def files_written(lora: LoraFile, path: Path, embeddings: EmbeddingsTarget = "files") -> list[Path]:
    """Return all files that ``write_lora`` writes: the file, and embeddings beside it or in its place.

    Args:
        lora: The changes.
        path: The name that is asked for.
        embeddings: See ``write_lora``.
    """
    own, beside = _files(lora, path, embeddings)
    return [*own, *beside.values()]


def _files(lora: LoraFile, path: Path, embeddings: EmbeddingsTarget) -> tuple[list[Path], dict[str, Path]]:
    """The LoRA file, and token to file; a single embedding without changes has the name that was asked for."""
    if embeddings != "files" or not lora.embeddings:
        return [path], {}
    if lora.layers or lora.differences:
        return [path], files_beside(lora.embeddings, path)
    return [], dict.fromkeys(lora.embeddings, path) if len(lora.embeddings) == 1 else files_beside(
        lora.embeddings, path
    )


def _refuse_existing(files: Iterable[Path]) -> None:
    there = [str(file) for file in files if file.exists()]
    if there:
        verb = "exists" if len(there) == 1 else "exist"
        raise ConfigurationError(f"output {', '.join(there)} {verb}; give another name, or --overwrite to replace it")


def exact_type(modules: Sequence[WrittenModule]) -> torch.dtype:
    """Return the smallest type that holds every number of some modules exactly, their own where it does."""
    first = modules[0].types if modules else (torch.float32,)
    return next(dtype for dtype in first if all(dtype in module.types for module in modules))


def written_rank(own: int, dtype: torch.dtype, common: int | None) -> int:
    """Return the rank that a module gets: the common one or its own, made larger until the type holds it as alpha.

    Args:
        own: The module's rank.
        dtype: The file's type.
        common: The rank of the whole file; None if modules keep their own.
    """
    rank = own if common is None else common
    while int(torch.tensor(rank, dtype=dtype).item()) != rank:
        rank += 1
    return rank


def _form(style: str) -> Style:
    if style not in STYLES:
        raise ConfigurationError(f"style '{style}' is unknown, allowed: {', '.join(STYLES)}")
    return STYLES[style]


def _plan(
    modules: Iterable[WrittenModule], form: Style, dtype: torch.dtype, common: int | None
) -> dict[str, tuple[tuple[int, ...], Callable[[], Tensor]]]:
    """Key to its shape and its value, which is computed when it is asked for."""
    plan: dict[str, tuple[tuple[int, ...], Callable[[], Tensor]]] = {}
    spelling = form.spelling
    for module in modules:
        if module.rank:
            rank = written_rank(module.rank, dtype, common)
            down, up = module.factor_shapes(rank)
            plan[module.name + spelling.down] = (down, lambda module=module, rank=rank: module.down(rank))
            plan[module.name + spelling.up] = (up, lambda module=module, rank=rank: module.up(rank))
            if spelling.alpha is not None:
                plan[module.name + spelling.alpha] = ((), lambda rank=rank: torch.tensor(float(rank)))
        for ending, shape, value in module.differences(spelling):
            plan[module.name + ending] = (shape, value)
    return plan


def _log_rounding(lora: LoraFile, modules: Sequence[WrittenModule], dtype: torch.dtype) -> None:
    """Say how many modules a half-precision type rounds."""
    count = sum(dtype not in module.types for module in modules)
    if count and dtype in _ROUNDING:
        _LOG.warning(
            "%s: numbers of %d of %d modules are rounded to %s, by %s of themselves at most; float32 rounds less",
            lora.label, count, len(modules), str(dtype).removeprefix("torch."), _ROUNDING[dtype],
        )  # fmt: skip


def _rounded(key: str, tensor: Tensor, dtype: torch.dtype, lora: LoraFile) -> Tensor:
    stored = tensor.to(dtype)
    if not is_finite(stored):
        name = str(dtype).removeprefix("torch.")
        raise OutputError(
            f"{lora.label}: tensor '{key}' holds {float(tensor.abs().max()):.3g}, which {name} cannot hold; "
            "allowed is a wider type (bfloat16, float32)"
        )
    return stored
