from dataclasses import replace

import pytest
import torch

from orthoplex.activations.prior_pictures import PriorPictures
from orthoplex.models import ItemSizes
from orthoplex.training.batches import TrainingData, encode_latents

WHOLE = ItemSizes.whole(32, 32)


@pytest.fixture
def data(base, dataset, config):
    return TrainingData.prepare(base, dataset, config, None)


def test_native_resolution(base):
    assert base.family.resolution == 32


def test_latents_are_scaled_means(base, dataset):
    pixels = dataset.pixels()
    autoencoder = base.pipeline.vae
    expected = autoencoder.encode(pixels).latent_dist.mean * autoencoder.config.scaling_factor
    torch.testing.assert_close(encode_latents(base, pixels, 3), expected)


def test_both_views_are_cached(base, dataset, config, data):
    assert data.buckets[0].latents.shape == (2, 4, 4, 8, 8)
    mirrored = encode_latents(base, dataset.pixels().flip(-1), 4)
    torch.testing.assert_close(data.buckets[0].latents[1], mirrored)
    assert TrainingData.prepare(base, dataset, replace(config, flip=False), None).buckets[0].latents.shape == (
        1,
        4,
        4,
        8,
        8,
    )
    assert not data.buckets[0].latents.requires_grad


def test_a_step_is_decided_by_seed_and_step(config, data):
    first, again = data.batch(config, 4), data.batch(config, 4)
    for name in ("latents", "noise", "times", "ids"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    for other in (data.batch(config, 5), data.batch(replace(config, seed=1), 4)):
        assert not torch.equal(first.noise, other.noise)


def test_global_random_state_plays_no_part(config, data):
    torch.manual_seed(1)
    first = data.batch(config, 0)
    torch.manual_seed(2)
    assert torch.equal(first.noise, data.batch(config, 0).noise)


@pytest.mark.parametrize("batch_size", [1, 4, 6])
def test_pictures_repeat_only_when_there_are_too_few(config, data, batch_size):
    config = replace(config, batch_size=batch_size, flip=False)
    batch = data.batch(config, 0)
    flat = data.buckets[0].latents.flatten(2)
    seen = [next(i for i in range(4) for view in flat if torch.equal(view[i], x)) for x in batch.latents.flatten(1)]
    assert len(seen) == batch_size and len(set(seen)) == min(4, batch_size)
    assert batch.own == batch_size and len(batch.foreign) == 0


def test_caption_dropout(config, data):
    every = data.batch(replace(config, caption_dropout=1.0), 0)
    assert torch.equal(every.ids, data.empty_ids.expand(3, -1))
    none = data.batch(replace(config, caption_dropout=0.0), 0)
    assert not any(torch.equal(row, data.empty_ids) for row in none.ids)


def test_captions_belong_to_their_pictures(base, dataset, config):
    pictures = tuple(
        replace(picture, captions=(f"{color} <anna> person",))
        for picture, color in zip(dataset.pictures, ("red", "green", "blue", "day"), strict=True)
    )
    data = TrainingData.prepare(base, replace(dataset, pictures=pictures), replace(config, caption_dropout=0.0), None)
    batch = data.batch(replace(config, caption_dropout=0.0), 0)
    for latents, ids in zip(batch.latents, batch.ids, strict=True):
        index = next(i for i in range(4) if any(torch.equal(view[i], latents) for view in data.buckets[0].latents))
        assert torch.equal(ids, base.family.words.ids(pictures[index].captions)[0])


def test_noise_offset_moves_whole_channels(config, data):
    plain, moved = data.batch(config, 0), data.batch(replace(config, noise_offset=0.5), 0)
    difference = moved.noise - plain.noise
    assert difference.std((2, 3)).max() < 1e-6 and difference.abs().min() > 0


@pytest.mark.parametrize("text_encoder", [False, True])
def test_prior_pictures_follow_the_own_ones(base, dataset, config, text_encoder):
    config = replace(config, batch_size=4, prior_weight=0.5, text_encoder=text_encoder)
    prior = PriorPictures(torch.full((2, 4, 8, 8), 9.0), base.family.words.ids(["a dog", "a cat"]), (WHOLE, WHOLE))
    data = TrainingData.prepare(base, dataset, config, prior)
    batch = data.batch(config, 0)
    assert (batch.own, len(batch.latents), len(batch.foreign)) == (4, 6, 2)
    assert (batch.latents[4:] == 9.0).all() and not (batch.latents[:4] == 9.0).all()
    assert (data.prior_conditioning is None) == text_encoder
    features = data.conditioning(base, batch).features
    ids = torch.cat([batch.ids, prior.ids[batch.foreign]])
    torch.testing.assert_close(features, base.family.condition(ids).features)


def test_prior_pictures_without_a_weight_are_for_erasure_alone(base, dataset, config):
    prior = PriorPictures(torch.zeros(1, 4, 8, 8), base.family.words.ids(["a dog"]), (WHOLE,))
    data = TrainingData.prepare(base, dataset, config, prior)
    assert data.prior is None and len(data.batch(config, 0).latents) == config.batch_size


def test_concepts_trained_apart_share_no_noise(data, config):
    other = replace(data, identity="another data set")
    assert not torch.equal(data.batch(config, 0).noise, other.batch(config, 0).noise)
