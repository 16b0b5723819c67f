"""What a concept says about itself: the manifest in the header of its file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from orthoplex.errors import ConceptFileError, ConfigurationError, FileFormatError
from orthoplex.files import FLOAT_NAMES, Header, parse_json, read_header

MANIFEST_KEY = "orthoplex"
"""Of the header's text pair that holds the manifest."""
_FIELDS_OF_VERSION: Mapping[int, tuple[str, ...]] = {
    1: (),
    2: ("token_layers",),
    3: ("keys_values",),
    4: ("keys_values", "inputs"),
}
"""What a version has beyond version 1; the lowest that holds all there is gets written. Version 4's keys and values may
be empty, else none of it may."""
FORMAT_VERSIONS = tuple(_FIELDS_OF_VERSION)
_ADDED_FIELDS = {name for names in _FIELDS_OF_VERSION.values() for name in names}
KINDS = ("person", "subject", "scene", "style", "other")
_PEOPLE = frozenset(("woman", "man", "boy", "girl"))
NAME_PATTERN = re.compile(r"[a-z0-9_-]{1,64}")
THUMBNAIL_LIMIT_BYTES = 6 * 1024


def kind_of(class_word: str) -> str:
    """Return the kind that a class word says: ``scene`` is one, a ``young woman`` is a person; else ``subject``.

    Args:
        class_word: The ordinary word for what a concept is, in any case.
    """
    words = class_word.lower().split()
    if words and words[-1] in _PEOPLE:
        return "person"
    return words[0] if len(words) == 1 and words[0] in KINDS else "subject"


@dataclass(frozen=True)
class BaseIdentity:
    """Which base model a concept belongs to.

    Attributes:
        family: Architecture family, for example ``"vignette"`` or ``"sd1"``.
        hash: SHA-256 (hex) over the names, shapes and float16-rounded values of the adapted components.
        name: What the user called it; for people only, never compared.
    """

    family: str
    hash: str
    name: str


@dataclass(frozen=True)
class Manifest:
    """Everything a concept file says about itself besides its tensors.

    Attributes:
        name: Concept name, ``[a-z0-9_-]{1,64}``.
        kind: One of ``KINDS``.
        class_word: The ordinary word for what it is, for example ``"person"``.
        trigger: The prompt fragment that calls it, for example ``"<anna> person"``.
        base: The base it was trained on.
        method: Name of the adapter method.
        adapter: The adapter configuration as plain JSON values.
        basis_id: Identity of the shared basis its directions come from, or None.
        slot: The slot it owns, or None.
        training: The training configuration as plain JSON values.
        dataset_hash: SHA-256 (hex) over pictures and captions, or the empty string.
        package_version: Version of orthoplex that wrote it.
        created: ISO 8601 date and time.
        thumbnail: A small JPEG or PNG in base64 (at most 6 KiB encoded), or the empty string.
        layers: Layer name to ``(out_features, rank, in_features)``; filled in when the concept is saved.
        tokens: Token to its embedding in base64 (float32, little endian); filled in when the concept is saved.
        content_hash: SHA-256 (hex) over all tensors and tokens; filled in when the concept is saved.
        token_layers: The cross-attention layers that every token has a vector of its own for, in the order of the
            vectors; empty where one vector serves all; filled in when the concept is saved.
        keys_values: Token to what every cross-attention layer adds to its key and to its value, layer name to base64
            of both (float32, little endian); empty where tokens have none; filled in when the concept is saved.
        inputs: ``(k, in)`` in base64 (float16, little endian), whose Gram matrix is what every layer sees under
            prompts of the concept; the empty string where none is kept; filled in when the concept is saved.
    """

    name: str
    kind: str
    class_word: str
    trigger: str
    base: BaseIdentity
    method: str
    adapter: Mapping[str, Any] = field(default_factory=dict)
    basis_id: str | None = None
    slot: int | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    dataset_hash: str = ""
    package_version: str = ""
    created: str = ""
    thumbnail: str = ""
    layers: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    tokens: Mapping[str, str] = field(default_factory=dict)
    content_hash: str = ""
    token_layers: tuple[str, ...] = ()
    keys_values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    inputs: str = ""

    def __post_init__(self) -> None:
        """Refuse a name, kind, slot, thumbnail, token layers, keys and values or inputs that no file may carry."""
        check_name(self.name)
        if self.kind not in KINDS:
            raise ConfigurationError(f"concept '{self.name}': kind '{self.kind}' is not one of {', '.join(KINDS)}")
        if self.slot is not None and self.slot < 0:
            raise ConfigurationError(f"concept '{self.name}': slot is {self.slot}, allowed are numbers from 0, or none")
        if len(self.thumbnail) > THUMBNAIL_LIMIT_BYTES:
            raise ConfigurationError(
                f"concept '{self.name}': thumbnail takes {len(self.thumbnail)} bytes, "
                f"at most {THUMBNAIL_LIMIT_BYTES} are allowed"
            )
        if len(set(self.token_layers)) < len(self.token_layers):
            raise ConfigurationError(f"concept '{self.name}': token_layers names a layer twice, allowed is once")
        if self.token_layers and self.keys_values:
            raise ConfigurationError(f"concept '{self.name}': has token_layers and keys_values, allowed is one of them")
        if self.token_layers and self.inputs:
            raise ConfigurationError(f"concept '{self.name}': has token_layers and inputs, allowed is one of them")

    @property
    def format_version(self) -> int:
        """The lowest version of the file's layout that holds all this."""
        used = {name for name in _ADDED_FIELDS if getattr(self, name)}
        return next(version for version, names in _FIELDS_OF_VERSION.items() if used <= set(names))

    @property
    def rank(self) -> int:
        """The largest rank of any layer, 0 when the concept changes no weight."""
        return max((rank for _, rank, _ in self.layers.values()), default=0)

    def with_content(
        self,
        layers: Mapping[str, tuple[int, int, int]],
        tokens: Mapping[str, str],
        content_hash: str,
        token_layers: Sequence[str] = (),
        keys_values: Mapping[str, Mapping[str, str]] | None = None,
        inputs: str = "",
    ) -> Manifest:
        """The same manifest with the shape table, all that tokens have, inputs, and hash of what is being written."""
        return replace(
            self,
            layers=dict(layers),
            tokens=dict(tokens),
            content_hash=content_hash,
            token_layers=tuple(token_layers),
            keys_values={token: dict(layers) for token, layers in (keys_values or {}).items()},
            inputs=inputs,
        )


