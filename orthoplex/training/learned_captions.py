"""Captions as they are learned: with the trigger in them, and not longer than a base reads."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from orthoplex.activations import foreign_syntax, insert_trigger
from orthoplex.concepts import KINDS
from orthoplex.errors import DatasetError
from orthoplex.training.data_folder import TEMPLATES, FolderPicture
from orthoplex.training.folder_files import named

if TYPE_CHECKING:
    from orthoplex.models import Base
    from orthoplex.training.dataset import ConceptDataset

_LOG = logging.getLogger(__name__)
_ADVICE = {
    r"<[\w-]+:": "networks are no captions; take them out",
    r"\(": "captions have no weights; take brackets and numbers out",
    r"\[\s*(?i:trigger|name|token|concept)\s*:": "captions have no weights; write [trigger] alone",
    r"\[[^\[\]]*:": "captions have no steps and weights; take brackets and numbers out",
    r"\{[^{}]*\||__": "captions have no wildcards; write one caption a line",
    "": "take it out, or write [trigger] for the concept",
}
"""How a part of other programs begins -> what to do."""
_SHOWN = 40
_LETTERS_OF_A_TOKEN = 64
"""More than any token has; what stands behind that many for each token that a base reads is not looked at."""


@final
@dataclass(frozen=True)
class CaptionFit:
    """The captions that do not fit into the text that a base reads.

    Attributes:
        errors: A line for each caption that a training refuses.
        warnings: A line about captions whose ends are not seen.
    """

    errors: tuple[str, ...]
    warnings: tuple[str, ...]


def captions_of(picture: FolderPicture, *, token: str, class_word: str, trigger: str, kind: str) -> tuple[str, ...]:
    """Return the captions of a picture with the trigger in them, or the templates of its kind."""
    if picture.source == TEMPLATES:
        return tuple(template.format(trigger=trigger) for template in KINDS[kind].captions)
    texts = (insert_trigger(text, token=token, class_word=class_word, trigger=trigger) for text in picture.captions)
    return tuple(dict.fromkeys(texts))


def caption_warnings(captions: Mapping[str, Sequence[str]], token: str | None) -> tuple[str, ...]:
    """Say which captions hold syntax of other programs, which is learned as text.

    Args:
        captions: File name to captions with the trigger in them.
        token: The concept's token, or None where it is not known.
    """
    holders: dict[str, dict[str, None]] = {}
    parts: dict[str, dict[str, None]] = {}
    for name, texts in captions.items():
        for syntax in dict.fromkeys(part for text in texts for part in foreign_syntax(text, token=token)):
            advice = next(advice for pattern, advice in _ADVICE.items() if re.match(pattern, syntax))
            holders.setdefault(advice, {})[name] = None
            parts.setdefault(advice, {})[syntax if len(syntax) <= _SHOWN else syntax[:_SHOWN] + "…"] = None
    return tuple(
        f"captions of {named(list(names))} hold {named(list(parts[advice]))}, which "
        f"{'is' if len(parts[advice]) == 1 else 'are'} learned as text; {advice}"
        for advice, names in holders.items()
    )


def caption_fit(base: Base, captions: Mapping[str, Sequence[str]], token: str, num_vectors: int) -> CaptionFit:
    """Return the captions that a training on a base refuses or cuts off.

    Args:
        base: The base; whether it knows the token does not matter.
        captions: File name to captions with the trigger in them.
        token: The concept's token, or the rare word that stands in its place.
        num_vectors: The number of the concept's token vectors, each of which takes the place of a token.
    """
    words, stand_in = base.family.words, base.family.words.stand_in(num_vectors)
    limit, errors, cut, longest = words.room("").limit, list[str](), dict[str, None](), (0, "")
    most = _LETTERS_OF_A_TOKEN * (limit + num_vectors)
    mention = re.compile(re.escape(token) if token.startswith("<") else rf"\b{re.escape(token)}\b")
    for name, several in captions.items():
        for caption in several:
            first, whole = mention.search(caption), mention.sub(lambda _: stand_in, caption)
            start = _beginning(whole, most)
            room, more = words.room(start), "" if start == whole else "more than "
            if first is None:
                errors.append(f"caption of {name} does not name {token}; allowed are captions that name it")
            elif words.room(_beginning(caption[: first.start()], most) + stand_in).length > room.limit:
                errors.append(
                    f"caption of {name} has {more}{room.length} tokens, and {token} stands behind the "
                    f"{room.limit} that the base reads; allowed are captions that name it before"
                )
            elif room.length > room.limit:
                cut[name], longest, limit = None, max(longest, (room.length, more)), room.limit
    if not cut:
        return CaptionFit(tuple(errors), ())
    return CaptionFit(
        tuple(errors),
        (
            f"captions of {named(list(cut))} have {longest[1] or 'up to '}{longest[0]} tokens, and the "
            f"base reads {limit}; their ends are not seen",
        ),
    )


def _beginning(caption: str, num_letters: int) -> str:
    """Return the beginning of a caption that is longer, with single blanks: tokens of a book take minutes to count."""
    return caption if len(caption) <= num_letters else " ".join(caption.split())[:num_letters]


def check_captions(base: Base, dataset: ConceptDataset, tokens: Sequence[str]) -> None:
    """Refuse captions that are cut off before the end of the concept's tokens; log those that are cut off behind them.

    Args:
        base: The base.
        dataset: The captions.
        tokens: The names of the concept's tokens.

    Raises:
        DatasetError: Names the file, the length and the limit.
    """
    captions = {picture.file_name: picture.captions for picture in dataset.pictures}
    fit = caption_fit(base, captions, dataset.mention, len(tokens) or 1)
    for error in fit.errors:
        raise DatasetError(error)
    for warning in fit.warnings:
        _LOG.warning("%s", warning)
