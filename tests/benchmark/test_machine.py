"""Tables, charts and sheets."""

from orthoplex.benchmark.machine import machine
from orthoplex.files import markdown_table


def test_markdown_table():
    assert (
        markdown_table(["what", "a"], [["x", "1"], ["y", "2"]])
        == "| what | a |\n| --- | ---: |\n| x | 1 |\n| y | 2 |\n"
    )


def test_the_machine_is_named_without_its_host():
    assert {"platform", "threads", "torch", "orthoplex"} <= set(machine())
