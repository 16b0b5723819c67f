"""The data of each step, decided by (seed, step) alone, so that a resumed run sees what an unbroken one does."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from orthoplex.models import Base
from orthoplex.subspaces import seeded
from orthoplex.training.config import TrainingConfig
from orthoplex.training.dataset import ConceptDataset
from orthoplex.training.diffusion import NoiseSchedule
from orthoplex.training.foreign import PriorPictures
from orthoplex.training.text import encode_ids, text_features


@dataclass(frozen=True, eq=False)
class Batch:
    """What one step trains on; the first ``own`` items are the concept's pictures, the others prior pictures.

    Attributes:
        latents: ``x_0``, ``(b, c, h, w)``.
        noise: ε, the same shape.
        timesteps: ``(b,)`` int64.
        ids: Token ids of the own items, ``(own, length)``.
        foreign: Which prior pictures follow them, ``(b − own,)`` int64.
    """

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    ids: Tensor
    foreign: Tensor

    @property
    def own(self) -> int:
        """How many items are the concept's."""
        return len(self.ids)


@torch.no_grad()
def encode_latents(base: Base, pixels: Tensor, batch_size: int) -> Tensor:
    """Return the mean latents of pictures, as the denoiser sees them, ``(n, c, h, w)`` float32.

    Args:
        base: The base whose autoencoder encodes.
        pixels: ``(n, 3, height, width)`` in [-1, 1].
        batch_size: Pictures at a time.
    """
    autoencoder = base.pipeline.vae
    shift = autoencoder.config.get("shift_factor") or 0.0
    encoded = [
        autoencoder.encode(part.to(autoencoder.device, autoencoder.dtype)).latent_dist.mean.float()
        for part in pixels.split(batch_size)
    ]
    return (torch.cat(encoded) - shift) * autoencoder.config.scaling_factor


def native_resolution(base: Base) -> int:
    """Return the width and height, in pixels, of the pictures that the base was made for."""
    return int(base.pipeline.unet.config.sample_size * base.pipeline.vae_scale_factor)


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Everything cached before the first step.

    Attributes:
        latents: ``(1 or 2, n, c, h, w)``: the pictures, and mirrored ones where pictures are flipped.
        captions: Per picture, the rows of ``ids`` that may caption it.
        ids: Token ids of all different captions, ``(m, length)``.
        empty_ids: Token ids of the empty prompt, ``(length,)``.
        schedule: The base's noise schedule.
        prior: Prior pictures, where prior preservation is on.
        prior_features: Text features of their prompts, where the text encoder does not change.
        identity: What the draws depend on besides seed and step, so that concepts trained apart share no noise.
    """

    latents: Tensor
    captions: Sequence[Tensor]
    ids: Tensor
    empty_ids: Tensor
    schedule: NoiseSchedule
    prior: PriorPictures | None
    prior_features: Tensor | None
    identity: str

    @staticmethod
    @torch.no_grad()
    def prepare(
        base: Base, dataset: ConceptDataset, config: TrainingConfig, prior: PriorPictures | None
    ) -> "TrainingData":
        """Encode pictures and captions once."""
        pixels = dataset.pixels()
        views = [pixels, pixels.flip(-1)] if config.flip else [pixels]
        texts = dataset.captions
        prior = prior if config.prior_weight > 0 else None
        return TrainingData(
            latents=torch.stack([encode_latents(base, view, config.batch_size) for view in views]),
            captions=[torch.tensor([texts.index(text) for text in item.captions]) for item in dataset.pictures],
            ids=encode_ids(base, texts),
            empty_ids=encode_ids(base, [""])[0],
            schedule=NoiseSchedule.of(base.pipeline.scheduler),
            prior=prior,
            prior_features=None if prior is None or config.text_encoder else text_features(base, prior.ids),
            identity=dataset.dataset_hash,
        )

    def features(self, base: Base, batch: Batch) -> Tensor:
        """Return the text features of all items, as ``text_features`` has them; what cannot change is cached."""
        own = text_features(base, batch.ids)
        if self.prior is None:
            return own
        if self.prior_features is None:
            return torch.cat([own, text_features(base, self.prior.ids[batch.foreign])])
        return torch.cat([own, self.prior_features[batch.foreign].to(own)])

    def batch(self, config: TrainingConfig, step: int) -> Batch:
        """Draw the batch of a step: pictures, views, captions, noise and timesteps."""
        generator = seeded("batch", self.identity, config.seed, step)
        views, count = self.latents.shape[:2]
        chosen = torch.cat([torch.randperm(count, generator=generator) for _ in range(-(-config.batch_size // count))])
        chosen = chosen[: config.batch_size]
        mirrored = torch.randint(0, views, chosen.shape, generator=generator)
        ids = torch.stack([self._caption(int(index), config, generator) for index in chosen])
        latents = self.latents[mirrored, chosen]
        foreign = torch.zeros(0, dtype=torch.int64)
        if self.prior is not None:
            extra = max(1, round(config.prior_weight * config.batch_size))
            foreign = torch.randint(0, len(self.prior.ids), (extra,), generator=generator)
            latents = torch.cat([latents, self.prior.latents[foreign].to(latents)])
        noise = torch.randn(latents.shape, generator=generator)
        noise = noise + config.noise_offset * torch.randn(*latents.shape[:2], 1, 1, generator=generator)
        timesteps = torch.randint(0, len(self.schedule), (len(latents),), generator=generator)
        device = latents.device
        return Batch(latents, noise.to(device), timesteps.to(device), ids, foreign)

    def _caption(self, index: int, config: TrainingConfig, generator: torch.Generator) -> Tensor:
        options = self.captions[index]
        drawn = options[int(torch.randint(0, len(options), (1,), generator=generator))]
        dropped = float(torch.rand(1, generator=generator)) < config.caption_dropout
        return self.empty_ids if dropped else self.ids[drawn]
