"""Captions in files: beside a picture, and in tables of many pictures."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from orthoplex.errors import DatasetError
from orthoplex.files import PICTURE_SUFFIXES, one_line, pointer_or_page, recognised_content

CAPTION_SUFFIXES = (".txt", ".caption", ".cap", ".json")
"""Of files beside a picture; the earlier one wins."""
TABLE_SUFFIXES = (".jsonl", ".csv", ".tsv")
NAME_COLUMNS = ("file_name", "filename", "file", "image", "image_path", "path", "image_file", "file_path")
TEXT_COLUMNS = ("text", "caption", "prompt", "captions", "tags")
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_ROW = re.compile(rf"\n[^\n,;]*(?:{'|'.join(map(re.escape, PICTURE_SUFFIXES))})\s*[,;]", re.IGNORECASE)
_ENCODINGS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Marks at the beginning of a file; the first that fits counts. Without one a text is UTF-8."""


@final
@dataclass(frozen=True)
class CaptionRow:
    """A caption of a table.

    Attributes:
        number: Its line or entry, from 1.
        file_name: The picture's file name.
        text: The caption.
        is_whole: False if its row has more values than the table has columns: a comma may have cut the caption off.
    """

    number: int
    file_name: str
    text: str
    is_whole: bool = True


@final
@dataclass(frozen=True)
class CaptionTable:
    """A file that says captions of many pictures.

    Attributes:
        rows: Its captions; a picture may have several.
        empty: The lines or entries that name a picture and no caption.
        refusal: The reason why it is no such table; empty if it is one.
        is_certain: False if only the names of pictures among its keys show that it is one.
    """

    rows: tuple[CaptionRow, ...] = ()
    empty: tuple[int, ...] = ()
    refusal: str = ""
    is_certain: bool = True


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
        if kind is not None and kind.sort != "text":
            raise DatasetError(f"{path} cannot be read: it is {kind.sentence}") from error
        raise DatasetError(
            f"{path} cannot be read: {error}; allowed is UTF-8 text, or UTF-16 with a byte order mark"
        ) from error
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
        return tuple(_caption_texts(json.loads(text)))
    except (ValueError, RecursionError) as error:
        raise DatasetError(f'{path} cannot be read as JSON: {error}; allowed is {{"caption": …}}') from error


def json_keys(path: Path) -> str:
    """Return the first keys of a JSON file, for a message."""
    value = json.loads(read_text(path))
    return _listed(value) if isinstance(value, dict) else "none"


def read_table(path: Path) -> CaptionTable:
    """Read JSON lines, comma- or tab-separated values with a header, or JSON as kohya's tools write it.

    Raises:
        DatasetError: When it is no text, or a line is not what is allowed; names the line.
    """
    suffix = path.suffix.lower()
    if suffix == ".json":
        return _json_table(path)
    text = read_text(path)
    if suffix == ".jsonl":
        return _table(list(_json_lines(path, text)))
    return _separated_table(path, text, suffix)


