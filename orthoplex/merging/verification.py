"""Verification: the error of a merged file in every layer, against the sum of its files in float64."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from orthoplex.adapters import LowRank
from orthoplex.concepts.exchange.lora_file import LoraFile
from orthoplex.errors import ConfigurationError
from orthoplex.merging.algorithms import create_algorithm
from orthoplex.merging.file_layers import LayerWork
from orthoplex.merging.file_members import check_files, check_kin, selected_layers
from orthoplex.merging.file_rounding import nearest
from orthoplex.merging.strengths import Strengths, changed_modules


@final
@dataclass(frozen=True)
class LayerError:
    """The error of one layer or full difference.

    Attributes:
        name: The layer, or the parameter.
        error: ``‖merged − Σ s_i ΔW_i‖_F / ‖Σ s_i ΔW_i‖_F``; infinite where the sum alone is zero.
        floor: The same of the exact factors, ``s_i up_i`` and ``down_i``, rounded once to the digits of the type of the
            merged ones, as if it had no smallest number. Of a truncation, at least the smallest distance of any
            change of its rank.
    """

    name: str
    error: float
    floor: float


def verify(
    merged: LoraFile,
    files: Sequence[tuple[LoraFile, Strengths]],
    *,
    algorithm: str = "sum",
    scale: float = 1.0,
    truncated: bool = False,
    only: Sequence[str] = (),
) -> Iterator[LayerError]:
    """Yield the error of every layer, bias and norm of a merge by ``sum`` or ``mean``, one by one.

    Norms are computed from factors: with the QR decompositions ``[up, −s_i up_i] = Q A`` and ``[down; down_i]ᵀ = P B``,
    the norm of the difference is ``‖A Bᵀ‖_F``. Only a layer with a full difference is computed as a matrix. All of it
    is float64.

    Args:
        merged: The merged file, as it was made or as it was read again.
        files: What was merged, with the strengths.
        algorithm: ``sum`` or ``mean``.
        scale: The strength of the whole.
        truncated: True if the merge was truncated: then no change of the same rank is nearer than the floor (Eckart
            and Young), or than what rounding costs, if that is more.
        only: The parts of the model that were merged; empty for all.

    Raises:
        ConfigurationError: When the algorithm is another, the files do not fit together, or the merged file lacks a
            layer of theirs or has one more.
    """
    if algorithm not in ("sum", "mean"):
        raise ConfigurationError(
            f"the merge is by {algorithm!r}, whose result has no other computation to compare it with; allowed for a "
            "verification are sum and mean"
        )
    ordered = check_files(files)
    check_kin([*(file for file, _ in ordered), merged])
    present = [(file, own) for file, own in ordered if scale and not own.is_zero]
    work = LayerWork(create_algorithm(algorithm), present, scale, None, selected_layers(ordered, only))
    exact = {layer for own in work.strengths for layer in own}
    _check_names(work, merged, exact)
    for layer in sorted(exact & {*changed_modules(merged)}):
        yield from _errors(layer, merged, work, truncated=truncated)


def _errors(layer: str, merged: LoraFile, work: LayerWork, *, truncated: bool) -> Iterator[LayerError]:
    """The errors of a layer's weight and of its bias."""
    members = [
        (file, own[layer] * work.factor)
        for (file, _), own in zip(work.files, work.strengths, strict=True)
        if layer in own
    ]
    if f"{layer}.weight" not in merged.differences and all(
        f"{layer}.weight" not in file.differences for file, _ in members
    ):
        parts = [(strength, file.layers[layer]) for file, strength in members if layer in file.layers]
        if parts and layer in merged.layers:
            yield _layer_error(layer, merged.layers[layer], parts, truncated=truncated)
    else:
        yield _matrix_error(f"{layer}.weight", layer, merged, members, truncated=truncated)
    if f"{layer}.bias" in merged.differences:
        yield _matrix_error(f"{layer}.bias", None, merged, members, truncated=False)


