"""A concept in memory: a manifest, low-rank changes of named weights, and token embeddings."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from orthoplex import __version__
from orthoplex.adapters import LowRank
from orthoplex.concepts.layer_table import layer_table
from orthoplex.concepts.manifest import Manifest
from orthoplex.concepts.tensors import tensor_bytes


@dataclass(frozen=True, eq=False)
class Concept:
    """A named set of low-rank weight changes and token embeddings.

    Attributes:
        manifest: What the concept says about itself.
        layers: Layer name (``unet.<path>`` or ``text_encoder.<path>``) to its change ``ΔW = up · down``,
            ``up`` of shape ``(out, r)`` and ``down`` of shape ``(r, in)``.
        tokens: Token (``<name>``, ``<name>_1``, …) to its embedding of shape ``(dim,)``, or ``(L, dim)`` where every
            one of L cross-attention layers has a vector of its own.
        token_layers: The names of these layers, in the order of the rows; empty for tokens of shape ``(dim,)``.
        keys_values: Token to what every cross-attention layer adds to its key and to its value where the token stands:
            layer name to ``(2, out)``; empty where the embedding is all there is of the tokens.
        inputs: Float16 ``(k, in)`` whose Gram matrix ``XᵀX`` is what every one of its layers sees under prompts of the
            concept, ``E[x xᵀ]``; None where it is not known, or not the same for all layers. With it data-aware
            merges need no model.
        path: The file it was read from, for messages; None where it is of no file.
    """

    manifest: Manifest
    layers: Mapping[str, LowRank]
    tokens: Mapping[str, Tensor] = field(default_factory=dict)
    token_layers: Sequence[str] = ()
    keys_values: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    inputs: Tensor | None = None
    path: Path | None = None

    @property
    def told(self) -> str:
        """What errors call it: its name, and its file where it has one."""
        return f"{self.name} ({self.path})" if self.path is not None else self.name

    @property
    def name(self) -> str:
        """The concept's name."""
        return self.manifest.name

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 (hex) over the names, data types, shapes and values of all tensors, tokens, their keys and values.

        And the names of token layers, and what layers see.
        """
        digest = hashlib.sha256()
        for name, tensor in sorted(self.tensors().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor_bytes(tensor))
        for token, vector in sorted(self.tokens.items()):
            digest.update(f"{token} {tuple(vector.shape)}\n".encode())
            digest.update(tensor_bytes(vector.to(torch.float32)))
        for layer in self.token_layers:
            digest.update(f"token layer {layer}\n".encode())
        for token, layers in sorted(self.keys_values.items()):
            for layer, values in sorted(layers.items()):
                digest.update(f"{token} {layer} {tuple(values.shape)}\n".encode())
                digest.update(tensor_bytes(values.to(torch.float32)))
        if self.inputs is not None:
            digest.update(f"inputs {tuple(self.inputs.shape)}\n".encode())
            digest.update(tensor_bytes(self.inputs.to(torch.float16)))
        return digest.hexdigest()

    @property
    def recipe(self) -> dict[str, Any]:
        """What is in it, in the words of a merge's recipe: this one concept at strength 1."""
        base = self.manifest.base
        concept = {
            "name": self.name,
            "kind": self.manifest.kind,
            "strength": 1.0,
            "content_hash": self.content_hash,
            "slot": self.manifest.slot,
        }
        return {
            "algorithm": "sum",
            "options": {},
            "inputs": None,
            "scale": 1.0,
            "concepts": [concept],
            "base": {"family": base.family, "hash": base.hash, "name": base.name},
            "package_version": __version__,
        }

    @property
    def changes_keys_values_alone(self) -> bool:
        """True if every changed layer is a cross-attention key or value projection: such layers see the text alone."""
        return bool(self.layers) and not self.layers_besides_keys_values

    @property
    def layers_besides_keys_values(self) -> list[str]:
        """The names of the changed layers that are no such projections; all, where no table knows the base's family."""
        table = layer_table(self.manifest.base.family)
        return [layer for layer in self.layers if table is None or not table.reads_features(layer)]

    def tensors(self) -> dict[str, Tensor]:
        """The tensors as the file names them: ``<layer>.lora_A.weight`` is down, ``<layer>.lora_B.weight`` is up."""
        named: dict[str, Tensor] = {}
        for layer, factors in self.layers.items():
            named[f"{layer}.lora_A.weight"] = factors.down
            named[f"{layer}.lora_B.weight"] = factors.up
        return named
