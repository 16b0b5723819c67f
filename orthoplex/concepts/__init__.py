"""A named set of adapters and tokens, and its file.

A manifest is read without torch: every name that needs more is imported when it is first asked for.
"""

from typing import TYPE_CHECKING

from orthoplex.concepts.base_identity import BaseIdentity
from orthoplex.concepts.kinds import KINDS, Kind, kind_of
from orthoplex.concepts.manifest import Manifest, StoredTokens, check_name, token_names
from orthoplex.concepts.manifest_json import FORMAT_VERSIONS, format_version, manifest_to_json, read_manifest
from orthoplex.concepts.recipe import Ingredient, Recipe
from orthoplex.concepts.tokens import TOKENS
from orthoplex.exports import exports

if TYPE_CHECKING:
    from orthoplex.concepts.atomic import check_writable, write_text, written_atomically
    from orthoplex.concepts.cache import cache_folder
    from orthoplex.concepts.concept import Concept
    from orthoplex.concepts.file import load_concept, save_concept
    from orthoplex.concepts.picture import PICTURE_SUFFIXES, picture_files, read_picture
    from orthoplex.concepts.thumbnail import decode_thumbnail, encode_thumbnail
    from orthoplex.concepts.tokens.token import Token

__getattr__ = exports(
    __name__,
    {
        "Concept": "concept",
        "Token": "tokens.token",
        "PICTURE_SUFFIXES": "picture",
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
    "Ingredient",
    "Kind",
    "Manifest",
    "Recipe",
    "StoredTokens",
    "TOKENS",
    "Token",
    "cache_folder",
    "check_name",
    "check_writable",
    "decode_thumbnail",
    "encode_thumbnail",
    "format_version",
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
