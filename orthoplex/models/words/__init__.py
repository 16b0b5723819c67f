"""Tokens in a base: new words of its text encoders, vectors of single layers, keys and values."""
