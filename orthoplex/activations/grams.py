"""What the layers of a base see: watched while it works, or gathered as Gram matrices from prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from orthoplex.errors import BaseModelError, ConfigurationError
from orthoplex.models.base import Base
from orthoplex.models.families.conditioning import Conditioning
from orthoplex.models.families.pictures import PictureRequest, finished
from orthoplex.models.weights import Foldable

BATCH_SIZE = 8

Observer = Callable[[str, nn.Linear, Tensor], None]
"""Called with a layer's name, the layer, and its inputs ``(..., in)`` of one forward pass."""


@contextmanager
def observed_inputs(linears: Mapping[str, nn.Linear], observe: Observer) -> Iterator[None]:
    """Inside, ``observe`` is called for every forward pass of every layer named."""

    def watch(layer: str, linear: nn.Linear) -> torch.utils.hooks.RemovableHandle:
        return linear.register_forward_pre_hook(lambda module, inputs: observe(layer, linear, inputs[0]))

    handles = [watch(layer, linear) for layer, linear in linears.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


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

    No picture is decoded or kept. A layer that sees the text alone is given every prompt's features, padding included,
    as it is when pictures are made; they are the same in every denoising step, so that the denoiser does not run where
    no other layer is asked for (once for layer-wise tokens).

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
        with collected_grams(base, layers) as seen:
            for start in range(0, len(prompts), BATCH_SIZE):
                batch = list(prompts[start : start + BATCH_SIZE])
                if of_text:
                    show_text(base, family.condition(batch), seen)
                    continue
                generators = [torch.Generator().manual_seed(seed + start + i) for i in range(len(batch))]
                finished(
                    family.picture(
                        PictureRequest(batch, generators, num_inference_steps, guidance_scale=1.0, decoded=False)
                    )
                )
    return {layer: gram.value(layer) for layer, gram in seen.items()}


def show_text(base: Base, conditioning: Conditioning, seen: Mapping[str, MeanGram]) -> None:
    """Let layers that see the text take note of prompts, as they do in pictures; a text encoder's layers have.

    Args:
        base: The base.
        conditioning: The prompts.
        seen: Where inputs come together, for layers that see the text alone.
    """
    family, features = base.family, conditioning.features
    if base.has_layerwise_tokens or not family.passes_features:  # what a layer is given, the denoiser alone knows
        still = features.new_zeros(len(features), *family.latent_shape)
        family.predict(still, torch.zeros(len(features), dtype=torch.int64), conditioning)
        return
    readers = {layer: linear for layer, linear in family.feature_layers().items() if layer in seen}
    for width in {linear.in_features for linear in readers.values()}:
        gram, count = _gram(features[..., :width])
        for layer, linear in readers.items():
            if linear.in_features == width:
                seen[layer].take_in(gram, count)


@contextmanager
def collected_grams(base: Base, layers: Sequence[str]) -> Iterator[Mapping[str, MeanGram]]:
    """Inside, the Gram matrices of what layers are given come together, layer by layer; the base is this thread's.

    Raises:
        BaseModelError: When a layer is missing.
    """
    every = base.family.every_layer()
    for layer in layers:
        if layer not in every:
            raise BaseModelError(f"layer '{layer}' is not in the base, which has {len(every)} linear layers")
    seen = {layer: MeanGram() for layer in layers}
    with (
        base.locked(),
        observed_inputs({layer: every[layer] for layer in layers}, lambda layer, _, x: seen[layer].add(x)),
    ):
        yield seen


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
