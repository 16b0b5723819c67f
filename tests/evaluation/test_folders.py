"""A folder of pictures against references: on pictures whose likeness is plain."""

import numpy as np
import pytest
from PIL import Image

from orthoplex.errors import ConfigurationError, DatasetError
from orthoplex.evaluation import ClipEncoder, MobileNetEncoder, evaluate_folder, read_pictures
from tests.tiny_vision import build_clip


def folder_of(path, colour, count=4, seed=0):
    """Pictures of one colour with a little noise."""
    path.mkdir()
    random = np.random.default_rng(seed)
    for number in range(count):
        noise = random.integers(0, 30, (32, 32, 3))
        Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)).save(path / f"{number}.png")
    return path


@pytest.fixture(scope="module")
def encoder():
    return MobileNetEncoder(layer="stem", picture_size=32)


@pytest.fixture
def folders(tmp_path):
    colours = {"red": (220, 20, 20), "green": (20, 220, 20), "blue": (20, 20, 220)}
    return {name: folder_of(tmp_path / name, colour) for name, colour in colours.items()}


def test_pictures_like_their_references(encoder, folders, tmp_path):
    shown = folder_of(tmp_path / "shown", (220, 20, 20), count=3, seed=7)
    others = {"green": folders["green"], "blue": folders["blue"]}
    found = evaluate_folder(
        shown, folders["red"], encoder=encoder, others=others, impostors=[folders["green"], folders["blue"]]
    )
    assert (found.num_pictures, found.num_references) == (3, 4)
    assert found.alignment.value == pytest.approx(found.alignment_of_references, abs=0.02)
    assert found.recognised is not None and found.recognised.value == 1.0
    assert found.recognised_as == {"the concept": 1.0}
    assert found.identity is not None and found.identity.value == 1.0


def test_pictures_of_something_else(encoder, folders):
    found = evaluate_folder(
        folders["blue"], folders["red"], encoder=encoder, others={"blue": folders["blue"]}, impostors=[folders["blue"]]
    )
    assert found.recognised is not None and found.recognised.value == 0.0
    assert found.recognised_as == {"blue": 1.0}
    assert found.identity is not None and found.identity.value == 0.0
    alike = evaluate_folder(folders["red"], folders["red"], encoder=encoder)
    assert found.alignment.value < alike.alignment.value
    assert alike.recognised is None and alike.identity is None and alike.recognised_as == {}


def test_one_reference_has_no_pairs(encoder, folders, tmp_path):
    single = folder_of(tmp_path / "single", (220, 20, 20), count=1)
    assert evaluate_folder(folders["red"], single, encoder=encoder).alignment_of_references is None


def test_pictures_are_read_as_training_reads_them(tmp_path):
    """Turned as EXIF says, transparent parts white, 16-bit grey scaled."""
    turned = Image.new("RGB", (8, 4), "blue")
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "a.png", exif=exif)
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "b.png")
    Image.fromarray(np.full((4, 4), 30000, dtype=np.uint16)).save(tmp_path / "c.png")
    a, b, c = read_pictures(tmp_path)
    assert a.size == (4, 8) and b.getpixel((0, 0)) == (255, 255, 255)
    assert c.getpixel((0, 0)) == (117, 117, 117)


def test_what_cannot_be_read_is_named(encoder, folders, tmp_path):
    with pytest.raises(DatasetError, match="nowhere does not exist"):
        read_pictures(tmp_path / "nowhere")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DatasetError, match="empty holds no pictures; allowed are .png"):
        read_pictures(empty)
    (empty / "torn.png").write_bytes(b"not a picture")
    with pytest.raises(DatasetError, match="torn.png cannot be read"):
        read_pictures(empty)
    with pytest.raises(ConfigurationError, match="a concept is called 'the concept'"):
        evaluate_folder(folders["red"], folders["red"], encoder=encoder, others={"the concept": folders["blue"]})


def test_a_prompt_is_measured_with_an_encoder_of_texts(encoder, folders, tmp_path):
    clip = ClipEncoder(str(build_clip(tmp_path / "clip")))
    found = evaluate_folder(folders["red"], folders["red"], encoder=clip, prompt="a red cat")
    assert found.text is not None and 0.0 <= found.text.low <= found.text.value <= found.text.high <= 2.5
    assert evaluate_folder(folders["red"], folders["red"], encoder=clip).text is None
    with pytest.raises(
        ConfigurationError, match="prompt is 'a cat' with mobilenetv2-.*; allowed: a prompt with .* clip"
    ):
        evaluate_folder(folders["red"], folders["red"], encoder=encoder, prompt="a cat")
    with pytest.raises(ConfigurationError, match="a concept is called 'nothing found'"):
        evaluate_folder(folders["red"], folders["red"], encoder=encoder, others={"nothing found": folders["blue"]})
