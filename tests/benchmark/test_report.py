"""Tables, charts and sheets."""

import json
import xml.etree.ElementTree as ElementTree

import pytest

from orthoplex.benchmark.chart import Bar, bar_chart
from orthoplex.benchmark.markdown import markdown_table
from orthoplex.benchmark.report import machine, write_json

NAMESPACE = "{http://www.w3.org/2000/svg}"


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


def bars(svg):
    root = ElementTree.fromstring(svg)
    rectangles = [
        item for item in root.iter(f"{NAMESPACE}rect") if item.get("height") == "12" and item.get("width") != "12"
    ]
    return [(float(item.get("width", "")), item.get("fill")) for item in rectangles]


def test_bars_are_in_proportion_and_colours_follow_names():
    groups = {"one": [Bar("a", 1.0, 0.9, 1.0), Bar("b", 0.5, 0.4, 0.6)], "two": [Bar("b", 0.25, 0.2, 0.3)]}
    (first, blue), (second, orange), (third, same) = bars(bar_chart(groups, title="t", reference=1.0))
    assert second / first == pytest.approx(0.5, rel=1e-2)
    assert third / first == pytest.approx(0.25, rel=1e-2)
    assert orange == same != blue


def test_names_are_escaped_and_negative_bars_end_at_zero():
    svg = bar_chart({"<x> & y": [Bar("a", -0.5, -1.0, 0.2)]}, title="1 < 2")
    assert "&lt;x&gt; &amp; y" in svg and "1 &lt; 2" in svg
    assert bars(svg)[0][0] == 0.0


def test_an_empty_chart_is_still_a_chart():
    assert bars(bar_chart({}, title="nothing")) == []
    assert [length for length, _ in bars(bar_chart({"v": [Bar("a", 0.0, 0.0, 0.0)]}, title="none"))] == [0.0]
