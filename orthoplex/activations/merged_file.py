"""Concept files and LoRA files of other programs become one LoRA file, by an algorithm that asks a base."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from orthoplex import activations, models
from orthoplex.adapters import LowRank
from orthoplex.concepts import Recipe, read_concept
from orthoplex.concepts.exchange import LoraFile
from orthoplex.concepts.exchange.reading import lora_of_concept
from orthoplex.concepts.layer_table import layer_table
from orthoplex.merging import AUTO, RECIPE_KEY, Merge, Truncation, truncate
from orthoplex.merging.file_members import joined_triggers
from orthoplex.models import Base
from orthoplex.models.base_choice import BaseName
from orthoplex.models.weights import named_modules


def merge_to_lora(
    base: BaseName,
    files: Sequence[tuple[Path, float]],
    *,
    algorithm: str = AUTO,
    options: Mapping[str, object] | None = None,
    scale: float = 1.0,
    truncation: Truncation | None = None,
    name: str = "merged",
) -> tuple[LoraFile, Recipe]:
    """Merge files with a base at hand, and return the merge as a LoRA file; embeddings are in it.

    Args:
        base: As for ``load_base``.
        files: Concept files, and LoRA files of other programs, with their strengths.
        algorithm: See ``merge_for``.
        options: See ``merge_for``.
        scale: See ``merge_for``.
        truncation: The rank of the result; None keeps all.
        name: The name of the result.

    Returns:
        The file, in the style ``diffusers``, and the recipe, which is also in its metadata.

    Raises:
        ConceptFileError: When a file cannot be read.
        FileFormatError: When a concept's tokens are more than vectors.
        ConfigurationError: See ``merge_for``.
        BaseModelError: When the base cannot be loaded, or a concept fits neither it nor a relative of it.
    """
    model = models.load_base(base)
    concepts = []
    for path, strength in files:
        concepts.append((models.on_base(read_concept(path, model.identity), model), strength))
        models.check_layers(concepts[-1][0], model)
    merged = activations.merge_for(model, concepts, algorithm=algorithm, options=options, scale=scale)
    present = {item.content_hash for item in merged.recipe.present}
    embeddings: dict[str, Mapping[str, Tensor]] = {}
    for concept, _ in concepts:
        if concept.content_hash in present:
            embeddings |= lora_of_concept(replace(concept, layers={})).embeddings
    lora = _lora_file(merged, model, truncation, name)
    headers = [{"trigger_word": concept.manifest.trigger} for concept, strength in concepts if strength]
    return replace(lora, embeddings=embeddings, metadata={**lora.metadata, **joined_triggers(headers)}), merged.recipe


def _lora_file(merged: Merge, base: Base, truncation: Truncation | None, name: str) -> LoraFile:
    """The changes of a merge: weights as factors, biases and norms as full differences."""
    layers: dict[str, LowRank] = {}
    windows: dict[str, tuple[int, int]] = {}
    differences: dict[str, Tensor] = {}
    modules = named_modules(base.family.components())
    for layer, stack in sorted(merged.layers.items()):
        parameter, shape = _parameter(layer, modules)
        change = stack.low_rank
        if len(shape) == 1:
            differences[parameter] = change.delta().reshape(shape)
            continue
        layers[layer] = change if truncation is None else truncate(change, truncation, layer=layer).change
        if len(shape) == 4:
            windows[layer] = (shape[2], shape[3])
    version = merged.recipe.base.family
    table = layer_table(version)
    is_known = table is not None and all(
        table.versions[version].get(layer) == _parameter(layer, modules)[1] for layer in layers
    )
    text = json.dumps(merged.recipe.to_json(), sort_keys=True, ensure_ascii=False)
    return LoraFile(
        name,
        "diffusers",
        None if table is None else table.family,
        version if is_known else None,
        layers,
        windows,
        differences,
        metadata={RECIPE_KEY: text},
    )


def _parameter(layer: str, modules: Mapping[str, nn.Module]) -> tuple[str, tuple[int, ...]]:
    """The name and shape of the parameter that a layer of a concept changes."""
    parameter = layer if layer.endswith(".bias") else f"{layer}.weight"
    module, _, part = parameter.rpartition(".")
    return parameter, tuple(modules[module].get_parameter(part).shape)
