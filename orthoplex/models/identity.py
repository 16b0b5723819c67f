"""The hash that tells one base model from another."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from orthoplex.files import tensor_bytes
from orthoplex.models.layer_names import component_name

_NOT_HASHED = ("token_embedding.weight", "shared.weight", "embed_tokens.weight", "position_ids")
"""Embeddings of words, as CLIP, T5 and language models name them, and positions; not Anima's ``embed.weight``."""


def is_hashed(name: str) -> bool:
    """Return True if a weight counts; embeddings in ``_NOT_HASHED`` and the numbers of positions do not."""
    return not name.endswith(_NOT_HASHED)


def weights_hash(modules: Mapping[str, nn.Module], stored: Mapping[str, Mapping[str, Tensor]] | None = None) -> str:
    """SHA-256 over the names, shapes and float16-rounded values of the adapted components' parameters.

    float16 rounding makes the hash the same whether weights stored in float16 were loaded in float16 or float32. The
    token embedding is left out, so tokens that a merge added do not change it; that of Anima's ``text_conditioner``,
    which is named otherwise, counts, and a saved base with tokens is another one.

    Args:
        modules: Component (``unet``, ``text_encoder``) to module.
        stored: Component to the numbers of its parameters as a file has them, by path; of the others those in memory
            count.

    Returns:
        64 hexadecimal digits.
    """
    files = stored or {}
    parameters = {
        component_name(component, path): files.get(component, {}).get(path, parameter)
        for component, module in modules.items()
        for path, parameter in module.named_parameters()
        if is_hashed(path)
    }
    digest = hashlib.sha256()
    for name in sorted(parameters):
        values = parameters[name].detach()
        digest.update(f"{name} {tuple(values.shape)}\n".encode())
        digest.update(tensor_bytes(values.to(torch.float16)))
    return digest.hexdigest()
