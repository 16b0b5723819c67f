"""The manifest as JSON in the header of a concept file."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, cast, get_type_hints

from orthoplex import __version__
from orthoplex.concepts.base_identity import BaseIdentity
from orthoplex.concepts.blocks import COMPANION_PATTERN, INPUTS_BLOCK, TOKENS_BLOCK, Block, Companion, StoredTokens
from orthoplex.concepts.exchange.adapter_settings import several_adapters
from orthoplex.concepts.foreign_files import description
from orthoplex.concepts.manifest import FORMAT_VERSION, Manifest
from orthoplex.concepts.old_formats import OLD_VERSIONS, old_manifest
from orthoplex.concepts.tokens import TOKENS
from orthoplex.errors import ConceptFileError, ConfigurationError, FileFormatError
from orthoplex.files import FLOAT_NAMES, Header, parse_json, read_header, recognised
from orthoplex.options.json_types import misfit, wrong_keys

MANIFEST_KEY = "orthoplex"
"""Of the header's text pair that holds the manifest."""
FORMAT_VERSIONS = (*OLD_VERSIONS, FORMAT_VERSION)
"""Layouts of files that are read."""
_COMPANION = "companion"
_SHAPES = "parameter-shapes"
FEATURES = (*(kind for kind in TOKENS if kind != "vector"), _COMPANION, _SHAPES)
"""Names that a manifest may say it needs: without them a reader would take it for something else."""
_LOG = logging.getLogger(__name__)


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
            if any((path / name).is_file() for name in ("model_index.json", "modular_model_index.json")):
                return "; it holds a pipeline, which is a base (--base)"
            adapters = several_adapters(path)
            return f"; it {adapters}" if adapters else ""
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
    """Write a manifest as JSON with sorted keys."""
    values = {item.name: getattr(manifest, item.name) for item in fields(manifest)}
    for key in ("base", "trained_on", "companion"):
        values[key] = None if values[key] is None else asdict(values[key])
    values["numbers"] = {name: asdict(block) for name, block in manifest.numbers.items()}
    tokens = manifest.tokens
    values |= {"tokens": tokens.names, "token_kind": tokens.kind, **tokens.fields}
    values |= {"needs": _needs(manifest), "format_version": FORMAT_VERSION}
    if not manifest.shapes:
        del values["shapes"]
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _needs(manifest: Manifest) -> list[str]:
    """Return the features without which a file is not what it says."""
    needs = [] if manifest.tokens.kind == "vector" else [manifest.tokens.kind]
    beside = manifest.companion
    needs += [] if beside is None or beside.rest else [_COMPANION]
    return [*needs, _SHAPES] if manifest.shapes else needs


def manifest_from_json(text: str, *, source: str) -> Manifest:
    """Read a manifest back, refusing everything that no version writes.

    Fields that this version does not know, and that the manifest does not say it needs, are logged and left out.

    Args:
        text: The JSON.
        source: Where it came from, for the error messages.

    Raises:
        ConceptFileError: For an unknown format version, an unknown feature that it needs, or a missing or malformed
            field; names file and field.
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
    try:
        return old_manifest(values, version, source) if version in OLD_VERSIONS else _manifest(values, source)
    except ConfigurationError as error:
        raise ConceptFileError(f"{source}: {error}") from error


def _manifest(values: dict[str, Any], source: str) -> Manifest:
    """Read the fields of a manifest of today's version."""
    _check_needs(values.pop("needs", None), source)
    kind = values.get("token_kind")
    if not isinstance(kind, str) or kind not in TOKENS:
        raise ConceptFileError(
            f"{source}: manifest field 'token_kind' is {kind!r}, allowed are {', '.join(map(repr, TOKENS))}"
        )
    hints = get_type_hints(Manifest) | {"tokens": tuple[str, ...], "token_kind": str, **TOKENS[kind].fields}
    del hints["format_version"]
    _leave_out(values, hints, f"{source}: manifest fields", "")
    values.setdefault("shapes", {})
    wrong = wrong_keys(values, list(hints))
    for key, value in values.items():
        wrong = wrong or misfit(value, hints[key], key)
    if wrong is not None:
        raise ConceptFileError(f"{source}: manifest field '{wrong.path}' {wrong.problem}")
    own = {key: values.pop(key) for key in TOKENS[kind].fields}
    names = tuple(values["tokens"])
    values["tokens"] = StoredTokens(values.pop("token_kind"), names, own)
    blocks = {INPUTS_BLOCK, *((TOKENS_BLOCK, *TOKENS[kind].blocks) if names else ())}
    _leave_out(values["numbers"], blocks, f"{source}: manifest field 'numbers':", "blocks ")
    values["numbers"] = {name: Block(**_shaped(block, "shapes")) for name, block in values["numbers"].items()}
    values |= _shaped(values, "layers")
    values |= _shaped(values, "shapes")
    _check_shapes(values["shapes"], values["layers"])
    values["lengthened_from"] = tuple(values["lengthened_from"])
    values["base"] = BaseIdentity(**values["base"])
    values["trained_on"] = values["trained_on"] and BaseIdentity(**values["trained_on"])
    if beside := values["companion"]:
        values["companion"] = Companion(**{**beside, "blocks": tuple(beside["blocks"])})
    manifest = Manifest(**values)
    _check_blocks(manifest, blocks - {INPUTS_BLOCK}, source)
    return manifest


