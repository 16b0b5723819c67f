"""Foreign inputs: prompts and noised latents that do not hold a concept, as the base alone sees them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from orthoplex.activations.foreign_prompts import ForeignPrompts
from orthoplex.activations.random_concepts import replaced_vectors
from orthoplex.errors import OrthoplexError
from orthoplex.models import Base, Conditioning

_PURE_NOISE_FROM = 0.8
"""Share of the noise schedule after which latents are so noisy that pure noise stands for them."""


@dataclass(frozen=True, eq=False)
class ForeignInputs:
    """Inputs of the denoiser for n prompts without the concept.

    Attributes:
        ids: Token ids of the prompts, ``(n, length)``.
        vectors: Vectors in the place of the concept's k tokens, ``(n, k, dim)``.
        noisy: Noised latents, ``(n, c, h, w)``.
        times: Times of the noise, ``(n,)``, as the base's schedule has them.
    """

    ids: Tensor
    vectors: Tensor
    noisy: Tensor
    times: Tensor

    def __len__(self) -> int:
        """The number of inputs."""
        return len(self.ids)

    def take(self, chosen: Tensor) -> "ForeignInputs":
        """The inputs numbered ``chosen``."""
        return ForeignInputs(self.ids[chosen], self.vectors[chosen], self.noisy[chosen], self.times[chosen])

    def conditioning(self, base: Base, tokens: Sequence[str]) -> Conditioning:
        """Return all of the prompts as the denoiser takes them; see ``predict``."""
        with replaced_vectors(base, tokens, self.vectors):
            return base.family.condition(self.ids).to(base.dtype)

    def predict(self, base: Base, tokens: Sequence[str]) -> Tensor:
        """Return what the denoiser predicts for all of them, ``(n, c, h, w)``, with whatever is attached now.

        Args:
            base: The base; its tokenizer knows the concept's tokens.
            tokens: The names of the concept's k tokens.
        """
        return base.family.predict(self.noisy, self.times, self.conditioning(base, tokens))


def draw_foreign_inputs(
    base: Base,
    *,
    prompts: ForeignPrompts,
    vectors: Tensor,
    latents: Tensor | None,
    generator: torch.Generator,
) -> ForeignInputs:
    """Give every foreign prompt a noised latent, in random order.

    Args:
        base: The base; its tokenizer knows the concept's tokens.
        prompts: Foreign prompts.
        vectors: Vectors in the place of the concept's k tokens, ``(len(prompts.tokened), k, dim)``.
        latents: Prior latents ``(n, c, h, w)``, noised at any time; None takes pure noise at late times.
        generator: Decides order, noise and times.
    """
    schedule = base.family.schedule
    ids = base.family.words.ids([*prompts.tokened, *prompts.plain])
    vectors = torch.cat([vectors, torch.zeros(len(prompts.plain), *vectors.shape[1:])])
    order = torch.randperm(len(ids), generator=generator)
    noise = base.family.noise(len(ids), generator)
    times = schedule.draw(len(ids), generator, earliest=0.0 if latents is not None else _PURE_NOISE_FROM)
    noisy = noise
    if latents is not None:
        noisy = schedule.add_noise(latents[order % len(latents)].cpu(), noise, times)
    return ForeignInputs(ids[order], vectors[order], noisy, times)


@final
@dataclass(frozen=True, eq=False)
class PositionWeights:
    """How much every position of n prompts counts, for layers that see the text.

    Attributes:
        weights: ``(n, length)``.
        filling: Which positions are no words, ``(n, length)`` bool.
    """

    weights: Tensor
    filling: Tensor

    def take(self, chosen: Tensor) -> "PositionWeights":
        """The prompts numbered ``chosen``."""
        return PositionWeights(self.weights[chosen], self.filling[chosen])

    def of_inputs(self, layer: str, x: Tensor) -> Tensor:
        """Return the weights of a layer's inputs, ``(n, length)``; some encoders leave out filling behind all words.

        Args:
            layer: The layer.
            x: Its inputs, ``(n, length, in)``.

        Raises:
            OrthoplexError: When the inputs have other positions than the prompts.
        """
        n, length = self.weights.shape
        if x.ndim != 3 or len(x) != n or x.shape[1] > length or not self.filling[:, x.shape[1] :].all():
            raise OrthoplexError(
                f"layer {layer}: its inputs are {tuple(x.shape)}; allowed is ({n}, {length}, …), the positions of the "
                "prompts, of which filling alone may be missing"
            )
        return self.weights[:, : x.shape[1]]


def position_weights(base: Base, ids: Tensor, tokens: Sequence[str], encoder: str = "") -> PositionWeights:
    """Return the weight of every position of prompts, for layers that see the text.

    There are three groups of positions: words, concepts' tokens, and filling (beginning, end, padding). Each group has
    the same sum of weights. Without weights, filling would be nearly everything, and the tokens of other concepts,
    which an update must not answer, nearly nothing. The weights sum to the number of positions.

    Args:
        base: The base.
        ids: Token ids of the prompts, ``(n, length)``.
        tokens: The names of the concepts' tokens.
        encoder: The text encoder whose positions they are (``Family.reader_of``); empty for those of
            ``Conditioning.features``.
    """
    words = base.family.words
    filling = words.filling(ids, encoder or None)
    named = words.places(ids, tokens, encoder or None).any(1) & ~filling
    groups = [group for group in (filling, named, ~(filling | named)) if group.any()]
    shares = (group / group.sum() for group in groups)
    weights = sum(shares, torch.zeros(filling.shape)) * (filling.numel() / len(groups))
    return PositionWeights(weights, filling)
