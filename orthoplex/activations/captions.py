"""How prompts and captions name a concept or its class."""

import re

_WORDS = r"(?i:trigger[_ -]?(?:word)?|name|token|concept|subject|instance|[vs]\*?)"
_PLACEHOLDER = rf"(?:\[\[\s*{_WORDS}\s*\]\]|\[\s*{_WORDS}\s*\]|\{{{{1,2}}\s*{_WORDS}\s*\}}{{1,2}}"
_PLACEHOLDER += rf"|<\s*{_WORDS}\s*>|\bTOKEN\b|\b(?i:TOK)\b)"
_ESCAPED = re.compile(r"\\([()\[\]{}])")
"""Brackets as taggers write them for web user interfaces: ``miku \\(vocaloid\\)``."""
_TOKEN = re.compile(r"<[\w*-]+>")
_FOREIGN = re.compile(
    "|".join(
        (
            r"<[\w-]+:[^<>]*>",  # <lora:anna:0.8>
            _TOKEN.pattern,  # <bob>
            r"\([^()]*(?:[^()\d]:\s*-?[\d.]+|\d:\s*-?\d*\.\d+)\s*\)",  # (smile:1.2), but not (4:3)
            r"\[[^\[\]]*:[^\[\]]*\]",  # [cat:dog:0.5]
            r"\[[\w*-]+\]",  # [place]
            r"\{[^{}]*\|[^{}]*\}",  # {red|blue}
            r"\{[\w*-]+\}",  # {place}
            r"\b__[\w-]+__\b",  # __hair__
        )
    )
)


def insert_trigger(caption: str, *, token: str, class_word: str, trigger: str) -> str:
    """Return the caption with the trigger in it.

    Args:
        caption: As written; ``TOKEN``, ``TOK`` and words such as trigger, name, concept or V in ``[]``, ``{}`` or
            ``<>``, in any case, stand for the trigger.
        token: The concept's token, which any case stands for; a class word right behind it, or behind what stands for
            it, goes with it.
        class_word: Where the trigger goes when nothing else stands for it; an article before it goes too.
        trigger: What is put in.
    """
    mention, caption = _mention(token, class_word), caption.strip()
    if mention.search(caption):
        return _unescaped(mention.sub(lambda _: trigger, caption))
    caption = _unescaped(caption)
    plain = re.compile(rf"\b(?:(?:a|an|the)\s+)?{re.escape(class_word)}\b", re.IGNORECASE)
    if plain.search(caption):
        return plain.sub(lambda _: trigger, caption, count=1)
    return f"{trigger}, {caption}" if caption else trigger


def without_trigger(caption: str, *, token: str, class_word: str) -> str:
    """Return the caption of a picture of the class: what stands for the concept says the class word.

    Args:
        caption: As written.
        token: See ``insert_trigger``.
        class_word: What is put in.
    """
    return _unescaped(_mention(token, class_word).sub(lambda _: class_word, caption.strip()))


def _mention(token: str, class_word: str) -> re.Pattern[str]:
    """Return the pattern of what stands for a concept in a caption, with a class word behind it."""
    return re.compile(rf"(?:(?i:{re.escape(token)})|{_PLACEHOLDER})(?:\s*(?i:{re.escape(class_word)}\b))?")


def _unescaped(caption: str) -> str:
    return _ESCAPED.sub(lambda match: match[1], caption)


def foreign_syntax(caption: str, *, token: str | None) -> tuple[str, ...]:
    """Return what a caption with the trigger in it holds of the syntax of other programs, which is learned as text.

    Weights ``(smile:1.2)``, networks ``<lora:…>``, choices ``{a|b}``, wildcards ``__hair__``, and placeholders that are
    unknown, ``[word]`` or ``<other>``.

    Args:
        caption: As ``insert_trigger`` returns it.
        token: The concept's token, which is none of these; None where it is not known, and any ``<word>`` may be it.
    """
    parts = dict.fromkeys(_FOREIGN.findall(caption))
    return tuple(part for part in parts if part != token and (token or not _TOKEN.fullmatch(part)))


def with_article(class_word: str) -> str:
    """Return "a person", "an animal": how prompts of the base's own words name a class."""
    return f"{'an' if class_word[:1].lower() in 'aeiou' else 'a'} {class_word}"
