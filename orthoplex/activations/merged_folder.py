"""Concept files and a base become an ordinary pipeline folder, without a model where none is needed."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from orthoplex import activations, models
from orthoplex.concepts import BaseIdentity, Concept, Recipe, read_concept
from orthoplex.errors import ConfigurationError
from orthoplex.merging import AUTO, Merge, create_algorithm, default_algorithm, merge, missing_inputs
from orthoplex.merging.choice import active_concepts
from orthoplex.models.base_choice import BaseName
from orthoplex.models.base_files import BaseFiles
from orthoplex.models.folder_content import check_dtype
from orthoplex.models.pipeline_folder import check_pipeline_folder, check_pipeline_tokens


@dataclass(frozen=True)
class MergedFolder:
    """What ``merge_to_folder`` wrote.

    Attributes:
        folder: The pipeline folder.
        recipe: What was merged.
        seconds: How long merging took, without loading and writing.
    """

    folder: Path
    recipe: Recipe
    seconds: float


def merge_to_folder(
    base: BaseName,
    files: Sequence[tuple[Path, float]],
    output: Path,
    *,
    algorithm: str = AUTO,
    options: Mapping[str, object] | None = None,
    scale: float = 1.0,
    overwrite: bool = False,
    dtype: torch.dtype | None = None,
) -> MergedFolder:
    """Merge concept files into a base and write an ordinary pipeline folder, with the recipe in it.

    Where files and base store all Gram matrices that the algorithm needs, and the base's folder is one of ours, no
    network is built (``orthoplex.models.base_files``); the result is the same.

    Args:
        base: As for ``load_base``.
        files: Concept files, and LoRA files of other programs, with their strengths.
        output: A new or empty folder.
        algorithm: See ``merge_for``.
        options: See ``merge_for``.
        scale: See ``merge_for``.
        overwrite: Replace a pipeline folder that is there.
        dtype: The type of all weights in the folder, float16, bfloat16 or float32; None is that of the base's files.

    Raises:
        ConceptFileError: When a file cannot be read.
        ConfigurationError: See ``merge_for``; or when tokens have no place in a folder, the type is another, or a
            weight is too large for it.
        BaseModelError: When the base cannot be loaded, or a concept fits neither it nor a relative of it.
        OutputError: When the folder cannot be written.
    """
    check_dtype(dtype)
    check_pipeline_folder(output, overwrite=overwrite)
    stored = BaseFiles.of(base)
    if stored is not None:
        concepts = _loaded(files, stored.identity)
        fits = all(
            concept.manifest.base.hash == stored.identity.hash and stored.takes(concept) for concept, _ in concepts
        )
        if fits and _is_stored(concepts, algorithm, options):
            began = time.monotonic()
            merged = merge(concepts, algorithm=algorithm, options=options, scale=scale)
            seconds = time.monotonic() - began
            with _strengths_named(merged.recipe):
                folder = stored.write(merged, output, overwrite=overwrite, dtype=dtype)
            return MergedFolder(folder, merged.recipe, seconds)
    return _with_a_model(base, files, output, algorithm, options, scale, overwrite, dtype)


def _with_a_model(
    base: BaseName,
    files: Sequence[tuple[Path, float]],
    output: Path,
    algorithm: str,
    options: Mapping[str, object] | None,
    scale: float,
    overwrite: bool,
    dtype: torch.dtype | None,
) -> MergedFolder:
    model = models.load_base(base)  # which imports what builds networks
    concepts = []
    for concept, strength in _loaded(files, model.identity):
        concepts.append((models.on_base(concept, model), strength))
        models.check_layers(concepts[-1][0], model)
    began = time.monotonic()
    merged: Merge = activations.merge_for(model, concepts, algorithm=algorithm, options=options, scale=scale)
    seconds = time.monotonic() - began
    with model.folded(merged), _strengths_named(merged.recipe):
        return MergedFolder(model.save(output, overwrite=overwrite, dtype=dtype), merged.recipe, seconds)


@contextmanager
def _strengths_named(recipe: Recipe) -> Iterator[None]:
    """Inside, an error about numbers that a file cannot hold begins with the strengths that made them."""
    try:
        yield
    except ConfigurationError as error:
        if not recipe.large_strengths:
            raise
        shown = ", ".join(f"{name} is {value}" for name, value in recipe.large_strengths.items())
        raise ConfigurationError(f"{shown}, and so {error}; allowed is what the base can follow") from error


def _is_stored(concepts: Sequence[tuple[Concept, float]], algorithm: str, options: Mapping[str, object] | None) -> bool:
    """Return whether the files and the base store all Gram matrices that an algorithm needs."""
    members = [concept for concept, _ in active_concepts(concepts)]
    if algorithm == AUTO:
        default = default_algorithm(concepts)
        algorithm, options = default.name, default.options
    chosen = create_algorithm(algorithm, options)
    if not chosen.needs_inputs:
        return True
    alone = all(concept.changes_keys_values_alone for concept in members)
    return alone and not missing_inputs(members, with_foreign=chosen.needs_foreign)


def _loaded(files: Sequence[tuple[Path, float]], base: BaseIdentity) -> list[tuple[Concept, float]]:
    """Load concepts, and LoRA files of other programs as concepts; refuse tokens that no folder can hold."""
    concepts = [(read_concept(path, base), strength) for path, strength in files]
    members = [concept for concept, _ in active_concepts(concepts)]
    check_pipeline_tokens(
        [token for concept in members for token, item in concept.tokens.items() if not item.placement.is_one_vector]
    )
    return concepts
