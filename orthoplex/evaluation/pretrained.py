"""Features that published measurements use: CLIP, and DINOv2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from orthoplex.evaluation.picture_encoder import Encoder
from orthoplex.models import load_clip, load_dino

CLIP_MODEL, DINO_MODEL = "openai/clip-vit-base-patch32", "facebook/dinov2-small"
"""Names on the model hub: ViT-B/32 and ViT-S/14."""


@dataclass(frozen=True)
class Preparation:
    """Preprocessing of a picture: resize the shorter side, cut out the middle, normalise the channels.

    Attributes:
        resized: Shorter side in pixels, bicubic.
        size: Side in pixels of the square in the middle.
        mean: Of the channels red, green, blue in [0, 1].
        deviation: Their standard deviation.
    """

    resized: int
    size: int
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]

    def __call__(self, pictures: Sequence[Image.Image]) -> Tensor:
        """`(n, 3, size, size)` float32."""
        return torch.stack([self._one(picture.convert("RGB")) for picture in pictures])

    def _one(self, picture: Image.Image) -> Tensor:
        scale = self.resized / min(picture.size)
        width, height = (max(self.resized, round(side * scale)) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
        left, top = (width - self.size) // 2, (height - self.size) // 2
        middle = picture.crop((left, top, left + self.size, top + self.size))
        pixels = torch.from_numpy(np.asarray(middle, dtype=np.float32) / 255.0)
        return ((pixels - torch.tensor(self.mean)) / torch.tensor(self.deviation)).permute(2, 0, 1)


@final
class ClipEncoder(Encoder):
    """CLIP's projected features of pictures, and of texts in the same space; Radford et al., ICML 2021.

    Pictures are prepared as the model was trained: shorter side to its picture size, the middle cut out.

    Args:
        model: A folder, or a name on the model hub (downloaded once).
        batch_size: Pictures a forward pass.

    Raises:
        ConfigurationError: when the model cannot be loaded.
    """

    def __init__(self, model: str = CLIP_MODEL, *, batch_size: int = 32) -> None:
        super().__init__(batch_size=batch_size)
        self._clip = load_clip(model)
        size = self._clip.picture_size
        self._prepare = Preparation(
            size, size, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
        )

    @property
    def name(self) -> str:
        """`clip-`, the model's own name and the first digits of its weights' hash."""
        return f"clip-{self._clip.label}"

    def vectors(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Projected features, `(n, d)`."""
        return self._clip.pictures(self._prepare(pictures))

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit feature vectors of texts, `(n, d)` float32, in the space of the pictures.

        Args:
            texts: One or more; what is longer than the model reads is cut off.
        """
        return functional.normalize(self._clip.texts(texts), dim=1)


@final
class DinoEncoder(Encoder):
    """DINOv2's class token; Oquab et al., TMLR 2024. It tells individuals apart where CLIP tells kinds apart.

    Pictures are prepared as usual for it: shorter side to 256 pixels, 224 in the middle, ImageNet's mean and deviation.

    Args:
        model: A folder, or a name on the model hub (downloaded once).
        batch_size: Pictures a forward pass.

    Raises:
        ConfigurationError: when the model cannot be loaded.
    """

    def __init__(self, model: str = DINO_MODEL, *, batch_size: int = 32) -> None:
        super().__init__(batch_size=batch_size)
        self._dino = load_dino(model)
        size = 224 - 224 % self._dino.patch_size
        self._prepare = Preparation(256, size, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

    @property
    def name(self) -> str:
        """`dino-`, the model's own name and the first digits of its weights' hash."""
        return f"dino-{self._dino.label}"

    def vectors(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Class tokens, `(n, d)`."""
        return self._dino.pictures(self._prepare(pictures))
