"""Folders of pictures that are measured or trained on."""

import pytest

from orthoplex.errors import DatasetError
from orthoplex.files import check_picture_folder, no_pictures, picture_files


def test_hidden_files_folders_and_masks_are_no_pictures(tmp_path):
    names = ("b.PNG", "a.jpe", "._a.png", ".c.png", "notes.txt", "b-masklabel.png", "B-condlabel.png", "a_mask.png")
    for name in (*names, "carnival_mask.png"):
        (tmp_path / name).touch()
    (tmp_path / "d.png").mkdir()
    assert [path.name for path in picture_files(tmp_path)] == ["a.jpe", "b.PNG", "carnival_mask.png"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "folder .*nowhere does not exist; allowed is a folder of pictures"),
        ("a.txt", "a.txt is a file; allowed is a folder of pictures"),
        ("a.PNG", "a.PNG is a picture; give its folder .*"),
    ],
)
def test_what_is_no_folder_is_named(tmp_path, name, message):
    for file in ("a.txt", "a.PNG"):
        (tmp_path / file).touch()
    with pytest.raises(DatasetError, match=message):
        check_picture_folder(tmp_path / name)
    assert no_pictures(tmp_path).startswith(f"folder {tmp_path} holds no pictures; allowed are .png, .jpg")
