"""What files of weights hold beside, or in the place of, the tensors that a network has."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from torch import nn

from orthoplex.errors import BaseModelError
from orthoplex.models.problems import first_of

_HARMLESS = re.compile(
    r"(^|\.)(position_ids|logit_scale|num_batches_tracked|spiece_model)$|^(text_projection|visual|vision_model)"
)
"""Tensors that files of text encoders hold besides, and that change nothing."""
_QUANTISED = re.compile(
    r"\.(scale_weight|weight_scale|scale_input|input_scale|absmax|quant_map|quant_state\.|SCB$|zero_point)"
    r"|(^|\.)(scaled_fp8|comfy_quant)$"
)
"""Tensors beside quantised weights. ``.scale`` too, where it is not the weight of a normalisation."""
_ADDED = re.compile(r"lora|hada|lokr|motion_modules|ip_adapter", re.IGNORECASE)


def check_tensors(
    name: str,
    component: str,
    network: nn.Module,
    *,
    missing: Iterable[str],
    unexpected: Iterable[str],
    mismatched: Sequence[tuple[str, tuple[int, ...], tuple[int, ...]]],
) -> None:
    """Refuse a file that does not hold just the tensors of a network.

    Args:
        name: The file, as errors show it.
        component: The component's name.
        network: The network.
        missing: Tensors that the file lacks.
        unexpected: Tensors of the file that the network lacks.
        mismatched: Tensor, its shape in the file, and that of the network.

    Raises:
        BaseModelError: Names the file and the first such tensors.
    """
    if lacking := sorted(missing):
        others = sorted(unexpected)
        raise BaseModelError(
            f"{name} lacks {len(lacking)} of {len(network.state_dict())} tensors: {first_of(lacking)}"
            + (f"; it holds {len(others)} that no {component} has: {first_of(others)}" if others else "")
        )
    refuse_unexpected(name, component, unexpected)
    if mismatched:
        shapes = [f"{key} is {theirs}, allowed is {ours}" for key, theirs, ours in sorted(mismatched)]
        raise BaseModelError(f"{name} holds {len(shapes)} tensors of other shapes: {first_of(shapes)}")


def refuse_quantised(name: str, component: str, keys: Iterable[str]) -> None:
    """Refuse names of which some say that the others are quantised, before they are read as plain weights.

    Args:
        name: The file, as errors show it.
        component: The component's name.
        keys: The names of its tensors.

    Raises:
        BaseModelError: Names the file and the first such tensors.
    """
    refuse_unexpected(name, component, [key for key in keys if _QUANTISED.search(key)])


def refuse_unexpected(name: str, component: str, unexpected: Iterable[str]) -> None:
    """Refuse tensors that a network has no place for: the libraries drop them, and the rest means something else.

    Args:
        name: The file, as errors show it.
        component: The component's name.
        unexpected: The tensors; some change nothing, and are not refused.

    Raises:
        BaseModelError: Names the file and the first such tensors.
    """
    keys = [key for key in unexpected if not _HARMLESS.search(key)]
    if not keys:
        return
    if any(_QUANTISED.search(key) or key.endswith(".scale") for key in keys):
        cure = "the weights are quantised; allowed are plain ones of 16 or 32 bits"
    elif any(_ADDED.search(key) for key in keys):
        cure = "an adapter was left in it; allowed is the network alone"
    else:
        cure = f"allowed are the weights of {component}/config.json"
    raise BaseModelError(
        f"{name} holds {len(keys)} tensors that its {component} has not: {first_of(sorted(keys))}; {cure}"
    )
