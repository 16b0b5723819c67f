"""How a base is loaded from a pipeline folder, whatever its family."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import nn

from orthoplex.concepts import BaseIdentity
from orthoplex.errors import BaseModelError
from orthoplex.files import DTYPES, Header, without_warnings
from orthoplex.models.base import Base
from orthoplex.models.base_folder import base_folder, check_weight_files, read_index
from orthoplex.models.brought import Brought, brought_by_vignette
from orthoplex.models.families import family_of
from orthoplex.models.families.family import Family
from orthoplex.models.families.parts import check_part, named_class
from orthoplex.models.identity import weights_hash
from orthoplex.models.problems import all_done, prefixed
from orthoplex.models.quantising import (
    check_quantisation,
    denoiser_of,
    gguf_files,
    has_plain_numbers,
    quantise_network,
    stored_forms,
    stored_hash,
)
from orthoplex.models.quiet import quiet
from orthoplex.models.streamed_identity import FolderHash
from orthoplex.models.versions import EMBEDDED
from orthoplex.models.weight_files import WeightFiles, find_weights, stored_dtype
from orthoplex.options import Quantisation

_LOADING = Lock()


def load_base(
    name_or_path: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    quantise: Quantisation | None = None,
    denoiser: str | Path | None = None,
) -> Base:
    """Load a base model from a pipeline folder, or the embedded one by the name ``"vignette"``.

    Args:
        name_or_path: ``"vignette"`` or a folder with ``model_index.json``.
        dtype: Data type of the weights.
        device: Where the weights go.
        quantise: How the denoiser's linear layers are quantised after loading; the base's identity is that of the
            folder's weights.
        denoiser: A GGUF file whose weights stand in the place of the denoiser's; the folder gives all else.

    Raises:
        BaseModelError: If the folder is missing, is no pipeline, is of an unsupported class, or is damaged; or if the
            device is not there, or cannot do the quantisation. Its message is the first of the things that are wrong; ``problems_of`` has all of them.
        ConfigurationError: For an unknown quantisation, or one of weights that are quantised already.
        MissingExtraError: If a package that quantises is not installed.
    """
    place = _device(device)
    if quantise is not None:
        check_quantisation(quantise)
    embedded, folder = str(name_or_path) == EMBEDDED, base_folder(name_or_path)
    index = read_index(name_or_path)
    family = family_of(index["_class_name"])
    weight_files = {component: find_weights(folder / component, component) for component in family.weighed}
    if denoiser is not None:
        weight_files[denoiser_of(family)] = gguf_files(denoiser)
    headers = _checked_headers(family, folder, index, weight_files, name_or_path)
    stored = stored_forms(family, folder, weight_files, quantise)
    hashed = [component for component in family.changed if component not in stored]
    # Of several GGUF files in a folder, its files do not tell which one was loaded.
    is_known = denoiser is None
    identity = FolderHash(
        {component: weight_files[component] if is_known else None for component in family.changed},
        {component: headers[component] if component in hashed else None for component in family.changed},
    )
    # The libraries change how networks are built, for all threads, while they load. They warn of settings of older
    # folders, which they bring up to date themselves.
    with _LOADING, quiet(), without_warnings(), identity:
        pipeline = _load(family, folder, index, weight_files, dtype, name_or_path)
        # Weights that were loaded before are finite, unless they come in a narrower type now; the hash holds no others.
        known = {item for item in family.changed if identity.is_remembered and _holds_all(dtype, headers[item])}
        with prefixed(f"base '{name_or_path}': "):
            _check_finite({item: pipeline.components[item] for item in family.weighed if item not in known})
        weights = identity.result(_hashed(family, pipeline))
        if weights is None and stored:
            plain = {component: headers[component] for component in hashed}
            weights = stored_hash(plain, {component: pipeline.components[component] for component in hashed}, stored)
            identity.remember(weights)
        if weights is None:
            # bfloat16 rounds more coarsely than the float16 that the hash sees.
            is_exact = dtype in (torch.float16, torch.float32)
            exact = pipeline if is_exact else _load(family, folder, index, weight_files, torch.float32, name_or_path)
            weights = weights_hash(_hashed(family, exact))
            identity.remember(weights)
        if quantise is not None:
            quantise_network(pipeline.components[denoiser_of(family)], quantise, place)
        if place.type != "cpu":
            pipeline.to(place)
    for component in family.weighed:
        pipeline.components[component].requires_grad_(False).eval()
    name = EMBEDDED if embedded else folder.resolve().name
    version = EMBEDDED if embedded else family.version(pipeline)
    types = {component: kind for component, files in headers.items() if files and (kind := stored_dtype(files))}
    brought = brought_by_vignette() if embedded else Brought()
    return Base(pipeline, BaseIdentity(family=version, hash=weights, name=name), types, brought)


def _load(
    family: type[Family],
    folder: Path,
    index: Mapping[str, Any],
    weight_files: Mapping[str, WeightFiles | None],
    dtype: torch.dtype,
    name_or_path: str | Path,
) -> Any:  # noqa: ANN401  (pipelines share no typed parent)
    with prefixed(f"base '{name_or_path}' cannot be loaded: "):
        pipeline = family.load(folder, index, weight_files, dtype)
    with prefixed(f"base '{name_or_path}': "):
        family.check(pipeline)
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


def _checked_headers(
    family: type[Family],
    folder: Path,
    index: Mapping[str, Any],
    weight_files: Mapping[str, WeightFiles | None],
    name_or_path: str | Path,
) -> dict[str, dict[Path, Header] | None]:
    """Check the files of all parts; return the headers of those with weights."""

    def checked(part: str) -> dict[Path, Header] | None:
        if part not in weight_files:
            check_part(index, part, folder / part)
            return None
        named_class(index, part)
        return check_weight_files(part, folder / part, weight_files[part])

    with prefixed(f"base '{name_or_path}' cannot be loaded: "):
        headers = all_done({part: partial(checked, part) for part in family.parts()})
    return {component: headers[component] for component in weight_files}


def _holds_all(dtype: torch.dtype, headers: Mapping[Path, Header] | None) -> bool:
    """Return True if every finite number of some files is finite in a type; False where the files cannot say."""
    if headers is None or not dtype.is_floating_point:
        return False
    stored = {entry.dtype for header in headers.values() for entry in header.entries.values()}
    numbers = {kind for kind in stored if not kind.startswith(("I", "U", "BOOL"))}
    return all(kind in DTYPES and torch.finfo(DTYPES[kind]).max <= torch.finfo(dtype).max for kind in numbers)


def _check_finite(networks: Mapping[str, nn.Module]) -> None:
    """Refuse weights that are not finite."""
    all_done({component: partial(_check_network, component, network) for component, network in networks.items()})


def _check_network(component: str, network: nn.Module) -> None:
    for name, values in network.state_dict().items():
        if not has_plain_numbers(values):
            continue
        # The sum of a tensor is not finite where a number in it is not, and is taken in a third of the time.
        if not values.sum(dtype=torch.float32).isfinite() and not values.isfinite().all():
            raise BaseModelError(
                f"{component}.{name} holds numbers that are not finite as {values.dtype}; allowed are finite weights"
            )
