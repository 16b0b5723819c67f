"""What to do about conflicts: commands and settings to try, the most important first."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from statistics import fmean

from orthoplex.concepts import Concept
from orthoplex.concepts.exchange.lora_file import LoraFile
from orthoplex.merging.conflict_identity import LEVELS, FileIdentity
from orthoplex.merging.conflict_report import ConflictReport
from orthoplex.merging.conflict_verdict import MILD


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
    if report.overlap >= MILD:
        texts += [*_by_algorithm(files, identities), *_by_silence(files, identities), *_by_number(report)]
    return tuple(dict.fromkeys(texts))


def _by_algorithm(files: Sequence[Concept | LoraFile], identities: Sequence[FileIdentity]) -> list[str]:
    """Least squares for concepts of one base, whose inputs the base can gather; TIES for all files."""
    ties = "merge by the algorithm ties instead of a sum"
    concepts = [file for file in files if isinstance(file, Concept)]
    bases = {concept.manifest.base.hash: concept.manifest.base for concept in concepts}
    if len(bases) != 1 or len(concepts) < len(files):
        return [ties]
    named = " ".join(identity.argument_with_strength for identity in identities)
    base = shlex.quote(next(iter(bases.values())).name)
    reads_text = all(concept.changes_keys_values_alone for concept in concepts if concept.layers)
    algorithm = "" if reads_text else "--algorithm least-squares "
    by = "which chooses least squares" if reads_text else "which first makes pictures with the base"
    return [f"orthoplex merge {named} {algorithm}--base {base} --output merged, {by}", ties]


def _by_silence(files: Sequence[Concept | LoraFile], identities: Sequence[FileIdentity]) -> list[str]:
    """Erasure, for concepts that were trained without it."""
    loud = [
        identity
        for file, identity in zip(files, identities, strict=True)
        if isinstance(file, Concept) and file.layers and not file.manifest.training.get("erasure")
    ]
    if not loud:
        return []
    first = loud[0]
    others = f", and so for {', '.join(identity.name for identity in loud[1:])}" if len(loud) > 1 else ""
    output = shlex.quote(f"{first.name}-silent.safetensors")
    return [f"erase each where it is not named: orthoplex silence {first.argument} --output {output}{others}"]


def _by_number(report: ConflictReport) -> list[str]:
    """Fewer files: those with the largest overlap are left out until the rest is below the limit."""
    left, out = [file.name for file in report.files], []
    while len(left) > 2:
        inside = [pair for pair in report.pairs if {pair.first, pair.second} <= {*left}]
        sums = {name: sum(p.input_overlap for p in inside if name in (p.first, p.second)) for name in left}
        if fmean(sums.values()) < MILD:
            break
        out.append(max(left, key=lambda name: sums[name]))
        left.remove(out[-1])
    meets = any({pair.first, pair.second} == {*left} and pair.input_overlap >= MILD for pair in report.pairs)
    if not out or meets:
        return []
    return [f"merge fewer at once: without {', '.join(out)} the other {len(left)} meet little"]
