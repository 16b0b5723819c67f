"""Write the figures of results/demo.json into README.md, between its markers.

With a demo's folder (``python .ci/readme.py demo``) its figures and pictures are taken over first: ``demo.json`` into
``results/``, the strip, the combinations and the sheet into ``docs/images/``. With ``--check`` nothing is written, and
the exit status is 1 where the README differs.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from orthoplex.files.markdown import filled

ROOT = Path(__file__).resolve().parent.parent
README, RESULTS, IMAGES = ROOT / "README.md", ROOT / "results" / "demo.json", ROOT / "docs" / "images"
CONCEPTS = ROOT / "orthoplex" / "vignette" / "concepts" / "orthogonal"
_MEASURES = {"likeness": "alignment_retention", "recognised": "recognised_retention", "identity": "identity_retention"}
_QUALITY = 88


def table(values: Mapping[str, Any]) -> str:
    """Return a Markdown table of what every variant keeps, one row a variant."""
    head = ["all concepts in one model", *_MEASURES]
    lines = [f"| {' | '.join(head)} |", f"|---{'|---:' * len(_MEASURES)}|"]
    for row in values["retention"]:
        cells = [row["variant"], *(_interval(row[name]) for name in _MEASURES.values())]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def times(values: Mapping[str, Any], sizes: list[int]) -> str:
    """Return a sentence about the machine, time and room that the demo took.

    Args:
        values: The demo's figures.
        sizes: Bytes of the shipped concept files.
    """
    seconds, machine, live = values["seconds"], values["machine"], values["live"]
    threads = f"{machine['threads']} thread{'s' * (machine['threads'] != 1)}"
    beside = "".join(f" ({task}: {taken:.0f} s)" for task, taken in seconds.items() if task.startswith("merging "))
    arithmetic = "with" if machine["bf16"] else "without"
    return (
        f"On {threads} {arithmetic} bf16 arithmetic a concept trains in {seconds['training'] / len(live):.0f} s "
        f"into a file of {sum(sizes) / len(sizes) / 1024:.0f} KiB;\n"
        f"a merge of {len(sizes)} takes {seconds['merging']:.2g} s{beside}, and a picture {seconds['a picture']:.2g} s."
    )


def up_to_date(text: str) -> str:
    """Return a README's text with the figures of results/demo.json."""
    values = json.loads(RESULTS.read_text(encoding="utf-8"))
    sizes = [path.stat().st_size for path in sorted(CONCEPTS.glob("*.safetensors"))]
    return filled(text, {"figures": table(values), "times": times(values, sizes)})


def take_over(demo: Path) -> None:
    """Copy a demo's figures and pictures into the places that README and docs show."""
    shutil.copyfile(demo / "demo.json", RESULTS)
    for name in ("strip.jpg", "combinations.jpg"):
        shutil.copyfile(demo / name, IMAGES / name)
    with Image.open(demo / "gallery_sheet.png") as sheet:
        sheet.save(IMAGES / "gallery.jpg", quality=_QUALITY)


def main() -> int:
    """Do what the arguments say; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("demo", nargs="?", type=Path, help="folder of a demo whose figures and pictures are taken over")
    parser.add_argument("--check", action="store_true", help="write nothing")
    arguments = parser.parse_args()
    if arguments.demo:
        take_over(arguments.demo)
    before = README.read_text(encoding="utf-8")
    after = up_to_date(before)
    if arguments.check:
        return int(before != after)
    README.write_text(after, encoding="utf-8")
    return 0


def _interval(found: Mapping[str, float] | None) -> str:
    return "–" if found is None else f"{found['value']:.2f} ({found['low']:.2f}–{found['high']:.2f})"


if __name__ == "__main__":
    sys.exit(main())
