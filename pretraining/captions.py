"""The caption grammar: the factors of a picture in words, in shuffled order, with paraphrases and synonyms."""

from __future__ import annotations

import random

from pretraining.compose import SIZE, Factors, Thing
from pretraining.mix import SIDED
from pretraining.subjects import WITHOUT_ARTICLE
from pretraining.vocabulary import CLASS_WORDS, FAMILY_WORDS, SYNONYMS

EMPTY, PLAIN = 0.10, 0.10
#: pixels: sides up to which a thing alone is small, and how far from the middle it is left or right
SMALL, ASIDE = 72, 12


def with_article(words: str) -> str:
    """Such as: an owl; an hourglass; grapes."""
    if words in WITHOUT_ARTICLE:
        return words
    return f"{'an' if words[0] in 'aeiou' or words.startswith('hour') else 'a'} {words}"


def synonym(words: str, rng: random.Random) -> str:
    """The words themselves, or in one of five cases where there are synonyms one of them."""
    others = SYNONYMS.get(words)
    return rng.choice(others) if others and rng.random() < 0.2 else words


def person_phrase(words: dict, rng: random.Random, *, short: bool) -> str:
    """Such as: a person with red hair and glasses wearing a blue shirt; some of it is left out, most where `short`."""
    having = [f"{words['hair']} hair"] if rng.random() < 0.8 else []
    having += [word for word in ("glasses", "beard") if words[word] and rng.random() < (0.3 if short else 0.9)]
    having = ["a beard" if word == "beard" else word for word in having[: 1 if short else 3]]
    rng.shuffle(having)
    style = words.get("style")
    named = with_article(f"{style} person") if style and rng.random() < 0.7 else "a person"
    phrase = named + (" with " + " and ".join(having) if having else "")
    dressed = words["shirt"] and rng.random() < 0.6 and not (short and having)
    return phrase + (f" wearing {with_article(words['shirt'])} shirt" if dressed else "")


def thing_phrase(thing: Thing, rng: random.Random, *, short: bool = False) -> str:
    """A thing in words; a drawing not of the leading family is mostly called by its family's word."""
    if not thing.subject:
        return person_phrase(thing.person or {}, rng, short=short)
    words = synonym(thing.subject, rng)
    family = FAMILY_WORDS.get(thing.family or "")
    if family and rng.random() < 0.7:
        return f"{family} {words}" if words in WITHOUT_ARTICLE else with_article(f"{family} {words}")
    return with_article(words)


def alone_phrase(thing: Thing, rng: random.Random) -> str:
    """The only thing of a picture in words; that it is small, or left or right of the middle, is mostly stated."""
    words, box = thing_phrase(thing, rng), thing.box
    if thing.subject and box.side <= SMALL and rng.random() < 0.8:
        article, _, rest = words.partition(" ")
        words = f"a small {rest}" if article in ("a", "an") else f"small {words}"
    aside = box.left + box.side / 2 - SIZE / 2
    if abs(aside) >= ASIDE and rng.random() < 0.7:
        words += " on the left" if aside < 0 else " on the right"
    return words


def pair_phrase(left: str, right: str, rng: random.Random, sided: float = SIDED) -> str:
    """Two things in words; a share of the phrases states which is left and which right."""
    if rng.random() < sided:
        return rng.choice(
            (
                f"{left} on the left and {right} on the right",
                f"{right} on the right and {left} on the left",
                f"{left} left of {right}",
                f"{right} right of {left}",
            )
        )
    first, second = (left, right) if rng.random() < 0.5 else (right, left)
    return f"{first} and {second}"


def _things(factors: Factors, rng: random.Random, *, plain: bool, sided: float) -> str:
    short = len(factors.things) > 1
    if len(factors.things) == 1 and not plain:
        return alone_phrase(factors.things[0], rng)
    phrases = [
        CLASS_WORDS[thing.class_word] if plain else thing_phrase(thing, rng, short=short) for thing in factors.things
    ]
    return pair_phrase(phrases[0], phrases[1], rng, sided) if short else "".join(phrases)


def caption(factors: Factors, rng: random.Random, sided: float = SIDED) -> str:
    """Draw a caption: 10 % empty, 10 % class words only, else the factors in a shuffled paraphrase.

    A share of `sided` of those of two things states which is left and which right.
    """
    draw = rng.random()
    if draw < EMPTY:
        return ""
    plain = draw < EMPTY + PLAIN
    things = _things(factors, rng, plain=plain, sided=sided)
    if plain:
        scene, painting = "" if things else "a place", "painting" if factors.style and rng.random() < 0.5 else ""
    else:
        scene = synonym(factors.scene, rng) if not things or rng.random() < 0.95 else ""
        painting = synonym(factors.style, rng) if factors.style else ""
    body = things or scene
    if things and scene:
        body = f"{things} in {scene}" if rng.random() < 0.7 else f"{scene}, {things}"
    if painting:
        return rng.choice((f"{body}, {painting}", f"{painting} of {body}", f"{with_article(painting)} of {body}"))
    return rng.choice(("", "a picture of " if factors.style else "a photo of ", "a picture of ", "")) + body


def full_prompt(factors: Factors, *, sided: bool = False) -> str:
    """The things, the scene and the style in trained words but in an order that no caption has.

    Of people it names hair and, where they are alone and it shows, the shirt. With `sided` it states where two things
    stand.
    """
    phrases = []
    for thing in factors.things:
        words = thing.person or {}
        dressed = len(factors.things) == 1 and words.get("shirt")
        shirt = f" wearing {with_article(words['shirt'])} shirt" if dressed else ""
        phrases.append(with_article(thing.subject) if thing.subject else f"a person with {words['hair']} hair{shirt}")
    if sided:
        phrases = [f"{phrase} on the {side}" for phrase, side in zip(phrases, ("left", "right"), strict=True)]
    parts = [factors.style or "a photo", f"in {factors.scene}" if phrases else factors.scene, " and ".join(phrases)]
    return ", ".join(part for part in parts if part)
