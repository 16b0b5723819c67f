r"""Tags that name LoRA files in a prompt, as AUTOMATIC1111's program and SwarmUI read them: ``<lora:anna:0.8>``.

Two numbers are read as SwarmUI does: the strength of the denoiser, then that of the text encoders. AUTOMATIC1111's
program has them the other way round; ``te=0.5`` and ``unet=0.8`` say which is which. A backslash makes text of a tag.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import final

from orthoplex.errors import PromptError

FILE_KINDS = ("lora", "lyco", "locon", "loha", "lokr", "dora", "lycoris")
"""Kinds of tags that name a LoRA file."""
_TAG = re.compile(rf"<\s*(?:{'|'.join(FILE_KINDS)})\s*:(?P<value>[^<>]*)>", re.IGNORECASE)
_ESCAPED = re.compile(r"\\.", re.DOTALL)
_WEIGHT_END = re.compile(r"(?::[^()\[\]:,]*)?\)")
"""The end of ``(words)`` and ``(words:1.2)``."""
_END = re.compile(rf"$|\]|{_WEIGHT_END.pattern}")
_ALLOWED = (
    "allowed are <lora:NAME>, <lora:NAME:0.8>, <lora:NAME:0.8:0.5> (the second is the text encoder's), te= and unet="
)


@final
@dataclass(frozen=True)
class LoraTag:
    """A LoRA file that a prompt names.

    Attributes:
        name: The file's name as written, without the suffix or with it, perhaps with folders.
        strength: That of all layers but the text encoders'.
        text_strength: That of the text encoders' layers.
        is_ambiguous: True for two different numbers without ``te=`` and ``unet=``, which programs read differently.
    """

    name: str
    strength: float
    text_strength: float
    is_ambiguous: bool = False

    def plus(self, other: LoraTag) -> LoraTag:
        """Return a tag with the name of this one and the sum of both strengths."""
        return LoraTag(
            self.name,
            self.strength + other.strength,
            self.text_strength + other.text_strength,
            self.is_ambiguous or other.is_ambiguous,
        )


def read_lora_tags(prompt: str) -> tuple[str, tuple[LoraTag, ...]]:
    """Return a prompt without its tags that name LoRA files, and the tags.

    A name that is there several times has the sum of the strengths, as in the programs that the tags come from. A
    weight that is left without words goes with its tag, and so does a comma that would divide nothing.

    Args:
        prompt: The prompt of the user.

    Raises:
        PromptError: If a tag has no name, a strength that is no finite number, or an option that is not read; names the
            tag, and what is allowed.
    """
    tags: dict[str, LoraTag] = {}
    rest = prompt
    while match := _TAG.search(masked := _ESCAPED.sub(lambda escaped: "\0" * len(escaped[0]), rest)):
        tag = _read(" ".join(match[0].split()), match["value"])
        tags[tag.name] = tags[tag.name].plus(tag) if tag.name in tags else tag
        rest = _without(rest, masked, *match.span())
    return rest.strip() if tags else prompt, tuple(tags.values())


def _without(prompt: str, masked: str, start: int, end: int) -> str:
    """A prompt without a part, a weight around nothing else, and a comma that would divide nothing."""
    while True:
        left, right = masked[:start].rstrip(), masked[end:].lstrip()
        behind = len(masked) - len(right)
        weight = _WEIGHT_END.match(right)
        if left.endswith("(") and weight:
            start, end = len(left) - 1, behind + weight.end()
        elif left.endswith("[") and right.startswith("]"):
            start, end = len(left) - 1, behind + 1
        elif right.startswith(",") and (not left or left[-1] in ",(["):
            end = behind + 1
        elif left.endswith(",") and _END.match(right):
            start = len(left) - 1
        else:
            is_edge = left.endswith(("(", "[")) or right.startswith(",") or _END.match(right)
            blank = "" if is_edge else masked[len(left) : start] or masked[end:behind]
            return prompt[: len(left)] + blank + prompt[behind:]


def _read(tag: str, value: str) -> LoraTag:
    name, *options = (" ".join(part.split()) for part in value.split(":"))
    if not name:
        raise PromptError(f"prompt holds '{tag}', which names no file; {_ALLOWED}")
    positional: list[float] = []
    named: dict[str, float] = {}
    for option in options:
        key, separator, text = option.rpartition("=")
        number = _number(text)
        is_known = key.strip().lower() in ("te", "unet") if separator else len(positional) < 2
        if number is None or not is_known or key.strip().lower() in named:
            raise PromptError(f"prompt holds '{tag}', whose '{option}' is not read; {_ALLOWED}")
        if separator:
            named[key.strip().lower()] = number
        else:
            positional.append(number)
    if len(positional) == 2 and named:
        raise PromptError(f"prompt holds '{tag}', which has two numbers and te= or unet=; {_ALLOWED}")
    first = positional[0] if positional else 1.0
    strength = named.get("unet", first)
    text_strength = named.get("te", positional[1] if len(positional) == 2 else first)
    return LoraTag(name, strength, text_strength, len(positional) == 2 and strength != text_strength)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
