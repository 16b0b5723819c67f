"""Faces to vectors: ArcFace features of the largest face of a picture."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from importlib import metadata
from typing import Protocol, final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from orthoplex.errors import ConfigurationError, MissingExtraError
from orthoplex.evaluation.picture_encoder import Encoder

_PACKAGE = "insightface"
_WIDTH, _SIDE = 512, 640
FACE_MODEL = "buffalo_l"
"""Name of the model pack, which insightface downloads once."""
FACE_COSINE = 1 - 0.68
"""Two faces are one person's where `1 - cosine < 0.68`: the identity alignment of Po et al., CVPR 2024."""


class Face(Protocol):
    """A face in a picture: its corners (left, top, right, bottom) in pixels, and its unit features."""

    @property
    def bbox(self) -> np.ndarray:
        """`(4,)`."""
        ...

    @property
    def normed_embedding(self) -> np.ndarray:
        """`(512,)`."""
        ...


class FaceDetector(Protocol):
    """Finds the faces of a picture, as insightface's `FaceAnalysis` does."""

    def get(self, img: np.ndarray) -> Sequence[Face]:
        """The faces of a picture `(h, w, 3)` uint8, channels blue, green, red."""
        ...


@final
class FaceEncoder(Encoder):
    """ArcFace features of the largest face; Deng et al., "ArcFace", CVPR 2019.

    A picture without a face gets a row of zeros. It counts: as not recognised, as not identified, and with a cosine of
    0 in alignment. So a method cannot gain by drawing no face. Real pictures without a face are left out of the
    references; a concept whose references show no face at all is refused.

    Args:
        model: Name of insightface's model pack.
        detector: A face detector to use instead of insightface.

    Raises:
        ConfigurationError: when the model pack cannot be loaded.
        MissingExtraError: when insightface is not installed.
    """

    kinds = ("person",)
    identity_cosine = FACE_COSINE

    def __init__(self, model: str = FACE_MODEL, *, detector: FaceDetector | None = None) -> None:
        super().__init__()
        if not model or set(model) & set("/\\"):
            raise ConfigurationError(f"encoder model is {model!r}; allowed: the name of a model pack, as {FACE_MODEL}")
        self._model = model
        self._detector = _load_detector(model) if detector is None else detector
        self._version = f"-{_PACKAGE}-{metadata.version(_PACKAGE)}" if detector is None else ""

    @property
    def name(self) -> str:
        """`face-`, the model pack, the side that pictures are brought to, and the library's version."""
        return f"face-{self._model}-{_SIDE}px{self._version}"

    def vectors(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Features of the largest face of every picture, `(n, 512)`; zeros where none is found."""
        return torch.stack([self._one(picture) for picture in pictures])

    def _one(self, picture: Image.Image) -> Tensor:
        pixels = np.ascontiguousarray(np.asarray(picture.convert("RGB"))[:, :, ::-1])
        faces = self._detector.get(pixels)
        if not faces:
            return torch.zeros(_WIDTH)
        return torch.from_numpy(np.asarray(max(faces, key=_area).normed_embedding, dtype=np.float32))


def _area(face: Face) -> float:
    left, top, right, bottom = (float(side) for side in face.bbox)
    return (right - left) * (bottom - top)


def _load_detector(model: str) -> FaceDetector:
    if importlib.util.find_spec(_PACKAGE) is None:
        raise MissingExtraError("the encoder face", _PACKAGE, "faces")
    try:
        analysis = importlib.import_module(f"{_PACKAGE}.app").FaceAnalysis(
            name=model, allowed_modules=["detection", "recognition"], providers=["CPUExecutionProvider"]
        )
        analysis.prepare(ctx_id=-1, det_size=(_SIDE, _SIDE))
    except Exception as error:  # noqa: BLE001  (a missing model pack makes the library raise anything)
        raise ConfigurationError(
            f"encoder model {model!r} cannot be loaded by insightface: {type(error).__name__}: {error}; "
            f"allowed: the name of a model pack, as {FACE_MODEL}"
        ) from error
    return analysis
