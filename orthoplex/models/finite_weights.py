"""Weights are finite: looked at in their files piece by piece where these say all, in memory otherwise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from io import FileIO
from pathlib import Path

import torch
from torch import Tensor, nn

from orthoplex.errors import BaseModelError
from orthoplex.files import DTYPES, Header
from orthoplex.models.problems import all_done
from orthoplex.models.quantising import has_plain_numbers
from orthoplex.models.streamed_identity import CHUNK_BYTES, chunks


def check_finite(networks: Mapping[str, nn.Module], headers: Mapping[str, Mapping[Path, Header]]) -> None:
    """Refuse weights that are not finite.

    Networks may lie in their files until they are used: to look at their numbers would bring all of them into memory.

    Args:
        networks: Component to its network.
        headers: Components whose numbers are finite in memory where they are in their files, to these.

    Raises:
        BaseModelError: Names the first such tensor of each network.
    """
    all_done({name: partial(_check, name, network, headers.get(name)) for name, network in networks.items()})


def _check(component: str, network: nn.Module, headers: Mapping[Path, Header] | None) -> None:
    if headers is not None and _are_finite(headers):
        return
    for name, values in network.state_dict().items():
        if has_plain_numbers(values) and not _is_finite(values):
            raise BaseModelError(
                f"{component}.{name} holds numbers that are not finite as {values.dtype}; allowed are finite weights"
            )


def _are_finite(headers: Mapping[Path, Header]) -> bool:
    """Return True if all numbers of some files are; a file may hold more than its network, which is asked then."""
    buffer = bytearray(CHUNK_BYTES)
    try:
        for path, header in headers.items():
            with FileIO(path) as file:
                for entry in header.entries.values():
                    if (dtype := DTYPES.get(entry.dtype)) is None:
                        continue
                    start, end = header.data_start + entry.start, header.data_start + entry.end
                    if not all(
                        _is_finite(torch.frombuffer(each, dtype=dtype)) for each in chunks(file, start, end, buffer)
                    ):
                        return False
    except OSError:
        return False
    return True


def _is_finite(values: Tensor) -> bool:
    """Return True if all numbers are; the least and the largest say so in a tenth of the time of ``isfinite``."""
    if not values.numel():
        return True
    least, largest = torch.aminmax(values.detach())
    return math.isfinite(least.item()) and math.isfinite(largest.item())
