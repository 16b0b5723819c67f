from importlib import import_module

import pytest

from orthoplex.benchmark.events import BenchmarkEvent
from orthoplex.errors import ConfigurationError


@pytest.fixture
def demo(run, monkeypatch):
    """``orthoplex demo`` with the given events in the place of the real one; also returns its arguments."""

    def call(events, *arguments):
        seen = {}

        def stand_in(folder, *, work):
            seen.update(folder=folder, work=work)
            for event in events:
                if isinstance(event, Exception):
                    raise event
                yield event

        monkeypatch.setattr(import_module("orthoplex.benchmark.demo_run"), "run_demo", stand_in)
        return run("demo", *arguments), seen

    return call


def test_events_are_drawn_and_retention_and_gallery_are_printed(demo, tmp_path):
    events = [
        BenchmarkEvent("train", 1, 2, "anna"),
        BenchmarkEvent("train", 2, 2, "anna"),
        BenchmarkEvent("merge", 1, 1, "twelve concepts merged in 0.1 s"),
        BenchmarkEvent("measure", 1, 1, "orthogonal: retention 0.9; lora: retention 0.5"),
    ]
    result, seen = demo(events, "--output", tmp_path / "gallery")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == [
        "orthogonal: retention 0.9",
        "lora: retention 0.5",
        f"gallery: {tmp_path / 'gallery' / 'index.html'}",
    ]
    assert "train: anna" in result.stderr and "twelve concepts merged" in result.stderr and "2/2" in result.stderr
    assert seen == {"folder": tmp_path / "gallery", "work": tmp_path / "gallery" / "work"}


def test_work_folder(demo, tmp_path):
    assert demo([], "--output", tmp_path, "--work", tmp_path / "kept")[1]["work"] == tmp_path / "kept"


def test_errors_are_one_line(demo, tmp_path):
    result, _ = demo([ConfigurationError("no concept is shipped")], "--output", tmp_path)
    assert result.exit_code == 2 and "Error: no concept is shipped" in result.stderr and result.stdout == ""


@pytest.mark.parametrize("option", ["--output", "--work"])
def test_a_file_in_the_place_of_a_folder_is_refused_before_any_work(demo, tmp_path, option):
    (tmp_path / "file").write_text("")
    result, seen = demo([], option, tmp_path / "file")
    assert result.exit_code == 2 and f"folder {tmp_path / 'file'} cannot be" in result.stderr and not seen
