r"""Syntax of other programs that is refused by name; each form with the text to write instead.

A backslash makes text of what follows it: ``\{`` is a brace.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import final

from orthoplex.errors import PromptError
from orthoplex.models.prompts.lora_tags import FILE_KINDS

_TEXT = re.compile(r"\\(?:\w+|.)|<[^<>\s:]*>", re.DOTALL)
"""No syntax of other programs: what is behind a backslash, and the tokens of concepts."""
_TOKEN_NAME = re.compile(r"[a-z0-9_-]{1,64}")
_TAG = re.compile(r"<\s*(?P<kind>[a-zA-Z][\w-]*)(?:\[[^\[\]<>]*\])?\s*:(?P<value>[^<>]*)>")
_SCHEDULE = re.compile(r"(?::\s*[+-]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+%)|(?<![0-9]):\s*[0-9]+)\s*$")
"""The end of ``[from:to:0.5]`` and ``[to:10]``; whole numbers behind a digit are times, ratios and verses."""
_EMBEDDINGS = ("embedding", "embed", "ti")
_READ_BY_GENERATE = "only the prompt of 'orthoplex generate' reads it"
_WORDS = "say in words where things are"
_CHOICE = "write one of its texts, one prompt for each choice"
_TAGS: Mapping[str, str] = {
    **dict.fromkeys(("random", "wildcard", "alternate", "alt", "fromto", "repeat"), _CHOICE),
    **dict.fromkeys(("region", "object", "segment", "mask", "area"), _WORDS),
    "hypernet": "leave it out; hypernetworks are not supported",
}
"""Kind of a tag in angle brackets to what to write."""
_SCHEDULED = "write one of its texts, or (words:0.9) for a weight"
_SIZE = "leave it out; pictures have the size of the base"
_OPTIONS = {
    "no": "pass its words as the negative prompt, --negative-prompt WORDS",
    "seed": "pass --seed beside the prompt",
    "steps": "pass --steps beside the prompt",
    "ar": _SIZE,
    "aspect": _SIZE,
}


_OPTION_NAMES = "|".join(
    (
        *_OPTIONS,
        *("aspect-ratio", "c", "chaos", "cfg", "creative", "cref", "cw", "draft", "exp", "fast", "hd", "height", "iw"),
        *("niji", "oref", "ow", "p", "profile", "q", "quality", "r", "raw", "relax", "repeat", "s", "sref", "stop"),
        *("style", "stylize", "sv", "sw", "test", "tile", "turbo", "uplight", "v", "version", "video", "w", "weird"),
        *("width", "negative", "negative-prompt", "cfg-scale", "sampler", "scheduler", "guidance", "strength"),
    )
)
"""Options of other programs; any other word behind two dashes is text."""
_NO_PLUS = r"(?<!\w)(?!(?:notepad|clang|lib\w*|\w*objc|gtk|canal|disney|google|paramount|tv|lgbt\w*)\+)"
"""Words that are written with a plus; a single letter, as in C++, is no weighted word either."""


@final
@dataclass(frozen=True)
class Form:
    """A form of syntax that is refused.

    Attributes:
        pattern: Its looks.
        name: Its name in errors.
        advice: The text to write instead, of the text that matched.
    """

    pattern: re.Pattern[str]
    name: str
    advice: Callable[[str], str]

    @staticmethod
    def of(pattern: str, name: str, advice: str | Callable[[str], str]) -> Form:
        """Return a form; its advice may be the same for all matches."""
        return Form(re.compile(pattern), name, advice if callable(advice) else lambda quoted: advice)


def _marked_word(quoted: str) -> str:
    """Advice for ``word++`` and ``word--``, which multiply a weight by 1.1 or 0.9 each."""
    word = quoted.rstrip("+-")
    marks = quoted[len(word) :]
    weight = (1.1 if marks[0] == "+" else 0.9) ** min(len(marks), 20)
    words = word if word[-1:].isalnum() or word.startswith("<") else "words"
    return rf"write ({words}:{weight:.2f}), or '{''.join(chr(92) + mark for mark in marks)}' for text"


def _option_advice(quoted: str) -> str:
    advice = _OPTIONS.get(quoted.lstrip("-–—").lower(), "leave it out; options stand beside the prompt")
    return rf"{advice} ('\{quoted}' is text)"


def _number_advice(quoted: str) -> str:
    number = quoted.strip(":")
    if number.startswith("-"):
        return "pass the words as the negative prompt, --negative-prompt WORDS"
    return f"write (words:{_weight(number)})"


FORMS = (
    Form.of(  # a title in capitals has further ones
        r"(?<![\w-])(?<![A-Z]{2}\s)(?<![A-Z]{2}\W\s)(?<![A-Z]{2}\W{2}\s)AND(?!\W{0,3}[A-Z]{2}|\s+(?:gate|operator)s?\b|[\w/-])",
        "two prompts at once",
        r"write 'and', or make a picture of each prompt ('\AND' is text)",
    ),
    Form.of(r"(?<![\w-])(?:ADDCOL|ADDROW|ADDCOMM|ADDBASE|COUPLE(?=\s*(?:MASK)?\())(?![\w-])", "a region", _WORDS),
    Form.of(r"(?<![\w-])(?:MASK|AREA|FEATHER|FILL)\(", "a region", _WORDS),
    Form.of(
        r"(?<![\w./])(?i:embedding):[^\s,:()\[\]<>]+",
        "the name of a file",
        lambda quoted: _file_advice(quoted.partition(":")[2], ()),
    ),
    Form.of(
        r"(?<![\w*/.-])__(?=[\w./*-]*[^\W_]|\*)[\w./*-]*[\w*]__(?!\w)",
        "a wildcard",
        r"write one of its texts, or '\_' for text",
    ),
    Form.of(r"\{[^{}]*\|[^{}]*\}", "a choice", rf"{_CHOICE} (a brace that is text is '\{{')"),
    Form.of(r"\{[^{}]*\}", "braces", r"write (words:1.05) for a weight, or '\{' for a brace that is text"),
    Form.of(
        rf"(?<!\S)(?:--(?i:{_OPTION_NAMES})(?=\s|$)|[–—](?:ar|aspect|v|s|niji|seed|chaos)(?=\s+[0-9]))",
        "an option",
        _option_advice,
    ),
    Form.of(
        r"(?<=[^\s:])(?:(?<![0-9])::(?:-?[0-9.]+)?|::)(?=[\s,()\[\]]|$)|(?<![\w.:])-?[0-9.]+::(?=[^\s0-9:])",
        "a weight",
        _number_advice,
    ),
    Form.of(
        r"(?<=[\")\]\0])\.(?:and|add|blend|swap|attend)\(|(?<=\w)\.swap\(",
        "a function",
        "make a picture of each prompt",
    ),
    Form.of(
        rf"{_NO_PLUS}\w{{2,}}\+{{2,}}(?![\w+])|{_NO_PLUS}[a-z]{{2,}}\+(?![\w+(])|(?:[\")]|\0+)\++(?![\w+(])",
        "a weight",
        _marked_word,
    ),
    Form.of(r"(?:\w+|[\")]|\0+)-{2,5}(?=\s*[,)]|\s*$)|(?:[\")]|\0+)-(?=\s*[,)]|\s*$)", "a weight", _marked_word),
    Form.of(
        r"\)(?:[0-9]?\.[0-9]+|[0-9]{1,2})(?![\w.])",
        "a weight behind its bracket",
        lambda quoted: f"write (words:{_weight(quoted[1:])})",
    ),
)


def check_foreign_syntax(prompt: str, names: Sequence[str], key: str = "prompt") -> None:
    """Refuse syntax of other programs, which would reach the text encoder as letters.

    Args:
        prompt: The prompt of the user.
        names: The names of the concepts that the base knows now.
        key: What the prompt is called in errors.

    Raises:
        PromptError: Names the first such form, and what to write instead.
    """
    searched = _TEXT.sub(lambda match: "\0" * len(match[0]), prompt)
    forms = (Form(_TAG, "a tag", lambda quoted: _tag_advice(quoted, names)), *FORMS)
    refused = [(match.span(), form.name, form.advice) for form in forms for match in form.pattern.finditer(searched)]
    refused += _square_brackets(searched)
    if refused:
        (start, end), name, advice = min(refused, key=lambda item: item[0][0])
        quoted = prompt[start:end]
        raise PromptError(f"{key} holds '{' '.join(quoted.split())}', {name} in other programs; {advice(quoted)}")


def _square_brackets(prompt: str) -> Iterator[tuple[tuple[int, int], str, Callable[[str], str]]]:
    """Yield where ``[from:to:0.5]`` and ``[a|b]`` stand, their names, and what to write."""
    opened: list[int] = []
    with_bar: set[int] = set()
    for place, letter in enumerate(prompt):
        if letter == "[":
            opened.append(place)
        elif letter == "|" and opened:
            with_bar.add(opened[-1])
        elif letter == "]" and opened:
            start = opened.pop()
            if start in with_bar:
                yield (start, place + 1), "an alternation", lambda quoted: _CHOICE
            elif _SCHEDULE.search(prompt, start, place):
                yield (start, place + 1), "a schedule", lambda quoted: _SCHEDULED


def _tag_advice(quoted: str, names: Sequence[str]) -> str:
    match = _TAG.fullmatch(quoted)
    kind, value = (match["kind"], match["value"]) if match else ("", "")
    if kind.lower() in (*FILE_KINDS, *_EMBEDDINGS):
        name, *further = (part.strip() for part in value.split(":"))
        numbers = [part.rpartition("=")[2] for part in further]
        advice = _file_advice(name, [number for number in numbers if _is_finite(number)])
        return f"{_READ_BY_GENERATE}; {advice}" if kind.lower() in FILE_KINDS else advice
    if kind.lower() in names:
        return f"write (<{kind.lower()}>:{_weight(value.strip())}) for a weight, or <{kind.lower()}>"
    return _TAGS.get(kind.lower(), "leave it out")


def _file_advice(name: str, strengths: Sequence[str]) -> str:
    """Advice for a concept's file that stands in a prompt; it works when it is typed."""
    name = " ".join(name.split())
    if not name:
        return "pass --concept FILE and write <NAME>"
    file = f"./{name}" if name.startswith("-") else name
    if strengths or "@" in name:
        file += f"@{strengths[0] if strengths else 1}"
    token = PurePosixPath(name.replace("\\", "/")).name.removesuffix(".safetensors").lower()
    call = f"<{token}>" if _TOKEN_NAME.fullmatch(token) else "the trigger that 'orthoplex inspect FILE' shows"
    return f"pass --concept {shlex.quote(file)} and write {call}"


def _weight(number: str) -> str:
    """A weight that prompts may have: this one, or an example."""
    return number if re.fullmatch(r"[0-9]{0,2}\.?[0-9]+", number) else "1.4"


def _is_finite(number: str) -> bool:
    try:
        return math.isfinite(float(number))
    except ValueError:
        return False
