"""The places of layers in their model: blocks, kinds and paths, by which people name parts of a file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import final

from orthoplex.concepts.layer_table import LayerTable, component_of, layer_tables

BASE = "BASE"
"""The text encoders, as LoRA Block Weight calls them."""
_BLOCKS = (
    (re.compile(r"input_blocks\.(\d+)\."), "IN{:02}"),
    (re.compile(r"middle_block\."), "M00"),
    (re.compile(r"output_blocks\.(\d+)\."), "OUT{:02}"),
    (re.compile(r"double_blocks\.(\d+)\."), "D{:02}"),
    (re.compile(r"single_blocks\.(\d+)\."), "S{:02}"),
    (re.compile(r"final_layer\."), "OUT"),
    (re.compile(r"\w+_in(\.|$)"), "IN"),
    (re.compile(r"(time_embed|label_emb)\."), "IN00"),
    (re.compile(r"out\.\d+$"), "OUT"),
)
"""Start of an original module's name, and the name of its block in LoRA Block Weight."""
_KINDS = {
    "attention": {
        "attn",
        "attn1",
        "attn2",
        "attention",
        "self_attn",
        "cross_attn",
        "self_attention",
        "img_attn",
        "txt_attn",
    },
    "self-attention": {"attn1", "self_attn"},
    "cross-attention": {"attn2", "cross_attn"},
    "feed-forward": {"ff", "ffn", "ff_context", "mlp", "img_mlp", "txt_mlp", "feed_forward", "proj_mlp"},
}
"""Kind of a denoiser's layer to whole parts of its name, one of which it has."""
_FUSED = (
    re.compile(r"\w+\.single_transformer_blocks\.\d+\.(attn\.)?(proj_out|to_out|to_qkv_mlp_proj)$"),
    ("attention", "feed-forward"),
)
"""Layers of FLUX's single blocks that compute a part of both, and are of both kinds: each name means them."""
_EMBEDDERS = {"t_embedder", "time_embed", "t_embedding"}
"""Parts of a name that say that ``mlp`` is no block's feed-forward network."""
ENCODERS = ("CLIP", "T5")
"""Text encoders of FLUX.1 in LoRA Block Weight's list."""
KINDS = (*_KINDS, "convolution", "text-encoder")


@final
@dataclass(frozen=True)
class Place:
    """The place of a layer.

    Attributes:
        paths: Its name in parts, with and without the component, and the name of its original module.
        block: Its block, such as ``IN04``, ``D07``, ``layers.3`` or ``BASE``; None outside of all blocks.
        kinds: Those of ``KINDS`` that it is of.
    """

    paths: tuple[tuple[str, ...], ...]
    block: str | None
    kinds: frozenset[str]


@final
@dataclass(frozen=True, eq=False)
class BlockMap:
    """The places of the layers of one version of a family, and of further layers of a file.

    Attributes:
        what: The version, in errors.
        places: Layer to its place.
        blocks: Every block in the order of the model, ``BASE`` first.
        lists: Lists of blocks for which people write numbers alone, by their length.
        is_unet: True if numbers follow LoRA Block Weight's lists for U-Nets: a block that a list leaves out gets 0.
        tags: Short name of a text encoder, such as ``te1``, to its component.
    """

    what: str
    places: Mapping[str, Place]
    blocks: tuple[str, ...]
    lists: Mapping[int, tuple[str, ...]]
    is_unet: bool
    tags: Mapping[str, str]

    def encoder_block(self, layer: str) -> str | None:
        """Return ``CLIP`` or ``T5`` for a layer of such a text encoder, as LoRA Block Weight calls them for FLUX."""
        tags = [tag for tag, component in self.tags.items() if component == component_of(layer)]
        named = [name for name in ENCODERS if any(tag.upper().startswith(name) for tag in tags)]
        return named[0] if named else None


def block_map(family: str | None, version: str | None, layers: Iterable[str], windows: Iterable[str] = ()) -> BlockMap:
    """Return the places of all layers of a version and of a file.

    Args:
        family: See ``LoraFile``.
        version: See ``LoraFile``.
        layers: The file's layers; norms too, which are no layers of a version.
        windows: The file's convolutions whose window is larger than one number.
    """
    table = layer_tables().get(family or "")
    known, blocks, wide = _table_blocks(family or "", version) if table else ({}, (), frozenset())
    named = dict.fromkeys((*known, *layers))
    originals = {} if table is None or version is None else _original_names(table, version)
    encoders = set() if table is None else {name for name, role in table.components.items() if role == "text encoder"}
    near = _near(known)
    tags = _tags(table)
    places = {}
    for layer in named:
        is_encoder = component_of(layer) in encoders or (table is None and layer.startswith("text_encoder"))
        block = (
            BASE
            if is_encoder
            else known.get(layer.replace(".conv_norm_out", ".conv_out")) or near_block(layer, near) or _group(layer)
        )
        paths = [tuple(layer.split(".")), tuple(layer.split(".")[1:])]
        if layer in originals:
            paths.append(tuple(originals[layer].split(".")))
        places[layer] = Place(tuple(paths), block, _kinds(layer, is_encoder, layer in wide or layer in windows))
    return BlockMap(
        version or family or "files of no known family", places, blocks, *_lists(places, blocks, tags), tags
    )


