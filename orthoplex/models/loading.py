"""How a base is loaded from a pipeline folder or a checkpoint file, whatever its family."""

from __future__ import annotations

import logging
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
from orthoplex.models.base_choice import BaseChoice, BaseName, choice_of
from orthoplex.models.base_folder import check_parts_held, check_weight_files, hub_advised, read_index
from orthoplex.models.base_place import BasePlace, base_place
from orthoplex.models.brought import Brought, brought_by_vignette
from orthoplex.models.checkpoint_networks import stored_tensors
from orthoplex.models.families import family_of
from orthoplex.models.families.family import Family
from orthoplex.models.families.parts import check_part, named_class
from orthoplex.models.finite_weights import check_finite
from orthoplex.models.identity import weights_hash
from orthoplex.models.problems import all_done, prefixed
from orthoplex.models.quantising import (
    GGUF_SUFFIX,
    check_quantisation,
    denoiser_of,
    gguf_files,
    quantise_network,
    quantised_files,
    stored_hash,
)
from orthoplex.models.quiet import quiet
from orthoplex.models.schedules import set_schedule
from orthoplex.models.streamed_identity import FolderHash
from orthoplex.models.versions import EMBEDDED
from orthoplex.models.weight_files import WeightFiles, read_headers, stored_dtype
from orthoplex.options import Quantisation

_LOADING = Lock()
_LOG = logging.getLogger(__name__)
_DECIDING = ("is_distilled", "prediction_type", "rescale_betas_zero_snr", "shift", "use_dynamic_shifting")
"""Settings by which the same weights draw other pictures, of a pipeline or of its scheduler."""


def load_base(
    name_or_path: BaseName,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    variant: str | None = None,
    config: str | Path | None = None,
    download: bool = False,
    quantise: Quantisation | None = None,
    denoiser: str | Path | None = None,
) -> Base:
    """Load a base model from a folder, the hub's cache or a checkpoint file, or the embedded one.

    Args:
        name_or_path: ``"vignette"``, a folder with ``model_index.json``, the name of one on the hub, as
            ``owner/name`` or ``owner/name@revision``, or a ``.safetensors`` checkpoint file; or a ``BaseChoice``,
            which says how it is read besides.
        dtype: Data type of the weights.
        device: Where the weights go.
        variant: See ``BaseChoice``.
        config: See ``BaseChoice``.
        download: See ``BaseChoice``.
        quantise: How the denoiser's linear layers are quantised after loading; identities are those of plain weights.
        denoiser: A GGUF file whose weights stand in the place of the denoiser's.

    Raises:
        BaseModelError: If the folder is missing, is no pipeline, is of an unsupported class, or is damaged; or if the
            device is not there. Its message is the first of the things that are wrong; ``problems_of`` has all of them.
        ConfigurationError: For an unknown quantisation, one of quantised weights, or one whose package is missing.
    """
    device_of_weights = _device(device)
    check_quantisation(quantise)
    choice = _choice(name_or_path, variant, config, download=download)
    place = base_place(choice)
    index = read_index(place)
    family = family_of(index["_class_name"])
    weight_files = {component: place.weights(component) for component in family.weighed}
    weight_files |= {} if denoiser is None else {denoiser_of(family): gguf_files(denoiser)}
    headers = _checked_headers(family, place, index, weight_files)
    stored = quantised_files(family, place.folder, weight_files, quantise)
    identity = _folder_hash(family, weight_files, headers, stored)
    # The libraries change how networks are built, for all threads, while they load. They warn of settings of older
    # folders, which they bring up to date themselves.
    with _LOADING, quiet(), without_warnings(), identity:
        pipeline = _load(family, place, index, weight_files, dtype)
        # Weights that were loaded before are finite, unless they come in a narrower type now; the hash holds no others.
        whole = {item: files for item, files in headers.items() if files is not None and _holds_all(dtype, files)}
        known = whole.keys() & family.changed if identity.is_remembered else frozenset[str]()
        with prefixed(f"base '{choice}': "):
            check_finite({item: pipeline.components[item] for item in family.weighed if item not in known}, whole)
        weights = identity.result(_hashed(family, pipeline))
        if weights is None:
            weights = _exact_hash(family, place, index, pipeline, weight_files, dtype, stored)
            identity.remember(weights)
        _place(family, pipeline, quantise, device_of_weights)
    version = EMBEDDED if place.is_embedded else family.version(pipeline)
    types = {component: kind for component, files in headers.items() if files and (kind := stored_dtype(files))}
    brought = brought_by_vignette() if place.is_embedded else Brought()
    return Base(pipeline, BaseIdentity(family=version, hash=weights, name=place.name), types, brought, quantise)


def _choice(base: BaseName, variant: str | None, config: str | Path | None, *, download: bool) -> BaseChoice:
    """Return a choice with what is given besides; what is not given stays."""
    choice = choice_of(base)
    return BaseChoice(
        choice.name,
        choice.variant if variant is None else variant,
        choice.config if config is None else str(config),
        choice.download or download,
    )


