import hashlib
import json

import numpy as np
import pytest
import torch
from PIL import Image

from orthoplex.activations.captions import foreign_syntax, insert_trigger
from orthoplex.concepts import KINDS
from orthoplex.errors import DatasetError
from orthoplex.files import read_picture
from orthoplex.training import ConceptDataset
from orthoplex.training.dataset import fitted


def read(folder, **changes):
    options = {"resolution": 32, "token": "<anna>", "class_word": "person", "kind": "person"}
    return ConceptDataset.from_folder(folder, **(options | changes))


def test_pictures_are_square_and_in_order(folder):
    dataset = read(folder, resolution=16)
    assert len(dataset) == 4
    assert [picture.file_name for picture in dataset.pictures] == ["00.png", "01.png", "02.png", "03.png"]
    assert dataset.pixels().shape == (4, 3, 16, 16)
    assert dataset.pixels().min() >= -1.0 and dataset.pixels().max() <= 1.0
    assert dataset.image(2).size == (16, 16)


def test_pixels_are_scaled_to_one(tmp_path):
    Image.new("RGB", (8, 8), (255, 0, 0)).save(tmp_path / "red.png")
    pixels = read(tmp_path, resolution=4).pixels()[0]
    assert torch.equal(pixels[0], torch.ones(4, 4))
    assert torch.equal(pixels[1:], -torch.ones(2, 4, 4))


def test_crop_is_at_the_centre(tmp_path):
    image = Image.new("RGB", (30, 10), "blue")
    image.paste("red", (10, 0, 20, 10))
    image.save(tmp_path / "wide.png")
    pixels = fitted(read_picture(tmp_path / "wide.png"), (10, 10))
    assert pixels[0].float().mean() == 255 and pixels[2].float().mean() == 0


def test_exif_rotation_is_applied(tmp_path):
    image = Image.new("RGB", (10, 20), "red")
    image.paste("blue", (0, 10, 10, 20))
    exif = Image.Exif()
    exif[0x0112] = 3
    image.save(tmp_path / "turned.png", exif=exif)
    pixels = fitted(read_picture(tmp_path / "turned.png"), (8, 8))
    assert pixels[2, 0, 0] > 200 and pixels[0, 0, 0] < 50


def test_transparency_becomes_white(tmp_path):
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert fitted(read_picture(tmp_path / "clear.png"), (8, 8)).min() == 255


def test_jpeg_and_webp_are_read(tmp_path):
    for name, color in (("a.jpg", "red"), ("b.jpeg", "green"), ("c.webp", "blue"), ("d.PNG", "white")):
        Image.new("RGB", (8, 8), color).save(tmp_path / name)
    (tmp_path / "notes.md").write_text("not a picture")
    assert len(read(tmp_path)) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_templates_hold_the_trigger(folder, kind):
    for caption in read(folder, kind=kind).captions:
        assert "<anna> person" in caption and "{" not in caption


def test_template_texts(folder):
    assert read(folder).captions == ("a drawing of <anna> person", "a photo of <anna> person")
    assert read(folder, kind="style", class_word="painting").captions == ("a picture in the style of <anna> painting",)
    assert read(folder, kind="scene", class_word="place").captions == ("a view of <anna> place",)


def test_token_form_leaves_the_class_word_out(folder):
    dataset = read(folder, trigger_form="token")
    assert dataset.trigger == "<anna>"
    assert dataset.captions == ("a drawing of <anna>", "a photo of <anna>")


def test_a_class_word_behind_the_token_goes_with_it(folder):
    texts = ("<anna> person in a forest", "TOKEN person by day", "{trigger} at night", "a person")
    for number, text in enumerate(texts):
        (folder / f"{number:02d}.txt").write_text(text)
    for form, trigger in (("token", "<anna>"), ("token class", "<anna> person")):
        captions = [picture.captions[0] for picture in read(folder, trigger_form=form).pictures[:4]]
        assert captions == [f"{trigger} in a forest", f"{trigger} by day", f"{trigger} at night", trigger]


