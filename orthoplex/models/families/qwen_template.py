"""The template in which Qwen-Image, and models that descend from it, read a prompt."""

from __future__ import annotations

from orthoplex.models.words.prompt_forms import Templated

NUM_BEFORE = 34
"""Tokens in front of a prompt; denoisers do not read their states."""
NUM_BEHIND = 5
"""Tokens behind it."""
_BEFORE = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial "
    "relationships of the objects and background:<|im_end|>\n<|im_start|>user\n"
)
_BEHIND = "<|im_end|>\n<|im_start|>assistant\n"


def template(max_length: int, *, filled_within: bool = False) -> Templated:
    """Return the form of prompts.

    Args:
        max_length: The positions of every prompt, the template's included.
        filled_within: True if what fills up stands in front of the text behind a prompt.
    """
    return Templated(_BEFORE, _BEHIND, max_length, NUM_BEFORE, filled_within)
