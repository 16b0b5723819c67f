"""The manifest as JSON in the header of a concept file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, get_type_hints

from orthoplex.concepts.base_identity import BaseIdentity
from orthoplex.concepts.foreign_files import description
from orthoplex.concepts.manifest import Manifest, StoredTokens
from orthoplex.concepts.tokens import TOKENS
from orthoplex.errors import ConceptFileError, ConfigurationError, FileFormatError
from orthoplex.files import FLOAT_NAMES, Header, parse_json, read_header, recognised
from orthoplex.options.json_types import misfit, wrong_keys

MANIFEST_KEY = "orthoplex"
"""Of the header's text pair that holds the manifest."""
_WITH_INPUTS = 4
"""The version whose files keep ``inputs``; beside them stand ``keys_values``, which may be empty there."""
_FIELDS_OF_VERSION: Mapping[int, Mapping[str, Any]] = {
    row.format_version: {**row.fields, **({"inputs": str} if row.format_version > _WITH_INPUTS else {})}
    for row in TOKENS.values()
} | {_WITH_INPUTS: {**TOKENS["keys-values"].fields, "inputs": str}}
"""Version to its fields beyond those of version 1, with their JSON types; the lowest that holds all is written.

Versions above ``_WITH_INPUTS`` are of one kind of token each, and have ``inputs``, which may be empty there.
"""
FORMAT_VERSIONS = tuple(sorted(_FIELDS_OF_VERSION))


def format_version(manifest: Manifest) -> int:
    """Return the lowest version of the file's layout that holds a manifest."""
    own = TOKENS[manifest.tokens.kind].format_version
    return max(own, _WITH_INPUTS) if manifest.inputs else own


def read_manifest(path: str | Path) -> Manifest:
    """Read the manifest of a concept from the header alone; no tensor is touched.

    Raises:
        ConceptFileError: If the file is missing, a pickle, not a concept file, or of an unknown format version.
    """
    return manifest_of(concept_header(Path(path)), Path(path))


def concept_header(path: Path) -> Header:
    """Read the header of a concept file and nothing else.

    Raises:
        ConceptFileError: See ``read_header``; or if a tensor is not float16, bfloat16 or float32, or there is no
            manifest; names what the file is instead.
    """
    try:
        header = read_header(path)
    except FileFormatError as error:
        raise ConceptFileError(f"{error}{_advice(path)}") from error
    if MANIFEST_KEY not in header.metadata:
        what = description(header) or (
            f"is not a concept file: header key '{MANIFEST_KEY}' is missing, "
            f"found {', '.join(sorted(header.metadata)) or 'none'}"
        )
        raise ConceptFileError(f"{path}: {what}")
    for name, entry in header.entries.items():
        if entry.dtype not in FLOAT_NAMES:
            raise ConceptFileError(
                f"{path}: tensor '{name}' has data type '{entry.dtype}', allowed are {', '.join(FLOAT_NAMES)}"
            )
    return header


def _advice(path: Path) -> str:
    """Say the use of what stands in the place of a concept file; empty where there is none."""
    try:
        if path.is_dir():
            return "; it holds a pipeline, which is a base (--base)" if (path / "model_index.json").is_file() else ""
        kind = recognised(path)
    except OSError:
        return ""
    is_picture = kind is not None and kind.sort == "picture"
    return "; orthoplex train makes a concept of a folder of pictures" if is_picture else ""


def manifest_of(header: Header, path: Path) -> Manifest:
    """Return the manifest in a header that ``concept_header`` read.

    Raises:
        ConceptFileError: If it is none that this version reads; names the file.
    """
    return manifest_from_json(header.metadata[MANIFEST_KEY], source=str(path))


def manifest_to_json(manifest: Manifest) -> str:
    """Write a manifest as JSON with sorted keys; fields that its version does not have are left out."""
    version = format_version(manifest)
    values = {item.name: getattr(manifest, item.name) for item in fields(manifest)}
    values["base"] = asdict(manifest.base)
    values["layers"] = {name: list(shape) for name, shape in manifest.layers.items()}
    empty = {key: {} for key in _FIELDS_OF_VERSION[version]}
    values = {**empty, **values, **manifest.tokens.fields, "format_version": version}
    if version < _WITH_INPUTS:
        del values["inputs"]
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def manifest_from_json(text: str, *, source: str) -> Manifest:
    """Read a manifest back, refusing everything that no version writes.

    Args:
        text: The JSON.
        source: Where it came from, for the error messages.

    Raises:
        ConceptFileError: For an unknown format version, or a missing, unknown or malformed field; names file and field.
    """
    try:
        values = parse_json(text)
    except ValueError as error:
        raise ConceptFileError(f"{source}: manifest is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ConceptFileError(f"{source}: manifest is a JSON {type(values).__name__}, allowed is an object")
    version = values.pop("format_version", None)
    if type(version) is not int or version not in FORMAT_VERSIONS:
        raise ConceptFileError(
            f"{source}: format_version {version!r} is unknown, this version of orthoplex reads "
            f"{', '.join(map(str, FORMAT_VERSIONS))}"
        )
    _check(values, version, source)
    kind = next(name for name, row in TOKENS.items() if _is_kind(row.fields, values, version))
    of_tokens = {"tokens", *TOKENS[kind].fields, *_FIELDS_OF_VERSION[version]} - {"inputs"}
    stored = {key: values.pop(key) for key in of_tokens}
    values["tokens"] = StoredTokens(kind, {key: stored[key] for key in ("tokens", *TOKENS[kind].fields)})
    values["layers"] = {name: tuple(shape) for name, shape in values["layers"].items()}
    values["base"] = BaseIdentity(**values["base"])
    try:
        return Manifest(**values)
    except ConfigurationError as error:
        raise ConceptFileError(f"{source}: {error}") from error


def _check(values: Mapping[str, Any], version: int, source: str) -> None:
    """Refuse a missing, unknown or malformed field of a version."""
    hints = get_type_hints(Manifest) | {"tokens": dict[str, str]}
    del hints["inputs"]
    types = hints | dict(_FIELDS_OF_VERSION[version])
    wrong = wrong_keys(values, list(types))
    for key, value in values.items():
        wrong = wrong or misfit(value, types[key], key)
    if wrong is not None:
        raise ConceptFileError(f"{source}: manifest field '{wrong.path}' {wrong.problem}")
    for key in _FIELDS_OF_VERSION[version]:
        may_be_empty = key != "inputs" if version == _WITH_INPUTS else key == "inputs"
        if not values[key] and not may_be_empty:
            allowed = "base64 of at least one row" if key == "inputs" else "at least one token"
            raise ConceptFileError(f"{source}: manifest field '{key}' is {values[key]!r}, allowed is {allowed}")


def _is_kind(own: Mapping[str, Any], values: Mapping[str, Any], version: int) -> bool:
    """True if the fields of a kind are those of a version that hold something."""
    filled = {key for key in _FIELDS_OF_VERSION[version] if key != "inputs" and values[key]}
    return own.keys() == filled