def _matrix_error(
    parameter: str,
    layer: str | None,
    merged: LoraFile,
    members: Sequence[tuple[LoraFile, float]],
    *,
    truncated: bool,
) -> LayerError:
    """The error of a parameter that has full differences; changes of its layer in factors count with them."""
    total = sum((_matrix(parameter, layer, file) * strength for file, strength in members), torch.zeros(()).double())
    given = _matrix(parameter, layer, merged)
    norm = float(total.norm())
    stored = merged.differences.get(parameter)
    floor = 0.0 if stored is None else float((nearest(total, stored.dtype) - total).norm())
    if stored is None and truncated and layer is not None and layer in merged.layers:
        floor = float(torch.linalg.svdvals(total)[_rank(merged.layers[layer]) :].norm())
    floor = _share(floor, norm)
    return LayerError(parameter, _share((given - total).norm(), norm), floor)


def _matrix(parameter: str, layer: str | None, file: LoraFile) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    if parameter in file.differences:
        difference = file.differences[parameter].double()
        total = total + (difference.flatten(1) if difference.ndim > 1 else difference)
    if layer is not None and layer in file.layers:
        total = total + file.layers[layer].up.double() @ file.layers[layer].down.double()
    return total


def _layer_error(layer: str, merged: LowRank, parts: Sequence[tuple[float, LowRank]], *, truncated: bool) -> LayerError:
    if any(change.shape != merged.shape for _, change in parts):
        raise ConfigurationError(
            f"layer {layer} has shape {merged.shape} in the merged file and {parts[0][1].shape} in its files; one "
            "shape is allowed"
        )
    up = torch.cat([change.up.double() * strength for strength, change in parts], 1)
    down = torch.cat([change.down.double() for _, change in parts], 0)
    core = _core([up], [down])
    norm = float(core.norm())
    error = float(_core([merged.up.double(), -up], [merged.down.double(), down]).norm())
    rounded = nearest(up, merged.up.dtype), nearest(down, merged.down.dtype)
    floor = float(_core([rounded[0], -up], [rounded[1], down]).norm())
    if truncated:
        floor = max(floor, float(torch.linalg.svdvals(core)[_rank(merged) :].norm()))
    return LayerError(layer, _share(error, norm), _share(floor, norm))


def _core(ups: Sequence[Tensor], downs: Sequence[Tensor]) -> Tensor:
    """A small matrix of the singular values of ``Σ up_i · down_i``."""
    left = torch.linalg.qr(torch.cat(list(ups), 1), mode="r")[1]
    right = torch.linalg.qr(torch.cat(list(downs), 0).T, mode="r")[1]
    return left @ right.T


def _rank(change: LowRank) -> int:
    """The rank that a change fills: a file fills lower ranks up with zeros."""
    return int((change.up != 0).any(0).sum())


def _share(error: float | Tensor, norm: float) -> float:
    error = float(error)
    return 0.0 if error == 0 else error / norm if norm else float("inf")


def _check_names(work: LayerWork, merged: LoraFile, exact: set[str]) -> None:
    """Refuse a merged file that lacks layers, or has others, unless they change nothing."""
    given = {*changed_modules(merged)}
    lacking = [layer for layer in exact - given if any(_is_changed(layer, file) for file, _ in work.files)]
    others = [layer for layer in given - exact if _is_changed(layer, merged)]
    for names, problem in ((lacking, "lacks"), (others, "has, and its files have not,")):
        if names:
            raise ConfigurationError(
                f"the merged file {problem} {len(names)} layers, such as {min(names)}; allowed are those of the files "
                "at these strengths"
            )


def _is_changed(layer: str, file: LoraFile) -> bool:
    """True if a layer's change is more than zeros, as programs write for parts of fused layers."""
    if layer in file.layers and bool(file.layers[layer].up.any()) and bool(file.layers[layer].down.any()):
        return True
    named = (f"{layer}.weight", f"{layer}.bias")
    return any(name in file.differences and bool(file.differences[name].any()) for name in named)
