"""Tables, charts and sheets."""

import json

import pytest

from orthoplex.benchmark.report import machine, write_json
from orthoplex.files import markdown_table


def test_markdown_table():
    assert (
        markdown_table(["what", "a"], [["x", "1"], ["y", "2"]])
        == "| what | a |\n| --- | ---: |\n| x | 1 |\n| y | 2 |\n"
    )


def test_cells_hold_any_text():
    assert markdown_table(["a|b"], [["x | y\nz"]]) == "| a\\|b |\n| --- |\n| x \\| y z |\n"


def test_json_is_whole_or_not_there(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []
    write_json(tmp_path / "a.json", {"x": 1})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1}


def test_the_machine_is_named_without_its_host():
    assert {"platform", "threads", "torch", "orthoplex"} <= set(machine())
