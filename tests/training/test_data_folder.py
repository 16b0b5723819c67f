"""Every file of a folder is read, or named with the reason."""

import json

import numpy as np
import pytest
from PIL import Image

from orthoplex.training import DataFolder, checked_folder

NAMES = ("a.png", "b.jpg", "c.webp")


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate(NAMES):
        picture(tmp_path / name, number)
    return tmp_path


def picture(path, shade, size=(6, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size[1], size[0], 3), 60 * shade, dtype=np.uint8)).save(path)


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def captions(folder):
    return {item.file_name: item.captions for item in DataFolder.scan(folder).pictures if item.captions}


def unread(folder):
    return {file.name: file.reason for file in DataFolder.scan(folder).unread}


@pytest.mark.parametrize(
    "name",
    ["a.txt", "a.caption", "a.cap", "a.TXT", "A.txt", "A.CAPTION", "a.png.txt", "A.PNG.Txt", "a.png.caption"],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_texts_beside_a_picture(folder, name, encoding):
    write(folder, {name: "naïve\n".encode(encoding)})
    assert captions(folder) == {"a.png": ("naïve",)}
    assert DataFolder.scan(folder).warnings == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"caption": "x"}', ("x",)),
        ('{"Text": "x"}', ("x",)),
        ('{"prompt": "x", "seed": 1}', ("x",)),
        ('{"captions": ["x", "y"]}', ("x", "y")),
        ('["x", "y"]', ("x", "y")),
        ('{"tags": "1girl, smile"}', ("1girl, smile",)),
    ],
)
def test_json_beside_a_picture(folder, text, expected):
    write(folder, {"a.json": text})
    assert captions(folder) == {"a.png": expected}


def test_json_without_a_caption_is_named_with_its_keys(folder):
    write(folder, {"a.json": '{"seed": 1, "model": "x"}'})
    assert unread(folder) == {
        "a.json": "it has no caption; its keys are seed, model, allowed are caption, text, prompt"
    }


@pytest.mark.parametrize(
    ("name", "content", "allowed"),
    [
        ("a.txt", b"na\xefve", "allowed is UTF-8 text, or UTF-16 with a byte order mark"),
        ("a.txt", "day".encode("utf-16-le"), "it holds null characters; allowed is UTF-8 text"),
        ("a.json", b"{", 'allowed is {"caption": …}'),
        ("a.txt", b"\xff\xd8\xff\xe0", "is a picture (JPEG)"),
        ("a.txt", b"PK\x03\x04\xff\xff", "is an archive (zip); unpack it"),
    ],
)
def test_captions_that_are_damaged_are_errors(folder, name, content, allowed):
    write(folder, {name: content})
    (error,) = DataFolder.scan(folder).errors
    assert f"{name} cannot be read" in error and allowed in error and "\n" not in error


def test_stems_in_equal_case_go_first(tmp_path):
    for number, name in enumerate(("a.png", "A.jpg")):
        picture(tmp_path / name, number)
    write(tmp_path, {"a.txt": "small", "A.txt": "large"})
    assert captions(tmp_path) == {"a.png": ("small",), "A.jpg": ("large",)}


def test_two_pictures_of_one_stem_share_its_caption(folder):
    picture(folder / "a.jpg", 3)
    write(folder, {"a.txt": "shared"})
    assert captions(folder) == {"a.png": ("shared",), "a.jpg": ("shared",)}