def _check_needs(needs: object, source: str) -> None:
    """Refuse features that this version does not have."""
    wrong = misfit(needs, tuple[str, ...], "needs")
    if wrong is not None:
        raise ConceptFileError(f"{source}: manifest field '{wrong.path}' {wrong.problem}")
    for feature in cast("list[str]", needs):
        if feature not in FEATURES:
            raise ConceptFileError(
                f"{source}: needs the feature '{feature}', which orthoplex {__version__} does not have (it has "
                f"{', '.join(FEATURES)}); a newer version reads the file"
            )


def _leave_out(values: dict[str, Any], known: Collection[str], place: str, noun: str) -> None:
    """Log entries that this version does not know, and take them out."""
    unknown = sorted(values.keys() - set(known))
    if unknown:
        _LOG.warning("%s %s%s are unknown to this version and are left out", place, noun, ", ".join(unknown))
    for key in unknown:
        del values[key]


def _shaped(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return values with the lists of one entry, name to shape, as tuples."""
    return {**values, key: {name: tuple(shape) for name, shape in values[key].items()}}


def _check_shapes(shapes: Mapping[str, tuple[int, ...]], layers: Mapping[str, tuple[int, int, int]]) -> None:
    """Refuse shapes of parameters that are not those of the layers, ``(out, rank, in)``; names the layer."""
    for layer, shape in shapes.items():
        rows, rank, columns = layers.get(layer, (0, 0, 0))
        is_window = len(shape) == 4 and shape[0] == rows and math.prod(shape[1:]) == columns
        is_vector = shape == (rows,) and (rank, columns) == (1, 1)
        if not is_window and not is_vector:
            raise ConceptFileError(
                f"manifest field 'shapes.{layer}' is {list(shape)} beside [out, rank, in] {[rows, rank, columns]}, "
                "allowed are [out, in, height, width] and [n], of the same numbers"
            )


def _check_blocks(manifest: Manifest, needed: Collection[str], source: str) -> None:
    """Refuse a block that is missing, of no part, or in no file, and a companion that is no name of a file beside."""
    beside = manifest.companion
    held = set(beside.blocks) if beside else set[str]()
    for name in sorted(set(needed) - manifest.numbers.keys()):
        raise ConceptFileError(f"{source}: manifest field 'numbers.{name}' is missing, allowed is a block for tokens")
    for name, block in manifest.numbers.items():
        if not block.shapes:
            raise ConceptFileError(f"{source}: manifest field 'numbers.{name}.shapes' is empty, allowed: one or more")
        if bool(block.data) == (name in held):
            where = "in the header and in the file beside" if block.data else "neither in the header nor beside"
            raise ConceptFileError(f"{source}: manifest field 'numbers.{name}': its numbers are {where}, allowed: one")
    if beside and not COMPANION_PATTERN.fullmatch(beside.file):
        raise ConceptFileError(
            f"{source}: manifest field 'companion.file' is {beside.file!r}, allowed is 'NAME.<12 digits>.orthoplex'"
        )
