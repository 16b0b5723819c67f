"""Make the goldens of a version: pictures, merged changes, retentions, timings.

The ones that are kept are of commit 3f1c5a0, made by

    git worktree add --detach ../orthoplex-0.1 3f1c5a0
    PYTHONPATH=../orthoplex-0.1 .venv/bin/python tests/goldens/make.py --output tests/goldens

Another version's, made into another folder, are compared with them by `python -m tests.goldens.compare FOLDER`.

`alone.webp`, `merged.webp` and `sum.webp` are lossless sheets: a row a concept, in it three prompts, two seeds each; of
the concept alone, in the merge of all twelve shipped concepts as the package merges unasked, and in their plain sum.
`changes.safetensors` holds of every merged layer what it does to four random inputs; `goldens.json` all numbers.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

import orthoplex
from orthoplex import vignette
from orthoplex.benchmark.settings import EncoderSettings
from orthoplex.benchmark.sources import sample_sources
from orthoplex.concepts import Concept, load_concept
from orthoplex.evaluation import image_alignment
from orthoplex.files import read_picture
from orthoplex.generation import generate
from orthoplex.merging import Merge, merge
from orthoplex.models import Base, load_base

try:
    from orthoplex.activations import merge_for
except ImportError:  # what version 0.1 calls it
    from orthoplex.training import merge_on as merge_for  # pyright: ignore[reportAttributeAccessIssue]

NAMES = ("anna", "bruno", "otto", "pip", "piazza", "umbra")
SEEDS = (0, 1)
SIDE = 128
PROMPTS = {
    "person": ("a photo of {} in a city street", "{} on a beach", "a painting of {}"),
    "subject": ("a photo of {} in a forest", "{} on a beach", "a painting of {}"),
    "scene": ("a photo of {}", "a person in {}", "a cat in {}"),
    "style": ("a cat in a meadow, {}", "a person, {}", "a house in a forest, {}"),
}
STATES = ("alone", "merged", "sum")
PROBES = 4


def shipped_concepts(base: Base) -> dict[str, Concept]:
    """The twelve shipped concepts, by name."""
    names = [sample.name for sample in vignette.sample_concepts()]
    return {name: load_concept(vignette.concept_file(name, method="orthogonal"), base=base.identity) for name in names}


def changes(base: Base, concepts: dict[str, Concept], name: str) -> dict[str, Merge]:
    """What is folded in for a concept's pictures, by state."""
    every = [(concept, 1.0) for concept in concepts.values()]
    alone = merge([(concepts[name], 1.0)], algorithm="sum")
    return {"alone": alone, "merged": merge_for(base, every), "sum": merge(every, algorithm="sum")}


def pictures(base: Base, concept: Concept, change: Merge) -> list[Image.Image]:
    """Three prompts, two seeds each."""
    return [
        picture
        for prompt in PROMPTS[concept.manifest.kind]
        for picture in generate(
            base, prompt.format(concept.manifest.trigger), merge=change, num_images=len(SEEDS), seed=SEEDS[0]
        )
    ]


def draw(base: Base, concepts: dict[str, Concept], name: str) -> dict[str, list[Image.Image]]:
    """The pictures of one concept, by state."""
    made = {state: pictures(base, concepts[name], change) for state, change in changes(base, concepts, name).items()}
    print(name, flush=True)
    return made


def sheet(rows: list[list[Image.Image]]) -> Image.Image:
    """Pictures in rows, without a gap."""
    page = Image.new("RGB", (SIDE * len(rows[0]), SIDE * len(rows)))
    for line, row in enumerate(rows):
        for column, picture in enumerate(row):
            page.paste(picture, (SIDE * column, SIDE * line))
    return page


def read_sheets(folder: Path) -> dict[str, dict[str, list[Image.Image]]]:
    """The pictures of the sheets in a folder, by concept and state."""
    rows: dict[str, dict[str, list[Image.Image]]] = {name: {} for name in NAMES}
    for state in STATES:
        with Image.open(folder / f"{state}.webp") as file:
            page = file.convert("RGB")
        for line, name in enumerate(NAMES):
            boxes = ((left, SIDE * line, left + SIDE, SIDE * (line + 1)) for left in range(0, page.width, SIDE))
            rows[name][state] = [page.crop(box) for box in boxes]
    return rows