TABLES = {
    "metadata.jsonl": '{"file_name": "a.png", "text": "x, y"}\n',
    "metadata.csv": 'file_name,text\r\na.png,"x, y"\r\n',
    "Metadata.CSV": "\ufeffimage;prompt\na.png;x, y\n",
    "captions.tsv": "filename\tcaption\na.png\tx, y\n",
    "list.csv": 'Image_Path , Caption\nC:\\pictures\\a.png,"x, y"\n',
    "prompts.csv": 'path,label,tags\n./a.png,3,"x, y"\n',
    "meta_cap.json": json.dumps({"/data/img/a.png": {"caption": "x, y"}}),
    "meta_lat.json": json.dumps({"a": {"caption": "x", "tags": "y", "train_resolution": [6, 4]}}),
    "captions.json": json.dumps({"a.png": "x, y"}),
    "rows.tsv": "text\tfile\nx, y\ta.png",
    "rows.json": json.dumps([{"image": "A.PNG", "prompt": "x, y"}]),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_captions(folder, name):
    write(folder, {name: TABLES[name]})
    scan = DataFolder.scan(folder)
    assert captions(folder) == {"a.png": ("x, y",)}
    assert scan.warnings == scan.errors == scan.unread == ()
    assert f"captions: 1 from {name}, 2 from templates" in scan.summary


def test_several_captions_in_a_table_are_alternatives(folder):
    rows = [{"file_name": "a.png", "text": ["x", "y"]}, {"file_name": "a.png", "text": "z"}]
    write(folder, {"metadata.jsonl": "\n".join(map(json.dumps, rows))})
    assert captions(folder) == {"a.png": ("x", "y", "z")}


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        (
            "steps.csv",
            "step,loss\n1,2\n",
            "its columns are step, loss; a table of captions has file_name (or image) and",
        ),
        ("headless.csv", "a.png,a cat\n", "its columns are a.png, a cat; a table"),
        ("empty.csv", "", "its columns are none; a table"),
        ("names.jsonl", '{"file_name": "a.png", "label": 3}', "its columns are file_name, label"),
        ("anna.log.jsonl", '{"step": 1}', "logs of a training are not read"),
        ("options.json", '{"seed": 1}', "it names no picture of the folder"),
        ("broken.json", "{", "it is no JSON that can be read"),
        ("number.json", "3", "it is no table of captions"),
        ("metadata.parquet", "PAR1", "save it as metadata.csv or metadata.jsonl"),
    ],
)
def test_what_is_no_table_is_named_with_the_reason(folder, name, text, reason):
    write(folder, {name: text})
    scan = DataFolder.scan(folder)
    assert reason in unread(folder)[name] and scan.errors == () and f"not read: {name}" in scan.summary


def test_rows_that_lead_nowhere_are_named_and_the_others_used(folder):
    write(folder, {"metadata.csv": "file_name,text\nnone.png,x\na.png,y\nb.jpg\n"})
    assert captions(folder) == {"a.png": ("y",)}
    assert DataFolder.scan(folder).warnings == (
        "metadata.csv names pictures that are not there, or are there in several folders: line 2: none.png",
        "metadata.csv has no picture or no caption in line 4",
    )


def test_names_in_messages_stay_in_their_line(folder):
    write(folder, {"metadata.csv": 'file_name,text\n"no\nne.png",x\n'})
    (warning,) = DataFolder.scan(folder).warnings
    assert warning.endswith("line 2: no ne.png")


def test_a_damaged_table_is_an_error(folder):
    write(folder, {"metadata.csv": 'file_name,text\na.png,"' + "x" * 200_000})
    (error,) = DataFolder.scan(folder).errors
    assert (
        "metadata.csv line 2 cannot be read: a value has more than 131072 letters, as where a quote is not closed; "
        "allowed are a header and"
    ) in error


def test_a_caption_beside_a_picture_beats_a_table(folder):
    write(folder, {"a.txt": "mine", "b.txt": "same", "metadata.csv": "image,text\na.png,other\nb.jpg,same\n"})
    assert captions(folder) == {"a.png": ("mine",), "b.jpg": ("same",)}
    assert DataFolder.scan(folder).warnings == ("a.png: captions from .txt are used, others from metadata.csv are not",)


def test_captions_without_a_picture_and_empty_ones_are_named(folder):
    write(folder, {"z.txt": "x", "y.caption": "x", "LICENSE.txt": "CC BY", "a.txt": "\n"})
    scan = DataFolder.scan(folder)
    assert scan.warnings == (
        "caption a.txt is empty; its picture is learned as the trigger alone",
        "captions without a picture are not used: z.txt, y.caption",
    )
    assert scan.summary.endswith("not read: 2 captions without a picture, LICENSE.txt")


