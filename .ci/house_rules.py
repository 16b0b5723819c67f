"""Check the house rules that no linter knows: sizes, forbidden words of code, and the docs.

Prints one line for each breach and exits with 1 when there is any.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILE_LINES, FUNCTION_LINES, LOOP_LINES = 400, 60, 120
LOOPS = {("orthoplex/training", "train"), ("orthoplex/training", "_steps"), ("pretraining", "train")}
FORBIDDEN_CALLS = {"hasattr": "ask for the type instead", "print": "the library yields, logs or raises"}
FORBIDDEN_FOLDERS = {"utils", "common", "core", "helpers"}
PRINTING_ROOMS = ("orthoplex/cli", "pretraining", "benchmarks", ".ci")
MEASURING = "benchmarks/"
"""Commands that time imports import when they are called."""
LIGHT_ROOMS = ("cli", "concepts", "errors", "exports", "files", "options", "vignette")
"""What a door may import at the top: nothing there loads torch before it must (tested)."""
DOORS = ("orthoplex/cli",)
"""Rooms whose functions import from the package when they are called; everywhere else imports stand at the top."""
PIPELINES = "orthoplex/models/"
"""The one room that may reach into a pipeline; the others ask a base's family."""
ENDED_NAMES = {
    "aim": "set_token_directions",
    "aimed": "reads_tokens",
    "found": "a noun for the values that were found",
    "has_guests": "is_training",
    "heard": "active_concepts",
    "homeless": "without_place",
    "kept": "a noun for the values that are kept",
    "kept_gram": "stored_gram",
    "merge_on": "merge_for",
    "silent": "after_erasure",
    "strangers": "foreign_material",
    "suited_algorithm": "default_algorithm",
    "told": "a noun for the value: summary, prefix, arguments",
    "turn": "set_directions",
    "turned": "directions or changes",
    "turns": "has_frozen_directions",
    "way": "algorithm or method",
    "Pictured": "ConceptPictures",
    "Shown": "ConceptFeatures",
    "Stand": "DemoPictures",
    "Together": "GroupPictures",
}
"""Names that are not given any more -> the names to give instead. Words of a file format are no names."""
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")
FENCE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def python_files() -> Iterator[Path]:
    """Yield every Python file of the project."""
    for folder in ("orthoplex", "pretraining", "benchmarks", "tests", ".ci"):
        yield from sorted((ROOT / folder).rglob("*.py"))


def check_code(path: Path) -> Iterator[str]:
    """Yield the breaches of one Python file."""
    name, text = path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
    num_lines = len(text.splitlines())
    if num_lines > FILE_LINES:
        yield f"{name}: {num_lines} lines; at most {FILE_LINES}"
    if FORBIDDEN_FOLDERS & {*path.relative_to(ROOT).with_suffix("").parts}:
        yield f"{name}: a helper lives in the lowest room that needs it, not in {path.stem} or {path.parent.name}"
    tests = name.startswith("tests/")
    tree = ast.parse(text)
    if name.startswith("orthoplex/"):
        yield from check_names(name, tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            is_loop = any(name.startswith(room) and node.name == function for room, function in LOOPS)
            limit = LOOP_LINES if is_loop else FUNCTION_LINES
            if length > limit:
                yield f"{name}:{node.lineno}: function {node.name} has {length} lines; at most {limit}"
            may_import = tests or name.startswith((*DOORS, MEASURING))
            if not may_import and any(map(own, ast.walk(node))):
                yield f"{name}:{node.lineno}: function {node.name} imports from orthoplex; imports stand at the top"
        if name.startswith(DOORS) and node in tree.body and own(node) and heavy(node):
            yield f"{name}:{node.lineno}: a verb imports what it needs when it is called, not at the top"
        reaches = isinstance(node, ast.Attribute) and node.attr == "pipeline"
        if reaches and name.startswith("orthoplex/") and not name.startswith(PIPELINES):
            yield f"{name}:{node.lineno}: .pipeline is for {PIPELINES} alone; ask the base's family"
        if tests or not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        allowed = node.func.id == "print" and name.startswith(PRINTING_ROOMS)
        if node.func.id in FORBIDDEN_CALLS and not allowed:
            yield f"{name}:{node.lineno}: {node.func.id}() is not used here: {FORBIDDEN_CALLS[node.func.id]}"


def check_names(name: str, tree: ast.AST) -> Iterator[str]:
    """Yield every ended name that a file defines, with its line and the name to give instead."""
    for line, given in sorted(set(given_names(tree))):
        if given.lstrip("_") in ENDED_NAMES:
            yield f"{name}:{line}: the name {given} has ended; say {ENDED_NAMES[given.lstrip('_')]}"


def given_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the name of every function, class, argument and variable that a file defines."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield node.lineno, name
            case _:
                pass


def imported(node: ast.AST) -> list[str]:
    """Return the modules that an import statement names; none for any other statement."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or "orthoplex"] if isinstance(node, ast.ImportFrom) else []


def own(node: ast.AST) -> bool:
    """Return True if a statement imports from the package itself."""
    return any(name.split(".")[0] == "orthoplex" for name in imported(node))


def heavy(node: ast.AST) -> bool:
    """Return True if an import from the package may load torch."""
    rooms = [name.split(".")[1] for name in imported(node) if "." in name]
    return any(room not in LIGHT_ROOMS for room in rooms)


def check_page(path: Path) -> Iterator[str]:
    """Yield the dead links and the Python examples that cannot be parsed of one page."""
    name, text = path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
    for target in LINK.findall(text):
        if "://" not in target and not target.startswith("mailto:") and not (path.parent / target).exists():
            yield f"{name}: link to {target}, which does not exist"
    for number, example in enumerate(FENCE.findall(text), start=1):
        try:
            compile(example, name, "exec", flags=ast.PyCF_ONLY_AST)
        except SyntaxError as error:
            yield f"{name}: Python example {number}: {error.msg} in line {error.lineno}"


def main() -> int:
    """Check everything; return the exit status."""
    breaches = [breach for path in python_files() for breach in check_code(path)]
    for page in [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]:
        breaches += check_page(page)
    for breach in breaches:
        print(breach)
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