def check_name(name: str) -> None:
    """Refuse a concept name outside ``[a-z0-9_-]{1,64}``.

    Raises:
        ConfigurationError: If the name does not match.
    """
    if not NAME_PATTERN.fullmatch(name):
        raise ConfigurationError(
            f"concept name '{name}' is not allowed: 1 to 64 characters, each a lower-case letter, a digit, '_' or '-'"
        )


def token_names(name: str, num_vectors: int = 1) -> tuple[str, ...]:
    """The tokens of a concept: ``<name>``, ``<name>_1``, … one for each learned vector.

    Raises:
        ConfigurationError: If the name is not allowed or ``num_vectors`` is below 1.
    """
    check_name(name)
    if num_vectors < 1:
        raise ConfigurationError(f"concept '{name}': {num_vectors} token vectors asked for, at least 1 is needed")
    return tuple(f"<{name}>" if i == 0 else f"<{name}>_{i}" for i in range(num_vectors))


def read_manifest(path: str | Path) -> Manifest:
    """Read what a concept says about itself from the header alone; no tensor is touched.

    Raises:
        ConceptFileError: If the file is missing, a pickle, not a concept file, or of an unknown format version.
    """
    return manifest_of(concept_header(Path(path)), Path(path))


def concept_header(path: Path) -> Header:
    """Read the header of a concept file and nothing else.

    Raises:
        ConceptFileError: See ``read_header``; or if a tensor is not float16, bfloat16 or float32.
    """
    try:
        return read_header(path, dtypes=FLOAT_NAMES)
    except FileFormatError as error:
        raise ConceptFileError(str(error)) from error


def manifest_of(header: Header, path: Path) -> Manifest:
    """Return the manifest in a header that was read.

    Raises:
        ConceptFileError: If there is none, or none that this version reads; names the file.
    """
    if MANIFEST_KEY not in header.metadata:
        raise ConceptFileError(
            f"{path}: is not a concept file: header key '{MANIFEST_KEY}' is missing, "
            f"found {', '.join(sorted(header.metadata)) or 'none'}"
        )
    return manifest_from_json(header.metadata[MANIFEST_KEY], source=str(path))


def manifest_to_json(manifest: Manifest) -> str:
    """Write a manifest as JSON with sorted keys; what its version does not have is left out."""
    values = {item.name: getattr(manifest, item.name) for item in fields(manifest)}
    values["base"] = {item.name: getattr(manifest.base, item.name) for item in fields(manifest.base)}
    values["layers"] = {name: list(shape) for name, shape in manifest.layers.items()}
    values["format_version"] = manifest.format_version
    for key in _ADDED_FIELDS.difference(_FIELDS_OF_VERSION[manifest.format_version]):
        del values[key]
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


