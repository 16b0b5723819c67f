"""Captions as downloaders, taggers and other programs write them, and the reasons not to read some."""

import errno
import json
from pathlib import Path

import pytest
from PIL import Image

from orthoplex.errors import DatasetError
from orthoplex.training import ConceptDataset, DataFolder
from orthoplex.training.learned_captions import caption_warnings


def folder_of(folder, *names):
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (number, 0, 0)).save(folder / name)
    return folder


def write(folder, name, content):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def captions(folder):
    return {item.file_name: item.captions for item in DataFolder.scan(folder).pictures if item.captions}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("1.jpg.json", {"tags": ["1girl", "solo", "smile"], "filename": "1"}, ("1girl, solo, smile",)),
        ("1.json", {"tags": {"general": ["a", "b"], "artist": ["c"]}}, ("a, b, c",)),
        ("1.json", {"tags": ["x"], "caption": ""}, ("x",)),
        ("1.json", {"caption": 'For <a href="x">me</a>', "tags": ["x", "y"]}, ("x, y",)),
        ("1.json", {"caption": ["x", "y"]}, ("x", "y")),
        ("1.json", {"caption": "  x \n"}, ("x",)),
        ("all.json", {"1": {"caption": "c", "tags": ["x", "y"]}}, ("c, x, y",)),
        ("all.json", [{"file_name": "1.jpg", "tags": ["x", "y"]}], ("x, y",)),
    ],
)
def test_tags_are_one_caption_and_html_is_none(tmp_path, name, value, expected):
    write(folder_of(tmp_path, "1.jpg"), name, json.dumps(value))
    assert captions(tmp_path) == {"1.jpg": expected}


def test_html_alone_is_not_read(tmp_path):
    write(folder_of(tmp_path, "1.jpg"), "1.jpg.json", json.dumps({"caption": "one<br />two"}))
    (file,) = DataFolder.scan(tmp_path).unread
    assert file.reason == "its caption is HTML, as sites show it beside a picture; write what the picture shows"


@pytest.mark.parametrize(
    ("text", "is_noted"), [("1girl\nsolo\nsmile", True), ("a red house\nthe old red house", False)]
)
def test_a_tag_a_line_is_noted(tmp_path, text, is_noted):
    write(folder_of(tmp_path, "2.jpg"), "2.jpg.txt", text)
    scan = DataFolder.scan(tmp_path)
    assert len(captions(tmp_path)["2.jpg"]) == len(text.splitlines())
    note = (
        "several captions a picture: 2.jpg; each line is a caption of its own, so tags belong in one line, with commas"
    )
    assert [line.startswith(note) for line in scan.notes] == [True] * is_noted


@pytest.mark.parametrize(
    ("table", "names"),
    [
        ("m.jsonl", [r"C:\Users\me\abs\a\0.png", "/home/me/abs/b/0.png"]),
        ("m.jsonl", ["./a/0.png", "b/../b/0.png"]),
        ("meta/m.jsonl", ["../a/0.png", "../b/0.png"]),
        ("m.jsonl", ["https://host/x/a/0.png?w=1", "file:///x/b/0%2Epng"]),
        ("m.jsonl", ["A/0.PNG", "B/0"]),
        ("m.jsonl", ["../{folder}/a/0.png", "/{folder}/b/0.png"]),
    ],
)
def test_the_longest_end_of_a_path_that_is_clear_counts(tmp_path, table, names):
    folder_of(tmp_path, "a/0.png", "b/0.png")
    names = [name.replace("{folder}", tmp_path.name) for name in names]
    rows = [json.dumps({"file_name": name, "text": text}) for name, text in zip(names, "xy", strict=True)]
    write(tmp_path, table, "\n".join(rows))
    assert captions(tmp_path) == {"a/0.png": ("x",), "b/0.png": ("y",)}
    assert DataFolder.scan(tmp_path).warnings == ()


def test_absolute_keys_of_kohya_meet_the_folder_they_name(tmp_path):
    folder_of(tmp_path, "10_anna person/1.png", "1_person/1.png")
    write(tmp_path, "meta_cap.json", json.dumps({"/abs/10_anna person/1.png": {"tags": "t"}, "gone.png": "x"}))
    assert captions(tmp_path) == {"10_anna person/1.png": ("t",)}
    assert DataFolder.scan(tmp_path).warnings[0].endswith("several folders: entry 2: gone.png")


