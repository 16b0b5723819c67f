"""Where what can be computed again is kept between runs."""

from pathlib import Path


def cache_folder() -> Path:
    """The user's folder for what Orthoplex computes once: ``~/.cache/orthoplex``; it may be removed at any time."""
    return Path.home() / ".cache" / "orthoplex"