def effects(change: Merge) -> dict[str, Tensor]:
    """What every layer's change does to random inputs, layer to ``(out, PROBES)`` float32."""
    found = {}
    for layer, stack in sorted(change.layers.items()):
        low_rank = stack.low_rank
        seed = int.from_bytes(hashlib.sha256(layer.encode()).digest()[:4], "little")
        inputs = torch.randn(low_rank.shape[1], PROBES, generator=torch.Generator().manual_seed(seed))
        found[layer] = (low_rank.up.double() @ (low_rank.down.double() @ inputs.double())).float()
    return found


def median_seconds(work: Callable[[], object], rounds: int = 7) -> float:
    """The median wall time of a call."""
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def command_seconds(*arguments: str) -> float:
    """The median wall time of three runs of the command line."""
    command, checkout = [sys.executable, "-m", "orthoplex", *arguments], Path(orthoplex.__file__).parents[1]
    return median_seconds(lambda: subprocess.run(command, check=True, capture_output=True, cwd=checkout), rounds=3)


def timings(base: Base, concepts: dict[str, Concept]) -> dict[str, float]:
    """Seconds of what users wait for."""
    every = [(concept, 1.0) for concept in concepts.values()]
    merged = merge_for(base, every)
    file = vignette.concept_file(NAMES[0], method="orthogonal")
    with tempfile.TemporaryDirectory() as folder:
        files = [str(vignette.concept_file(name, method="orthogonal")) for name in concepts]
        return {
            "load the base": median_seconds(lambda: load_base("vignette"), rounds=3),
            "load a concept": median_seconds(lambda: load_concept(file)),
            "merge twelve": median_seconds(lambda: merge_for(base, every), rounds=3),
            "fold and restore": median_seconds(lambda: base.fold(merged).restore()),
            "a picture": median_seconds(lambda: generate(base, "a cat"), rounds=3),
            "orthoplex --help": command_seconds("--help"),
            "orthoplex inspect": command_seconds("inspect", str(file)),
            "orthoplex merge": command_seconds("merge", *files, "--output", f"{folder}/merged", "--overwrite"),
        }


def retentions(rows: dict[str, dict[str, list[Image.Image]]]) -> dict:
    """Alignment of every concept's pictures with real ones that it never saw, by state, and merged / alone."""
    encoder = EncoderSettings().build()
    found = {}
    for source in (source for source in sample_sources() if source.name in rows):
        real = encoder.encode([read_picture(path) for path in source.split().held_out])
        states = {state: image_alignment(encoder.encode(made), real) for state, made in rows[source.name].items()}
        kept = {f"{state} / alone": states[state] / states["alone"] for state in ("merged", "sum")}
        found[source.name] = {**states, **kept}
    return found


def _recipe_values(recipe: Any) -> dict[str, Any]:  # noqa: ANN401  (a dict in version 0.1)
    return recipe if isinstance(recipe, dict) else recipe.to_json()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of the files")
    parser.add_argument("--no-timings", action="store_true", help="leave out what takes a quiet machine")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # two stall where something else computes
    base = load_base("vignette")
    concepts = shipped_concepts(base)
    folded = changes(base, concepts, NAMES[0])
    if not all((options.output / f"{state}.webp").exists() for state in STATES):
        made = [draw(base, concepts, name) for name in NAMES]
        for state in STATES:
            page = sheet([row[state] for row in made])
            page.save(options.output / f"{state}.webp", lossless=True, quality=100, method=6)
    tensors = {
        f"{state} {layer}": effect for state in ("merged", "sum") for layer, effect in effects(folded[state]).items()
    }
    save_file(tensors, options.output / "changes.safetensors")
    values = {
        "version": orthoplex.__version__,
        "base": base.identity.hash,
        "recipes": {state: {**_recipe_values(folded[state].recipe), "inputs": None} for state in ("merged", "sum")},
        "retentions": retentions(read_sheets(options.output)),
        "seconds": {} if options.no_timings else timings(base, concepts),
    }
    (options.output / "goldens.json").write_text(json.dumps(values, indent=1) + "\n")


if __name__ == "__main__":
    main()
