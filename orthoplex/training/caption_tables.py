"""Tables of captions of many pictures."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

from orthoplex.errors import DatasetError
from orthoplex.files import PICTURE_SUFFIXES
from orthoplex.training.caption_files import TEXT_COLUMNS, caption_and_tags, caption_texts, listed, read_text

TABLE_SUFFIXES = (".jsonl", ".csv", ".tsv")
NAME_COLUMNS = ("file_name", "filename", "file", "image", "image_path", "path", "image_file", "file_path")
_NAMED = {*NAME_COLUMNS, *TEXT_COLUMNS}
_DELIMITERS = (",", ";", "\t", "|")
_SEPARATOR_LINE = re.compile(r'\A"?sep=(?P<delimiter>.)"?[ \t]*\r?\n', re.IGNORECASE)
"""The first line that Excel writes and reads."""
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_ROW = re.compile(rf"\n[^\n,;]*(?:{'|'.join(map(re.escape, PICTURE_SUFFIXES))})\s*[,;]", re.IGNORECASE)
_LAST_COMMA = re.compile(r",\s*[\]}]")


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
        empty: The lines or entries that name no picture, or no caption.
        refusal: The reason why it is no such table; empty if it is one.
        is_meant: False if a refused file was hardly meant as a table: JSON with other columns is settings.
        is_certain: False if only the names of pictures among its keys show that it is one.
        unit: What its numbers count.
    """

    rows: tuple[CaptionRow, ...] = ()
    empty: tuple[CaptionRow, ...] = ()
    refusal: str = ""
    is_meant: bool = True
    is_certain: bool = True
    unit: Literal["line", "entry"] = "line"


def read_table(path: Path) -> CaptionTable:
    """Read JSON lines, values with a header, or JSON as kohya's tools, COCO and others write it.

    Raises:
        DatasetError: When it is no text, or a line is not what is allowed; names the line.
    """
    suffix = path.suffix.lower()
    text = read_text(path)
    if suffix not in (".json", ".jsonl"):
        return _separated_table(path, text, suffix)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        if suffix == ".jsonl":
            return _table(list(_json_lines(path, text)))
        try:
            return _table(list(_json_lines(path, text)))
        except DatasetError:
            return CaptionTable(refusal=_about_json(text, error))
    if suffix == ".jsonl" and not (isinstance(value, list) and value):
        return _table(list(_json_lines(path, text)))
    return _json_table(value)


def _about_json(text: str, error: Exception) -> str:
    if not isinstance(error, json.JSONDecodeError):
        return f"it is no JSON that can be read: {error}"
    if _LAST_COMMA.search(text, max(0, text.rfind(",", 0, error.pos + 1))):
        return f"it is no JSON that can be read: line {error.lineno}: take out the comma before the bracket that closes"
    return f"it is no JSON that can be read: line {error.lineno}: {error.msg}"


def _json_lines(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line.strip().removesuffix(","))
            if not isinstance(entry, dict):
                raise TypeError
        except (ValueError, TypeError, RecursionError) as error:
            raise DatasetError(
                f'{path} line {number} cannot be read; allowed is {{"file_name": …, "text": …}}'
            ) from error
        yield number, entry


def _separated_table(path: Path, text: str, suffix: str) -> CaptionTable:
    """Read rows of values: with quotes around values as needed, or, between tabs, with quotes as letters."""
    delimiter, text = _delimited(text, suffix)
    lines, is_tabbed = io.StringIO(text, newline=""), delimiter == "\t"
    if is_tabbed:
        reader = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=True)
    rows, header = list[tuple[int, list[str]]](), list[str]()
    line = 1
    try:
        for values in reader:
            row = _unquoted(values) if is_tabbed else values
            if row and not header:
                header = row
                if refusal := _refusal([_column(name) for name in header]):
                    return CaptionTable(refusal=refusal)
            elif row:
                rows.append((line, row))
            line = reader.line_num + 1
        torn = [number for number, row in rows if any(map(_holds_rows, row))]
        if torn:
            line = torn[0]
            raise csv.Error("a quote opens here, and ends in another row")
    except csv.Error as error:
        limit = csv.field_size_limit()
        is_long = "field larger" in str(error)
        cause = f"a value has more than {limit} letters, as where a quote is not closed" if is_long else str(error)
        raise DatasetError(
            f"{path} line {line} cannot be read: {cause}; allowed are a header and a row for each picture, with quotes "
            "around captions that hold commas, quotes or several lines"
        ) from error
    broken = {number for number, row in rows if any(value.strip() for value in row[len(header) :])}
    return _table([(number, dict(zip(header, row, strict=False))) for number, row in rows], header, broken)


