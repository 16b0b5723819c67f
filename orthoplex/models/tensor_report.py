"""What files of weights hold beside, or in the place of, the tensors that a network has."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from torch import nn

from orthoplex.errors import BaseModelError
from orthoplex.models.problems import first_of

_HARMLESS = re.compile(r"(^|\.)(position_ids|logit_scale|num_batches_tracked)$|^(text_projection|visual|vision_model)")
"""Tensors that files of text encoders hold besides, and that change nothing."""
_SCALES = (
    r"\.(scale_weight|weight_scale|scale_input|input_scale|comfy_quant|absmax|quant_map|quant_state\.|SCB$|zero_point)"
)
_QUANTISED = re.compile(rf"{_SCALES}|\.scale$")
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
    _refuse_unexpected(name, component, [key for key in unexpected if not _HARMLESS.search(key)])
    if mismatched:
        shapes = [f"{key} is {theirs}, allowed is {ours}" for key, theirs, ours in sorted(mismatched)]
        raise BaseModelError(f"{name} holds {len(shapes)} tensors of other shapes: {first_of(shapes)}")


def check_plain(name: str, component: str, keys: Iterable[str]) -> None:
    """Refuse a checkpoint file of quantised weights, before its tensors are renamed: scales get lost there.

    Args:
        name: The file, as errors show it.
        component: The component's name.
        keys: The component's tensors under the names of the file.

    Raises:
        BaseModelError: Names the file and the first scales.
    """
    _refuse_unexpected(name, component, [key for key in keys if re.search(_SCALES, key)])


def check_all_used(name: str, component: str, lost: int) -> None:
    """Refuse a checkpoint file of which renaming, which cuts and joins tensors, left some out.

    Args:
        name: The file, as errors show it.
        component: The component's name.
        lost: The numbers that are in no renamed tensor.

    Raises:
        BaseModelError: Says how many they are.
    """
    if lost > 0:
        raise BaseModelError(
            f"{name} holds {lost:,} numbers of its {component} that are part of no such network; allowed are the weights "
            f"of {component}/config.json"
        )


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
