"""Vectors of concepts that do not exist."""

import torch

from orthoplex.activations import FOREIGN_PROMPTS
from orthoplex.activations.random_concepts import random_vectors, word_spread

DIM = 24


def test_random_vectors_of_no_words(base):
    found = random_vectors(base, (), num_vectors=2, generator=torch.Generator())
    assert found.shape == (0, 2, base.pipeline.text_encoder.get_input_embeddings().embedding_dim)


def test_random_vectors_lie_as_far_from_their_class_words_as_learned_ones(base):
    """In units of the words that the base uses: rows that no training has seen say nothing."""
    table = base.pipeline.text_encoder.get_input_embeddings().weight
    kept = table.detach().clone()
    unused = torch.ones(len(table), dtype=torch.bool)
    unused[torch.tensor(base.pipeline.tokenizer(" ".join(FOREIGN_PROMPTS)).input_ids)] = False
    words = ("person", "dog") * 100
    with torch.no_grad():
        before = random_vectors(base, words, num_vectors=2, generator=torch.Generator().manual_seed(0))
        table[unused] *= 0.001
        vectors = random_vectors(base, words, num_vectors=2, generator=torch.Generator().manual_seed(0))
        table.copy_(kept)
    assert torch.equal(vectors, before) and vectors.shape == (200, 2, DIM)
    spread = word_spread(base).deviation
    centres = torch.stack([base.family.words.class_vector(word) for word in words])
    moved = ((vectors - centres.unsqueeze(1)) / spread).square().mean((1, 2)).sqrt()
    near = torch.arange(200) % 4 != 3
    assert 0.3 < moved[near].min() < 0.8 and 1.3 < moved[near].max() < 2.2
    assert not torch.equal(vectors[0], vectors[8])
