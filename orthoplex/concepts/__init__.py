"""A named set of adapters and tokens, and its file."""

from orthoplex.concepts.atomic import check_writable, write_text, written_atomically
from orthoplex.concepts.cache import cache_folder
from orthoplex.concepts.concept import Concept
from orthoplex.concepts.file import load_concept, read_manifest, save_concept
from orthoplex.concepts.manifest import (
    FORMAT_VERSIONS,
    KINDS,
    BaseIdentity,
    Manifest,
    check_name,
    manifest_to_json,
    token_names,
)
from orthoplex.concepts.picture import PICTURE_SUFFIXES, picture_files, read_picture
from orthoplex.concepts.thumbnail import decode_thumbnail, encode_thumbnail

__all__ = [
    "FORMAT_VERSIONS",
    "KINDS",
    "PICTURE_SUFFIXES",
    "BaseIdentity",
    "Concept",
    "Manifest",
    "cache_folder",
    "check_name",
    "check_writable",
    "decode_thumbnail",
    "encode_thumbnail",
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
