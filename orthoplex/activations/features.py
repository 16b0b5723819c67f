"""The part of the text features that each layer reads."""

from __future__ import annotations

from torch import Tensor

from orthoplex.models.base import Base
from orthoplex.models.words.layout import FeatureLayout


def read_features(base: Base, features: Tensor) -> dict[str, Tensor]:
    """Return what each layer that reads text features is given, layer to ``(n, length, dim)``.

    Layers that read the same share a tensor. It holds for families that pass features on as they are
    (``Family.passes_features``), with the tokens that are in the base now.

    Args:
        base: The base.
        features: ``Conditioning.features``, ``(n, length, width)``.
    """
    readers, dim = base.family.feature_layers(), base.family.text_width
    attention = base.cross_attention_layers
    num_layers = len(attention) if base.has_layerwise_tokens else 1
    layout = FeatureLayout(num_layers, dim, features.shape[-1] - num_layers * dim)
    parts = [layout.own(features, index)[0] for index in range(num_layers)]
    if num_layers == 1:
        return dict.fromkeys(readers, parts[0])
    return {layer: parts[attention.index(layer.rpartition(".")[0])] for layer in readers}
