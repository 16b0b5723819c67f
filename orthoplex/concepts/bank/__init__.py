"""Banks: folders of concepts of one base that share slots, safe under several writers."""

from typing import TYPE_CHECKING

from orthoplex.concepts.bank.bank import Bank, Partition, Problem
from orthoplex.concepts.bank.entry import BankEntry, Reservation, StoredFile
from orthoplex.exports import exports

if TYPE_CHECKING:
    from orthoplex.concepts.bank.adding import add_concept, add_file
    from orthoplex.concepts.bank.bank_cache import BankCache, CacheStats

__getattr__ = exports(
    __name__,
    {
        "BankCache": "bank_cache",
        "CacheStats": "bank_cache",
        "add_concept": "adding",
        "add_file": "adding",
    },
)

__all__ = [
    "Bank",
    "BankCache",
    "BankEntry",
    "CacheStats",
    "Partition",
    "Problem",
    "Reservation",
    "StoredFile",
    "add_concept",
    "add_file",
]
