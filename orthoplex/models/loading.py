"""How a base is loaded from a pipeline folder, whatever its family."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import nn

from orthoplex.concepts import BaseIdentity
from orthoplex.errors import BaseModelError
from orthoplex.files import summary_of, without_warnings
from orthoplex.models.base import Base
from orthoplex.models.base_folder import base_folder, check_weight_files, read_index
from orthoplex.models.brought import Brought, brought_by_vignette
from orthoplex.models.families import family_of
from orthoplex.models.families.family import Family
from orthoplex.models.families.parts import named_class
from orthoplex.models.identity import weights_hash
from orthoplex.models.quiet import quiet
from orthoplex.models.streamed_identity import FolderHash
from orthoplex.models.versions import EMBEDDED
from orthoplex.models.weight_files import WeightFiles, find_weights, read_headers, stored_dtype

_LOADING = Lock()


def load_base(
    name_or_path: str | Path, *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> Base:
    """Load a base model from a pipeline folder, or the embedded one by the name ``"vignette"``.

    Args:
        name_or_path: ``"vignette"`` or a folder with ``model_index.json``.
        dtype: Data type of the weights.
        device: Where the weights go.

    Raises:
        BaseModelError: If the folder is missing, is no pipeline, is of an unsupported class, or is damaged; or if the
            device is not there.
    """
    place = _device(device)
    embedded, folder = str(name_or_path) == EMBEDDED, base_folder(name_or_path)
    index = read_index(name_or_path)
    family = family_of(index["_class_name"])
    weight_files = {component: find_weights(folder / component, component) for component in family.weighed}
    _check_files(folder, index, weight_files, name_or_path)
    headers = {component: read_headers(files) for component, files in weight_files.items()}
    identity = FolderHash(
        {component: weight_files[component] for component in family.changed},
        {component: headers[component] for component in family.changed},
    )
    # The libraries change how networks are built, for all threads, while they load. They warn of settings of older
    # folders, which they bring up to date themselves.
    with _LOADING, quiet(), without_warnings(), identity:
        pipeline = _load(family, folder, index, weight_files, dtype, name_or_path)
        if not identity.is_remembered:
            _check_finite(family, pipeline, name_or_path)
        weights = identity.result(_hashed(family, pipeline))
        if weights is None:
            # bfloat16 rounds more coarsely than the float16 that the hash sees.
            is_exact = dtype in (torch.float16, torch.float32)
            exact = pipeline if is_exact else _load(family, folder, index, weight_files, torch.float32, name_or_path)
            weights = weights_hash(_hashed(family, exact))
            identity.remember(weights)
        if place.type != "cpu":
            pipeline.to(place)
    for component in family.weighed:
        pipeline.components[component].requires_grad_(False).eval()
    name = EMBEDDED if embedded else folder.resolve().name
    version = EMBEDDED if embedded else family.version(pipeline)
    stored = {component: kind for component, files in headers.items() if files and (kind := stored_dtype(files))}
    brought = brought_by_vignette() if embedded else Brought()
    return Base(pipeline, BaseIdentity(family=version, hash=weights, name=name), stored, brought)


def _load(
    family: type[Family],
    folder: Path,
    index: Mapping[str, Any],
    weight_files: Mapping[str, WeightFiles | None],
    dtype: torch.dtype,
    name_or_path: str | Path,
) -> Any:  # noqa: ANN401  (pipelines share no typed parent)
    try:
        pipeline = family.load(folder, index, weight_files, dtype)
    except BaseModelError as error:
        raise BaseModelError(f"base '{name_or_path}' cannot be loaded: {error}") from error
    except Exception as error:  # noqa: BLE001  (a damaged folder makes the libraries raise anything)
        raise BaseModelError(f"base '{name_or_path}' cannot be loaded: {summary_of(error)}") from error
    try:
        family.check(pipeline)
    except BaseModelError as error:
        raise BaseModelError(f"base '{name_or_path}': {error}") from error
    return pipeline


def _hashed(family: type[Family], pipeline: Any) -> dict[str, nn.Module]:  # noqa: ANN401  (likewise)
    return {component: pipeline.components[component] for component in family.changed}


def _device(device: str | torch.device) -> torch.device:
    try:
        probe = torch.zeros(1, device=device)
        probe.cpu()  # the device "meta" holds no data to give back
        return probe.device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise BaseModelError(f"device is '{device}', allowed are cpu and what this torch has: {reason}") from error


def _check_files(
    folder: Path, index: Mapping[str, Any], weight_files: Mapping[str, WeightFiles | None], name_or_path: str | Path
) -> None:
    for component, files in weight_files.items():
        try:
            named_class(index, component)
            check_weight_files(component, folder / component, files)
        except BaseModelError as error:
            raise BaseModelError(f"base '{name_or_path}' cannot be loaded: {error}") from error


def _check_finite(family: type[Family], pipeline: Any, name_or_path: str | Path) -> None:  # noqa: ANN401
    """Refuse weights that are not finite; the sum of a tensor is not where a number in it is not."""
    for component in family.weighed:
        for name, values in pipeline.components[component].named_parameters():
            if not math.isfinite(values.detach().sum(dtype=torch.float32)):
                raise BaseModelError(
                    f"base '{name_or_path}': {component}.{name} holds numbers that are not finite as {values.dtype}; "
                    "allowed are finite weights"
                )
