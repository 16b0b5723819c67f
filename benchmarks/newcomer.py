"""From nothing to an own concept in a picture, by the README's commands alone: `python -m benchmarks.newcomer`.

Clones this repository's last commit into a temporary folder, takes the commands out of the README's blocks, runs them
one after the other with sample pictures in the place of a newcomer's, and writes every step with
its seconds to `results/newcomer.json`. The package index has to be reached; nothing else is taken from this checkout.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from orthoplex.benchmark.machine import machine
from orthoplex.files import write_json

ROOT = Path(__file__).parents[1]
NAME, CLASS_WORD = "otto", "animal"
"""A sample concept, in the place of the pictures that a newcomer has."""
BLOCK = re.compile(r"^```\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands(readme: str) -> list[str]:
    """The README's way to an own concept: set up, train on the sample that it names, generate.

    Raises:
        ValueError: When the README has no such commands any more.
    """
    lines = [line.partition("   #")[0].strip() for block in BLOCK.findall(readme) for line in block.splitlines()]
    setup = next((line for line in lines if line.startswith("make env")), None)
    training = next((line for line in lines if line.startswith("orthoplex train")), None)
    picture = next((line for line in lines if line.startswith("orthoplex generate")), None)
    if not (setup and training and picture and "orthoplex/vignette/samples" in readme):
        raise ValueError("README.md names no way from a clone to an own concept in a picture")
    words = shlex.split(training)
    folder, name, class_word = words[2], words[words.index("--name") + 1], words[words.index("--class-word") + 1]
    sample = {folder: f"orthoplex/vignette/samples/{NAME}", class_word: CLASS_WORD, name: NAME}
    swapped = [training, picture]
    for old, new in sample.items():
        swapped = [re.sub(rf"(?<![\w/]){re.escape(old)}(?!\w)", new, line) for line in swapped]
    return [setup, *swapped]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("results/newcomer.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        clone, steps = Path(place) / "orthoplex", []
        environment = {**os.environ, "HOME": place}
        asked = commands((ROOT / "README.md").read_text("utf-8"))
        for command in (f"git clone --quiet {shlex.quote(str(ROOT))} {clone.name}", *asked):
            began = time.perf_counter()
            opened = "if test -d .venv; then . .venv/bin/activate; fi; " if clone.is_dir() else ""
            folder = clone if clone.is_dir() else Path(place)
            subprocess.run(["bash", "-ec", opened + command], cwd=folder, env=environment, check=True)
            shown = command.replace(shlex.quote(str(ROOT)), "REPOSITORY")
            steps.append({"command": shown, "seconds": round(time.perf_counter() - began, 1)})
            sys.stdout.write(f"{steps[-1]}\n")
        pictures = sorted(path.name for path in clone.glob("*.png"))
        if len(pictures) != 1:
            raise SystemExit(f"the commands made {len(pictures)} pictures; 1 is expected")
        (options.output.parent / "newcomer.png").write_bytes((clone / pictures[0]).read_bytes())
    total = round(sum(step["seconds"] for step in steps), 1)
    told = {"command": "python -m benchmarks.newcomer", "machine": machine()}
    write_json(options.output, {**told, "steps": steps, "seconds": total})


if __name__ == "__main__":
    main()
