"""New words for one text encoder and its tokenizer."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, cast, final

import torch
from tokenizers import AddedToken
from torch import nn

from orthoplex.concepts import Token
from orthoplex.models.words.words import Reader


@final
class ExtendedEncoder:
    """Tokens added to a tokenizer, and their rows to its text encoder's embedding."""

    def __init__(self, reader: Reader, tokens: Mapping[str, Token]) -> None:
        """Prepare the tokens; ``put`` adds them.

        Args:
            reader: The text encoder with its tokenizer.
            tokens: Token to its vectors: one of the encoder's width, or several, whose mean is the row.
        """
        self._reader, self._network = reader, reader.network
        self._original_tokenizer = reader.tokenizer
        self._embeddings: list[nn.Embedding] = reader.embeddings
        self._original_weight = cast(nn.Parameter, self._embedding.weight)
        self._original_size = reader.size
        self._tokenizer = copy.deepcopy(self._original_tokenizer)
        self._tokenizer.add_tokens([AddedToken(token, normalized=False) for token in tokens])
        weight = self._extended_weight(tokens)
        self._weight = nn.Parameter(weight, requires_grad=self._original_weight.requires_grad)
        self._head: Any = reader.head
        self._original_head = None if self._head is None else self._head.weight

    @property
    def _embedding(self) -> nn.Embedding:
        return self._embeddings[0]

    @property
    def device(self) -> torch.device:
        """Where the embedding is."""
        return self._embedding.weight.device

    @property
    def is_prepared(self) -> bool:
        """True while the pipeline has the encoder, tokenizer, data type and device of the preparation."""
        reader, weight = self._reader, self._embedding.weight
        is_same = reader.tokenizer is self._original_tokenizer and reader.network is self._network
        return is_same and (weight.dtype, weight.device) == (self._weight.dtype, self._weight.device)

    @property
    def is_last(self) -> bool:
        """True while the tokens are in, and no later ones are."""
        return self._reader.tokenizer is self._tokenizer

    def put(self) -> None:
        """Add the tokens, until ``take``."""
        self._reader.use(self._tokenizer)
        self._set_weight(self._weight, self._weight.shape[0])
        if self._head is not None:
            self._head.weight = self._extended_head()

    def take(self) -> None:
        """Put the original tokenizer and the original embedding parameter back."""
        current = self._embedding.weight
        if (self._original_weight.device, self._original_weight.dtype) != (current.device, current.dtype):
            self._original_weight.data = self._original_weight.data.to(current)
        self._reader.use(self._original_tokenizer)
        self._set_weight(self._original_weight, self._original_size)
        if self._head is not None:
            self._head.weight = self._original_head

    def _extended_weight(self, tokens: Mapping[str, Token]) -> torch.Tensor:
        old = self._original_weight.detach()
        numbers = {token: self._tokenizer.convert_tokens_to_ids(token) for token in tokens}
        num_rows = max([old.shape[0], *(number + 1 for number in numbers.values())])
        weight = torch.cat([old, old.new_zeros(num_rows - old.shape[0], old.shape[1])])
        for token, item in tokens.items():
            vector = item.placement.vectors[self._reader.component]
            weight[numbers[token]] = (vector if vector.ndim == 1 else vector.mean(0)).detach().to(weight)
        return weight

    def _extended_head(self) -> nn.Parameter:
        """The rows of a language model's head, which nothing here reads: as many as the embedding has, when saved."""
        head = self._head.weight
        if head is self._original_weight:
            return self._weight
        missing = self._weight.shape[0] - head.shape[0]
        if missing <= 0:
            return head
        return nn.Parameter(torch.cat([head.detach(), head.new_zeros(missing, head.shape[1])]), requires_grad=False)

    def _set_weight(self, weight: nn.Parameter, size: int) -> None:
        for embedding in self._embeddings:
            embedding.weight = weight
            embedding.num_embeddings = weight.shape[0]
        self._reader.resize(size)
