"""JSON, read with one kind of error for every damage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def parse_json(text: str) -> Any:  # noqa: ANN401 - any JSON value
    """Return the value of JSON text.

    Raises:
        ValueError: If it is no JSON, nested without end, or holds halves of characters, which no terminal can show.
    """
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return value


def read_json(path: Path) -> Any:  # noqa: ANN401 - any JSON value
    """Return the value of a JSON file (UTF-8).

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is no JSON, or nested without end.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except RecursionError as error:
        raise ValueError(f"{path.name} is nested too deeply") from error