def test_text_files_go_before_metadata(folder):
    (folder / "00.txt").write_text("{trigger} at night\n")
    lines = [{"file_name": "00.png", "text": "unused"}, {"file_name": "01.png", "text": "TOKEN by day"}]
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    captions = [picture.captions for picture in read(folder).pictures]
    assert captions[0] == ("<anna> person at night",)
    assert captions[1] == ("<anna> person by day",)
    assert captions[2] == ("a photo of <anna> person", "a drawing of <anna> person")


@pytest.mark.parametrize("name", ["LICENSE.txt", "README.txt", "notice.txt"])
def test_licences_are_no_captions(folder, name):
    (folder / name).write_text("CC BY 4.0")
    assert len(read(folder)) == 4


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("{trigger} on a beach", "<anna> person on a beach"),
        ("TOKEN on a beach", "<anna> person on a beach"),
        ("<anna> on a beach", "<anna> person on a beach"),
        ("<name> on a beach", "<anna> person on a beach"),
        ("<anna> person on a beach", "<anna> person on a beach"),
        ("TOKEN person, TOKEN", "<anna> person, <anna> person"),
        ("a photo of a person on a beach", "a photo of <anna> person on a beach"),
        ("The Person smiles at a person", "<anna> person smiles at a person"),
        ("a personal note", "<anna> person, a personal note"),
        ("smiling on a beach", "<anna> person, smiling on a beach"),
        ("TOKENS on a beach", "<anna> person, TOKENS on a beach"),
        ("  ", "<anna> person"),
        ("[trigger] smiling", "<anna> person smiling"),
        ("{Trigger} smiling", "<anna> person smiling"),
        ("<TRIGGER> person", "<anna> person"),
        ("[Name], {name}, <Name>", "<anna> person, <anna> person, <anna> person"),
        ("{{trigger_word}} and [ concept ]", "<anna> person and <anna> person"),
        ("a photo of [V] person", "a photo of <anna> person"),
        ("[v*] {subject} <token>", "<anna> person <anna> person <anna> person"),
        ("TOK and tok", "<anna> person and <anna> person"),
        ("a token of friendship", "<anna> person, a token of friendship"),
        ("[smiling] <bob>", "<anna> person, [smiling] <bob>"),
        ("<Anna> x", "<anna> person x"),
        ("<ANNA> PERSON", "<anna> person"),
        ("<anna>person, <anna>-like", "<anna> person, <anna> person-like"),
        ("[trigger] Person smiles", "<anna> person smiles"),
        ("[[trigger]] x", "<anna> person x"),
        ("[[ Name ]]", "<anna> person"),
        (r"miku \(vocaloid\), \[x\]", "<anna> person, miku (vocaloid), [x]"),
        (r"TOKEN \(a\)", "<anna> person (a)"),
        (r"a \(person\)", "a (<anna> person)"),
    ],
)
def test_trigger_in_captions(caption, expected):
    assert insert_trigger(caption, token="<anna>", class_word="person", trigger="<anna> person") == expected


def test_bare_token_in_captions():
    def insert(caption):
        return insert_trigger(caption, token="<anna>", class_word="person", trigger="<anna>")

    assert insert("<anna> person smiles") == "<anna> smiles"
    assert insert("a person smiles") == "<anna> smiles"


def test_class_words_are_no_patterns():
    trigger = "<anna> c++"
    assert insert_trigger("a cpp book", token="<anna>", class_word="c++", trigger=trigger) == "<anna> c++, a cpp book"


@pytest.mark.parametrize(
    ("caption", "foreign"),
    [
        ("<anna> person at 10:30 (noon: 12:30), (smiling)", ()),
        ("(smile:1.2), ((hair: 0.8)), (a b:-1)", ("(smile:1.2)", "(hair: 0.8)", "(a b:-1)")),
        ("<lora:anna:0.8> <lyco:x:1>", ("<lora:anna:0.8>", "<lyco:x:1>")),
        ("{red|blue} hair, __hair__", ("{red|blue}", "__hair__")),
        ("(word0:1.2), (v2: .5) (4:3)", ("(word0:1.2)", "(v2: .5)")),
        ("[cat:dog:0.5]", ("[cat:dog:0.5]",)),
        ("[place] {place} <bob> <bob>", ("[place]", "{place}", "<bob>")),
    ],
)
def test_syntax_of_other_programs(caption, foreign):
    assert foreign_syntax(caption, token="<anna>") == foreign
    assert foreign_syntax("<bob>, <anna>", token=None) == ()


