"""Prompts to text features, with learned vectors in the place of the concept's tokens."""

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from orthoplex.errors import ConfigurationError, DatasetError
from orthoplex.models import Base
from orthoplex.training.config import TokenStart
from orthoplex.training.dataset import ConceptDataset
from orthoplex.training.prompts import default_foreign_prompts

_LOG = logging.getLogger(__name__)


def encode_ids(base: Base, prompts: Sequence[str]) -> Tensor:
    """Return the token ids of prompts, ``(n, length)`` int64, exactly as the pipeline itself would make them."""
    pipeline = base.pipeline
    converted = [pipeline.maybe_convert_prompt(prompt, pipeline.tokenizer) for prompt in prompts]
    return pipeline.tokenizer(
        converted,
        padding="max_length",
        max_length=pipeline.tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids


def check_captions(base: Base, dataset: ConceptDataset, token_ids: Sequence[int]) -> None:
    """Refuse captions that are cut off before the concept's tokens; log how many are cut off behind them.

    Args:
        base: The base, whose tokenizer knows the tokens.
        dataset: The captions.
        token_ids: The ids of the concept's tokens.

    Raises:
        DatasetError: Names the file, the length and the limit.
    """
    pipeline = base.pipeline
    limit = pipeline.tokenizer.model_max_length
    cut: list[str] = []
    for picture in dataset.pictures:
        for caption, seen in zip(picture.captions, encode_ids(base, picture.captions).tolist(), strict=True):
            spelled_out = pipeline.maybe_convert_prompt(caption, pipeline.tokenizer)
            length = len(pipeline.tokenizer(spelled_out, verbose=False).input_ids)
            if not set(token_ids) <= set(seen):
                raise DatasetError(
                    f"caption of {picture.file_name} has {length - 2} tokens, and {dataset.token} stands behind the "
                    f"{limit - 2} that the base reads; allowed are captions that name it before"
                )
            if length > limit:
                cut.append(picture.file_name)
    if cut:
        _LOG.warning(
            "captions of %s, %d in all, are longer than the %d tokens that the base reads; their ends are not seen",
            cut[0],
            len(cut),
            limit - 2,
        )


def text_features(base: Base, ids: Tensor) -> Tensor:
    """Return the text encoder's features of token ids, ``(n, length, dim)``.

    While there are layer-wise vectors, those of the L cross-attention layers lie side by side, ``(n, length, L·dim)``.
    """
    text_encoder = base.pipeline.text_encoder
    return text_encoder(ids.to(text_encoder.device))[0]


def class_vector(base: Base, class_word: str) -> Tensor:
    """Return the mean of the class word's token embeddings, ``(dim,)`` float32.

    Raises:
        ConfigurationError: When the tokenizer finds no token in the word.
    """
    ids = base.pipeline.tokenizer(class_word, add_special_tokens=False).input_ids
    if not ids:
        raise ConfigurationError(f"class word {class_word!r} has no tokens; allowed is a word such as 'person'")
    table = base.pipeline.text_encoder.get_input_embeddings().weight
    return table[torch.tensor(ids, device=table.device)].detach().float().mean(0)


@dataclass(frozen=True, eq=False)
class WordSpread:
    """Where the embeddings of a base's words lie: their mean and standard deviation, ``(dim,)`` each."""

    mean: Tensor
    deviation: Tensor


def word_spread(base: Base) -> WordSpread:
    """Measure the embeddings of the words of the base's own prompts.

    Rows of words that no training has seen stay as small as they began, so the whole table would tell too little.
    """
    prompts = list(default_foreign_prompts(base))
    ids = base.pipeline.tokenizer(prompts, add_special_tokens=False, verbose=False).input_ids
    table = base.pipeline.text_encoder.get_input_embeddings().weight.detach().float().cpu()
    rows = table[sorted({number for row in ids for number in row})]
    return WordSpread(rows.mean(0), rows.std(0))


def initial_vectors(
    base: Base, class_word: str, num_vectors: int, generator: torch.Generator, *, start: TokenStart = "class word"
) -> Tensor:
    """Return the starting token vectors, ``(num_vectors, dim)``.

    Each is the class word's embedding; those after the first add noise a tenth as large as the spread of the base's
    words, so that they can grow apart. Or, as rare words, each is drawn from that spread, or all but the last, which
    then is the class word's embedding.
    """
    spread = word_spread(base)
    vectors = class_vector(base, class_word).cpu().repeat(num_vectors, 1)
    noise = spread.deviation * torch.randn(vectors.shape, generator=generator)
    if start != "class word":
        rare = spread.mean + noise
        return rare if start == "rare word" else torch.cat([rare[:-1], vectors[-1:]])
    noise[0] = 0.0
    return vectors + 0.1 * noise


def replaced_vectors(base: Base, token_ids: Sequence[int], vectors: Tensor) -> AbstractContextManager[None]:
    """Within it, the text encoder sees ``vectors`` for ``token_ids``; gradients flow into them, not the table.

    Args:
        base: The base, whose tokenizer knows the tokens.
        token_ids: The k ids.
        vectors: ``(k, dim)``, ``(n, k, dim)`` for other vectors in every prompt of a batch of n, or, for other vectors
            in every one of L cross-attention layers, ``(n or 1, k, L, dim)``.
    """
    each = vectors.unsqueeze(0) if vectors.ndim == 2 else vectors
    return base.replaced_vectors(token_ids, each.unsqueeze(2) if each.ndim == 3 else each)
