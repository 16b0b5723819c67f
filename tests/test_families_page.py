"""The tables of `docs/bases.md` are those of today, and every cell is a test."""

import ast
import importlib.util
import re
from pathlib import Path

from tests.families import BUILDERS

ROOT = Path(__file__).resolve().parent.parent


def script():
    spec = importlib.util.spec_from_file_location("families_page", ROOT / ".ci" / "families_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_shows_the_families():
    text = (ROOT / "docs" / "bases.md").read_text(encoding="utf-8")
    assert script().up_to_date(text) == text, "python .ci/families_page.py brings docs/bases.md up to date"


def test_every_cell_is_a_test():
    page = script()
    tree = ast.parse((ROOT / "tests" / "laws" / "test_families.py").read_text(encoding="utf-8"))
    tests = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    for name, parameter in re.findall(r"`(test_\w+)\[(\w+)", page.table()):
        assert name in tests and parameter in BUILDERS, (name, parameter)
