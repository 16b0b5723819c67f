"""Prompts as people write them: weights, chunks, concepts, and syntax of other programs."""