@pytest.mark.parametrize(
    ("disk", "written"), [("e\u0301te", "\u00e9te"), ("\u00e9te", "e\u0301te"), ("\u00c9TE", "e\u0301te")]
)
@pytest.mark.parametrize("place", ["table", "beside"])
def test_accents_as_one_character_or_two_are_one_name(tmp_path, disk, written, place):
    folder_of(tmp_path, f"{disk}.png")
    write(tmp_path, *(("m.csv", f"file,text\n{written}.png,x\n") if place == "table" else (f"{written}.txt", "x")))
    assert captions(tmp_path) == {f"{disk}.png": ("x",)}


def test_a_picture_that_was_replaced_after_the_scan_is_refused(tmp_path):
    scan = DataFolder.scan(folder_of(tmp_path, "0.png", "1.png"))
    Image.new("RGB", (4, 4), "red").save(tmp_path / "1.png")
    with pytest.raises(DatasetError, match=r"picture .*1\.png was replaced after the folder was looked through; begin"):
        ConceptDataset.from_folder(scan, resolution=4, token="<a>", class_word="person")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.csv", "file_name\ttext\n0.png\tx, y\n"),
        ("m.csv", "sep=;\nfile_name;text\n0.png;x, y\n"),
        ("m.csv", '"sep=|"\r\nfile_name|text\r\n0.png|x, y\r\n'),
        ("m.csv", 'File Name,Text\n0.png," x, y\n "\n'),
        ("metadata.json", '{"file_name": "0.png", "text": "x, y"}\n{"file_name": "0.png", "text": "x, y"}\n'),
        ("m.jsonl", '[\n{"file_name": "0.png", "text": "x, y"}\n]\n'),
        ("m.jsonl", '{"file_name": "0.png", "text": "x, y"},\n'),
        (
            "coco.json",
            '{"images": [{"id": 1, "file_name": "0.png"}], "annotations": [{"image_id": 1, "caption": "x, y"}]}',
        ),
    ],
)
def test_forms_of_tables_that_other_programs_write(tmp_path, name, content):
    write(folder_of(tmp_path, "0.png"), name, content)
    scan = DataFolder.scan(tmp_path)
    assert captions(tmp_path) == {"0.png": ("x, y",)} and scan.warnings == scan.unread == scan.errors == ()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("m.json", '{"0.png": null}', 'it names pictures, and says no captions of them; allowed is {"0.png": "a'),
        ("m.csv", "file_name,text\n", "it has a header and no rows"),
        ("m.csv", "0.png,a dog\n", "write file_name,text as its first line"),
        ("m.json", '[\n{"file_name": "0.png", "text": "x"},\n]', "take out the comma before the bracket that closes"),
        ("m.json", '{"0.png": x}', "it is no JSON that can be read: line 1: Expecting value"),
        ("m.json", '{"images": [], "annotations": []}', "its columns are none"),
    ],
)
def test_a_table_that_cannot_be_used_is_a_warning_while_templates_are_learned(tmp_path, name, content, reason):
    write(folder_of(tmp_path, "0.png"), name, content)
    scan = DataFolder.scan(tmp_path)
    (file,) = scan.unread
    assert reason in file.reason and scan.errors == ()
    if "columns are none" not in reason:
        assert scan.warnings == (f"{name} is not read: {file.reason}; 1 picture has no captions but templates",)
    write(tmp_path, "0.txt", "x")
    assert DataFolder.scan(tmp_path).warnings == ()


@pytest.mark.parametrize(
    ("name", "cure"),
    [("m.csv", "save it as UTF-8 (in Excel: CSV UTF-8)"), ("0.txt", "save it as UTF-8")],
)
def test_text_of_old_windows_leads_to_utf_8(tmp_path, name, cure):
    write(folder_of(tmp_path, "0.png"), name, "file_name,text\n0.png,café\n".encode("cp1252"))
    (error,) = DataFolder.scan(tmp_path).errors
    assert error.endswith(
        f"cannot be read: it is not UTF-8; allowed is UTF-8 text, or UTF-16 with a byte order mark; {cure}"
    )


def test_empty_captions_are_one_line(tmp_path):
    folder_of(tmp_path, *(f"{number}.png" for number in range(6)))
    for number in range(5):
        write(tmp_path, f"{number}.txt", "")
    write(tmp_path, "m.csv", "file_name,text\n5.png,\n")
    assert DataFolder.scan(tmp_path).warnings == (
        "6 captions are empty (0.txt, 1.txt, 2.txt and 3 others); their pictures are learned as the trigger alone",
    )


