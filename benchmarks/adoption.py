"""Foreign LoRA files, untouched and adopted, alone and merged: `nice python -m benchmarks.adoption`.

The twelve shipped LoRA concepts are written out as kohya files with bundled embeddings and without our manifest, and
read back as any program's. `orthoplex adopt` makes concepts of them. Both are drawn alone and in a merge of all twelve:
by the plain sum, which is the default for LoRAs of all attention layers, and, untouched, by least squares, for which
the base makes pictures first. Alignment is the mean pairwise cosine to the concept's held-out pictures; retention is
that in the merge over that alone, gain retention the same beyond the base's with the class word in the concept's place.

Whatever is drawn is remembered in the work folder, so that a run that was stopped goes on. Writes
`results/adoption.json`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from orthoplex import vignette
from orthoplex.activations import ErasureOptions, adopt, merge_for
from orthoplex.benchmark.machine import machine
from orthoplex.benchmark.measurement import References, gallery_of, read_references
from orthoplex.benchmark.sources import ConceptSource, sample_sources
from orthoplex.concepts import Concept, foreign_concept, load_concept, save_concept
from orthoplex.concepts.exchange.reading import read_lora
from orthoplex.concepts.exchange.writing import write_lora
from orthoplex.evaluation import MobileNetEncoder, image_alignment, recognised_rate
from orthoplex.evaluation.intervals import mean_interval, retention_interval
from orthoplex.files import write_json
from orthoplex.generation import generate
from orthoplex.models import Base, Foldable, load_base

PROMPTS: Mapping[str, Sequence[str]] = {
    "person": ("{} in a city street", "a photo of {} in a forest"),
    "subject": ("{} in a meadow", "a photo of {} in a forest"),
    "scene": ("a photo of {}", "a picture of {}"),
    "style": ("a cat in a meadow, {}", "a house in a forest, {}"),
}
"""The first prompts of `experiments/merge-of-twelve.toml`."""
PICTURES, SEED, WEIGHT = 2, 1000, 30.0
ENCODER = MobileNetEncoder(layer="bottleneck", picture_size=128)
MERGES = {
    "untouched, sum": ("untouched", "sum", {}),
    "untouched, least squares": ("untouched", "least-squares", {"foreign": 3.0}),
    "adopted, sum": ("adopted", "sum", {}),
}


def foreign_files(sources: Sequence[ConceptSource], folder: Path) -> dict[str, Path]:
    """Write the shipped LoRA concepts as kohya files without our manifest; their headers tell a trigger alone."""
    files = {}
    for source in sources:
        shipped = vignette.concept_file(source.name, method="lora")
        metadata = {"modelspec.trigger_phrase": load_concept(shipped).manifest.trigger}
        files[source.name] = folder / f"{source.name}.safetensors"
        write_lora(
            replace(read_lora(shipped), metadata=metadata), files[source.name], style="kohya", embeddings="bundle"
        )
    return files


def foreign(source: ConceptSource, file: Path, base: Base) -> Concept:
    """Read one of these files as a concept; the user tells kind and class word."""
    return foreign_concept(read_lora(file), base.identity, kind=source.kind, class_word=source.class_word)


def adopted(source: ConceptSource, file: Path, base: Base, work: Path) -> tuple[Concept, dict[str, float]]:
    """Adopt a file, or read what was adopted before; with the means of energy kept and left."""
    output, report = work / f"adopted-{source.name}.safetensors", work / f"adopted-{source.name}.json"
    if not report.is_file():
        began = time.process_time()
        adoption = adopt(base, foreign(source, file, base), ErasureOptions(weight=WEIGHT))
        save_concept(adoption.concept, output)
        energies = {"energy_kept": adoption.mean_kept, "energy_elsewhere": adoption.mean_elsewhere}
        write_json(report, {**energies, "processor_seconds": round(time.process_time() - began, 1)})
    return load_concept(output), json.loads(report.read_text(encoding="utf-8"))


def features(source: ConceptSource, called: str, state: str, base: Base, change: Foldable | None, work: Path) -> Tensor:
    """Features of the pictures of one concept in one state, `(n, d)`; drawn once.

    Args:
        source: The concept.
        called: The words for it in the prompts.
        state: The name of the state.
        base: The base, with the change folded in already where it is None.
        change: What is folded in for these pictures.
        work: The folder of what was drawn before.
    """
    store = work / f"{state.replace(', ', '-').replace(' ', '-')}-{source.name}.pt"
    if not store.is_file():
        settings: dict[str, Any] = {"num_images": PICTURES, "mixed_precision": "auto", "expect_names": False}
        prompts = [prompt.format(called) for prompt in PROMPTS[source.kind]]
        drawn = [image for prompt in prompts for image in generate(base, prompt, merge=change, seed=SEED, **settings)]
        torch.save(ENCODER.encode(drawn), store)
    return torch.load(store, weights_only=True)


def drawn(base: Base, sources: Sequence[ConceptSource], work: Path) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield every state with the features of each concept."""
    files = foreign_files(sources, work)
    concepts = {
        "untouched": {source.name: foreign(source, files[source.name], base) for source in sources},
    }
    words = {source.name: f"a {source.class_word}" for source in sources}
    yield "base", {one.name: features(one, words[one.name], "base", base, None, work) for one in sources}
    for condition in ("untouched", "adopted"):
        if condition == "adopted":
            concepts[condition] = {one.name: adopted(one, files[one.name], base, work)[0] for one in sources}
        members = concepts[condition]
        yield (
            f"{condition}, alone",
            {
                one.name: features(one, members[one.name].manifest.trigger, f"{condition}, alone", base, change, work)
                for one in sources
                for change in [members[one.name]]
            },
        )
    for state, (condition, algorithm, options) in MERGES.items():
        members = concepts[condition]
        merged = merge_for(base, [(one, 1.0) for one in members.values()], algorithm=algorithm, options=options)
        with base.folded(merged):
            shown = {
                one.name: features(one, members[one.name].manifest.trigger, state, base, None, work) for one in sources
            }
        yield state, shown


