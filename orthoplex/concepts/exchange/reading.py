"""LoRA files of any program, read."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path

from orthoplex.concepts.concept import Concept
from orthoplex.concepts.embedding import concept_embedding
from orthoplex.concepts.exchange.adapter_settings import CONFIG_NAME, is_of_peft
from orthoplex.concepts.exchange.contents import LoraContents, lora_contents, reasons_in_words, tensor_file
from orthoplex.concepts.exchange.embedding_files import read_embeddings
from orthoplex.concepts.exchange.embeddings import pickled_embedding
from orthoplex.concepts.exchange.lora_file import LoraFile
from orthoplex.concepts.exchange.stored_changes import ModuleReader, StoredDifferences, StoredLayers
from orthoplex.concepts.file import load_concept
from orthoplex.concepts.layer_table import layer_table
from orthoplex.concepts.manifest_json import MANIFEST_KEY
from orthoplex.concepts.parameter_shapes import BIAS, parameter_shapes
from orthoplex.errors import ConfigurationError, FileFormatError
from orthoplex.files import read_header

_LOG = logging.getLogger(__name__)


def read_lora(path: str | Path, *, partial: bool = False, family: str | None = None) -> LoraFile:
    """Read a LoRA file of any program, or a concept file; every key is used, or named in an error.

    The header and the numbers alpha are read at once, a layer's factors each time they are asked for.

    Args:
        path: The file, a folder that PEFT wrote, or an embedding (``.pt``, ``.bin``) of PyTorch.
        partial: Leave out keys that cannot be read; ``LoraFile.left_out`` has them with the reasons.
        family: The layer table's family or version, by name; None finds it by names and shapes.

    Raises:
        ConfigurationError: If there is no such family.
        ConceptFileError: If it is a concept file and damaged.
        FileFormatError: If the file is missing or damaged, is no LoRA file, its family is not clear, or a key cannot be
            read: names the keys, their count and the reasons.
    """
    path = Path(path)
    pickled = pickled_embedding(path)
    if pickled is not None:
        return LoraFile(path.stem, "bare", None, None, {}, embeddings=pickled, path=path)
    file = tensor_file(path)
    if MANIFEST_KEY in read_header(file).metadata:
        return lora_of_concept(load_concept(file), partial=partial)
    contents = lora_contents(path, family)
    if contents.problem:
        raise FileFormatError(f"{path}: {contents.problem}")
    _log_without_settings(contents)
    reader = ModuleReader(contents)
    refused = contents.refused
    embeddings = read_embeddings(contents)
    if refused and not partial:
        raise FileFormatError(f"{path}: {refusal(refused, len(contents.header.entries))}")
    layers = {name: source for name, source in contents.layers.items() if not _is_refused(source.module.keys, refused)}
    differences = {
        name: source for name, source in contents.differences.items() if not _is_refused(source.module.keys, refused)
    }
    if not layers and not differences and not embeddings:
        raise FileFormatError(
            f"{path}: holds nothing that can be read: {refusal(refused, len(contents.header.entries))}"
        )
    windows = {layer: window for layer, window in contents.windows.items() if layer in layers}
    return LoraFile(
        name=path.stem if file == path else path.name,
        style=contents.detected.style,
        family=contents.detected.family,
        version=contents.detected.version,
        layers=StoredLayers(reader, layers),
        windows=windows,
        differences=StoredDifferences(reader, differences),
        embeddings=embeddings,
        metadata=contents.header.metadata,
        left_out=refused,
        path=path,
    )


def _log_without_settings(contents: LoraContents) -> None:
    """Say that the factors of a file of PEFT are not known where its settings are missing."""
    config = contents.path.with_name(CONFIG_NAME)
    if is_of_peft(contents.header.entries) and not (contents.alphas or contents.factors or config.exists()):
        _LOG.warning(
            "%s: its keys are PEFT's, which keeps alpha in %s, and none is beside it; alpha is taken as the rank",
            contents.path, CONFIG_NAME,
        )  # fmt: skip


def refusal(refused: Mapping[str, str], total: int) -> str:
    """Return one line that names keys that cannot be read, by reason.

    Args:
        refused: Key to the reason.
        total: How many keys the file has.
    """
    return f"{len(refused)} of {total} tensors cannot be read: {reasons_in_words(refused)}; --partial leaves them out"


def lora_of_concept(concept: Concept, *, partial: bool = False) -> LoraFile:
    """Return a concept of ours as a LoRA file; its tokens become one embedding of as many vectors.

    Args:
        concept: The concept.
        partial: Leave tokens out that are more than vectors.

    Raises:
        FileFormatError: If tokens have keys and values, or vectors for single layers.
    """
    manifest = concept.manifest
    table = layer_table(manifest.base.family)
    shapes = parameter_shapes(concept.layers, manifest.base.family)
    vectors = {layer for layer, shape in shapes.items() if len(shape) == 1}
    layers = {layer: change for layer, change in concept.layers.items() if layer not in vectors}
    left_out: dict[str, str] = {}
    embeddings = {}
    if concept.tokens:
        try:
            embeddings[f"<{concept.name}>"] = concept_embedding(concept)
        except ConfigurationError as error:
            if not partial:
                raise FileFormatError(f"{error}; --partial leaves them out") from error
            left_out = dict.fromkeys(concept.tokens, str(error))
    return LoraFile(
        name=concept.name,
        style="kohya",
        family=None if table is None else table.family,
        version=manifest.base.family if table is not None and _is_of(concept, table.weights) else None,
        layers=layers,
        windows={layer: (shape[2], shape[3]) for layer, shape in shapes.items() if len(shape) == 4},
        differences={
            layer if layer.endswith(BIAS) else f"{layer}.weight": concept.layers[layer].delta()[:, 0]
            for layer in sorted(vectors)
        },
        embeddings=embeddings,
        metadata={
            "modelspec.sai_model_spec": "1.0.0",
            "modelspec.title": manifest.name,
            "modelspec.trigger_phrase": manifest.trigger,
            "modelspec.date": manifest.created,
            "ss_output_name": manifest.name,
        },
        left_out=left_out,
        path=concept.path,
    )


def _is_of(concept: Concept, versions: Mapping[str, Mapping[str, tuple[int, ...]]]) -> bool:
    """True if every layer of a concept has the shape that its base's version has."""
    shapes = versions[concept.manifest.base.family]
    own = {layer: change.shape for layer, change in concept.layers.items()}
    return all(
        shape == (shapes[layer][0], math.prod(shapes[layer][1:]))
        if layer in shapes
        else layer.removesuffix(BIAS) in shapes and shape == (shapes[layer.removesuffix(BIAS)][0], 1)
        for layer, shape in own.items()
    )


def _is_refused(keys: Mapping[str, str], refused: Mapping[str, str]) -> bool:
    return any(key in refused for key in keys.values())
