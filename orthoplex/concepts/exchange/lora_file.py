"""A LoRA file in memory: changes of weights under our names, whatever program wrote it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import final

from torch import Tensor

from orthoplex.adapters import LowRank
from orthoplex.files import tensor_bytes


@final
@dataclass(frozen=True, eq=False)
class LoraFile:
    """Changes of the weights of a model, and embeddings bundled with them.

    Attributes:
        name: The file's name without its suffix; for people, and for tokens and triggers where nothing else names them.
        style: A name in ``STYLES``: how the file names its layers.
        family: The layer table that knows the layers, by the name of its file, such as ``stable_diffusion``; None if no
            table does. Then layers are modules as the file names them, and the file is written in its own style alone.
        version: The version of the family with these shapes, such as ``sd1``; None if none has them.
        layers: Layer (component and diffusers path) to ``ΔW`` at strength 1: alpha, rank and all other scalings are in
            the factors. A convolution's ``ΔW`` is flattened to ``(out, in · height · width)``. It may be a mapping that
            reads a layer each time it is asked for.
        windows: Layer to the height and width of its window, for every changed convolution.
        differences: Parameter (a layer's name with ``.weight`` or ``.bias``) to a full difference of the parameter's
            own shape: weights that are no low-rank product, norms and biases.
        embeddings: Token to text encoder to vectors, ``(k, dim)``.
        metadata: The text pairs of the file's header.
        left_out: Key of the file to the reason why it was not read; empty unless the reader may leave keys out.
        path: The file; None for changes without one.
    """

    name: str
    style: str
    family: str | None
    version: str | None
    layers: Mapping[str, LowRank]
    windows: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    differences: Mapping[str, Tensor] = field(default_factory=dict)
    embeddings: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    path: Path | None = None

    @property
    def label(self) -> str:
        """The name of the file in errors."""
        return self.name if self.path is None else str(self.path)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 (hex) over all changes and embeddings: names, types, shapes and values, whatever the file's layout.

        The same numbers in another type have another hash. Layers are read one by one.
        """
        digest = hashlib.sha256()
        for name, tensor in self._named():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor_bytes(tensor))
        return digest.hexdigest()

    def _named(self) -> Iterator[tuple[str, Tensor]]:
        for layer in sorted(self.layers):
            change = self.layers[layer]
            yield from ((f"{layer} down", change.down), (f"{layer} up", change.up))
        for parameter in sorted(self.differences):
            yield parameter, self.differences[parameter]
        for token, encoders in sorted(self.embeddings.items()):
            yield from ((f"{token} {encoder}", vectors) for encoder, vectors in sorted(encoders.items()))
