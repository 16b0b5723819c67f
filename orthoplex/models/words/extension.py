"""New words for a base's text encoders, put in and taken out without a trace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import final

from orthoplex.concepts import TOKENS, Token
from orthoplex.concepts.tokens.token import Placement
from orthoplex.errors import BaseModelError, ConfigurationError
from orthoplex.models.words.extended_encoder import ExtendedEncoder
from orthoplex.models.words.replacement import Replacement
from orthoplex.models.words.tokens_in import TokensIn
from orthoplex.models.words.words import CONCEPT_TOKEN


@final
class TokenExtension:
    """Tokens added to all tokenizers of a base, and their rows to all text encoders' embeddings.

    Tokens with a vector for each cross-attention layer have the mean of them as row. Vectors of single layers, keys
    and values are a ``Replacement``.

    Attributes:
        names: The tokens.
    """

    names: tuple[str, ...]

    def __init__(self, tokens: Mapping[str, Token], tokens_in: TokensIn) -> None:
        """Prepare the tokens; ``put`` adds them.

        Args:
            tokens: Name to token.
            tokens_in: The replacements of the base's tokens.

        Raises:
            ConfigurationError: If a token is in a vocabulary already, or has vectors of another width than the text
                encoder's.
            BaseModelError: If a token is made for other text encoders or cross-attention layers than the base's, or
                has keys and values of another width.
        """
        self.names = tuple(tokens)
        self._tokens, self._tokens_in = tokens, tokens_in
        readers = [encoder.reader for encoder in tokens_in.encoders.values()] if tokens else []
        vocabularies = [reader.tokenizer.get_vocab() for reader in readers]
        for token, item in tokens.items():
            if not CONCEPT_TOKEN.fullmatch(token):
                raise ConfigurationError(
                    f"token '{token}' is not allowed: '<name>' or '<name>_1' with a name of [a-z0-9_-]"
                )
            if any(token in vocabulary for vocabulary in vocabularies):
                raise ConfigurationError(
                    f"token '{token}' is in the base already, allowed are new tokens; "
                    "orthoplex rename gives a concept another name"
                )
            check_placement(token, item, tokens_in)
        self._encoders = [ExtendedEncoder(reader, tokens) for reader in readers]
        self._replacements: list[Replacement] = []

    @contextmanager
    def put_in(self) -> Iterator[tuple[str, ...]]:
        """Inside, the tokens are in; yields their names.

        Raises:
            BaseModelError: See ``put``.
        """
        self.put()
        try:
            yield self.names
        finally:
            self.take()

    def put(self) -> None:
        """Add the tokens, until ``take``.

        Raises:
            BaseModelError: If tokens have come or gone since this was prepared, or a text encoder is another.
                After any error no token is in.
        """
        if not all(encoder.is_prepared for encoder in self._encoders):
            raise BaseModelError(
                f"tokens {', '.join(self.names)} were prepared for a base with other tokens, text encoders or "
                "weights than it has now; allowed is preparing them anew"
            )
        try:
            for encoder in self._encoders:
                encoder.put()
            for group in by_kind(self._tokens):
                every = Replacement.of(group, self._tokens_in.layers)
                replacement = every.beyond_rows(self._encoders[0].device)
                self._tokens_in.put(replacement)
                self._replacements.append(replacement)
        except BaseException:
            self._take_out()
            raise

    def take(self) -> None:
        """Put the original tokenizers and the original embedding parameters back.

        Raises:
            BaseModelError: If tokens that were added later are still in.
        """
        if not all(encoder.is_last for encoder in self._encoders):
            raise BaseModelError(
                f"tokens {', '.join(self.names)} cannot be taken out before the tokens that were added after them"
            )
        self._take_out()

    def _take_out(self) -> None:
        for replacement in self._replacements:
            self._tokens_in.take(replacement)
        self._replacements.clear()
        for encoder in self._encoders:
            encoder.take()


def by_kind(tokens: Mapping[str, Token], *, rows_too: bool = False) -> Sequence[Mapping[str, Token]]:
    """Divide tokens into groups of one kind.

    Args:
        tokens: Token to what stands in its place.
        rows_too: True also returns tokens that are rows of the embedding and nothing else.
    """
    kinds = {item.kind for item in tokens.values()}
    groups = [
        {
            token: item
            for token, item in tokens.items()
            if item.kind == kind and (rows_too or not item.placement.is_one_vector)
        }
        for kind in TOKENS
        if kind in kinds
    ]
    return [group for group in groups if group]


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
    _check_maps(token, placement, tokens_in)


def _check_maps(token: str, placement: Placement, tokens_in: TokensIn) -> None:
    """Refuse low-rank maps of other layers or widths than the base's."""
    if not placement.key_value_maps:
        return
    _check_names(f"token '{token}' has maps for each", tuple(placement.key_value_maps), tokens_in.layers)
    read, made = tokens_in.read_widths, tokens_in.key_widths
    for layer, (down, up) in placement.key_value_maps.items():
        rank = down.shape[1] if down.ndim == 3 else 0
        if tuple(down.shape) != (2, rank, read[layer]) or tuple(up.shape) != (2, made[layer], rank):
            raise BaseModelError(
                f"token '{token}': maps of layer '{layer}' have shapes {tuple(down.shape)} and {tuple(up.shape)}, "
                f"allowed are (2, r, {read[layer]}) and (2, {made[layer]}, r)"
            )


def _check_names(what: str, given: Sequence[str], layers: Sequence[str]) -> None:
    for names, others, where in ((given, layers, "not in the base"), (layers, given, "missing in the token")):
        missing = [name for name in names if name not in others]
        if missing:
            raise BaseModelError(
                f"{what} of {len(given)} cross-attention layers, the base has {len(layers)}; "
                f"layer '{missing[0]}' is {where}"
            )
