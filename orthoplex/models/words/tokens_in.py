"""The tokens that are in a base, in all its text encoders and cross-attention layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast, final

from torch import nn

from orthoplex.models.layers import component_name, cross_attention_modules
from orthoplex.models.pipelines import StableDiffusionPipeline
from orthoplex.models.words.encoder import ReadingEncoder
from orthoplex.models.words.layers import ReadingLayer
from orthoplex.models.words.layout import FeatureLayout
from orthoplex.models.words.replacement import Replacement, Replacements


@final
class TokensIn:
    """What stands in the place of tokens now, and the hooks that make it so.

    Attributes:
        encoders: Text encoder to what reads tokens in it.
    """

    encoders: Mapping[str, ReadingEncoder]

    def __init__(self, pipeline: StableDiffusionPipeline) -> None:
        """Begin with nothing; the pipeline is as it was."""
        self._pipeline = pipeline
        self._replacements = Replacements()
        self.encoders = {"text_encoder": ReadingEncoder("text_encoder", pipeline.text_encoder, self._replacements)}
        self._layers: list[ReadingLayer] = []
        self._layout = FeatureLayout(1, next(iter(self.encoders.values())).dim, 0)

    @property
    def key_widths(self) -> dict[str, int]:
        """Cross-attention layer to the number of numbers of its key, and of its value as many, in the order of use."""
        return {
            name: cast(nn.Linear, module.get_submodule("to_k")).out_features for name, module in self._modules.items()
        }

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the cross-attention layers, in the order in which the denoiser uses them."""
        return tuple(self._modules)

    @property
    def layerwise_ids(self) -> tuple[int, ...]:
        """The ids of the tokens that have a vector for each layer now."""
        return self._replacements.layerwise_ids

    @property
    def marked_ids(self) -> tuple[int, ...]:
        """The ids of the tokens that have keys and values of their own now, in the order of the marks."""
        return tuple(self._replacements.marked)

    def put(self, replacement: Replacement) -> None:
        """Let something stand in the place of tokens, until ``take``; gradients reach it.

        Later replacements win. A replacement without keys and values also removes those of earlier ones for its tokens.
        """
        self._replacements.add(replacement)
        for encoder in self.encoders.values():
            encoder.put(replacement)
        self._arrange()

    def take(self, replacement: Replacement) -> None:
        """Take a replacement out again."""
        self._replacements.remove(replacement)
        for encoder in self.encoders.values():
            encoder.take(replacement)
        self._arrange()

    @property
    def _modules(self) -> dict[str, Any]:
        modules = cross_attention_modules(self._pipeline.unet)
        return {component_name("unet", path): module for path, module in modules.items()}

    def _arrange(self) -> None:
        """Let features be as wide as what is in needs, and every layer read its part of them."""
        now = self._replacements
        num_layers = len(self.layers) if now.is_layerwise else 1
        self._layout = FeatureLayout(num_layers, self._layout.dim, len(now.marked))
        if not now.is_wide:
            for reading in (*self.encoders.values(),):
                reading.narrow()
            for layer in self._layers:
                layer.remove()
            self._layers.clear()
        elif not self._layers:
            for reading in self.encoders.values():
                reading.widen(lambda: self._layout)
            self._layers = [
                ReadingLayer(name, index, module, lambda: self._layout, now)
                for index, (name, module) in enumerate(self._modules.items())
            ]
