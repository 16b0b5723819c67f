"""The data of each step, decided by (seed, step) alone, so that a resumed run sees what an unbroken one does."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from orthoplex.activations.prior_pictures import PriorPictures
from orthoplex.concepts.tokens import TOKENS
from orthoplex.models import Base, Conditioning, ItemSizes, Schedule, precision
from orthoplex.subspaces import seeded
from orthoplex.training.config import TrainingConfig
from orthoplex.training.dataset import ConceptDataset
from orthoplex.training.tensor_cache import NO_CACHE, TensorCache


@dataclass(frozen=True, eq=False)
class Batch:
    """The data of a step; the first ``own`` items are the concept's pictures, the others prior pictures.

    Attributes:
        latents: ``x_0``, ``(b, c, h, w)``.
        noise: ε, the same shape.
        times: ``(b,)``, as the base's schedule draws them.
        ids: Token ids of the own items, ``(own, length)``.
        rows: Which captions these are, ``(own,)`` int64; the last one is the empty prompt.
        foreign: Which prior pictures follow them, ``(b − own,)`` int64.
        shares: How much each position counts in the loss, ``(b, 1, h, w)``, on average 1; None where all count alike.
        sizes: What was done to each item before it became latents.
    """

    latents: Tensor
    noise: Tensor
    times: Tensor
    ids: Tensor
    rows: Tensor
    foreign: Tensor
    shares: Tensor | None
    sizes: tuple[ItemSizes, ...]

    @property
    def own(self) -> int:
        """The number of items that are the concept's."""
        return len(self.ids)


def encode_latents(base: Base, pixels: Tensor, batch_size: int, cache: TensorCache = NO_CACHE) -> Tensor:
    """Return the mean latents of pictures, as the denoiser sees them, ``(n, c, h, w)`` float32.

    Args:
        base: The base whose autoencoder encodes.
        pixels: ``(n, 3, height, width)`` in [-1, 1].
        batch_size: Pictures at a time.
        cache: Where they are stored and read.
    """
    return torch.cat([cache.latents(part, base.family.latents) for part in pixels.split(batch_size)])


def encode_prompts(base: Base, ids: Tensor, config: TrainingConfig, cache: TensorCache) -> Conditioning:
    """Return prompts in which nothing learns, as the denoiser takes them, on the CPU.

    Args:
        base: The base.
        ids: Their token ids, ``(n, length)``.
        config: For the precision, and the number of prompts at a time.
        cache: Where they are stored and read.
    """
    with precision(config.mixed_precision, base.device):
        parts = [
            cache.conditioning(part, config.mixed_precision, base.family.condition).to(device=torch.device("cpu"))
            for part in ids.split(config.batch_size)
        ]
    return Conditioning.cat(parts)


def shares_of(masks: Tensor, size: tuple[int, int], mask_weight: float) -> Tensor:
    """Return how much each position of the latents counts, ``(n, 1, h, w)``, on average 1 in every picture.

    A position where the mask is black counts ``mask_weight`` times as much as one where it is white.

    Args:
        masks: ``(n, 1, height, width)`` in [0, 1].
        size: Height and width of the latents.
        mask_weight: From 0 to 1.
    """
    counts = mask_weight + (1.0 - mask_weight) * functional.interpolate(masks, size, mode="area")
    return counts / counts.mean((2, 3), keepdim=True)


