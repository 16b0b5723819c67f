"""CONTRIBUTING's examples cost one new file and one edited one, and work as their users use them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import orthoplex

PACKAGE = Path(orthoplex.__file__).parent
ROOT = Path(__file__).parents[2]
USE = Path(__file__).with_name("price_use.py")


@dataclass(frozen=True)
class Example:
    """A worked example: its section, the file it adds, and the registry in the file that it edits."""

    section: str
    file: str
    edited: str
    registry: str


EXAMPLES = {
    "algorithm": Example(
        "Add an algorithm", "merging/algorithms/limited.py", "merging/algorithms/__init__.py", "ALGORITHMS"
    ),
    "token": Example("Add a kind of token", "concepts/tokens/scaled.py", "concepts/tokens/__init__.py", "TOKENS"),
    "family": Example("Add a family", "models/families/tiny.py", "models/families/__init__.py", "FAMILIES"),
}
TABLE = "concepts/layers/tiny.json"


def blocks(section: str) -> list[str]:
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    text = page.partition(f"## {section}\n")[2].partition("\n## ")[0]
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def contents(package: Path) -> dict[str, str]:
    """Every file of the package's code and tables, without the vignette's data."""
    return {
        str(path.relative_to(package)): path.read_text("utf-8")
        for path in sorted(package.rglob("*"))
        if path.suffix in (".py", ".json") and "vignette" not in path.parts
    }


def edit(path: Path, registry: str, lines: str) -> None:
    """Put imports behind the others, and a row at the end of a registry."""
    text = path.read_text("utf-8")
    imports = "".join(line for line in lines.splitlines(keepends=True) if line.startswith("from "))
    entry = re.fullmatch(
        rf"{registry}\[(\S+)\] = (.*)", re.sub(r"  # in the file.*", "", lines[len(imports) :]).strip(), re.S
    )
    assert entry is not None
    row = f"    {entry[1]}: {entry[2]},\n"
    start = re.search(rf"^{registry}\b.*\{{$", text, re.MULTILINE)
    assert start is not None
    end = text.index("\n}\n", start.end()) + 1
    text = text[:end] + row + text[end:]
    others = list(re.finditer(r"^from \S+ import .*\n", text, re.MULTILINE))[-1].end()
    path.write_text(text[:others] + imports + text[others:], "utf-8")


def run(root: Path, *arguments: str) -> str:
    """Run python with the copy before everything else."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(ROOT)]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *arguments], env=environment, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, tuple[set[str], set[str]]], dict[str, dict]]:
    """Add every example to a copy of the package; return new and edited files of each, and what its use told."""
    root = tmp_path_factory.mktemp("copy")
    package = root / "orthoplex"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("vignette", "__pycache__"))
    (package / "vignette").symlink_to(PACKAGE / "vignette")
    prices: dict[str, tuple[set[str], set[str]]] = {}
    for name, example in EXAMPLES.items():
        before = contents(package)
        new, line = blocks(example.section)
        (package / example.file).write_text(new, "utf-8")
        edit(package / example.edited, example.registry, line)
        if name == "family":
            run(root, "-m", "orthoplex.models.families.tables", "tiny")
        after = contents(package)
        changed = {file for file in before if after.get(file) != before[file]}
        prices[name] = after.keys() - before.keys(), changed
    return prices, json.loads(run(root, str(USE), str(root / "work")).splitlines()[-1])


@pytest.mark.parametrize("name", EXAMPLES)
def test_one_new_file_and_one_edited(rehearsal, name):
    new, edited = rehearsal[0][name]
    assert new == {EXAMPLES[name].file} | ({TABLE} if name == "family" else set())
    assert edited == {EXAMPLES[name].edited}


def test_the_copy_was_used(rehearsal):
    assert Path(rehearsal[1]["package"]).resolve() != PACKAGE.resolve()


def test_an_algorithm_merges_with_its_option_and_is_listed(rehearsal):
    told = rehearsal[1]["algorithm"]
    assert told["recipe"] == ["limited", {"limit": 0.5}] and told["largest"] == pytest.approx(0.5, rel=1e-4)
    assert "limited" in told["listing"]


def test_a_kind_of_token_is_trained_saved_merged_and_pictured(rehearsal):
    told = rehearsal[1]["token"]
    assert told["kind"] == "scaled" and told["needs"] == ["scaled"] and told["has_inputs"]
    assert told["turned"] == pytest.approx(0, abs=1e-5)
    assert abs(told["length"] / told["length_before"] - 1) == pytest.approx(0.5, rel=1e-2)  # Adam's first step
    assert told["size"] == [32, 32] and told["moved"] > 0


def test_a_family_loads_conditions_predicts_trains_merges_and_is_saved(rehearsal):
    told = rehearsal[1]["family"]
    assert told["identity"] == "tiny" and told["defaults"] == {"num_inference_steps": 12}
    assert told["features"] == [1, 32, 24] and told["prediction"] == [1, 4, 8, 8]
    assert told["layers"] == ["denoiser.attn2.to_k", "denoiser.attn2.to_v"]
    assert told["size"] == [32, 32] and told["moved"] > 0 and told["token_vectors"] == [1, 24]
    assert told["again"] < 1e-5 and told["tokens"] == ["<anna>"]
