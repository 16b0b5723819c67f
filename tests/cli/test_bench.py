from importlib import import_module

import pytest

from orthoplex.benchmark.events import BenchmarkEvent


def test_the_result_file_is_named(run, monkeypatch, tmp_path):
    def stand_in(path, *, results, work, processes, choices):
        yield BenchmarkEvent("train", 1, 1, "1 jobs side by side")
        yield BenchmarkEvent("report", 1, 1, f"{results}/{path.stem}.json by {processes}")

    monkeypatch.setattr(import_module("orthoplex.benchmark.runner"), "run", stand_in)
    result = run("bench", "mine.toml", "--results", tmp_path, "--processes", "3")
    assert result.exit_code == 0
    assert result.output.splitlines()[-1] == f"{tmp_path}/mine.json by 3"


def test_a_missing_experiment_is_one_line(run, tmp_path):
    result = run("bench", tmp_path / "none.toml")
    assert result.exit_code == 2
    assert "none.toml cannot be read" in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize("option", ["--results", "--work"])
def test_a_file_in_the_place_of_a_folder_is_refused_before_any_work(run, tmp_path, option):
    (tmp_path / "file").write_text("")
    result = run("bench", tmp_path / "none.toml", option, tmp_path / "file")
    assert result.exit_code == 2 and f"folder {tmp_path / 'file'} cannot be" in result.stderr
