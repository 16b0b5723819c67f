"""JSON is read with one kind of error for every damage, and written whole or not at all."""

import json

import pytest

from orthoplex.files import parse_json, read_json, write_json


def test_json_is_whole_or_not_there(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []
    write_json(tmp_path / "a.json", {"x": 1})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1}


def test_infinities_are_written_where_they_are_allowed(tmp_path):
    write_json(tmp_path / "a.json", {"b": float("-inf"), "a": "é"}, sort=True, indent=2, finite=False)
    assert (tmp_path / "a.json").read_text("utf-8") == '{\n  "a": "é",\n  "b": -Infinity\n}\n'
    assert read_json(tmp_path / "a.json") == {"a": "é", "b": float("-inf")}


@pytest.mark.parametrize("text", ["[" * 200000, "{", ""])
def test_damaged_text_is_one_kind_of_error(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError):
        read_json(tmp_path / "a.json")
    with pytest.raises(ValueError):
        parse_json(text)


def test_halves_of_characters_are_refused():
    with pytest.raises(ValueError, match="surrogates not allowed"):
        parse_json('"\\ud800"')
