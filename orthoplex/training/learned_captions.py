"""Captions as they are learned: with the trigger in them, and not longer than a base reads."""

from __future__ import annotations

import logging
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
    holders: dict[str, list[str]] = {}
    for name, texts in captions.items():
        for syntax in dict.fromkeys(part for text in texts for part in foreign_syntax(text, token=token)):
            holders.setdefault(syntax, []).append(name)
    return tuple(
        f"captions of {named(names)} hold {syntax}, which is learned as text; take it out, or write [trigger] for the "
        "concept"
        for syntax, names in holders.items()
    )


def caption_fit(base: Base, captions: Mapping[str, Sequence[str]], token: str, num_vectors: int) -> CaptionFit:
    """Return the captions that a training on a base refuses or cuts off.

    Args:
        base: The base; whether it knows the token does not matter.
        captions: File name to captions with the trigger in them.
        token: The concept's token.
        num_vectors: The number of the concept's token vectors, each of which takes the place of a token.
    """
    words, stand_in = base.family.words, base.family.words.stand_in(num_vectors)
    limit, errors, cut, longest = words.room("").limit, list[str](), dict[str, None](), 0
    for name, several in captions.items():
        for caption in several:
            room = words.room(caption.replace(token, stand_in))
            before, mention, _ = caption.partition(token)
            if not mention:
                errors.append(f"caption of {name} does not name {token}; allowed are captions that name it")
            elif words.room(before + stand_in).length > room.limit:
                errors.append(
                    f"caption of {name} has {room.length} tokens, and {token} stands behind the {room.limit} that the "
                    "base reads; allowed are captions that name it before"
                )
            elif room.length > room.limit:
                cut[name], longest, limit = None, max(longest, room.length), room.limit
    if not cut:
        return CaptionFit(tuple(errors), ())
    return CaptionFit(
        tuple(errors),
        (
            f"captions of {named(list(cut))} have up to {longest} tokens, and the base reads {limit}; their ends "
            "are not seen",
        ),
    )


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
    fit = caption_fit(base, captions, dataset.token, len(tokens))
    for error in fit.errors:
        raise DatasetError(error)
    for warning in fit.warnings:
        _LOG.warning("%s", warning)
