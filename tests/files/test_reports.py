"""Reports of unforeseen errors."""

import tempfile

import pytest

from orthoplex.files import cache_folder, write_report
from orthoplex.files.reports import NUM_REPORTS


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_the_newest_reports_stay_and_other_files_are_left_alone(home):
    folder = cache_folder() / "reports"
    folder.mkdir(parents=True)
    (folder / "mine.txt").write_text("x")
    paths = [write_report(ValueError(str(number)), ["orthoplex"]) for number in range(NUM_REPORTS + 3)]
    assert sorted(folder.glob("report-*")) == sorted(path for path in paths[3:] if path)
    assert (folder / "mine.txt").is_file() and not list(folder.glob("*.partial"))
    assert paths[-1].stat().st_mode & 0o077 == 0


def test_the_home_folder_is_not_told(home):
    path = write_report(ValueError(f"no {home}/secret"), ["orthoplex", "inspect", f"{home}/a b"])
    text = path.read_text()
    assert str(home) not in text and "ValueError: no ~/secret" in text and "~/a b" in text


def test_without_a_cache_folder_it_lies_with_temporary_files(home, tmp_path, monkeypatch):
    home.mkdir()
    (home / ".cache").write_text("no folder")
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path / "temporary"))
    assert write_report(ValueError(), []).parent.parent == tmp_path / "temporary"
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(home / ".cache"))
    assert write_report(ValueError(), []) is None


def test_a_traceback_that_cannot_be_shown_is_no_second_error(home, monkeypatch):
    def failing(*arguments, **options):
        raise RuntimeError("deep")

    monkeypatch.setattr("traceback.format_exception", failing)
    text = write_report(ValueError("x"), []).read_text()
    assert text == "ValueError: x\nThe traceback cannot be shown: RuntimeError: deep\n"
