"""A concept in memory: a manifest, low-rank changes of named weights, and tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from orthoplex.adapters import LowRank
from orthoplex.concepts.layer_table import layer_table
from orthoplex.concepts.manifest import Manifest
from orthoplex.concepts.recipe import Ingredient, Recipe
from orthoplex.concepts.tokens.token import Placement, Token
from orthoplex.files import tensor_bytes


@dataclass(frozen=True, eq=False)
class Concept:
    """A named set of low-rank weight changes and tokens.

    Attributes:
        manifest: The description of the concept.
        layers: Layer name (``unet.<path>`` or ``text_encoder.<path>``) to its change ``ΔW = up · down``,
            ``up`` of shape ``(out, r)`` and ``down`` of shape ``(r, in)``.
        tokens: Name (``<name>``, ``<name>_1``, …) to token, all of one kind.
        inputs: Float16 ``(k, in)`` whose Gram matrix ``XᵀX`` is ``E[x xᵀ]`` of every layer's inputs under prompts of
            the concept; None if it is unknown or differs between layers. With it data-aware merges need no model.
        path: The file that the concept was read from, for messages; None for a concept without a file.
    """

    manifest: Manifest
    layers: Mapping[str, LowRank]
    tokens: Mapping[str, Token] = field(default_factory=dict)
    inputs: Tensor | None = None
    path: Path | None = None

    @property
    def label(self) -> str:
        """The name of the concept in errors: its name, and its file if it has one."""
        return f"{self.name} ({self.path})" if self.path is not None else self.name

    @property
    def name(self) -> str:
        """The concept's name."""
        return self.manifest.name

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 (hex) over all tensors, what tokens do, and the inputs: names, data types, shapes and values."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.tensors().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor_bytes(tensor))
        _hash_tokens(digest, {token: item.placement for token, item in sorted(self.tokens.items())})
        if self.inputs is not None:
            digest.update(f"inputs {tuple(self.inputs.shape)}\n".encode())
            digest.update(tensor_bytes(self.inputs.to(torch.float16)))
        return digest.hexdigest()

    @property
    def recipe(self) -> Recipe:
        """The concept as a merge of one, at strength 1."""
        manifest = self.manifest
        own = Ingredient(self.name, manifest.kind, 1.0, self.content_hash, manifest.slot, manifest.rare_word)
        return Recipe(manifest.base, (own,))

    @property
    def changes_keys_values_alone(self) -> bool:
        """True if every changed layer is a cross-attention key or value projection; such layers read only text."""
        return bool(self.layers) and not self.layers_besides_keys_values

    @property
    def layers_besides_keys_values(self) -> list[str]:
        """The changed layers that are no key or value projections of cross-attention; all if the family is unknown."""
        table = layer_table(self.manifest.base.family)
        return [layer for layer in self.layers if table is None or not table.reads_features(layer)]

    def tensors(self) -> dict[str, Tensor]:
        """The factors as the content hash names them: ``<layer>.lora_A.weight`` is down, ``….lora_B.weight`` is up."""
        named: dict[str, Tensor] = {}
        for layer, factors in self.layers.items():
            named[f"{layer}.lora_A.weight"] = factors.down
            named[f"{layer}.lora_B.weight"] = factors.up
        return named


def named_factors(layers: Mapping[str, LowRank]) -> Iterator[tuple[str, Tensor]]:
    """Yield the name (for messages) and value of the factors of some layers."""
    for layer, change in layers.items():
        yield f"up of layer '{layer}'", change.up
        yield f"down of layer '{layer}'", change.down


def _hash_tokens(digest: hashlib._Hash, placements: Mapping[str, Placement]) -> None:
    """Add the effect of tokens: vectors, the layers of these, and additions to keys and values."""
    for token, placement in placements.items():
        for encoder, vectors in sorted(placement.vectors.items()):
            name = token if len(placement.vectors) == 1 else f"{token} {encoder}"
            digest.update(f"{name} {tuple(vectors.shape)}\n".encode())
            digest.update(tensor_bytes(vectors.to(torch.float32)))
    for layer in next(iter(placements.values())).layers if placements else ():
        digest.update(f"token layer {layer}\n".encode())
    for token, placement in placements.items():
        for layer, values in sorted(placement.keys_values.items()):
            digest.update(f"{token} {layer} {tuple(values.shape)}\n".encode())
            digest.update(tensor_bytes(values.to(torch.float32)))
        for layer, factors in sorted(placement.key_value_maps.items()):
            for part in factors:
                digest.update(f"{token} {layer} map {tuple(part.shape)}\n".encode())
                digest.update(tensor_bytes(part.to(torch.float32)))
