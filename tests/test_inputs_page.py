"""The tests that `docs/inputs.md` names are there."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAMED = re.compile(r"`(tests/[\w/]+\.py)?(?:::(\w+))?`")


def test_every_named_test_exists():
    missing, file, seen = [], "", 0
    for line in (ROOT / "docs" / "inputs.md").read_text(encoding="utf-8").splitlines():
        for match in NAMED.finditer(line):
            file = match[1] or file
            path = ROOT / file
            names = {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}
            seen += 1
            if match[2] and match[2] not in names:
                missing.append(match[0])
    assert not missing and seen > 60
