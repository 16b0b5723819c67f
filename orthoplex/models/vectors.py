"""What stands in the place of tokens: one vector for all cross-attention layers, or one for each of them.

Layer-wise vectors are P+ (Voynov et al., 2023, arXiv 2303.09522, section 3): layer l of L reads the features
``E(…, v_l, …)`` that the text encoder E makes with the l-th vector. While such vectors are in, the encoder runs once
for each layer, its features lie side by side, ``(n, length, L·dim)``, and every cross-attention layer takes its slice.
Pipelines pass them on as they are, so nothing of diffusers is replaced: all of it is hooks, which leave no trace.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from orthoplex.models.layers import component_name, cross_attention_modules
from orthoplex.models.pipelines import ModelOutput, StableDiffusionPipeline


@final
@dataclass(frozen=True, eq=False)
class Replacement:
    """Vectors that stand in the place of some tokens.

    Attributes:
        token_ids: The k ids.
        vectors: ``(n or 1, k, L or 1, dim)``: of every prompt of a batch or of all, of every layer or of all.
    """

    token_ids: tuple[int, ...]
    vectors: Tensor

    @property
    def is_layerwise(self) -> bool:
        """Whether layers have vectors of their own."""
        return self.vectors.shape[2] > 1


@final
class TokenVectors:
    """The replacements that are in a pipeline now, and the hooks that make them so."""

    def __init__(self, pipeline: StableDiffusionPipeline) -> None:
        """Begin with none; the pipeline is as it was."""
        self._pipeline = pipeline
        self._embedding_handles: dict[Replacement, RemovableHandle] = {}
        self._layer_handles: list[RemovableHandle] = []
        self._num_layers = 1
        self._dim = 0
        self._runs = 1  # of the text encoder in the call that is under way

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the cross-attention layers, in the order in which the denoiser uses them."""
        return tuple(component_name("unet", path) for path in cross_attention_modules(self._pipeline.unet))

    @property
    def layerwise_ids(self) -> tuple[int, ...]:
        """The ids of the tokens that have a vector for each layer now; what was put in last counts."""
        is_layerwise = {
            number: replacement.is_layerwise
            for replacement in self._embedding_handles
            for number in replacement.token_ids
        }
        return tuple(number for number, holds in is_layerwise.items() if holds)

    def put(self, token_ids: Sequence[int], vectors: Tensor) -> Replacement:
        """Let vectors stand in the place of tokens, until ``take`` is given what is returned; gradients reach them.

        Args:
            token_ids: The k ids.
            vectors: ``(n or 1, k, L or 1, dim)``; see ``Replacement``.
        """
        replacement = Replacement(tuple(token_ids), vectors)
        if replacement.is_layerwise and not self._layer_handles:
            self._widen()
        embedding = self._pipeline.text_encoder.get_input_embeddings()
        self._embedding_handles[replacement] = embedding.register_forward_hook(self._replacing(replacement))
        return replacement

    def take(self, replacement: Replacement) -> None:
        """Take a replacement out again."""
        self._embedding_handles.pop(replacement).remove()
        if not any(other.is_layerwise for other in self._embedding_handles):
            for handle in self._layer_handles:
                handle.remove()
            self._layer_handles.clear()

    def _widen(self) -> None:
        """Let every cross-attention layer have features of its own."""
        encoder: nn.Module = self._pipeline.text_encoder
        modules = cross_attention_modules(self._pipeline.unet)
        self._num_layers = len(modules)
        self._dim = self._pipeline.text_encoder.get_input_embeddings().embedding_dim
        self._layer_handles += [
            encoder.register_forward_pre_hook(self._repeat_inputs, with_kwargs=True),
            encoder.register_forward_hook(self._join_outputs),
            encoder.register_forward_hook(self._end_runs, always_call=True),
            *(
                module.register_forward_pre_hook(self._slicing(index), with_kwargs=True)
                for index, module in enumerate(modules.values())
            ),
        ]
        for path, module in encoder.named_modules():
            if path.endswith("final_layer_norm"):  # pipelines apply it themselves to the states that clip_skip picks
                self._layer_handles.append(module.register_forward_pre_hook(self._apart))
                self._layer_handles.append(module.register_forward_hook(self._together))

    def _replacing(self, replacement: Replacement) -> Any:  # noqa: ANN401  (a hook)
        """A forward hook of the embedding: the replacement's vectors in the place of its tokens."""

        def replace(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
            ids, runs = arguments[0], self._runs
            for position, number in enumerate(replacement.token_ids):
                mask = (ids == number).unsqueeze(-1)
                vectors = _of_runs(replacement.vectors[:, position], runs, len(ids) // runs)
                output = torch.where(mask, vectors.unsqueeze(1).to(output), output)
            return output

        return replace

    def _repeat_inputs(
        self, module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Repeat a batch of prompts for every layer, layer by layer, if a layer-wise token is in it."""
        ids = arguments[0] if arguments else keywords.get("input_ids")
        self._runs = self._num_layers if isinstance(ids, Tensor) and self._holds_layerwise(ids) else 1
        if self._runs == 1 or not isinstance(ids, Tensor):
            return arguments, keywords
        count = len(ids)
        repeated = tuple(self._repeated(value, count) for value in arguments)
        return repeated, {key: self._repeated(value, count) for key, value in keywords.items()}

    def _repeated(self, value: Any, count: int) -> Any:  # noqa: ANN401  (whatever the encoder is called with)
        of_batch = isinstance(value, Tensor) and value.ndim > 1 and len(value) == count
        return value.repeat(self._runs, *(1 for _ in value.shape[1:])) if of_batch else value

    def _holds_layerwise(self, ids: Tensor) -> bool:
        numbers = torch.tensor(self.layerwise_ids, dtype=ids.dtype, device=ids.device)
        return bool(torch.isin(ids, numbers).any())

    def _join_outputs(self, module: nn.Module, arguments: object, output: Any) -> Any:  # noqa: ANN401
        """Put the runs' states side by side; what is no ``(n, length, dim)`` is that of the first layer."""
        if isinstance(output, ModelOutput):
            for key in list(output.keys()):
                output[key] = self._joined(output[key])
            return output
        return self._joined(output)

    def _joined(self, value: Any) -> Any:  # noqa: ANN401  (states, or tuples of them)
        if isinstance(value, tuple):
            return tuple(self._joined(part) for part in value)
        if not isinstance(value, Tensor):
            return value
        if value.ndim != 3:
            return value[: len(value) // self._runs]
        if self._runs == 1:
            return value.repeat(1, 1, self._num_layers)
        return value.unflatten(0, (self._runs, -1)).permute(1, 2, 0, 3).flatten(2)

    def _end_runs(self, module: nn.Module, arguments: object, output: object) -> None:
        self._runs = 1

    def _slicing(self, index: int) -> Any:  # noqa: ANN401  (a hook)
        """A pre-hook of the cross-attention layer numbered ``index``; features of ordinary width pass as they are."""

        def take(
            module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            features = keywords.get("encoder_hidden_states")
            if isinstance(features, Tensor) and self._is_wide(features):
                start = index * self._dim
                keywords = {**keywords, "encoder_hidden_states": features[..., start : start + self._dim]}
            return arguments, keywords

        return take

    def _is_wide(self, states: Tensor) -> bool:
        return states.shape[-1] == self._num_layers * self._dim

    def _apart(self, module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        states = arguments[0]
        return (states.unflatten(-1, (self._num_layers, self._dim)),) if self._is_wide(states) else arguments

    def _together(self, module: nn.Module, arguments: object, output: Tensor) -> Tensor:
        return output.flatten(-2) if output.ndim == 4 else output


def _of_runs(vectors: Tensor, runs: int, count: int) -> Tensor:
    """The vectors ``(n or 1, L or 1, dim)`` of a token in every row of a batch, ``(1 or runs · count, dim)``.

    In a single run of the encoder, where no layer is meant, layers have their mean.
    """
    if runs == 1:
        return vectors[:, 0] if vectors.shape[1] == 1 else vectors.mean(1)
    return vectors.expand(count, runs, -1).transpose(0, 1).flatten(0, 1)


def layerwise(tokens: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of some tokens that have a vector for each cross-attention layer, ``(L, dim)``."""
    return {token: vectors for token, vectors in tokens.items() if vectors.ndim == 2}
