"""Buckets: pictures keep their shape, and every batch is of one size."""

from contextlib import closing
from dataclasses import replace

import pytest
import torch
from PIL import Image

from orthoplex.concepts import load_concept
from orthoplex.errors import ConfigurationError
from orthoplex.models import ItemSizes, load_base, side_multiple
from orthoplex.training import ConceptDataset, train
from orthoplex.training.batches import TrainingData
from orthoplex.training.buckets import bucket_of, bucket_sizes, bucket_step
from tests.training.conftest import write_pictures


def read(folder, **changes):
    options = {"resolution": 32, "token": "<anna>", "class_word": "person", "side_multiple": 4}
    return ConceptDataset.from_folder(folder, **(options | changes))


@pytest.fixture
def mixed(tmp_path):
    """Four pictures, two upright, one wide, one square."""
    folder = tmp_path / "mixed"
    for number, size in enumerate([(40, 80), (40, 40), (90, 40), (41, 80)]):
        write_pictures(tmp_path / str(number), 1, size=size)
        folder.mkdir(exist_ok=True)
        (tmp_path / str(number) / "00.png").rename(folder / f"{number:02d}.png")
    return folder


@pytest.fixture
def plain(config):
    return replace(config, buckets=True, erasure=0.0, prior_pictures=0)


@pytest.mark.parametrize(
    ("resolution", "multiple", "step"), [(32, 4, 4), (256, 8, 8), (512, 8, 64), (1024, 16, 64), (1024, 24, 192)]
)
def test_large_buckets_are_coarse(resolution, multiple, step):
    assert bucket_step(resolution, multiple) == step


def test_sizes_of_buckets_written_out():
    assert bucket_sizes(4, 2) == ((2, 6), (2, 8), (4, 4), (6, 2), (8, 2))
    assert bucket_sizes(3, 2) == ((2, 4), (3, 3), (4, 2))
    assert {(256, 832), (256, 1024), (704, 320), (512, 512)} < set(bucket_sizes(512, 64))


@pytest.mark.parametrize(("resolution", "step"), [(32, 4), (512, 64), (768, 64), (1024, 64), (1328, 64), (1000, 8)])
def test_buckets_have_the_area_of_the_square_and_come_in_pairs(resolution, step):
    sizes = bucket_sizes(resolution, step)
    assert {(height, width) for width, height in sizes} == set(sizes) and len(set(sizes)) == len(sizes)
    for width, height in sizes:
        assert (width % step, height % step) == (0, 0) or width == height == resolution
        assert resolution**2 - 2 * step * max(width, height) < width * height <= resolution**2


@pytest.mark.parametrize(
    ("size", "bucket"),
    [
        ((3000, 3000), (512, 512)),
        ((3000, 2000), (640, 384)),
        ((2000, 3000), (384, 640)),
        ((2000, 1500), (576, 448)),
        ((900, 9), (1024, 256)),
        ((1, 1), (512, 512)),
    ],
)
def test_the_nearest_bucket(size, bucket):
    assert bucket_of(*size, bucket_sizes(512, 64)) == bucket


def test_pictures_keep_their_shape_and_know_their_sizes(mixed):
    dataset = read(mixed)
    assert [tuple(item.pixels.shape) for item in dataset.pictures] == [
        (3, 44, 20),
        (3, 32, 32),
        (3, 20, 44),
        (3, 44, 20),
    ]
    assert dataset.in_buckets() == ((2,), (1,), (0, 3)) and dataset.has_buckets
    assert dataset.pictures[1].sizes == ItemSizes((40, 40), (0, 0), (32, 32))
    assert dataset.pictures[2].sizes == ItemSizes((40, 90), (0, 0), (20, 44))
    assert read(mixed, side_multiple=None).in_buckets() == ((0, 1, 2, 3),)


def test_small_pictures_are_enlarged_with_a_warning(tmp_path, caplog):
    Image.new("RGB", (80, 20)).save(tmp_path / "wide.png")
    Image.new("RGB", (20, 30)).save(tmp_path / "small.png")
    read(tmp_path)
    assert [record.message for record in caplog.records] == [
        "small.png (20×30): smaller than 32×32, and enlarged; details are lost"
    ]


