"""The demo: train three concepts, merge twelve, and let the pictures and numbers speak."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from orthoplex.benchmark.events import BenchmarkEvent
from orthoplex.benchmark.gallery import write_gallery
from orthoplex.benchmark.gallery_sheet import write_sheet
from orthoplex.benchmark.measurement import read_references
from orthoplex.benchmark.report import machine, write_json
from orthoplex.benchmark.sources import ConceptSource, sample_sources, shipped_concept
from orthoplex.benchmark.stand import DemoSettings, MergedMethod, Stand
from orthoplex.benchmark.summary import Summary
from orthoplex.benchmark.workspace import Workspace
from orthoplex.concepts import Manifest, load_concept, read_manifest
from orthoplex.errors import ConfigurationError
from orthoplex.models import EMBEDDED, load_base
from orthoplex.training import TrainingConfig, merge_for

METHODS = ("orthogonal", "lora")
_LIVE_KINDS = ("person", "subject", "style")


@dataclass(frozen=True)
class DemoMaterial:
    """What the demo is made of; by default all of it ships with the package.

    Attributes:
        base: The base model.
        resolution: Side of the training pictures in pixels.
        concepts: Where the concepts' pictures are.
        shipped: (name, method) -> the concept's trained file, for both of `METHODS`.
    """

    base: str
    resolution: int
    concepts: tuple[ConceptSource, ...]
    shipped: Callable[[str, str], Path]


def run_demo(
    folder: Path, *, work: Path, settings: DemoSettings | None = None, material: DemoMaterial | None = None
) -> Generator[BenchmarkEvent, None, None]:
    """Train live concepts, merge them with the shipped ones, and write `index.html`, `demo.json` and a sheet.

    Live concepts are trained with the very configuration that their shipped file names. What is in the work folder
    already is used, so a second run is quick and a stopped one goes on.

    Args:
        folder: Where the gallery goes.
        work: Folder that remembers concepts, pictures and features.
        settings: What is shown; default `DemoSettings()`.
        material: What of; default what ships with the package.

    Raises:
        ConfigurationError: when a live concept is none of the concepts.
        ConceptFileError: when a shipped file does not belong to the base.
    """
    settings = DemoSettings() if settings is None else settings
    material = shipped_material() if material is None else material
    live = _live_concepts(settings, material.concepts)
    workspace = Workspace(load_base(material.base), work)
    files, training_seconds = yield from _train_live(workspace, material, live)
    methods = {}
    for method in METHODS:
        paths = {c.name: material.shipped(c.name, method) for c in material.concepts}
        merged = methods[method] = _merge_all(workspace, paths | (files if method == "orthogonal" else {}))
        how = f"by {merged.together.recipe['algorithm']} in {merged.seconds:.3f} s"
        yield BenchmarkEvent("merge", len(methods), len(METHODS), f"{len(paths)} {method} concepts merged {how}")
    stand = Stand(workspace, settings, material.concepts)
    pictures = yield from stand.compared(methods)
    combined = yield from stand.combined(methods)
    encoder = settings.encoder.build()
    references = read_references(material.concepts, encoder)
    summaries = [stand.summary(method, pictures, references, encoder) for method in METHODS]
    yield BenchmarkEvent("measure", 1, 1, "; ".join(map(_in_words, summaries)))
    seconds = {
        "training": training_seconds,
        "merging": methods["orthogonal"].seconds,
        "a picture": stand.seconds_per_picture(pictures),
    }
    gallery = stand.gallery(folder, live, pictures, combined, summaries, seconds)
    write_gallery(gallery, folder)
    write_sheet(gallery, folder)
    values = {"machine": machine(), "seconds": seconds, "live": list(live)}
    write_json(folder / "demo.json", {**values, "retention": [asdict(summary) for summary in summaries]})
    yield BenchmarkEvent("report", 1, 1, str(folder / "index.html"))


def shipped_material() -> DemoMaterial:
    """The embedded base and all sample concepts."""
    return DemoMaterial(
        base=EMBEDDED,
        resolution=128,
        concepts=sample_sources(),
        shipped=shipped_concept,
    )


def training_of(manifest: Manifest) -> TrainingConfig:
    """The training configuration that a concept file names."""
    return TrainingConfig.recorded(manifest.training)


def _live_concepts(settings: DemoSettings, concepts: Sequence[ConceptSource]) -> tuple[str, ...]:
    names = [concept.name for concept in concepts]
    for name in settings.live:
        if name not in names:
            raise ConfigurationError(f"live concept is {name!r}; allowed: {', '.join(names)}")
    firsts = (next((c.name for c in concepts if c.kind == kind), None) for kind in _LIVE_KINDS)
    return settings.live or tuple(name for name in firsts if name is not None)


def _train_live(
    workspace: Workspace, material: DemoMaterial, live: Sequence[str]
) -> Generator[BenchmarkEvent, None, tuple[dict[str, Path], float]]:
    files, seconds = {}, 0.0
    for concept in material.concepts:
        if concept.name in live:
            config = training_of(read_manifest(material.shipped(concept.name, "orthogonal")))
            trained = yield from workspace.concept(
                concept, config, resolution=material.resolution, message=f"{concept.name} ({concept.kind})"
            )
            files[concept.name], seconds = trained.path, seconds + trained.seconds
    return files, seconds


def _merge_all(workspace: Workspace, paths: Mapping[str, Path]) -> MergedMethod:
    """Load all files, then take the time of what makes one model of them: merge, as suits them, and fold."""
    concepts = {name: load_concept(path, base=workspace.base.identity) for name, path in paths.items()}
    started = time.perf_counter()
    pairs = [(concept, 1.0) for concept in concepts.values()]
    together = merge_for(workspace.base, pairs)
    undo = workspace.base.fold(together)
    seconds = time.perf_counter() - started
    undo.restore()
    return MergedMethod(concepts, together, seconds)


def _in_words(summary: Summary) -> str:
    kept = {
        "alignment": summary.alignment_retention,
        "gain over the base": summary.gain_retention,
        "recognised": summary.recognised_retention,
    }
    numbers = ", ".join(f"{what} {'-' if one is None else f'{one.value:.2f}'}" for what, one in kept.items())
    return f"retention of {summary.variant}: {numbers}"
