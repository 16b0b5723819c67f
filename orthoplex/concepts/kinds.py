"""The kinds of concepts: one row a kind, with everything that depends on it."""

from __future__ import annotations

from dataclasses import dataclass

_PLACES = ("garden", "room", "cave", "beach", "field", "house", "village", "park", "kitchen", "jungle")
_THINGS = ("a person", "a dog", "a cat", "a car", "a tree", "a house", "a fish", "a chair")
_IN_PLACES = ("{trigger}", *(f"{{trigger}} in a {place}" for place in _PLACES))


@dataclass(frozen=True)
class Kind:
    """A kind of concept, such as a person or a style.

    Prompts are templates; ``{trigger}`` is the place of the prompt fragment that calls the concept.

    Attributes:
        captions: Captions for training pictures without one; one is drawn at every use.
        settings: Prompts that show it in plain places, or beside plain things; none of them may be what experiments
            picture (tested), or a merge would be fitted on the inputs it is judged by.
        example: A prompt that shows it away from its training pictures.
        class_words: Class words that say this kind, besides the kind's own name.
        is_thing: True if it stands in a place, and two of them side by side fill a picture.
    """

    captions: tuple[str, ...]
    settings: tuple[str, ...] = _IN_PLACES
    example: str = "a photo of {trigger}"
    class_words: frozenset[str] = frozenset()
    is_thing: bool = False

    def own_prompts(self, trigger: str) -> tuple[str, ...]:
        """Return the captions and settings of one concept, each once.

        Args:
            trigger: The prompt fragment that calls it; ``<name>`` stands for all its vectors.
        """
        return tuple(dict.fromkeys(template.format(trigger=trigger) for template in (*self.captions, *self.settings)))


KINDS: dict[str, Kind] = {
    "person": Kind(
        captions=("a photo of {trigger}", "a drawing of {trigger}"),
        example="a photo of {trigger} in a city street",
        class_words=frozenset(("woman", "man", "boy", "girl")),
        is_thing=True,
    ),
    "subject": Kind(
        captions=("a photo of {trigger}", "a drawing of {trigger}"),
        example="a photo of {trigger} in a forest",
        is_thing=True,
    ),
    "scene": Kind(
        captions=("a view of {trigger}",),
        settings=("{trigger}", *(f"{thing} in {{trigger}}" for thing in _THINGS)),
    ),
    "style": Kind(
        captions=("a picture in the style of {trigger}",),
        settings=("{trigger}", *(f"{thing}, {{trigger}}" for thing in (*_THINGS, "a beach", "a village"))),
        example="a cat in a meadow, {trigger}",
    ),
    "other": Kind(captions=("a picture of {trigger}",), is_thing=True),
}
"""Name to kind."""
_DEFAULT = "subject"


def kind_of(class_word: str) -> str:
    """Return the kind that a class word says: ``scene`` is one, a ``young woman`` is a person; else ``subject``.

    Args:
        class_word: The ordinary word for what a concept is, in any case.
    """
    words = class_word.lower().split()
    if not words:
        return _DEFAULT
    named = (name for name, kind in KINDS.items() if words[-1] in kind.class_words)
    return next(named, words[0] if len(words) == 1 and words[0] in KINDS else _DEFAULT)
