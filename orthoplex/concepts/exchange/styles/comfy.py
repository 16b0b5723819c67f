"""ComfyUI's names: ``diffusion_model`` and the name of the module in the model's own code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, final

from orthoplex.concepts.exchange.styles.style import Spelling, Style, covering, denoiser_paths, encoder_paths
from orthoplex.concepts.layer_table import LayerTable, OriginalModule

_DENOISER = "diffusion_model."


@final
class Comfy(Style):
    """``diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight``; queries, keys and values may be one module.

    No alpha is written: it is the rank, and diffusers refuses it beside these names in several families.
    """

    name = "comfy"
    description = "ComfyUI (ai-toolkit, diffusion-pipe, OneTrainer's COMFY)"
    spelling: ClassVar[Spelling] = Spelling(".lora_A.weight", ".lora_B.weight", None, ".diff", ".diff_b")
    bundles_embeddings = True

    def read_names(self, table: LayerTable, version: str) -> Iterator[tuple[str, OriginalModule]]:
        """Yield original names and diffusers paths of the denoiser, and names of text encoders."""
        for path, module in (*denoiser_paths(table, version), *table.original_modules(version).items()):
            yield _DENOISER + path, module
        yield from _encoders(table, version)

    def written_names(self, table: LayerTable, version: str) -> Iterator[tuple[str, OriginalModule]]:
        """Yield original names, and names of text encoders."""
        for path, module in covering(table, version):
            yield _DENOISER + path, module
        yield from _encoders(table, version)

    def fits(self, name: str) -> bool:
        """True for the denoiser's prefix, or that of text encoders."""
        return name.startswith((_DENOISER, "text_encoders."))


def _encoders(table: LayerTable, version: str) -> Iterator[tuple[str, OriginalModule]]:
    for component, path, module in encoder_paths(table, version):
        tag = table.encoder_tags.get(component, {}).get("comfy")
        if tag is not None:
            yield f"text_encoders.{tag}.transformer.{path}", module