def _json_lines(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            if not isinstance(entry, dict):
                raise TypeError
        except (ValueError, TypeError, RecursionError) as error:
            raise DatasetError(
                f'{path} line {number} cannot be read; allowed is {{"file_name": …, "text": …}}'
            ) from error
        yield number, entry


def _separated_table(path: Path, text: str, suffix: str) -> CaptionTable:
    """Read rows of values: of ``.csv`` with quotes around values as needed, of ``.tsv`` with quotes as letters."""
    lines, is_tabbed = io.StringIO(text, newline=""), suffix == ".tsv"
    if is_tabbed:
        reader = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(lines, delimiter=_comma(text), strict=True, skipinitialspace=True)
    rows, header = list[tuple[int, list[str]]](), list[str]()
    line = 1
    try:
        for values in reader:
            row = _unquoted(values) if is_tabbed else values
            if row and not header:
                header = row
                if refusal := _refusal([name.strip().lower() for name in header]):
                    return CaptionTable(refusal=refusal)
            elif row:
                rows.append((line, row))
            line = reader.line_num + 1
        torn = [number for number, row in rows if any(map(_holds_rows, row))]
        if torn:
            line = torn[0]
            raise csv.Error("a quote opens here, and ends in another row")
    except csv.Error as error:
        raise DatasetError(
            f"{path} line {line} cannot be read: {error}; allowed are a header and a row for each picture, with quotes "
            "around captions that hold commas, quotes or several lines"
        ) from error
    broken = {number for number, row in rows if any(value.strip() for value in row[len(header) :])}
    return _table([(number, dict(zip(header, row, strict=False))) for number, row in rows], header, broken)


def _comma(text: str) -> str:
    header = text.lstrip("\r\n").partition("\n")[0]
    return ";" if header.count(";") > header.count(",") else ","


def _unquoted(row: list[str]) -> list[str]:
    """Return the values of a row that is separated by tabs, without quotes around whole values, as tables write them.

    Raises:
        csv.Error: When a value begins with a quote that does not end in its line.
    """
    values = []
    for value in row:
        if value.startswith('"') and '"' not in value[1:].replace('""', ""):
            raise csv.Error("a quote does not end in its line")
        values.append(value[1:-1].replace('""', '"') if _QUOTED.fullmatch(value) else value)
    return values


def _holds_rows(value: str) -> bool:
    """Return True if a later line of a value begins with the name of a picture and a comma: an open quote took rows."""
    return "\n" in value and _ROW.search(value) is not None


def _json_table(path: Path) -> CaptionTable:
    """A list of objects, or picture -> caption; anything else is no table."""
    try:
        value = json.loads(read_text(path))
    except (ValueError, RecursionError):
        return CaptionTable(refusal="it is no JSON that can be read")
    if isinstance(value, list) and all(isinstance(entry, dict) for entry in value):
        return _table(list(enumerate(value, start=1)))
    if not isinstance(value, dict):
        return CaptionTable(refusal="it is no table of captions")
    rows = []
    for number, (name, entry) in enumerate(value.items(), start=1):
        texts = list(_caption_texts(entry))
        if isinstance(entry, dict) and isinstance(entry.get("caption"), str) and isinstance(entry.get("tags"), str):
            texts = [", ".join(part for part in (entry["caption"], entry["tags"]) if part)]  # as kohya's tools do
        rows += [CaptionRow(number, name, text) for text in texts]
    return CaptionTable(tuple(rows), is_certain=False)


def _table(
    entries: Sequence[tuple[int, Mapping[str, Any]]], header: Sequence[str] = (), broken: Collection[int] = ()
) -> CaptionTable:
    entries = [(number, {key.strip().lower(): value for key, value in entry.items()}) for number, entry in entries]
    columns = list(
        dict.fromkeys([*(key.strip().lower() for key in header), *(key for _, row in entries for key in row)])
    )
    if refusal := _refusal(columns):
        return CaptionTable(refusal=refusal)
    names = [column for column in NAME_COLUMNS if column in columns]
    rows, empty = [], []
    for number, entry in entries:
        name = next((entry[column] for column in names if isinstance(entry.get(column), str)), "")
        texts = list(_caption_texts(entry))
        if number in broken:
            rows.append(CaptionRow(number, name, "", is_whole=False))
        elif name and texts:
            rows += [CaptionRow(number, name, text) for text in texts]
        else:
            empty.append(number)
    return CaptionTable(tuple(rows), tuple(empty))


def _refusal(columns: Sequence[str]) -> str:
    """Say the reason why columns are none of a table of captions; empty if they are."""
    if any(column in columns for column in NAME_COLUMNS) and any(column in columns for column in TEXT_COLUMNS):
        return ""
    allowed = "a table of captions has file_name (or image) and text (or caption, prompt)"
    return f"its columns are {_listed(columns)}; {allowed}"


def _caption_texts(value: Any) -> Iterable[str]:  # noqa: ANN401  (JSON values)
    """Return the captions of a JSON value: a text, a list of texts, or an object with a column of captions."""
    if isinstance(value, dict):
        lower = {key.strip().lower(): item for key, item in value.items()}
        value = next((lower[column] for column in TEXT_COLUMNS if lower.get(column) not in (None, [], "")), None)
        if value is None and isinstance(empty := lower.get("text", lower.get("caption")), str):
            return [empty]
    if isinstance(value, str):
        return [value]
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def _listed(columns: Iterable[str], most: int = 8) -> str:
    names = [one_line(column) for column in columns]
    return ", ".join(names[:most]) + (", …" if len(names) > most else "") or "none"
