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
    from orthoplex.concepts.atomic import check_writable, write_text, written_atomically
    from orthoplex.concepts.cache import cache_folder
    from orthoplex.concepts.concept import Concept
    from orthoplex.concepts.file import load_concept, save_concept
    from orthoplex.concepts.picture import PICTURE_SUFFIXES, picture_files, read_picture
    from orthoplex.concepts.stack import Stack
    from orthoplex.concepts.thumbnail import decode_thumbnail, encode_thumbnail

__getattr__ = exports(
    __name__,
    {
        "Concept": "concept",
        "PICTURE_SUFFIXES": "picture",
        "Stack": "stack",
        "cache_folder": "cache",
        "check_writable": "atomic",
        "decode_thumbnail": "thumbnail",
        "encode_thumbnail": "thumbnail",
        "load_concept": "file",
        "picture_files": "picture",
        "read_picture": "picture",
        "save_concept": "file",
        "write_text": "atomic",
        "written_atomically": "atomic",
    },
)

__all__ = [
    "FORMAT_VERSIONS",
    "KINDS",
    "PICTURE_SUFFIXES",
    "BaseIdentity",
    "Concept",
    "Manifest",
    "Stack",
    "cache_folder",
    "check_name",
    "check_writable",
    "decode_thumbnail",
    "encode_thumbnail",
    "kind_of",
    "load_concept",
    "manifest_to_json",
    "picture_files",
    "read_manifest",
    "read_picture",
    "save_concept",
    "token_names",
    "write_text",
    "written_atomically",
]
