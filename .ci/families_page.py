"""Write the tables of docs/bases.md: pipelines and defaults, and what every family can do, by the names of tests.

With ``--check`` nothing is written, and the exit status is 1 where the page differs.
"""

import sys
from pathlib import Path

from orthoplex.concepts.layer_table import layer_tables
from orthoplex.files.markdown import filled, markdown_table
from orthoplex.models.families import FAMILIES

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "bases.md"
COLUMNS = {
    "folder": "test_folder[{}]",
    "single file": "test_single_file[{}]",
    "generate": "test_generate[{}]",
    "fold": "test_fold[{}]",
    "unfold": "test_unfold[{}]",
    "train 5 steps": "test_train[{}]",
    "resume": "test_resume[{}]",
    "erase": "test_erase[{}]",
    "merge": "test_merge[{}-…]",
    "convert": "test_convert[{}-…]",
}
"""Column to the test of ``tests/laws/test_families.py``, or, where the family refuses, to that of the refusal."""


def families() -> list[str]:
    """Return the families by the names of their files, each once."""
    return list(dict.fromkeys(row.module for row in FAMILIES.values()))


def table() -> str:
    """Return the table of families and tests; a cell is the test that holds it."""
    rows = [(family, *(f"`{test.format(family)}`" for test in COLUMNS.values())) for family in families()]
    return markdown_table(("family", *COLUMNS), rows).rstrip()


def facts() -> str:
    """Return the table of pipelines, versions and training defaults."""
    rows = []
    for pipeline, row in FAMILIES.items():
        table = max((name for name in layer_tables() if row.module.startswith(name)), key=len)
        versions = ", ".join(layer_tables()[table].versions)
        defaults = ", ".join(f"{name} {value}" for name, value in row.training.items())
        rows.append((f"`{pipeline}`", versions, defaults))
    return markdown_table(("pipeline", "versions of the layer table", "training defaults of its own"), rows).rstrip()


def up_to_date(text: str) -> str:
    """Return the page with the tables of today."""
    return filled(text, {"families": table(), "family-facts": facts()})


def main(arguments: list[str]) -> int:
    """Write the page, or compare it."""
    text = PAGE.read_text(encoding="utf-8")
    new = up_to_date(text)
    if "--check" in arguments:
        return int(new != text)
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
