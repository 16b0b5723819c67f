"""The words of a training: captions that are long enough, and the vectors that tokens start from."""

import logging
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from orthoplex.activations.random_concepts import word_spread
from orthoplex.errors import DatasetError
from orthoplex.models import Base
from orthoplex.training.config import TokenStart
from orthoplex.training.dataset import ConceptDataset

_LOG = logging.getLogger(__name__)


def check_captions(base: Base, dataset: ConceptDataset, tokens: Sequence[str]) -> None:
    """Refuse captions that are cut off before the concept's tokens; log how many are cut off behind them.

    Args:
        base: The base, whose tokenizer knows the tokens.
        dataset: The captions.
        tokens: The names of the concept's tokens.

    Raises:
        DatasetError: Names the file, the length and the limit.
    """
    words, cut, limit = base.family.words, [], 0
    for picture in dataset.pictures:
        reached = words.places(words.ids(picture.captions), tokens).any(2).all(1)
        for caption, is_reached in zip(picture.captions, reached.tolist(), strict=True):
            room = words.room(caption)
            limit = room.limit
            if not is_reached:
                raise DatasetError(
                    f"caption of {picture.file_name} has {room.length} tokens, and {dataset.token} stands behind the "
                    f"{room.limit} that the base reads; allowed are captions that name it before"
                )
            if room.length > room.limit:
                cut.append(picture.file_name)
    if cut:
        _LOG.warning(
            "captions of %s, %d in all, are longer than the %d tokens that the base reads; their ends are not seen",
            cut[0],
            len(cut),
            limit,
        )


def cut_captions(base: Base, captions: Mapping[str, Sequence[str]], token: str) -> tuple[str, ...]:
    """Say which captions a training on a base would refuse or cut off, and how long they are; the base knows no token.

    Args:
        base: The base.
        captions: File name to captions with the trigger in them.
        token: The concept's token, counted as one; further vectors make a caption longer.
    """
    words, texts = base.family.words, []
    for name, several in captions.items():
        for caption in several:
            room = words.room(caption.replace(token, words.stand_in(1)))
            before, mention, _ = caption.partition(token)
            end = words.room(before + words.stand_in(1)).length if mention else 0
            if end > room.limit:
                texts.append(
                    f"caption of {name} has {room.length} tokens, and {token} stands behind the {room.limit} that the "
                    "base reads; a training refuses it"
                )
            elif room.length > room.limit:
                texts.append(
                    f"caption of {name} has {room.length} tokens, and the base reads {room.limit}; its end is not seen"
                )
    return tuple(texts)


def initial_vectors(
    base: Base, class_word: str, num_vectors: int, generator: torch.Generator, *, start: TokenStart = "class word"
) -> Tensor:
    """Return the starting token vectors, ``(num_vectors, dim)``.

    Each is the class word's embedding; those after the first add noise a tenth as large as the spread of the base's
    words, so that they can grow apart. Or, as rare words, each is drawn from that spread, or all but the last, which
    then is the class word's embedding.
    """
    spread = word_spread(base)
    vectors = base.family.words.class_vector(class_word).cpu().repeat(num_vectors, 1)
    noise = spread.deviation * torch.randn(vectors.shape, generator=generator)
    if start != "class word":
        rare = spread.mean + noise
        return rare if start == "rare word" else torch.cat([rare[:-1], vectors[-1:]])
    noise[0] = 0.0
    return vectors + 0.1 * noise
