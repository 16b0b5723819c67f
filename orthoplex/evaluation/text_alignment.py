"""Text alignment: does a picture show what its prompt asks for besides the concept?

Two readings. With linear heads: the prompt names a scene or a painting style, and the head's best name for the picture
is that name or not. With features of pictures and texts in one space: their cosine.
"""

from __future__ import annotations

import re
from collections.abc import Collection

import torch
from torch import Tensor

from orthoplex.errors import ConfigurationError
from orthoplex.evaluation.heads import LinearHead

TEXT_PREFIX = "A photo depicts "
"""Words before a prompt when its cosine with pictures is taken; Hessel et al. 2021, section 3."""
WEIGHT = 2.5
"""Factor of the cosine, which spreads values over [0, 1]; Hessel et al. 2021, section 3."""


def asked_for(prompt: str, names: Collection[str]) -> str | None:
    """Return the name that a prompt holds word for word; None if it holds none or several.

    A name inside a longer one does not count: "a desert with cacti" asks for that, and not for "a desert". Capitals do
    not matter; punctuation parts words.

    Args:
        prompt: A prompt, the concept's trigger left out.
        names: The names it may ask for.
    """
    words = _words(prompt)
    spans: dict[tuple[int, int], str] = {}
    for name in names:
        wanted = _words(name)
        for start in range(len(words) - len(wanted) + 1):
            if wanted and words[start : start + len(wanted)] == wanted:
                spans[start, start + len(wanted)] = name
    longest = {
        name
        for (start, stop), name in spans.items()
        if not any(low <= start and stop <= high and (low, high) != (start, stop) for low, high in spans)
    }
    return longest.pop() if len(longest) == 1 else None


def shows(head: LinearHead, features: Tensor, asked: str, *, among: Collection[str] | None = None) -> Tensor:
    """Return 1 for every picture whose best name is the asked-for one: `[argmax_c (W f_i + b)_c = asked]`.

    The mean is the share of pictures that show what was asked for. By chance a picture shows one of k names in `1/k`
    of the cases.

    Args:
        head: A linear head fitted on real pictures.
        features: `(n, d)` of pictures, of the head's encoder.
        asked: The name.
        among: The names to choose from, the asked-for one among them; None for all of the head's.

    Returns:
        `(n,)` float64, 0 or 1.

    Raises:
        ConfigurationError: when a name is none of the head's, or the asked-for one is not among those to choose from.
    """
    candidates = head.classes if among is None else tuple(name for name in head.classes if name in {*among})
    for name in (asked, *(among or ())):
        if name not in head.classes:
            raise ConfigurationError(f"the head does not know {name!r}; allowed: {', '.join(head.classes)}")
    if asked not in candidates:
        raise ConfigurationError(f"{asked!r} was asked for; allowed, to choose from: {', '.join(candidates)}")
    columns = [head.classes.index(name) for name in candidates]
    best = head.logits(features)[:, columns].argmax(dim=1)
    return (best == candidates.index(asked)).double()


def above_chance(right: Tensor, num_names: int) -> Tensor:
    """Return a share corrected for guessing among k names: `(x - 1/k) / (1 - 1/k)`.

    1 stays 1 and chance becomes 0, so that shares of choices among different numbers of names can be compared.

    Args:
        right: 0 or 1 for every picture, or shares.
        num_names: k, at least 2.

    Raises:
        ConfigurationError: for fewer names.

    Source: Cohen, "A coefficient of agreement for nominal scales", 1960, equation 1 with equal chances.
    """
    if num_names < 2:
        raise ConfigurationError(f"a choice among {num_names} names was to be judged; allowed: 2 or more")
    return (right - 1 / num_names) / (1 - 1 / num_names)


def text_scores(pictures: Tensor, texts: Tensor) -> Tensor:
    """Alignment of pictures and the texts they should show: `2.5 * max(<p_i, t_i>, 0)`.

    Args:
        pictures: `(n, d)` unit rows of pictures.
        texts: `(n, d)` unit rows of one text each, which begins with `TEXT_PREFIX`; or `(1, d)`, one text for all.

    Returns:
        `(n,)` float64.

    Raises:
        ConfigurationError: when the shapes do not fit.

    Source: Hessel et al., "CLIPScore", EMNLP 2021, equation in section 3; used so in Gu et al., "Mix-of-Show", 2023.
    """
    fits = pictures.ndim == texts.ndim == 2 and pictures.shape[1] == texts.shape[1]
    if not fits or len(texts) not in (1, len(pictures)):
        raise ConfigurationError(
            f"pictures have the shape {tuple(pictures.shape)} and texts {tuple(texts.shape)}; "
            "allowed: (n, d) and (n, d) or (1, d)"
        )
    cosines = torch.sum(pictures.double() * texts.double(), dim=1)
    return WEIGHT * cosines.clamp_min(0.0)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+(?:['’-]\w+)*|[^\w\s]", text.lower())
