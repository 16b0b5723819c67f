"""The folder of results that can be computed again."""

import tempfile
from pathlib import Path


def cache_folder() -> Path:
    """Return the user's cache folder ``~/.cache/orthoplex``, or a temporary folder for a user without a home.

    The folder need not exist, and may be removed at any time.
    """
    try:
        home = Path.home()
    except (RuntimeError, KeyError):
        home = Path()
    if home.parent == home:  # no home, or the root of the file system
        return Path(tempfile.gettempdir()) / "orthoplex"
    return home / ".cache" / "orthoplex"
