"""Networks of diffusers and transformers, loaded whole, without the notices that importing and loading them logs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from orthoplex.errors import BaseModelError
from orthoplex.files import summary_of
from orthoplex.models.checkpoint_networks import load_checkpoint_part
from orthoplex.models.quantising import GGUF_SUFFIX, load_gguf
from orthoplex.models.quiet import quiet
from orthoplex.models.tensor_report import check_tensors
from orthoplex.models.weight_files import WeightFiles

with quiet():
    from transformers import PreTrainedModel
    from transformers.utils.generic import ModelOutput

__all__ = ["ModelOutput", "load_network"]

_SHAPES = re.compile(r"because (\S+) expected shape torch\.Size\(\[(.*?)\]\), but got torch\.Size\(\[(.*?)\]\)\.")
"""How diffusers names a weight of another shape; the advice that follows does not help here."""


def load_network(kind: Any, folder: Path, files: WeightFiles | None, dtype: torch.dtype) -> nn.Module:  # noqa: ANN401
    """Load one network whole; the libraries fill what a file lacks with random numbers.

    Args:
        kind: The network's class, of diffusers or transformers.
        folder: The component's folder, named as the component is.
        files: Its files, or its part of a checkpoint file, or None to let the library search.
        dtype: Data type of the weights.

    Raises:
        BaseModelError: If the folder is damaged, or a weight is missing or of another shape; names the file and the
            first such weights.
    """
    if files is not None and files.main.suffix == GGUF_SUFFIX:
        return load_gguf(kind, folder, files.main, dtype)
    if files is not None and files.part is not None:
        return load_checkpoint_part(kind, folder, files.part, dtype)
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
    check_tensors(
        name,
        component,
        network,
        missing=report["missing_keys"],
        unexpected=report["unexpected_keys"],
        mismatched=[(str(key), tuple(theirs), tuple(ours)) for key, theirs, ours in report["mismatched_keys"]],
    )
    return network
