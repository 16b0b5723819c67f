"""Conflicts with a base at hand: sizes as shares of its weights, and effects on what its layers see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from orthoplex.activations.gathering import gather_inputs
from orthoplex.concepts import Concept
from orthoplex.concepts.exchange.lora_file import LoraFile
from orthoplex.concepts.lora_concept import foreign_concept
from orthoplex.errors import OrthoplexError
from orthoplex.merging import ConflictReport, InputGrams, Strengths, conflicts
from orthoplex.merging.conflict_files import ComparedFile, compared_files
from orthoplex.models import Base, check_layers, plain_weight


def conflicts_for(base: Base, files: Sequence[tuple[Concept | LoraFile, float | Strengths]]) -> ConflictReport:
    """Compare files before a merge into a base; see ``orthoplex.merging.conflicts``.

    Crosstalk is measured in the layers that read text features alone, under the prompts of concepts of this base and of
    LoRA files whose header tells a trigger; nothing is pictured.

    Args:
        base: The base, with nothing folded in.
        files: Concepts or other LoRA files with their strengths.

    Raises:
        ConfigurationError: See ``orthoplex.merging.conflicts``.
        BaseModelError: When a concept does not fit the base.
    """
    members = compared_files(files)
    calling, notes = _calling(base, members)
    reading = base.family.feature_layers()
    concepts = list({concept.content_hash: concept for concept in calling.values()}.values())
    inputs = gather_inputs(base, concepts, with_foreign=False, only=lambda layer: layer in reading) if calling else None
    if inputs is not None:
        names = dict.fromkeys(name for member in members for name in member.layer_strengths)
        every = [layer for layer in names if layer in reading]
        grams = {owner: inputs.concepts[concept.content_hash] for owner, concept in calling.items()}
        inputs = InputGrams(
            {owner: dict.fromkeys(every, next(iter(known.values()))) for owner, known in grams.items() if known}
        )
    report = conflicts(files, weight_norms=weight_norms(base), inputs=inputs)
    return replace(report, notes=(*report.notes, *notes))


def _calling(base: Base, members: Sequence[ComparedFile]) -> tuple[dict[str, Concept], list[str]]:
    """Content hash to the concept whose prompts call a file, and notes on files whose prompts are not known."""
    calling, notes = {}, []
    for member in members:
        file = member.file
        if isinstance(file, Concept):
            if file.manifest.base.hash == base.identity.hash:
                calling[file.content_hash] = file
            continue
        try:
            concept = foreign_concept(file, base.identity)
            check_layers(concept, base)
        except OrthoplexError as error:
            notes.append(f"{member.name}: its crosstalk is not known: {error}")
            continue
        if concept.manifest.trigger:
            calling[file.content_hash] = concept
        else:
            notes.append(f"{member.name}: its crosstalk is not known: its header tells no trigger")
    return calling, notes


def weight_norms(base: Base) -> dict[str, float]:
    """Return ``‖W‖`` of every weight of a base, by layer and by parameter; linear layers are named as files do.

    Args:
        base: The base, with nothing folded in.
    """
    norms: dict[str, float] = {}
    for component, module in base.family.components().items():
        for path, inner in module.named_modules():
            for name, parameter in inner.named_parameters(path, recurse=False):
                is_weight = name.endswith(".weight")
                norm = float((plain_weight(inner) if is_weight else parameter.detach()).float().norm())
                norms[f"{component}.{name}"] = norm
                norms[f"{component}.{name.removesuffix('.weight')}"] = norm
    return norms | {
        layer: float(plain_weight(linear).float().norm()) for layer, linear in base.family.every_layer().items()
    }
