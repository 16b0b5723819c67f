"""How prompts and captions name a concept or its class."""

import re


def insert_trigger(caption: str, *, token: str, class_word: str, trigger: str) -> str:
    """Return the caption with the trigger in it.

    Args:
        caption: As written; ``{trigger}``, ``<name>`` and ``TOKEN`` stand for the trigger.
        token: The concept's token; a class word right behind it, or behind what stands for it, goes with it.
        class_word: Where the trigger goes when nothing else stands for it; an article before it goes too.
        trigger: What is put in.
    """
    word = rf"{re.escape(class_word)}\b"
    mention = re.compile(rf"(?:\{{trigger\}}|{re.escape(token)}|<name>|\bTOKEN\b)(?:\s+{word})?")
    caption = caption.strip()
    if mention.search(caption):
        return mention.sub(lambda _: trigger, caption)
    plain = re.compile(rf"\b(?:(?:a|an|the)\s+)?{word}", re.IGNORECASE)
    if plain.search(caption):
        return plain.sub(lambda _: trigger, caption, count=1)
    return f"{trigger}, {caption}" if caption else trigger


def with_article(class_word: str) -> str:
    """Return "a person", "an animal": how prompts of the base's own words name a class."""
    return f"{'an' if class_word[:1].lower() in 'aeiou' else 'a'} {class_word}"