def _delimited(text: str, suffix: str) -> tuple[str, str]:
    """Return what stands between values, and the text without a line that only says it."""
    said = _SEPARATOR_LINE.match(text)
    text = text if said is None else "\n" + text[said.end() :]  # the numbers of the lines stay
    if suffix == ".tsv":
        return "\t", text
    if said is not None:
        return said["delimiter"], text
    header = text.lstrip("\r\n").partition("\n")[0]
    return max(_DELIMITERS, key=header.count), text


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


def _json_table(value: Any) -> CaptionTable:  # noqa: ANN401  (JSON values)
    """A list of objects, COCO's images and annotations, or picture -> caption; anything else is no table."""
    if isinstance(value, list) and all(isinstance(entry, dict) for entry in value):
        return _table(list(enumerate(value, start=1)), unit="entry")
    if not isinstance(value, dict):
        return CaptionTable(refusal="it is no table of captions", is_meant=False)
    images, annotations = value.get("images"), value.get("annotations")
    if isinstance(images, list) and isinstance(annotations, list):
        return _table(list(enumerate(_joined(images, annotations), start=1)), unit="entry")
    rows, empty = list[CaptionRow](), list[CaptionRow]()
    for number, (name, entry) in enumerate(value.items(), start=1):
        texts = caption_and_tags(entry)
        rows += [CaptionRow(number, name, text) for text in texts]
        if not texts:
            empty.append(CaptionRow(number, name, ""))
    return CaptionTable(tuple(rows), tuple(empty), is_certain=False, unit="entry")


def _joined(images: Sequence[Any], annotations: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """Yield a row for each annotation of COCO's form, with the file name of its picture."""
    names = {str(image.get("id")): image.get("file_name") for image in images if isinstance(image, dict)}
    for entry in annotations:
        if isinstance(entry, dict):
            yield {**entry, "file_name": names.get(str(entry.get("image_id")))}


def _table(
    entries: Sequence[tuple[int, Mapping[str, Any]]],
    header: Sequence[str] = (),
    broken: Collection[int] = (),
    unit: Literal["line", "entry"] = "line",
) -> CaptionTable:
    entries = [(number, {_column(key): value for key, value in entry.items()}) for number, entry in entries]
    columns = list(dict.fromkeys([*map(_column, header), *(key for _, row in entries for key in row)]))
    if refusal := _refusal(columns):
        return CaptionTable(refusal=refusal, is_meant=unit == "line" or any(map(_NAMED.__contains__, columns)))
    if not entries:
        return CaptionTable(refusal="it has a header and no rows")
    names = [column for column in NAME_COLUMNS if column in columns]
    rows, empty = [], []
    for number, entry in entries:
        name = next((entry[column] for column in names if isinstance(entry.get(column), str)), "")
        texts = caption_texts(entry)
        if number in broken:
            rows.append(CaptionRow(number, name, "", is_whole=False))
        elif name and texts:
            rows += [CaptionRow(number, name, text) for text in texts]
        else:
            empty.append(CaptionRow(number, name, ""))
    return CaptionTable(tuple(rows), tuple(empty), unit=unit)


def _column(name: str) -> str:
    """Return the name of a column as it is compared: ``File Name`` is ``file_name``."""
    lower = name.strip().lower()
    return joined if (joined := lower.replace(" ", "_")) in _NAMED else lower


def _refusal(columns: Sequence[str]) -> str:
    """Say the reason why columns are none of a table of captions; empty if they are."""
    if any(column in columns for column in NAME_COLUMNS) and any(column in columns for column in TEXT_COLUMNS):
        return ""
    allowed = "a table of captions has file_name (or image) and text (or caption, prompt)"
    if any(column.endswith(PICTURE_SUFFIXES) for column in columns):
        allowed += "; write file_name,text as its first line"
    return f"its columns are {listed(columns)}; {allowed}"
