"""A concept on disk: one safetensors file that diffusers can load, with the manifest in its header."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from orthoplex import __version__
from orthoplex.adapters import LowRank
from orthoplex.concepts.coding import decode_inputs, decode_token, encode_inputs, encode_token
from orthoplex.concepts.concept import Concept
from orthoplex.concepts.manifest import (
    MANIFEST_KEY,
    BaseIdentity,
    Manifest,
    concept_header,
    manifest_of,
    manifest_to_json,
    token_names,
)
from orthoplex.errors import ConceptFileError, FileFormatError
from orthoplex.files import DTYPES, Header, write_tensors

COMPONENTS = ("unet", "text_encoder")
_ARCHITECTURES = {
    "sd1": "stable-diffusion-v1",
    "sd2": "stable-diffusion-v2-512",
    "sd2-v": "stable-diffusion-v2-768-v",
    "vignette": "stable-diffusion-v1",
}


def save_concept(concept: Concept, path: str | Path, *, dtype: torch.dtype | None = None) -> Manifest:
    """Write a concept file; it is there whole or not at all.

    Args:
        concept: The concept. Its manifest's ``layers``, ``tokens`` and ``content_hash`` are filled in, and
            ``package_version`` and ``created`` where they are empty.
        path: A name that ends in ``.safetensors``; an existing file is replaced.
        dtype: Store the factors as float16, bfloat16 or float32; None keeps each tensor's own. Tokens are float32.

    Returns:
        The manifest as written.

    Raises:
        ConceptFileError: If the name ends otherwise, a data type is not storable, a layer belongs to no component,
            a token is not named after the concept or has another shape than its layers ask for, keys and values are
            not those of all tokens in the same layers, inputs are not of the layers' width, or a number is not finite.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ConceptFileError(f"{path}: a concept file is named '*.safetensors', not '*{path.suffix}'")
    stored = _as_stored(concept, dtype)
    tensors = stored.tensors()
    for name, tensor in tensors.items():
        if name.split(".")[0] not in COMPONENTS:
            raise ConceptFileError(f"{path}: layer of '{name}' must start with one of {', '.join(COMPONENTS)}")
        if tensor.dtype not in DTYPES.values():
            raise ConceptFileError(f"{path}: tensor '{name}' is {tensor.dtype}, allowed are {', '.join(DTYPES)}")
    _check_token_names(stored.tokens, stored.name, path)
    _check_token_shapes(stored.tokens, stored.token_layers, path)
    _check_keys_values(stored.keys_values, stored.tokens, path)
    _check_inputs(stored, path)
    _check_finite(tensors, stored, path)
    manifest = replace(
        concept.manifest.with_content(
            layers={name: (item.shape[0], item.rank, item.shape[1]) for name, item in stored.layers.items()},
            tokens={token: encode_token(vector) for token, vector in stored.tokens.items()},
            content_hash=stored.content_hash,
            token_layers=stored.token_layers,
            keys_values={
                token: {layer: encode_token(values) for layer, values in layers.items()}
                for token, layers in stored.keys_values.items()
            },
            inputs="" if stored.inputs is None else encode_inputs(stored.inputs),
        ),
        package_version=concept.manifest.package_version or __version__,
        created=concept.manifest.created or datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_tensors(tensors, path, _metadata(manifest))
    return manifest


def load_concept(path: str | Path, *, base: BaseIdentity | None = None) -> Concept:
    """Read a concept file and check everything that can be checked.

    Args:
        path: The file.
        base: The base it must belong to, compared by hash; None skips this one check.

    Returns:
        The concept, factors in the data type they are stored in, on the CPU.

    Raises:
        ConceptFileError: If the file is missing, truncated, a pickle, of an unknown format version or another base,
            if a tensor is missing, unknown, of another shape or not finite, if a token is not named after the
            concept, keys and values are not those of all tokens in the same layers or inputs are not of the layers'
            width, or if the content hash differs.
            The message names the file, the tensor or field, its value, and what was allowed.
    """
    path = Path(path)
    header = concept_header(path)
    manifest = manifest_of(header, path)
    if base is not None and manifest.base.hash != base.hash:
        raise ConceptFileError(
            f"{path}: was trained on base '{manifest.base.name}' (family {manifest.base.family}, hash "
            f"{manifest.base.hash[:12]}), allowed is '{base.name}' (family {base.family}, hash {base.hash[:12]})"
        )
    _check_tensor_table(header, manifest, path)
    _check_token_names(manifest.tokens, manifest.name, path)
    try:
        tensors = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise ConceptFileError(f"{path}: is not a whole safetensors file: {error}") from error
    layers = {
        name: LowRank(up=tensors[f"{name}.lora_B.weight"], down=tensors[f"{name}.lora_A.weight"])
        for name in manifest.layers
    }
    tokens, keys_values = _tokens(manifest, path), _keys_values(manifest, path)
    concept = Concept(manifest, layers, tokens, manifest.token_layers, keys_values, _inputs(manifest, path), path)
    _check_token_shapes(concept.tokens, manifest.token_layers, path)
    _check_keys_values(concept.keys_values, concept.tokens, path)
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
        found = f", found instead the unknown tensor '{unknown[0]}'" if unknown else ""
        raise ConceptFileError(f"{path}: tensor '{name}' of shape {shapes[name]} is missing{found}")
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


def _check_token_shapes(tokens: Mapping[str, Tensor], layers: Sequence[str], path: Path) -> None:
    if layers and not tokens:
        raise ConceptFileError(f"{path}: token_layers names {len(layers)} layers and there is no token, allowed: none")
    for token, vectors in tokens.items():
        allowed = f"({len(layers)}, dim), a row for each of the token_layers" if layers else "(dim,)"
        if vectors.ndim != (2 if layers else 1) or (layers and len(vectors) != len(layers)):
            raise ConceptFileError(f"{path}: token '{token}' has shape {tuple(vectors.shape)}, allowed is {allowed}")


def _check_keys_values(keys_values: Mapping[str, Mapping[str, Tensor]], tokens: Iterable[str], path: Path) -> None:
    """Refuse keys and values of some tokens only, or of different layers or widths in two tokens."""
    if not keys_values:
        return
    if keys_values.keys() != set(tokens):
        given, allowed = ", ".join(sorted(keys_values)), ", ".join(sorted(tokens)) or "none"
        raise ConceptFileError(f"{path}: keys_values are those of tokens {given}, allowed are {allowed}")
    (first, layers), *others = keys_values.items()
    for layer, values in layers.items():
        if values.ndim != 2 or len(values) != 2:
            raise ConceptFileError(
                f"{path}: keys_values of token '{first}' in layer '{layer}' have shape {tuple(values.shape)}, allowed "
                "is (2, out), a key and a value"
            )
    shapes = {layer: tuple(values.shape) for layer, values in layers.items()}
    if not shapes:
        raise ConceptFileError(f"{path}: keys_values of token '{first}' name 0 layers, allowed is at least 1")
    for token, values in others:
        found = {layer: tuple(item.shape) for layer, item in values.items()}
        for layer in sorted(shapes.keys() | found.keys()):
            if shapes.get(layer) != found.get(layer):
                raise ConceptFileError(
                    f"{path}: keys_values of token '{token}' in layer '{layer}' have shape "
                    f"{found.get(layer, 'none')}, allowed is that of token '{first}', {shapes.get(layer, 'none')}"
                )


def _check_inputs(concept: Concept, path: Path) -> None:
    """Refuse inputs beside vectors of single layers, which see different things, or of another width than a layer."""
    inputs = concept.inputs
    if inputs is None:
        return
    if concept.token_layers:
        raise ConceptFileError(f"{path}: has token_layers and inputs, allowed is one of them")
    if not concept.changes_keys_values_alone:
        told = ", ".join(sorted(concept.layers)[:2]) or "none"
        raise ConceptFileError(
            f"{path}: has inputs and changes layers {told}, allowed are keys and values of cross-attention alone"
        )
    for layer, change in concept.layers.items():
        if inputs.ndim != 2 or len(inputs) == 0 or inputs.shape[1] != change.shape[1]:
            raise ConceptFileError(
                f"{path}: inputs have shape {tuple(inputs.shape)}, allowed is (k, {change.shape[1]}), as wide as those "
                f"of layer '{layer}'"
            )


def _check_finite(tensors: Mapping[str, Tensor], concept: Concept, path: Path) -> None:
    named = {f"tensor '{name}'": tensor for name, tensor in tensors.items()}
    named |= {f"token '{token}'": vectors for token, vectors in concept.tokens.items()}
    for token, layers in concept.keys_values.items():
        named |= {f"keys_values of token '{token}' in layer '{layer}'": values for layer, values in layers.items()}
    if concept.inputs is not None:
        named["inputs"] = concept.inputs.to(torch.float16)
    for what, tensor in named.items():
        count = int((~torch.isfinite(tensor)).sum())
        if count:
            raise ConceptFileError(f"{path}: {what} holds {count} numbers that are not finite, allowed: none")


def _tokens(manifest: Manifest, path: Path) -> dict[str, Tensor]:
    tokens = {}
    for token, text in manifest.tokens.items():
        with _named(f"tokens.{token}", path):
            tokens[token] = decode_token(text, len(manifest.token_layers) or None)
    return tokens


def _keys_values(manifest: Manifest, path: Path) -> dict[str, dict[str, Tensor]]:
    tokens: dict[str, dict[str, Tensor]] = {}
    for token, layers in manifest.keys_values.items():
        tokens[token] = {}
        for layer, text in layers.items():
            with _named(f"keys_values.{token}.{layer}", path):
                tokens[token][layer] = decode_token(text, 2, what="it", rows="a key and a value")
    return tokens


def _inputs(manifest: Manifest, path: Path) -> Tensor | None:
    if not manifest.inputs:
        return None
    with _named("inputs", path):
        return decode_inputs(manifest.inputs, next((width for _, _, width in manifest.layers.values()), 0))


@contextmanager
def _named(field: str, path: Path) -> Iterator[None]:
    """Inside, errors are told with the file and the manifest field."""
    try:
        yield
    except ConceptFileError as error:
        raise ConceptFileError(f"{path}: manifest field '{field}': {error}") from error


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
    for component in COMPONENTS:
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
