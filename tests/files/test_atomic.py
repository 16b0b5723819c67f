"""Files that are there whole or not at all, and places where no file can be."""

import errno
import os
import subprocess
import sys

import pytest
from safetensors import SafetensorError

from orthoplex.errors import OutputError
from orthoplex.files import check_writable, written_atomically


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "no space left"), SafetensorError("I/O error: no space left")])
def test_a_failing_write_is_named_and_leaves_nothing(tmp_path, error):
    path = tmp_path / "new" / "file"
    with (
        pytest.raises(OutputError, match=r"new/file cannot be written: .*no space left"),
        written_atomically(path) as at,
    ):
        at.write_text("half")
        raise error
    assert list(path.parent.iterdir()) == []


def test_other_errors_are_not_hidden(tmp_path):
    with pytest.raises(ZeroDivisionError), written_atomically(tmp_path / "file"):
        raise ZeroDivisionError


@pytest.mark.parametrize("name", ["folder", "file/new", "file/new/newer", "x" * 250])
def test_a_place_that_cannot_be_written_to_is_refused_by_both(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a folder; allowed is the name of a file|cannot be written"):
        check_writable(tmp_path / name)
    with pytest.raises(OutputError, match="cannot be written"), written_atomically(tmp_path / name) as at:
        at.write_text("")


@pytest.mark.parametrize("name", ["new", "new/newer/newest", "there"])
def test_a_check_leaves_nothing_behind(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").write_text("old")
    for path in (tmp_path / name, (tmp_path / name).relative_to(tmp_path)):
        check_writable(path)
    assert [path.name for path in tmp_path.iterdir()] == ["there"] and (tmp_path / "there").read_text() == "old"


@pytest.mark.parametrize("has_links", [True, False])
def test_of_two_new_files_of_one_name_the_first_stays(tmp_path, monkeypatch, has_links):
    def refused(*arguments):
        raise OSError(errno.ENOTSUP, "no links here")

    if not has_links:
        monkeypatch.setattr("os.link", refused)
    path = tmp_path / "file"
    with written_atomically(path, overwrite=False) as first:
        first.write_text("first")
    with pytest.raises(OutputError, match="file is there by now, of another command; give another name"):
        with written_atomically(path, overwrite=False) as second:
            second.write_text("second")
    assert path.read_text() == "first" and [*tmp_path.iterdir()] == [path]


def test_what_a_killed_process_left_is_removed_by_the_next_write(tmp_path):
    path = tmp_path / "m.safetensors"
    code = (
        "import os, sys, pathlib; from orthoplex.files import written_atomically\n"
        "with written_atomically(pathlib.Path(sys.argv[1])) as at: at.write_text('half'); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, path], check=False).returncode == 9
    old = tmp_path / ".m.safetensors.0123abcd.partial"
    others = [tmp_path / ".n.safetensors.0123abcd.partial", tmp_path / ".m.safetensors.partial"]
    alive = tmp_path / f".m.safetensors.{os.getpid():08x}01234567.partial"
    for other in (old, alive, *others):
        other.write_text("")
    os.utime(old, (0, 0))
    assert len(list(tmp_path.iterdir())) == 5
    with written_atomically(path) as at:
        at.write_text("whole")
    assert {*tmp_path.iterdir()} == {path, alive, *others}
