"""Masks: which picture each belongs to, and what it does to the loss."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from orthoplex.activations.prior_pictures import PriorPictures
from orthoplex.errors import ConfigurationError, DatasetError
from orthoplex.models import ItemSizes
from orthoplex.training import ConceptDataset, DataFolder, TrainingConfig, checked_folder, train
from orthoplex.training.batches import TrainingData, shares_of
from orthoplex.training.run import Run

WHOLE = ItemSizes.whole(32, 32)


def half(size=(40, 36), *, left=255, right=0):
    """A mask that is grey of two shades."""
    values = np.full((size[1], size[0]), right, dtype=np.uint8)
    values[:, : size[0] // 2] = left
    return Image.fromarray(values)


def put(folder, name, image):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def read(folder, resolution=32):
    return ConceptDataset.from_folder(folder, resolution=resolution, token="<anna>", class_word="person")


def masks(folder):
    return {item.file_name: item.mask for item in DataFolder.scan(folder).pictures if item.mask}


@pytest.mark.parametrize(
    "name",
    [
        "00-masklabel.png",
        "00-mask.png",
        "00_mask.png",
        "00.mask.png",
        "00_masks.PNG",
        "masks/00.png",
        "Mask/00.jpg",
        "masks/00.png.png",
        "masks/00_mask.png",
    ],
)
def test_names_of_masks(folder, name):
    put(folder, name, half())
    scan = DataFolder.scan(folder)
    assert masks(folder) == {"00.png": folder / name} and not scan.unread and len(scan.pictures) == 4
    assert scan.to_json()["pictures"][0]["mask"] == name
    assert f"mask {name}, templates" in list(scan.lines())[1]
    assert scan.summary.endswith(", 1 mask")


def test_the_folder_of_masks_mirrors_that_of_pictures(folder):
    put(folder, "inner/05.png", half(right=9))
    put(folder, "masks/inner/05.png", half())
    put(folder, "inner/06.png", half(right=8))
    put(folder, "inner/masks/06.png", half())
    assert masks(folder) == {
        "inner/05.png": folder / "masks/inner/05.png",
        "inner/06.png": folder / "inner/masks/06.png",
    }


def test_a_mask_without_a_picture_is_named(folder):
    put(folder, "masks/x.png", half())
    scan = DataFolder.scan(folder)
    assert scan.warnings == ("masks without a picture are not used: masks/x.png",)
    assert scan.summary.endswith("not read: 1 mask without a picture")


def test_a_copy_of_a_picture_may_have_its_mask(folder):
    (folder / "copy.png").write_bytes((folder / "01.png").read_bytes())
    put(folder, "copy-mask.png", half())
    assert masks(folder) == {"01.png": folder / "copy-mask.png"}


def test_copies_of_a_picture_may_have_equal_masks(folder):
    (folder / "copy.png").write_bytes((folder / "01.png").read_bytes())
    put(folder, "copy-mask.png", half())
    put(folder, "01-mask.png", half())
    assert masks(folder) == {"01.png": folder / "01-mask.png"}


def copies(folder):
    (folder / "01.png").write_bytes((folder / "00.png").read_bytes())
    put(folder, "00-mask.png", half())
    put(folder, "01-mask.png", half(left=0, right=255))


def at_the_edge(folder):
    """White where no square in the middle is."""
    wide = np.zeros((40, 90), dtype=np.uint8)
    put(folder, "wide.png", Image.fromarray(wide))
    wide[:, :10] = 255
    put(folder, "wide-mask.png", Image.fromarray(wide))


def both(folder):
    put(folder, "00-mask.png", half())
    put(folder, "masks/00.png", half())


BAD = {
    "another size": (lambda folder: put(folder, "masks/00.png", half((20, 18))), "00.png is 20×18; allowed is 40×36, "),
    "damaged": (lambda folder: (folder / "00-mask.png").write_bytes(b"x"), "00-mask.png cannot be read"),
    "two": (both, "picture 00.png has 2 masks: 00-mask.png, masks/00.png; allowed is one"),
    "two of copies": (copies, "pictures 00.png, 01.png are equal and have 2 different masks; allowed is one"),
    "edge": (at_the_edge, "wide-mask.png is black in all of the part that is trained on"),
    "black": (lambda folder: put(folder, "masks/00.png", half(left=0)), "masks/00.png is black in all of the part "),
    "clear": (lambda folder: put(folder, "x.png", Image.new("RGBA", (9, 9))), "x.png is transparent in all of the "),
}


@pytest.mark.parametrize("case", BAD)
def test_masks_that_cannot_be_used_are_refused(base, folder, case):
    damage, message = BAD[case]
    damage(folder)
    with pytest.raises(DatasetError) as error:
        read(folder)
    assert message in str(error.value)
    for checked_with in (None, base):
        (verdict,) = checked_folder(DataFolder.scan(folder), base=checked_with).errors
        assert message in verdict


def test_a_mask_is_cut_as_its_picture(tmp_path):
    wide = half((30, 10), left=0, right=255)
    put(tmp_path, "a.png", wide)
    put(tmp_path, "masks/a.png", wide)
    (only,) = read(tmp_path, 10).pictures
    assert torch.equal(only.mask, only.pixels[0]) and only.mask[0].tolist() == [0] * 5 + [255] * 5


def test_transparent_parts_are_masked(tmp_path):
    image = Image.new("RGB", (8, 8), "red")
    image.putalpha(half((8, 8), right=128))
    put(tmp_path, "a.png", image)
    put(tmp_path, "b.png", Image.new("RGBA", (8, 8), "red"))
    dataset = read(tmp_path, 8)
    assert dataset.pictures[0].mask[0].tolist() == [255] * 4 + [128] * 4
    assert dataset.pictures[1].mask is None and dataset.num_masks == 1
    assert torch.equal(dataset.masks()[1], torch.ones(1, 8, 8))


def test_transparent_parts_of_a_mask_are_black(tmp_path):
    put(tmp_path, "a.png", Image.new("RGB", (8, 8), "red"))
    mask = Image.new("RGB", (8, 8), "white")
    mask.putalpha(half((8, 8)))
    put(tmp_path, "a_mask.png", mask)
    assert read(tmp_path, 8).pictures[0].mask[0].tolist() == [255] * 4 + [0] * 4


def test_masks_change_the_hash_of_a_data_set(folder):
    hashes = {read(folder).dataset_hash}
    for right in (0, 1):
        put(folder, "masks/00.png", half(right=right))
        hashes.add(read(folder).dataset_hash)
    assert len(hashes) == 3


def test_shares_are_one_on_average():
    black_and_white = torch.tensor([[1.0, 1, 0, 0], [1, 1, 0, 0]])[None, None]
    shares = shares_of(black_and_white, (1, 2), 0.1)
    torch.testing.assert_close(shares, torch.tensor([[[[1 / 0.55, 0.1 / 0.55]]]]))
    assert torch.equal(shares_of(torch.ones(2, 1, 4, 4), (2, 2), 0.1), torch.ones(2, 1, 2, 2))
    assert torch.equal(shares_of(black_and_white, (1, 2), 0.0), torch.tensor([[[[2.0, 0.0]]]]))


def test_masks_follow_mirrored_views_and_leave_prior_pictures(base, folder, config):
    for number in range(4):
        put(folder, f"masks/{number:02d}.png", half(left=255 - 60 * number))
    prior = PriorPictures(torch.zeros(2, 4, 8, 8), base.family.words.ids(["a dog", "a cat"]), (WHOLE, WHOLE))
    config = replace(config, prior_weight=0.5, batch_size=4)
    data = TrainingData.prepare(base, read(folder), config, prior)
    (only,) = data.buckets
    torch.testing.assert_close(only.shares[1], only.shares[0].flip(-1))
    for number in range(4):
        row = only.shares[0, number, 0, 0]
        left = 0.1 + 0.9 * (255 - 60 * number) / 255
        torch.testing.assert_close(row[0] / row[-1], torch.tensor(left / 0.1))
    seen = set()
    for step in range(8):
        batch = data.batch(config, step)
        for latents, shares in zip(batch.latents[:4], batch.shares, strict=False):
            ((view, number),) = (only.latents == latents).flatten(2).all(2).nonzero().tolist()
            assert torch.equal(shares, only.shares[view, number])
            seen.add((view, number))
    assert seen == {(view, number) for view in (0, 1) for number in range(4)}
    assert batch.shares.shape == (6, 1, 8, 8) and torch.equal(batch.shares[4:], torch.ones(2, 1, 8, 8))


def test_a_position_outside_the_mask_counts_less(base):
    schedule = base.family.schedule
    latents, noise, times = torch.zeros(1, 4, 1, 2), torch.zeros(1, 4, 1, 2), torch.tensor([0])
    prediction = torch.tensor([0.0, 1.0]).expand(1, 4, 1, 2)
    shares = torch.tensor([[[[1.5, 0.5]]]])
    assert schedule.losses(prediction, latents, noise, times, None, shares).tolist() == [0.25]
    assert schedule.losses(prediction, latents, noise, times, None).tolist() == [0.5]


def test_training_with_masks_differs_and_without_is_as_before(base, folder, config, tmp_path):
    config = replace(config, steps=1, erasure=0.0, prior_pictures=0)
    losses = {}
    put(folder, "masks/00.png", half())
    for weight in (1.0, 0.1):
        records = train(
            base, read(folder), replace(config, mask_weight=weight), output=tmp_path / f"{weight}.safetensors"
        )
        losses[weight] = [record.loss for record in records][-1]
    assert losses[1.0] != losses[0.1]


def test_checkpoints_without_masks_are_as_before(base, dataset, config):
    assert "mask_weight" not in Run.of(base, dataset, config).identity(base, dataset, [])["config"]


def test_the_weight_has_limits_and_older_files_have_none():
    with pytest.raises(ConfigurationError, match="mask_weight is 2"):
        TrainingConfig(mask_weight=2.0)
    assert TrainingConfig().mask_weight == 0.1
    assert TrainingConfig.recorded({"steps": 3}).mask_weight == 1.0
