"""A concept on disk: one LoRA file that most programs load, with the manifest in its header."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
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
from orthoplex.concepts.base_identity import BaseIdentity
from orthoplex.concepts.blocks import IN_HEADER_LIMIT_BYTES, INPUTS_BLOCK, TOKENS_BLOCK, Block, Companion, StoredTokens
from orthoplex.concepts.coding import decode_block, encode_block
from orthoplex.concepts.companion import Blocks, companion_at, read_companion, remove_companion, write_companion
from orthoplex.concepts.concept import Concept, named_factors
from orthoplex.concepts.exchange.detection import ARCHITECTURE_KEY, architecture_of
from orthoplex.concepts.layer_table import component_of, components_of
from orthoplex.concepts.lora_tensors import (
    check_tensor_table,
    factors_of,
    lora_tensors,
    old_factors,
    tensor_table,
    type_names,
)
from orthoplex.concepts.manifest import FORMAT_VERSION, Manifest, token_names
from orthoplex.concepts.manifest_json import MANIFEST_KEY, concept_header, manifest_of, manifest_to_json
from orthoplex.concepts.old_formats import is_old, old_table
from orthoplex.concepts.parameter_shapes import parameter_shapes, plain_vectors
from orthoplex.concepts.tokens import TOKENS, token_class
from orthoplex.concepts.tokens.checks import check_tokens
from orthoplex.concepts.tokens.stored import TokenNumbers
from orthoplex.concepts.tokens.token import Token, named_tensors
from orthoplex.errors import ConceptFileError, ConfigurationError, FileFormatError
from orthoplex.files import DTYPES, write_tensors


def save_concept(
    concept: Concept, path: str | Path, *, dtype: torch.dtype | None = None, overwrite: bool = True
) -> Manifest:
    """Write a concept file, whole or not at all, and a file beside it for numbers that are too large for its header.

    Args:
        concept: The concept. Its manifest's content is filled in, and ``package_version`` and ``created`` where they
            are empty.
        path: A name that ends in ``.safetensors``; an existing file is replaced, with the file beside it.
        dtype: Store the factors as float16, bfloat16 or float32; None keeps each tensor's own. Tokens are float32.
        overwrite: Replace an existing file; else it is refused.

    Returns:
        The manifest as written.

    Raises:
        ConceptFileError: If the name ends otherwise, a data type is not storable, a layer belongs to no component,
            two layers have one name in the file, a token is not named after the concept, tokens are of several kinds,
            layers or shapes, inputs are not of the layers' width, or a number is not finite.
        OutputError: When it cannot be written, or is there and ``overwrite`` is False.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ConceptFileError(f"{path}: a concept file is named '*.safetensors', not '*{path.suffix}'")
    stored = _as_stored(concept, dtype)
    with named(path):
        _check_layers(stored)
        _check_token_names(stored.tokens, stored.name)
        tokens = _token_numbers(stored.tokens)
        _check_inputs(stored)
        _check_finite(stored)
        tensors = lora_tensors(stored.layers, stored.manifest.base.family)
    blocks = dict(tokens.blocks) if tokens else {}
    if stored.inputs is not None:
        blocks[INPUTS_BLOCK] = {INPUTS_BLOCK: stored.inputs.detach().to("cpu", torch.float16)}
    numbers = {name: encode_block(parts) for name, parts in blocks.items()}
    replaced = companion_at(path)
    companion = _written_beside(stored, blocks, numbers, path)
    for name in companion.blocks if companion else ():
        numbers[name] = replace(numbers[name], data="")
    manifest = replace(
        concept.manifest,
        layers={name: (item.shape[0], item.rank, item.shape[1]) for name, item in stored.layers.items()},
        types=type_names(stored.layers),
        shapes=parameter_shapes(stored.layers, stored.manifest.base.family),
        tokens=_described(stored.tokens, tokens),
        numbers=numbers,
        companion=companion,
        content_hash=stored.content_hash,
        package_version=concept.manifest.package_version or __version__,
        created=concept.manifest.created or datetime.now(UTC).isoformat(timespec="seconds"),
        format_version=FORMAT_VERSION,
    )
    write_tensors(tensors, path, _metadata(manifest), overwrite=overwrite)
    if replaced is not None and (companion is None or replaced.file != companion.file):
        remove_companion(replaced, path)
    return manifest


