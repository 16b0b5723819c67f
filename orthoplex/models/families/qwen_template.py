"""The template in which Qwen-Image, and models that descend from it, read a prompt."""

from __future__ import annotations

from typing import Any

from orthoplex.models.families.flow_check import check_flow_reader, check_template
from orthoplex.models.words.prompt_forms import Templated
from orthoplex.models.words.words import Reader

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


def template_reader(pipeline: Any, max_length: int, *, filled_within: bool = False) -> Reader:  # noqa: ANN401
    """Return the language model of a pipeline with its tokenizer.

    Args:
        pipeline: Of diffusers.
        max_length: The positions behind the template's beginning, of which the tokenizer may allow fewer.
        filled_within: See ``template``.
    """
    longest = min(max_length + NUM_BEFORE, pipeline.tokenizer.model_max_length)
    return Reader(pipeline, form=template(longest, filled_within=filled_within))


def check_template_reader(reader: Reader) -> None:
    """Refuse a tokenizer that makes no prompt of the template, or another number of tokens of it.

    Raises:
        BaseModelError: See ``check_flow_reader`` and ``check_template``.
    """
    check_flow_reader(reader)
    if isinstance(reader.form, Templated):
        check_template(reader, reader.form, NUM_BEHIND)
