"""Folders that are there whole or not at all."""

import pytest

from orthoplex.errors import ConfigurationError, OutputError
from orthoplex.files import check_folder, folder_made_once, folder_written_whole


def fill(folder, text, **options):
    with folder_written_whole(folder, **options) as temporary:
        temporary.mkdir()
        (temporary / "file").write_text(text)


@pytest.mark.parametrize("is_there", [False, True])
def test_a_folder_is_written_whole(tmp_path, is_there):
    folder = tmp_path / "new" / "folder"
    if is_there:
        folder.mkdir(parents=True)
    fill(folder, "whole")
    assert (folder / "file").read_text() == "whole"
    assert not list(tmp_path.rglob(".*"))


def test_a_full_folder_is_replaced_only_when_asked(tmp_path):
    fill(tmp_path / "a", "old")
    with pytest.raises(ConfigurationError, match="a: the folder is not empty, allowed is a new or empty one, or over"):
        fill(tmp_path / "a", "new")
    fill(tmp_path / "a", "new", overwrite=True)
    assert (tmp_path / "a" / "file").read_text() == "new" and [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("is_full", [False, True])
def test_a_failing_write_leaves_what_was_there(tmp_path, is_full):
    if is_full:
        fill(tmp_path / "a", "old")
    with (
        pytest.raises(OutputError, match="a cannot be written: disk full"),
        folder_written_whole(tmp_path / "a", overwrite=True) as temporary,
    ):
        temporary.mkdir()
        raise OSError("disk full")
    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["old"] * is_full


def test_a_folder_that_a_killed_process_moved_aside_is_put_back(tmp_path):
    fill(tmp_path / ".a.0123.replaced", "old")
    with pytest.raises(ConfigurationError, match="a: the folder is not empty"):
        fill(tmp_path / "a", "new")
    assert (tmp_path / "a" / "file").read_text() == "old"


def test_the_last_file_is_moved_last(tmp_path, monkeypatch):
    folder, moved = tmp_path / "mounted", []
    folder.mkdir()
    rename = __import__("os").replace
    monkeypatch.setattr("os.replace", lambda source, target: (moved.append(target.name), rename(source, target)))
    with folder_written_whole(folder, last="index") as temporary:
        temporary.mkdir()
        for name in ("index", "weights", "z"):
            (temporary / name).touch()
    assert moved == ["weights", "z", "index"]


def test_places_where_no_folder_can_be_are_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="file: is a file, a folder is needed"):
        check_folder(tmp_path / "file")
    with pytest.raises(OutputError, match="folder cannot be written: "):
        check_folder(tmp_path / "file" / "folder")


def test_two_processes_may_make_one_folder_at_a_time(tmp_path):
    with folder_made_once(tmp_path / "a") as slow:
        (slow / "0").write_text("half")
        with folder_made_once(tmp_path / "a") as quick:
            (quick / "0").write_text("whole")
            (quick / "1").touch()
        (slow / "1").touch()
    with pytest.raises(ZeroDivisionError), folder_made_once(tmp_path / "b"):
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a" / "0").read_text() == "whole"


def test_a_folder_that_another_process_fills_meanwhile_is_named_with_the_cure(tmp_path):
    with (
        pytest.raises(
            OutputError, match="a was filled by another process meanwhile; give another name, or write again"
        ),
        folder_written_whole(tmp_path / "a") as temporary,
    ):
        temporary.mkdir()
        (temporary / "file").write_text("second")
        fill(tmp_path / "a", "first")
    assert (tmp_path / "a" / "file").read_text() == "first" and len(list(tmp_path.iterdir())) == 1
