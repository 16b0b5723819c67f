"""What this machine can do: devices, memory, packages, caches, and the families of bases that fit."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, final

import psutil
import torch
from packaging.requirements import Requirement

from orthoplex.files import cache_folder, read_json
from orthoplex.models.families import FAMILIES
from orthoplex.models.families.sizes import FAMILY_SIZES, FamilySize
from orthoplex.models.hash_cache import cache_file
from orthoplex.models.mixed_precision import cpu_capabilities, cpu_types
from orthoplex.models.pipeline_folder import index_path

_GB = 1e9
_BYTES = 2
"""Of a number in float16 and bfloat16."""
DRAWING = (1.1, 1e9)
TRAINING = (1.25, 2e9)
"""Memory as a share of the weights, and bytes besides: estimates, as pictures and options decide the rest. Training is
that of low-rank updates beside frozen weights."""
_PACKAGES = ("torch", "diffusers", "transformers")
_NOT_FOR_USERS = {"dev", "all", "pretraining"}
_BF16_SINCE, _FP8_SINCE = (8, 0), (8, 9)
"""Capabilities of CUDA."""


@final
@dataclass(frozen=True)
class DeviceFacts:
    """A device.

    Attributes:
        kind: As ``--device`` takes it, such as ``cpu`` or ``cuda:0``.
        title: What it is, where the system says it.
        free_bytes: Memory that is free.
        total_bytes: All of its memory.
        fast_types: Types that it computes in without going through others.
    """

    kind: str
    title: str
    free_bytes: int
    total_bytes: int
    fast_types: tuple[str, ...]

    def __str__(self) -> str:
        """One line."""
        title = f" {self.title}," if self.title else ""
        return (
            f"{self.kind}:{title} {self.free_bytes / _GB:.1f} of {self.total_bytes / _GB:.1f} GB free, fast in "
            f"{', '.join(self.fast_types)}"
        )


@final
@dataclass(frozen=True)
class FamilyFit:
    """A published base, and what of it fits into the memory of a device.

    Attributes:
        version: As concepts name it.
        title: As its users name it.
        weights_bytes: Its weights in float16 or bfloat16.
        drawing_bytes: About what drawing takes.
        training_bytes: About what training takes.
        draws: True if drawing fits.
        trains: True if training fits.
        is_loaded: False for a family of which only files are read and merged, without any base.
        source: Where the size is from.
    """

    version: str
    title: str
    weights_bytes: int
    drawing_bytes: int
    training_bytes: int
    draws: bool
    trains: bool
    is_loaded: bool
    source: str

    @staticmethod
    def of(size: FamilySize, memory: int) -> FamilyFit:
        """Compare a base with the bytes that are free."""
        weights = size.numbers * _BYTES
        drawing, training = (round(weights * share + besides) for share, besides in (DRAWING, TRAINING))
        return FamilyFit(
            size.version,
            size.title,
            weights,
            drawing,
            training,
            draws=drawing <= memory,
            trains=training <= memory,
            is_loaded=size.pipeline in FAMILIES,
            source=size.source,
        )


@final
@dataclass(frozen=True)
class MachineReport:
    """What a machine can do.

    Attributes:
        versions: Package to its version; None for one that is not installed.
        devices: The devices; the first is where bases are compared with the memory.
        extras: Extra to the packages of it that are missing; none for one that is installed.
        cache: The folder of remembered hashes.
        num_hashes: How many bases are remembered.
        hub_cache: The folder of the hub's cache.
        hub_names: The pipelines in it.
        disk_free_bytes: What is free where the cache is.
        fits: Every family.
    """

    versions: Mapping[str, str | None]
    devices: Sequence[DeviceFacts]
    extras: Mapping[str, tuple[str, ...]]
    cache: Path
    num_hashes: int
    hub_cache: Path | None
    hub_names: tuple[str, ...]
    disk_free_bytes: int
    fits: Sequence[FamilyFit]

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain values."""
        values = asdict(self)
        return values | {
            "cache": str(self.cache),
            "hub_cache": None if self.hub_cache is None else str(self.hub_cache),
        }

    def lines(self) -> Iterator[str]:
        """Yield ten lines, and one more for each device after the first."""
        yield ", ".join(f"{name} {version or 'is missing'}" for name, version in self.versions.items())
        yield from map(str, self.devices)
        installed = [name for name, missing in self.extras.items() if not missing]
        absent = [f"{name} ({', '.join(missing)})" for name, missing in self.extras.items() if missing]
        yield f"extras: {', '.join(installed) or 'none'}"
        yield f"extras that are not installed: {', '.join(absent) or 'none'}"
        disk = f"{self.disk_free_bytes / _GB:.1f} GB of disk free"
        yield f"cache: {self.cache}, {self.num_hashes} hashes of bases; {disk}"
        names = ", ".join(self.hub_names[:3]) + (", …" if len(self.hub_names) > 3 else "")
        yield f"hub: {self.hub_cache or 'no cache'}, {len(self.hub_names)} pipelines{f': {names}' if names else ''}"
        yield f"by estimates for 16 bits a number on {self.devices[0].kind}, without quantising or offloading:"
        loaded = [fit for fit in self.fits if fit.is_loaded]
        yield f"trains and draws: {_shown([fit for fit in loaded if fit.trains], 'training')}"
        yield f"draws alone: {_shown([fit for fit in loaded if fit.draws and not fit.trains], 'drawing')}"
        yield f"too large: {_shown([fit for fit in loaded if not fit.draws], 'drawing')}"


