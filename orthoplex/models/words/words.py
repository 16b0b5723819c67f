"""The words of a base: how its text encoders read prompts, and where the embeddings of words lie.

A family may have several text encoders. Their numbers lie side by side everywhere: token ids of a prompt are
``(Σ lengths,)``, the vector of a word is ``(Σ widths,)``, in the order of ``Words.widths``.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from orthoplex.errors import ConfigurationError
from orthoplex.models.quiet import quiet
from orthoplex.models.words.prompt_forms import Marked, PromptForm

CONCEPT_TOKEN = re.compile(r"<[a-z0-9_-]{1,64}>(_[1-9][0-9]*)?")
_OF_LANGUAGE_MODELS = ("<think>", "<tool_call>", "<tool_response>")
_STAND_IN = "\ue000"
"""Stands for one token, whatever the tokenizer; no text has it."""
_OF_T5 = "<extra_id_"
"""Tokens of tokenizers that look like those of concepts."""


@final
@dataclass(frozen=True, eq=False)
class Reader:
    """One text encoder with its tokenizer, both as the pipeline has them now.

    Attributes:
        pipeline: The pipeline.
        component: The encoder's component of the pipeline.
        tokenizer_component: The tokenizer's, which is one of transformers.
        form: How token ids are made of a prompt.
        embedding: The name of the words' embedding in a network that is none of transformers.
        size_setting: What the configuration calls the number of words.
        ids_keyword: By which the network is called with token ids, if they are not its first argument.
        is_pooled: True if the denoiser reads one vector for a whole prompt, whose end may be cut off.
        source: The component whose states the network reads by the keyword ``source_hidden_states``; empty for none.
            The denoiser reads those of the network alone.
    """

    pipeline: Any
    component: str = "text_encoder"
    tokenizer_component: str = "tokenizer"
    form: PromptForm = Marked()
    embedding: str = ""
    size_setting: str = "vocab_size"
    ids_keyword: str = "input_ids"
    is_pooled: bool = False
    source: str = ""

    @property
    def network(self) -> Any:  # noqa: ANN401  (a network of transformers)
        """The encoder."""
        return getattr(self.pipeline, self.component)

    @property
    def tokenizer(self) -> Any:  # noqa: ANN401  (a tokenizer of transformers)
        """The tokenizer."""
        return getattr(self.pipeline, self.tokenizer_component)

    def use(self, tokenizer: Any) -> None:  # noqa: ANN401  (a tokenizer of transformers)
        """Let another tokenizer be the pipeline's."""
        setattr(self.pipeline, self.tokenizer_component, tokenizer)

    @property
    def word_embedding(self) -> Any:  # noqa: ANN401  (an embedding of torch)
        """The embedding of the words."""
        return self.network.get_submodule(self.embedding) if self.embedding else self.network.get_input_embeddings()

    @property
    def head(self) -> Any:  # noqa: ANN401  (a linear layer)
        """A language model's last layer, which has as many rows as the embedding; None in other networks."""
        return None if self.embedding else self.network.get_output_embeddings()

    @property
    def size(self) -> int:
        """The number of words that the network's configuration says."""
        config = self.network.config
        return config[self.size_setting] if self.embedding else config.get_text_config().vocab_size

    def resize(self, size: int) -> None:
        """Let the network's configuration say another number of words."""
        if self.embedding:
            self.network.register_to_config(**{self.size_setting: size})
        else:
            self.network.config.get_text_config().vocab_size = size

    @property
    def table(self) -> Tensor:
        """The embeddings of all tokens, ``(tokens, width)``."""
        return self.word_embedding.weight

    def rows(self, ids: Tensor) -> Tensor:
        """The embeddings of token ids, ``(…)`` to ``(…, width)``, as they are now."""
        return self.table[ids.to(self.table.device)]

    @property
    def embeddings(self) -> list[Any]:
        """The embedding of the words, and those that share its numbers, as T5's has; modules of torch."""
        first = self.word_embedding
        others = [
            module
            for module in self.network.modules()
            if isinstance(module, nn.Embedding) and module is not first and module.weight is first.weight
        ]
        return [first, *others]

    @property
    def can_grow(self) -> bool:
        """True if the embedding of the words can get rows: the encoder is there, and its embedding is not quantised."""
        embedding = None if self.network is None else self.word_embedding
        if not isinstance(embedding, nn.Embedding):
            return False
        weight = embedding.weight
        return type(weight) in (nn.Parameter, Tensor) and weight.is_floating_point() and weight.element_size() > 1

    @property
    def width(self) -> int:
        """The width of an embedding."""
        return self.word_embedding.embedding_dim

    @property
    def length(self) -> int:
        """The positions of every prompt, filled up or cut off."""
        return self.form.length(self.tokenizer)

    @property
    def num_marks(self) -> int:
        """The number of positions of every prompt that are no words: its beginning and its end, or a template."""
        return self.form.num_marks(self.tokenizer)

    def ids(self, prompts: Sequence[str]) -> Tensor:
        """The token ids of prompts, ``(n, length)`` int64, filled up and cut off as when pictures are made."""
        return self.form.ids(self.tokenizer, self.spelled_out(prompts))

    def words(self, texts: str | Sequence[str]) -> list[Any]:
        """The token ids of a text's words, or of each text's, nothing cut off and no marks around them."""
        return self.tokenizer(texts, add_special_tokens=False, verbose=False).input_ids

    @property
    def added(self) -> frozenset[str]:
        """The concept tokens that the tokenizer knows: ``<name>``, ``<name>_1`` and so on."""
        special = {*self.tokenizer.all_special_tokens, *_OF_LANGUAGE_MODELS}
        return frozenset(
            token
            for token in self.tokenizer.get_added_vocab()
            if CONCEPT_TOKEN.fullmatch(token) and token not in special and not token.startswith(_OF_T5)
        )

    def ids_of(self, tokens: Iterable[str]) -> list[int]:
        """The number of each token.

        Raises:
            ConfigurationError: If the tokenizer does not know a token.
        """
        known, numbers = self.tokenizer.get_added_vocab(), []
        for token in tokens:
            if token not in known:
                raise ConfigurationError(
                    f"token '{token}' is none that {self.tokenizer_component} knows; allowed are "
                    f"{', '.join(sorted(self.added)) or 'none'}"
                )
            numbers.append(known[token])
        return numbers

    def spelled_out(self, prompts: Sequence[str]) -> list[str]:
        """Prompts with every vector of a concept's token named: ``<name> <name>_1`` for ``<name>``."""
        added = self.tokenizer.get_added_vocab()
        with quiet():  # a prompt may be longer than the encoder reads; callers report it
            pieces = [self.tokenizer.tokenize(prompt) for prompt in prompts]
        texts = []
        for prompt, tokens in zip(prompts, pieces, strict=True):
            text = prompt
            for token in dict.fromkeys(token for token in tokens if token in added):
                others = itertools.takewhile(lambda name: name in added, (f"{token}_{i}" for i in itertools.count(1)))
                text = text.replace(token, " ".join([token, *others]))
            texts.append(text)
        return texts