def test_pictures_wider_than_every_bucket_are_named(tmp_path, caplog):
    for name, size in {"wide": (1000, 50), "high": (60, 1000), "half": (1000, 130), "square": (99, 99)}.items():
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    read(tmp_path)
    assert [record.message for record in caplog.records] == [
        "high.png, wide.png: the bucket in the middle leaves out more than half of the picture"
    ]


def test_square_pictures_train_as_without_buckets(base, dataset, config, folder):
    plain = TrainingData.prepare(base, dataset, config, None)
    bucketed = TrainingData.prepare(base, replace(dataset, has_buckets=True), replace(config, buckets=True), None)
    for name in ("latents", "noise", "times", "ids"):
        assert torch.equal(getattr(plain.batch(config, 3), name), getattr(bucketed.batch(config, 3), name))


def test_every_batch_is_of_one_bucket_and_all_pictures_come(base, mixed, plain):
    data = TrainingData.prepare(base, read(mixed), plain, None)
    shapes = [tuple(data.batch(plain, step).latents.shape) for step in range(200)]
    counts = {shape: shapes.count(shape) for shape in set(shapes)}
    assert set(counts) == {(3, 4, 11, 5), (3, 4, 8, 8), (3, 4, 5, 11)}
    assert 70 < counts[3, 4, 11, 5] < 130 and min(counts.values()) > 25
    batch = data.batch(plain, 5)
    assert torch.equal(batch.noise, data.batch(plain, 5).noise)
    assert all(item.target == tuple(4 * side for side in batch.latents.shape[2:]) for item in batch.sizes)


def test_masks_follow_their_pictures_into_buckets(base, mixed, plain):
    image = Image.new("L", (90, 40))
    image.paste(255, (0, 0, 45, 40))
    (mixed / "masks").mkdir()
    image.save(mixed / "masks" / "02.png")
    data = TrainingData.prepare(base, read(mixed), plain, None)
    assert [tuple(bucket.shares.shape) for bucket in data.buckets] == [
        (2, 1, 1, 5, 11),
        (2, 1, 1, 8, 8),
        (2, 2, 1, 11, 5),
    ]
    row = data.buckets[0].shares[0, 0, 0, 0]
    torch.testing.assert_close(row[:5] * 0.1, row[6:])
    assert (data.buckets[1].shares == 1).all()


def test_a_resumed_run_is_the_unbroken_one(base, mixed, plain, tmp_path):
    plain = replace(plain, steps=4, resolution=32, noise_offset=0.1, min_snr_gamma=5.0)
    whole, broken = tmp_path / "whole.safetensors", tmp_path / "broken.safetensors"
    list(train(base, read(mixed), plain, output=whole))
    with closing(train(base, read(mixed), plain, output=broken)) as records:
        for record in records:
            if record.step == 2:
                break
    list(train(base, read(mixed), plain, output=broken, resume=True))
    expected, concept = load_concept(whole), load_concept(broken)
    assert all(torch.equal(concept.layers[name].up, change.up) for name, change in expected.layers.items())


def test_stable_diffusion_xl_reads_the_sizes(pico_xl_folder, mixed, plain):
    base = load_base(pico_xl_folder)
    data = TrainingData.prepare(base, read(mixed, side_multiple=side_multiple(base.family)), plain, None)
    batch = data.batch(plain, 0)
    rows = data.conditioning(base, batch).extras["sizes"]
    assert rows.tolist() == [list(item.numbers) for item in batch.sizes]


REFUSED = {
    "prior": (
        {"prior_weight": 0.5, "prior_pictures": 2},
        {},
        "prior_weight is 0.5 and buckets is true, and prior pictures",
    ),
    "squares": ({}, {"side_multiple": None}, "buckets is true and the pictures are cut to squares; allowed is false"),
    "buckets": ({"buckets": False}, {}, "buckets is false and the pictures are in buckets; allowed is true"),
    "resolution": ({"resolution": 40}, {}, "resolution is 40; allowed is 32, the pictures'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_options_that_do_not_fit_the_pictures(base, mixed, plain, tmp_path, case):
    options, changes, message = REFUSED[case]
    with pytest.raises(ConfigurationError, match=message):
        list(train(base, read(mixed, **changes), replace(plain, **options), output=tmp_path / "x.safetensors"))
