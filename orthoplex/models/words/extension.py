"""New words for a base's text encoders, put in and taken out without a trace."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import cast, final

import torch
from tokenizers import AddedToken
from torch import Tensor, nn

from orthoplex.concepts import TOKENS, Token
from orthoplex.errors import BaseModelError, ConfigurationError
from orthoplex.models.pipelines import StableDiffusionPipeline
from orthoplex.models.words.replacement import Replacement
from orthoplex.models.words.tokens_in import TokensIn

CONCEPT_TOKEN = re.compile(r"<[a-z0-9_-]{1,64}>(_[1-9][0-9]*)?")


@final
class TokenExtension:
    """Tokens added to a pipeline's tokenizer, and their rows to its text encoder's embedding.

    Tokens with a vector for each cross-attention layer have the mean of them as row; whatever else a token does is put
    in its place.

    Attributes:
        ids: Token to its number.
    """

    ids: dict[str, int]

    def __init__(self, pipeline: StableDiffusionPipeline, tokens: Mapping[str, Token], tokens_in: TokensIn) -> None:
        """Prepare the tokens; ``put`` adds them.

        Args:
            pipeline: A pipeline with ``tokenizer`` and ``text_encoder``.
            tokens: Token to what stands in its place.
            tokens_in: What stands in the place of the pipeline's tokens.

        Raises:
            ConfigurationError: If a token is in the vocabulary already, or has vectors of another width than the text
                encoder's.
            BaseModelError: If a token is made for other text encoders or cross-attention layers than the pipeline's, or
                has keys and values of another width.
        """
        self._pipeline = pipeline
        self._original_tokenizer = pipeline.tokenizer
        self._text_encoder = pipeline.text_encoder
        self._embedding: nn.Embedding = self._text_encoder.get_input_embeddings()
        self._original_weight = cast(nn.Parameter, self._embedding.weight)
        self._original_vocab_size = self._text_encoder.config.vocab_size
        self._tokens, self._tokens_in = tokens, tokens_in
        vocabulary = self._original_tokenizer.get_vocab()
        for token, item in tokens.items():
            if not CONCEPT_TOKEN.fullmatch(token):
                raise ConfigurationError(
                    f"token '{token}' is not allowed: '<name>' or '<name>_1' with a name of [a-z0-9_-]"
                )
            if token in vocabulary:
                raise ConfigurationError(f"token '{token}' is in the vocabulary already, allowed are new tokens")
            check_placement(token, item, tokens_in)
        self._tokenizer = copy.deepcopy(self._original_tokenizer)
        self._tokenizer.add_tokens([AddedToken(token, normalized=False) for token in tokens])
        self.ids = {token: self._tokenizer.convert_tokens_to_ids(token) for token in tokens}
        self._weight = nn.Parameter(self._extended_weight(), requires_grad=self._original_weight.requires_grad)
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
        device = self._embedding.weight.device
        for group in self._groups():
            ids = [self.ids[token] for token in group]
            every = Replacement.of(ids, list(group.values()), self._tokens_in.layers)
            replacement = every.beyond_rows(device)
            self._replacements.append(replacement)
            self._tokens_in.put(replacement)

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
            self._tokens_in.take(replacement)
        self._replacements.clear()
        current = self._embedding.weight
        if (self._original_weight.device, self._original_weight.dtype) != (current.device, current.dtype):
            self._original_weight.data = self._original_weight.data.to(current)
        self._pipeline.tokenizer = self._original_tokenizer
        self._set_weight(self._original_weight, self._original_vocab_size)

    def _groups(self) -> Sequence[Mapping[str, Token]]:
        """The tokens that do more than a row of the embedding can, kind by kind."""
        more = {token: item for token, item in self._tokens.items() if not item.placement.is_one_vector}
        kinds = [{token: item for token, item in more.items() if item.kind == kind} for kind in TOKENS]
        return [group for group in kinds if group]

    def _extended_weight(self) -> Tensor:
        old = self._original_weight.detach()
        num_rows = max(old.shape[0], *(number + 1 for number in self.ids.values())) if self.ids else old.shape[0]
        weight = torch.cat([old, old.new_zeros(num_rows - old.shape[0], old.shape[1])])
        for token, item in self._tokens.items():
            (vector,) = item.placement.vectors.values()
            weight[self.ids[token]] = (vector if vector.ndim == 1 else vector.mean(0)).detach().to(weight)
        return weight

    def _set_weight(self, weight: nn.Parameter, vocab_size: int) -> None:
        self._embedding.weight = weight
        self._embedding.num_embeddings = weight.shape[0]
        self._text_encoder.config.vocab_size = vocab_size


def check_placement(token: str, item: Token, tokens_in: TokensIn) -> None:
    """Refuse a token that does not fit a base.

    Raises:
        ConfigurationError: If vectors have another width.
        BaseModelError: If text encoders or layers are others, or keys and values have another width; names them.
    """
    placement, encoders = item.placement, tokens_in.encoders
    if placement.vectors.keys() != encoders.keys():
        raise BaseModelError(
            f"token '{token}' has vectors of {', '.join(placement.vectors) or 'no text encoder'}, allowed are "
            f"{', '.join(encoders)}"
        )
    if placement.layers:
        _check_names(f"token '{token}' has a vector for each", placement.layers, tokens_in.layers)
    for encoder, vectors in placement.vectors.items():
        allowed = (len(placement.layers), encoders[encoder].dim) if placement.layers else (encoders[encoder].dim,)
        if tuple(vectors.shape) != allowed:
            raise ConfigurationError(
                f"token '{token}': embedding has shape {tuple(vectors.shape)}, allowed is {allowed} of {encoder}"
            )
    if placement.keys_values:
        _check_names(f"token '{token}' has a key and a value for each", tuple(placement.keys_values), tokens_in.layers)
    for layer, values in placement.keys_values.items():
        allowed = (2, tokens_in.key_widths[layer])
        if tuple(values.shape) != allowed:
            raise BaseModelError(
                f"token '{token}': key and value of layer '{layer}' have shape {tuple(values.shape)}, allowed is "
                f"{allowed}"
            )


def _check_names(what: str, given: Sequence[str], layers: Sequence[str]) -> None:
    for names, others, where in ((given, layers, "not in the base"), (layers, given, "missing in the token")):
        missing = [name for name in names if name not in others]
        if missing:
            raise BaseModelError(
                f"{what} of {len(given)} cross-attention layers, the base has {len(layers)}; "
                f"layer '{missing[0]}' is {where}"
            )


def concept_tokens(pipeline: StableDiffusionPipeline) -> tuple[str, ...]:
    """The concept tokens that a pipeline's tokenizer knows (``<name>``, ``<name>_1`` and so on), sorted."""
    return tuple(sorted(token for token in pipeline.tokenizer.get_added_vocab() if CONCEPT_TOKEN.fullmatch(token)))
