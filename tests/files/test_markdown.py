"""Tables in Markdown."""

from orthoplex.files import markdown_table


def test_cells_hold_any_text():
    assert markdown_table(["a|b"], [["x | y\nz"]]) == "| a\\|b |\n| --- |\n| x \\| y z |\n"
