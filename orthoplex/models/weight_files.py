"""The files of a component's weights: searched as the libraries search, and written for old and new releases."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from orthoplex.errors import ConfigurationError, FileFormatError
from orthoplex.files import DTYPES, Header, read_header, read_json, write_in_order
from orthoplex.models.layer_names import is_text_encoder

_VARIANTS = (None, "fp16")


@final
@dataclass(frozen=True)
class CheckpointPart:
    """The weights of one component in a checkpoint file, under the names of the program that wrote it.

    Attributes:
        path: The file.
        names: Its tensors that are the component's.
    """

    path: Path
    names: frozenset[str]

    def of(self, header: Header) -> Header:
        """Return the header of the file with the component's tensors alone."""
        return replace(header, entries={name: header.entries[name] for name in sorted(self.names)})


def stem(component: str, *, is_pickle: bool = False) -> str:
    """Return a weights file's name without its ending: transformers names text encoders, diffusers all others."""
    if not is_text_encoder(component):
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
        part: Where the weights lie in a checkpoint file; None for files of the component alone.
    """

    files: tuple[Path, ...]
    main: Path
    variant: str | None = None
    is_safetensors: bool = True
    part: CheckpointPart | None = None

    @property
    def has_index(self) -> bool:
        """True if the weights lie in shards, which an index names."""
        return self.part is None and self.files != (self.main,)


def find_weights(folder: Path, component: str, variant: str | None = None) -> WeightFiles | None:
    """Find a component's weights: safetensors before pickles, plain names before ``fp16`` ones, these before others.

    Args:
        folder: The component's folder.
        component: The component's name.
        variant: The variant that goes before all others.

    Returns:
        The files; None if there are none, or if one file and shards lie side by side: libraries differ in their choice.
    """
    for place in _places(_file_names(folder), component, variant):
        if place.has_single and place.has_index:
            return None
        if place.has_single or place.has_index:
            main = folder / (place.single if place.has_single else place.index)
            files = (main,) if place.has_single else _shards(main)
            return WeightFiles(files, main, place.variant, place.is_safetensors)
    return None


def needed_weights(names: Collection[str], component: str, variant: str | None = None) -> list[str]:
    """Return which of the files of a component's folder ``find_weights`` would choose, before they are fetched.

    Args:
        names: The files that the folder will have.
        component: The component's name.
        variant: See ``find_weights``.
    """
    for place in _places(names, component, variant):
        if place.has_single:
            return [place.single]
        if place.has_index:
            return [place.index, *sorted(name for name in names if place.is_shard(name))]
    return []


def variants_of(folder: Path, component: str) -> list[str]:
    """Return the variants that a component has weights of; sorted."""
    places = _places(_file_names(folder), component, None)
    return sorted({place.variant for place in places if place.variant and (place.has_single or place.has_index)})


def has_single_file(folder: Path, component: str) -> bool:
    """Return True if a component has a file with all of its weights."""
    return any(place.has_single for place in _places(_file_names(folder), component, None))


def _file_names(folder: Path) -> frozenset[str]:
    try:
        return frozenset(path.name for path in folder.iterdir() if path.is_file())
    except OSError:
        return frozenset()


@final
@dataclass(frozen=True)
class _Place:
    """Where weights may lie: in one file, or in the shards that an index names."""

    single: str
    index: str
    variant: str | None
    is_safetensors: bool
    has_single: bool
    has_index: bool

    def is_shard(self, name: str) -> bool:
        """Return True for the name of a shard, of old releases or of new ones."""
        stem, _, ending = self.single.rpartition(".")
        plain = stem if self.variant is None else stem.removesuffix(f".{self.variant}")
        mark = "" if self.variant is None else rf"\.{re.escape(self.variant)}"
        number, ending = r"-\d+-of-\d+", re.escape(ending)
        return bool(re.fullmatch(rf"{re.escape(plain)}({mark}{number}|{number}{mark})\.{ending}", name))


def _places(names: Collection[str], component: str, first: str | None) -> Iterator[_Place]:
    """Yield the places of a component's weights, in the order in which they are preferred."""
    for ending in ("safetensors", "bin"):
        name = stem(component, is_pickle=ending == "bin")
        chosen = () if first is None else (first,)
        for variant in dict.fromkeys((*chosen, *_VARIANTS, *_other_variants(names, name, ending))):
            mark = "" if variant is None else f".{variant}"
            single, index = f"{name}{mark}.{ending}", f"{name}.{ending}.index{mark}.json"
            yield _Place(single, index, variant, ending == "safetensors", single in names, index in names)


def _other_variants(names: Collection[str], name: str, ending: str) -> list[str]:
    """The variants that are there, as ``non_ema`` of ``model.non_ema.safetensors``, single or in shards; sorted."""
    single = re.compile(rf"{re.escape(name)}\.([^.]+)\.{ending}")
    index = re.compile(rf"{re.escape(name)}\.{ending}\.index\.([^.]+)\.json")
    marks = {match[1] for each in names if (match := single.fullmatch(each) or index.fullmatch(each))}
    return sorted(mark for mark in marks if mark not in _VARIANTS and "-of-" not in mark)


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
    return headers if component.part is None else {path: component.part.of(headers[path]) for path in headers}


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
