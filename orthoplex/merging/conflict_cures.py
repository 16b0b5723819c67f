"""What to do about conflicts: commands and settings to try, the most important first."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from statistics import fmean

from orthoplex.concepts import Concept
from orthoplex.concepts.exchange.lora_file import LoraFile
from orthoplex.merging.conflict_identity import LEVELS, FileIdentity
from orthoplex.merging.conflict_report import ConflictReport
from orthoplex.merging.conflict_verdict import level_of


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
    if level_of(report.score, report.quantity) != "none":
        texts += [*_by_algorithm(files, identities), *_by_silence(files, identities), *_by_number(report)]
    return tuple(dict.fromkeys(texts))


def _by_algorithm(files: Sequence[Concept | LoraFile], identities: Sequence[FileIdentity]) -> list[str]:
    """Least squares for concepts of one base, whose inputs the base can gather; TIES for all files."""
    ties = "merge by the algorithm ties instead of a sum"
    concepts = [file for file in files if isinstance(file, Concept)]
    bases = {concept.manifest.base.hash: concept.manifest.base for concept in concepts}
    are_numbers = all(identity.strengths.is_one_number for identity in identities)
    if len(bases) != 1 or len(concepts) < len(files) or not are_numbers:  # with a base, one number a file is read
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
    """Fewer files: the one with the largest part is left out until the score of the rest is below the limit."""
    left, out = [file.name for file in report.files], []
    while len(left) > 2 and _is_conflict(report, left):
        parts = {
            name: sum(pair.score(report.quantity) for pair in report.pairs if name in (pair.first, pair.second))
            for name in left
        }
        out.append(max(left, key=lambda name: parts[name]))
        left.remove(out[-1])
    if not out or _is_conflict(report, left):
        return []
    return [f"merge fewer at once: without {', '.join(out)} the other {len(left)} hardly conflict"]


def _is_conflict(report: ConflictReport, names: Sequence[str]) -> bool:
    """True if some of the files alone would conflict by their numbers."""
    sums = dict.fromkeys(names, 0.0)
    for pair in report.pairs:
        if pair.first in sums and pair.second in sums:
            if report.quantity == "crosstalk":
                sums[pair.first] += pair.first_crosstalk or 0.0
                sums[pair.second] += pair.second_crosstalk or 0.0
            else:
                sums[pair.first] += pair.first_disturbed**2
                sums[pair.second] += pair.second_disturbed**2
    values = sums.values() if report.quantity == "crosstalk" else [math.sqrt(value) for value in sums.values()]
    return level_of(fmean(values), report.quantity) != "none"
