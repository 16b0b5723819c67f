"""The words of a base: how its text encoders read prompts, and where the embeddings of words lie.

A family may have several text encoders. Their numbers lie side by side everywhere: token ids of a prompt are
``(Σ lengths,)``, the vector of a word is ``(Σ widths,)``, in the order of ``Words.widths``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from orthoplex.errors import ConfigurationError


@final
@dataclass(frozen=True, eq=False)
class Reader:
    """One text encoder with its tokenizer.

    Attributes:
        component: The encoder's component of the pipeline.
        tokenizer: A tokenizer of transformers, as it is now.
        network: The encoder.
        spell_out: Prompt to the same with every vector of a concept's token named.
        num_marks: How many positions of a prompt are no words: its beginning and its end.
    """

    component: str
    tokenizer: Any
    network: Any
    spell_out: Callable[[str], str]
    num_marks: int = 2

    @property
    def table(self) -> Tensor:
        """The embeddings of all tokens, ``(tokens, width)``."""
        return self.network.get_input_embeddings().weight

    @property
    def length(self) -> int:
        """The positions of every prompt, filled up or cut off."""
        return self.tokenizer.model_max_length

    def ids(self, prompts: Sequence[str]) -> Tensor:
        """The token ids of prompts, ``(n, length)`` int64, filled up and cut off as when pictures are made."""
        return self.tokenizer(
            [self.spell_out(prompt) for prompt in prompts],
            padding="max_length",
            max_length=self.length,
            truncation=True,
            return_tensors="pt",
        ).input_ids

    def words(self, texts: str | Sequence[str]) -> list[Any]:
        """The token ids of a text's words, or of each text's, nothing cut off and no marks around them."""
        return self.tokenizer(texts, add_special_tokens=False, verbose=False).input_ids


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
        return {component: reader.table.shape[1] for component, reader in self._readers.items()}

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

    def embeddings(self, ids: Tensor) -> Tensor:
        """The embeddings of token ids, all numbers of a prompt side by side, ``(n, numbers)``."""
        parts = self.apart(ids)
        rows = [(reader.table, parts[component]) for component, reader in self._readers.items()]
        return torch.cat([table[part.to(table.device)].flatten(1) for table, part in rows], dim=1)

    def room(self, prompt: str) -> Room:
        """How long a prompt is for the text encoder that has the least room for it."""
        rooms = []
        for reader in self._readers.values():
            length = len(reader.tokenizer(reader.spell_out(prompt), truncation=False, verbose=False).input_ids)
            rooms.append(Room(length - reader.num_marks, reader.length - reader.num_marks))
        return min(rooms, key=lambda room: room.limit - room.length)

    def stand_in(self, count: int) -> str:
        """A text of ``count`` tokens, for a concept whose tokens the base does not know yet."""
        return self._readers[self._seen].tokenizer.eos_token * count

    def places(self, ids: Tensor, token_ids: Sequence[int]) -> Tensor:
        """Where each of k tokens stands among the positions of ``Conditioning.features``, ``(n, k, length)`` bool."""
        tokens = torch.tensor(list(token_ids), dtype=ids.dtype, device=ids.device)
        return self.apart(ids)[self._seen].unsqueeze(1) == tokens.view(1, -1, 1)

    def filling(self, ids: Tensor) -> Tensor:
        """Which of these positions are no words: beginning, end, and all behind the end; ``(n, length)`` bool."""
        tokenizer, seen = self._readers[self._seen].tokenizer, self.apart(ids)[self._seen]
        return ((seen == tokenizer.eos_token_id).cumsum(1) > 0) | (seen == tokenizer.bos_token_id)

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

        Rows of words that no training has seen stay as small as they began, so that the whole table would not do.
        """
        parts = []
        for reader in self._readers.values():
            table = reader.table.detach().float().cpu()
            parts.append(table[sorted({number for row in reader.words(list(prompts)) for number in row})])
        return WordSpread(torch.cat([rows.mean(0) for rows in parts]), torch.cat([rows.std(0) for rows in parts]))
