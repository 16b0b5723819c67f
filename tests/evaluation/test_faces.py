"""Faces, found by a stand-in: which face counts, and what a picture without one means."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from orthoplex.errors import ConfigurationError, DatasetError
from orthoplex.evaluation import (
    NOTHING,
    FaceEncoder,
    evaluate_folder,
    faces,
    identity_rate,
    identity_threshold,
    recognised,
    scores,
)


def unit(place):
    row = np.zeros(512, dtype=np.float64)
    row[place] = 1.0
    return row


class Detector:
    """Red pictures show one person, blue ones another, half-and-half ones both; in others no face is found."""

    def get(self, img):
        found = []
        for place, channel in ((0, 2), (1, 0)):  # blue, green, red
            columns = np.flatnonzero((img[:, :, channel] > 200).all(axis=0) & (img.sum(axis=(0, 2)) < 300 * len(img)))
            if len(columns):
                box = np.array([columns[0], 0.0, columns[-1] + 1, 8.0])
                found.append(SimpleNamespace(bbox=box, normed_embedding=unit(place)))
        return found


@pytest.fixture
def encoder():
    return FaceEncoder(detector=Detector())


def picture(colour, other=None):
    made = Image.new("RGB", (8, 8), colour)
    if other:
        made.paste(other, (0, 0, 3, 8))
    return made


def test_the_largest_face_counts_and_no_face_is_a_row_of_zeros(encoder):
    rows = encoder.encode([picture("red"), picture("blue"), picture("red", "blue"), picture("white")])
    assert rows.shape == (4, 512) and rows.dtype == torch.float32
    assert rows[:, :2].tolist() == [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 0.0]]
    assert encoder.encode([]).shape == (0, 512)
    assert encoder.name == "face-buffalo_l-640px"


def test_a_picture_without_a_face_is_never_recognised_nor_identified(encoder):
    shown = encoder.encode([picture("red"), picture("white")])
    gallery = {"anna": encoder.encode([picture("red")]), "rex": encoder.encode([picture("blue")])}
    assert recognised(shown, gallery) == ["anna", NOTHING]
    assert scores(shown, gallery)[1].tolist() == [-torch.inf, -torch.inf]
    for threshold in (encoder.identity_cosine, 0.0, -1.0):
        assert identity_rate(shown, gallery["anna"], threshold) == 0.5
    # impostors without a face pass no threshold, and none is below minus infinity
    nobody = identity_threshold(scores(encoder.encode([picture("white")] * 3), gallery)[:, 0])
    assert identity_rate(shown, gallery["anna"], nobody) == 0.5


def folder_of(path, *colours):
    path.mkdir()
    for number, colour in enumerate(colours):
        picture(colour).resize((8, 8 + number)).save(path / f"{number}.png")
    return path


def test_folders_are_measured_at_the_published_threshold(encoder, tmp_path):
    shown = folder_of(tmp_path / "shown", "red", "white", "blue", "red")
    real = folder_of(tmp_path / "real", "red", "white", "red")
    found = evaluate_folder(shown, real, encoder=encoder, others={"rex": folder_of(tmp_path / "rex", "blue")})
    assert found.num_references == 2  # the one without a face is left out
    assert found.identity is not None and found.identity.value == 0.5
    assert found.identity_cosine == pytest.approx(0.32)
    assert found.alignment.value == 0.5
    assert found.recognised_as == {"the concept": 0.5, NOTHING: 0.25, "rex": 0.25}
    with pytest.raises(DatasetError, match="faceless: the encoder found nothing to compare in any of 2 pictures"):
        evaluate_folder(shown, folder_of(tmp_path / "faceless", "white", "black"), encoder=encoder)


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setattr(faces, "_PACKAGE", "a_package_that_is_not_there")
    with pytest.raises(ConfigurationError, match=r"pip install 'orthoplex\[faces\]'"):
        FaceEncoder()


def test_a_model_pack_that_cannot_be_loaded_is_named(monkeypatch):
    def analysis(**options):
        raise RuntimeError(f"no pack {options['name']}")

    monkeypatch.setattr(faces, "_PACKAGE", "json")  # any package that is there
    monkeypatch.setattr(faces.importlib, "import_module", lambda name: SimpleNamespace(FaceAnalysis=analysis))
    with pytest.raises(ConfigurationError, match="'antelope' cannot be loaded by insightface: RuntimeError: no pack"):
        FaceEncoder("antelope")


@pytest.mark.parametrize("model", ["", "../packs/mine"])
def test_a_model_is_the_name_of_a_pack(model):
    with pytest.raises(ConfigurationError, match="allowed: the name of a model pack, as buffalo_l"):
        FaceEncoder(model, detector=Detector())
