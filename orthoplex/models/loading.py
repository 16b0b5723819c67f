"""How a base is loaded from a pipeline folder, whatever its family."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from orthoplex import vignette
from orthoplex.concepts import BaseIdentity
from orthoplex.errors import BaseModelError
from orthoplex.files import read_json
from orthoplex.models.base import Base
from orthoplex.models.brought import Brought, brought_by_vignette
from orthoplex.models.families import FAMILIES, family_of
from orthoplex.models.families.family import Family
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
    embedded = str(name_or_path) == EMBEDDED
    folder = vignette.folder() if embedded else Path(name_or_path)
    index = _index(folder, name_or_path)
    family = family_of(index["_class_name"])
    weight_files = {component: find_weights(folder / component, component) for component in family.weighed}
    headers = {component: read_headers(files) for component, files in weight_files.items()}
    identity = FolderHash(
        {component: weight_files[component] for component in family.changed},
        {component: headers[component] for component in family.changed},
    )
    # The libraries change how networks are built, for all threads, while they load.
    with _LOADING, quiet(), identity:
        pipeline = _load(family, folder, index, weight_files, dtype, name_or_path)
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
        raise BaseModelError(
            f"base '{name_or_path}' cannot be loaded: {_damaged_weights(folder)}{type(error).__name__}: {error}"
        ) from error
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


def _index(folder: Path, name_or_path: str | Path) -> Mapping[str, Any]:
    """What ``model_index.json`` says, of a supported pipeline."""
    path = folder / "model_index.json"
    if not folder.is_dir() or not str(name_or_path):
        raise BaseModelError(f"base '{name_or_path}' is no folder, allowed are '{EMBEDDED}' and pipeline folders")
    try:
        index = read_json(path)
        name = index["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BaseModelError(f"base '{name_or_path}' is no pipeline folder: no class name in {path.name}") from error
    if not isinstance(name, str) or name not in FAMILIES:
        raise BaseModelError(f"base '{name_or_path}' is a {name}, supported are {', '.join(sorted(FAMILIES))}")
    return index


def _damaged_weights(folder: Path) -> str:
    """Name the first weights whose header cannot be read; the libraries do not."""
    for path in sorted(folder.rglob("*.safetensors")):
        try:
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError):
            return f"{path.relative_to(folder)} is damaged: "
    return ""