def _shown(fits: Sequence[FamilyFit], use: str) -> str:
    sizes = [fit.training_bytes if use == "training" else fit.drawing_bytes for fit in fits]
    pairs = zip(fits, sizes, strict=True)
    return ", ".join(f"{fit.title} ({size / _GB:.0f} GB)" for fit, size in pairs) or "none"


def machine_report() -> MachineReport:
    """Look at this machine; nothing is loaded, and no net is used."""
    devices = _devices()
    hub_cache = _hub_cache()
    return MachineReport(
        versions={name: _version(name) for name in ("orthoplex", *_PACKAGES)},
        devices=devices,
        extras=_extras(),
        cache=cache_folder(),
        num_hashes=_num_hashes(),
        hub_cache=hub_cache,
        hub_names=() if hub_cache is None else tuple(_hub_names(hub_cache)),
        disk_free_bytes=_disk_free(cache_folder()),
        fits=[FamilyFit.of(size, devices[0].free_bytes) for size in FAMILY_SIZES],
    )


def _devices() -> list[DeviceFacts]:
    """The devices, those with memory of their own first."""
    devices: list[DeviceFacts] = []
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = torch.cuda.mem_get_info(number)
        title, capability = torch.cuda.get_device_name(number), torch.cuda.get_device_capability(number)
        devices.append(DeviceFacts(f"cuda:{number}", title, free, total, cuda_types(capability)))
    memory = psutil.virtual_memory()
    if torch.backends.mps.is_available():
        devices.append(DeviceFacts("mps", "", memory.available, memory.total, ("float32", "float16")))
    threads = f"{torch.get_num_threads()} threads"
    return [*devices, DeviceFacts("cpu", threads, memory.available, memory.total, cpu_types(cpu_capabilities()))]


def cuda_types(capability: tuple[int, int]) -> tuple[str, ...]:
    """Return the types in which a card computes, by its capability: Ampere and later know bfloat16, Ada float8."""
    later = (("bfloat16", _BF16_SINCE), ("float8", _FP8_SINCE))
    return ("float32", "float16", *(name for name, since in later if capability >= since))


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _extras() -> dict[str, tuple[str, ...]]:
    """Return the extras for users, with the packages that are missing; none where the package is not installed."""
    try:
        written = [Requirement(text) for text in metadata.requires("orthoplex") or ()]
        names = metadata.metadata("orthoplex").get_all("Provides-Extra") or ()
    except metadata.PackageNotFoundError:
        return {}
    extras: dict[str, tuple[str, ...]] = {}
    for name in sorted({*names} - _NOT_FOR_USERS):
        packages = [item.name for item in written if item.marker and not item.marker.evaluate({"extra": ""})
                    and item.marker.evaluate({"extra": name})]  # fmt: skip
        extras[name] = tuple(package for package in packages if _version(package) is None)
    return extras


def _num_hashes() -> int:
    try:
        return len(read_json(cache_file())["hashes"])
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):
        return 0


def _hub_cache() -> Path | None:
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE)
    return folder if folder.is_dir() else None


def _hub_names(cache: Path) -> Iterator[str]:
    for folder in sorted(cache.glob("models--*--*")):
        if any(index_path(snapshot).is_file() for snapshot in folder.glob("snapshots/*")):
            yield "/".join(folder.name.split("--", 2)[1:])


def _disk_free(folder: Path) -> int:
    place = next(place for place in (folder, *folder.parents) if place.exists())
    return shutil.disk_usage(place).free
