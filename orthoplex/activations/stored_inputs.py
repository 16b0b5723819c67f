"""Gram matrices that concept files and bases store, so that merges need no model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from orthoplex.activations.general_prompts import default_foreign_prompts
from orthoplex.activations.grams import gather_grams
from orthoplex.activations.own_prompts import own_prompts
from orthoplex.concepts import TOKENS, Concept
from orthoplex.errors import BaseModelError
from orthoplex.files import cache_folder
from orthoplex.merging import ForeignGram, prompts_key, store_foreign_gram, stored_foreign_gram
from orthoplex.models import Base

NUM_FOREIGN = 64
"""Foreign prompts that are pictured for algorithms that ask for them."""
_LEAST = 1e-3
"""Directions in which inputs are less than this share of the mean over all are not stored.

In a merge of fifteen trained concepts by least squares that changes 4e-4 of what the merge adds under their prompts."""


@torch.no_grad()
def foreign_gram(base: Base) -> ForeignGram:
    """Return the Gram matrix of text features under foreign prompts; computed once a base, then stored.

    While the base has the same words, it is not looked for again: reading 64 prompts takes as long as a merge.

    Only a base in float32 stores it. A coarser base computes its own where its embeddings differ.

    Args:
        base: The base, with nothing folded in.

    Raises:
        BaseModelError: When it has to be computed, and something is folded in.
    """
    prompts = tuple(dict.fromkeys(default_foreign_prompts(base)))[:NUM_FOREIGN]
    with base.locked():
        before = _ASKED.get(base)
        if before is not None and before.holds(base, prompts):
            return before.made
        made = _sought(base, prompts)
        _ASKED[base] = _Asked.of(base, prompts, made)
        return made


def has_foreign_gram(base: Base) -> bool:
    """Return True if ``foreign_gram`` would not have to ask the base: it was asked before, or the matrix is stored."""
    prompts = tuple(dict.fromkeys(default_foreign_prompts(base)))[:NUM_FOREIGN]
    with base.locked():
        before = _ASKED.get(base)
        if before is not None and before.holds(base, prompts):
            return True
        words = base.family.words
        ids = words.ids(prompts)
        return stored_foreign_gram(base.identity.hash, prompts_key(prompts, ids, words.embeddings(ids))) is not None


@final
@dataclass(frozen=True, eq=False)
class _Asked:
    """What a base was asked for last, and all that decides the answer.

    Attributes:
        prompts: The prompts.
        folder: Where the matrix is stored.
        tokenizers: Which tokenizer every text encoder has, and how many tokens it knows.
        ids: The tokens of the prompts, each once, by text encoder.
        embeddings: Their embeddings, a copy, by text encoder.
        made: The answer.
    """

    prompts: tuple[str, ...]
    folder: Path
    tokenizers: tuple[tuple[int, int], ...]
    ids: tuple[Tensor, ...]
    embeddings: tuple[Tensor, ...]
    made: ForeignGram

    @staticmethod
    def of(base: Base, prompts: tuple[str, ...], made: ForeignGram) -> _Asked:
        readers = base.family.readers
        ids = tuple(reader.ids(prompts).unique() for reader in readers)
        embeddings = tuple(reader.rows(numbers).clone() for reader, numbers in zip(readers, ids, strict=True))
        return _Asked(prompts, cache_folder(), _tokenizers(base), ids, embeddings, made)

    def holds(self, base: Base, prompts: tuple[str, ...]) -> bool:
        """True if the base would give the same answer, and store it in the same folder."""
        if (self.prompts, self.folder, self.tokenizers) != (prompts, cache_folder(), _tokenizers(base)):
            return False
        now = (reader.rows(ids) for reader, ids in zip(base.family.readers, self.ids, strict=True))
        return all(torch.equal(rows, before) for rows, before in zip(now, self.embeddings, strict=True))


_ASKED: WeakKeyDictionary[Base, _Asked] = WeakKeyDictionary()


def _tokenizers(base: Base) -> tuple[tuple[int, int], ...]:
    return tuple((id(reader.tokenizer), len(reader.tokenizer)) for reader in base.family.readers)


def _sought(base: Base, prompts: tuple[str, ...]) -> ForeignGram:
    """The matrix that is stored, or is made and stored now."""
    with base.locked():
        words = base.family.words
        ids = words.ids(prompts)
        key = prompts_key(prompts, ids, words.embeddings(ids))
        stored = stored_foreign_gram(base.identity.hash, key)
        if stored is not None:
            return stored
        if base.recipe is not None:
            raise BaseModelError(
                f"base '{base.identity.name}' has concepts folded in; allowed is asking the base alone, after "
                "restore(), what it answers for foreign prompts"
            )
        layer = next(iter(base.family.layers("cross-attention-kv")))
        gathered = ForeignGram(gather_grams(base, [layer], prompts)[layer], key)
    if words.dtype == torch.float32:
        store_foreign_gram(base.identity.hash, gathered)
    return gathered


@torch.no_grad()
def with_inputs(base: Base, concept: Concept, *, own: Mapping[str, Tensor] | None = None) -> Concept:
    """Return a concept that stores its layers' inputs under its own prompts, if all layers have the same inputs.

    All layers have the same inputs if the concept changes keys and values of cross-attention alone, and has no token
    vectors of single layers. Any other concept stores nothing.

    Args:
        base: The base, with nothing folded in.
        concept: The concept.
        own: Layer to its Gram matrix under the concept's own prompts, if it was gathered before; None gathers it.

    Raises:
        BaseModelError: When the concept does not fit the base.
    """
    alike = all(TOKENS[item.kind].has_common_inputs for item in concept.tokens.values())
    if not alike or not concept.changes_keys_values_alone:
        return concept if concept.inputs is None else replace(concept, inputs=None)
    layer, manifest = next(iter(concept.layers)), concept.manifest
    if own is None:
        tokens = replace(concept, layers={})  # no key or value changes what these layers see
        own = gather_grams(base, [layer], own_prompts(base, manifest), change=tokens)
    return replace(concept, inputs=_rows(own[layer]))


def _rows(gram: Tensor) -> Tensor:
    """Float16 ``(k, in)`` whose Gram matrix is the given one, but for directions in which next to nothing is seen."""
    values, vectors = torch.linalg.eigh(gram.double())
    chosen = values > _LEAST * float(gram.diagonal().double().mean())
    rows = (vectors[:, chosen] * values[chosen].sqrt()).T.flip(0)
    signs = rows.gather(1, rows.abs().argmax(1, keepdim=True)).sign()  # else either sign would do
    return (rows * signs).half().contiguous()
