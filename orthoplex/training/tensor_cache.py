"""A folder of what trainings compute before their first step: latents of pictures, and text features of prompts.

A file is named by the hash of everything that decides its content, and holds the hash of the content itself.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from orthoplex.errors import FileFormatError, OutputError
from orthoplex.files import read_header, tensor_bytes, write_tensors
from orthoplex.files.tensors import read_tensors
from orthoplex.models import Base, Conditioning

_LOG = logging.getLogger(__name__)
_CONTENT = "orthoplex_cache"
"""The key of a header under which the hash of the content stands."""
_EXTRA = "extra "


@final
@dataclass(frozen=True)
class TensorCache:
    """A folder that several trainings, and processes at a time, may share.

    Attributes:
        folder: The folder; None stores nothing.
        ground: Everything of the base, and the programs, that decides what it computes.
        device: Where the base is, and what is read goes.
    """

    folder: Path | None
    ground: str = ""
    device: torch.device = torch.device("cpu")

    @staticmethod
    def of(folder: str | Path | None, base: Base) -> TensorCache:
        """Open a folder for a base, without any concept's tokens in it; makes the folder.

        Raises:
            OutputError: When it is no folder, or cannot be made.
        """
        if folder is None:
            return TensorCache(None)
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cache {folder} cannot be made: {error}; allowed is a folder") from error
        family = base.family
        networks = {**family.components(), **{reader.component: reader.network for reader in family.readers}}
        types = {
            name: sorted({str(value.dtype) for value in network.state_dict().values() if isinstance(value, Tensor)})
            for name, network in networks.items()
        }
        programs = [f"{name} {version(name)}" for name in ("orthoplex", "torch", "diffusers", "transformers")]
        numbers = [str(base.dtype), base.device.type, str(family.latent_shape), json.dumps(types, sort_keys=True)]
        ground = [base.identity.hash, family.inputs_hash(), *numbers, *programs]
        return TensorCache(folder, " ".join(ground), base.device)

    def latents(self, pixels: Tensor, make: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the latents of a batch of pictures, ``(n, c, h, w)``.

        Args:
            pixels: ``(n, 3, height, width)``.
            make: Encodes them.
        """
        (latents,) = self._tensors("latents", pixels, lambda: {"latents": make(pixels)}).values()
        return latents

    def conditioning(self, ids: Tensor, precision: str, make: Callable[[Tensor], Conditioning]) -> Conditioning:
        """Return prompts in which nothing learns, as the denoiser takes them.

        Args:
            ids: Their token ids, ``(n, length)``.
            precision: The precision that the text encoders compute in.
            make: Computes them.
        """
        stored = self._tensors(f"text {precision}", ids, lambda: _plain(make(ids)))
        extras = {name.removeprefix(_EXTRA): value for name, value in stored.items() if name.startswith(_EXTRA)}
        return Conditioning(stored["features"], extras, stored.get("mask"))

    def _tensors(self, what: str, inputs: Tensor, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Read tensors, or make and store them; a damaged file is made anew, a full disk is no error."""
        if self.folder is None:
            return make()
        key = f"{what} {self.ground} {_hash({'': inputs})}"
        path = self.folder / f"{what.split()[0]}-{hashlib.sha256(key.encode()).hexdigest()}.safetensors"
        stored = _read(path)
        if stored is not None:
            return {name: value.to(self.device) for name, value in stored.items()}
        made = make()
        try:
            write_tensors(made, path, {_CONTENT: _hash(made)})
        except OutputError as error:
            _LOG.warning("%s is not stored: %s", path.name, error)
        return made


NO_CACHE = TensorCache(None)
"""Stores nothing."""


def _plain(conditioning: Conditioning) -> dict[str, Tensor]:
    mask = {} if conditioning.mask is None else {"mask": conditioning.mask}
    extras = {f"{_EXTRA}{name}": value for name, value in conditioning.extras.items()}
    return {"features": conditioning.features, **mask, **extras}


def _read(path: Path) -> dict[str, Tensor] | None:
    """The tensors of a whole file; None where there is none, or a damaged one."""
    if not path.is_file():
        return None
    try:
        header = read_header(path)
        header.check_whole(path)
        tensors = read_tensors(path, header, header.entries)
        if header.metadata.get(_CONTENT) == _hash(tensors):
            return tensors
        reason = "its content is not what was written"
    except (FileFormatError, OSError) as error:
        reason = str(error)
    _LOG.warning("cache file %s is damaged and is made anew: %s", path, reason)
    return None


def _hash(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()
