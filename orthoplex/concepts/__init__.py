"""A named set of adapters and tokens, and its file.

A manifest is read without torch: every name that needs more is imported when it is first asked for.
"""

from typing import TYPE_CHECKING

from orthoplex.concepts.manifest import (
    FORMAT_VERSIONS,
    KINDS,
    BaseIdentity,
    Manifest,
    check_name,
    kind_of,
    manifest_to_json,
    read_manifest,
    token_names,
)
from orthoplex.exports import exports

if TYPE_CHECKING:
    from orthoplex.concepts.concept import Concept
    from orthoplex.concepts.file import load_concept, save_concept
    from orthoplex.concepts.thumbnail import decode_thumbnail, encode_thumbnail

__getattr__ = exports(
    __name__,
    {
        "Concept": "concept",
        "decode_thumbnail": "thumbnail",
        "encode_thumbnail": "thumbnail",
        "load_concept": "file",
        "save_concept": "file",
    },
)

__all__ = [
    "FORMAT_VERSIONS",
    "KINDS",
    "BaseIdentity",
    "Concept",
    "Manifest",
    "check_name",
    "decode_thumbnail",
    "encode_thumbnail",
    "kind_of",
    "load_concept",
    "manifest_to_json",
    "read_manifest",
    "save_concept",
    "token_names",
]
