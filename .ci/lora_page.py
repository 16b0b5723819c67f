"""Write the tables of docs/lora-files.md that show results: those of conflicts, adoption and speed, and that of tests.

With ``--check`` nothing is written, and the exit status is 1 where the page differs.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orthoplex.concepts.exchange.names import versions
from orthoplex.concepts.exchange.styles import STYLES
from orthoplex.files.markdown import filled, markdown_table

ROOT = Path(__file__).resolve().parent.parent
PAGE, RESULTS = ROOT / "docs" / "lora-files.md", ROOT / "results"
_NUMBERS = {
    "crosstalk": "crosstalk, which needs inputs or a base",
    "disturbance": "disturbance, from the files alone",
    "cosine, mean of pairs": "cosine of two changes, mean of pairs",
    "sign conflict, mean of pairs": "sign conflict, mean of pairs",
}
_STATES = ("untouched, alone", "adopted, alone", "untouched, sum", "adopted, sum", "untouched, least squares")


def conflicts(values: Mapping[str, Any]) -> str:
    """Return the table of rank correlations on the sets that were not used to choose the limits."""
    test = values["rank correlation with the loss"]["test"]
    rows = [(words, _interval(test[name])) for name, words in _NUMBERS.items()]
    return markdown_table(("number", "rank correlation with the loss (95 %)"), rows).rstrip()


def adoption(values: Mapping[str, Any]) -> str:
    """Return the table of twelve LoRAs, alone and merged."""
    states = {row["state"]: row for row in values["summary"]}
    rows = [
        (
            name,
            _interval(states[name]["alignment"]),
            f"{states[name]['recognised']:.2f}",
            _interval(states[name]["retention"]) if "retention" in states[name] else "–",
        )
        for name in _STATES
    ]
    return markdown_table(("state", "alignment", "recognised", "retention"), rows).rstrip()


def support() -> str:
    """Return the table of versions and styles; a cell is the parameter of the tests that hold it."""
    rows = [(version, *(f"`[{family}-{version}-{style}]`" for style in STYLES)) for family, version in versions()]
    return markdown_table(("version", *STYLES), rows).rstrip()


def speed(values: Mapping[str, Any]) -> str:
    """Return the table of truncations of all layers of SDXL, and the sentence about exact sums."""
    cut, exact = values["truncation"], values["concatenation"]
    words = {"ours": "from the factors", "dense": "dense SVD", "peft": "PEFT's `svd`"}
    largest = max(cut["shapes"], key=lambda row: row["shape"][0] * row["shape"][1])
    rows = [
        (
            words[name],
            f"{cut['seconds_of_all_layers'][name]:.0f}",
            "–" if name == "ours" else f"{cut['times_as_fast'][name]:.0f} ×",
            f"{largest[name]['error']:.6f}",
            f"{largest[name]['peak_mib']:.0f}",
        )
        for name in words
    ]
    shape = " × ".join(map(str, largest["shape"]))
    head = ("truncation", "seconds", "ours is faster by", f"error at {shape}", f"peak MiB at {shape}")
    merge, copy = exact["merge"], exact["copy"]
    sentence = (
        f"The exact sum of the files ({merge['output_mib']:.0f} MiB) takes {merge['seconds']:.1f} s and "
        f"{merge['peak_mib']:.0f} MiB of memory; a mere copy of their bytes takes {copy['seconds']:.1f} s."
    )
    return f"{markdown_table(head, rows).rstrip()}\n\n{sentence}"


def up_to_date(text: str) -> str:
    """Return the page's text with the tables of today's results."""
    read = {
        name: json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("conflicts", "adoption", "file-merge")
    }
    return filled(
        text,
        {
            "conflicts": conflicts(read["conflicts"]),
            "adoption": adoption(read["adoption"]),
            "support": support(),
            "speed": speed(read["file-merge"]),
        },
    )


def _interval(value: Mapping[str, float]) -> str:
    return f"{value['value']:.2f} ({value['low']:.2f}–{value['high']:.2f})"


def main(arguments: list[str]) -> int:
    """Command line: write the page, or with ``--check`` say whether it is up to date."""
    text = PAGE.read_text(encoding="utf-8")
    new = up_to_date(text)
    if arguments != ["--check"]:
        PAGE.write_text(new, encoding="utf-8")
        return 0
    return int(new != text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
