"""Bases that are relatives of one another: fine-tunes, and copies in another data type.

A concept changes weights by addition, so it works on every base of the same layers; how well, depends on how far that
base is from its own. A concept file holds a sample of the weights it was trained on, so that the distance can be told
without that base.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import logging
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import final

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from orthoplex.concepts import BaseIdentity, Concept
from orthoplex.concepts.layer_table import component_of
from orthoplex.errors import BaseModelError
from orthoplex.models.base import Base
from orthoplex.models.base_files import BaseFiles
from orthoplex.models.identity import is_hashed
from orthoplex.models.layer_names import component_name
from orthoplex.models.versions import EMBEDDED
from orthoplex.models.weights import matrix_shapes, plain_weight, quantisation_of, weight_shape

UNRELATED = 0.3
"""The cosine below which two bases are not of one origin; 1024 unrelated weights have one of 0 ± 0.03."""
_LOG = logging.getLogger(__name__)
_COUNT = 1024
_SPREAD_COUNT = 4096
"""How many evenly spaced weights of a tensor its spread is taken from."""
_LEAST_SHOWN = 1e-4
"""A sample tells no smaller distance."""
_FARTHEST = 4.0
"""In units of the spread."""
_TEXT = re.compile(r"([0-9a-f]{16}):([A-Za-z0-9+/=]+)")


@final
@dataclass(frozen=True)
class Comparison:
    """How far the weights of two bases are apart, by a sample of them.

    With σ, the spread of a weight's tensor in the base at hand, w there and w₀ in the other:

    Attributes:
        distance: ``√ mean(((w − w₀) / σ)²)``, where no term counts more than 4²: noise of a thousandth of the spread
            gives 0.001, with an error of about 2 % for 1024 numbers.
        cosine: ``Σ w w₀/σ² / √(Σ (w/σ)² Σ (w₀/σ)²)``: 1 for equal weights, about 0 for unrelated ones.
        moved: The components that have a weight in the sample that differs, beyond the rounding of files.
    """

    distance: float
    cosine: float
    moved: frozenset[str]


@final
@dataclass(frozen=True, eq=False)
class WeightSample:
    """Evenly spaced numbers of a base's weights: biases, norms and token embeddings are left out.

    Attributes:
        shapes: 16 hexadecimal digits over the names and shapes of these weights.
        values: ``(1024,)`` float32, or all weights where there are fewer; rounded to float16 in files.
    """

    shapes: str
    values: Tensor

    @staticmethod
    def of(modules: Mapping[str, nn.Module]) -> WeightSample:
        """Take the numbers at places ``⌊(i + ½) n / k⌋`` of all n weights, in the order of their names.

        Args:
            modules: Component to module, as ``Family.components`` gives them.
        """
        return _sample(_weights_of(modules))

    def compare(self, modules: Mapping[str, nn.Module]) -> Comparison | None:
        """Compare with the weights of another base.

        Args:
            modules: Component to module of the other base.

        Returns:
            The comparison; None if names or shapes differ.
        """
        weights = _weights_of(modules)
        other = _sample(weights)
        if (other.shapes, len(other.values)) != (self.shapes, len(self.values)):
            return None
        tensors, _ = _places(weights)
        spreads = torch.tensor([_spread(weight) for weight in weights.values()])[tensors]
        ours, theirs = self.values / spreads, other.values / spreads
        differs = self.values.half() != other.values.half()
        names = [component_of(name) for name in weights]
        changed = frozenset(names[number] for number in tensors[differs].tolist())
        moved = (theirs - ours).clamp(-_FARTHEST, _FARTHEST)
        ours = ours.clamp(-_FARTHEST, _FARTHEST)  # a tensor that was scaled shall not decide alone
        cosine = float((ours * theirs).sum() / (ours.norm() * theirs.norm()).clamp(min=1e-30))
        return Comparison(float(moved.square().mean().sqrt()), cosine, changed)

    def encode(self) -> str:
        """Return it as text for a manifest; about 2,700 letters."""
        numbers = self.values.numpy().astype("<f2").tobytes()
        return f"{self.shapes}:{base64.b64encode(numbers).decode('ascii')}"

    @staticmethod
    def decode(text: str) -> WeightSample | None:
        """Read it back; None for anything else."""
        match = _TEXT.fullmatch(text)
        if match is None:
            return None
        try:
            values = np.frombuffer(base64.b64decode(match[2], validate=True), dtype="<f2").astype(np.float32)
        except (ValueError, binascii.Error):
            return None
        is_sample = 0 < len(values) <= _COUNT and bool(np.isfinite(values).all())
        return WeightSample(match[1], torch.from_numpy(values)) if is_sample else None


def on_base(concept: Concept, base: Base) -> Concept:
    """Return a concept as one of this base; on a relative of its own base, a warning tells how far the two are.

    Where the text encoder may be another, the stored inputs of its layers are left out, so its content hash is another.

    Args:
        concept: A concept of this base, or of another with the same layers: a fine-tune of it, a copy in another data
            type, or what both were made of.
        base: The base, with nothing folded in.

    Raises:
        BaseModelError: When the base lacks a layer of the concept, has another shape of it, or is unrelated.
    """
    if concept.manifest.base.hash == base.identity.hash:
        return concept
    trained_on = _trained_on(concept)
    if trained_on.hash == base.identity.hash:
        return _as_of(concept, base, keeps_inputs=False)
    check_layers(concept, base)
    sample = _stored_sample(concept, trained_on)
    with base.locked():
        comparison = None if sample is None else sample.compare(base.family.components())
    if comparison is not None and comparison.cosine < UNRELATED:
        raise BaseModelError(
            f"concept {concept.label} was trained on base {trained_on}; weights of base {base.identity} are "
            f"unrelated to its weights (cosine {comparison.cosine:.2f}); allowed are fine-tunes of it, with "
            f"{UNRELATED} or more"
        )
    _LOG.warning(
        "concept %s was trained on base %s and is used on %s; %s",
        concept.label,
        trained_on,
        base.identity,
        "its file does not tell how far the two are: compare pictures"
        if comparison is None
        else f"weights differ by {max(comparison.distance, _LEAST_SHOWN):.2g} of their spread",
    )
    reads_alike = comparison is not None and not comparison.moved.intersection(base.family.text_encoders)
    return _as_of(concept, base, keeps_inputs=reads_alike)


def check_layers(concept: Concept, base: Base) -> None:
    """Refuse a concept that changes a layer that a base lacks, or has in another shape.

    Args:
        concept: The concept.
        base: The base.

    Raises:
        BaseModelError: Names the concept, the first such layer, how many there are, and the base.
    """
    shapes = matrix_shapes(base.family.components())
    wrong = [layer for layer, change in concept.layers.items() if shapes.get(layer) != change.shape]
    if not wrong:
        return
    layer, others = wrong[0], f" (and {len(wrong) - 1} more of {len(concept.layers)})" if len(wrong) > 1 else ""
    trained_on = _trained_on(concept)
    is_foreign = trained_on.hash == base.identity.hash
    made = "" if is_foreign else f" was trained on base {trained_on} and"
    allowed = "files for this family" if is_foreign else "its own base and fine-tunes of it"
    raise BaseModelError(
        f"concept {concept.label}{made} does not fit base {base.identity}: it changes layer {layer} of "
        f"{concept.layers[layer].shape}, here {shapes.get(layer) or 'there is none'}{others}; allowed are {allowed}"
    )


def _trained_on(concept: Concept) -> BaseIdentity:
    """The base of the training, also of a concept that was saved as one of a relative."""
    return concept.manifest.trained_on or concept.manifest.base


def _as_of(concept: Concept, base: Base, *, keeps_inputs: bool) -> Concept:
    """The concept as one of this base, with the base of its training noted.

    Inputs of its layers that another text encoder gave are left out: merges gather those of this base.
    """
    if not keeps_inputs and concept.inputs is not None:
        concept = replace(concept, inputs=None, manifest=concept.manifest.without_inputs())
    trained_on = _trained_on(concept)
    noted = None if trained_on.hash == base.identity.hash else trained_on
    return replace(concept, manifest=replace(concept.manifest, base=base.identity, trained_on=noted))


def _stored_sample(concept: Concept, trained_on: BaseIdentity) -> WeightSample | None:
    """The sample of the base that a concept was trained on: its file's, or that of the embedded base."""
    stored = WeightSample.decode(concept.manifest.base_sample)
    if stored is not None:
        return stored
    embedded = BaseFiles.of(EMBEDDED)
    if embedded is None or embedded.identity.hash != trained_on.hash:
        return None
    tensors = {component: load_file(path) for component, path in embedded.files.items()}
    return _sample(
        _weights(
            {
                component: {path: _Weight.of(values) for path, values in named.items()}
                for component, named in tensors.items()
            }
        )
    )


