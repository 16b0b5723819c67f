"""Random numbers from SHA-256 alone, so that every installation draws the same ones."""

import hashlib
import math
from collections.abc import Iterator


def hash_words(*parts: str) -> Iterator[int]:
    """Yield an endless stream of 64-bit numbers: the digests of (parts, counter), four numbers each.

    Args:
        parts: texts that decide the stream; their lengths are hashed too, so ("ab", "c") is not ("a", "bc").
    """
    seed = hashlib.sha256("".join(f"{len(part.encode())}:{part}," for part in parts).encode()).digest()
    counter = 0
    while True:
        digest = hashlib.sha256(seed + counter.to_bytes(8, "big")).digest()
        for start in range(0, 32, 8):
            yield int.from_bytes(digest[start : start + 8], "big")
        counter += 1


def draw_below(words: Iterator[int], bound: int) -> int:
    """Return the next number of 0 … bound − 1, without bias (numbers of the last, incomplete round are skipped)."""
    limit = (1 << 64) // bound * bound
    return next(word for word in words if word < limit) % bound


def draw_subset(words: Iterator[int], size: int, count: int) -> list[int]:
    """Return ``count`` different numbers of 0 … size − 1 in random order (the first steps of Fisher and Yates)."""
    numbers = list(range(size))
    for place in range(count):
        other = place + draw_below(words, size - place)
        numbers[place], numbers[other] = numbers[other], numbers[place]
    return numbers[:count]


def draw_normals(words: Iterator[int], count: int) -> list[float]:
    """Return ``count`` independent standard normal numbers (Box and Muller)."""
    normals: list[float] = []
    while len(normals) < count:
        radius = math.sqrt(-2.0 * math.log(((next(words) >> 11) + 1) / 2**53))
        angle = 2.0 * math.pi * ((next(words) >> 11) / 2**53)
        normals += [radius * math.cos(angle), radius * math.sin(angle)]
    return normals[:count]
