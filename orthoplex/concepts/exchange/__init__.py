"""LoRA files of other programs: their names and numbers, both ways.

Names are imported when they are first asked for: a header is read without torch.
"""

from typing import TYPE_CHECKING

from orthoplex.exports import exports

if TYPE_CHECKING:
    from orthoplex.concepts.exchange.lora_file import LoraFile
    from orthoplex.concepts.exchange.reading import lora_of_concept, read_lora
    from orthoplex.concepts.exchange.styles import STYLES
    from orthoplex.concepts.exchange.writing import write_lora

__getattr__ = exports(
    __name__,
    {
        "LoraFile": "lora_file",
        "STYLES": "styles",
        "lora_of_concept": "reading",
        "read_lora": "reading",
        "write_lora": "writing",
    },
)

__all__ = ["STYLES", "LoraFile", "lora_of_concept", "read_lora", "write_lora"]
