"""A base model: an ordinary diffusers pipeline, with concepts put in and taken out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from orthoplex.adapters import Adapter
from orthoplex.concepts import BaseIdentity, Token
from orthoplex.concepts.tokens import RARE_WORD
from orthoplex.errors import BaseModelError
from orthoplex.models.base_lock import BaseLock
from orthoplex.models.brought import Brought
from orthoplex.models.changeable_base import ChangeableBase
from orthoplex.models.families import defaults_of, family_of
from orthoplex.models.families.family import Family
from orthoplex.models.memory_format import give_contiguous_state
from orthoplex.models.pipeline_folder import check_pipeline_tokens
from orthoplex.models.saving import save_pipeline
from orthoplex.models.undo import check_absent, check_in_weights
from orthoplex.models.versions import EMBEDDED
from orthoplex.models.weights import (
    compute_dtype,
    library_of,
    linear_layers,
    named_modules,
)
from orthoplex.models.words.extension import TokenExtension, by_kind, check_placement
from orthoplex.models.words.replacement import Replacement
from orthoplex.models.words.tokens_in import TokensIn
from orthoplex.options import Quantisation


@final
class Base(ChangeableBase):
    """A diffusion model that concepts are trained on and folded into.

    Threads may share a base: every picture, fold and training step takes the base's lock, and the others wait. The
    lock belongs to a thread, which may take it again. A generator that stops half-way holds neither the lock nor
    anything in the base.

    Attributes:
        pipeline: The diffusers pipeline itself; use it for anything, and within ``locked()`` where threads share it.
            The package asks ``family`` instead.
        family: What the base can do, whatever its pipeline is made of: layers, prompts, latents, predictions, pictures.
        identity: Which base it is; taken before anything was folded.
        brought: Prompts and heads that come with the base.
        stored_dtypes: Component to the type of its weights in the folder that it came from; ``save`` keeps it.
    """

    pipeline: Any
    family: Family
    identity: BaseIdentity
    brought: Brought
    stored_dtypes: Mapping[str, torch.dtype]

    def __init__(
        self,
        pipeline: Any,  # noqa: ANN401  (pipelines share no typed parent)
        identity: BaseIdentity,
        stored_dtypes: Mapping[str, torch.dtype] | None = None,
        brought: Brought | None = None,
        quantise: Quantisation | None = None,
    ) -> None:
        """Wrap a pipeline; ``load_base`` does so usually.

        Raises:
            BaseModelError: When the pipeline is of a class that no family has, or of a version without a layer table.
        """
        super().__init__()
        self.pipeline = pipeline
        self.family = family_of(type(pipeline).__name__)(pipeline, identity)
        self.identity = identity
        self.brought = brought or Brought()
        self.stored_dtypes = dict(stored_dtypes or {})
        self._quantise = quantise
        self._tokens_in = TokensIn(self.family.readers, self.family.cross_attention)
        for network in self.family.convolutional():
            give_contiguous_state(network)

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the lock: a copy is another base, with a lock of its own.

        Raises:
            BaseModelError: If tokens stand in the place of others now; what they do belongs to this base alone.
        """
        if not self._tokens_in.is_plain:
            raise BaseModelError(
                f"base '{self.identity.name}' has tokens {', '.join(self.tokens)} in, which do more than a row of the "
                "embedding; allowed is copying it without them"
            )
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)
        self._lock = BaseLock()

    @property
    def device(self) -> torch.device:
        """Where the denoiser's weights are."""
        return next(self.family.denoiser.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The data type that the denoiser's weights have, or stand for where they are quantised."""
        return compute_dtype(self.family.denoiser)

    @property
    def tokens(self) -> tuple[str, ...]:
        """The concept tokens that a prompt may use now, sorted."""
        return self.family.words.tokens

    @property
    def cross_attention_layers(self) -> tuple[str, ...]:
        """The names of the denoiser's L cross-attention layers, in the order in which it uses them.

        Down blocks, the middle block, up blocks, in each of them as they are numbered; this is the order of the rows
        of a token that has a vector for each layer.
        """
        return self._tokens_in.layers

    @property
    def key_widths(self) -> dict[str, int]:
        """The width of keys, and of values, of each of the ``cross_attention_layers``."""
        return self._tokens_in.key_widths

    @property
    def has_layerwise_tokens(self) -> bool:
        """True if a token has a vector of its own for each cross-attention layer now."""
        return bool(self._tokens_in.layerwise)

    def own_features(self, features: Tensor) -> list[Tensor]:
        """Return the text features of each of the ``cross_attention_layers``; a single entry if all read the same.

        Args:
            features: ``Conditioning.features``, ``(n, length, width)``, made with the tokens that are in now.

        Raises:
            BaseModelError: If they have another width than such features.
        """
        return self._tokens_in.own_features(features)

    @property
    def training_defaults(self) -> Mapping[str, Any]:
        """The training options with other defaults here: in the base's family, or as its text encoders cannot grow."""
        of_family = {} if self.identity.family == EMBEDDED else defaults_of(type(self.pipeline).__name__)
        return {**of_family, "token_vectors": RARE_WORD} if self.family.words.fixed else of_family

    @property
    def picture_defaults(self) -> tuple[int, float]:
        """Denoising steps and ``guidance_scale`` of pictures for which none are given: the family's, else 20 and 4."""
        options = self.training_defaults
        return options.get("num_inference_steps", 20), options.get("guidance_scale", 4.0)

    @property
    def quantisation(self) -> str | None:
        """How the denoiser is quantised: what ``load_base`` was asked for, else the library; None for plain weights."""
        return self._quantise or library_of(self.family.denoiser)

    def check_inference_steps(self, name: str, value: int) -> None:
        """Refuse a number of denoising steps that the base's scheduler cannot do.

        Args:
            name: What the option is called.
            value: The number of steps.

        Raises:
            ConfigurationError: Names option, value and the numbers that are allowed.
        """
        self.family.check_inference_steps(name, value)

    def check_trainable(self) -> None:
        """Refuse a base whose scheduler tells of no schedule that a loss is defined for; pictures may be possible.

        Raises:
            BaseModelError: Says why.
        """
        _ = self.family.schedule

    @contextmanager
    def attached(self, adapters: Mapping[str, Adapter]) -> Iterator[Base]:
        """Inside, every named layer returns ``W x + ΔW x`` with a trainable ΔW; leaving removes it.

        Raises:
            BaseModelError: If a layer is missing, wrapped, compiled or unused, or has another shape.
        """
        with self._lock:
            shapes = {name: (adapter.up.shape[0], adapter.down.shape[1]) for name, adapter in adapters.items()}
            layers = linear_layers(shapes, named_modules(self.family.components()))
            handles = [layers[name].register_forward_hook(adding(adapter)) for name, adapter in adapters.items()]
            try:
                yield self
            finally:
                for handle in handles:
                    handle.remove()

    @contextmanager
    def with_tokens(self, tokens: Mapping[str, Token]) -> Iterator[tuple[str, ...]]:
        """Inside, the tokenizers know the tokens and the embeddings have their rows; yields their names.

        Leaving puts the original tokenizers and the original embedding parameters back.

        Args:
            tokens: Name to token.

        Raises:
            ConfigurationError: If a token is in the base already, or an embedding has the wrong shape.
            BaseModelError: If a token is made for other text encoders or layers, or other widths of them.
        """
        with self._lock, self.prepared_tokens(tokens).put_in() as names:
            yield names

    def prepared_tokens(self, tokens: Mapping[str, Token]) -> TokenExtension:
        """Prepare the tokens of ``with_tokens``, for callers that put the same tokens in many times.

        Its ``put_in()`` is to be used within ``locked()``, and while the base has the tokens it has now.

        Args:
            tokens: See ``with_tokens``.

        Raises:
            ConfigurationError: See ``with_tokens``.
            BaseModelError: See ``with_tokens``.
        """
        with self._lock:
            return TokenExtension(tokens, self._tokens_in)

    @contextmanager
    def replaced_vectors(self, tokens: Sequence[str], vectors: Tensor) -> Iterator[None]:
        """Inside, vectors stand in the place of tokens that are in the base; gradients flow into them.

        Args:
            tokens: The names of the k tokens.
            vectors: ``(n or 1, k, L or 1, Σ dim)``, those of all text encoders side by side: of every prompt of a batch
                or of all, of every one of the L ``cross_attention_layers`` or of all. While there are any of single
                layers, a text encoder returns the layers' features side by side, ``(n, length, L·dim)``.

        Raises:
            ConfigurationError: If a token is not in the base.
        """
        with self._replaced([Replacement(tuple(tokens), self.family.words.split(vectors))]):
            yield

    @contextmanager
    def replaced_tokens(self, tokens: Mapping[str, Token]) -> Iterator[None]:
        """Inside, other tokens stand in the place of those that are in the base; gradients flow into them.

        Args:
            tokens: Name to token.

        Raises:
            ConfigurationError: If a token is not in the base, or has vectors of another width.
            BaseModelError: If a token is made for other text encoders or layers, or other widths of them.
        """
        for token, item in tokens.items():
            check_placement(token, item, self._tokens_in)
        layers = self.cross_attention_layers
        with self._replaced([Replacement.of(group, layers) for group in by_kind(tokens, rows_too=True)]):
            yield

    @contextmanager
    def _replaced(self, replacements: Sequence[Replacement]) -> Iterator[None]:
        with self._lock, ExitStack() as stack:
            for replacement in replacements:
                self._tokens_in.put(replacement)
                stack.callback(self._tokens_in.take, replacement)
            yield

    def save(self, folder: str | Path, *, overwrite: bool = False, dtype: torch.dtype | None = None) -> Path:
        """Write an ordinary pipeline folder with what is folded in, and ``recipe.json`` if something is.

        Args:
            folder: A new or empty folder; it is there whole or not at all.
            overwrite: Replace a folder that holds something.
            dtype: The type of the weights in the files; by default that of the folder the base came from, unless it
                is wider than that in memory.

        Raises:
            ConfigurationError: If the folder holds something and ``overwrite`` is False, a token has vectors of
                single cross-attention layers, which such a folder has no place for, or a strength was turned to 0,
                whose tokens are still in.
            BaseModelError: If a network is quantised, or a change is beside its layers instead of in their weights.
            OutputError: If it cannot be written, or another process filled the folder meanwhile.
        """
        with self._lock:
            check_absent(self._undo, self.tokens)
            check_in_weights(self._undo, self.identity.name, self.family.components())
            check_pipeline_tokens(list(dict.fromkeys((*self._tokens_in.layerwise, *self._tokens_in.marked))))
            return save_pipeline(
                self.pipeline,
                Path(folder),
                recipe=None if self.recipe is None else self.recipe.to_json(),
                overwrite=overwrite,
                dtype=dtype,
                stored_dtypes=self.stored_dtypes,
            )


def adding(adapter: Adapter) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    """A forward hook that adds the adapter's output to the layer's."""

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return adapter(inputs[0]).to(output.dtype).add_(output)  # the same sum, without a third tensor of its size

    return hook
