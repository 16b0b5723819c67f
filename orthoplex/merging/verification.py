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
from orthoplex.merging.file_members import check_files, check_kin
from orthoplex.merging.strengths import Strengths


@final
@dataclass(frozen=True)
class LayerError:
    """The error of one layer or full difference.

    Attributes:
        name: The layer, or the parameter.
        error: ``‖merged − Σ s_i ΔW_i‖_F / ‖Σ s_i ΔW_i‖_F``; infinite where the sum alone is zero.
        floor: The same of the exact factors, ``s_i up_i`` and ``down_i``, rounded once to the type of the merged ones:
            no file of this type with these factors is nearer.
    """

    name: str
    error: float
    floor: float


def verify(
    merged: LoraFile, files: Sequence[tuple[LoraFile, Strengths]], *, scale: float = 1.0
) -> Iterator[LayerError]:
    """Yield the error of every layer and full difference of a merge by ``sum``, one by one.

    Norms are computed from factors: with the QR decompositions ``[up, −s_i up_i] = Q A`` and ``[down; down_i]ᵀ = P B``,
    the norm of the difference is ``‖A Bᵀ‖_F``. All of it is float64.

    Args:
        merged: The merged file, as it was made or as it was read again.
        files: What was merged, with the strengths.
        scale: The strength of the whole.

    Raises:
        ConfigurationError: When the files do not fit together, or the merged file lacks a layer of theirs or has one
            more.
    """
    ordered = check_files(files)
    check_kin([*(file for file, _ in ordered), merged])
    strengths = [own.of_layers(file) for file, own in ordered]
    exact = {
        layer
        for (file, _), own in zip(ordered, strengths, strict=True)
        for layer in file.layers
        if own[layer] * scale != 0
    }
    _check_names("layers", exact, set(merged.layers))
    for layer in sorted(exact):
        parts = [
            (own[layer] * scale, file.layers[layer])
            for (file, _), own in zip(ordered, strengths, strict=True)
            if layer in file.layers
        ]
        yield _layer_error(layer, merged.layers[layer], parts)
    yield from _difference_errors(merged, [file for file, _ in ordered], strengths, scale)


def _difference_errors(
    merged: LoraFile, files: Sequence[LoraFile], strengths: Sequence[dict[str, float]], scale: float
) -> Iterator[LayerError]:
    exact: dict[str, Tensor] = {}
    for file, own in zip(files, strengths, strict=True):
        for name, difference in file.differences.items():
            strength = own[name.rpartition(".")[0]] * scale
            if strength != 0:
                exact[name] = exact.get(name, torch.zeros(())) + difference.double() * strength
    _check_names("full differences", set(exact), set(merged.differences))
    for name, total in sorted(exact.items()):
        given = merged.differences[name]
        norm = float(total.norm())
        yield LayerError(
            name,
            _share((given.double() - total).norm(), norm),
            _share((_rounded(total, given.dtype) - total).norm(), norm),
        )


def _layer_error(layer: str, merged: LowRank, parts: Sequence[tuple[float, LowRank]]) -> LayerError:
    if any(change.shape != merged.shape for _, change in parts):
        raise ConfigurationError(
            f"layer {layer} has shape {merged.shape} in the merged file and {parts[0][1].shape} in its files; one "
            "shape is allowed"
        )
    up = torch.cat([change.up.double() * strength for strength, change in parts], 1)
    down = torch.cat([change.down.double() for _, change in parts], 0)
    norm = _norm([up], [down])
    rounded = _rounded(up, merged.up.dtype), _rounded(down, merged.down.dtype)
    return LayerError(
        layer,
        _share(_norm([merged.up.double(), -up], [merged.down.double(), down]), norm),
        _share(_norm([rounded[0], -up], [rounded[1], down]), norm),
    )


def _norm(ups: Sequence[Tensor], downs: Sequence[Tensor]) -> float:
    """``‖Σ up_i · down_i‖_F``."""
    left = torch.linalg.qr(torch.cat(list(ups), 1), mode="r")[1]
    right = torch.linalg.qr(torch.cat(list(downs), 0).T, mode="r")[1]
    return float((left @ right.T).norm())


def _rounded(exact: Tensor, dtype: torch.dtype) -> Tensor:
    return exact.to(dtype).double()


def _share(error: float | Tensor, norm: float) -> float:
    error = float(error)
    return 0.0 if error == 0 else error / norm if norm else float("inf")


def _check_names(what: str, exact: set[str], given: set[str]) -> None:
    for names, problem in ((exact - given, "lacks"), (given - exact, "has, and its files have not,")):
        if names:
            raise ConfigurationError(
                f"the merged file {problem} {len(names)} {what}, such as {min(names)}; allowed are those of "
                "the files at these strengths"
            )