def near_block(layer: str, near: Mapping[str, str | None]) -> str | None:
    """Return the block of the layers whose names begin like that of a layer which no table has, such as a norm."""
    prefix = layer
    while "." in prefix:
        prefix = prefix.rpartition(".")[0]
        if prefix in near:
            return near[prefix]
    return None


def _near(known: Mapping[str, str | None]) -> dict[str, str | None]:
    """Beginnings of layers' names to the one block of all of them; None if there are several."""
    near: dict[str, str | None] = {}
    for layer, block in known.items():
        prefix = layer
        while "." in prefix:
            prefix = prefix.rpartition(".")[0]
            near[prefix] = block if near.get(prefix, block) == block else None
    return near


@cache
def _table_blocks(family: str, version: str | None) -> tuple[dict[str, str | None], tuple[str, ...], frozenset[str]]:
    """Layer to block of a version, all blocks in order, and the convolutions with a window."""
    table = layer_tables()[family]
    if version is None or version not in table.versions:
        return {}, (), frozenset()
    originals = _original_names(table, version)
    known: dict[str, str | None] = {}
    for layer in table.versions[version]:
        if table.components.get(component_of(layer)) == "text encoder":
            known[layer] = BASE
        else:
            known[layer] = _block(originals.get(layer, "")) or _group(layer)
    blocks = tuple(dict.fromkeys(block for block in known.values() if block))
    if "M00" in blocks:  # a U-Net's last layer belongs to its last block, as in Merge Block Weighted
        last = max(block for block in blocks if block.startswith("OUT"))
        known = {layer: last if block == "OUT" else block for layer, block in known.items()}
        blocks = tuple(block for block in blocks if block != "OUT")
    groups = list(dict.fromkeys(_name_and_number(block)[0] for block in blocks))
    wide = frozenset(
        layer for layer, shape in table.versions[version].items() if len(shape) == 4 and shape[2:] != (1, 1)
    )
    return known, (BASE, *sorted((block for block in blocks if block != BASE), key=partial(_position, groups))), wide


def _original_names(table: LayerTable, version: str) -> dict[str, str]:
    return {layer: name for name, module in table.original_modules(version).items() for layer in module.layers}


def _block(original: str) -> str | None:
    for start, name in _BLOCKS:
        match = start.match(original)
        if match:
            return name.format(*(int(number) for number in match.groups() if number and number.isdigit()))
    return None


def _group(layer: str) -> str | None:
    """``layers.3`` for ``transformer.layers.3.attention.to_q``."""
    parts = layer.split(".")
    return f"{parts[1]}.{parts[2]}" if len(parts) > 3 and parts[2].isdigit() else None


def _position(groups: Sequence[str], block: str) -> tuple[int, int, int]:
    """Sort key of blocks: in the order in which a picture passes them; groups without a short name as in the table."""
    order = ("IN", "M", "D", "S", "", "OUT")
    name, number = _name_and_number(block)
    return order.index(name if name in order else ""), groups.index(name), number


def _name_and_number(block: str) -> tuple[str, int]:
    match = re.fullmatch(r"(.+?)\.?(\d*)", block)
    return (match[1], int(match[2] or -1)) if match else (block, -1)


def _lists(
    places: Mapping[str, Place], blocks: tuple[str, ...], tags: Iterable[str]
) -> tuple[dict[int, tuple[str, ...]], bool]:
    """Lists by length: of a U-Net, all blocks or those with attention; else all numbered ones or the main series."""
    if "M00" in blocks:
        attending = {place.block for place in places.values() if "attention" in place.kinds}
        short = tuple(block for block in blocks if block == BASE or block in attending)
        return {len(short): short, len(blocks): blocks}, True
    numbered = tuple(block for block in blocks if block[-1].isdigit())
    groups = [_name_and_number(block)[0] for block in numbered]
    main = tuple(block for block in numbered if _name_and_number(block)[0] == max(groups, key=groups.count))
    series = [numbered, *([main] if {"D", "S"}.isdisjoint(groups) else [])]
    lists = {len(one) + len(base): (*base, *one) for one in reversed(series) for base in ((), (BASE,)) if one}
    if (
        numbered
        and {"IN", "OUT"} <= {*blocks}
        and all(any(tag.upper().startswith(name) for tag in tags) for name in ENCODERS)
    ):
        lists[len(numbered) + 4] = (*ENCODERS, "IN", *numbered, "OUT")  # LoRA Block Weight's list of FLUX.1
    return lists, False


def _kinds(layer: str, is_encoder: bool, is_window: bool) -> frozenset[str]:
    if is_encoder:
        return frozenset({"text-encoder"})
    parts = set(layer.split("."))
    kinds = set() if parts & _EMBEDDERS else {kind for kind, names in _KINDS.items() if parts & names}
    if _FUSED[0].match(layer):
        kinds |= set(_FUSED[1])
    return frozenset(kinds | ({"convolution"} if is_window else set()))


def _tags(table: LayerTable | None) -> dict[str, str]:
    if table is None:
        return {}
    return {tag: encoder for encoder, tags in table.encoder_tags.items() for tag in tags.values()}
