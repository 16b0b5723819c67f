"""The words of a data set: its token, class word and captions."""

import re
from collections.abc import Mapping, Sequence

from orthoplex.activations import foreign_syntax, insert_trigger
from orthoplex.concepts import KINDS
from orthoplex.errors import DatasetError
from orthoplex.training.data_folder import TEMPLATES, FolderPicture
from orthoplex.training.folder_files import named

CLASS_WORD_LIMIT = 64


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


def check_arguments(token: str, class_word: str, kind: str, resolution: int) -> None:
    """Refuse a token, class word, kind or resolution that is not allowed.

    Raises:
        DatasetError: Names the argument, its value and what is allowed.
    """
    if not re.fullmatch(r"<[a-z0-9_-]{1,64}>", token):
        raise DatasetError(f"token is {token!r}; allowed is <name> with lower-case letters, digits, '_' and '-'")
    if not class_word.strip() or not class_word.isprintable():
        raise DatasetError(f"class_word is {class_word!r}; allowed is a word such as 'person'")
    if len(class_word) > CLASS_WORD_LIMIT or set(class_word) & set("<>"):
        raise DatasetError(
            f"class_word is {class_word!r}; allowed are up to {CLASS_WORD_LIMIT} characters without '<' and '>'"
        )
    if kind not in KINDS:
        raise DatasetError(f"kind is {kind!r}; allowed are {', '.join(KINDS)}")
    if resolution < 1:
        raise DatasetError(f"resolution is {resolution}; allowed are whole numbers from 1")
