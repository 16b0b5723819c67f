"""Where what can be computed again is kept between runs."""

import tempfile
from pathlib import Path


def cache_folder() -> Path:
    """The user's folder for what is computed once, ``~/.cache/orthoplex``; of a user without a home, a temporary one.

    It need not exist, and may be removed at any time.
    """
    try:
        home = Path.home()
    except (RuntimeError, KeyError):
        home = Path()
    if home.parent == home:  # no home, or the root of the file system
        return Path(tempfile.gettempdir()) / "orthoplex"
    return home / ".cache" / "orthoplex"
