"""Write the tables of docs/bases.md: pipelines and defaults, what every family can do (by tests), and results.

With ``--check`` nothing is written, and the exit status is 1 where the page differs.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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


def results(name: str) -> Mapping[str, Any]:
    """Return the content of a file of results."""
    return json.loads((ROOT / "results" / f"{name}.json").read_text(encoding="utf-8"))


def joint_attention() -> str:
    """Return the table of crosstalk with and without erasure, for every family and selection of layers."""
    rows = []
    for row in results("joint-attention")["rows"]:
        sees = ", ".join(f"{kind} {count}" for kind, count in row["layers by what they see"].items())
        cells = []
        for measure in ("general: sum", "concepts: sum", "concepts: least-squares", "concepts: ssr"):
            values = [row[f"erasure {kind}"]["predictions"][measure]["value"] for kind in ("none", "closed-form")]
            cells.append(" → ".join(f"{value:.2f}" for value in values))
        rows.append((row["family"], row["selection"], sees, *cells))
    header = ("family", "layers", "what they see", "general prompts, sum", "concepts, sum", "least squares", "SSR")
    return markdown_table(header, rows).rstrip()


def load_costs() -> str:
    """Return the table of loading Stable Diffusion XL."""
    medians = results("sdxl-costs")["load"]["medians"]
    rows = [
        (loader, f"{row['seconds']:.1f}", f"{row['cpu_seconds']:.1f}", f"{row['peak_mib']:,.0f}")
        for loader, row in medians.items()
    ]
    return markdown_table(("loader", "seconds", "processor seconds", "peak MiB"), rows).rstrip()


def step_costs() -> str:
    """Return the table of training steps: totals, and what is above the bare step beside PEFT."""
    rows = []
    for selection, costs in results("sdxl-costs")["step"].items():
        shares = costs["share_of_peft_above_bare"]
        seconds = " / ".join(f"{value:.2f}" for value in costs["fastest_seconds"].values())
        memory = " / ".join(f"{row['counted_mib']:,.0f}" for row in costs["memory"].values())
        bare, ours, theirs = costs["fastest_seconds"].values()
        of_steps = f"{(ours - bare) / (theirs - bare):.2f}"
        of_parts, room = (f"{shares[name]:.2f}" for name in ("seconds", "counted_mib"))
        rows.append((f"{selection} ({costs['layers']})", seconds, of_steps, of_parts, memory, room))
    names = "bare / Orthoplex / PEFT"
    header = ("layers", f"seconds: {names}", "share", "share of parts", f"MiB: {names}", "share of memory")
    return markdown_table(header, rows).rstrip()


def up_to_date(text: str) -> str:
    """Return the page with the tables of today."""
    tables = {"families": table(), "family-facts": facts(), "joint-attention": joint_attention()}
    return filled(text, {**tables, "sdxl-load": load_costs(), "sdxl-step": step_costs()})


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
