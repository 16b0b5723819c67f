"""Hashes of weights, remembered by the files that are read, and by size and time of every file in their folders.

Never an error: what cannot be read is computed again, what cannot be written is computed again next time.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from orthoplex.errors import OutputError
from orthoplex.files import cache_folder, read_json, write_json

_SCHEME = "float16-sha256-v1"
_LIMIT = 256
_RACE_NS = 2 * 10**9
"""A file that was written this shortly ago may be written again without another time; its hash is not stored."""

Fingerprint = Mapping[str, Sequence[int | str]]
"""Resolved path of every file to its size, its times of change (content, entry; nanoseconds) and its number.

Component to its resolved folder and the file that is read there, of which there may be several in a folder.
"""


def cache_file() -> Path:
    """Where hashes are remembered."""
    return cache_folder() / "base-hashes.json"


def fingerprint(files: Mapping[str, Path], *, alone: Collection[str] = ()) -> Fingerprint | None:
    """Return which files are read, with sizes, times and numbers of all in their folders; None if these cannot tell.

    They cannot tell a changed file that was written so shortly ago that another write may leave the time as it is.

    Args:
        files: Component to the file of its weights, or to the index of them.
        alone: Components whose file alone counts, whatever lies beside it.
    """
    statuses: dict[str, Sequence[int]] = {}
    chosen: dict[str, Sequence[str]] = {}
    try:
        for component, file in files.items():
            folder = file.parent.resolve()
            chosen[component] = (str(folder), file.name)
            for path in [file.resolve()] if component in alone else sorted(folder.iterdir()):
                status = path.resolve().stat()
                statuses[str(path)] = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    except (OSError, RuntimeError):
        return None
    newest = max((max(status[1], status[2]) for status in statuses.values()), default=0)
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
