"""Loaded concepts of a bank, the least recently used of which go when memory is short."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import final

from orthoplex.concepts.bank.bank import Bank
from orthoplex.concepts.bank.entry import BankEntry
from orthoplex.concepts.concept import Concept
from orthoplex.concepts.file import load_concept
from orthoplex.concepts.tokens.token import named_tensors
from orthoplex.errors import ConceptFileError
from orthoplex.options import Limits, checked


@final
@dataclass(frozen=True)
class CacheStats:
    """What a cache did.

    Attributes:
        hits: Calls that found a concept in memory.
        misses: Calls that read a file.
        num_bytes: The bytes of all tensors in memory now.
    """

    hits: int
    misses: int
    num_bytes: int


@final
class BankCache:
    """Concepts of a bank in memory, up to a number of bytes; threads may share it."""

    def __init__(self, bank: Bank, budget_bytes: int = 2**30) -> None:
        """Begin with nothing in memory.

        Args:
            bank: The bank.
            budget_bytes: Of all tensors together; a concept that is larger alone is read again each time.

        Raises:
            ConfigurationError: If the budget is below 0.
        """
        self._bank = bank
        self._budget = checked("budget_bytes", budget_bytes, int, Limits(lowest=0))
        self._loaded: OrderedDict[tuple[str, str], tuple[Concept, int]] = OrderedDict()
        self._hits = self._misses = self._num_bytes = 0
        self._lock, self._reading = threading.Lock(), dict[str, threading.Lock]()

    @property
    def stats(self) -> CacheStats:
        """What the cache did so far."""
        with self._lock:
            return CacheStats(self._hits, self._misses, self._num_bytes)

    def load(self, name: str) -> Concept:
        """Return a concept; the same object while it is in memory and the bank has the same content.

        Raises:
            ConfigurationError: If the bank has no such concept.
            ConceptFileError: If its file is damaged, or holds other content than the ledger says.
        """
        _ = self._bank[name]
        with self._lock:
            reading = self._reading.setdefault(name, threading.Lock())
        with reading:  # others that ask for the same wait, and those who ask for others do not
            while True:
                entry = self._bank[name]
                try:
                    return self._loaded_or_read(entry)
                except ConceptFileError:
                    if self._bank[name] == entry:
                        raise  # else another process replaced the concept, and its file, meanwhile

    def _loaded_or_read(self, entry: BankEntry) -> Concept:
        key = (entry.name, entry.files[0].sha256)
        with self._lock:
            if key in self._loaded:
                self._hits += 1
                self._loaded.move_to_end(key)
                return self._loaded[key][0]
            self._misses += 1
        path = self._bank.concepts_folder / entry.files[0].name
        concept = load_concept(path)
        if concept.content_hash != entry.content_hash:
            raise ConceptFileError(
                f"{path} holds content {concept.content_hash[:12]}, the bank's ledger says {entry.content_hash[:12]}; "
                "orthoplex bank verify looks at all files"
            )
        with self._lock:
            self._store(key, concept)
        return concept

    def clear(self) -> None:
        """Let all concepts go."""
        with self._lock:
            self._loaded.clear()
            self._num_bytes = 0

    def _store(self, key: tuple[str, str], concept: Concept) -> None:
        size = _num_bytes(concept)
        if size > self._budget:
            return
        self._loaded[key] = (concept, size)
        self._num_bytes += size
        while self._num_bytes > self._budget:
            _, (_, gone) = self._loaded.popitem(last=False)
            self._num_bytes -= gone


def _num_bytes(concept: Concept) -> int:
    """The bytes of a concept's tensors."""
    tensors = [*concept.tensors().values(), *([] if concept.inputs is None else [concept.inputs])]
    tensors += [tensor for _, tensor in named_tensors(concept.tokens)]
    return sum(tensor.nbytes for tensor in tensors)
