"""A named set of adapters and tokens, and its file.

A manifest is read without torch: every name that needs more is imported when it is first asked for.
"""

from typing import TYPE_CHECKING

from orthoplex.concepts.base_identity import BaseIdentity
from orthoplex.concepts.blocks import StoredTokens
from orthoplex.concepts.kinds import KINDS, Kind, kind_of
from orthoplex.concepts.manifest import FORMAT_VERSION, Manifest, check_name, token_names
from orthoplex.concepts.manifest_json import FORMAT_VERSIONS, manifest_to_json, read_manifest
from orthoplex.concepts.recipe import Ingredient, Recipe
from orthoplex.concepts.tokens import TOKENS
from orthoplex.exports import exports

if TYPE_CHECKING:
    from orthoplex.concepts.any_file import read_concept
    from orthoplex.concepts.concept import Concept
    from orthoplex.concepts.convert import convert_concept
    from orthoplex.concepts.embedding import concept_embedding
    from orthoplex.concepts.file import load_concept, save_concept
    from orthoplex.concepts.lora_concept import foreign_concept, trigger_advice
    from orthoplex.concepts.rename import renamed
    from orthoplex.concepts.stack import Run, Stack
    from orthoplex.concepts.thumbnail import decode_thumbnail, encode_thumbnail
    from orthoplex.concepts.tokens.token import Token

__getattr__ = exports(
    __name__,
    {
        "Concept": "concept",
        "Run": "stack",
        "Stack": "stack",
        "Token": "tokens.token",
        "concept_embedding": "embedding",
        "convert_concept": "convert",
        "decode_thumbnail": "thumbnail",
        "encode_thumbnail": "thumbnail",
        "foreign_concept": "lora_concept",
        "load_concept": "file",
        "read_concept": "any_file",
        "renamed": "rename",
        "save_concept": "file",
        "trigger_advice": "lora_concept",
    },
)

__all__ = [
    "FORMAT_VERSION",
    "FORMAT_VERSIONS",
    "KINDS",
    "BaseIdentity",
    "Concept",
    "Ingredient",
    "Kind",
    "Manifest",
    "Recipe",
    "Run",
    "Stack",
    "StoredTokens",
    "TOKENS",
    "Token",
    "check_name",
    "concept_embedding",
    "convert_concept",
    "decode_thumbnail",
    "encode_thumbnail",
    "foreign_concept",
    "kind_of",
    "load_concept",
    "manifest_to_json",
    "read_concept",
    "read_manifest",
    "renamed",
    "save_concept",
    "token_names",
    "trigger_advice",
]
