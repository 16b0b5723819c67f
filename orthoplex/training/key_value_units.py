"""The units in which keys and values of a concept's tokens learn."""

import torch
from torch.nn import functional

from orthoplex.activations.random_concepts import word_spread
from orthoplex.models import Base, plain_weight


@torch.no_grad()
def key_value_units(base: Base, class_word: str) -> dict[str, tuple[float, float]]:
    """Return each cross-attention layer's unit of keys and that of values.

    A unit is the root mean square of what the layer computes for the class word, per spread of the base's embeddings.

    Args:
        base: The base.
        class_word: The ordinary word for what the concept is.
    """
    spread = word_spread(base).deviation.square().mean().sqrt().item()
    features = base.family.condition([class_word]).features.float()
    linears, layers = base.family.feature_layers(), base.cross_attention_layers

    def size(name: str) -> float:
        return functional.linear(features, plain_weight(linears[name]).float()).square().mean().sqrt().item()

    return {layer: (size(f"{layer}.to_k") / spread, size(f"{layer}.to_v") / spread) for layer in layers}
