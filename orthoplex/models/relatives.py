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
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import final

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from orthoplex.concepts import Concept
from orthoplex.errors import BaseModelError
from orthoplex.models.base import Base
from orthoplex.models.base_files import BaseFiles
from orthoplex.models.identity import is_hashed
from orthoplex.models.layer_names import component_name
from orthoplex.models.versions import EMBEDDED

BASE_SAMPLE_KEY = "base_sample"
"""Where a manifest's training values hold the sample of the base."""
TRAINED_ON_KEY = "trained_on"
"""Where they hold the base of the training, in a concept that is used on another one."""
UNRELATED = 1.2
"""The distance from which two bases are not of one origin: √2 without any correlation, 1.2 with one of 0.28."""
_LOG = logging.getLogger(__name__)
_COUNT = 1024
_TEXT = re.compile(r"([0-9a-f]{16}):([A-Za-z0-9+/=]+)")


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
        return _sample(_weights({name: dict(module.named_parameters()) for name, module in modules.items()}))

    def distance(self, modules: Mapping[str, nn.Module]) -> float | None:
        """Return how far other weights are: ``√ mean(((w' − w) / σ)²)`` with the spread σ of w' in its tensor.

        Noise of a thousandth of the weights' spread gives 0.001, unrelated weights of equal spread about 1.4. Of 1024
        numbers, the error is about 2 % of the distance where all weights differ alike.

        Args:
            modules: Component to module of the other base.

        Returns:
            The distance; None if names or shapes differ.
        """
        weights = _weights({name: dict(module.named_parameters()) for name, module in modules.items()})
        other = _sample(weights)
        if (other.shapes, len(other.values)) != (self.shapes, len(self.values)):
            return None
        spreads = [values.float().std().item() or 1.0 for values in weights.values()]
        tensors, _ = _places(weights)
        return float(((other.values - self.values) / torch.tensor(spreads)[tensors]).square().mean().sqrt())

    def encode(self) -> str:
        """Return it as text for a manifest; about 2,700 letters."""
        numbers = self.values.numpy().astype("<f2").tobytes()
        return f"{self.shapes}:{base64.b64encode(numbers).decode('ascii')}"

    @staticmethod
    def decode(text: object) -> WeightSample | None:
        """Read it back; None for anything else."""
        match = _TEXT.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            return None
        try:
            values = np.frombuffer(base64.b64decode(match[2], validate=True), dtype="<f2").astype(np.float32)
        except (ValueError, binascii.Error):
            return None
        return WeightSample(match[1], torch.from_numpy(values)) if 0 < len(values) <= _COUNT else None


def on_base(concept: Concept, base: Base) -> Concept:
    """Return a concept as one of this base; on a relative of its own base, a warning tells how far the two are.

    Args:
        concept: A concept of this base, or of another with the same layers: a fine-tune of it, a copy in another data
            type, or what both were made of.
        base: The base, with nothing folded in.

    Raises:
        BaseModelError: When the base lacks a layer of the concept, has another shape of it, or is unrelated.
    """
    trained_on = concept.manifest.base
    if trained_on.hash == base.identity.hash:
        return concept
    linears = base.family.every_layer()
    for layer, change in concept.layers.items():
        shape = tuple(linears[layer].weight.shape) if layer in linears else None
        if shape != change.shape:
            reason = f"layer {layer} of {tuple(change.shape)}, here {shape or 'there is none'}"
            raise BaseModelError(
                f"concept {concept.label} was trained on base {trained_on} and does not fit base {base.identity}: it "
                f"changes {reason}; allowed are its own base and fine-tunes of it"
            )
    sample = _stored_sample(concept)
    with base.locked():
        distance = None if sample is None else sample.distance(base.family.components())
    if distance is not None and distance >= UNRELATED:
        raise BaseModelError(
            f"concept {concept.label} was trained on base {trained_on}; weights of base {base.identity} differ by "
            f"{distance:.2g} of their spread, as those of unrelated bases do; allowed is less than {UNRELATED}"
        )
    _LOG.warning(
        "concept %s was trained on base %s and is used on %s; %s",
        concept.label,
        trained_on,
        base.identity,
        _in_words(distance),
    )
    training = {TRAINED_ON_KEY: asdict(trained_on), **concept.manifest.training}
    return replace(concept, manifest=replace(concept.manifest, base=base.identity, training=training))


def _in_words(distance: float | None) -> str:
    if distance is None:
        return "its file does not tell how far the two are: compare pictures"
    return f"weights differ by {distance:.2g} of their spread"


def _stored_sample(concept: Concept) -> WeightSample | None:
    """The sample of the base that a concept was trained on: its file's, or that of the embedded base."""
    stored = WeightSample.decode(concept.manifest.training.get(BASE_SAMPLE_KEY))
    if stored is not None:
        return stored
    embedded = BaseFiles.of(EMBEDDED)
    if embedded is None or embedded.identity.hash != concept.manifest.base.hash:
        return None
    return _sample(_weights({component: load_file(path) for component, path in embedded.files.items()}))


def _weights(tensors: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Component to name to tensor becomes name to weight, in the order of the names."""
    named = {
        component_name(component, path): values.detach()
        for component, parts in tensors.items()
        for path, values in parts.items()
        if values.ndim > 1 and is_hashed(path)
    }
    return dict(sorted(named.items()))


def _sample(weights: Mapping[str, Tensor]) -> WeightSample:
    listing = "\n".join(f"{name} {tuple(values.shape)}" for name, values in weights.items())
    tensors, inside = _places(weights)
    parts = [
        values[torch.unravel_index(inside[tensors == number].to(values.device), values.shape)].float().cpu()
        for number, values in enumerate(weights.values())
    ]
    return WeightSample(hashlib.sha256(listing.encode()).hexdigest()[:16], torch.cat(parts))


def _places(weights: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The number of the tensor of each sampled weight, and its place in that tensor, flat; int64 each."""
    sizes = torch.tensor([values.numel() for values in weights.values()])
    total, ends = int(sizes.sum()), sizes.cumsum(0)
    count = min(_COUNT, total)
    places = (2 * torch.arange(count) + 1) * total // (2 * count)
    tensors = torch.searchsorted(ends, places, right=True)
    return tensors, places - (ends - sizes)[tensors]
