"""Compare what the package makes now with the goldens: `python -m tests.goldens.compare --output results/goldens.json`.

Pictures by PSNR in dB, what merged changes do by relative difference, retentions by difference. Pictures of three
states by default; `--concepts` names those that are drawn.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from orthoplex.models import load_base
from tests.goldens import make

FOLDER = Path(__file__).parent
IDENTICAL = 100.0
"""PSNR in dB that stands for equal pictures."""


def psnr(first: Image.Image, second: Image.Image) -> float:
    """Peak signal-to-noise ratio in dB of two RGB pictures of one size; at most ``IDENTICAL``."""
    error = float(np.square(np.asarray(first, np.float64) - np.asarray(second, np.float64)).mean())
    return min(IDENTICAL, 10 * np.log10(255**2 / error)) if error else IDENTICAL


def drawn(names: tuple[str, ...]) -> dict[str, dict[str, list[Image.Image]]]:
    """The goldens' pictures of some concepts, drawn now, by concept and state."""
    base = load_base("vignette")
    concepts = make.shipped_concepts(base)
    return {name: make.draw(base, concepts, name) for name in names}


def picture_differences(rows: dict[str, dict[str, list[Image.Image]]]) -> dict[str, dict[str, float]]:
    """The lowest PSNR of every concept's pictures in every state."""
    kept = make.read_sheets(FOLDER)
    return {
        name: {
            state: min(psnr(now, then) for now, then in zip(made, kept[name][state], strict=True))
            for state, made in states.items()
        }
        for name, states in rows.items()
    }


def change_differences() -> dict[str, float]:
    """The largest relative difference of what a layer's merged change does to the goldens' inputs, by state."""
    base = load_base("vignette")
    folded = make.changes(base, make.shipped_concepts(base), make.NAMES[0])
    kept, found = load_file(FOLDER / "changes.safetensors"), {}
    for state in ("merged", "sum"):
        now = {f"{state} {layer}": effect for layer, effect in make.effects(folded[state]).items()}
        then = {name: effect for name, effect in kept.items() if name.startswith(f"{state} ")}
        if now.keys() != then.keys():
            raise SystemExit(f"{state}: {len(now)} layers are changed, {len(then)} were")
        found[state] = max(float((now[name] - then[name]).norm() / then[name].norm()) for name in then)
    return found


def retention_differences(rows: dict[str, dict[str, list[Image.Image]]]) -> dict[str, float]:
    """The largest difference of alignments and of what is left of them, by what is compared."""
    kept = json.loads((FOLDER / "goldens.json").read_text())["retentions"]
    now = make.retentions(rows)
    keys = next(iter(kept.values()))
    return {key: max(abs(now[name][key] - kept[name][key]) for name in now) for key in keys}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("results/goldens.json"))
    parser.add_argument("--concepts", nargs="+", default=list(make.NAMES), choices=make.NAMES)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = drawn(tuple(options.concepts))
    pictures = picture_differences(rows)
    values = {
        "command": f"python -m tests.goldens.compare --output {options.output}",
        "lowest PSNR, dB": min(value for states in pictures.values() for value in states.values()),
        "pictures": pictures,
        "changes": change_differences(),
        "retentions": retention_differences(rows),
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(values, indent=1) + "\n")
    sys.stdout.write(f"{options.output}: lowest PSNR {values['lowest PSNR, dB']:.1f} dB\n")


if __name__ == "__main__":
    main()
