"""A text encoder that reads tokens with vectors of their own, and marks tokens with keys and values.

Layer-wise vectors are P+ (Voynov et al., arXiv 2303.09522, section 3): layer l of L reads the features
``E(…, v_l, …)`` that the text encoder E makes with the l-th vector. The encoder runs once for each layer over a batch
that holds such a token, and its features lie side by side (``FeatureBlock``). Pipelines pass wide features on as they
are; all changes are hooks, which leave no trace.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from orthoplex.models.networks import ModelOutput
from orthoplex.models.words.feature_layout import FeatureBlock
from orthoplex.models.words.replacement import Replacement, Replacements
from orthoplex.models.words.words import Reader

SOURCE = "source_hidden_states"
"""The keyword by which a text encoder reads the states of another."""


@final
@dataclass(frozen=True)
class EncoderCall:
    """One call of a text encoder.

    Attributes:
        block: The layout of its features.
        runs: How often the prompts lie in the batch that it reads: once, or once for each layer.
        marks: Where tokens with keys and values stand, ``(n, length, num_marks)`` of truth values.
        source: The layout of the states that it reads of another text encoder; None where it reads none.
    """

    block: FeatureBlock
    runs: int
    marks: Tensor
    source: FeatureBlock | None = None

    def each_source(self, states: Tensor) -> Tensor:
        """Return the states of another encoder for all runs, ``(n, length, width)`` to ``(runs · n, length, dim)``."""
        if self.source is None or self.source.is_plain(states):
            return states.repeat(self.runs, 1, 1)
        groups, _ = self.source.apart(states)
        return groups.permute(2, 0, 1, 3)[: self.runs].flatten(0, 1)

    def repeated(self, value: Any, count: int) -> Any:  # noqa: ANN401  (whatever the encoder is called with)
        """Return an argument for all runs; ``count`` is the number of prompts."""
        of_batch = isinstance(value, Tensor) and value.ndim > 1 and len(value) == count
        return value.repeat(self.runs, *(1 for _ in value.shape[1:])) if of_batch else value

    def joined(self, value: Any) -> Any:  # noqa: ANN401  (states, or tuples of them)
        """Return states of all runs side by side, then marks; what is no ``(n, length, dim)`` is the first run's."""
        if isinstance(value, tuple):
            return tuple(self.joined(part) for part in value)
        if not isinstance(value, Tensor):
            return value
        if value.ndim != 3:
            return value[: len(value) // self.runs]
        groups = value.unflatten(0, (self.runs, -1)).permute(1, 2, 0, 3)
        if self.runs == 1:
            groups = groups.expand(-1, -1, self.block.num_layers, -1)
        behind = groups.shape[1] - self.marks.shape[1]  # some networks fill up what they give
        return self.block.together(groups, nn.functional.pad(self.marks, (0, 0, 0, behind)))


@final
class ReadingEncoder:
    """The hooks of one text encoder."""

    def __init__(self, reader: Reader, replacements: Replacements) -> None:
        """Take an encoder; it is as it was until something is put in.

        Args:
            reader: The text encoder with its tokenizer.
            replacements: The replacements that are in.
        """
        self.reader = reader
        self._replacements = replacements
        self._of_embedding: dict[int, list[RemovableHandle]] = {}
        self._wide: list[RemovableHandle] = []
        self._widened: nn.Module | None = None
        self._call: EncoderCall | None = None
        self._source: tuple[ReadingEncoder, Callable[[], FeatureBlock]] | None = None
        self.runs = 1
        """How often prompts lay in the last batch."""

    def read_states(self, source: ReadingEncoder, block: Callable[[], FeatureBlock]) -> None:
        """Let the network read wide states of another text encoder.

        Args:
            source: The other, which is called before.
            block: The layout of its states now.
        """
        self._source = source, block

    @property
    def dim(self) -> int:
        """The plain width of its features."""
        return self.reader.width

    def put(self, replacement: Replacement) -> None:
        """Let a replacement's vectors stand in the place of its tokens.

        Raises:
            ConfigurationError: If the tokenizer does not know a token.
        """
        if self.reader.component in replacement.vectors:
            hook = self._replacing(replacement, self.reader.ids_of(replacement.tokens))
            self._of_embedding[id(replacement)] = [
                table.register_forward_hook(hook) for table in self.reader.embeddings
            ]

    def take(self, replacement: Replacement) -> None:
        """Take a replacement's vectors out again."""
        for handle in self._of_embedding.pop(id(replacement), []):
            handle.remove()

    def widen(self, block: Callable[[], FeatureBlock]) -> None:
        """Let features be wide until ``narrow``.

        Args:
            block: The layout of the features now.
        """
        network = self.reader.network
        if self._widened is network:
            return
        self.narrow()
        self._widened = network
        self._wide = [
            network.register_forward_pre_hook(self._begin(block), with_kwargs=True),
            network.register_forward_hook(self._end, always_call=True),
        ]
        for path, module in network.named_modules():
            if path.endswith("final_layer_norm"):  # pipelines apply it themselves to the states that clip_skip picks
                self._wide += _norm_of_each(module, block)

    def narrow(self) -> None:
        """Let features have their plain width again."""
        for handle in self._wide:
            handle.remove()
        self._wide.clear()
        self._widened = None

    def _begin(self, block: Callable[[], FeatureBlock]) -> Any:  # noqa: ANN401  (a hook)
        """A pre-hook: mark tokens, and repeat a batch of prompts for every layer if a layer-wise token is in it."""

        def begin(
            module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            ids = arguments[0] if arguments else keywords.get(self.reader.ids_keyword)
            if not isinstance(ids, Tensor):
                return arguments, keywords
            now, layerwise = block(), self.reader.ids_of(self._replacements.layerwise)
            is_layerwise = bool(torch.isin(ids, _like(layerwise, ids)).any())
            if self._source is not None:
                is_layerwise = is_layerwise or self._source[0].runs > 1
            self.runs = runs = now.num_layers if is_layerwise else 1
            marks = self._replacements.marked
            numbers = self.reader.ids_of(marks)
            marked = [number if one is not None else -1 for number, one in zip(numbers, marks.values(), strict=True)]
            source = None if self._source is None else self._source[1]()
            call = self._call = EncoderCall(now, runs, ids.unsqueeze(-1) == _like(marked, ids), source)
            count = len(ids)
            repeated = {
                key: call.each_source(value) if key == SOURCE else call.repeated(value, count)
                for key, value in keywords.items()
            }
            return tuple(call.repeated(value, count) for value in arguments), repeated

        return begin

    def _end(self, module: nn.Module, arguments: object, output: Any) -> Any:  # noqa: ANN401  (an output)
        """Join the states of a call's runs; after an error, of which there is no output, only forget the call."""
        call, self._call = self._call, None
        if call is None or output is None:
            return output
        if isinstance(output, ModelOutput):
            for key in list(output.keys()):
                output[key] = call.joined(output[key])
            return output
        return call.joined(output)

    def _replacing(self, replacement: Replacement, numbers: Sequence[int]) -> Any:  # noqa: ANN401  (a hook)
        """A forward hook of the embedding: vectors in the place of tokens with these numbers."""
        vectors = replacement.vectors[self.reader.component]

        def replace(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
            ids, runs = arguments[0], 1 if self._call is None else self._call.runs
            for place, number in enumerate(numbers):
                rows = _of_runs(vectors[:, place], runs, len(ids) // runs)
                output = torch.where((ids == number).unsqueeze(-1), rows.unsqueeze(1).to(output), output)
            return output

        return replace


def _norm_of_each(norm: nn.Module, block: Callable[[], FeatureBlock]) -> list[RemovableHandle]:
    """Hooks of a norm that takes wide features, too: the features of each layer are normed, marks stay."""
    waiting: list[Tensor] = []

    def before(module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        waiting.clear()
        if block().is_plain(arguments[0]):
            return arguments
        groups, marks = block().apart(arguments[0])
        waiting.append(marks)
        return (groups,)

    def after(module: nn.Module, arguments: object, output: Tensor) -> Tensor:
        return block().together(output, waiting.pop()) if waiting else output

    return [norm.register_forward_pre_hook(before), norm.register_forward_hook(after)]


def _like(numbers: Sequence[int], ids: Tensor) -> Tensor:
    return torch.tensor(numbers, dtype=ids.dtype, device=ids.device)


def _of_runs(vectors: Tensor, runs: int, count: int) -> Tensor:
    """Return a token's vectors ``(n or 1, L or 1, dim)`` for every row of a batch, ``(1 or n or runs · count, dim)``.

    In a single run of the encoder, where no layer is meant, layers have their mean.
    """
    if runs == 1:
        return vectors[:, 0] if vectors.shape[1] == 1 else vectors.mean(1)
    return vectors.expand(count, runs, -1).transpose(0, 1).flatten(0, 1)
