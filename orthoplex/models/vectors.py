"""What stands in the place of tokens: vectors for all cross-attention layers, or for each; keys and values.

Layer-wise vectors are P+ (Voynov et al., 2023, arXiv 2303.09522, section 3): layer l of L reads the features
``E(…, v_l, …)`` that the text encoder E makes with the l-th vector. While such vectors are in, the encoder runs once
for each layer, its features lie side by side, ``(n, length, L·dim)``, and every cross-attention layer takes its slice.

Keys and values of a token leave the features alone: layer l computes ``K = W_k h + δk_l`` and ``V = W_v h + δv_l`` at
the token's positions. While there are any, one channel a token lies behind the features, 1 at its positions and 0
elsewhere; every cross-attention layer cuts these marks off, and adds ``marks @ δ`` to what its projections return.

Pipelines pass wide features on as they are, so nothing of diffusers is replaced: all of it is hooks, which leave no
trace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast, final

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from orthoplex.models.layers import component_name, cross_attention_modules
from orthoplex.models.pipelines import ModelOutput, StableDiffusionPipeline

KeysValues = Callable[[str], Tensor]
"""Layer name to what is added there, ``(k, 2, out)``: to the keys of each of k tokens, and to their values.

It is asked at every use, so that it may depend on what is learning.
"""
_PROJECTIONS = ("to_k", "to_v")


@final
@dataclass(frozen=True, eq=False)
class Replacement:
    """What stands in the place of some tokens.

    Attributes:
        token_ids: The k ids.
        vectors: ``(n or 1, k, L or 1, dim)``: of every prompt of a batch or of all, of every layer or of all; None
            leaves the rows of the embedding.
        keys_values: What is added to keys and values at these tokens; None for nothing.
    """

    token_ids: tuple[int, ...]
    vectors: Tensor | None = None
    keys_values: KeysValues | None = None

    @property
    def is_layerwise(self) -> bool:
        """Whether layers have vectors of their own."""
        return self.vectors is not None and self.vectors.shape[2] > 1

    @property
    def is_wide(self) -> bool:
        """Whether it needs more of the features than their ordinary width."""
        return self.is_layerwise or self.keys_values is not None


@final
@dataclass(frozen=True)
class _Layout:
    """What lies side by side in wide features: those of some layers, then marks."""

    num_layers: int
    dim: int
    num_marks: int

    def fits(self, states: Tensor) -> bool:
        return states.shape[-1] == self.num_layers * self.dim + self.num_marks

    def apart(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """The layers' features ``(n, length, num_layers, dim)``, and the marks ``(n, length, num_marks)``."""
        features, marks = states.split([self.num_layers * self.dim, self.num_marks], dim=-1)
        return features.unflatten(-1, (self.num_layers, self.dim)), marks


@final
@dataclass(eq=False)
class _Kept:
    """The marks of the call that is under way, kept by a module's pre-hook for the hooks that follow."""

    marks: Tensor | None = None


