"""Concept files of orthoplex 0.1: formats 1 to 4, which are read and not written any more.

Their tensors are ``<layer>.lora_A.weight`` and ``<layer>.lora_B.weight``, in names of diffusers. Tokens, keys, values
and inputs are texts of the manifest, one by one.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any, get_type_hints

from orthoplex.concepts.base_identity import BaseIdentity
from orthoplex.concepts.blocks import INPUTS_BLOCK, TOKENS_BLOCK, Block, StoredTokens
from orthoplex.concepts.manifest import Manifest
from orthoplex.errors import ConceptFileError
from orthoplex.options.json_types import misfit, wrong_keys

_TOKEN_LAYERS, _KEYS_VALUES, _INPUTS = (
    ("token_layers", list[str]),
    ("keys_values", dict[str, dict[str, str]]),
    ("inputs", str),
)
_FIELDS_OF_VERSION: Mapping[int, Mapping[str, Any]] = {
    1: {},
    2: dict([_TOKEN_LAYERS]),
    3: dict([_KEYS_VALUES]),
    4: dict([_KEYS_VALUES, _INPUTS]),
}
"""Version to its fields beyond those of version 1, with their JSON types."""
OLD_VERSIONS = tuple(_FIELDS_OF_VERSION)
_LATER = (
    *(
        "base_sample",
        "trained_on",
        "lengthened_from",
        "types",
        "shapes",
        "tokens",
        "numbers",
        "companion",
        "format_version",
    ),
)
"""Fields of a manifest that these versions do not have, or otherwise."""
_ENCODER = "text_encoder"


def is_old(manifest: Manifest) -> bool:
    """True if a manifest was read from a file of an old version."""
    return manifest.format_version in OLD_VERSIONS


def old_table(manifest: Manifest) -> dict[str, tuple[None, tuple[int, ...]]]:
    """Return the name and shape of every tensor of an old file; any data type of weights is allowed."""
    table: dict[str, tuple[None, tuple[int, ...]]] = {}
    for layer, (out_features, rank, in_features) in manifest.layers.items():
        table |= {f"{layer}.lora_A.weight": (None, (rank, in_features))}
        table |= {f"{layer}.lora_B.weight": (None, (out_features, rank))}
    return table


def old_manifest(values: dict[str, Any], version: int, source: str) -> Manifest:
    """Read the manifest of an old version as one of today.

    Args:
        values: The fields, without ``format_version``.
        version: One of ``OLD_VERSIONS``.
        source: The file, for errors.

    Raises:
        ConceptFileError: For a missing, unknown or malformed field; names the file and the field.
        ConfigurationError: If a name, kind, slot or thumbnail is none that a file may carry.
    """
    hints = {key: kind for key, kind in get_type_hints(Manifest).items() if key not in _LATER}
    types = {**hints, "tokens": dict[str, str], **_FIELDS_OF_VERSION[version]}
    wrong = wrong_keys(values, list(types))
    for key, value in values.items():
        wrong = wrong or misfit(value, types[key], key)
    if wrong is not None:
        raise ConceptFileError(f"{source}: manifest field '{wrong.path}' {wrong.problem}")
    layers = {name: tuple(shape) for name, shape in values["layers"].items()}
    try:
        tokens, numbers = _tokens(values)
        if version == 4:  # noqa: PLR2004  (a version)
            numbers[INPUTS_BLOCK] = _inputs(values["inputs"], layers)
    except ConceptFileError as error:
        raise ConceptFileError(f"{source}: {error}") from error
    training = dict(values["training"])
    return Manifest(
        **{key: values[key] for key in hints.keys() - {"layers", "base", "training"}},
        layers=layers,
        base=BaseIdentity(**values["base"]),
        base_sample=_taken(training, "base_sample", str) or "",
        trained_on=_identity(training),
        lengthened_from=tuple(_taken(training, "lengthened_from", tuple[int, ...]) or ()),
        training=training,
        tokens=tokens,
        numbers=numbers,
        format_version=version,
    )


def _taken(training: dict[str, Any], key: str, kind: Any) -> Any:  # noqa: ANN401  (JSON)
    """Take a value out of the training's; None, and nothing is taken, if it is of another type."""
    is_one = key in training and misfit(training[key], kind, key) is None
    return training.pop(key) if is_one else None


