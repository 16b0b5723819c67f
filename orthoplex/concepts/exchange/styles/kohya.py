"""kohya's names: a prefix of the component and the layer's path, with underscores in the place of dots."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, final

from orthoplex.concepts.exchange.styles.style import (
    Spelling,
    Style,
    covering,
    denoiser_paths,
    encoder_paths,
    flat,
    is_shared,
)
from orthoplex.concepts.layer_table import LayerTable, OriginalModule

_DENOISER = ("lora_unet_", "lora_transformer_", "lycoris_")
"""Prefixes of the denoiser: sd-scripts and musubi, OneTrainer's older files, LyCORIS."""
_ENCODERS = ("te", "te1", "te2", "te3")
_PREFIXES = (*_DENOISER, "lora_te")


@final
class Kohya(Style):
    """``lora_unet_down_blocks_0_…_attn2_to_k.lora_down.weight``; without dots, so each is looked up in a table."""

    name = "kohya"
    description = "kohya (sd-scripts, musubi-tuner, OneTrainer, LyCORIS; ComfyUI, Forge and most programs read it)"
    spelling: ClassVar[Spelling] = Spelling(".lora_down.weight", ".lora_up.weight", ".alpha", ".diff", ".diff_b")
    bundles_embeddings = True

    def read_names(self, table: LayerTable, version: str) -> Iterator[tuple[str, OriginalModule]]:
        """Yield names after every prefix, of diffusers paths and of original names."""
        for prefix in _DENOISER:
            for path, module in (*denoiser_paths(table, version), *table.original_modules(version).items()):
                yield prefix + flat(path), module
        shared = is_shared(table, version)
        for component, path, module in encoder_paths(table, version):
            for prefix in _encoder_prefixes(table, component, shared=shared(path)):
                yield prefix + flat(path), module

    def written_names(self, table: LayerTable, version: str) -> Iterator[tuple[str, OriginalModule]]:
        """Yield the names that kohya's own trainer gives in this family."""
        is_original = table.kohya_names == "original"
        for path, module in covering(table, version) if is_original else denoiser_paths(table, version):
            yield _DENOISER[0] + flat(path), module
        for component, path, module in encoder_paths(table, version):
            for prefix in _encoder_prefixes(table, component, shared=True):
                yield prefix + flat(path), module

    def fits(self, name: str) -> bool:
        """True for a kohya prefix."""
        return name.startswith(_PREFIXES) and "." not in name


def _encoder_prefixes(table: LayerTable, component: str, *, shared: bool) -> tuple[str, ...]:
    """Prefixes of a text encoder, its own first; where no other encoder has the layer, programs number them freely."""
    tag = table.encoder_tags.get(component, {}).get("kohya")
    if tag is None:
        return ()
    return tuple(f"lora_{each}_" for each in ((tag,) if shared else dict.fromkeys((tag, *_ENCODERS))))
