"""A concept on disk: one safetensors file that diffusers can load, with the manifest in its header."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from orthoplex import __version__
from orthoplex.adapters import LowRank
from orthoplex.concepts.base_identity import BaseIdentity
from orthoplex.concepts.coding import decode_inputs, encode_inputs
from orthoplex.concepts.concept import Concept
from orthoplex.concepts.layer_table import component_of, components_of
from orthoplex.concepts.manifest import Manifest, StoredTokens, token_names
from orthoplex.concepts.manifest_json import MANIFEST_KEY, concept_header, manifest_of, manifest_to_json
from orthoplex.concepts.tokens import TOKENS, token_class
from orthoplex.concepts.tokens.checks import check_tokens
from orthoplex.concepts.tokens.stored import decoding
from orthoplex.concepts.tokens.token import Token, named_tensors
from orthoplex.errors import ConceptFileError, FileFormatError
from orthoplex.files import DTYPES, Header, write_tensors

_ARCHITECTURES = {
    "sd1": "stable-diffusion-v1",
    "sd2": "stable-diffusion-v2-512",
    "sd2-v": "stable-diffusion-v2-768-v",
    "vignette": "stable-diffusion-v1",
}


def save_concept(concept: Concept, path: str | Path, *, dtype: torch.dtype | None = None) -> Manifest:
    """Write a concept file, whole or not at all.

    Args:
        concept: The concept. Its manifest's ``layers``, ``tokens`` and ``content_hash`` are filled in, and
            ``package_version`` and ``created`` where they are empty.
        path: A name that ends in ``.safetensors``; an existing file is replaced.
        dtype: Store the factors as float16, bfloat16 or float32; None keeps each tensor's own. Tokens are float32.

    Returns:
        The manifest as written.

    Raises:
        ConceptFileError: If the name ends otherwise, a data type is not storable, a layer belongs to no component,
            a token is not named after the concept, tokens are of several kinds, layers or shapes, inputs are not of the
            layers' width, or a number is not finite.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ConceptFileError(f"{path}: a concept file is named '*.safetensors', not '*{path.suffix}'")
    stored = _as_stored(concept, dtype)
    tensors, components = stored.tensors(), components_of(concept.manifest.base.family)
    for name, tensor in tensors.items():
        if component_of(name) not in components:
            raise ConceptFileError(f"{path}: layer of '{name}' must start with one of {', '.join(components)}")
        if tensor.dtype not in DTYPES.values():
            raise ConceptFileError(f"{path}: tensor '{name}' is {tensor.dtype}, allowed are {', '.join(DTYPES)}")
    _check_token_names(stored.tokens, stored.name, path)
    tokens = _stored_tokens(stored.tokens, path)
    _check_inputs(stored, path)
    _check_finite(tensors, stored, path)
    manifest = replace(
        concept.manifest.with_content(
            layers={name: (item.shape[0], item.rank, item.shape[1]) for name, item in stored.layers.items()},
            tokens=tokens,
            content_hash=stored.content_hash,
            inputs="" if stored.inputs is None else encode_inputs(stored.inputs),
        ),
        package_version=concept.manifest.package_version or __version__,
        created=concept.manifest.created or datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_tensors(tensors, path, _metadata(manifest))
    return manifest


def load_concept(path: str | Path, *, base: BaseIdentity | None = None) -> Concept:
    """Read a concept file and check all of it.

    Args:
        path: The file.
        base: The base that the concept must belong to, compared by hash; None skips this check.

    Returns:
        The concept, factors in the data type they are stored in, on the CPU.

    Raises:
        ConceptFileError: If the file is missing, truncated, a pickle, of an unknown format version or another base,
            if a tensor is missing, unknown, of another shape or not finite, if a token is not named after the
            concept, tokens are of several layers or shapes, inputs are not of the layers' width, or if the content hash
            differs.
            The message names the file, the tensor or field, its value, and what was allowed.
    """
    path = Path(path)
    header = concept_header(path)
    manifest = manifest_of(header, path)
    if base is not None and manifest.base.hash != base.hash:
        raise ConceptFileError(f"{path}: was trained on base {manifest.base}, allowed is {base}")
    _check_tensor_table(header, manifest, path)
    _check_token_names(manifest.tokens.names, manifest.name, path)
    try:
        tensors = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise ConceptFileError(f"{path}: is not a whole safetensors file: {error}") from error
    layers = {
        name: LowRank(up=tensors[f"{name}.lora_B.weight"], down=tensors[f"{name}.lora_A.weight"])
        for name in manifest.layers
    }
    concept = Concept(manifest, layers, _tokens(manifest.tokens, path), _inputs(manifest, path), path)
    _check_inputs(concept, path)
    _check_finite(tensors, concept, path)
    if concept.content_hash != manifest.content_hash:
        raise ConceptFileError(
            f"{path}: manifest field 'content_hash' is {manifest.content_hash[:12]}, "
            f"the tensors and tokens hash to {concept.content_hash[:12]}: the content was changed"
        )
    return concept


def _as_stored(concept: Concept, dtype: torch.dtype | None) -> Concept:
    if dtype is None:
        return concept
    layers = {name: LowRank(up=item.up.to(dtype), down=item.down.to(dtype)) for name, item in concept.layers.items()}
    return replace(concept, layers=layers)


def _check_tensor_table(header: Header, manifest: Manifest, path: Path) -> None:
    shapes: dict[str, tuple[int, int]] = {}
    for layer, (out_features, rank, in_features) in manifest.layers.items():
        shapes[f"{layer}.lora_A.weight"] = (rank, in_features)
        shapes[f"{layer}.lora_B.weight"] = (out_features, rank)
    unknown = sorted(header.entries.keys() - shapes.keys())
    for name in sorted(shapes.keys() - header.entries.keys()):
        instead = f", found instead the unknown tensor '{unknown[0]}'" if unknown else ""
        raise ConceptFileError(f"{path}: tensor '{name}' of shape {shapes[name]} is missing{instead}")
    if unknown:
        raise ConceptFileError(f"{path}: tensor '{unknown[0]}' is unknown: the manifest lists {len(shapes)} tensors")
    for name, entry in header.entries.items():
        if entry.shape != shapes[name]:
            raise ConceptFileError(f"{path}: tensor '{name}' has shape {entry.shape}, allowed is {shapes[name]}")
    try:
        header.check_whole(path)
    except FileFormatError as error:
        raise ConceptFileError(str(error)) from error


def _check_token_names(tokens: Iterable[str], name: str, path: Path) -> None:
    given = sorted(tokens)
    allowed = sorted(token_names(name, len(given))) if given else []
    if given != allowed:
        raise ConceptFileError(
            f"{path}: tokens of concept '{name}' are {', '.join(given)}, allowed are {', '.join(allowed)}"
        )


def _stored_tokens(tokens: Mapping[str, Token], path: Path) -> StoredTokens:
    """Check tokens and write them as the manifest's fields."""
    if not tokens:
        return StoredTokens()
    try:
        check_tokens(tokens)
        kind = next(iter(tokens.values())).kind
        return StoredTokens(kind, token_class(kind).encode(tokens))
    except ConceptFileError as error:
        raise ConceptFileError(f"{path}: {error}") from error


def _tokens(stored: StoredTokens, path: Path) -> Mapping[str, Token]:
    """Read tokens back from the manifest's fields, and check them."""
    try:
        tokens = token_class(stored.kind).decode(stored.fields)
        check_tokens(tokens)
    except ConceptFileError as error:
        raise ConceptFileError(f"{path}: {error}") from error
    return tokens


def _check_inputs(concept: Concept, path: Path) -> None:
    """Refuse inputs beside tokens with layer vectors (their layers' inputs differ), or of a wrong width."""
    inputs = concept.inputs
    if inputs is None:
        return
    for item in concept.tokens.values():
        if not TOKENS[item.kind].has_common_inputs:
            fields = " and ".join(TOKENS[item.kind].fields)
            raise ConceptFileError(f"{path}: has {fields} and inputs, allowed is one of them")
    if not concept.changes_keys_values_alone:
        changed = ", ".join(sorted(concept.layers)[:2]) or "none"
        raise ConceptFileError(
            f"{path}: has inputs and changes layers {changed}, allowed are keys and values of cross-attention alone"
        )
    for layer, change in concept.layers.items():
        if inputs.ndim != 2 or len(inputs) == 0 or inputs.shape[1] != change.shape[1]:
            raise ConceptFileError(
                f"{path}: inputs have shape {tuple(inputs.shape)}, allowed is (k, {change.shape[1]}), as wide as those "
                f"of layer '{layer}'"
            )


def _check_finite(tensors: Mapping[str, Tensor], concept: Concept, path: Path) -> None:
    named = {f"tensor '{name}'": tensor for name, tensor in tensors.items()}
    named |= dict(named_tensors(concept.tokens))
    if concept.inputs is not None:
        named["inputs"] = concept.inputs.to(torch.float16)
    for what, tensor in named.items():
        count = int((~torch.isfinite(tensor)).sum())
        if count:
            raise ConceptFileError(f"{path}: {what} holds {count} numbers that are not finite, allowed: none")


def _inputs(manifest: Manifest, path: Path) -> Tensor | None:
    if not manifest.inputs:
        return None
    try:
        with decoding("inputs"):
            return decode_inputs(manifest.inputs, next((width for _, _, width in manifest.layers.values()), 0))
    except ConceptFileError as error:
        raise ConceptFileError(f"{path}: {error}") from error


def _metadata(manifest: Manifest) -> dict[str, str]:
    architecture = _ARCHITECTURES.get(manifest.base.family, manifest.base.family)
    return {
        MANIFEST_KEY: manifest_to_json(manifest),
        "format": "pt",
        "lora_adapter_metadata": json.dumps(_peft_settings(manifest), sort_keys=True),
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"{architecture}/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.title": manifest.name,
        "modelspec.trigger_phrase": manifest.trigger,
        "modelspec.date": manifest.created,
    }


def _peft_settings(manifest: Manifest) -> dict[str, object]:
    """PEFT's settings for each component, as diffusers reads them: alpha is the rank, so the scale is one everywhere.

    A loader that guesses them from the tensors may take one rank's alpha for all layers. Text encoder paths are given
    without ``text_model.``, which newer text encoders no longer have; PEFT compares the ends of names.
    """
    settings: dict[str, object] = {}
    for component in components_of(manifest.base.family):
        ranks = {
            name.removeprefix(f"{component}.").removeprefix("text_model."): rank
            for name, (_, rank, _) in sorted(manifest.layers.items())
            if name.startswith(f"{component}.")
        }
        if not ranks:
            continue
        largest = max(ranks.values())
        others = {name: rank for name, rank in ranks.items() if rank != largest}
        settings[f"{component}.r"] = largest
        settings[f"{component}.lora_alpha"] = largest
        settings[f"{component}.rank_pattern"] = others
        settings[f"{component}.alpha_pattern"] = others
        settings[f"{component}.target_modules"] = list(ranks)
    return settings
