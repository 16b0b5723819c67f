"""What to do about conflicts: commands and settings to try, the most important first."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from orthoplex.concepts import Concept
from orthoplex.concepts.exchange.lora_file import LoraFile
from orthoplex.merging.conflict_identity import LEVELS, FileIdentity
from orthoplex.merging.conflict_report import ConflictReport

LOUDEST = 1.0
"""A file is said to be loud from this disturbance of another one on: it does there as much as the other itself."""


def cures(
    report: ConflictReport, files: Sequence[Concept | LoraFile], identities: Sequence[FileIdentity]
) -> tuple[str, ...]:
    """Return what to do, each once; nothing at level ``none``.

    Args:
        report: The report, without cures.
        files: The files that it is of.
        identities: What they say about themselves.
    """
    ordered = sorted(report.clashes, key=lambda clash: LEVELS.index(clash.level), reverse=True)
    texts = [f"{clash.first} and {clash.second}: {clash.cure}" for clash in ordered]
    if report.level != "none" and any(load.level != "none" for load in report.files):
        texts += [*_by_algorithm(files, identities), *_by_silence(files, identities), *_by_number(report)]
    return tuple(dict.fromkeys(texts))


def _by_algorithm(files: Sequence[Concept | LoraFile], identities: Sequence[FileIdentity]) -> list[str]:
    concepts = [file for file in files if isinstance(file, Concept) and file.layers]
    if len(concepts) < len(files):
        return []
    named = " ".join(identity.argument_with_strength for identity in identities)
    if len({concept.manifest.base.hash for concept in concepts}) > 1:
        return []
    base = shlex.quote(concepts[0].manifest.base.name)
    return [
        f"merge by least squares, with the base at hand: orthoplex merge {named} --algorithm least-squares "
        f"--base {base} --output merged"
    ]


def _by_silence(files: Sequence[Concept | LoraFile], identities: Sequence[FileIdentity]) -> list[str]:
    loud = [
        identity
        for file, identity in zip(files, identities, strict=True)
        if isinstance(file, Concept) and file.layers and not file.manifest.training.get("erasure")
    ]
    return [
        f"make {identity.name} silent where it is not named: orthoplex silence {identity.argument} "
        f"--output {shlex.quote(f'{identity.name}-silent.safetensors')}"
        for identity in loud
    ]


def _by_number(report: ConflictReport) -> list[str]:
    if len(report.files) < 3:
        return []
    largest = max(report.files, key=lambda load: load.overlap)
    return [f"merge fewer at once: {largest.name} meets the others most (overlap {largest.overlap:.2f})"]
