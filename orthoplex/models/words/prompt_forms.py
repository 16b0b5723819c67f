"""The forms in which text encoders get a prompt: marks around it, or a template; and how it is filled up."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from orthoplex.errors import BaseModelError


class PromptForm(ABC):
    """How token ids are made of a prompt; tokenizers are those of transformers."""

    @property
    @abstractmethod
    def num_dropped(self) -> int:
        """The number of first positions whose states no denoiser reads, as those of a template."""

    @abstractmethod
    def length(self, tokenizer: Any) -> int:  # noqa: ANN401  (a tokenizer of transformers)
        """Return the positions of every prompt, filled up or cut off."""

    @abstractmethod
    def num_marks(self, tokenizer: Any) -> int:  # noqa: ANN401  (likewise)
        """Return the number of positions of every prompt that are no words: marks, and what a template adds."""

    @abstractmethod
    def num_words(self, tokenizer: Any, text: str) -> int:  # noqa: ANN401  (likewise)
        """Return how many tokens a text has, nothing cut off, without marks."""

    @abstractmethod
    def ids(self, tokenizer: Any, texts: Sequence[str]) -> Tensor:  # noqa: ANN401  (likewise)
        """Return token ids, ``(n, length)`` int64, as the family's pipeline makes them."""

    @abstractmethod
    def filling(self, tokenizer: Any, ids: Tensor) -> Tensor:  # noqa: ANN401  (likewise)
        """Return which positions are no words, ``(n, length)`` bool."""


