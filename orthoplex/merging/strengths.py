"""The strengths of one file in a merge: of the whole, of its text encoders, and of blocks."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

from orthoplex.concepts.exchange.lora_file import LoraFile
from orthoplex.errors import ConfigurationError
from orthoplex.merging.block_names import BASE, BlockMap, block_map
from orthoplex.merging.block_weights import BlockWeights, number_text
from orthoplex.options import checked

_ENCODERS = re.compile(r"(?:text[-_ ]encoders?|te)\s*=\s*([^;,=]*)", re.IGNORECASE)
_ONE_ENCODER = re.compile(r"(?:clip|t5)\s*=\s*([^;,=]*)", re.IGNORECASE)


@final
@dataclass(frozen=True)
class Strengths:
    """The strengths of one file; a layer has that of the whole, or of the text encoders, times its block weight.

    Attributes:
        whole: 0 is the base, 1 is the file.
        text_encoders: The strength of the layers of text encoders; None for that of the whole.
        blocks: Factors of parts of the model.

    Raises:
        ConfigurationError: When a strength is no finite number.
    """

    whole: float = 1.0
    text_encoders: float | None = None
    blocks: BlockWeights = field(default_factory=BlockWeights)

    def __post_init__(self) -> None:
        """Refuse strengths that are no finite numbers."""
        object.__setattr__(self, "whole", checked("strength", self.whole, float))
        object.__setattr__(
            self, "text_encoders", checked("strength of text encoders", self.text_encoders, float | None)
        )

    @staticmethod
    def read(text: str) -> Strengths:
        """Read strengths as people write them: parts with semicolons between them, in any order.

        ``0.8`` is the whole, ``te=0.5`` the text encoders, and all else block weights, with or without ``blocks=``:
        ``0.8; te=0.5; blocks=MIDD, feed-forward=0``. ``clip=0; t5=1`` are factors of single text encoders.

        Raises:
            ConfigurationError: When a part cannot be read, or a strength is given twice.
        """
        wholes: list[float] = []
        encoders: list[float] = []
        blocks: list[str] = []
        for part in (item.strip() for item in text.split(";")):
            if match := _ENCODERS.fullmatch(part):
                encoders.append(_strength("strength of text encoders", match[1]))
            elif _number(part) is not None or _is_meant_as_number(part):
                wholes.append(_strength("strength", part))
            elif part:
                blocks.append(part)
        for given, what in ((wholes, "a strength"), (encoders, "a strength of text encoders")):
            if len(given) > 1:
                raise ConfigurationError(
                    f"strengths {text!r} have {what} {len(given)} times, {number_text(given[0])} and "
                    f"{number_text(given[1])}; allowed is once"
                )
        if len(blocks) > 1 and not all(_ONE_ENCODER.fullmatch(part) for part in blocks):
            raise ConfigurationError(
                f"strengths {text!r} have block weights {len(blocks)} times; allowed is once, with commas between parts"
            )
        whole = wholes[0] if wholes else 1.0
        _check_one_encoder(blocks, whole)
        weights = BlockWeights.read(",".join(blocks)) if blocks else BlockWeights()
        return Strengths(whole, encoders[0] if encoders else None, weights)

    @property
    def text(self) -> str:
        """The strengths as text, which ``read`` reads."""
        encoders = [] if self.text_encoders is None else [f"te={number_text(self.text_encoders)}"]
        blocks = [f"blocks={self.blocks.text}"] if self.blocks.text else []
        return "; ".join([number_text(self.whole), *encoders, *blocks])

    @property
    def is_zero(self) -> bool:
        """True if nothing of a file is left."""
        return self.whole == 0 and not self.text_encoders

    @property
    def is_one_number(self) -> bool:
        """True if all layers have the strength of the whole."""
        return self.text_encoders is None and not self.blocks.text

    def of_layers(self, file: LoraFile) -> dict[str, float]:
        """Return the strength of every layer and norm that a file changes.

        Args:
            file: The file; its layers are named, and none is read.

        Raises:
            ConfigurationError: When block weights do not fit the file's family.
        """
        places = places_of(file)
        weights = self.blocks.weights(places)
        encoders = self.whole if self.text_encoders is None else self.text_encoders
        return {
            layer: (encoders if places.places[layer].block == BASE else self.whole) * weights[layer]
            for layer in changed_modules(file)
        }

    def notes(self, file: LoraFile) -> list[str]:
        """Say which changed blocks and layers get 0 because a list of numbers or a preset leaves them out."""
        if not self.blocks.has_list:
            return []
        places = places_of(file)
        touched = {layer: places.places[layer].block for layer in changed_modules(file)}
        names = [block for block in self.blocks.without_weight(places) if block in touched.values()]
        alone = sorted(layer for layer, block in touched.items() if block is None)
        notes = []
        if names:
            whole = next((n for n, listed in places.lists.items() if {*names} <= {*listed}), None)
            cure = f"PART=NUMBER behind the list, such as {names[0]}=1, sets them"
            notes.append(
                f"{file.name}: blocks {', '.join(names)} get 0, because the block weights leave them out; "
                + (cure if whole is None else f"a list of {whole} numbers has them all")
            )
        if alone:
            notes.append(
                f"{file.name}: {len(alone)} layers outside of all blocks, such as {alone[0]}, get 0, because block "
                "weights are given as a list; PART=NUMBER behind the list sets them"
            )
        return notes


def changed_modules(file: LoraFile) -> list[str]:
    """Return the names of layers and norms that a file changes."""
    return sorted({*file.layers, *(parameter.rpartition(".")[0] for parameter in file.differences)})


def places_of(file: LoraFile) -> BlockMap:
    """Return the places of a file's layers in its model."""
    windows = [layer for layer, window in file.windows.items() if window != (1, 1)]
    return block_map(file.family, file.version, changed_modules(file), windows)


def _check_one_encoder(blocks: Sequence[str], whole: float) -> None:
    """Refuse ``clip=0.5`` beside a strength of the whole: other programs mean a strength, and parts have factors."""
    for part in blocks:
        match = _ONE_ENCODER.fullmatch(part)
        value = _number(match[1]) if match else None
        if value and whole not in (0, 1):
            raise ConfigurationError(
                f"{part!r} beside strength {number_text(whole)} could be a strength or a factor; allowed are "
                f"te={number_text(value)} for the strength of all text encoders, and blocks={part} for a factor"
            )


def _is_meant_as_number(part: str) -> bool:
    """True if a part begins like a number and names nothing: 0.5x, 50%."""
    return bool(re.fullmatch(r"[-+]?\.?\d[^=,]*", part))


def _strength(name: str, text: str) -> float:
    number = _number(text)
    if number is None or not math.isfinite(number):
        raise ConfigurationError(f"{name} is {text.strip()!r}; allowed are finite numbers, as in 0.8")
    return number


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
