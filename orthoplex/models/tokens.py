"""New words for a text encoder, put in and taken out without a trace."""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import cast

import torch
from tokenizers import AddedToken
from torch import Tensor, nn

from orthoplex.errors import BaseModelError, ConfigurationError
from orthoplex.models.folding import check_keys_values
from orthoplex.models.pipelines import StableDiffusionPipeline
from orthoplex.models.vectors import Replacement, TokenVectors, layerwise

CONCEPT_TOKEN = re.compile(r"<[a-z0-9_-]{1,64}>(_[1-9][0-9]*)?")


class TokenExtension:
    """Tokens added to a pipeline's tokenizer, and their rows to its text encoder's embedding.

    Tokens that have a vector for each cross-attention layer have the mean of them as row, and are put in the place of
    it layer by layer. Keys and values that tokens have of their own are added where the tokens stand.

    Attributes:
        ids: Token to its number.
    """

    ids: dict[str, int]

    def __init__(
        self,
        pipeline: StableDiffusionPipeline,
        tokens: Mapping[str, Tensor],
        vectors: TokenVectors,
        keys_values: Mapping[str, Mapping[str, Tensor]] | None = None,
    ) -> None:
        """Prepare the tokens; ``put`` adds them.

        Args:
            pipeline: A pipeline with ``tokenizer`` and ``text_encoder``.
            tokens: Token to its embedding, ``(dim,)``, or ``(L, dim)`` for each of the L cross-attention layers, in
                the order in which the denoiser uses them.
            vectors: What stands in the place of the pipeline's tokens.
            keys_values: Token to what each of the L cross-attention layers adds to its key and to its value, layer name
                to ``(2, out)``; for some of the tokens, or none.

        Raises:
            ConfigurationError: If a token is in the vocabulary already, an embedding has another shape than
                ``(dim,)`` of the text encoder or ``(L, dim)``, or there are keys and values of none of the tokens.
            BaseModelError: If a token has keys and values of other layers than the pipeline, or of another width.
        """
        self._pipeline = pipeline
        self._original_tokenizer = pipeline.tokenizer
        self._text_encoder = pipeline.text_encoder
        self._embedding: nn.Embedding = self._text_encoder.get_input_embeddings()
        self._original_weight = cast(nn.Parameter, self._embedding.weight)
        self._original_vocab_size = self._text_encoder.config.vocab_size
        self._vectors = vectors
        self._layerwise, self._keys_values = layerwise(tokens), keys_values or {}
        self._check(tokens)
        self._check_keys_values(self._keys_values, tokens)
        self._tokenizer = copy.deepcopy(self._original_tokenizer)
        self._tokenizer.add_tokens([AddedToken(token, normalized=False) for token in tokens])
        self.ids = {token: self._tokenizer.convert_tokens_to_ids(token) for token in tokens}
        weight = self._extended_weight(tokens)
        self._weight = nn.Parameter(weight, requires_grad=self._original_weight.requires_grad)
        self._replacements: list[Replacement] = []

    @contextmanager
    def put_in(self) -> Iterator[dict[str, int]]:
        """Inside, the tokens are in; yields token to its number.

        Raises:
            BaseModelError: See ``put``.
        """
        self.put()
        try:
            yield self.ids
        finally:
            self.take()

    def put(self) -> None:
        """Add the tokens, until ``take``.

        Raises:
            BaseModelError: If tokens have come or gone since this was prepared.
        """
        if self._pipeline.tokenizer is not self._original_tokenizer:
            raise BaseModelError(f"tokens {', '.join(self.ids)} were prepared for a base with other tokens than it has")
        self._pipeline.tokenizer = self._tokenizer
        self._set_weight(self._weight, self._weight.shape[0])
        self._replacements = [*self._put_layerwise(self._layerwise), *self._put_keys_values(self._keys_values)]

    def take(self) -> None:
        """Put the original tokenizer and the original embedding parameter back.

        Raises:
            BaseModelError: If tokens that were added later are still in.
        """
        if self._pipeline.tokenizer is not self._tokenizer:
            raise BaseModelError(
                f"tokens {', '.join(self.ids)} cannot be taken out before the tokens that were added after them"
            )
        for replacement in self._replacements:
            self._vectors.take(replacement)
        self._replacements.clear()
        current = self._embedding.weight
        if (self._original_weight.device, self._original_weight.dtype) != (current.device, current.dtype):
            self._original_weight.data = self._original_weight.data.to(current)
        self._pipeline.tokenizer = self._original_tokenizer
        self._set_weight(self._original_weight, self._original_vocab_size)

    def _check(self, tokens: Mapping[str, Tensor]) -> None:
        vocabulary = self._original_tokenizer.get_vocab()
        dim = self._embedding.embedding_dim
        for token, vector in tokens.items():
            if not CONCEPT_TOKEN.fullmatch(token):
                raise ConfigurationError(
                    f"token '{token}' is not allowed: '<name>' or '<name>_1' with a name of [a-z0-9_-]"
                )
            if token in vocabulary:
                raise ConfigurationError(f"token '{token}' is in the vocabulary already, allowed are new tokens")
            if tuple(vector.shape) == (dim,):
                continue
            if tuple(vector.shape) != ((num_layers := len(self._vectors.layers)), dim):
                raise ConfigurationError(
                    f"token '{token}': embedding has shape {tuple(vector.shape)}, allowed is ({dim},), or "
                    f"({num_layers}, {dim}) with a row for each cross-attention layer"
                )

    def _check_keys_values(self, tokens: Mapping[str, Mapping[str, Tensor]], known: Collection[str]) -> None:
        for token in tokens:
            if token not in known:
                raise ConfigurationError(
                    f"token '{token}' has keys and values and no embedding, allowed are tokens that have one"
                )
        if tokens:
            check_keys_values(tokens, self._vectors.widths)

    def _put_layerwise(self, tokens: Mapping[str, Tensor]) -> list[Replacement]:
        if not tokens:
            return []
        stacked = torch.stack([vectors.detach() for vectors in tokens.values()])
        return [self._vectors.put([self.ids[token] for token in tokens], stacked.unsqueeze(0))]

    def _put_keys_values(self, tokens: Mapping[str, Mapping[str, Tensor]]) -> list[Replacement]:
        if not tokens:
            return []
        layers, device = next(iter(tokens.values())), self._embedding.weight.device
        stacked = {
            layer: torch.stack([values[layer].detach() for values in tokens.values()]).to(device) for layer in layers
        }
        return [self._vectors.put([self.ids[token] for token in tokens], keys_values=stacked.__getitem__)]

    def _extended_weight(self, tokens: Mapping[str, Tensor]) -> Tensor:
        old = self._original_weight.detach()
        num_rows = max(old.shape[0], *(number + 1 for number in self.ids.values())) if tokens else old.shape[0]
        weight = torch.cat([old, old.new_zeros(num_rows - old.shape[0], old.shape[1])])
        for token, vector in tokens.items():
            weight[self.ids[token]] = (vector if vector.ndim == 1 else vector.mean(0)).detach().to(weight)
        return weight

    def _set_weight(self, weight: nn.Parameter, vocab_size: int) -> None:
        self._embedding.weight = weight
        self._embedding.num_embeddings = weight.shape[0]
        self._text_encoder.config.vocab_size = vocab_size


def concept_tokens(pipeline: StableDiffusionPipeline) -> tuple[str, ...]:
    """The concept tokens that a pipeline's tokenizer knows (``<name>``, ``<name>_1`` and so on), sorted."""
    return tuple(sorted(token for token in pipeline.tokenizer.get_added_vocab() if CONCEPT_TOKEN.fullmatch(token)))
