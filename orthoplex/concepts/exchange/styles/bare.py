"""Names without a component: modules of the denoiser as its own code or diffusers names them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, final

from orthoplex.concepts.exchange.styles.style import Spelling, Style, covering, denoiser_paths, encoder_paths, is_shared
from orthoplex.concepts.layer_table import LayerTable, OriginalModule


@final
class Bare(Style):
    """``double_blocks.0.img_attn.qkv.lora_A.weight``; PEFT's own files and those of the models' makers."""

    name = "bare"
    description = "names without a component (PEFT, Black Forest Labs, reference trainers)"
    spelling: ClassVar[Spelling] = Spelling(".lora_A.weight", ".lora_B.weight")

    def read_names(self, table: LayerTable, version: str) -> Iterator[tuple[str, OriginalModule]]:
        """Yield paths of the denoiser; those of text encoders where one encoder alone has them."""
        own = dict(denoiser_paths(table, version)) | dict(table.original_modules(version))
        yield from own.items()
        shared = is_shared(table, version)
        for _, path, module in encoder_paths(table, version):
            if path not in own and not shared(path):
                yield path, module
                yield path.removeprefix("text_model."), module

    def written_names(self, table: LayerTable, version: str) -> Iterator[tuple[str, OriginalModule]]:
        """Yield original names of the denoiser; text encoders have no names in this style."""
        yield from covering(table, version)

    def fits(self, name: str) -> bool:
        """True for any name: this style is asked last."""
        return bool(name)
