"""Concept tokens in prompts: they are checked, and spelled out as all their vectors."""

from __future__ import annotations

import re
from collections.abc import Sequence

from orthoplex.errors import PromptError
from orthoplex.generation.foreign_syntax import check_foreign_syntax

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


def expand_prompt(prompt: str, tokens: Sequence[str]) -> str:
    """Replace every ``<name>`` by all tokens of that concept: ``<name> <name>_1 …``.

    A full run that is spelled out already (``<name> <name>_1 …``) is read as ``<name>``; a part of one is refused,
    because the concept is all of its vectors.

    Args:
        prompt: The prompt of the user.
        tokens: The concept tokens that the base knows now.

    Raises:
        PromptError: For a ``<name>`` that is not known, a single vector of a concept, and syntax of other programs such
            as ``<lora:name:0.8>``; says what to write instead.
    """
    check_foreign_syntax(prompt, concept_names(tokens))

    def spelled_out(match: re.Match[str]) -> str:
        name, number = match[1], match[2]
        if number is not None and match[0] in tokens:
            raise PromptError(f"prompt names '{match[0]}', which is one vector of a concept; write <{name}>")
        if f"<{name}>" not in tokens or number is not None:
            names = ", ".join(f"<{other}>" for other in concept_names(tokens)) or "none"
            raise PromptError(f"prompt names '{match[0]}', which is not loaded; known concepts: {names}")
        return " ".join(_vectors(name, tokens))

    return _TOKEN.sub(spelled_out, contract_prompt(prompt, tokens))


def without_concepts(prompt: str, names: Sequence[str]) -> str:
    """Leave out the tokens of some concepts, such as those merged at strength 0: ``<anna> person`` is ``person``.

    Args:
        prompt: The prompt of the user.
        names: Names of concepts.
    """
    for name in names:
        prompt = re.sub(rf"<{re.escape(name)}>(?:_[1-9][0-9]*)?[ ]?", "", prompt)
    return prompt


def contract_prompt(prompt: str, tokens: Sequence[str]) -> str:
    """Write every full run ``<name> <name>_1 …`` as ``<name>``, which a diffusers pipeline expands itself.

    Args:
        prompt: The prompt of the user, or a result of ``expand_prompt``.
        tokens: The concept tokens that the base knows now.
    """
    for name in concept_names(tokens):
        prompt = prompt.replace(" ".join(_vectors(name, tokens)), f"<{name}>")
    return prompt


def _vectors(name: str, tokens: Sequence[str]) -> list[str]:
    """The tokens of one concept in the order of their numbers."""
    more = [token for token in tokens if token.startswith(f"<{name}>_")]
    return [f"<{name}>", *sorted(more, key=lambda token: int(token.rpartition("_")[2]))]
