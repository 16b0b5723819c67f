"""Diffusers' names: the component and the layer's path with dots, which are also our own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, final

from orthoplex.concepts.exchange.styles.style import Spelling, Style
from orthoplex.concepts.layer_table import LayerTable, OriginalModule

_COMPONENTS = ("unet.", "transformer.", "text_encoder", "text_encoders_2", "prior.")
_SHORTENED = ".text_model."
"""A level of CLIP's names that text encoders of newer transformers no longer have."""


@final
class Diffusers(Style):
    """``unet.down_blocks.0.….attn2.to_k.lora_A.weight``; alpha stands in the metadata, or is the rank."""

    name = "diffusers"
    description = "diffusers and PEFT (load_lora_weights; SimpleTuner, older Orthoplex)"
    spelling: ClassVar[Spelling] = Spelling(".lora_A.weight", ".lora_B.weight")

    def read_names(self, table: LayerTable, version: str) -> Iterator[tuple[str, OriginalModule]]:
        """Yield our names, and those of text encoders without ``text_model``."""
        for layer in table.weights[version]:
            module = OriginalModule((layer,))
            yield layer, module
            if _SHORTENED in layer:
                yield layer.replace(_SHORTENED, ".", 1), module

    def written_names(self, table: LayerTable, version: str) -> Iterator[tuple[str, OriginalModule]]:
        """Yield our names."""
        for layer in table.weights[version]:
            yield layer, OriginalModule((layer,))

    def fits(self, name: str) -> bool:
        """True for the name of a component and a dot."""
        return name.startswith(_COMPONENTS)