@final
@dataclass(frozen=True)
class Marked(PromptForm):
    """Marks of the beginning, or of none, and of the end; filling behind the end. CLIP and T5.

    Attributes:
        marks: How many marks there are: 2 for CLIP, 1 for T5.
        max_length: The positions of every prompt; None for those of the tokenizer.
    """

    marks: int = 2
    max_length: int | None = None

    @property
    def num_dropped(self) -> int:
        """None: denoisers read all positions."""
        return 0

    def length(self, tokenizer: Any) -> int:  # noqa: ANN401
        """Return ``max_length``, or the tokenizer's."""
        return tokenizer.model_max_length if self.max_length is None else self.max_length

    def num_marks(self, tokenizer: Any) -> int:  # noqa: ANN401
        """Return ``marks``."""
        return self.marks

    def num_words(self, tokenizer: Any, text: str) -> int:  # noqa: ANN401
        """Return the tokens of a text without marks."""
        return len(tokenizer(text, truncation=False, verbose=False).input_ids) - self.marks

    def ids(self, tokenizer: Any, texts: Sequence[str]) -> Tensor:  # noqa: ANN401
        """Return token ids filled up and cut off."""
        length = self.length(tokenizer)
        return tokenizer(
            list(texts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        ).input_ids

    def filling(self, tokenizer: Any, ids: Tensor) -> Tensor:  # noqa: ANN401
        """Return the beginning, the end, and all behind the end."""
        filling = (ids == tokenizer.eos_token_id).cumsum(1) > 0
        return filling if tokenizer.bos_token_id is None else filling | (ids == tokenizer.bos_token_id)


@final
@dataclass(frozen=True)
class Bare(PromptForm):
    """The words alone; filling behind them.

    Attributes:
        max_length: The positions of every prompt.
    """

    max_length: int

    @property
    def num_dropped(self) -> int:
        """None: denoisers read all positions."""
        return 0

    def length(self, tokenizer: Any) -> int:  # noqa: ANN401
        """Return ``max_length``."""
        return self.max_length

    def num_marks(self, tokenizer: Any) -> int:  # noqa: ANN401
        """Return 0."""
        return 0

    def num_words(self, tokenizer: Any, text: str) -> int:  # noqa: ANN401
        """Return the tokens of a text."""
        return len(tokenizer(text, truncation=False, verbose=False).input_ids)

    def ids(self, tokenizer: Any, texts: Sequence[str]) -> Tensor:  # noqa: ANN401
        """Return token ids filled up and cut off."""
        return tokenizer(
            list(texts),
            padding="max_length",
            padding_side="right",
            max_length=self.max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids.long()  # those of the empty text alone would be real numbers

    def filling(self, tokenizer: Any, ids: Tensor) -> Tensor:  # noqa: ANN401
        """Return what fills up."""
        return ~text_mask(tokenizer, ids)


@final
@dataclass(frozen=True)
class Templated(PromptForm):
    """A prompt within a chat, filled up with the tokenizer's filling, which no text holds. Language models.

    Attributes:
        before: The text in front of every prompt.
        behind: The text behind it.
        max_length: The positions of every prompt, the template's included.
        dropped: The number of first positions whose states no denoiser reads.
        filled_within: True if the text behind is last, and all that fills up stands in front of it.
    """

    before: str
    behind: str
    max_length: int
    dropped: int = 0
    filled_within: bool = False

    @property
    def num_dropped(self) -> int:
        """Return ``dropped``."""
        return self.dropped

    @staticmethod
    def of_chat(tokenizer: Any, max_length: int, *, enable_thinking: bool) -> Templated:  # noqa: ANN401
        """Return the form of a user's turn by the tokenizer's own chat template.

        Raises:
            BaseModelError: If the template leaves the prompt out.
            Exception: Whatever a template, or none, makes the tokenizer raise.
        """
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": _CONTENT}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=enable_thinking,
        )
        before, prompt, behind = text.partition(_CONTENT)
        if not prompt:
            raise BaseModelError(f"its chat template makes {text!r} of any prompt; allowed is a text that holds it")
        return Templated(before, behind, max_length)

    def length(self, tokenizer: Any) -> int:  # noqa: ANN401
        """Return ``max_length``."""
        return self.max_length

    def num_marks(self, tokenizer: Any) -> int:  # noqa: ANN401
        """Return the tokens of the template."""
        return sum(self._template(tokenizer))

    def num_words(self, tokenizer: Any, text: str) -> int:  # noqa: ANN401
        """Return the tokens of a text in its template without those of the template."""
        ids = tokenizer(f"{self.before}{text}{self.behind}", truncation=False, verbose=False).input_ids
        return len(ids) - self.num_marks(tokenizer)

    def ids(self, tokenizer: Any, texts: Sequence[str]) -> Tensor:  # noqa: ANN401
        """Return token ids filled up and cut off; a template behind what fills up stays whole."""
        behind = [self.behind] * len(texts)
        last = tokenizer(behind, return_tensors="pt").input_ids if self.filled_within else torch.empty(len(texts), 0)
        whole = [f"{self.before}{text}{'' if self.filled_within else self.behind}" for text in texts]
        first = tokenizer(
            whole,
            padding="max_length",
            padding_side="right",
            max_length=self.max_length - last.shape[1],
            truncation=True,
            return_tensors="pt",
        ).input_ids
        return torch.cat([first, last.to(first)], dim=1)

    def filling(self, tokenizer: Any, ids: Tensor) -> Tensor:  # noqa: ANN401
        """Return the template and what fills up."""
        text = text_mask(tokenizer, ids)
        place, before_and_behind = text.cumsum(1), self._template(tokenizer)
        behind = text.sum(1, keepdim=True) - before_and_behind[1]
        return ~text | (place <= before_and_behind[0]) | (place > behind)

    def _template(self, tokenizer: Any) -> tuple[int, int]:  # noqa: ANN401
        """The numbers of tokens in front of a prompt and behind it."""
        before = tokenizer(self.before, add_special_tokens=False, verbose=False).input_ids
        behind = tokenizer(self.behind, add_special_tokens=False, verbose=False).input_ids
        return len(before), len(behind)


_CONTENT = "CONTENT"
"""Stands for the prompt while its template is asked for."""


def text_mask(tokenizer: Any, ids: Tensor) -> Tensor:  # noqa: ANN401  (a tokenizer of transformers)
    """Return the positions of token ids that do not fill up, ``(n, length)`` bool: their attention mask."""
    return torch.ne(ids, tokenizer.pad_token_id)
