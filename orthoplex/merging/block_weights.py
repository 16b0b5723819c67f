"""Block weights: other strengths for parts of a file, as people write them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import final

from orthoplex.errors import ConfigurationError
from orthoplex.merging.block_names import BASE, ENCODERS, KINDS, BlockMap, Place

_SIXTEEN = ("IN01", "IN02", "IN04", "IN05", "IN07", "IN08", "M00", *(f"OUT{number:02}" for number in range(3, 12)))
_PRESETS: Mapping[str, tuple[str, ...]] = {
    "INS": _SIXTEEN[:3],
    "IND": _SIXTEEN[3:6],
    "INALL": _SIXTEEN[:6],
    "MIDD": _SIXTEEN[3:11],
    "OUTD": _SIXTEEN[7:11],
    "OUTS": _SIXTEEN[11:],
    "OUTALL": _SIXTEEN[7:],
}
"""Presets of LoRA Block Weight: the blocks at 1, besides the text encoders; all others are at 0."""
_WHOLE = {"NONE": 0.0, "ALL": 1.0, "ALL0.5": 0.5}
PRESETS = (*_WHOLE, *_PRESETS)
_PREFIX = re.compile(r"(?:blocks|lbw)\s*=", re.IGNORECASE)


@final
@dataclass(frozen=True)
class BlockWeights:
    """Factors of a file's strength in parts of the model.

    Attributes:
        numbers: One number a block, in the order of a list of the family.
        preset: A name in ``PRESETS``, or None; not beside numbers.
        settings: Name of a part and its number, applied after numbers or preset in the order given: the last counts.
    """

    numbers: tuple[float, ...] = ()
    preset: str | None = None
    settings: tuple[tuple[str, float], ...] = ()

    @staticmethod
    def read(text: str) -> BlockWeights:
        """Read block weights as people write them.

        ``1,0,0,0,1,1,1,0,0,0,0,0,0,0,0,0,0`` has a number for every block of a list; ``MIDD`` is a preset;
        ``down.2=0.5, IN04-IN08=0, double 0-18=1, feed-forward=0, text_encoder_2=0`` names blocks, ranges, paths, kinds
        and components. Named parts may follow numbers or a preset. ``ALL=0, cross-attention=1`` merges these alone.

        Raises:
            ConfigurationError: When the text is empty, a number is not finite, or numbers follow named parts.
        """
        items = [item.strip() for item in _PREFIX.sub("", text.strip(), count=1).split(",")]
        if "" in items:
            raise ConfigurationError(
                f"block weights are {text!r}; allowed are numbers, one of {', '.join(PRESETS)}, and PART=NUMBER, with "
                "commas between them"
            )
        preset = items[0].upper() if items[0].upper() in PRESETS else None
        items = items[1:] if preset else items
        plain = [item for item in items if "=" not in item]
        if (preset and plain) or plain != items[: len(plain)]:
            raise ConfigurationError(
                f"block weights are {text!r}: {plain[-1]!r} has no name; allowed are numbers or a preset, and "
                "PART=NUMBER after it"
            )
        named = [item.rpartition("=") for item in items[len(plain) :]]
        settings = tuple((name.strip(), _number(name.strip(), value)) for name, _, value in named)
        return BlockWeights(tuple(_number("block", item) for item in plain), preset, settings)

    @property
    def text(self) -> str:
        """The weights as text, which ``read`` reads."""
        first = [self.preset] if self.preset else [number_text(number) for number in self.numbers]
        return ",".join([*first, *(f"{name}={number_text(number)}" for name, number in self.settings)])

    def weights(self, blocks: BlockMap) -> dict[str, float]:
        """Return layer to its factor, for every layer of a map.

        Raises:
            ConfigurationError: When there are more or fewer numbers than blocks, or a name names no layer.
        """
        named = self._named(blocks)
        by_block = self._by_block(blocks)
        weights = dict.fromkeys(blocks.places, _WHOLE.get(self.preset or "", 1.0))
        for layer, place in blocks.places.items() if named else ():
            block = blocks.encoder_block(layer) if "CLIP" in by_block and place.block == BASE else place.block
            weights[layer] = by_block.get(block, 1.0 if place.block == BASE else 0.0)
        for name, number in self.settings:
            selects = selection(name, blocks)
            weights |= {layer: number for layer, place in blocks.places.items() if selects(layer, place)}
        return weights

    def without_weight(self, blocks: BlockMap) -> tuple[str, ...]:
        """Return the blocks of the denoiser that a list of numbers or a preset leaves out, and which so get 0."""
        named = self._named(blocks)
        return tuple(block for block in blocks.blocks if block not in named and block != BASE) if named else ()

    @property
    def has_list(self) -> bool:
        """True if there is a number for every block of a list."""
        return bool(self.numbers) or self.preset in _PRESETS

    def _named(self, blocks: BlockMap) -> tuple[str, ...]:
        """The blocks for which there is a number."""
        if self.preset is None and not self.numbers:
            return ()
        if self.preset is None:
            if len(self.numbers) not in blocks.lists:
                raise ConfigurationError(
                    f"{len(self.numbers)} block weights are given; allowed for {blocks.what} are {_allowed(blocks)}"
                )
            return blocks.lists[len(self.numbers)]
        if self.preset in _PRESETS and not blocks.is_unet:
            raise ConfigurationError(
                f"the preset {self.preset} names blocks of a U-Net; allowed for {blocks.what} are {', '.join(_WHOLE)}, "
                f"and "
                f"{_allowed(blocks)}"
            )
        return (BASE, *_SIXTEEN) if self.preset in _PRESETS else ()

    def _by_block(self, blocks: BlockMap) -> dict[str | None, float]:
        named = self._named(blocks)
        if self.preset is not None:
            numbers = [float(block == BASE or block in _PRESETS[self.preset]) for block in named]
        else:
            numbers = list(self.numbers)
        by_block: dict[str | None, float] = dict(zip(named, numbers, strict=False))
        return dict.fromkeys(self.without_weight(blocks), 0.0) | by_block


def selection(name: str, blocks: BlockMap) -> Callable[[str, Place], bool]:
    """Return the test of the layers that a name stands for.

    Args:
        name: A kind, a component, ``BASE`` for all text encoders, ``CLIP`` or ``T5`` for those of this kind, ``ALL``, a
            block, two blocks with ``-`` between them, or the beginning of a path, whole part by whole part; ``down.2``
            is short for ``down_blocks.2``, and ``double 0-18`` for 19 blocks.
        blocks: The places of the layers.

    Raises:
        ConfigurationError: When it names no layer.
    """
    selects = _selection(name, blocks)
    if not any(selects(layer, place) for layer, place in blocks.places.items()):
        groups = dict.fromkeys(place.paths[1][0] for place in blocks.places.values() if len(place.paths[1]) > 1)
        components = dict.fromkeys(place.paths[0][0] for place in blocks.places.values())
        raise ConfigurationError(
            f"{name!r} names no layer of {blocks.what}; known are {', '.join((*KINDS, 'ALL'))}{_block_names(blocks)}, "
            "and "
            f"beginnings of layers' names, part by part: {', '.join((*components, *groups))}"
        )
    return selects


def _selection(name: str, blocks: BlockMap) -> Callable[[str, Place], bool]:
    kind, upper = name.lower().replace("_", "-").removesuffix("s"), name.upper()
    kind = {"te": "text-encoder", "clip": "text-encoder", "conv": "convolution"}.get(kind, kind)
    if upper == "ALL":
        return lambda layer, place: True
    if upper in ENCODERS and any(blocks.encoder_block(layer) == upper for layer in blocks.places):
        return lambda layer, place: place.block == BASE and blocks.encoder_block(layer) == upper
    component = blocks.tags.get(name.lower(), name)
    if any(place.paths[0][0] == component for place in blocks.places.values()):
        return lambda layer, place: place.paths[0][0] == component
    if kind in KINDS:
        return lambda layer, place: kind in place.kinds
    if upper in blocks.blocks:
        return lambda layer, place: place.block == upper
    first, dash, last = upper.partition("-")
    if dash and first in blocks.blocks and last in blocks.blocks:
        places = sorted((blocks.blocks.index(first), blocks.blocks.index(last)))
        within = blocks.blocks[places[0] : places[1] + 1]
        return lambda layer, place: place.block in within
    parts = [part for part in re.split(r"[.\s]+", name) if part]
    return lambda layer, place: any(_begins(path, parts) for path in place.paths)


def _begins(path: tuple[str, ...], parts: list[str]) -> bool:
    if not parts or len(parts) > len(path):
        return False
    return all(_same(given, part, is_first=at == 0) for at, (given, part) in enumerate(zip(parts, path, strict=False)))


def _same(given: str, part: str, *, is_first: bool) -> bool:
    """True if a part as people write it is the part of a name: itself, a range of numbers, or short for blocks."""
    first, dash, last = given.partition("-")
    if dash and part.isdigit() and first.isdigit() and last.isdigit():
        return int(first) <= int(part) <= int(last)
    endings = ("", "_blocks", "_block", "_transformer_blocks") if is_first else ("",)
    return part in {given + ending for ending in endings}


def _block_names(blocks: BlockMap) -> str:
    if not blocks.blocks:
        return ""
    return f", blocks {blocks.blocks[0]}, {', '.join(blocks.blocks[1:3])} … {blocks.blocks[-1]}, ranges of these with -"


def number_text(number: float) -> str:
    """Return a number in the shortest text that is read as the same number."""
    return str(int(number)) if number == int(number) else repr(number)


def _number(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ConfigurationError(f"the weight of {name} is {text.strip()!r}; allowed are finite numbers")
    return number


def _allowed(blocks: BlockMap) -> str:
    if not blocks.lists:
        return "named parts only, such as text_encoder=0.5"
    shown = (f"{count} ({named[0]}, {named[1]}, … {named[-1]})" for count, named in sorted(blocks.lists.items()))
    return f"{' or '.join(shown)} numbers"
