"""One generator for all random numbers that must not depend on the order of things."""

import torch

from orthoplex.subspaces import seeded


def test_seeded_depends_on_every_word():
    draws = [torch.rand(1, generator=seeded(*words)).item() for words in ((0, 1), (0, 1), (1, 0), (0, 1, 2))]
    assert draws[0] == draws[1] and len(set(draws)) == 3


def test_the_seed_is_the_first_bytes_of_a_digest():
    assert seeded(0, "unet.x", "anna").initial_seed() == 0x594D38B87BC2EA8A
    assert seeded().initial_seed() == 0xE3B0C44298FC1C14 >> 1
