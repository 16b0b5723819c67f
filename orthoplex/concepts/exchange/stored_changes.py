"""Changes that are read from a LoRA file each time they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from io import RawIOBase
from pathlib import Path
from typing import TypeVar, final

import torch
from torch import Tensor

from orthoplex.adapters import LowRank
from orthoplex.concepts.exchange.contents import LayerSource, LoraContents
from orthoplex.concepts.exchange.payloads import NUMBERS, Difference, load_payload
from orthoplex.concepts.exchange.stored_modules import StoredModule
from orthoplex.errors import ConfigurationError, FileFormatError
from orthoplex.files import ALL_DTYPES, Header

_Value = TypeVar("_Value")


@final
class ModuleReader:
    """Reads modules of one file; the last one stays in memory, since layers that are fused in it follow each other.

    Several threads may read at a time.
    """

    def __init__(self, contents: LoraContents) -> None:
        """Take a file.

        Args:
            contents: What its header says.
        """
        self._contents = contents
        self._last: tuple[StoredModule, LowRank | Difference] | None = None
        self._numbers: dict[str, float] = {}

    def change(self, module: StoredModule) -> LowRank | Difference:
        """Return the change of a module.

        Raises:
            FileFormatError: If the file has changed, or a number is not finite; names file and key.
        """
        last = self._last
        if last is None or last[0] is not module:
            parts = {part: self._tensor(key) for part, key in module.keys.items()}
            try:
                change = load_payload(module.payload).change(parts, factor=self._factor(module))
            except ConfigurationError as error:
                raise FileFormatError(f"{self._contents.path}: '{_key(module, str(error))}': {error}") from error
            last = self._last = (module, change)
        return last[1]

    def _factor(self, module: StoredModule) -> float | None:
        if not module.is_scaled or "alpha" in module.keys:
            return None
        return self._contents.factors.get(module.name)

    def _tensor(self, key: str) -> Tensor:
        """Read a tensor; single numbers, such as alpha, stay in memory."""
        if key in self._numbers:
            return torch.tensor(self._numbers[key], dtype=torch.float64)
        tensor = read_tensor(self._contents.path, self._contents.header, key)
        if tensor.ndim == 0:
            self._numbers[key] = tensor.double().item()
        return tensor


def read_tensor(path: Path, header: Header, key: str) -> Tensor:
    """Read one tensor of a file; nothing else of it stays in memory.

    Args:
        path: The file.
        header: Its header.
        key: The tensor's name.

    Raises:
        FileFormatError: If the type is none that torch has, or the file cannot be read or was replaced.
    """
    entry = header.entries[key]
    if entry.dtype not in ALL_DTYPES:
        raise FileFormatError(f"{path}: tensor '{key}' has type {entry.dtype}, allowed are {', '.join(ALL_DTYPES)}")
    content = torch.empty(entry.end - entry.start, dtype=torch.uint8)
    try:
        with path.open("rb", buffering=0) as file:
            header.check_unchanged(path, file.fileno())
            file.seek(header.data_start + entry.start)
            size = _read_into(file, content)
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be read: {error}") from error
    if size != len(content):
        raise FileFormatError(f"{path}: is cut off in tensor '{key}'")
    return content.view(ALL_DTYPES[entry.dtype]).reshape(entry.shape)


def _read_into(file: RawIOBase, content: Tensor) -> int:
    """Fill a tensor of bytes from a file, and return how many the file had."""
    view, size = content.numpy().data, 0
    while size < len(view):
        count = file.readinto(view[size:])
        if not count:
            break
        size += count
    return size


class _Stored(Mapping[str, _Value]):
    """Names to changes, each read when it is asked for."""

    def __init__(self, reader: ModuleReader, sources: Mapping[str, LayerSource]) -> None:
        """Take what a header says.

        Args:
            reader: Of the file.
            sources: Name to its place.
        """
        self._reader, self._sources = reader, sources

    def __contains__(self, name: object) -> bool:
        return name in self._sources

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)


@final
class StoredLayers(_Stored[LowRank]):
    """Layer to its change, read each time it is asked for."""

    def __getitem__(self, layer: str) -> LowRank:
        source = self._sources[layer]
        change = self._reader.change(source.module)
        if not isinstance(change, LowRank):
            raise AssertionError(f"'{layer}' was announced as low-rank")
        if not source.is_part and not source.swapped_halves:
            return change
        return LowRank(_own_rows(change.up, source), change.down)


@final
class StoredDifferences(_Stored[Tensor]):
    """Parameter to its full difference, read each time it is asked for."""

    def __getitem__(self, parameter: str) -> Tensor:
        source = self._sources[parameter]
        change = self._reader.change(source.module)
        if not isinstance(change, Difference):
            raise AssertionError(f"'{parameter}' was announced as a full difference")
        return _own_rows(change.values, source).reshape(source.shape)


def _own_rows(values: Tensor, source: LayerSource) -> Tensor:
    """The rows of one layer."""
    rows = values[source.start : source.start + source.shape[0]]
    return torch.cat(rows.chunk(2)[::-1]) if source.swapped_halves else rows


def _key(module: StoredModule, error: str) -> str:
    """The key of the part that an error begins with, else of the first."""
    parts = {part: key for part, key in module.keys.items() if part not in NUMBERS}
    return next((key for part, key in parts.items() if error.startswith(f"{part} ")), next(iter(parts.values())))
