"""Gram matrices of the inputs of a base's layers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from orthoplex.activations.features import read_features
from orthoplex.activations.observed import observed_inputs
from orthoplex.errors import BaseModelError, ConfigurationError
from orthoplex.models.base import Base
from orthoplex.models.families.conditioning import Conditioning
from orthoplex.models.families.pictures import PictureRequest, finished
from orthoplex.models.weights import Foldable, matrix_shapes, named_modules

BATCH_SIZE = 8


@torch.no_grad()
def gather_grams(
    base: Base,
    layers: Sequence[str],
    prompts: Sequence[str],
    *,
    change: Foldable | None = None,
    num_inference_steps: int = 10,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Return ``G = E[x xᵀ]`` over the inputs of layers while the base pictures prompts, without guidance.

    No picture is decoded or stored. A layer that sees the text alone reads every prompt's features, padding included,
    as when pictures are made. Features are the same in every denoising step, so the denoiser runs for other layers
    only.

    Args:
        base: The base, with nothing folded in that ``change`` would meet.
        layers: Names of linear layers.
        prompts: At least one.
        change: A concept or merge that is folded in meanwhile.
        num_inference_steps: Denoising steps per picture.
        seed: Of the noise of the first prompt's picture; the next ones count up.

    Returns:
        Layer to ``(in, in)`` float32.

    Raises:
        ConfigurationError: When there is no prompt, or more steps than the base has.
        BaseModelError: When a layer is missing or is given no input, or ``change`` does not fit the base.
    """
    if not prompts:
        raise ConfigurationError("Gram matrices of 0 prompts were asked for; at least 1 is allowed")
    base.check_inference_steps("num_inference_steps", num_inference_steps)
    family = base.family
    of_text = family.see_text_alone(layers)
    with base.locked(), base.folded(change) if change is not None else nullcontext():
        if not of_text:
            family.channels_last()
        with collected_grams(base, layers) as grams:
            for start in range(0, len(prompts), BATCH_SIZE):
                batch = list(prompts[start : start + BATCH_SIZE])
                if of_text:
                    add_text(base, family.condition(batch), grams)
                    continue
                generators = [torch.Generator().manual_seed(seed + start + i) for i in range(len(batch))]
                unguided = family.least_guidance
                finished(
                    family.picture(PictureRequest(batch, generators, num_inference_steps, unguided, decoded=False))
                )
    return {layer: gram.value(layer) for layer, gram in grams.items()}


def add_text(base: Base, conditioning: Conditioning, grams: Mapping[str, MeanGram]) -> None:
    """Add the features of prompts to the Gram matrices of layers; text encoders' layers add theirs while they run.

    The denoiser runs only in families that change the features before its layers read them.

    Args:
        base: The base, within ``collected_grams``.
        conditioning: The prompts.
        grams: Layer to its Gram matrix, of layers that see the text alone.
    """
    family, features = base.family, conditioning.features
    if not family.passes_features:
        still = features.new_zeros(len(features), *family.latent_shape)
        family.predict(still, torch.zeros(len(features), dtype=torch.int64), conditioning)
        return
    read = {layer: part for layer, part in read_features(base, features).items() if layer in grams}
    sums = {id(part): _gram(part) for part in read.values()}  # layers that read the same share a tensor
    for layer, part in read.items():
        grams[layer].take_in(*sums[id(part)])


@contextmanager
def collected_grams(base: Base, layers: Sequence[str]) -> Iterator[Mapping[str, MeanGram]]:
    """Inside, inputs of layers are added to one Gram matrix a layer; the base belongs to this thread.

    Raises:
        BaseModelError: When a layer is missing.
    """
    every = observable_layers(base)
    for layer in layers:
        if layer not in every:
            raise BaseModelError(f"layer '{layer}' is not in the base, which has {len(every)} linear layers")
    grams = {layer: MeanGram() for layer in layers}
    with (
        base.locked(),
        observed_inputs(
            {layer: every[layer] for layer in layers}, lambda layer, module, x: grams[layer].add(_rows(module, x))
        ),
    ):
        yield grams


def observable_layers(base: Base) -> dict[str, nn.Module]:
    """Return the layers whose outputs are a matrix times inputs: linear ones, and convolutions of single pixels.

    Args:
        base: The base.
    """
    return {
        name: module
        for name, module in named_modules(base.family.components()).items()
        if isinstance(module, nn.Linear) or _is_pointwise(module)
    }


def split_layers(base: Base, layers: Iterable[str]) -> tuple[list[str], tuple[str, ...]]:
    """Return the ``observable_layers`` among some, and the others, in the order given.

    Args:
        base: The base.
        layers: Names of layers.

    Raises:
        BaseModelError: When a layer is missing.
    """
    names, observable, known = list(layers), observable_layers(base), matrix_shapes(base.family.components())
    for layer in names:
        if layer not in known:
            raise BaseModelError(f"layer '{layer}' is not in the base, which has {len(observable)} linear layers")
    return [layer for layer in names if layer in observable], tuple(layer for layer in names if layer not in observable)


def _is_pointwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and (module.kernel_size, module.groups) == ((1, 1), 1)


def _rows(module: nn.Module, x: Tensor) -> Tensor:
    """Inputs of a layer with the features last."""
    return x.movedim(1, -1) if isinstance(module, nn.Conv2d) else x


class MeanGram:
    """A running mean of ``x xᵀ``, summed in float64."""

    def __init__(self) -> None:
        self._sum: Tensor | None = None
        self._count = 0

    def add(self, x: Tensor) -> None:
        """Take in inputs ``(..., in)``."""
        self.take_in(*_gram(x))

    def take_in(self, gram: Tensor, count: int) -> None:
        """Take in the sum of ``x xᵀ``, ``(in, in)``, over a number of inputs."""
        self._sum = gram if self._sum is None else self._sum + gram
        self._count += count

    def value(self, layer: str) -> Tensor:
        """The mean so far, ``(in, in)`` float32; ``layer`` is for the error."""
        if self._sum is None:
            raise BaseModelError(f"layer '{layer}' is given no input when the base makes pictures")
        return (self._sum / self._count).float().cpu()


def _gram(x: Tensor) -> tuple[Tensor, int]:
    """The sum of ``x xᵀ`` over inputs ``(..., in)``, float64 on the CPU, and how many they are."""
    rows = x.detach().float().flatten(0, -2)
    return (rows.T @ rows).cpu().double(), len(rows)  # not every device has float64