@final
@dataclass(frozen=True, eq=False)
class Bucket:
    """Pictures of one size.

    Attributes:
        numbers: Which pictures they are, ``(n,)`` int64.
        latents: ``(1 or 2, n, c, h, w)``: the pictures, and mirrored ones where pictures are flipped.
        shares: How much each position of the pictures counts, ``(1 or 2, n, 1, h, w)``; None where all count alike.
    """

    numbers: Tensor
    latents: Tensor
    shares: Tensor | None

    @staticmethod
    def of(
        base: Base, dataset: ConceptDataset, config: TrainingConfig, numbers: Sequence[int], cache: TensorCache
    ) -> "Bucket":
        """Encode pictures of one size."""
        pixels = dataset.pixels(numbers)
        views = [pixels, pixels.flip(-1)] if config.flip else [pixels]
        latents = torch.stack([encode_latents(base, view, config.batch_size, cache) for view in views])
        masks, shares = None if config.mask_weight == 1 else dataset.masks(numbers), None
        if masks is not None:
            size = (latents.shape[-2], latents.shape[-1])
            flipped = [masks, masks.flip(-1)][: len(views)]
            shares = torch.stack([shares_of(view, size, config.mask_weight) for view in flipped])
        return Bucket(torch.tensor(numbers), latents, shares)


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Everything cached before the first step.

    Attributes:
        buckets: The pictures, those of each size together.
        sizes: Per picture, what was done to it before it became latents.
        captions: Per picture, the rows of ``ids`` that may caption it.
        ids: Token ids of all different captions, ``(m, length)``.
        empty_ids: Token ids of the empty prompt, ``(length,)``.
        schedule: The base's noise schedule.
        prior: Prior pictures, where prior preservation is on.
        prior_conditioning: Their prompts, where the text encoder does not change.
        own_conditioning: All captions and the empty prompt, where nothing in them learns.
        identity: Text that the draws depend on, besides seed and step, so that concepts trained apart share no noise.
    """

    buckets: Sequence[Bucket]
    sizes: Sequence[ItemSizes]
    captions: Sequence[Tensor]
    ids: Tensor
    empty_ids: Tensor
    schedule: Schedule
    prior: PriorPictures | None
    prior_conditioning: Conditioning | None
    identity: str
    own_conditioning: Conditioning | None = None

    @staticmethod
    @torch.no_grad()
    def prepare(
        base: Base,
        dataset: ConceptDataset,
        config: TrainingConfig,
        prior: PriorPictures | None,
        cache: TensorCache = NO_CACHE,
    ) -> "TrainingData":
        """Encode pictures and captions once."""
        texts, words = dataset.captions, base.family.words
        prior = prior if config.prior_weight > 0 else None
        ids, empty_ids = words.ids(texts), words.ids([""])
        of_prior = cache if config.token_vectors in TOKENS["vector"].learnings else NO_CACHE  # others widen features
        keeps_text = config.num_tokens == 0 and not config.text_encoder
        return TrainingData(
            buckets=[Bucket.of(base, dataset, config, numbers, cache) for numbers in dataset.in_buckets()],
            sizes=[item.sizes for item in dataset.pictures],
            captions=[torch.tensor([texts.index(text) for text in item.captions]) for item in dataset.pictures],
            ids=ids,
            empty_ids=empty_ids[0],
            schedule=base.family.schedule,
            prior=prior,
            prior_conditioning=None
            if prior is None or config.text_encoder
            else of_prior.conditioning(prior.ids, "no", base.family.condition),
            identity=dataset.dataset_hash,
            own_conditioning=encode_prompts(base, torch.cat([ids, empty_ids]), config, cache) if keeps_text else None,
        )

    def conditioning(self, base: Base, batch: Batch) -> Conditioning:
        """Return the prompts of all items as the denoiser takes them; what cannot change is cached."""
        if self.own_conditioning is None:
            own = base.family.condition(batch.ids)
        else:
            own = self.own_conditioning.take(batch.rows).to(device=base.device)
        if self.prior is None:
            return base.family.with_sizes(own, batch.sizes)
        if self.prior_conditioning is None:
            prior = base.family.condition(self.prior.ids[batch.foreign])
        else:
            prior = self.prior_conditioning.take(batch.foreign).to(own.features.dtype, own.features.device)
        return base.family.with_sizes(Conditioning.cat([own, prior]), batch.sizes)

    def batch(self, config: TrainingConfig, step: int) -> Batch:
        """Draw the batch of a step: a bucket, pictures of it, views, captions, noise and times."""
        generator = seeded("batch", self.identity, config.seed, step)
        bucket = self._bucket(generator)
        views, count = bucket.latents.shape[:2]
        chosen = torch.cat([torch.randperm(count, generator=generator) for _ in range(-(-config.batch_size // count))])
        chosen = chosen[: config.batch_size]
        mirrored = torch.randint(0, views, chosen.shape, generator=generator)
        numbers = bucket.numbers[chosen].tolist()
        rows = torch.tensor([self._caption(number, config, generator) for number in numbers])
        ids = torch.cat([self.ids, self.empty_ids.unsqueeze(0)])[rows]
        latents = bucket.latents[mirrored, chosen]
        foreign, sizes = torch.zeros(0, dtype=torch.int64), tuple(self.sizes[number] for number in numbers)
        if self.prior is not None:
            extra = max(1, round(config.prior_weight * config.batch_size))
            foreign = torch.randint(0, len(self.prior.ids), (extra,), generator=generator)
            latents = torch.cat([latents, self.prior.latents[foreign].to(latents)])
            sizes += tuple(self.prior.sizes[number] for number in foreign.tolist())
        noise = torch.randn(latents.shape, generator=generator)
        noise = noise + config.noise_offset * torch.randn(*latents.shape[:2], 1, 1, generator=generator)
        times = self.schedule.draw(len(latents), generator)
        device = latents.device
        shares = None
        if bucket.shares is not None:
            shares = bucket.shares[mirrored, chosen]
            shares = torch.cat([shares, torch.ones_like(shares[:1]).expand(len(foreign), -1, -1, -1)]).to(device)
        return Batch(latents, noise.to(device), times.to(device), ids, rows, foreign, shares, sizes)

    def losses(self, prediction: Tensor, batch: Batch, config: TrainingConfig) -> Tensor:
        """Return the loss of each item, ``(b,)`` float32."""
        gamma = config.min_snr_gamma
        return self.schedule.losses(prediction, batch.latents, batch.noise, batch.times, gamma, batch.shares)

    def _bucket(self, generator: torch.Generator) -> Bucket:
        """Draw a bucket, as likely as it has pictures; a single bucket takes nothing from the generator."""
        if len(self.buckets) == 1:
            return self.buckets[0]
        counts = torch.tensor([len(bucket.numbers) for bucket in self.buckets])
        place = torch.randint(0, int(counts.sum()), (1,), generator=generator)
        return self.buckets[int(torch.searchsorted(counts.cumsum(0), place, right=True))]

    def _caption(self, index: int, config: TrainingConfig, generator: torch.Generator) -> int:
        options = self.captions[index]
        drawn = options[int(torch.randint(0, len(options), (1,), generator=generator))]
        dropped = float(torch.rand(1, generator=generator)) < config.caption_dropout
        return len(self.ids) if dropped else int(drawn)
