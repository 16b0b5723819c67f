"""Captions in files beside pictures, and what a value of JSON says of a picture."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from orthoplex.errors import DatasetError
from orthoplex.files import one_line, pointer_or_page, recognised_content

CAPTION_SUFFIXES = (".txt", ".caption", ".cap", ".json")
"""Of files beside a picture; the earlier one wins."""
TEXT_COLUMNS = ("text", "caption", "prompt", "captions", "tags")
_TAGS = "tags"
_HTML = re.compile(r"<a\s+href\b|<br\s*/?>|</(?:a|p|b|i|u|em|strong|span|div|font)>|<img\s+src\b", re.IGNORECASE)
_ENCODINGS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Marks at the beginning of a file; the first that fits counts. Without one a text is UTF-8."""
_ALLOWED = "allowed is UTF-8 text, or UTF-16 with a byte order mark"


def read_text(path: Path) -> str:
    """Return a text in UTF-8, or in UTF-16 or UTF-32 with a byte order mark.

    Raises:
        DatasetError: When it is neither, or stands in the place of the file: a git-lfs pointer, a web page; names the
            file.
    """
    content = b""
    try:
        content = path.read_bytes()
        encoding = next((name for mark, name in _ENCODINGS.items() if content.startswith(mark)), "utf-8-sig")
        text = content.decode(encoding)
        if "\0" in text:  # as in UTF-16 without a mark
            raise ValueError("it holds null characters")
    except (OSError, ValueError) as error:
        kind = recognised_content(content) if content else None
        if kind is not None and kind.sort not in ("text", "JSON"):
            raise DatasetError(f"{path} cannot be read: it is {kind.sentence}") from error
        if isinstance(error, OSError):
            raise DatasetError(f"{path} cannot be read: {error.strerror or error}; allow its reading") from error
        cause = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        save = "save it as UTF-8" + (" (in Excel: CSV UTF-8)" if path.suffix.lower() == ".csv" else "")
        raise DatasetError(f"{path} cannot be read: {cause}; {_ALLOWED}; {save}") from error
    if (kind := pointer_or_page(text.encode())) is not None:
        raise DatasetError(f"{path} cannot be read: it is {kind.sentence}")
    return text


def read_captions(path: Path) -> tuple[str, ...]:
    """Return the captions of a file beside a picture: of a text each line that is not blank, of JSON its caption.

    An empty text is one empty caption. JSON without a caption gives none.

    Raises:
        DatasetError: When it cannot be read; names the file.
    """
    text = read_text(path)
    if path.suffix.lower() != ".json":
        lines = tuple(line.strip() for line in re.split(r"\r\n|\r|\n", text) if line.strip())
        return lines or ("",)
    try:
        return tuple(caption_texts(json.loads(text)))
    except (ValueError, RecursionError) as error:
        raise DatasetError(f'{path} cannot be read as JSON: {error}; allowed is {{"caption": …}}') from error


def reason_without_caption(path: Path) -> str:
    """Say the reason why a JSON file beside a picture has no caption: it is HTML, or has other keys."""
    value = json.loads(read_text(path))
    if isinstance(value, dict) and any(_is_html(value.get(column)) for column in TEXT_COLUMNS):
        return "its caption is HTML, as sites show it beside a picture; write what the picture shows"
    keys = listed(value) if isinstance(value, dict) else "none"
    return f"it has no caption; its keys are {keys}, allowed are caption, text, prompt"


def caption_texts(value: Any) -> list[str]:  # noqa: ANN401  (JSON values)
    """Return the captions of a JSON value: a text, a list of texts, or an object with a column of captions.

    Tags are one caption, with a comma between them. HTML is none: it is what a site shows beside a picture.
    """
    if isinstance(value, dict):
        lower = {key.strip().lower(): item for key, item in value.items()}
        given = {column: _as_caption(column, lower.get(column)) for column in TEXT_COLUMNS}
        column = next((column for column in TEXT_COLUMNS if given[column] not in (None, [], "")), None)
        if column is None:
            empty = lower.get("text", lower.get("caption"))
            return [empty.strip()] if isinstance(empty, str) and not _is_html(empty) else []
        value = given[column]
    if isinstance(value, str):
        return [value.strip()]
    return [text.strip() for text in value if isinstance(text, str)] if isinstance(value, list) else []


def caption_and_tags(value: Any) -> list[str]:  # noqa: ANN401  (JSON values)
    """Return the captions of an entry as ``caption_texts`` does; a caption and tags are one, as kohya's tools read."""
    if isinstance(value, dict):
        caption, tags = (_as_caption(column, value.get(column)) for column in ("caption", _TAGS))
        if isinstance(caption, str) and isinstance(tags, str):
            return [", ".join(part.strip() for part in (caption, tags) if part.strip())]
    return caption_texts(value)


def listed(names: Iterable[str], most: int = 8) -> str:
    """Return the first names, for a message."""
    shown = [one_line(name) for name in names]
    return ", ".join(shown[:most]) + (", …" if len(shown) > most else "") or "none"


def _as_caption(column: str, value: Any) -> Any:  # noqa: ANN401  (JSON values)
    """Return the value of a column; tags in a list, or in lists by their sort, as one text, and no HTML."""
    if column == _TAGS and isinstance(value, list | dict):
        return ", ".join(_tags(value))
    return None if _is_html(value) else value


def _tags(value: Any) -> Iterator[str]:  # noqa: ANN401  (JSON values)
    if isinstance(value, str) and value.strip():
        yield value.strip()
    elif isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tags(item)


def _is_html(value: Any) -> bool:  # noqa: ANN401  (JSON values)
    return isinstance(value, str) and _HTML.search(value) is not None
