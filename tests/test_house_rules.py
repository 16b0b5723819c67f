"""The house rules: names that have ended are reported wherever a file defines them."""

import ast
import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def rules():
    """`.ci/house_rules.py`, which is no part of a package."""
    spec = importlib.util.spec_from_file_location("house_rules_script", ROOT / ".ci" / "house_rules.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("source", "line", "name"),
    [
        ("found = 1", 1, "found"),
        ("x = 1\n_kept: int = x", 2, "_kept"),
        ("for way in ():\n    pass", 1, "way"),
        ("def turn():\n    pass", 1, "turn"),
        ("async def aim():\n    pass", 1, "aim"),
        ("class _Together:\n    pass", 1, "_Together"),
        ("def change(x, *, told):\n    pass", 1, "told"),
        ("lambda strangers: 0", 1, "strangers"),
        ("self.heard = 1", 1, "heard"),
    ],
)
def test_an_ended_name_is_reported_with_its_line_and_the_name_to_give(rules, source, line, name):
    breaches = list(rules.check_names("orthoplex/room.py", ast.parse(source)))
    instead = rules.ENDED_NAMES[name.lstrip("_")]
    assert breaches == [f"orthoplex/room.py:{line}: the name {name} has ended; say {instead}"]


def test_other_names_and_uses_of_ended_ones_are_not_reported(rules):
    source = 'files = {"found": 1}\nfounder = files["found"]\nprint(regex.found, turn(founder), way)  # told, kept'
    assert list(rules.check_names("orthoplex/room.py", ast.parse(source))) == []


@pytest.mark.parametrize(
    ("folder", "num_breaches"),
    [("orthoplex/models", 1), ("orthoplex/training", 1), ("orthoplex/new_room", 1), ("tests", 0)],
)
def test_no_room_of_the_package_is_exempt(rules, monkeypatch, tmp_path, folder, num_breaches):
    monkeypatch.setattr(rules, "ROOT", tmp_path)
    path = tmp_path / folder / "room.py"
    path.parent.mkdir(parents=True)
    path.write_text("found = 1\n", encoding="utf-8")
    assert len(list(rules.check_code(path))) == num_breaches