@final
class TokenVectors:
    """The replacements that are in a pipeline now, and the hooks that make them so."""

    def __init__(self, pipeline: StableDiffusionPipeline) -> None:
        """Begin with none; the pipeline is as it was."""
        self._pipeline = pipeline
        self._embedding_handles: dict[Replacement, RemovableHandle | None] = {}
        self._layer_handles: list[RemovableHandle] = []
        self._marked: dict[int, tuple[Replacement, int]] = {}
        self._layout = _Layout(1, 0, 0)
        self._runs = 1  # of the text encoder in the call that is under way
        self._encoder_kept = _Kept()

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the cross-attention layers, in the order in which the denoiser uses them."""
        return tuple(self._modules)

    @property
    def widths(self) -> dict[str, int]:
        """How many numbers a key of each cross-attention layer has, and a value as many."""
        projections = {name: cast(nn.Linear, module.get_submodule("to_k")) for name, module in self._modules.items()}
        return {name: projection.out_features for name, projection in projections.items()}

    @property
    def layerwise_ids(self) -> tuple[int, ...]:
        """The ids of the tokens that have a vector for each layer now; what was put in last counts."""
        last = _last(replacement for replacement in self._embedding_handles if replacement.vectors is not None)
        return tuple(number for number, (replacement, _) in last.items() if replacement.is_layerwise)

    @property
    def marked_ids(self) -> tuple[int, ...]:
        """The ids of the tokens that have keys and values of their own now, in the order of the marks."""
        return tuple(self._marked)

    def put(
        self, token_ids: Sequence[int], vectors: Tensor | None = None, keys_values: KeysValues | None = None
    ) -> Replacement:
        """Let something stand in the place of tokens, until ``take`` is given what is returned; gradients reach it.

        What is put in last counts: vectors without keys and values, put in later, leave none at these tokens.

        Args:
            token_ids: The k ids.
            vectors: ``(n or 1, k, L or 1, dim)``; see ``Replacement``.
            keys_values: See ``Replacement``.
        """
        replacement = Replacement(tuple(token_ids), vectors, keys_values)
        if replacement.is_wide and not self._layer_handles:
            self._widen()
        handle = None
        if vectors is not None:
            embedding = self._pipeline.text_encoder.get_input_embeddings()
            handle = embedding.register_forward_hook(self._replacing(replacement.token_ids, vectors))
        self._embedding_handles[replacement] = handle
        self._arrange()
        return replacement

    def take(self, replacement: Replacement) -> None:
        """Take a replacement out again."""
        handle = self._embedding_handles.pop(replacement)
        if handle is not None:
            handle.remove()
        if not any(other.is_wide for other in self._embedding_handles):
            for handle in self._layer_handles:
                handle.remove()
            self._layer_handles.clear()
        self._arrange()

    @property
    def _modules(self) -> dict[str, nn.Module]:
        modules = cross_attention_modules(self._pipeline.unet)
        return {component_name("unet", path): module for path, module in modules.items()}

    def _arrange(self) -> None:
        """Say what wide features are made of from now on: a mark for every token whose keys and values are in."""
        every = self._embedding_handles
        self._marked = _last(replacement for replacement in every if replacement.keys_values is not None)
        num_layers = len(self.layers) if any(replacement.is_layerwise for replacement in every) else 1
        dim = self._pipeline.text_encoder.get_input_embeddings().embedding_dim
        self._layout = _Layout(num_layers, dim, len(self._marked))

    def _widen(self) -> None:
        """Let features be wide, and every cross-attention layer take its part of them."""
        encoder: nn.Module = self._pipeline.text_encoder
        self._layer_handles += [
            encoder.register_forward_pre_hook(self._repeat_inputs, with_kwargs=True),
            encoder.register_forward_hook(self._join_outputs),
            encoder.register_forward_hook(self._end_runs, always_call=True),
        ]
        for index, (name, module) in enumerate(self._modules.items()):
            kept = _Kept()
            self._layer_handles += [
                module.register_forward_pre_hook(self._slicing(index, kept), with_kwargs=True),
                module.register_forward_hook(_forgetting(kept), always_call=True),
                *(
                    module.get_submodule(projection).register_forward_hook(self._adding(name, row, kept))
                    for row, projection in enumerate(_PROJECTIONS)
                ),
            ]
        for path, module in encoder.named_modules():
            if path.endswith("final_layer_norm"):  # pipelines apply it themselves to the states that clip_skip picks
                kept = _Kept()
                self._layer_handles.append(module.register_forward_pre_hook(self._setting_apart(kept)))
                self._layer_handles.append(module.register_forward_hook(_putting_together(kept)))

    def _replacing(self, token_ids: Sequence[int], vectors: Tensor) -> Any:  # noqa: ANN401  (a hook)
        """A forward hook of the embedding: vectors in the place of tokens."""

        def replace(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
            ids, runs = arguments[0], self._runs
            for position, number in enumerate(token_ids):
                mask = (ids == number).unsqueeze(-1)
                rows = _of_runs(vectors[:, position], runs, len(ids) // runs)
                output = torch.where(mask, rows.unsqueeze(1).to(output), output)
            return output

        return replace

    def _repeat_inputs(
        self, module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Repeat a batch of prompts for every layer, layer by layer, if a layer-wise token is in it; mark tokens."""
        ids = arguments[0] if arguments else keywords.get("input_ids")
        if not isinstance(ids, Tensor):
            return arguments, keywords
        self._encoder_kept.marks = self._marks(ids)
        self._runs = self._layout.num_layers if bool(_is_any(ids, self.layerwise_ids).any()) else 1
        if self._runs == 1:
            return arguments, keywords
        count = len(ids)
        repeated = tuple(self._repeated(value, count) for value in arguments)
        return repeated, {key: self._repeated(value, count) for key, value in keywords.items()}

    def _repeated(self, value: Any, count: int) -> Any:  # noqa: ANN401  (whatever the encoder is called with)
        of_batch = isinstance(value, Tensor) and value.ndim > 1 and len(value) == count
        return value.repeat(self._runs, *(1 for _ in value.shape[1:])) if of_batch else value

    def _marks(self, ids: Tensor) -> Tensor:
        """Where tokens with keys and values of their own stand, ``(n, length, number of marks)`` of truth values."""
        last = _last(self._embedding_handles)
        marked = [number if last[number][0].keys_values is not None else -1 for number in self.marked_ids]
        return ids.unsqueeze(-1) == torch.tensor(marked, dtype=ids.dtype, device=ids.device)

    def _join_outputs(self, module: nn.Module, arguments: object, output: Any) -> Any:  # noqa: ANN401
        """Put the runs' states side by side, then marks; what is no ``(n, length, dim)`` is the first layer's."""
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
            states = value.repeat(1, 1, self._layout.num_layers)
        else:
            states = value.unflatten(0, (self._runs, -1)).permute(1, 2, 0, 3).flatten(2)
        return _with_marks(states, self._encoder_kept.marks)

    def _end_runs(self, module: nn.Module, arguments: object, output: object) -> None:
        self._runs, self._encoder_kept.marks = 1, None

    def _slicing(self, index: int, kept: _Kept) -> Any:  # noqa: ANN401  (a hook)
        """A pre-hook of the cross-attention layer numbered ``index``; features of ordinary width pass as they are."""

        def take(
            module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            features, layout = keywords.get("encoder_hidden_states"), self._layout
            if isinstance(features, Tensor) and layout.fits(features):
                layers, kept.marks = layout.apart(features)
                own = layers[..., index if layout.num_layers > 1 else 0, :]
                keywords = {**keywords, "encoder_hidden_states": own}
            return arguments, keywords

        return take

    def _adding(self, layer: str, row: int, kept: _Kept) -> Any:  # noqa: ANN401  (a hook)
        """A forward hook of a layer's projection to keys (row 0) or values (row 1)."""

        def add(module: nn.Module, arguments: object, output: Tensor) -> Tensor | None:
            marks = kept.marks
            if marks is None or marks.shape[-1] == 0:
                return None
            every = self._marked.values()
            asked = {replacement: replacement.keys_values for replacement, _ in every}
            given = {replacement: ask(layer) for replacement, ask in asked.items() if ask is not None}
            rows = torch.stack([given[replacement][position, row] for replacement, position in every])
            return output + (marks @ rows.to(marks)).to(output.dtype)

        return add

    def _setting_apart(self, kept: _Kept) -> Any:  # noqa: ANN401  (a hook)
        """A pre-hook of a norm over the features of one layer."""

        def set_apart(module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            layout = self._layout
            if not layout.fits(arguments[0]):
                return arguments
            layers, kept.marks = layout.apart(arguments[0])
            return (layers,)

        return set_apart


def _putting_together(kept: _Kept) -> Any:  # noqa: ANN401  (a hook)
    """A forward hook of a norm whose input was set apart: as it was."""

    def put_together(module: nn.Module, arguments: object, output: Tensor) -> Tensor:
        marks, kept.marks = kept.marks, None
        return output if marks is None else _with_marks(output.flatten(-2), marks)

    return put_together


def _forgetting(kept: _Kept) -> Any:  # noqa: ANN401  (a hook)
    def forget(module: nn.Module, arguments: object, output: object) -> None:
        kept.marks = None

    return forget


def _with_marks(states: Tensor, marks: Tensor | None) -> Tensor:
    return states if marks is None or marks.shape[-1] == 0 else torch.cat([states, marks.to(states)], dim=-1)


def _last(replacements: Iterable[Replacement]) -> dict[int, tuple[Replacement, int]]:
    """Token ids, in the order in which they were first put in, to their last replacement and their place in it."""
    return {
        number: (replacement, position)
        for replacement in replacements
        for position, number in enumerate(replacement.token_ids)
    }


def _is_any(ids: Tensor, numbers: Sequence[int]) -> Tensor:
    return torch.isin(ids, torch.tensor(numbers, dtype=ids.dtype, device=ids.device))


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
