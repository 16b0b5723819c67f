"""Concept tokens in prompts: they are checked, and runs of a concept's vectors become its name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from orthoplex.errors import PromptError

_TOKEN = re.compile(r"<([^<>\s]*)>(_[1-9][0-9]*)?")
_ALMOST = re.compile(r"<\s*([\w-]+)\s*>?|(?<![\w<-])([\w-]+)\s*>")
"""A token, or what was meant to be one: a space inside, a bracket forgotten."""


def concept_names(tokens: Sequence[str]) -> tuple[str, ...]:
    """The names in a list of tokens: ``<anna>`` and ``<anna>_1`` are both ``anna``; sorted."""
    return tuple(sorted({token[1 : token.index(">")] for token in tokens}))


def named_concepts(prompt: str) -> tuple[str, ...]:
    """The names that a checked prompt calls, sorted."""
    return tuple(sorted({match[1] for match in _TOKEN.finditer(prompt)}))


def check_spelling(prompt: str, tokens: Sequence[str], *, absent: Sequence[str] = (), key: str = "prompt") -> None:
    """Refuse ``<Anna>``, ``< anna>`` and ``<anna`` where ``anna`` is loaded.

    Args:
        prompt: The prompt of the user.
        tokens: The concept tokens that the base knows now.
        absent: Names of concepts at strength 0.
        key: What the prompt is called in errors.

    Raises:
        PromptError: Says what to write.
    """
    names = {*concept_names(tokens), *absent}
    for match in _ALMOST.finditer(prompt):
        name = (match[1] or match[2]).lower()
        if name in names and match[0] != f"<{name}>":
            raise PromptError(f"{key} holds '{' '.join(match[0].split())}', which names no concept; write <{name}>")


def check_names(prompt: str, tokens: Sequence[str], key: str) -> None:
    """Refuse names of concepts that are not loaded, and single vectors of those that are.

    Args:
        prompt: A prompt as ``contract_prompt`` returns it.
        tokens: The concept tokens that the base knows now.
        key: What the prompt is called in errors.

    Raises:
        PromptError: Names what is loaded, or says what to write.
    """
    for match in _TOKEN.finditer(prompt):
        name, number = match[1], match[2]
        if number is not None and match[0] in tokens:
            raise PromptError(f"{key} names '{match[0]}', which is one vector of a concept; write <{name}>")
        if f"<{name}>" not in tokens or number is not None:
            names = ", ".join(f"<{other}>" for other in concept_names(tokens)) or "none"
            raise PromptError(f"{key} names '{match[0]}', which is not loaded; known concepts: {names}")


def without_concepts(prompt: str, names: Sequence[str]) -> str:
    """Leave out the tokens of some concepts, such as those merged at strength 0: ``<anna> person`` is ``person``.

    Args:
        prompt: The prompt of the user.
        names: Names of concepts.
    """
    for name in names:
        prompt = re.sub(rf"<{re.escape(name)}>(?:_[1-9][0-9]*)?[ ]?", "", prompt)
    return prompt


def with_words(prompt: str, words: Mapping[str, str]) -> str:
    """Write rare words in the place of the tokens of concepts that have one.

    Args:
        prompt: Any text.
        words: Name of a concept to its rare word.
    """
    for name, word in words.items():
        prompt = re.sub(rf"(?<=\w)(?=<{re.escape(name)}>)|(?<=<{re.escape(name)}>)(?=\w)", " ", prompt)
        prompt = prompt.replace(f"<{name}>", word)
    return prompt


def contract_prompt(prompt: str, tokens: Sequence[str]) -> str:
    """Write every full run ``<name> <name>_1 …`` as ``<name>``, which a diffusers pipeline expands itself.

    A digit straight behind it is set apart, so that it does not become one of the last vector's number.

    Args:
        prompt: The prompt of the user.
        tokens: The concept tokens that the base knows now.
    """
    for name in concept_names(tokens):
        run = re.escape(" ".join(_vectors(name, tokens)))
        prompt = re.sub(rf"{run}(?!_?[0-9])", f"<{name}>", prompt)
        prompt = re.sub(rf"<{re.escape(name)}>(?=[0-9])", f"<{name}> ", prompt)
    return prompt


def _vectors(name: str, tokens: Sequence[str]) -> list[str]:
    """The tokens of one concept in the order of their numbers."""
    more = [token for token in tokens if token.startswith(f"<{name}>_")]
    return [f"<{name}>", *sorted(more, key=lambda token: int(token.rpartition("_")[2]))]
