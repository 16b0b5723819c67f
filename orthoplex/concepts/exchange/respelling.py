"""Keys of older or rarer programs, brought to the usual spelling before modules are looked up."""

from __future__ import annotations

import re
from collections.abc import Callable

_XLABS = {"1": "img_attn", "2": "txt_attn"}
_RULES: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    # PEFT's wrapper, of a model that may itself be wrapped
    (re.compile(r"^(base_model\.model\.)+"), ""),
    # diffusers' first files, of attention processors: attn1.processor.to_out_lora.up.weight
    (re.compile(r"\.processor\.to_out_lora\."), ".to_out.0.lora."),
    (re.compile(r"\.processor\.(to_[qkv]|add_[kv]_proj)_lora\."), r".\1.lora."),
    # XLabs' files of FLUX.1: single_blocks.0.processor.proj_lora.down.weight
    (re.compile(r"(single_blocks\.\d+)\.processor\.proj_lora\."), r"\1.linear2.lora."),
    # and double_blocks.0.processor.qkv_lora1.down.weight
    (
        re.compile(r"(double_blocks\.\d+)\.processor\.(qkv|proj)_lora([12])\."),
        lambda part: f"{part[1]}.{_XLABS[part[3]]}.{part[2]}.lora.",
    ),
)


def respelled(key: str) -> str:
    """Return a key in the usual spelling; most keys are in it already."""
    if ".processor." in key or key.startswith("base_model."):
        for pattern, replacement in _RULES:
            key = pattern.sub(replacement, key, count=1)
    return key
