"""Conflicts with a base at hand: sizes as shares of its weights, and effects on what its layers see."""

from __future__ import annotations

from collections.abc import Sequence

from orthoplex.activations.gathering import gather_inputs
from orthoplex.concepts import Concept
from orthoplex.concepts.exchange.lora_file import LoraFile
from orthoplex.merging import ConflictReport, InputGrams, conflicts
from orthoplex.models import Base


def conflicts_for(base: Base, files: Sequence[tuple[Concept | LoraFile, float]]) -> ConflictReport:
    """Compare files before a merge into a base; see ``orthoplex.merging.conflicts``.

    Crosstalk is measured in the layers that read text features alone, for concepts of this base; nothing is pictured.

    Args:
        base: The base, with nothing folded in.
        files: Concepts or other LoRA files with their strengths.

    Raises:
        ConfigurationError: See ``orthoplex.merging.conflicts``.
        BaseModelError: When a concept does not fit the base.
    """
    own = [file for file, _ in files if isinstance(file, Concept) and file.manifest.base.hash == base.identity.hash]
    reading = base.family.feature_layers()
    inputs = gather_inputs(base, own, with_foreign=False, only=lambda layer: layer in reading) if own else None
    if inputs is not None:
        every = [
            layer for layer in dict.fromkeys(name for file, _ in files for name in file.layers) if layer in reading
        ]
        inputs = InputGrams(
            {
                owner: dict.fromkeys(every, next(iter(grams.values())))
                for owner, grams in inputs.concepts.items()
                if grams
            }
        )
    return conflicts(files, weight_norms=weight_norms(base), inputs=inputs)


def weight_norms(base: Base) -> dict[str, float]:
    """Return ``‖W‖`` of every weight of a base, by layer and by parameter; linear layers are named as files do.

    Args:
        base: The base, with nothing folded in.
    """
    norms: dict[str, float] = {}
    for component, module in base.family.components().items():
        for name, parameter in module.named_parameters():
            norm = float(parameter.detach().float().norm())
            norms[f"{component}.{name}"] = norm
            norms[f"{component}.{name.removesuffix('.weight')}"] = norm
    return norms | {
        layer: float(linear.weight.detach().float().norm()) for layer, linear in base.family.every_layer().items()
    }