def row(state: str, pictures: Mapping[str, Tensor], references: Mapping[str, References]) -> dict[str, Any]:
    """Alignment and recognition of every concept in one state."""
    return {
        "state": state,
        "alignment": {name: image_alignment(each, references[name].held_out) for name, each in pictures.items()},
        "recognised": {
            name: recognised_rate(each, gallery_of(name, references), name) for name, each in pictures.items()
        },
    }


def column(values: Mapping[str, float]) -> Tensor:
    """Values of concepts as the bootstrap takes them: `(concepts, 1)`, one training seed."""
    return torch.tensor([[value] for value in values.values()])


def summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Means with intervals over concepts; of merges also what is left of the same concepts alone."""
    by_state = {each["state"]: each for each in rows}
    base = column(by_state["base"]["alignment"])
    lines = []
    for state, each in by_state.items():
        alignment = column(each["alignment"])
        line = {
            "state": state,
            "alignment": asdict(mean_interval(alignment)),
            "recognised": round(fmean(each["recognised"].values()), 4),
        }
        if state in MERGES:
            for reference in (MERGES[state][0], "untouched"):
                alone = column(by_state[f"{reference}, alone"]["alignment"])
                key = "retention" if reference == MERGES[state][0] else "retention_of_untouched"
                line[key] = asdict(retention_interval(alone, alignment))
                line[f"gain_{key}"] = asdict(retention_interval(alone - base, alignment - base))
        lines.append(line)
    return lines


def main() -> None:
    """Draw what is missing, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("work/adoption"), help="folder of what was drawn before")
    parser.add_argument("--output", type=Path, default=Path("results/adoption.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    began = time.process_time()
    base, sources = load_base("vignette"), sample_sources()
    references = read_references(sources, ENCODER)
    rows = []
    for state, pictures in drawn(base, sources, options.work):
        rows.append(row(state, pictures, references))
        print(state, round(fmean(rows[-1]["alignment"].values()), 4), round(time.process_time() - began), flush=True)
    energies = {
        one.name: json.loads((options.work / f"adopted-{one.name}.json").read_text(encoding="utf-8")) for one in sources
    }
    settings = {"pictures_each": PICTURES * 2, "seed": SEED, "weight": WEIGHT, "prompts": PROMPTS}
    write_json(
        options.output,
        {
            "command": "python -m benchmarks.adoption",
            "machine": machine(),
            "settings": settings,
            "summary": summary(rows),
            "adoption": energies,
            "concepts": rows,
        },
        indent=2,
    )


if __name__ == "__main__":
    main()