def _load(
    family: type[Family],
    place: BasePlace,
    index: Mapping[str, Any],
    weight_files: Mapping[str, WeightFiles | None],
    dtype: torch.dtype,
) -> Any:  # noqa: ANN401  (pipelines share no typed parent)
    with prefixed(f"base '{place.choice}' cannot be loaded: "):
        pipeline = family.load(place.folder, index, weight_files, dtype)
        if place.schedule:
            set_schedule(pipeline, place.schedule)
    with prefixed(f"base '{place.choice}': "):
        family.check(pipeline)
    if place.held:
        _LOG.info("checkpoint file '%s' takes the settings of '%s': %s", place.choice, place.folder, _decided(pipeline))
    return pipeline


def _decided(pipeline: Any) -> str:  # noqa: ANN401  (likewise)
    """Return in words what a checkpoint file's settings decide, which its weights do not say."""
    settings = {**pipeline.config, **pipeline.scheduler.config}
    return ", ".join(f"{name} {settings[name]}" for name in _DECIDING if name in settings)


def _folder_hash(
    family: type[Family],
    weight_files: Mapping[str, WeightFiles | None],
    headers: Mapping[str, Mapping[Path, Header] | None],
    stored: Mapping[str, WeightFiles],
) -> FolderHash:
    """Begin the hash of the files; nothing is remembered of GGUF files, of which there may be several in a folder."""
    is_gguf = any(files.main.suffix == GGUF_SUFFIX for files in stored.values())
    return FolderHash(
        {component: None if is_gguf else weight_files[component] for component in family.changed},
        {component: None if component in stored else headers[component] for component in family.changed},
    )


def _place(
    family: type[Family],
    pipeline: Any,  # noqa: ANN401  (likewise)
    quantise: Quantisation | None,
    device: torch.device,
) -> None:
    """Quantise the denoiser, and bring all networks to their device, frozen."""
    if quantise is not None:
        quantise_network(pipeline.components[denoiser_of(family)], quantise, device)
    if device.type != "cpu":
        pipeline.to(device)
    for component in family.weighed:
        pipeline.components[component].requires_grad_(False).eval()


def _exact_hash(
    family: type[Family],
    place: BasePlace,
    index: Mapping[str, Any],
    pipeline: Any,  # noqa: ANN401  (likewise)
    weight_files: Mapping[str, WeightFiles | None],
    dtype: torch.dtype,
    stored: Mapping[str, WeightFiles],
) -> str:
    """Hash the numbers of the files, of which those in memory may be coarser; ``stored`` are quantised ones."""
    modules = {name: module for name, module in _hashed(family, pipeline).items() if name not in stored}
    if stored:
        return stored_hash(modules, {name: weight_files[name] for name in modules}, stored)
    # bfloat16 rounds more coarsely than the float16 that the hash sees.
    is_rounded = dtype not in (torch.float16, torch.float32)
    if not is_rounded or (dtype == torch.bfloat16 and all(_is_bfloat16(weight_files[name]) for name in modules)):
        return weights_hash(modules)
    if place.held:
        return weights_hash(
            modules, {name: stored_tensors(modules[name], name, weight_files[name]) for name in modules}
        )
    return weights_hash(_hashed(family, _load(family, place, index, weight_files, torch.float32)))


def _is_bfloat16(files: WeightFiles | None) -> bool:
    headers = read_headers(files) or {}
    return {entry.dtype for header in headers.values() for entry in header.entries.values()} == {"BF16"}


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
    place: BasePlace,
    index: Mapping[str, Any],
    weight_files: Mapping[str, WeightFiles | None],
) -> dict[str, dict[Path, Header] | None]:
    """Check the files of all parts; return the headers of those with weights."""

    def checked(part: str) -> dict[Path, Header] | None:
        if part not in weight_files:
            check_part(index, part, place.folder / part)
            return None
        named_class(index, part)
        return check_weight_files(part, place.folder / part, weight_files[part])

    with prefixed(f"base '{place.choice}' cannot be loaded: "), hub_advised(place):
        check_parts_held(place, weight_files)
        headers = all_done({part: partial(checked, part) for part in family.parts()})
    return {component: headers[component] for component in weight_files}


def _holds_all(dtype: torch.dtype, headers: Mapping[Path, Header] | None) -> bool:
    """Return True if every finite number of some files is finite in a type; False where the files cannot say."""
    if headers is None or not dtype.is_floating_point:
        return False
    stored = {entry.dtype for header in headers.values() for entry in header.entries.values()}
    numbers = {kind for kind in stored if not kind.startswith(("I", "U", "BOOL"))}
    return all(kind in DTYPES and torch.finfo(DTYPES[kind]).max <= torch.finfo(dtype).max for kind in numbers)
