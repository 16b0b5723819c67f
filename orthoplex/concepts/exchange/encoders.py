"""The text encoders of a version as embeddings name them; read without torch."""

from __future__ import annotations

from collections.abc import Mapping

from orthoplex.concepts.exchange.embedding_keys import CLIP_ENCODERS, EncoderKeys, encoder_keys
from orthoplex.concepts.layer_table import LayerTable, layer_table, layer_tables

_QUERIES = (".q_proj", ".SelfAttention.q")
"""Layers that are as wide as a text encoder's embeddings."""


def encoders_of(version: str | None) -> Mapping[str, EncoderKeys]:
    """Return the keys and widths of a version's text encoders; those of Stable Diffusion if nothing tells them.

    Args:
        version: Such as ``sdxl``; None if it is not known.
    """
    table = None if version is None else layer_table(version)
    if table is None or version is None:
        return _clip_encoders()
    names = {encoder: tags["comfy"] for encoder, tags in table.encoder_tags.items() if "comfy" in tags}
    return encoder_keys(names, _widths(table, version)) if names else _clip_encoders()


def _clip_encoders() -> Mapping[str, EncoderKeys]:
    """Those of Stable Diffusion, of every version that has a width of its own."""
    table = layer_tables()["stable_diffusion"]
    widths = {_widths(table, version)["text_encoder"]: None for version in table.versions}
    first = CLIP_ENCODERS["text_encoder"]
    return {**CLIP_ENCODERS, "text_encoder": EncoderKeys(first.names, tuple(dict.fromkeys((*first.widths, *widths))))}


def _widths(table: LayerTable, version: str) -> dict[str, int]:
    widths: dict[str, int] = {}
    for layer, shape in table.versions[version].items():
        if layer.endswith(_QUERIES):
            widths.setdefault(layer.partition(".")[0], shape[1])
    return widths
