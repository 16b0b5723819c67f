"""The tokens that are in a base, in all its text encoders and cross-attention layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast, final

from torch import Tensor, nn

from orthoplex.models.weights.refusals import check_projections
from orthoplex.models.words.encoder import ReadingEncoder
from orthoplex.models.words.feature_layout import FeatureBlock, FeatureLayout
from orthoplex.models.words.reading_layer import PROJECTIONS, ReadingLayer
from orthoplex.models.words.replacement import Replacement, Replacements
from orthoplex.models.words.words import Reader


@final
class TokensIn:
    """The replacements of tokens now, and the hooks that apply them.

    Attributes:
        encoders: Text encoder to its hooks.
    """

    encoders: Mapping[str, ReadingEncoder]

    def __init__(self, readers: Sequence[Reader], cross_attention: Callable[[], Mapping[str, nn.Module]]) -> None:
        """Begin with nothing; the base is as it was.

        Args:
            readers: The base's text encoders.
            cross_attention: Returns the base's cross-attention layers by name, in the order of their use.
        """
        self._replacements = Replacements()
        self._cross_attention = cross_attention
        self.encoders = {reader.component: ReadingEncoder(reader, self._replacements) for reader in readers}
        self._layers: list[ReadingLayer] = []
        self._blocks: dict[str, FeatureBlock] = {}
        self._sources = {reader.source for reader in readers}
        for encoder in self.encoders.values():
            if source := encoder.reader.source:
                encoder.read_states(self.encoders[source], self._block_of(source))

    @property
    def is_plain(self) -> bool:
        """True if no replacement is in."""
        return self._replacements.is_empty

    @property
    def key_widths(self) -> dict[str, int]:
        """Cross-attention layer to the number of numbers of its key, and of its value as many, in the order of use."""
        return {
            name: cast(nn.Linear, module.get_submodule("to_k")).out_features
            for name, module in self._cross_attention().items()
        }

    @property
    def read_widths(self) -> dict[str, int]:
        """Cross-attention layer to the width of the features that its keys and values read."""
        return {
            name: cast(nn.Linear, module.get_submodule("to_k")).in_features
            for name, module in self._cross_attention().items()
        }

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the cross-attention layers, in the order in which the denoiser uses them."""
        return tuple(self._cross_attention())

    @property
    def layerwise(self) -> tuple[str, ...]:
        """The tokens that have a vector for each layer now."""
        return self._replacements.layerwise

    @property
    def marked(self) -> tuple[str, ...]:
        """The tokens that have keys and values of their own now, in the order of the marks."""
        return tuple(self._replacements.marked)

    def own_features(self, features: Tensor) -> list[Tensor]:
        """Return each cross-attention layer's features, ``(n, length, Σ dim)``; a single entry if all read the same.

        Args:
            features: Features of the text encoders now, ``(n, length, width)``.

        Raises:
            BaseModelError: If they have neither the plain nor the whole width.
        """
        layout = self._layout()
        if not self._replacements.is_wide or layout.is_plain(features):
            return [features]
        count = len(self.layers) if self._replacements.is_layerwise else 1
        return [layout.own(features, index)[0] for index in range(count)]

    def put(self, replacement: Replacement) -> None:
        """Let something stand in the place of tokens, until ``take``; gradients reach it.

        Later replacements win. One that adds nothing to keys and values also removes what earlier ones add for its
        tokens.

        Raises:
            ConfigurationError: If a tokenizer does not know a token.
            BaseModelError: If keys and values would be added to projections that compute nothing, because they are
                fused. After any error nothing of the replacement is in.
        """
        for encoder in self.encoders.values():
            encoder.reader.ids_of(replacement.tokens)
        if replacement.has_marks:
            for name, module in self._cross_attention().items():
                check_projections(name, module, PROJECTIONS)
        try:
            self._replacements.add(replacement)
            for encoder in self.encoders.values():
                encoder.put(replacement)
            self._arrange()
        except BaseException:
            self.take(replacement)
            raise

    def take(self, replacement: Replacement) -> None:
        """Take a replacement out again."""
        self._replacements.remove(replacement)
        for encoder in self.encoders.values():
            encoder.take(replacement)
        self._arrange()

    def _layout(self) -> FeatureLayout:
        return FeatureLayout(tuple(block for name, block in self._blocks.items() if name not in self._sources))

    def _block_of(self, component: str) -> Callable[[], FeatureBlock]:
        return lambda: self._blocks[component]

    def _arrange(self) -> None:
        """Let features be as wide as the replacements need, and every layer read its part of them."""
        now = self._replacements
        if not now.is_wide:
            for encoder in self.encoders.values():
                encoder.narrow()
            for layer in self._layers:
                layer.remove()
            self._layers.clear()
            return
        num_layers, num_marks = len(self.layers) if now.is_layerwise else 1, len(now.marked)
        for component, encoder in self.encoders.items():
            own_marks = 0 if component in self._sources else num_marks
            self._blocks[component] = FeatureBlock(num_layers, encoder.dim, own_marks)
            encoder.widen(self._block_of(component))
        if not self._layers:
            self._layers = [
                ReadingLayer(name, index, module, self._layout, now)
                for index, (name, module) in enumerate(self._cross_attention().items())
            ]
