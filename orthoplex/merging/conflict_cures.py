"""What to do about conflicts: commands and settings to try, the most important first."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

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
    """Least squares, for concepts of one base: other files have no trigger by which their inputs could be gathered."""
    bases = {file.manifest.base.hash: file.manifest.base for file in files if isinstance(file, Concept)}
    if len(bases) != 1 or not all(isinstance(file, Concept) for file in files):
        return []
    named = " ".join(identity.argument_with_strength for identity in identities)
    base = shlex.quote(next(iter(bases.values())).name)
    return [
        f"merge by least squares, with the base at hand: orthoplex merge {named} --algorithm least-squares "
        f"--base {base} --output merged"
    ]


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
    overlaps = {frozenset((pair.first, pair.second)): pair.input_overlap for pair in report.pairs}
    left = [file.name for file in report.files]
    out: list[str] = []
    while len(left) > 2 and 2 * sum(value for pair, value in overlaps.items() if pair <= {*left}) / len(left) >= MILD:
        sums = {
            name: sum(value for pair, value in overlaps.items() if name in pair and pair <= {*left}) for name in left
        }
        out.append(max(sums, key=lambda name: sums[name]))
        left.remove(out[-1])
    if not out:
        return []
    return [f"merge fewer at once: without {', '.join(out)} the other {len(left)} meet little"]
