"""The files of a comparison: each with its whole changes, and the strength of every layer in the merge to come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from orthoplex.adapters import LowRank
from orthoplex.concepts import Concept
from orthoplex.concepts.exchange.lora_file import LoraFile
from orthoplex.concepts.exchange.reading import lora_of_concept
from orthoplex.concepts.whole_layers import whole_layers
from orthoplex.errors import ConfigurationError
from orthoplex.merging.strengths import Strengths
from orthoplex.options import checked

AnyFile = Concept | LoraFile


@final
@dataclass(frozen=True, eq=False)
class ComparedFile:
    """A file in a comparison.

    Attributes:
        file: The concept or LoRA file.
        name: Its name in the report; no other file there has it.
        strengths: Its strengths in the merge.
        layers: Layer to its whole change, full differences among them.
        layer_strengths: Layer to its strength; a layer at strength 0 is no layer of the merge and is not in it.
    """

    file: AnyFile
    name: str
    strengths: Strengths
    layers: Mapping[str, LowRank]
    layer_strengths: Mapping[str, float]

    @staticmethod
    def of(file: AnyFile, name: str, strengths: Strengths) -> ComparedFile:
        """Return a file with its whole changes.

        Raises:
            ConfigurationError: When block weights do not fit the file's family.
        """
        layers = whole_layers(file)
        own = {layer: strength for layer, strength in _layer_strengths(file, layers, strengths).items() if strength}
        return ComparedFile(file, name, strengths, layers, own)

    def shape(self, layer: str) -> tuple[int, ...]:
        """Return the shape of a layer's change; ``(out, in, height, width)`` where the file tells a window."""
        out_features, width = self.layers[layer].shape
        if isinstance(self.file, Concept):
            return out_features, width
        difference = self.file.differences.get(f"{layer}.weight")
        if difference is not None and difference.ndim > 2:
            return tuple(difference.shape)
        if layer not in self.file.windows:
            return out_features, width
        window = self.file.windows[layer]
        return (out_features, width // (window[0] * window[1]), *window)


def compared_files(files: Sequence[tuple[AnyFile, float | Strengths]]) -> list[ComparedFile]:
    """Return the files that have a part in the merge; those of strength 0 have none.

    Raises:
        ConfigurationError: When there are fewer than two files, an item is no pair, a strength is no finite number, or
            block weights do not fit a file's family.
    """
    if len(files) < 2:
        raise ConfigurationError(f"conflicts of {len(files)} files were asked for; allowed are 2 or more")
    active = [(file, own) for file, own in map(_checked, files) if not own.is_zero]
    names = _names([file for file, _ in active])
    return [ComparedFile.of(file, name, own) for (file, own), name in zip(active, names, strict=True)]


def absent_files(files: Sequence[tuple[AnyFile, float | Strengths]]) -> list[str]:
    """Return the names of the files that have strength 0."""
    return [file.name for file, own in map(_checked, files) if own.is_zero]


def _checked(pair: object) -> tuple[AnyFile, Strengths]:
    if not isinstance(pair, tuple) or len(pair) != 2 or not isinstance(pair[0], Concept | LoraFile):
        raise ConfigurationError(
            f"conflicts of {type(pair).__name__} were asked for; allowed are pairs of a concept or LoRA file and a "
            "strength"
        )
    file, strength = pair
    if isinstance(strength, Strengths):
        return file, strength
    return file, Strengths(checked(f"{file.label}: strength", strength, float))


def _names(files: Sequence[AnyFile]) -> list[str]:
    """A name for each file that no other has: its own, its path, or its number behind it."""
    short = [file.name for file in files]
    longer = [file.name if short.count(file.name) == 1 or file.path is None else str(file.path) for file in files]
    return [
        name if longer.count(name) == 1 else f"{name} ({longer[: i + 1].count(name)})" for i, name in enumerate(longer)
    ]


def _layer_strengths(file: AnyFile, layers: Mapping[str, LowRank], strengths: Strengths) -> dict[str, float]:
    """The strength of every layer; a bias has that of the layer it belongs to."""
    if strengths.is_one_number:
        return dict.fromkeys(layers, strengths.whole)
    lora = lora_of_concept(file, partial=True) if isinstance(file, Concept) else file
    modules = strengths.of_layers(lora)
    return {layer: modules[layer if layer in modules else layer.removesuffix(".bias")] for layer in layers}
