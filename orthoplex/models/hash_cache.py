"""Hashes of weights, remembered by the files that are read, and path, size and time of every file in their folders.

Never an error: what cannot be read is computed again, what cannot be written is computed again next time.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from orthoplex.errors import OutputError
from orthoplex.files import cache_folder, read_json, write_json

_SCHEME = "float16-sha256-v2"
_LIMIT = 256
_RACE_NS = 2 * 10**9
"""A file that was written this shortly ago may be written again without another time; its hash is not stored."""

Fingerprint = Mapping[str, Sequence[int]]
"""Resolved path of every file to its size, its times of change (content, entry; nanoseconds) and its number; and
``read`` and the place of every file that is read to nothing."""


def cache_file() -> Path:
    """Where hashes are remembered."""
    return cache_folder() / "base-hashes.json"


def fingerprint(places: Sequence[Path], read: Iterable[Path]) -> Fingerprint | None:
    """Return sizes, times and numbers of files, and of those in folders; None if they cannot tell a changed file.

    They cannot for files that were written so shortly ago that another write may leave the time as it is.

    Args:
        places: Files, and folders with files.
        read: The files among them whose weights are hashed; others, as variants, may lie beside them.
    """
    statuses: dict[str, Sequence[int]] = {}
    try:
        for place in places:
            whole = place.resolve()
            for path in sorted(whole.iterdir()) if whole.is_dir() else [whole]:
                status = path.resolve().stat()
                statuses[str(path)] = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    except (OSError, RuntimeError):
        return None
    newest = max((max(status[1], status[2]) for status in statuses.values()), default=0)
    chosen = {f"read {path}": () for path in sorted(str(path.resolve()) for path in read)}
    return {**statuses, **chosen} if time.time_ns() - newest >= _RACE_NS else None


def recall(files: Fingerprint) -> str | None:
    """The remembered hash of files that are as they were, or None."""
    digest = _read().get(_key(files))
    return digest if isinstance(digest, str) and len(digest) == 64 else None


def remember(files: Fingerprint, digest: str) -> None:
    """Remember a hash; the oldest of many are forgotten."""
    known = _read()
    known.pop(_key(files), None)
    known[_key(files)] = digest
    for key in list(known)[:-_LIMIT]:
        del known[key]
    target = _path()
    if target is None:
        return
    with suppress(OutputError):
        write_json(target, {"scheme": _SCHEME, "hashes": known})


def _key(files: Fingerprint) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def _path() -> Path | None:
    try:
        return cache_file()
    except (RuntimeError, KeyError):  # nobody's home
        return None


def _read() -> dict[str, str]:
    path = _path()
    try:
        values = {} if path is None else read_json(path)
    except (OSError, ValueError):
        return {}
    known = values.get("hashes") if isinstance(values, dict) and values.get("scheme") == _SCHEME else None
    return known if isinstance(known, dict) else {}
