"""The part of the text features that each layer reads."""

from __future__ import annotations

from torch import Tensor

from orthoplex.models.base import Base


def read_features(base: Base, features: Tensor) -> dict[str, Tensor]:
    """Return the text features that each layer reads, layer to ``(n, length, dim)``.

    Layers that read the same features share a tensor. The result holds for families that pass features on unchanged
    (``Family.passes_features``), with the tokens that are in the base now.

    Args:
        base: The base.
        features: ``Conditioning.features``, ``(n, length, width)``.
    """
    readers, own = base.family.feature_layers(), base.own_features(features)
    if not base.has_layerwise_tokens:
        return dict.fromkeys(readers, own[0])
    return {layer: own[base.cross_attention_layers.index(layer.rpartition(".")[0])] for layer in readers}
