"""Prompts to text features, with learned vectors in the place of the concept's tokens."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from orthoplex.errors import ConfigurationError, DatasetError
from orthoplex.models import Base
from orthoplex.training.dataset import ConceptDataset

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
    """Return the text encoder's features of token ids, ``(n, length, dim)``."""
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


def initial_vectors(base: Base, class_word: str, num_vectors: int, generator: torch.Generator) -> Tensor:
    """Return the starting token vectors, ``(num_vectors, dim)``.

    Each is the class word's embedding; those after the first add noise a tenth as large as the table's spread,
    so that they can grow apart.
    """
    table = base.pipeline.text_encoder.get_input_embeddings().weight.detach().float()
    vectors = class_vector(base, class_word).cpu().repeat(num_vectors, 1)
    noise = torch.randn(vectors.shape, generator=generator)
    noise[0] = 0.0
    return vectors + 0.1 * float(table.std()) * noise


@contextmanager
def replaced_vectors(base: Base, token_ids: Sequence[int], vectors: Tensor) -> Iterator[None]:
    """Within it, the token embedding gives ``vectors`` for ``token_ids``; gradients flow into them, not the table.

    Args:
        base: The base, whose tokenizer knows the tokens.
        token_ids: The k ids.
        vectors: ``(k, dim)``, or ``(n, k, dim)`` for other vectors in every prompt of a batch of n.
    """
    each = vectors if vectors.ndim == 3 else vectors.unsqueeze(0)

    def replace(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
        for position, token_id in enumerate(token_ids):
            mask = (arguments[0] == token_id).unsqueeze(-1)
            output = torch.where(mask, each[:, position].unsqueeze(1).to(output), output)
        return output

    handle = base.pipeline.text_encoder.get_input_embeddings().register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()
