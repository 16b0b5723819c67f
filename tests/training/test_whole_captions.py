"""Captions are learned whole or refused: rows that are cut off, open quotes, and files that stand in their place."""

import csv
import io
import random

import pytest
from PIL import Image

from orthoplex.errors import DatasetError
from orthoplex.training import DataFolder


@pytest.fixture
def folder(tmp_path):
    for name, color in (("a.png", "red"), ("b.jpg", "blue")):
        Image.new("RGB", (6, 4), color).save(tmp_path / name)
    return tmp_path


def write(folder, files):
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def captions(folder):
    return {item.file_name: item.captions for item in DataFolder.scan(folder).pictures if item.captions}


@pytest.mark.parametrize(
    ("name", "table", "message"),
    [
        ("metadata.csv", "file_name,text\na.png,a woman, smiling\nb.jpg,x\n", "line 2 has more values than columns; "),
        ("metadata.csv", "text;image\na woman; smiling;a.png\nx;b.jpg\n", "line 2 has more values than columns; put"),
        ("metadata.csv", 'file_name,text\nb.jpg,x\na.png,"a" woman, x\n', "line 3 cannot be read: "),
        ("rows.tsv", "file\tcaption\na.png\ta\twoman\nb.jpg\tx\n", "line 2 has more values than columns; "),
        ("metadata.csv", 'file_name,text\na.png,"a woman\nb.jpg,x\n', "line 2 cannot be read: unexpected end of data"),
        (
            "metadata.csv",
            'file_name,text\na.png,"a woman\nb.jpg,"x"\n',
            "line 2 cannot be read: ',' expected",
        ),
        ("metadata.csv", 'file_name,text\na.png,"a\nb.jpg,x"\n', "line 2 cannot be read: a quote opens here, and ends"),
        (
            "rows.tsv",
            'file\tcaption\na.png\t"a woman\nb.jpg\tx\n',
            "line 2 cannot be read: a quote does not end in",
        ),
    ],
)
def test_captions_that_are_cut_off_in_a_table_are_errors(folder, name, table, message):
    write(folder, {name: table})
    scan = DataFolder.scan(folder)
    (error,) = scan.errors
    assert error.startswith(f"{folder / name} {message}")
    assert "a.png" not in captions(folder)
    with pytest.raises(DatasetError, match="line "):
        scan.check()


def test_a_cut_off_caption_that_nothing_learns_is_no_error(folder):
    write(folder, {"metadata.csv": "file_name,text\na.png,a woman, smiling\n", "a.txt": "x"})
    assert captions(folder) == {"a.png": ("x",)} and DataFolder.scan(folder).errors == ()
    write(folder, {"steps.csv": 'step,loss\n1,2,3\n4,"5\n'})
    assert DataFolder.scan(folder).errors == ()


@pytest.mark.parametrize(
    ("name", "table", "caption"),
    [
        ("metadata.csv", 'file_name,text\na.png,"x,\ny"\n', "x,\ny"),
        ("metadata.csv", 'file_name, text\na.png, "x, ""y"""\n', 'x, "y"'),
        ("metadata.csv", 'file_name,text\na.png,a 6" doll\n', 'a 6" doll'),
        ("metadata.csv", "file_name,text\na.png,x,,\n", "x"),
        ("rows.tsv", 'file\tcaption\na.png\t"TOKEN" on a beach\n', '"TOKEN" on a beach'),
        ("rows.tsv", 'file\tcaption\na.png\t"TOKEN" with 6" heels\n', '"TOKEN" with 6" heels'),
        ("rows.tsv", '"file"\t"caption"\n"a.png"\t"TOKEN"\n', "TOKEN"),
        ("rows.tsv", 'file\tcaption\na.png\ta "TOKEN, 6" tall\n', 'a "TOKEN, 6" tall'),
        ("rows.tsv", 'file\tcaption\na.png\t"x ""y"", z"\n', 'x "y", z'),
    ],
)
def test_quotes_in_tables(folder, name, table, caption):
    write(folder, {name: table})
    assert captions(folder) == {"a.png": (caption,)} and DataFolder.scan(folder).warnings == ()


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
PAGE = '<!DOCTYPE html>\n<html lang="en"><title>Sign in</title></html>'


@pytest.mark.parametrize("name", ["a.txt", "a.caption", "a.json", "metadata.csv", "metadata.jsonl", "all.json"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (POINTER.encode(), "it is a git-lfs pointer to a file of 12345 bytes, not the file itself; run: git lfs pull"),
        (PAGE.encode(), "it is a web page, not the file itself: a site answered"),
        (PAGE.encode("utf-16"), "it is a web page, not the file itself: a site answered"),
        (b"\xef\xbb\xbf<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "it is a web page"),
    ],
)
def test_what_stands_in_the_place_of_captions_is_an_error(folder, name, content, message):
    write(folder, {name: content})
    (error,) = DataFolder.scan(folder).errors
    assert error.startswith(f"{folder / name} cannot be read: {message}")


@pytest.mark.parametrize("text", ["<head> person, smiling", "<html> logo on a <b> wall", "version 2 of <error>"])
def test_a_caption_that_begins_with_a_token_is_no_page(folder, text):
    write(folder, {"a.txt": text})
    assert captions(folder) == {"a.png": (text,)}


PIECES = ("a", "woman", ",", ";", '"', '""', "\n", " ", "TOKEN", '6" tall', "b.jpg,x", "'", "\t", "\r\n", "é")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(500))
def test_any_caption_comes_back_whole_or_is_an_error(folder, seed):
    """A table that is written as it should be gives the caption; one that is joined by hand does, or is an error."""
    draw = random.Random(seed)
    caption = "a " + "".join(draw.choice(PIECES) for _ in range(draw.randrange(1, 7)))
    is_tabbed, is_joined = draw.random() < 0.3, draw.random() < 0.5
    if is_tabbed and not is_joined:
        caption = caption.replace("\n", " ").replace("\r", " ").replace("\t", " ")
    comma, stream = "\t" if is_tabbed else ",", io.StringIO()
    rows = [("file_name", "text"), ("a.png", caption), ("b.jpg", "other")]
    if is_joined:
        stream.write("".join(f"{comma.join(row)}\n" for row in rows))
    else:
        csv.writer(stream, delimiter=comma).writerows(rows)
    write(folder, {f"rows.{'tsv' if is_tabbed else 'csv'}": stream.getvalue()})
    scan = DataFolder.scan(folder)
    whole = {"a.png": caption.rstrip(', "\t\r\n'), "b.jpg": "other"}  # commas at the end may be empty columns
    read = {name: texts[0].rstrip(', "\t\r\n') for name, texts in captions(folder).items()}
    if "b.jpg,x" in caption:  # a row of its own, or refused as one
        return
    assert scan.errors or scan.warnings or read == whole
    if not is_joined:
        assert read == whole
