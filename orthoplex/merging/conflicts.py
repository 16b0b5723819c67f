"""Conflicts of a set of LoRA files or concepts, before they are merged and without any model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from statistics import fmean

import torch

from orthoplex.concepts import Concept
from orthoplex.concepts.exchange.lora_file import LoraFile
from orthoplex.concepts.layer_table import layer_table
from orthoplex.errors import ConfigurationError
from orthoplex.merging.conflict_cures import cures
from orthoplex.merging.conflict_files import ComparedFile, absent_files, compared_files
from orthoplex.merging.conflict_identity import Clash, FileIdentity, clashes, identity_of
from orthoplex.merging.conflict_report import ConflictReport, FileLoad, NormBudget, PairConflict, worst_level
from orthoplex.merging.conflict_sums import ConflictSums, Shapes, compare_layers, differ, sign_conflict
from orthoplex.merging.conflict_verdict import Quantity, level_of
from orthoplex.merging.input_grams import InputGrams, stored_gram
from orthoplex.merging.strengths import Strengths

_TINY = 1e-30
_COPY = 0.999
"""Cosine of two files' changes above which they are taken for one and the same."""


def conflicts(
    files: Sequence[tuple[Concept | LoraFile, float | Strengths]],
    *,
    weight_norms: Mapping[str, float] | None = None,
    inputs: InputGrams | None = None,
) -> ConflictReport:
    """Compare files before a merge: overlap, signs, sizes, tokens, trigger words and bases, with a verdict and cures.

    All numbers come from the factors, one layer in memory at a time; signs from 32 rows of each layer. The limits of
    the verdict are measured (``results/conflicts.json``).

    Args:
        files: Concepts or other LoRA files with their strengths ``s_i``, each a number or ``Strengths``; those of
            strength 0 are left out.
        weight_norms: Layer to ``‖W‖`` of the base; with it sizes are shares of the base's weights.
        inputs: Gram matrices of layers' inputs under the files' own prompts, by content hash. None takes those that
            concepts have stored.

    Raises:
        ConfigurationError: When there are fewer than two files, an item is no pair, a strength is no finite number,
            block weights do not fit a file's family, or a change has numbers that are not finite.
    """
    members = compared_files(files)
    names = [member.name for member in members]
    identities = [identity_of(member.file, member.name, member.strengths) for member in members]
    sums, unlike = compare_layers(members, _stored(members) if inputs is None else inputs)
    _check_finite(sums, names)
    quantity: Quantity = "crosstalk" if bool((sums.effects.diagonal() > 0).all()) else "disturbance"
    pairs = _pairs(sums, names, quantity)
    loads = _loads(sums, members, weight_norms, quantity)
    clashing = [*_clashes(identities), *_copies(sums, names), *_shapes(unlike, names)]
    score = fmean(_value(load, quantity) for load in loads) if loads else 0.0
    report = ConflictReport(
        tuple(loads),
        tuple(pairs),
        _budget(sums, weight_norms),
        quantity,
        score,
        tuple(clashing),
        worst_level([level_of(score, quantity), *(clash.level for clash in clashing)]),
        notes=_notes(members, absent_files(files), sums, unlike),
    )
    return replace(report, cures=cures(report, [member.file for member in members], identities))


def _stored(members: Sequence[ComparedFile]) -> InputGrams:
    """The Gram matrices that concepts have stored, for the layers of all files that read text features alone."""
    layers = dict.fromkeys(layer for member in members for layer in member.layer_strengths)
    grams = {}
    for file in (member.file for member in members):
        if isinstance(file, Concept) and file.inputs is not None:
            table = layer_table(file.manifest.base.family)
            reading = [layer for layer in layers if (table.reads_features(layer) if table else layer in file.layers)]
            grams[file.content_hash] = dict.fromkeys(reading, stored_gram(file.inputs))
    return InputGrams(grams)


def _check_finite(sums: ConflictSums, names: Sequence[str]) -> None:
    for name, energy in zip(names, sums.inner.diagonal().tolist(), strict=True):
        if not math.isfinite(energy):
            raise ConfigurationError(f"the changes of {name} have the energy {energy}; allowed are finite numbers")


def _pairs(sums: ConflictSums, names: Sequence[str], quantity: Quantity) -> list[PairConflict]:
    energies = sums.inner.diagonal().clamp_min(_TINY)
    sizes = (energies[:, None] * energies).sqrt()
    acting = (sums.acting / sums.acting.diagonal().clamp_min(_TINY)[:, None]).sqrt()
    signs = sign_conflict(sums.products, sums.signed)
    pairs = []
    for a in range(len(names)):
        for b in range(a + 1, len(names)):
            size = float(sizes[a, b])
            layers = [replace(layer, share=layer.share / size) for layer in sums.layers.get((a, b), [])]
            pair = PairConflict(
                names[a],
                names[b],
                cosine=float(sums.inner[a, b]) / size,
                input_overlap=float(sums.overlap_in[a, b]) / size,
                output_overlap=float(sums.overlap_out[a, b]) / size,
                sign_conflict=float(signs[a, b]) if layers else None,
                first_disturbed=float(acting[a, b]),
                second_disturbed=float(acting[b, a]),
                first_crosstalk=_crosstalk(sums, a, b),
                second_crosstalk=_crosstalk(sums, b, a),
                level="none",
                layers=tuple(layers),
            )
            pairs.append(replace(pair, level=level_of(pair.score(quantity), quantity)))
    return pairs


