"""The files of a component's weights: searched as the libraries search, and written for old and new releases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from orthoplex.errors import ConfigurationError, FileFormatError
from orthoplex.files import DTYPES, Header, read_header, read_json, write_in_order

_VARIANTS = (None, "fp16")


def stem(component: str, *, is_pickle: bool = False) -> str:
    """Return a weights file's name without its ending: transformers names text encoders, diffusers all others."""
    if not component.startswith("text_encoder"):
        return "diffusion_pytorch_model"
    return "pytorch_model" if is_pickle else "model"


@final
@dataclass(frozen=True)
class WeightFiles:
    """The files that a library reads for one component.

    Attributes:
        files: The weights: one file, or all shards.
        main: The file that errors name: the only one, or the index of the shards.
        variant: What stands between the name and its ending, as ``fp16`` in ``model.fp16.safetensors``; or None.
        is_safetensors: False for pickles.
    """

    files: tuple[Path, ...]
    main: Path
    variant: str | None = None
    is_safetensors: bool = True


def find_weights(folder: Path, component: str) -> WeightFiles | None:
    """Find a component's weights: safetensors before pickles, plain names before ``fp16`` ones, these before others.

    Args:
        folder: The component's folder.
        component: The component's name.

    Returns:
        The files; None if there are none, or if one file and shards lie side by side: libraries differ in their choice.
    """
    for place in _places(folder, component):
        has_single, has_index = place.single.is_file(), place.index.is_file()
        if has_single and has_index:
            return None
        if has_single:
            return WeightFiles((place.single,), place.single, place.variant, place.is_safetensors)
        if has_index:
            return WeightFiles(_shards(place.index), place.index, place.variant, place.is_safetensors)
    return None


def has_single_file(folder: Path, component: str) -> bool:
    """Return True if a component has a file with all of its weights."""
    return any(place.single.is_file() for place in _places(folder, component))


@final
@dataclass(frozen=True)
class _Place:
    """Where weights may lie: in one file, or in the shards that an index names."""

    single: Path
    index: Path
    variant: str | None
    is_safetensors: bool


def _places(folder: Path, component: str) -> Iterator[_Place]:
    """Yield the places of a component's weights, in the order in which they are preferred."""
    for ending in ("safetensors", "bin"):
        name = stem(component, is_pickle=ending == "bin")
        for variant in (*_VARIANTS, *_other_variants(folder, name, ending)):
            mark = "" if variant is None else f".{variant}"
            yield _Place(
                folder / f"{name}{mark}.{ending}",
                folder / f"{name}.{ending}.index{mark}.json",
                variant,
                ending == "safetensors",
            )


def _other_variants(folder: Path, name: str, ending: str) -> list[str]:
    """The variants of single files that are there, as ``non_ema`` of ``model.non_ema.safetensors``; sorted."""
    marks = [path.name[len(name) + 1 : -len(ending) - 1] for path in folder.glob(f"{name}.*.{ending}")]
    return sorted(mark for mark in marks if mark not in _VARIANTS and "." not in mark and "-of-" not in mark)


def stored_dtype(headers: Mapping[Path, Header]) -> torch.dtype | None:
    """The data type in which most of a component's floating-point numbers are stored; None if there are none."""
    numbers: Counter[str] = Counter()
    for header in headers.values():
        for entry in header.entries.values():
            if entry.dtype in DTYPES:
                numbers[entry.dtype] += torch.Size(entry.shape).numel()
    return DTYPES[numbers.most_common(1)[0][0]] if numbers else None


def read_headers(component: WeightFiles | None) -> dict[Path, Header] | None:
    """Read the headers of a component's files; data types may be any, as old text encoders hold whole numbers.

    Returns:
        File to header; None for pickles and for damaged files.
    """
    if component is None or not component.is_safetensors:
        return None
    try:
        headers = {path: read_header(path) for path in component.files}
        for path, header in headers.items():
            header.check_whole(path)
    except FileFormatError:
        return None
    return headers


def write_weights(tensors: Mapping[str, Tensor], path: Path, dtype: torch.dtype | None = None) -> None:
    """Write a safetensors file as the libraries write it; equal content gives equal bytes.

    Weights are converted and written one after another, so that no second copy of a network is in memory; how they lie
    in memory does not matter.

    Args:
        tensors: Name to tensor.
        path: The file to write.
        dtype: The type of the floating-point tensors in the file; None keeps theirs.

    Raises:
        ConfigurationError: If a number is finite in memory and not in ``dtype``; names the tensor.
    """
    types = {name: dtype if dtype and values.is_floating_point() else values.dtype for name, values in tensors.items()}
    write_in_order(
        types, tensors, {"format": "pt"}, path, lambda name: _converted(name, tensors[name].detach(), types[name])
    )


def _converted(name: str, values: Tensor, dtype: torch.dtype) -> Tensor:
    if values.dtype == dtype:
        return values
    converted = values.to(dtype)
    if not converted.isfinite().all() and values.isfinite().all():
        limit = torch.finfo(dtype).max
        raise ConfigurationError(f"tensor '{name}' holds {values.abs().max().item():g}, {dtype} up to {limit:g}")
    return converted


def _shards(index: Path) -> tuple[Path, ...]:
    """The files that an index names; none if it cannot be read, about which the library complains better."""
    try:
        names = set(read_json(index)["weight_map"].values())
        return tuple(index.parent / name for name in sorted(names))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ()
