"""Whether older releases of diffusers and transformers read what is written here, and draw the same pictures.

Writes three folders (the embedded base; a merge of two shipped concepts in the base's type; the same in float32),
draws from each with plain diffusers in this environment and in one with the older releases, and compares weights,
token numbers and pictures. ``python -m benchmarks.old_releases --output results/old-releases.json``
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy
import torch

from orthoplex import vignette
from orthoplex.concepts import load_concept
from orthoplex.merging import merge
from orthoplex.models import load_base

RELEASES = ("torch==2.13.0", "diffusers==0.32.1", "transformers==4.54.1", "accelerate==1.15.0", "safetensors==0.8.0")
CONCEPTS = ("anna", "lolli")
SCRIPT = Path(__file__).with_name("plain_pictures.py")
PROMPTS = ("a photo of a woman in the forest", "a drawing of a red car, day!")


def main() -> None:
    """Make the environment unless it is there, draw, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environment", type=Path, default=Path("work/old-releases"))
    parser.add_argument("--output", type=Path, default=Path("results/old-releases.json"))
    options = parser.parse_args()
    python = environment(options.environment)
    with tempfile.TemporaryDirectory() as place:
        rows = [compared(python, name, folder, prompts) for name, folder, prompts in folders(Path(place))]
    result = {
        "command": "python -m benchmarks.old_releases",
        "older": rows[0].pop("older"),
        "newer": rows[0].pop("newer"),
        "folders": [{key: value for key, value in row.items() if key not in ("older", "newer")} for row in rows],
    }
    options.output.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(options.output.read_text("utf-8"))
    if not all(row["same_weights"] and row["same_tokens"] and row["lowest_psnr"] >= 40 for row in result["folders"]):
        sys.exit("an older release does not read a folder as the newer one does")


def environment(folder: Path) -> Path:
    """The interpreter of an environment with the older releases."""
    python = folder / "bin" / "python"
    if not python.is_file():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        # torch first: on its own it is taken without the libraries of a GPU.
        for packages in (RELEASES[:1], RELEASES[1:]):
            subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    return python


def folders(place: Path) -> list[tuple[str, Path, tuple[str, ...]]]:
    """Name, folder and prompts of what is compared."""
    base = load_base("vignette")
    concepts = [load_concept(vignette.concept_file(name, method="orthogonal"), base=base.identity) for name in CONCEPTS]
    prompts = tuple(f"a photo of {concept.manifest.trigger}" for concept in concepts)
    with base.folded(merge([(concept, 1.0) for concept in concepts], algorithm="sum")):
        merged = base.save(place / "merged")
        whole = base.save(place / "merged-float32", dtype=torch.float32)
    return [
        ("embedded base", vignette.folder(), PROMPTS),
        ("merge in the base's type", merged, prompts),
        ("merge in float32", whole, prompts),
    ]


def compared(python: Path, name: str, folder: Path, prompts: tuple[str, ...]) -> dict[str, object]:
    """Draw with both releases and compare."""
    (older, old_pictures, old_seconds), (newer, new_pictures, new_seconds) = (
        drawn(interpreter, folder, prompts) for interpreter in (python, Path(sys.executable))
    )
    errors = (old_pictures.astype(float) - new_pictures).reshape(len(new_pictures), -1)
    psnr = 10 * numpy.log10(255**2 / numpy.maximum((errors**2).mean(1), 1e-10))
    return {
        "name": name,
        "bytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        "prompts": prompts,
        "weights": len(newer["weights"]),
        "same_weights": older["weights"] == newer["weights"],
        "same_tokens": older["tokens"] == newer["tokens"],
        "pictures": len(psnr),
        "lowest_psnr": round(float(psnr.min()), 1),
        "largest_difference": int(numpy.abs(errors).max()),
        "seconds": {"older": round(old_seconds, 1), "newer": round(new_seconds, 1)},
        "older": {key: older[key] for key in ("diffusers", "transformers")},
        "newer": {key: newer[key] for key in ("diffusers", "transformers")},
    }


def drawn(python: Path, folder: Path, prompts: tuple[str, ...]) -> tuple[dict, numpy.ndarray, float]:
    """What a release loaded, its pictures, and how long it took, loading of libraries included."""
    began = time.monotonic()
    with tempfile.NamedTemporaryFile(suffix=".npz") as file:
        environ = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        subprocess.run(
            [python, "-W", "ignore", SCRIPT, folder, file.name, *prompts], check=True, env=environ, stderr=sys.stderr
        )
        with numpy.load(file.name) as found:
            return json.loads(str(found["facts"])), found["pictures"], time.monotonic() - began


if __name__ == "__main__":
    main()