def test_inner_folders_are_read(folder):
    picture(folder / "10_anna person" / "d.png", 3)
    picture(folder / "deep" / "er" / "e.png", 4)
    table = "file_name,text\nd.png,x\n"
    write(folder, {"10_anna person/metadata.csv": table, "deep/er/e.txt": "y", "deep/er/a.txt": "none"})
    scan = DataFolder.scan(folder)
    assert [item.file_name for item in scan.pictures] == ["10_anna person/d.png", *NAMES, "deep/er/e.png"]
    assert captions(folder) == {"10_anna person/d.png": ("x",), "deep/er/e.png": ("y",)}
    assert scan.notes == ("folder '10_anna person': repeats are not used; each picture counts once",)


def test_a_name_that_stands_in_two_folders_belongs_to_neither(tmp_path):
    for number, name in enumerate(("one/a.png", "two/a.png")):
        picture(tmp_path / name, number)
    write(tmp_path, {"metadata.csv": "image,text\na.png,x\none/a.png,y\n"})
    assert captions(tmp_path) == {"one/a.png": ("y",)}
    assert "are there in several folders: line 2: a.png" in DataFolder.scan(tmp_path).warnings[0]


def test_links_are_followed_once(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    picture(other / "d.png", 3)
    (folder / "linked").symlink_to(other)
    (folder / "self").symlink_to(folder)
    (folder / "gone.png").symlink_to(folder / "nowhere")
    assert [item.file_name for item in DataFolder.scan(folder).pictures] == [*NAMES, "linked/d.png"]
    assert unread(folder) == {"gone.png": "it is no file that can be read"}


UNREAD = {
    "hidden": (("Thumbs.db", ".DS_Store", "._a.png"), "hidden files"),
    "caches": (("a.npz", "a_te.safetensors", "_latent_cache/a.png"), "caches and weights are not read"),
    "masks": (("x-masklabel.png", "masks/x.png", "masks/inner/a.png"), "no picture has its name, so it is not used"),
    "control pictures": (("x-condlabel.png", "_control/a.png"), "control pictures are not used"),
    "regularisation": (("reg/1_person/a.png", "reg/a.txt"), "regularisation pictures are not used"),
    "samples": (("anna.samples/000010-00.png",), "sample pictures of a training are not used"),
    "HEIF": (("a.heic", "b.HEIF"), "save it as JPEG or PNG"),
    "raw": (("a.dng", "a.CR2", "a.nef", "a.arw"), "raw camera data are not read; save it as JPEG or PNG"),
    "drawings": (("a.psd", "a.svg"), "save it as JPEG or PNG"),
    "films": (("a.mp4", "a.MOV"), "films are not read; save single frames as JPEG or PNG"),
    "others": (("notes.pdf", "a"), "it is no picture, caption or table of captions"),
}


@pytest.mark.parametrize("sort", UNREAD)
def test_what_is_not_trained_on_is_named_with_the_reason(folder, sort):
    names, reason = UNREAD[sort]
    write(folder, dict.fromkeys(names, b"x"))
    scan = DataFolder.scan(folder)
    assert scan.errors == () and [item.file_name for item in scan.pictures] == list(NAMES)
    assert set(unread(folder)) == set(names)
    assert all(reason in given for given in unread(folder).values())


def test_hidden_folders_are_not_entered_and_count_as_one(folder):
    names = ("__MACOSX", ".git", "@eaDir", ".ipynb_checkpoints")
    write(folder, {f"{name}/{inner}": b"x" for name in names for inner in ("a.png", "deep/b.jpg", "c.txt")})
    scan = DataFolder.scan(folder)
    assert set(unread(folder)) == set(names) and scan.warnings == ()
    assert scan.summary.endswith("not read: 4 hidden or system files")


def test_files_beside_pictures_that_are_not_used_are_no_pictures(folder):
    write(folder, dict.fromkeys(("reg/a.png", "reg/a.txt", "anna.samples/1.png", "anna.samples/log.txt"), b"x"))
    assert DataFolder.scan(folder).summary.endswith(
        "not read: 1 regularisation file, 1 regularisation picture, 1 sample file, 1 sample picture"
    )


@pytest.mark.parametrize("name", ["a.jpg_large", "b.jpg!d", "IMG_0001", "c.png_orig"])
def test_a_picture_whose_name_ends_otherwise_is_named_as_one(folder, name):
    write(folder, {name: (folder / "a.png").read_bytes(), "film": b"\0\0\0\x18ftypisom"})
    assert unread(folder) == {
        name: "it is a picture (PNG), but its name ends as no picture's does; let it end with .png, .jpg or the like",
        "film": "it is a film (MP4 or QuickTime), but its name ends as no picture's does; save single frames as JPEG "
        "or PNG",
    }


def test_a_mask_needs_its_picture(tmp_path):
    picture(tmp_path / "carnival_mask.png", 1)
    assert len(DataFolder.scan(tmp_path).pictures) == 1


def test_equal_pictures_are_read_once_with_all_captions(folder):
    write(folder, {"copy.png": (folder / "a.png").read_bytes(), "a.txt": "x", "copy.txt": "y\nx"})
    scan = DataFolder.scan(folder)
    assert scan.pictures[0].captions == ("x", "y") and scan.pictures[0].copies == ("copy.png",)
    assert unread(folder) == {"copy.png": "equal to a.png, which is read once, with the captions of both"}


def test_the_first_frame_is_spoken_of(tmp_path):
    first, second = Image.new("RGB", (6, 4), "red"), Image.new("RGB", (6, 4), "blue")
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    assert DataFolder.scan(tmp_path).notes == ("a.gif: of several frames or pages the first is read",)


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("a.PNG", "PNG"),
        ("a.jpe", "JPEG"),
        ("a.jfif", "JPEG"),
        ("a.bmp", "BMP"),
        ("a.dib", "DIB"),
        ("a.tif", "TIFF"),
        ("a.TIFF", "TIFF"),
        ("a.gif", "GIF"),
        ("a.avif", "AVIF"),
        ("a.apng", "PNG"),
        ("a.jpg", "PNG"),
    ],
)
def test_pictures_of_all_formats(tmp_path, name, format):
    Image.new("RGB", (6, 4)).save(tmp_path / name, format=format)
    assert DataFolder.scan(tmp_path).summary == "1 picture (6×4), captions: 1 from templates"


