"""Foreign prompts: those that do not hold a concept, composed for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

import torch

from orthoplex.activations.captions import insert_trigger, with_article
from orthoplex.errors import ConfigurationError

CLASS_WORDS = ("person", "animal", "food", "vehicle", "object", "plant", "building", "place", "painting")
"""Class words that foreign concepts may have, besides the concept's own."""

_TEMPLATES = ("a photo of {}", "a drawing of {}", "a picture of {}", "a view of {}", "{}")


@dataclass(frozen=True, eq=False)
class ForeignPrompts:
    """Prompts without the concept.

    Attributes:
        plain: Prompts of the base's own words; the empty prompt is one of them.
        tokened: Prompts with the concept's token, in whose place random vectors are put.
        words: The class word behind the token in each of these.
        about_class: Those of the plain prompts that name the concept's class word alone.
    """

    plain: tuple[str, ...]
    tokened: tuple[str, ...]
    words: tuple[str, ...]
    about_class: tuple[str, ...]


def compose_foreign_prompts(
    num_prompts: int, *, token: str, class_word: str, prompts: Sequence[str], generator: torch.Generator
) -> ForeignPrompts:
    """Return ``num_prompts`` foreign prompts; a quarter is about the class word, a quarter has a token.

    Args:
        num_prompts: How many prompts there are, at least 1.
        token: The concept's token.
        class_word: The concept's class word.
        prompts: Prompts of the base's own words, for the remaining half; repeated as often as needed.
        generator: Decides the order of ``prompts``.

    Raises:
        ConfigurationError: When there are no prompts.
    """
    if not prompts:
        raise ConfigurationError("foreign_prompts holds 0 prompts; allowed is a list of at least 1")
    quarter = num_prompts // 4
    around_class = [
        "" if i == 0 else _TEMPLATES[i % len(_TEMPLATES)].format(with_article(class_word))
        for i in range(max(1, quarter))
    ]
    order = torch.randperm(len(prompts), generator=generator).tolist()
    known = list(prompts)
    shuffled = [known[i] for i in order]
    holding = _with_token(shuffled, token, class_word)
    chosen = [holding[i % len(holding)] for i in range(quarter)]
    remaining = num_prompts - len(around_class) - len(chosen)
    plain = [shuffled[i % len(shuffled)] for i in range(remaining)]
    return ForeignPrompts(
        plain=(*plain, *around_class),
        tokened=tuple(prompt for prompt, _ in chosen),
        words=tuple(word for _, word in chosen),
        about_class=tuple(dict.fromkeys(around_class[1:])),
    )


def _with_token(prompts: Sequence[str], token: str, class_word: str) -> list[tuple[str, str]]:
    """Return prompts with the token before a class word, and that word; templates and other prompts alternate."""
    words = (class_word, *(word for word in CLASS_WORDS if word != class_word))
    templates = [(template.format(f"{token} {word}"), word) for template in _TEMPLATES for word in words]
    named = [
        (insert_trigger(prompt, token=token, class_word=word, trigger=f"{token} {word}"), word)
        for prompt in prompts
        for word in words
        if word in prompt.split()
    ]
    pairs = zip_longest(templates, named)
    return [prompt for pair in pairs for prompt in pair if prompt is not None]
