"""Random numbers that depend on words alone, and not on the order of construction."""

import hashlib

import torch


def seeded(*words: object) -> torch.Generator:
    """Return a generator on the CPU, seeded by SHA-256 of the words, each on a line.

    Args:
        words: Names of the purpose of the numbers; written as text.
    """
    digest = hashlib.sha256("\n".join(str(word) for word in words).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
