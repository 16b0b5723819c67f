"""The real CLIP byte-pair vocabulary, cut to the words the base can know, plus byte fall-back for everything else.

A merge is kept when some word of `WORDS` needs it; every text still tokenises, because all 256 bytes (and their
end-of-word forms) stay.
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
from pathlib import Path

from transformers import CLIPTokenizer

from pretraining.vocabulary import (
    ASSETS,
    CLASS_WORDS,
    FAMILY_WORDS,
    HAIR_COLOURS,
    PEOPLE_STYLE_WORDS,
    SCENES,
    SHIRT_COLOURS,
    STYLES,
    SUBJECTS,
    SYNONYMS,
)

MAX_LENGTH = 32
EXTRA = (
    "a an the of in on at with and or by to from near under over beside behind left right front two three wearing "
    "hair glasses beard shirt hat photo picture image drawing painting portrait view illustration sketch art style "
    "person man woman girl boy people face animal creature pet food fruit plant flower tree vehicle toy object thing "
    "place scene landscape room street garden mountain lake river night day sunset sunrise winter summer autumn "
    "spring snow rain fog dark bright light big small large tiny old new happy sad smiling red green blue yellow "
    "orange purple pink black white brown grey gray gold silver blond oil ink watercolor pencil poster cartoon "
    "mosaic close up beautiful colorful . , ' s ! ? - 1 2 3 4 5 6 7 8 9 0"
)


def words() -> list[str]:
    """Every word the picture captions use, and common words of prompts."""
    synonyms = [words for others in SYNONYMS.values() for words in others]
    colours = [*HAIR_COLOURS, *SHIRT_COLOURS]
    drawings = [*FAMILY_WORDS.values(), *PEOPLE_STYLE_WORDS.values()]
    names = [*SUBJECTS, *SCENES, *STYLES, *CLASS_WORDS.values(), *drawings, *colours]
    texts = [*names, *synonyms, EXTRA]
    return sorted({word for text in texts for word in text.split()})


def byte_alphabet() -> list[str]:
    """CLIP's printable stand-ins for the 256 bytes, in its own order."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + n) for n in range(len(others))]


def merges_needed(table: list[tuple[str, str]], vocabulary: list[str]) -> list[tuple[str, str]]:
    """The merges that byte-pair encoding of `vocabulary` applies, in the table's order."""
    rank = {pair: index for index, pair in enumerate(table)}
    used: set[int] = set()
    for word in vocabulary:
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            pairs = [
                (rank.get((a, b), len(rank)), place) for place, (a, b) in enumerate(zip(parts, parts[1:], strict=False))
            ]
            best, place = min(pairs)
            if best == len(rank):
                break
            used.add(best)
            parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return [table[index] for index in sorted(used)]


def vocabulary_hash(tokenizer: CLIPTokenizer) -> str:
    """Stands for the tokens and their numbers."""
    return hashlib.sha256(repr(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()[:16]


def build(folder: Path) -> CLIPTokenizer:
    """Write the cut tokenizer to `folder`, whatever lies there, and load it again.

    Raises:
        ValueError: When what is loaded has other tokens than were written.
    """
    path = next((ASSETS / "clip").rglob("bpe_simple_vocab_16e6.txt.gz"))
    lines = gzip.open(path, "rt", encoding="utf-8").read().split("\n")[1 : 49152 - 256 - 2 + 1]
    table = [(a, b) for a, b in (line.split() for line in lines)]
    merges = merges_needed(table, words())
    alphabet = byte_alphabet()
    tokens = [*alphabet, *(letter + "</w>" for letter in alphabet), *(a + b for a, b in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    numbers = {token: index for index, token in enumerate(tokens)}
    made = CLIPTokenizer(vocab=numbers, merges=merges, model_max_length=MAX_LENGTH, pad_token="<|endoftext|>")
    shutil.rmtree(folder, ignore_errors=True)
    made.save_pretrained(folder)
    found = CLIPTokenizer.from_pretrained(folder)
    if found.get_vocab() != numbers:
        raise ValueError(f"{folder} holds {len(found)} tokens; allowed are the {len(numbers)} that were written")
    return found