@final
@dataclass(frozen=True, eq=False)
class _Weight:
    """A weight, whose plain numbers are made of quantised ones when they are asked for."""

    shape: tuple[int, ...]
    numbers: Callable[[], Tensor]

    @staticmethod
    def of(values: Tensor) -> _Weight:
        return _Weight(tuple(values.shape), values.detach)


def _weights_of(modules: Mapping[str, nn.Module]) -> dict[str, _Weight]:
    return _weights(
        {
            component: {path: _weight(module, path, values) for path, values in module.named_parameters()}
            for component, module in modules.items()
        }
    )


def _weight(network: nn.Module, path: str, values: Tensor) -> _Weight:
    outer, _, part = path.rpartition(".")
    module = network.get_submodule(outer)
    if part != "weight" or quantisation_of(module) is None:
        return _Weight.of(values)
    return _Weight(weight_shape(module), partial(plain_weight, module))


def _weights(parts: Mapping[str, Mapping[str, _Weight]]) -> dict[str, _Weight]:
    """Component to name to weight becomes name to weight, in the order of the names."""
    named = {
        component_name(component, path): weight
        for component, weights in parts.items()
        for path, weight in weights.items()
        if len(weight.shape) > 1 and is_hashed(path)
    }
    return dict(sorted(named.items()))


