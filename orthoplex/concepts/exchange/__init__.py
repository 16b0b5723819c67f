"""LoRA files of other programs: their names and numbers, both ways.

Names are imported when they are first asked for: a header is read without torch.
"""

from typing import TYPE_CHECKING

from orthoplex.exports import exports

if TYPE_CHECKING:
    from orthoplex.concepts.exchange.lora_file import LoraFile
    from orthoplex.concepts.exchange.reading import lora_of_concept, read_lora
    from orthoplex.concepts.exchange.styles import STYLES
    from orthoplex.concepts.exchange.summary import LoraSummary, lora_summary
    from orthoplex.concepts.exchange.writing import write_lora

__getattr__ = exports(
    __name__,
    {
        "LoraFile": "lora_file",
        "LoraSummary": "summary",
        "STYLES": "styles",
        "lora_of_concept": "reading",
        "lora_summary": "summary",
        "read_lora": "reading",
        "write_lora": "writing",
    },
)

__all__ = ["STYLES", "LoraFile", "LoraSummary", "lora_of_concept", "lora_summary", "read_lora", "write_lora"]