def load_concept(path: str | Path, *, base: BaseIdentity | None = None) -> Concept:
    """Read a concept file and check all of it.

    Without a file beside that holds inputs alone, the concept is read without inputs, and a warning says so.

    Args:
        path: The file.
        base: The base that the concept must belong to, compared by hash; None skips this check.

    Returns:
        The concept, factors in the data type and rank that they were saved with, on the CPU.

    Raises:
        ConceptFileError: If the file is missing, truncated, a pickle, of an unknown format version or another base,
            needs what this version does not have, if a tensor is missing, unknown, of another shape or not finite, if
            a token is not named after the concept, tokens are of several layers or shapes, inputs are not of the
            layers' width, if the file beside is missing, or if the content hash differs.
            The message names the file, the tensor or field, its value, and what was allowed.
    """
    path = Path(path)
    header = concept_header(path)
    manifest = manifest_of(header, path)
    if base is not None and manifest.base.hash != base.hash:
        raise ConceptFileError(f"{path}: was trained on base {manifest.base}, allowed is {base}")
    with named(path):
        check_tensor_table(header, old_table(manifest) if is_old(manifest) else tensor_table(manifest))
        _check_token_names(manifest.tokens.names, manifest.name)
    try:
        header.check_whole(path)
        tensors = safetensors.torch.load_file(path)
    except FileFormatError as error:
        raise ConceptFileError(str(error)) from error
    except (safetensors.SafetensorError, OSError) as error:
        raise ConceptFileError(f"{path}: is not a whole safetensors file: {error}") from error
    beside = read_companion(manifest, path)
    if beside is None and manifest.companion is not None:
        manifest = replace(manifest.without_inputs(), content_hash=manifest.companion.rest, companion=None)
    with named(path):
        layers = old_factors(tensors, manifest) if is_old(manifest) else factors_of(tensors, manifest)
        blocks = {name: decode_block(block, name) for name, block in manifest.numbers.items() if block.data}
        blocks |= beside or {}
        concept = Concept(manifest, layers, _tokens(manifest.tokens, blocks), _inputs(blocks), path)
        _check_inputs(concept)
        _check_finite(concept)
    if concept.content_hash != manifest.content_hash:
        raise ConceptFileError(
            f"{path}: manifest field 'content_hash' is {manifest.content_hash[:12]}, "
            f"the tensors and tokens hash to {concept.content_hash[:12]}: the content was changed"
        )
    return concept


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Inside, errors of what a file holds name the file."""
    try:
        yield
    except (ConceptFileError, ConfigurationError) as error:
        raise ConceptFileError(f"{path}: {error}") from error


def _as_stored(concept: Concept, dtype: torch.dtype | None) -> Concept:
    plain = plain_vectors(concept.layers, concept.manifest.base.family)
    concept = replace(concept, layers=plain)
    if dtype is None:
        return concept
    layers = {name: LowRank(up=item.up.to(dtype), down=item.down.to(dtype)) for name, item in concept.layers.items()}
    return replace(concept, layers=layers)


def _written_beside(concept: Concept, blocks: Blocks, numbers: Mapping[str, Block], path: Path) -> Companion | None:
    """Write the blocks that a header has no room for, in the order tokens, keys and values, inputs; None for none."""
    room, beside = IN_HEADER_LIMIT_BYTES, dict[str, Mapping[str, Tensor]]()
    for name, block in numbers.items():
        if len(block.data) > room:
            beside[name] = blocks[name]
        else:
            room -= len(block.data)
    if not beside:
        return None
    rest = replace(concept, inputs=None).content_hash if beside.keys() == {INPUTS_BLOCK} else ""
    return write_companion(beside, path, rest=rest)


def _check_layers(concept: Concept) -> None:
    components = components_of(concept.manifest.base.family)
    for name, tensor in named_factors(concept.layers):
        if tensor.dtype not in DTYPES.values():
            raise ConceptFileError(f"{name} is {tensor.dtype}, allowed are {', '.join(DTYPES)}")
    for layer in concept.layers:
        if component_of(layer) not in components:
            raise ConceptFileError(f"layer '{layer}' must start with one of {', '.join(components)}")


def _check_token_names(tokens: Iterable[str], name: str) -> None:
    given = sorted(tokens)
    allowed = sorted(token_names(name, len(given))) if given else []
    if given != allowed:
        raise ConceptFileError(f"tokens of concept '{name}' are {', '.join(given)}, allowed are {', '.join(allowed)}")


def _token_numbers(tokens: Mapping[str, Token]) -> TokenNumbers | None:
    """Check tokens and write them as numbers, in the order of their names; None if there are none."""
    check_tokens(tokens)
    if not tokens:
        return None
    return type(next(iter(tokens.values()))).encode(dict(sorted(tokens.items())))


def _described(tokens: Mapping[str, Token], numbers: TokenNumbers | None) -> StoredTokens:
    if numbers is None:
        return StoredTokens()
    return StoredTokens(next(iter(tokens.values())).kind, numbers.names, numbers.fields)


def _tokens(stored: StoredTokens, blocks: Blocks) -> Mapping[str, Token]:
    """Read tokens back from their numbers, and check them."""
    if not stored.names:
        return {}
    own = {name: blocks[name] for name in (TOKENS_BLOCK, *TOKENS[stored.kind].blocks)}
    for name, parts in own.items():
        for part, rows in parts.items():
            if rows.ndim == 0 or len(rows) != len(stored.names):
                raise ConceptFileError(
                    f"block '{name}' has shape {tuple(rows.shape)} for '{part}', allowed is a row for each of "
                    f"{len(stored.names)} tokens"
                )
    tokens = token_class(stored.kind).decode(TokenNumbers(stored.names, own, stored.fields))
    check_tokens(tokens)
    return tokens


def _check_inputs(concept: Concept) -> None:
    """Refuse inputs beside tokens with layer vectors (their layers' inputs differ), or of a wrong width."""
    inputs = concept.inputs
    if inputs is None:
        return
    for item in concept.tokens.values():
        if not TOKENS[item.kind].has_common_inputs:
            fields = " and ".join(TOKENS[item.kind].fields)
            raise ConceptFileError(f"has {fields} and inputs, allowed is one of them")
    if not concept.changes_keys_values_alone:
        changed = ", ".join(sorted(concept.layers)[:2]) or "none"
        raise ConceptFileError(
            f"has inputs and changes layers {changed}, allowed are keys and values of cross-attention alone"
        )
    for layer, change in concept.layers.items():
        if inputs.ndim != 2 or len(inputs) == 0 or inputs.shape[1] != change.shape[1]:
            raise ConceptFileError(
                f"inputs have shape {tuple(inputs.shape)}, allowed is (k, {change.shape[1]}), as wide as those "
                f"of layer '{layer}'"
            )


def _check_finite(concept: Concept) -> None:
    tensors = {**dict(named_factors(concept.layers)), **dict(named_tensors(concept.tokens))}
    if concept.inputs is not None:
        tensors["inputs"] = concept.inputs.to(torch.float16)
    for name, tensor in tensors.items():
        count = int((~torch.isfinite(tensor)).sum())
        if count:
            raise ConceptFileError(f"{name} holds {count} numbers that are not finite, allowed: none")


def _inputs(blocks: Blocks) -> Tensor | None:
    parts = blocks.get(INPUTS_BLOCK)
    if parts is None:
        return None
    if parts.keys() != {INPUTS_BLOCK}:
        raise ConceptFileError(f"block '{INPUTS_BLOCK}' has parts {', '.join(parts)}, allowed is {INPUTS_BLOCK} alone")
    return parts[INPUTS_BLOCK].to(torch.float16)


def _metadata(manifest: Manifest) -> dict[str, str]:
    architecture = architecture_of(manifest.base.family) or f"{manifest.base.family}/lora"
    own = {
        MANIFEST_KEY: manifest_to_json(manifest),
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.0",
        ARCHITECTURE_KEY: architecture,
        "modelspec.implementation": "diffusers",
        "modelspec.title": manifest.name,
        "modelspec.trigger_phrase": manifest.trigger,
        "modelspec.date": manifest.created,
    }
    rank = str(manifest.rank)
    shown = {"ss_output_name": manifest.name, "ss_network_dim": rank, "ss_network_alpha": rank}
    return {**own, **(shown if manifest.rank else {})}