def test_the_verdict_is_there_for_users_of_python(folder):
    write(folder, {"a.txt": "TOKEN", "notes.pdf": b"x", "torn.png": (folder / "a.png").read_bytes()[:-30]})
    scan = DataFolder.scan(folder)
    assert scan.errors == () and len(scan.pictures) == 4  # no pixel is decoded
    checked = checked_folder(scan, token="<anna>", class_word="person")
    (error,) = checked.errors
    assert list(checked.lines()) == [
        "3 pictures (6×4), captions: 1 from .txt, 2 from templates; not read: notes.pdf",
        "  a.png 6×4, .txt: <anna> person",
        *(f"  {name} 6×4, templates: {' | '.join(checked.pictures[1].captions)}" for name in NAMES[1:]),
        "Not read: notes.pdf: it is no picture, caption or table of captions",
        f"Error: {error}",
    ]
    assert "torn.png cannot be read" in error
    listing = checked.to_json()
    assert (listing["trains"], listing["errors"], listing["warnings"]) == (False, [error], [])
    assert listing["pictures"][0]["captions"] == ["<anna> person"]


def test_the_summary_counts_everything(folder):
    picture(folder / "d.png", 3, size=(40, 32))
    write(folder, {"a.txt": "x", "b.txt": "x", "metadata.csv": "image,prompt\nc.webp,x\n", "notes.pdf": b"x"})
    picture(folder / "masks" / "a.png", 4)
    picture(folder / "b_mask.png", 4)
    assert DataFolder.scan(folder).summary == (
        "4 pictures (6×4 to 40×32), captions: 2 from .txt, 1 from metadata.csv, 1 from templates, 2 masks; "
        "not read: notes.pdf"
    )
    write(folder, dict.fromkeys((f"{number}.pdf" for number in range(7)), b"x"))
    assert DataFolder.scan(folder).summary.endswith("not read: 0.pdf, 1.pdf, 2.pdf and 5 others")