_TEXT_FIELDS = (
    "name", "kind", "class_word", "trigger", "method", "dataset_hash",
    "package_version", "created", "thumbnail", "content_hash",
)  # fmt: skip


def manifest_from_json(text: str, *, source: str) -> Manifest:
    """Read a manifest back, refusing everything that this version does not write.

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
    version = values.get("format_version")
    if type(version) is not int or version not in FORMAT_VERSIONS:
        raise ConceptFileError(
            f"{source}: format_version {version!r} is unknown, this version of orthoplex reads "
            f"{', '.join(map(str, FORMAT_VERSIONS))}"
        )
    known = {"format_version", *(item.name for item in fields(Manifest))}
    _check_keys(values, known - _ADDED_FIELDS.difference(_FIELDS_OF_VERSION[version]), source)
    del values["format_version"]
    for key in _TEXT_FIELDS:
        _check_type(values[key], str, key, source)
    for key in ("adapter", "training", "layers", "tokens", "base"):
        _check_type(values[key], dict, key, source)
    _check_keys(values["base"], {item.name for item in fields(BaseIdentity)}, source, prefix="base.")
    for key, value in values["base"].items():
        _check_type(value, str, f"base.{key}", source)
    for key, value in values["tokens"].items():
        _check_type(value, str, f"tokens.{key}", source)
    if values["basis_id"] is not None:
        _check_type(values["basis_id"], str, "basis_id", source)
    if values["slot"] is not None:
        _check_type(values["slot"], int, "slot", source)
    values["layers"] = {name: _shape(name, shape, source) for name, shape in values["layers"].items()}
    values["base"] = BaseIdentity(**values["base"])
    if "token_layers" in values:
        values["token_layers"] = _layer_names(values["token_layers"], source)
    if "keys_values" in values:
        _check_keys_values(values["keys_values"], source, may_be_empty="inputs" in values)
    if "inputs" in values:
        _check_type(values["inputs"], str, "inputs", source)
        if not values["inputs"]:
            raise ConceptFileError(f"{source}: manifest field 'inputs' is '', allowed is base64 of at least one row")
    try:
        return Manifest(**values)
    except ConfigurationError as error:
        raise ConceptFileError(f"{source}: {error}") from error


def _check_keys(values: Mapping[str, Any], known: set[str], source: str, prefix: str = "") -> None:
    for key in sorted(known - values.keys()):
        raise ConceptFileError(f"{source}: manifest field '{prefix}{key}' is missing")
    for key in sorted(values.keys() - known):
        raise ConceptFileError(
            f"{source}: manifest field '{prefix}{key}' is unknown, allowed are {', '.join(sorted(known))}"
        )


def _check_type(value: object, expected: type, key: str, source: str) -> None:
    if type(value) is not expected:
        raise ConceptFileError(
            f"{source}: manifest field '{key}' is {value!r}, allowed is a value of type {expected.__name__}"
        )


def _layer_names(names: object, source: str) -> tuple[str, ...]:
    if isinstance(names, list) and names and all(isinstance(name, str) and name for name in names):
        return tuple(names)
    raise ConceptFileError(
        f"{source}: manifest field 'token_layers' is {names!r}, allowed is a list of at least one layer name"
    )


def _check_keys_values(tokens: object, source: str, *, may_be_empty: bool) -> None:
    _check_type(tokens, dict, "keys_values", source)
    if not isinstance(tokens, dict) or not (tokens or may_be_empty):
        raise ConceptFileError(f"{source}: manifest field 'keys_values' is {{}}, allowed is at least one token")
    for token, layers in tokens.items():
        _check_type(layers, dict, f"keys_values.{token}", source)
        for layer, text in layers.items():
            _check_type(text, str, f"keys_values.{token}.{layer}", source)


def _shape(name: str, shape: object, source: str) -> tuple[int, int, int]:
    if isinstance(shape, list) and len(shape) == 3:
        out_features, rank, in_features = shape
        if all(type(size) is int and size > 0 for size in shape):
            return out_features, rank, in_features
    raise ConceptFileError(
        f"{source}: manifest field 'layers.{name}' is {shape!r}, "
        "allowed are three positive integers (out_features, rank, in_features)"
    )
