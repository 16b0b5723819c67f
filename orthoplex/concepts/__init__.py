"""A named set of adapters and tokens, and its file."""

from orthoplex.concepts.concept import Concept
from orthoplex.concepts.manifest import (
    FORMAT_VERSION,
    KINDS,
    BaseIdentity,
    Manifest,
    check_name,
    token_names,
)

__all__ = [
    "FORMAT_VERSION",
    "KINDS",
    "BaseIdentity",
    "Concept",
    "Manifest",
    "check_name",
    "token_names",
]
