"""The hash that tells one base model from another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import nn

from orthoplex.files import tensor_bytes
from orthoplex.models.layers import component_name

if TYPE_CHECKING:
    from orthoplex.models.pipelines import StableDiffusionPipeline


def is_hashed(name: str) -> bool:
    """Whether a weight counts: token embeddings do not, nor the numbers of positions that older files hold."""
    return not name.endswith(("token_embedding.weight", "position_ids"))


def weights_hash(modules: Mapping[str, nn.Module]) -> str:
    """SHA-256 over the names, shapes and float16-rounded values of the adapted components' parameters.

    float16 rounding makes the hash the same whether weights stored in float16 were loaded in float16 or float32. The
    token embedding is left out, so tokens that a merge added do not change it.

    Args:
        modules: Component (``unet``, ``text_encoder``) to module.

    Returns:
        64 hexadecimal digits.
    """
    parameters = {
        component_name(component, path): parameter
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


def inputs_hash(pipeline: StableDiffusionPipeline) -> str:
    """What decides the inputs of a training besides the weights that concepts change, which ``weights_hash`` covers.

    The decoder does not: it decides finished pictures only.

    Returns:
        24 hexadecimal digits.
    """
    encoding = {"encoder": pipeline.vae.encoder, "quant_conv": pipeline.vae.quant_conv}
    embedding = pipeline.text_encoder.get_input_embeddings().weight.detach()
    values = {
        "encoder": weights_hash({name: module for name, module in encoding.items() if module is not None}),
        "tokens": hashlib.sha256(embedding.float().cpu().numpy().tobytes()).hexdigest(),
        "vocabulary": pipeline.tokenizer.get_vocab(),
        "scheduler": {key: value for key, value in pipeline.scheduler.config.items() if not key.startswith("_")},
        "schedule": type(pipeline.scheduler).__name__,
        "scaling": [pipeline.vae.config.scaling_factor, pipeline.vae.config.get("shift_factor")],
    }
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:24]