def test_syntax_of_other_programs_is_warned_of(folder, caplog):
    (folder / "00.txt").write_text("TOKEN (smile:1.2)")
    read(folder)
    assert (
        "captions of 00.png hold (smile:1.2), which is learned as text; captions have no weights; take" in caplog.text
    )


def test_sizes_that_hurt_are_warned_of(folder, caplog):
    Image.new("RGB", (90, 40)).save(folder / "wide.png")
    read(folder, resolution=37)
    assert "00.png (40×36), 01.png (40×36), 02.png (40×36), 03.png (40×36): smaller than 37×37" in caplog.text
    assert "wide.png: the square in the middle leaves out more than half of the picture" in caplog.text


def test_lines_of_a_text_are_captions_of_their_own(folder):
    (folder / "00.txt").write_text("TOKEN by day\r\n\n  a person by day \n{trigger} at night\n")
    assert read(folder).pictures[0].captions == ("<anna> person by day", "<anna> person at night")


def test_the_hash_is_that_of_earlier_versions(folder):
    """Old checkpoints are continued: file names, contents, captions and arguments, as they always were."""
    (folder / "00.txt").write_text("{trigger} at night\n")
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "01.png", "text": "smiling\nby day"}))
    names = ["00.png", "01.png", "02.png", "03.png"]
    templates = ["a photo of <anna> person", "a drawing of <anna> person"]
    captions = [["<anna> person at night"], ["<anna> person, smiling\nby day"], templates, templates]
    digests = [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names]
    listing = [list(row) for row in zip(names, digests, captions, strict=True)]
    arguments = ["<anna>", "person", "<anna> person", "person", 32]
    assert read(folder).dataset_hash == hashlib.sha256(json.dumps([listing, arguments]).encode()).hexdigest()


def test_hash_depends_on_everything_and_on_nothing_else(folder):
    first = read(folder).dataset_hash
    assert len(first) == 64 and first == read(folder).dataset_hash
    others = [
        read(folder, token="<bob>"),
        read(folder, class_word="woman"),
        read(folder, kind="subject"),
        read(folder, resolution=16),
        read(folder, trigger_form="token"),
    ]
    (folder / "00.txt").write_text("TOKEN")
    others.append(read(folder))
    (folder / "00.txt").unlink()
    Image.new("RGB", (8, 8)).save(folder / "00.png")
    others.append(read(folder))
    assert len({first, *(dataset.dataset_hash for dataset in others)}) == 8


def test_missing_folder(tmp_path):
    with pytest.raises(DatasetError, match="folder .*nowhere does not exist"):
        read(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="file is a file; allowed is a folder of pictures"):
        read(tmp_path / "file")


def test_empty_folder(tmp_path):
    with pytest.raises(DatasetError, match="holds no pictures; allowed are .png, .jpg, .jpeg, .webp"):
        read(tmp_path)


def test_unreadable_picture_is_named(folder):
    (folder / "broken.png").write_bytes(b"not a picture")
    with pytest.raises(DatasetError, match=r"picture .*broken.png cannot be read"):
        read(folder)
    (folder / "empty.png").touch()
    with pytest.raises(DatasetError, match=r"broken.png .* \(orthoplex check lists 1 other fault\)"):
        read(folder)