def _crosstalk(sums: ConflictSums, of: int, by: int) -> float | None:
    """The effect of one file on another's inputs, in units of the other's own; None where these are not known."""
    own = float(sums.effects[of, of])
    return math.sqrt(max(0.0, float(sums.effects[of, by])) / own) if own > 0 else None


def _value(load: FileLoad, quantity: Quantity) -> float:
    return (load.crosstalk or 0.0) if quantity == "crosstalk" else load.disturbance


def _loads(
    sums: ConflictSums,
    members: Sequence[ComparedFile],
    weight_norms: Mapping[str, float] | None,
    quantity: Quantity,
) -> list[FileLoad]:
    energies = sums.inner.diagonal().clamp_min(0.0)
    sizes = (energies[:, None] * energies).sqrt().clamp_min(_TINY)
    overlaps = (sums.overlap_in / sizes).fill_diagonal_(0.0).sum(dim=1)
    acting = sums.acting / sums.acting.diagonal().clamp_min(_TINY)[:, None]
    disturbances = acting.fill_diagonal_(0.0).sum(dim=1).sqrt()
    of_base = _base_norm(sums, weight_norms)
    loads = []
    for i, member in enumerate(members):
        norm, overlap = math.sqrt(float(energies[i])), float(overlaps[i])
        share = None if of_base is None else norm / of_base
        parts = [_crosstalk(sums, i, other) for other in range(len(members)) if other != i]
        crosstalk = None if None in parts else sum(part for part in parts if part is not None)
        strength, text = member.strengths.whole, member.strengths.text
        load = FileLoad(
            member.name, strength, text, norm, share, overlap, float(disturbances[i]), crosstalk, level="none"
        )
        loads.append(replace(load, level=level_of(_value(load, quantity), quantity)))
    return loads


def _base_norm(sums: ConflictSums, weight_norms: Mapping[str, float] | None) -> float | None:
    """The norm of all weights that are changed, None if one of them is not known."""
    if not weight_norms or any(layer not in weight_norms for layer in sums.together):
        return None
    return math.sqrt(sum(weight_norms[layer] ** 2 for layer in sums.together)) or None


def _budget(sums: ConflictSums, weight_norms: Mapping[str, float] | None) -> NormBudget:
    together = math.sqrt(max(0.0, float(sums.inner.sum())))
    largest = math.sqrt(max(0.0, float(sums.inner.diagonal().max())))
    of_base = _base_norm(sums, weight_norms)
    reference = {layer: norm**2 for layer, norm in (weight_norms or {}).items()} if of_base else sums.apart
    layer = max(sums.together, key=lambda name: sums.together[name] / max(reference[name], _TINY), default=None)
    apart = math.sqrt(sum(sums.apart.values()))
    return NormBudget(together, apart, largest, None if of_base is None else together / of_base, layer)


def _clashes(identities: Sequence[FileIdentity]) -> list[Clash]:
    return [
        clash
        for i, first in enumerate(identities)
        for second in identities[i + 1 :]
        for clash in clashes(first, second)
    ]


def _copies(sums: ConflictSums, names: Sequence[str]) -> list[Clash]:
    energies = sums.inner.diagonal().clamp_min(_TINY)
    cosines = sums.inner / (energies[:, None] * energies).sqrt()
    same: list[list[int]] = torch.triu(cosines > _COPY, diagonal=1).nonzero().tolist()
    return [
        Clash(
            "copy",
            "strong",
            names[a],
            names[b],
            "the changes are the same but for their size",
            f"give only one of {names[a]} and {names[b]}, with the sum of the strengths",
        )
        for a, b in same
    ]


def _shapes(unlike: Shapes, names: Sequence[str]) -> list[Clash]:
    """One clash for each pair of files that have layers of different shapes."""
    shapes: dict[tuple[str, str], list[str]] = {}
    for layer, sizes in unlike.items():
        for (a, ours), (b, theirs) in combinations(sizes.items(), 2):
            if differ(ours, theirs):
                shapes.setdefault((names[a], names[b]), []).append(f"{layer} is {ours} and {theirs}")
    return [
        Clash(
            "shape",
            "strong",
            first,
            second,
            f"{len(layers)} {'layer has' if len(layers) == 1 else 'layers have'} different shapes, such as {layers[0]}",
            "merge files of one model only",
        )
        for (first, second), layers in shapes.items()
    ]


def _notes(
    members: Sequence[ComparedFile], absent: Sequence[str], sums: ConflictSums, unlike: Shapes
) -> tuple[str, ...]:
    notes = [f"{name} has strength 0 and is not in the merge" for name in absent]
    for number, member in enumerate(members):
        file = member.file
        if isinstance(file, LoraFile) and file.left_out:
            key, reason = next(iter(file.left_out.items()))
            notes.append(f"{member.name}: {len(file.left_out)} keys were not read, such as {key}: {reason}")
        if isinstance(file, LoraFile):
            notes += member.strengths.notes(file)
        if sums.inner[number, number] == 0 and not any(number in shapes for shapes in unlike.values()):
            notes.append(f"{member.name} changes no weight")
    pairs = combinations(range(len(members)), 2)
    clashing = {pair for shapes in unlike.values() for pair in combinations(shapes, 2)}
    apart = [pair for pair in pairs if pair not in sums.layers and pair not in clashing]
    if apart:
        count = "1 pair of files changes" if len(apart) == 1 else f"{len(apart)} pairs of files change"
        notes.append(f"{count} no layer in common")
    return tuple(notes)