def _identity(training: dict[str, Any]) -> BaseIdentity | None:
    stored = _taken(training, "trained_on", BaseIdentity)
    return None if stored is None else BaseIdentity(**stored)


def _tokens(values: Mapping[str, Any]) -> tuple[StoredTokens, dict[str, Block]]:
    """Return the tokens, and the blocks of their numbers."""
    texts, layers = values["tokens"], values.get("token_layers", [])
    names = tuple(sorted(texts))
    added = values.get("keys_values", {})
    if layers and not names:
        raise ConceptFileError(f"token_layers names {len(layers)} layers and there is no token, allowed: none")
    if "keys_values" in values and (added or "inputs" not in values) and added.keys() != texts.keys():
        given, allowed = ", ".join(sorted(added)) or "none", ", ".join(names) or "none"
        raise ConceptFileError(f"keys_values are those of tokens {given}, allowed are {allowed}")
    if not names:
        return StoredTokens(), {}
    rows = [_numbers(texts[name], f"tokens.{name}", 4, max(len(layers), 1)) for name in names]
    blocks = {TOKENS_BLOCK: _stacked({_ENCODER: rows}, names, (len(layers),) if layers else ())}
    if layers:
        return StoredTokens("layer-vectors", names, {"token_layers": layers}), blocks
    if not added:
        return StoredTokens("vector", names), blocks
    parts: dict[str, list[bytes]] = {}
    for name in names:
        if added[name].keys() != added[names[0]].keys() or not added[name]:
            given, allowed = (", ".join(sorted(added[token])) or "none" for token in (name, names[0]))
            raise ConceptFileError(
                f"keys_values of token '{name}' are those of layers {given}, allowed are those of token "
                f"'{names[0]}', at least one: {allowed}"
            )
        for layer, text in sorted(added[name].items()):
            parts.setdefault(layer, []).append(_numbers(text, f"keys_values.{name}.{layer}", 4, 2))
    return StoredTokens("keys-values", names), {**blocks, "keys_values": _stacked(parts, names, (2,))}


def _stacked(parts: Mapping[str, Sequence[bytes]], names: Sequence[str], inner: tuple[int, ...]) -> Block:
    """Return the float32 numbers of tokens, part by part, as a block; ``inner`` are a token's rows."""
    shapes: dict[str, tuple[int, ...]] = {}
    for part, rows in parts.items():
        lengths = [len(row) // 4 for row in rows]
        if len(set(lengths)) > 1:
            counts = ", ".join(f"{count} of '{name}'" for name, count in zip(names, lengths, strict=True))
            raise ConceptFileError(f"tokens have {counts} numbers in {part}, allowed is one count for all")
        shapes[part] = (len(rows), *inner, lengths[0] // (inner[0] if inner else 1))
    data = b"".join(row for part in sorted(parts) for row in parts[part])
    return Block("F32", shapes, base64.b64encode(data).decode("ascii"))


def _inputs(text: str, layers: Mapping[str, tuple[int, ...]]) -> Block:
    width = next((shape[2] for shape in layers.values()), 0)
    if not width:
        raise ConceptFileError("has inputs and changes layers none, allowed are keys and values of cross-attention")
    data = _numbers(text, "inputs", 2, width)
    return Block("F16", {INPUTS_BLOCK: (len(data) // 2 // width, width)}, text)


def _numbers(text: str, field: str, size: int, multiple: int) -> bytes:
    """Return the bytes of numbers of ``size`` bytes each, whose count is a multiple."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ConceptFileError(f"manifest field '{field}' is not base64: {error}") from error
    if not data or len(data) % (size * multiple):
        raise ConceptFileError(
            f"manifest field '{field}' holds {len(data)} bytes, allowed is a positive multiple of {size * multiple}"
        )
    return data
