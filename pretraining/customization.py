"""Did customization get better with a new base? Two results of `experiments/merge-of-twelve.toml`, side by side.

`python -m pretraining.customization` compares `results/vignette/first/merge-of-twelve.json` (the base before) with
`results/merge-of-twelve.json` and writes `results/vignette/customization.md`: all concepts and variants that both have.
Alignments are shares of what real held-out pictures of the same concept reach.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from orthoplex.files import markdown_table, write_text

FIRST, NOW = Path("results/vignette/first/merge-of-twelve.json"), Path("results/merge-of-twelve.json")


def alone(result: dict, variant: str) -> dict[str, tuple[float, float]]:
    """Concept -> alone-alignment and the base's alignment, each as a share of real pictures', means over seeds."""
    found = {}
    for concept, ceiling in result["ceilings"].items():
        rows = [row for row in result["measurements"] if (row["variant"], row["concept"]) == (variant, concept)]
        shares = (
            float(np.mean([row[f"{who}_alignment"] for row in rows])) / ceiling["alignment"]
            for who in ("single", "base")
        )
        found[concept] = tuple(shares)
    return found


def table(before: dict, now: dict) -> str:
    """Two Markdown tables: retention per variant that both have, and alone-alignment of every concept."""
    names = [row["variant"] for row in now["summary"]]
    rows = {
        "before": {row["variant"]: row for row in before["summary"]},
        "now": {r["variant"]: r for r in now["summary"]},
    }
    shared = [name for name in names if name in rows["before"]]
    if not shared:
        raise ValueError(
            f"no variant stands in both results; {', '.join(rows['before'])} before, {', '.join(names)} now"
        )
    what = ("alignment_retention", "recognised_retention", "identity_retention", "single_recognised", "single_identity")
    retention = [
        [name, label, *(_interval(found[name][key]) for key in what)]
        for name in shared
        for label, found in rows.items()
    ]
    first, second = alone(before, shared[0]), alone(now, shared[0])
    both = [concept for concept in second if concept in first]
    if not both:
        raise ValueError(f"no concept stands in both results; {', '.join(first)} before, {', '.join(second)} now")
    concepts = [
        [concept, *(f"{found[concept][0]:.3f} ({found[concept][1]:.3f})" for found in (first, second))]
        for concept in both
    ]
    means = [np.mean([found[concept][0] for concept in both]) for found in (first, second)]
    concepts.append(["mean", *(f"{mean:.3f}" for mean in means)])
    told = f"Alone, {shared[0]}: alignment as a share of real pictures' (of the base alone)\n"
    header = ["variant", "base", *(key.replace("_", " ") for key in what)]
    return "\n".join([markdown_table(header, retention), told, markdown_table(["concept", "before", "now"], concepts)])


def _interval(value: dict | None) -> str:
    return "" if value is None else f"{value['value']:.3f} ({value['low']:.3f}–{value['high']:.3f})"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, default=FIRST)
    parser.add_argument("--now", type=Path, default=NOW)
    parser.add_argument("--output", type=Path, default=Path("results/vignette/customization.md"))
    options = parser.parse_args()
    made = table(json.loads(options.before.read_text()), json.loads(options.now.read_text()))
    write_text(options.output, made)
    print(made)


if __name__ == "__main__":
    main()
