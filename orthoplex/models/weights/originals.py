"""The original numbers of weights that are changed, and where they are stored meanwhile."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from torch import Tensor, nn

from orthoplex.errors import OutputError
from orthoplex.models.weights.factor_facts import HALVES
from orthoplex.models.weights.refusals import matrix_shape
from orthoplex.options import OriginalsPlace

_SAMPLED = 1 << 15
"""Numbers of a weight whose rounding is looked at."""


@final
@dataclass(frozen=True, eq=False)
class Original:
    """A weight and what it was.

    Attributes:
        weight: The parameter, which holds the change now.
        values: What it held before, as a matrix ``(out, in)``, wherever it is stored.
        peak: The largest of these numbers in size.
        rounding: The expected ``‖error‖²`` of rounding such numbers to their type once.
        shared: The memory that it shared with another parameter, and has left meanwhile; None for memory of its own.
    """

    weight: nn.Parameter
    values: Tensor
    peak: float
    rounding: float
    shared: Tensor | None = None

    def is_of(self, place: tuple[nn.Module, str], shape: tuple[int, int]) -> bool:
        """Return True if the weight is still the parameter of a module, in memory, and a change has its shape."""
        module, part = place
        return module._parameters.get(part) is self.weight and not self.weight.is_meta and self.values.shape == shape


@final
class Originals:
    """The original numbers of changed weights; each weight is copied once, before its first change.

    - ``"memory"``: on the weight's own device; one more copy of every weight that is changed.
    - ``"pinned"``: page-locked in the host's memory, for weights on a GPU, whose memory holds the base once; each
      change of a weight brings its original over the bus. On a CPU it is ``"memory"``.
    - ``"mapped"``: in a file without a name in the folder for temporary files, mapped into memory. The system may push
      it out when memory is short; each change reads it again then.
    """

    def __init__(self, place: OriginalsPlace = "memory") -> None:
        """Begin without any weight.

        Args:
            place: Where numbers are stored.
        """
        self.place: OriginalsPlace = place
        self._stored: dict[str, Original] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._stored

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __getitem__(self, name: str) -> Original:
        return self._stored[name]

    @property
    def num_bytes(self) -> int:
        """The bytes of all numbers that are stored."""
        return sum(item.values.nbytes for item in self._stored.values())

    @torch.no_grad()
    def store(self, name: str, weight: nn.Parameter, *, is_shared: bool = False) -> Original:
        """Copy a weight, unless it was copied before, and return what it was.

        Args:
            name: The layer's name.
            weight: The weight.
            is_shared: True lets it leave its memory, which others would be written with; see ``sharing_memory``.

        Raises:
            OutputError: If there is no room for the file; names the folder.
        """
        if name not in self._stored:
            values, shared = self._copied(weight.data), weight.data if is_shared else None
            if is_shared:
                weight.data = weight.data.clone(memory_format=torch.contiguous_format)
            lowest, highest = (float(edge) for edge in torch.aminmax(weight.data)) if weight.numel() else (0.0, 0.0)
            peak = max(abs(lowest), abs(highest))
            self._stored[name] = Original(
                weight, values, peak if math.isfinite(peak) else math.inf, _rounding(weight.data), shared
            )
        return self._stored[name]

    @torch.no_grad()
    def put_back(self, name: str) -> None:
        """Write the original numbers into a weight; they stay stored."""
        item = self._stored[name]
        weight = item.weight.data
        weight.copy_(item.values.view(weight.shape))

    def restore(self) -> None:
        """Put all numbers back, and forget them; a weight that left shared memory is in it again."""
        for name, item in self._stored.items():
            shared, weight = item.shared, item.weight
            if shared is not None and (shared.dtype, shared.device) == (weight.dtype, weight.device):
                weight.data = shared
            else:
                self.put_back(name)
        self._stored.clear()

    def _copied(self, weight: Tensor) -> Tensor:
        shape = matrix_shape(weight.shape)
        if self.place == "mapped" and weight.numel():
            values = _mapped(weight.numel(), weight.dtype).view(shape)
        elif self.place == "pinned" and weight.is_cuda:
            values = torch.empty(shape, dtype=weight.dtype, pin_memory=True)
        else:
            values = torch.empty(shape, dtype=weight.dtype, device=weight.device)
        values.view(weight.shape).copy_(weight)
        return values


def sharing_memory(parameters: Iterable[nn.Parameter]) -> set[int]:
    """Return the ids of parameters that cannot be written alone, because numbers of theirs are others' too.

    Args:
        parameters: All parameters of the networks.
    """
    distinct = {id(item): item.data for item in parameters if not item.is_meta and item.numel()}
    spans = sorted((*_bytes(values), own) for own, values in distinct.items())
    sharing = {own for own, values in distinct.items() if _repeats(values)}
    highest, holder = 0, 0
    for start, end, own in spans:
        if start < highest:
            sharing |= {own, holder}
        if end > highest:
            highest, holder = end, own
    return sharing


def _rounding(values: Tensor) -> float:
    """The expected ``‖error‖²`` of one rounding, ``Σ ulp² / 12``, from numbers that stand for all."""
    if values.dtype not in HALVES or not values.numel():
        return 0.0
    numbers = values.flatten()[:: max(1, values.numel() // _SAMPLED)].float()
    exponents = torch.frexp(numbers).exponent.double() - 1
    units = torch.where(numbers == 0, 0.0, torch.exp2(exponents) * torch.finfo(values.dtype).eps)
    return float(units.square().mean()) / 12 * values.numel()


def _repeats(values: Tensor) -> bool:
    """True if several numbers of a tensor are one in memory."""
    return any(stride == 0 and size > 1 for stride, size in zip(values.stride(), values.shape, strict=True))


def _bytes(values: Tensor) -> tuple[int, int]:
    """The addresses of the first byte of a tensor, and of the one behind the last."""
    span = 1 + sum(stride * (size - 1) for stride, size in zip(values.stride(), values.shape, strict=True))
    return values.data_ptr(), values.data_ptr() + span * values.itemsize


def _mapped(count: int, dtype: torch.dtype) -> Tensor:
    """Numbers in a file of its own, which is gone when nobody holds them."""
    folder = Path(tempfile.gettempdir())
    descriptor, path = tempfile.mkstemp(prefix="orthoplex-", dir=folder)
    size = count * dtype.itemsize
    try:
        _reserve(descriptor, size)
        values = torch.from_file(path, shared=True, size=count, dtype=dtype)
    except OSError as error:
        raise OutputError(
            f"original weights of {size} bytes cannot be mapped into folder {folder}: {error.strerror}; allowed is a "
            "folder with room, named by TMPDIR, or originals in memory"
        ) from error
    finally:
        os.close(descriptor)
        with suppress(PermissionError):  # Windows removes no file that is mapped
            Path(path).unlink()
    return values


def _reserve(descriptor: int, size: int) -> None:
    """Give a file its size, and room for it now: a full disk would end the program later."""
    if "posix_fallocate" in vars(os):
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.ftruncate(descriptor, size)