def test_truncated_picture_is_named(folder):
    whole = (folder / "00.png").read_bytes()
    (folder / "04.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match=r"picture .*04.png cannot be read"):
        read(folder)


@pytest.mark.parametrize("name", ["00.txt", "metadata.jsonl"])
def test_captions_that_are_no_text_are_named(folder, name):
    (folder / name).write_bytes(b"na\xefve")
    with pytest.raises(DatasetError, match=f"{name} cannot be read: .*allowed is UTF-8 text"):
        read(folder)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["", '{"file_name": "00.png"'], "line 2 cannot be read; allowed is .*file_name"),
        (["nonsense"], "line 1 cannot be read"),
        (["[]"], "line 1 cannot be read"),
        (["[" * 99999], "line 1 cannot be read"),
    ],
)
def test_metadata_errors_name_the_line(folder, lines, message):
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    with pytest.raises(DatasetError, match=f"metadata.jsonl {message}"):
        read(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"token": "anna"}, "token is 'anna'; allowed is <name>"),
        ({"token": "<Anna B>"}, "token is '<Anna B>'; allowed is <name>"),
        ({"class_word": " "}, "class_word is ' '; allowed is a word"),
        ({"class_word": "a\nb"}, "class_word is 'a.*b'; allowed is a word"),
        ({"class_word": "<bob>"}, "class_word is '<bob>'; allowed are up to 64 characters without '<' and '>'"),
        ({"class_word": "w" * 65}, "allowed are up to 64 characters"),
        ({"kind": "animal"}, "kind is 'animal'; allowed are person, subject, scene, style"),
        ({"resolution": 0}, "resolution is 0; allowed are whole numbers from 1"),
    ],
)
def test_arguments_are_checked(folder, changes, message):
    with pytest.raises(DatasetError, match=message):
        read(folder, **changes)


def test_sixteen_bit_grey_keeps_its_shades(tmp_path):
    values = np.array([[0, 257, 32896, 65535]] * 4, dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "grey.png")
    pixels = fitted(read_picture(tmp_path / "grey.png"), (4, 4))
    assert pixels[:, 0].tolist() == [[0, 1, 128, 255]] * 3


def test_transparent_sixteen_bit_grey_becomes_white(tmp_path):
    values = np.array([[0, 1000, 1001, 65535]] * 4, dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "grey.png", transparency=1000)
    assert fitted(read_picture(tmp_path / "grey.png"), (4, 4))[0, 0].tolist() == [0, 255, 4, 255]


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_of_unknown_range_are_refused(tmp_path, mode):
    Image.new(mode, (4, 4)).save(tmp_path / "grey.png", format="TIFF")
    with pytest.raises(DatasetError, match=f"grey.png has pixels of mode {mode}; allowed are 8 or 16 bits per channel"):
        fitted(read_picture(tmp_path / "grey.png"), (4, 4))


def test_a_backslash_in_the_class_word_is_a_backslash(folder):
    (folder / "00.txt").write_text("TOKEN at night")
    (folder / "01.txt").write_text(r"a do\g at night")
    captions = [picture.captions for picture in read(folder, class_word=r"do\g").pictures]
    assert captions[:2] == [(r"<anna> do\g at night",)] * 2


@pytest.mark.parametrize("name", ["00.txt", "metadata.jsonl"])
def test_a_byte_order_mark_is_no_caption(folder, name):
    text = json.dumps({"file_name": "00.png", "text": "TOKEN"}) if name == "metadata.jsonl" else "TOKEN"
    (folder / name).write_text(text, encoding="utf-8-sig")
    assert read(folder).pictures[0].captions == ("<anna> person",)


def test_a_line_separator_in_metadata_ends_no_line(folder):
    line = json.dumps({"file_name": "00.png", "text": "TOKEN\u2028at night"}, ensure_ascii=False)
    (folder / "metadata.jsonl").write_text(line + "\r\n", encoding="utf-8")
    assert read(folder).pictures[0].captions == ("<anna> person\u2028at night",)


def test_notes_of_the_folder_are_logged(folder, caplog):
    frames = [Image.new("RGB", (40, 36), color) for color in ("red", "blue")]
    (folder / "10_anna").mkdir()
    frames[0].save(folder / "10_anna" / "a.gif", save_all=True, append_images=frames[1:])
    read(folder)
    assert "10_anna/a.gif: of several frames or pages the first is read" in caplog.text
    assert "folder '10_anna': repeats are not used; each picture counts once" in caplog.text
