"""The demo: train three concepts, merge twelve by three variants, and show the pictures and the figures."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from orthoplex.benchmark.demo_pictures import Compared, DemoPictures, MergedConcepts
from orthoplex.benchmark.demo_settings import LORA_BEST, OURS, VARIANTS, DemoSettings, DemoVariant
from orthoplex.benchmark.events import BenchmarkEvent
from orthoplex.benchmark.gallery import Gallery, duration, write_gallery
from orthoplex.benchmark.gallery_sheet import write_combinations, write_sheet, write_strip
from orthoplex.benchmark.machine import machine
from orthoplex.benchmark.measurement import read_references
from orthoplex.benchmark.sources import ConceptSource, sample_sources, shipped_concept
from orthoplex.benchmark.summary import Summary
from orthoplex.benchmark.timed_merge import timed_merge
from orthoplex.benchmark.workspace import Workspace
from orthoplex.concepts import Manifest, load_concept, read_manifest
from orthoplex.errors import ConfigurationError, MissingExtraError
from orthoplex.files import write_json
from orthoplex.models import EMBEDDED, load_base
from orthoplex.training import TrainingConfig

_LIVE_KINDS = ("person", "subject", "style")


@dataclass(frozen=True)
class DemoMaterial:
    """The base and the concepts of the demo; by default all of them ship with the package.

    Attributes:
        base: The base model.
        resolution: Side of the training pictures in pixels.
        concepts: The concepts and their pictures.
        shipped: (name, method) -> the concept's trained file, for the method of every variant.
        strip: Concepts of the small strip of pictures.
    """

    base: str
    resolution: int
    concepts: tuple[ConceptSource, ...]
    shipped: Callable[[str, str], Path]
    strip: tuple[str, ...]


def run_demo(
    folder: Path, *, work: Path, settings: DemoSettings | None = None, material: DemoMaterial | None = None
) -> Generator[BenchmarkEvent, None, None]:
    """Train live concepts, merge them with the shipped ones, and write the page, `demo.json` and three sheets.

    Live concepts are trained with the configuration that their shipped file names. The work folder is a cache: a
    second run is quick, and a stopped one goes on. Where the encoder's package is missing, the figures are left out.

    Args:
        folder: The folder of the gallery.
        work: Folder that remembers concepts, pictures and features.
        settings: Options of the gallery; default `DemoSettings()`.
        material: Base and concepts; default what ships with the package.

    Raises:
        ConfigurationError: when a live concept, or one of the strip, is none of the concepts.
        ConceptFileError: when a shipped file does not belong to the base.
    """
    settings = DemoSettings() if settings is None else settings
    material = shipped_material() if material is None else material
    live = _live_concepts(settings, material)
    workspace = Workspace(load_base(material.base), work)
    files, training_seconds = yield from _train_live(workspace, material, live)
    variants = yield from _merge_variants(workspace, material, files)
    demo = DemoPictures(workspace, settings, material.concepts)
    pictures = yield from demo.compared(variants)
    combined = yield from demo.combined(variants)
    summaries, missing = _measure(demo, pictures)
    times = [f"{variant.name}: merged in {duration(merged.seconds)}" for variant, merged in variants.items()]
    figures = list(map(_in_words, summaries)) or [missing]
    yield BenchmarkEvent("measure", 1, 1, "; ".join([*times, *figures]))
    seconds = {
        "training": training_seconds,
        "merging": variants[OURS].seconds,
        "merging plain LoRA by SSR": variants[LORA_BEST].seconds,
        "a picture": demo.seconds_per_picture(pictures),
    }
    gallery = Gallery(
        rows=demo.rows(folder, live, pictures),
        combinations=demo.combinations(folder, combined),
        summaries=summaries,
        seconds=seconds,
        side=material.resolution,
        best=LORA_BEST.algorithm.upper(),
        missing=missing,
    )
    write_gallery(gallery, folder)
    write_sheet(gallery, folder)
    write_strip(gallery, folder, material.strip)
    write_combinations(gallery, folder)
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
        strip=("bruno", "pip", "piazza", "umbra"),
    )


def training_of(manifest: Manifest) -> TrainingConfig:
    """The training configuration that a concept file names."""
    return TrainingConfig.recorded(manifest.training)


def _live_concepts(settings: DemoSettings, material: DemoMaterial) -> tuple[str, ...]:
    names = [concept.name for concept in material.concepts]
    for role, chosen in (("live concept", settings.live), ("concept of the strip", material.strip)):
        for name in chosen:
            if name not in names:
                raise ConfigurationError(f"{role} is {name!r}; allowed: {', '.join(names)}")
    firsts = (next((c.name for c in material.concepts if c.kind == kind), None) for kind in _LIVE_KINDS)
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


def _merge_variants(
    workspace: Workspace, material: DemoMaterial, live: Mapping[str, Path]
) -> Generator[BenchmarkEvent, None, dict[DemoVariant, MergedConcepts]]:
    """Merge all concepts by every variant; ours takes the live files in the place of the shipped ones."""
    merged = {}
    for variant in VARIANTS:
        paths = {concept.name: material.shipped(concept.name, variant.method) for concept in material.concepts}
        message = f"{len(paths)} concepts, {variant.name}"
        yield BenchmarkEvent("merge", 0, 1, message)
        merged[variant] = _merge_all(workspace, variant, {**paths, **(live if variant == OURS else {})})
        yield BenchmarkEvent("merge", 1, 1, message)
    return merged


def _merge_all(workspace: Workspace, variant: DemoVariant, paths: Mapping[str, Path]) -> MergedConcepts:
    """Load all files, then take the time of what makes one model of them: inputs of layers, merge and fold.

    Inputs of layers that see pictures are kept in the work folder, with the time that they took.
    """
    base = workspace.base
    concepts = {name: load_concept(path, base=base.identity) for name, path in paths.items()}
    pairs = [(concept, 1.0) for concept in concepts.values()]
    merge, seconds = timed_merge(workspace, pairs, algorithm=variant.algorithm, use_stored=variant != OURS)
    started = time.perf_counter()
    undo = base.fold(merge)
    seconds += time.perf_counter() - started
    undo.restore()
    return MergedConcepts(concepts, merge, seconds)


def _measure(demo: DemoPictures, pictures: Compared) -> tuple[tuple[Summary, ...], str]:
    """The figures of every variant; or none, and a sentence that says what to install."""
    try:
        encoder = demo.settings.encoder.build()
    except MissingExtraError as error:
        return (), (
            f"Figures are left out: they need the package {error.package}. "
            f"To see them, pip install 'orthoplex[{error.extra}]' and run the demo again."
        )
    references = read_references(demo.concepts, encoder)
    return tuple(demo.summary(variant, pictures, references, encoder) for variant in VARIANTS), ""


def _in_words(summary: Summary) -> str:
    retentions = {
        "likeness": summary.alignment_retention,
        "recognition": summary.recognised_retention,
        "identity": summary.identity_retention,
    }
    values = {measure: "-" if interval is None else f"{interval.value:.2f}" for measure, interval in retentions.items()}
    numbers = ", ".join(f"{measure} {value}" for measure, value in values.items())
    return f"{summary.variant}: kept of a concept alone: {numbers}"