def _sample(weights: Mapping[str, _Weight]) -> WeightSample:
    listing = "\n".join(f"{name} {weight.shape}" for name, weight in weights.items())
    tensors, inside = _places(weights)
    parts = [_picked(weight, inside[tensors == number]) for number, weight in enumerate(weights.values())]
    return WeightSample(hashlib.sha256(listing.encode()).hexdigest()[:16], torch.cat(parts))


def _picked(weight: _Weight, places: Tensor) -> Tensor:
    """The numbers of a weight at flat places, float32 on the CPU, however it lies in memory."""
    if not len(places):
        return torch.empty(0)
    values = weight.numbers()
    return values[torch.unravel_index(places.to(values.device), values.shape)].float().cpu()


def _spread(weight: _Weight) -> float:
    """The standard deviation of a tensor's numbers, of evenly spaced ones where there are many; 1 if all are equal."""
    return _picked(weight, _evenly(_SPREAD_COUNT, math.prod(weight.shape))).std(correction=0).item() or 1.0


def _evenly(most: int, total: int) -> Tensor:
    """Places ``⌊(i + ½) n / k⌋`` of n numbers, with k of them at most; int64."""
    count = min(most, total)
    return (2 * torch.arange(count) + 1) * total // (2 * count)


def _places(weights: Mapping[str, _Weight]) -> tuple[Tensor, Tensor]:
    """The number of the tensor of each sampled weight, and its place in that tensor, flat; int64 each."""
    sizes = torch.tensor([math.prod(weight.shape) for weight in weights.values()])
    ends, places = sizes.cumsum(0), _evenly(_COUNT, int(sizes.sum()))
    tensors = torch.searchsorted(ends, places, right=True)
    return tensors, places - (ends - sizes)[tensors]
