"""The strengths of one file in a merge: of the whole, of its text encoders, and of blocks."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import final

from orthoplex.concepts.exchange.lora_file import LoraFile
from orthoplex.errors import ConfigurationError
from orthoplex.merging.block_names import BASE, BlockMap, block_map
from orthoplex.merging.block_weights import BlockWeights, number_text
from orthoplex.options import checked

_ENCODERS = re.compile(r"(?:text[-_ ]encoders?|te|clip)\s*=\s*([^;,=]+)", re.IGNORECASE)


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
        ``0.8; te=0.5; blocks=MIDD, feed-forward=0``.

        Raises:
            ConfigurationError: When a part cannot be read.
        """
        whole, encoders, blocks = 1.0, None, []
        for part in (item.strip() for item in text.split(";")):
            match = _ENCODERS.fullmatch(part)
            if match:
                encoders = checked("strength of text encoders", _number(match[1]), float)
            elif _number(part) is not None:
                whole = checked("strength", _number(part), float)
            elif part:
                blocks.append(part)
        if len(blocks) > 1:
            raise ConfigurationError(
                f"strengths {text!r} have block weights {len(blocks)} times; allowed is once, with commas between parts"
            )
        return Strengths(whole, encoders, BlockWeights.read(blocks[0]) if blocks else BlockWeights())

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
        """Say which changed blocks get 0 because a list of numbers or a preset leaves them out."""
        if not self.blocks.text:
            return []
        places = places_of(file)
        left_out = self.blocks.without_weight(places)
        touched = {places.places[layer].block for layer in changed_modules(file)}
        names = [block for block in left_out if block in touched]
        if not names:
            return []
        return [
            f"{file.name}: blocks {', '.join(names)} get 0, because the block weights leave them out; a list of "
            f"{max(places.lists)} numbers has them all"
        ]


def changed_modules(file: LoraFile) -> list[str]:
    """Return the names of layers and norms that a file changes."""
    return sorted({*file.layers, *(parameter.rpartition(".")[0] for parameter in file.differences)})


def places_of(file: LoraFile) -> BlockMap:
    """Return the places of a file's layers in its model."""
    windows = [layer for layer, window in file.windows.items() if window != (1, 1)]
    return block_map(file.family, file.version, changed_modules(file), windows)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