@final
@dataclass(frozen=True)
class Room:
    """How long a prompt is, and how long it may be, in tokens without the marks of its beginning and its end."""

    length: int
    limit: int


@final
@dataclass(frozen=True, eq=False)
class WordSpread:
    """Where the embeddings of a base's words lie: their mean and standard deviation, ``(width,)`` each."""

    mean: Tensor
    deviation: Tensor


@final
class Words:
    """How the text encoders of a base read, with the tokens that are in it now."""

    def __init__(self, readers: Sequence[Reader], *, seen: str) -> None:
        """Take a base's text encoders.

        Args:
            readers: One for each text encoder, in the order in which their numbers lie side by side.
            seen: The component whose positions are those of ``Conditioning.features``.
        """
        self._readers = {reader.component: reader for reader in readers}
        self._seen = seen

    @property
    def widths(self) -> dict[str, int]:
        """How many numbers a word's embedding has, text encoder by text encoder."""
        return {component: reader.width for component, reader in self._readers.items()}

    @property
    def fixed(self) -> tuple[str, ...]:
        """The text encoders whose embedding cannot get new words."""
        return tuple(component for component, reader in self._readers.items() if not reader.can_grow)

    @property
    def width(self) -> int:
        """How many numbers the vector of a word has, those of all text encoders side by side."""
        return sum(self.widths.values())

    @property
    def dtype(self) -> torch.dtype:
        """The data type of the embeddings."""
        return next(iter(self._readers.values())).table.dtype

    def ids(self, prompts: Sequence[str]) -> Tensor:
        """The token ids of prompts, ``(n, length)`` int64, exactly as they are when pictures are made."""
        return torch.cat([reader.ids(prompts) for reader in self._readers.values()], dim=1)

    def apart(self, ids: Tensor) -> dict[str, Tensor]:
        """Text encoder to its part of token ids, ``(n, its length)``."""
        lengths = [reader.length for reader in self._readers.values()]
        return dict(zip(self._readers, ids.split(lengths, dim=1), strict=True))

    def split(self, vectors: Tensor) -> dict[str, Tensor]:
        """Text encoder to its part of vectors, ``(…, width)`` to ``(…, its width)``."""
        return dict(zip(self.widths, vectors.split(list(self.widths.values()), dim=-1), strict=True))

    @property
    def tokens(self) -> tuple[str, ...]:
        """The concept tokens that all tokenizers know, sorted."""
        known = [reader.added for reader in self._readers.values()]
        return tuple(sorted(known[0].intersection(*known[1:])))

    def embeddings(self, ids: Tensor) -> Tensor:
        """The embeddings of token ids, all numbers of a prompt side by side, ``(n, numbers)``."""
        parts = self.apart(ids)
        rows = [reader.rows(parts[component]) for component, reader in self._readers.items()]
        return torch.cat([part.flatten(1) for part in rows], dim=1)

    def room(self, prompt: str) -> Room:
        """How long a prompt is for the text encoder that has the least room for it, of those that read every word."""
        rooms = []
        for reader in (reader for reader in self._readers.values() if not reader.is_pooled):
            (text,) = reader.spelled_out([prompt.replace(_STAND_IN, reader.tokenizer.eos_token)])
            length = reader.form.num_words(reader.tokenizer, text)
            rooms.append(Room(length, reader.length - reader.num_marks))
        return min(rooms, key=lambda room: room.limit - room.length)

    def reads_whole(self, prompt: str) -> bool:
        """True if every text encoder that reads all words has room for a prompt."""
        room = self.room(prompt)
        return room.length <= room.limit

    def stand_in(self, count: int) -> str:
        """A text that ``room`` takes for ``count`` tokens, for a concept whose tokens the base does not know yet."""
        return _STAND_IN * count

    def places(self, ids: Tensor, tokens: Sequence[str], encoder: str | None = None) -> Tensor:
        """Where each of k tokens stands among the positions of ``Conditioning.features``, ``(n, k, length)`` bool.

        Args:
            ids: Token ids of prompts.
            tokens: The names of the k tokens.
            encoder: A text encoder, for its own positions; None for those of ``Conditioning.features``.

        Raises:
            ConfigurationError: If a token is in no tokenizer.
        """
        name, first = self._positions(encoder)
        numbers = torch.tensor(self._readers[name].ids_of(tokens), dtype=ids.dtype, device=ids.device)
        return self.apart(ids)[name][:, first:].unsqueeze(1) == numbers.view(1, -1, 1)

    def filling(self, ids: Tensor, encoder: str | None = None) -> Tensor:
        """Which of these positions are no words: marks, a template, and all that fills up; ``(n, length)`` bool.

        Args:
            ids: Token ids of prompts.
            encoder: A text encoder, for its own positions; None for those of ``Conditioning.features``.
        """
        name, first = self._positions(encoder)
        reader = self._readers[name]
        return reader.form.filling(reader.tokenizer, self.apart(ids)[name])[:, first:]

    def _positions(self, encoder: str | None) -> tuple[str, int]:
        """A text encoder, and its first position that counts."""
        name = encoder or self._seen
        return name, 0 if encoder else self._readers[name].form.num_dropped

    def class_vector(self, class_word: str) -> Tensor:
        """The mean of a class word's token embeddings, ``(width,)`` float32.

        Raises:
            ConfigurationError: When a tokenizer finds no token in the word.
        """
        parts = []
        for reader in self._readers.values():
            numbers = reader.words(class_word)
            if not numbers:
                raise ConfigurationError(f"class word {class_word!r} has no tokens; allowed is a word such as 'person'")
            rows = reader.table[torch.tensor(numbers, device=reader.table.device)]
            parts.append(rows.detach().float().mean(0))
        return torch.cat(parts)

    def spread(self, prompts: Sequence[str]) -> WordSpread:
        """Measure the embeddings of the words of prompts, float32 on the CPU.

        The whole table is no measure: rows of words that no training has seen stay as small as they began.
        """
        parts = []
        for reader in self._readers.values():
            table = reader.table.detach().float().cpu()
            parts.append(table[sorted({number for row in reader.words(list(prompts)) for number in row})])
        return WordSpread(torch.cat([rows.mean(0) for rows in parts]), torch.cat([rows.std(0) for rows in parts]))
