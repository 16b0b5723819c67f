"""Networks of diffusers and transformers, loaded whole, without the notices that importing and loading them logs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from orthoplex.errors import BaseModelError
from orthoplex.files import summary_of
from orthoplex.models.problems import first_of
from orthoplex.models.quantising import GGUF_SUFFIX, load_gguf
from orthoplex.models.quiet import quiet
from orthoplex.models.weight_files import WeightFiles

with quiet():
    from transformers import PreTrainedModel
    from transformers.utils.generic import ModelOutput

__all__ = ["ModelOutput", "load_network"]

_SHAPES = re.compile(r"because (\S+) expected shape torch\.Size\(\[(.*?)\]\), but got torch\.Size\(\[(.*?)\]\)\.")
"""How diffusers names a weight of another shape; the advice that follows does not help here."""

_HARMLESS = re.compile(r"(^|\.)(position_ids|logit_scale|num_batches_tracked)$|^(text_projection|visual|vision_model)")
"""Tensors that files of text encoders hold besides, and that change nothing."""
_QUANTISED = re.compile(
    r"\.(scale_weight|weight_scale|scale_input|absmax|quant_map|quant_state\.|SCB$|scale$|zero_point)"
)
_ADDED = re.compile(r"lora|hada|lokr|motion_modules|ip_adapter", re.IGNORECASE)


def load_network(kind: Any, folder: Path, files: WeightFiles | None, dtype: torch.dtype) -> nn.Module:  # noqa: ANN401
    """Load one network whole; the libraries fill what a file lacks with random numbers.

    Args:
        kind: The network's class, of diffusers or transformers.
        folder: The component's folder, named as the component is.
        files: Its files, or None to let the library search.
        dtype: Data type of the weights.

    Raises:
        BaseModelError: If the folder is damaged, or a weight is missing or of another shape; names the file and the
            first such weights.
    """
    if files is not None and files.main.suffix == GGUF_SUFFIX:
        return load_gguf(kind, folder, files.main, dtype)
    # transformers shows wrong shapes in its log only, unless they are asked for.
    options: dict[str, Any] = {"ignore_mismatched_sizes": True} if issubclass(kind, PreTrainedModel) else {}
    component = folder.name
    name = component if files is None else f"{component}/{files.main.name}"
    try:
        loaded: Any = kind.from_pretrained(
            folder,
            dtype=dtype,
            variant=None if files is None else files.variant,
            use_safetensors=None if files is None else files.is_safetensors,
            local_files_only=True,
            output_loading_info=True,
            **options,
        )
        network, report = loaded
    except Exception as error:  # noqa: BLE001  (a damaged folder makes the libraries raise anything)
        if shapes := _SHAPES.search(str(error)):
            key, ours, theirs = shapes.groups()
            raise BaseModelError(
                f"{name} holds tensors of other shapes: {key} is ({theirs}), allowed is ({ours})"
            ) from error
        raise BaseModelError(f"{component} cannot be built: {summary_of(error)}") from error
    if missing := sorted(report["missing_keys"]):
        others = sorted(report["unexpected_keys"])
        raise BaseModelError(
            f"{name} lacks {len(missing)} of {len(network.state_dict())} tensors: {first_of(missing)}"
            + (f"; it holds {len(others)} that no {component} has: {first_of(others)}" if others else "")
        )
    _refuse_unexpected(name, component, [key for key in report["unexpected_keys"] if not _HARMLESS.search(key)])
    if mismatched := sorted((str(key), tuple(theirs), tuple(ours)) for key, theirs, ours in report["mismatched_keys"]):
        shapes = [f"{key} is {theirs}, allowed is {ours}" for key, theirs, ours in mismatched]
        raise BaseModelError(f"{name} holds {len(shapes)} tensors of other shapes: {first_of(shapes)}")
    return network


def _refuse_unexpected(name: str, component: str, keys: list[str]) -> None:
    """Refuse tensors that a network has no place for: the libraries drop them, and the rest means something else."""
    if not keys:
        return
    if any(_QUANTISED.search(key) for key in keys):
        cure = "the weights are quantised; allowed are plain ones of 16 or 32 bits"
    elif any(_ADDED.search(key) for key in keys):
        cure = "an adapter was left in it; allowed is the network alone"
    else:
        cure = f"allowed are the weights of {component}/config.json"
    raise BaseModelError(
        f"{name} holds {len(keys)} tensors that its {component} has not: {first_of(sorted(keys))}; {cure}"
    )
