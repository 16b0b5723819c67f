"""``weights_hash`` of a folder: read from its files beside the loading, and remembered."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import final

import torch
from torch import nn

from orthoplex.files import DTYPES, Header, TensorEntry
from orthoplex.models.hash_cache import fingerprint, recall, remember
from orthoplex.models.identity import is_hashed
from orthoplex.models.layer_names import component_name
from orthoplex.models.weight_files import WeightFiles

CHUNK_BYTES = 1024 * 1024
"""How much is read and hashed at a time: what stays in a processor's cache between the two."""


@dataclass(frozen=True)
class _Place:
    """Where a tensor lies."""

    file: Path
    data_start: int
    entry: TensorEntry


@final
class FolderHash:
    """The ``weights_hash`` of the model that a folder's files hold; a ``with`` block ends its thread.

    A remembered hash is taken while every file is as it was. Otherwise the files are read in a thread of its own,
    without a model: SHA-256 and reading leave the interpreter to the thread that loads.
    """

    def __init__(
        self, weight_files: Mapping[str, WeightFiles | None], headers: Mapping[str, Mapping[Path, Header] | None]
    ) -> None:
        """Recall the hash, or begin to compute it.

        Args:
            weight_files: Component to its files, or None where only the library knows.
            headers: Component to the headers of its files, or None where they are not to be streamed.
        """
        known = {component: files for component, files in weight_files.items() if files is not None}
        self._files = {component: files.main for component, files in known.items()}
        self._alone = {component for component, files in known.items() if files.part is not None}
        is_plain = len(known) == len(weight_files) and not self._alone
        self._before = fingerprint(self._files, alone=self._alone) if len(known) == len(weight_files) else None
        self._remembered = None if self._before is None else recall(self._before)
        self._stop = Event()
        self._places: dict[str, _Place] = {}
        self._future: Future[str | None] | None = None
        self._executor: ThreadPoolExecutor | None = None
        if self._remembered is None and is_plain and all(files is not None for files in headers.values()):
            self._places = _places(headers)
        if self._places and all(place.entry.dtype in DTYPES for place in self._places.values()):
            self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="weights-hash")
            self._future = self._executor.submit(_streamed, self._places, self._stop)

    @property
    def is_remembered(self) -> bool:
        """True if the files were loaded before, and are as they were."""
        return self._remembered is not None

    def result(self, modules: Mapping[str, nn.Module]) -> str | None:
        """The hash, if the files hold just the parameters that the loaded modules have.

        Args:
            modules: Component to the loaded module.

        Returns:
            64 hexadecimal digits; None if names or shapes differ from the modules', or no file could be streamed.
        """
        if self._remembered is not None:
            return self._remembered
        if self._future is None or _shapes(modules) != {
            name: place.entry.shape for name, place in self._places.items()
        }:
            return None
        digest = self._future.result()
        if digest is not None:
            self.remember(digest)
        return digest

    def remember(self, digest: str) -> None:
        """Remember a hash of the files, unless one of them has changed since they were first looked at."""
        if self._before is not None and fingerprint(self._files, alone=self._alone) == self._before:
            remember(self._before, digest)

    def __enter__(self) -> FolderHash:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._executor is not None:
            self._executor.shutdown()


def streamed_hash(headers: Mapping[str, Mapping[Path, Header]]) -> str | None:
    """``weights_hash`` of files.

    Args:
        headers: Component to the headers of its files, whose weights are float16, bfloat16 or float32.

    Returns:
        64 hexadecimal digits, or None if a file cannot be read.
    """
    return _streamed(_places(headers), Event())


def _places(headers: Mapping[str, Mapping[Path, Header] | None]) -> dict[str, _Place]:
    return {
        component_name(component, name): _Place(path, header.data_start, entry)
        for component, files in headers.items()
        for path, header in (files or {}).items()
        for name, entry in header.entries.items()
        if is_hashed(name)
    }


def _shapes(modules: Mapping[str, nn.Module]) -> dict[str, tuple[int, ...]]:
    return {
        component_name(component, path): tuple(parameter.shape)
        for component, module in modules.items()
        for path, parameter in module.named_parameters()
        if is_hashed(path)
    }


def _streamed(places: Mapping[str, _Place], stop: Event) -> str | None:
    digest = hashlib.sha256()
    buffer = bytearray(CHUNK_BYTES)
    try:
        with ExitStack() as stack:
            files = {path: stack.enter_context(FileIO(path)) for path in {place.file for place in places.values()}}
            for name in sorted(places):
                place = places[name]
                digest.update(f"{name} {place.entry.shape}\n".encode())
                if not _update(digest, files[place.file], place, buffer, stop):
                    return None
    except OSError:
        return None
    return digest.hexdigest()


def _update(digest: hashlib._Hash, file: FileIO, place: _Place, buffer: bytearray, stop: Event) -> bool:
    """Hash one tensor's values in float16; False if it is time to stop."""
    dtype = DTYPES[place.entry.dtype]
    for view in chunks(file, place.data_start + place.entry.start, place.data_start + place.entry.end, buffer):
        if stop.is_set():
            return False
        if dtype == torch.float16:
            digest.update(view)
        else:
            digest.update(torch.frombuffer(view, dtype=dtype).to(torch.float16).numpy().data)
    return True


def chunks(file: FileIO, start: int, end: int, buffer: bytearray) -> Iterator[memoryview]:
    """Yield a part of a file piece by piece, all of them in the same memory.

    Args:
        file: The file.
        start: Where the part begins, in bytes.
        end: Where it ends.
        buffer: The memory, whose length is that of all pieces but the last.

    Raises:
        OSError: If it cannot be read, or ends before.
    """
    file.seek(start)
    for begin in range(start, end, len(buffer)):
        view = memoryview(buffer)[: min(end - begin, len(buffer))]
        position = 0
        while position < len(view):
            count = file.readinto(view[position:])
            if not count:
                raise OSError("the file ends too early")
            position += count
        yield view
