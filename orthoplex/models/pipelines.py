"""The pipelines and networks that can be a base, without the notices that importing them logs."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from orthoplex.errors import BaseModelError
from orthoplex.models.quiet import quiet
from orthoplex.models.weight_files import WeightFiles

with quiet():
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
    from transformers import CLIPTextModel
    from transformers.utils.generic import ModelOutput

__all__ = ["NETWORKS", "ModelOutput", "StableDiffusionPipeline", "load_network"]

NETWORKS = {"vae": AutoencoderKL, "text_encoder": CLIPTextModel, "unet": UNet2DConditionModel}
"""Component to the class that ``load_network`` loads."""
_NUM_SHOWN = 3


def load_network(component: str, folder: Path, found: WeightFiles | None, dtype: torch.dtype) -> nn.Module:
    """Load one network whole; the libraries fill what a file lacks with random numbers.

    Args:
        component: A key of ``NETWORKS``.
        folder: The component's folder.
        found: Its files, or None to let the library search.
        dtype: Data type of the weights.

    Raises:
        BaseModelError: If a weight is missing or of another shape; names the file and the first such weights.
        Exception: Whatever the library raises for a damaged folder.
    """
    # transformers shows wrong shapes in its log only, unless they are asked for.
    options = {"ignore_mismatched_sizes": True} if component == "text_encoder" else {}
    name = component if found is None else f"{component}/{found.main.name}"
    try:
        network, report = NETWORKS[component].from_pretrained(
            folder,
            dtype=dtype,
            variant=None if found is None else found.variant,
            use_safetensors=None if found is None else found.is_safetensors,
            local_files_only=True,
            output_loading_info=True,
            **options,
        )
    except ValueError as error:  # so diffusers names a weight of another shape, with advice that does not help here
        raise BaseModelError(f"{name}: {str(error).partition('. ')[0]}") from error
    if missing := sorted(report["missing_keys"]):
        others = sorted(report["unexpected_keys"])
        raise BaseModelError(
            f"{name} lacks {len(missing)} of {len(network.state_dict())} tensors: {_first(missing)}"
            + (f"; it holds {len(others)} that no {component} has: {_first(others)}" if others else "")
        )
    if mismatched := sorted((str(key), tuple(theirs), tuple(ours)) for key, theirs, ours in report["mismatched_keys"]):
        shapes = [f"{key} is {theirs}, allowed is {ours}" for key, theirs, ours in mismatched]
        raise BaseModelError(f"{name} holds {len(shapes)} tensors of other shapes: {_first(shapes)}")
    return network


def _first(names: list[str]) -> str:
    return ", ".join(names[:_NUM_SHOWN]) + (", …" if len(names) > _NUM_SHOWN else "")