def test_two_texts_of_a_picture_are_told_by_their_files(tmp_path):
    write(folder_of(tmp_path, "A.JPG"), "A.txt", "x")
    write(tmp_path, "A.JPG.TXT", "y")
    assert DataFolder.scan(tmp_path).warnings == ("A.JPG: captions from A.JPG.TXT are used, others from A.txt are not",)


def test_syntax_of_many_captions_is_a_line_for_each_sort():
    many = {f"{number}.png": [f"(word{number}:1.2), [x{number}]"] for number in range(200)}
    assert caption_warnings(many, "<anna>") == (
        "captions of 0.png, 1.png, 2.png and 197 others hold (word0:1.2), (word1:1.2), (word2:1.2) and 197 others, "
        "which are learned as text; captions have no weights; take brackets and numbers out",
        "captions of 0.png, 1.png, 2.png and 197 others hold [x0], [x1], [x2] and 197 others, which are learned as "
        "text; take it out, or write [trigger] for the concept",
    )


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("[trigger:1.2]", "captions have no weights; write [trigger] alone"),
        ("[cat:dog:0.5]", "captions have no steps and weights; take brackets and numbers out"),
        ("<lora:anna:1>", "networks are no captions; take them out"),
        ("{a|b}", "captions have no wildcards; write one caption a line"),
        (f"[{'x' * 90}]", f"hold [{'x' * 39}…, which is learned as text; take it out, or write [trigger] for the con"),
    ],
)
def test_advice_fits_the_syntax(text, advice):
    (warning,) = caption_warnings({"a.png": [text]}, "<anna>")
    assert advice in warning


LEFT_OUT = {
    "sample/anna_000100_00_20260101.png": "sample picture",
    "samples/1700000000__000000100_0.jpg": "sample picture",
    "validation_images/step_100_x.png": "sample picture",
    "reg_images/a.png": "regularisation picture",
    "Regularization Images/a.png": "regularisation picture",
    "class_images/a.png": "regularisation picture",
    "_controls/a.png": "control picture",
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_trainers_write_is_left_out(tmp_path, name):
    scan = DataFolder.scan(folder_of(tmp_path, "a.png", name))
    assert [item.file_name for item in scan.pictures] == ["a.png"] and scan.notes == ()
    assert scan.summary.endswith(f"not read: 1 {LEFT_OUT[name]}")


@pytest.mark.parametrize(
    ("folder", "meaning"),
    [("samples", "samples of a training"), ("class", "regularisation pictures"), ("Control", "control pictures")],
)
def test_what_may_be_meant_is_trained_on_and_noted(tmp_path, folder, meaning):
    scan = DataFolder.scan(folder_of(tmp_path, f"{folder}/a/mine.png"))
    assert len(scan.pictures) == 1
    assert scan.notes == (f"folder '{folder}': its pictures are trained on; take it out if they are {meaning}",)


def test_a_folder_of_heif_alone_says_the_cure(tmp_path):
    write(tmp_path, "a.heic", b"\0\0\0\x18ftypheic")
    with pytest.raises(DatasetError, match="; a.heic is not read: HEIF pictures are not read; save it as JPEG or PNG"):
        DataFolder.scan(tmp_path).check()


@pytest.mark.parametrize("call", ["iterdir", "is_dir"])
def test_a_folder_that_may_not_be_entered_says_the_cure(tmp_path, monkeypatch, call):
    folder_of(tmp_path, "a/0.png")
    original = getattr(Path, call)

    def refuse(path):
        if path.is_relative_to(tmp_path / "a"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return original(path)

    monkeypatch.setattr(Path, call, refuse)
    with pytest.raises(DatasetError, match=r"cannot be read: Permission denied; allow reading and entering it"):
        DataFolder.scan(tmp_path)


def test_a_name_that_is_too_long_is_refused_in_words():
    with pytest.raises(DatasetError, match=r"folder x{60} cannot be read: File name too long|does not exist"):
        DataFolder.scan("x" * 300)


def test_names_of_several_lines_stay_in_their_line(tmp_path):
    write(folder_of(tmp_path, "0\n1.png"), "0\n1.txt", "red \x1b[31m")
    write(tmp_path, "b\nc.pdf", "x")
    assert list(DataFolder.scan(tmp_path).lines())[1:] == [
        "  0 1.png 4×4, .txt: red \x1b[31m",
        "Not read: b c.pdf: it is no picture, caption or table of captions",
    ]
