"""Merging LoRA files of any program: many files become one, without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

from orthoplex.concepts.exchange.lora_file import LoraFile
from orthoplex.errors import ConfigurationError
from orthoplex.merging.algorithms import ALGORITHMS
from orthoplex.merging.block_weights import number_text
from orthoplex.merging.concatenation import is_exact
from orthoplex.merging.concept_merge import check_options
from orthoplex.merging.file_layers import LayerLoss, LayerWork, MergedLayers
from orthoplex.merging.file_members import (
    check_files,
    check_kin,
    collect_embeddings,
    common_metadata,
    common_windows,
    selected_layers,
)
from orthoplex.merging.file_recipe import RECIPE_KEY, FileRecipe, FileSettings
from orthoplex.merging.strengths import Strengths, changed_modules
from orthoplex.merging.truncation import Truncation


@final
@dataclass(frozen=True, eq=False)
class FileMerge:
    """A merged file, and how exact it is.

    Attributes:
        lora: The file, with its recipe in the metadata. The layers of an exact sum are made each time they are asked
            for, so that memory holds one at a time.
        recipe: The recipe.
        notes: Sentences about what a reader of the result should know: full weights, blocks without a weight.
        rounding: A sentence about numbers of a sum that are rounded to float32, and why; None if none is. A file of a
            narrower type rounds more.
        losses: Layer to its truncation; empty without one.
    """

    lora: LoraFile
    recipe: FileRecipe
    notes: tuple[str, ...]
    rounding: str | None
    losses: Mapping[str, LayerLoss]

    def with_settings(self, settings: FileSettings) -> FileMerge:
        """Return the same merge with a recipe that says how its files are read and how it is written."""
        recipe = replace(self.recipe, settings=settings)
        lora = replace(self.lora, style=settings.style or self.lora.style)
        return replace(self, recipe=recipe, lora=replace(lora, metadata=lora.metadata | {RECIPE_KEY: recipe.to_text()}))

    @property
    def lost(self) -> float:
        """The share of the energy of all truncated layers that was cut off; 0 without a truncation."""
        total = sum(loss.energy for loss in self.losses.values())
        return sum(loss.lost for loss in self.losses.values()) / total if total else 0.0


def merge_files(
    files: Sequence[tuple[LoraFile, Strengths]],
    *,
    algorithm: str = "sum",
    options: Mapping[str, object] | None = None,
    scale: float = 1.0,
    truncation: Truncation | None = None,
    only: Sequence[str] = (),
    name: str = "merged",
) -> FileMerge:
    """Merge LoRA files of one family: ``ΔW = λ · algorithm(s_1 ΔW_1, …, s_k ΔW_k)`` for every weight.

    ``sum`` and ``mean`` put factors side by side, which is exact: strengths that are powers of two round nothing, and
    any other rounds the numbers of ``up`` once to float32. Other algorithms work on every layer by itself. A result of
    full rank, as of TIES and DARE, becomes a full difference, unless a truncation is given. Full weights in the files
    are matrices like any other for these algorithms. Biases and norms are always added (averaged by ``mean``).

    Args:
        files: The files with their strengths. A file at strength 0 has no part in the merge.
        algorithm: A name in ``ALGORITHMS``; those that need layers' inputs are refused.
        options: The algorithm's options; those that are missing take their defaults.
        scale: λ, the strength of the whole.
        truncation: The rank of the result; None keeps all.
        only: Parts of the model, as block weights name them; only these are merged. Empty for all.
        name: The name of the result.

    Raises:
        ConfigurationError: When there is no file, or a file is there twice; the algorithm, an option or a strength is
            not allowed; the files are of different families; a layer has different shapes; or two files have one token.
    """
    method = check_options(algorithm=algorithm, options=options, scale=scale)
    if method.needs_inputs:
        without = ", ".join(key for key, kind in ALGORITHMS.items() if not kind.needs_inputs)
        raise ConfigurationError(
            f"merging algorithm {algorithm!r} needs the inputs of layers, which LoRA files do not have; give their "
            f"base with --base, or choose one of {without}"
        )
    ordered = check_files(files)
    check_kin([file for file, _ in ordered])
    recipe = FileRecipe.of(ordered, algorithm, method.to_json(), float(scale), truncation, only)
    first, members = files[0][0], [file for file, _ in ordered]
    present = [(file, strengths) for file, strengths in ordered if scale and not strengths.is_zero]
    work = LayerWork(method, present, float(scale), truncation, selected_layers(ordered, only))
    merged = work.merged()
    embeddings = collect_embeddings([file for file, _ in present])
    _refuse_nothing(ordered, work, merged, embeddings, only)
    windows = common_windows(members)
    lora = LoraFile(
        name,
        first.style,
        first.family,
        first.version,
        merged.layers,
        {layer: window for layer, window in windows.items() if layer in merged.layers},
        merged.differences,
        embeddings,
        common_metadata([file for file, _ in files]) | {RECIPE_KEY: recipe.to_text()},
        {f"{file.name}: {key}": reason for file, _ in present for key, reason in file.left_out.items()},
    )
    rounding = None if any(loss.lost for loss in merged.losses.values()) else _rounding(work)
    return FileMerge(lora, recipe, tuple(_notes(work, merged)), rounding, merged.losses)


def _refuse_nothing(
    files: Sequence[tuple[LoraFile, Strengths]],
    work: LayerWork,
    merged: MergedLayers,
    embeddings: Mapping[str, object],
    only: Sequence[str],
) -> None:
    """Refuse a merge that leaves nothing of its files.

    Raises:
        ConfigurationError: Says why nothing is left.
    """
    is_changed = any(file.layers or file.differences for file, _ in files)
    if len(merged.layers) or len(merged.differences) or (embeddings and not is_changed):
        return
    if not work.scale:
        reason = "the strength of the whole is 0"
    elif not work.files:
        reason = "every file has strength 0"
    elif only and not any(work.selected(layer) for file, _ in work.files for layer in changed_modules(file)):
        reason = f"no file changes {' or '.join(only)}"
    else:
        reason = "strengths and block weights of all changed layers are 0"
    raise ConfigurationError(f"the merge leaves nothing: {reason}; allowed are merges that change a layer")


def merge_again(recipe: FileRecipe, files: Sequence[LoraFile], *, name: str = "merged") -> FileMerge:
    """Make the merge of a recipe again.

    Args:
        recipe: The recipe, such as ``FileRecipe.of_file`` of a merged file.
        files: The files of the recipe, in its order, as ``recipe.find`` returns them.
        name: The name of the result.

    Raises:
        ConfigurationError: See ``merge_files``.
    """
    return merge_files(
        [(lora, Strengths.read(item.strengths)) for item, lora in zip(recipe.files, files, strict=True)],
        algorithm=recipe.algorithm,
        options=recipe.options,
        scale=recipe.scale,
        truncation=None if recipe.truncation is None else Truncation(**recipe.truncation),  # type: ignore[arg-type]
        only=recipe.only,
        name=name,
    )


def _notes(work: LayerWork, merged: MergedLayers) -> list[str]:
    notes = [note for file, strengths in work.files for note in strengths.notes(file)]
    if merged.num_full:
        notes.append(
            f"{merged.num_full} layers have full rank after this algorithm and are full differences, as large as the "
            "weights; a truncation to a rank makes them low-rank"
        )
    if merged.num_added:
        notes.append(f"{merged.num_added} biases and norms are added, each times its strength")
    if work.truncation is not None:
        full = sum(tensor.ndim > 1 for tensor in merged.differences.values())
        if full:
            notes.append(f"{full} full differences stay full: factors of the rank that they need are larger")
    return notes


def _rounding(work: LayerWork) -> str | None:
    """Say which numbers of a sum are rounded."""
    if not work.is_linear:
        return None
    rounded = {
        file.name: next((own for own in strengths.values() if not is_exact(own * work.factor)), None)
        for (file, _), strengths in zip(work.files, work.strengths, strict=True)
    }
    named = [
        f"{name} ({number_text(strength * work.factor)})" for name, strength in rounded.items() if strength is not None
    ]
    if not named:
        return None
    return (
        "numbers of the up factors are rounded once to float32, by 6e-8 of themselves at most, because strengths are "
        f"no powers of two: {', '.join(named)}"
    )
