"""What is inside a pipeline folder, written so that old and new releases of diffusers and transformers read it alike.

CLIP's text encoders keep ``text_model.`` in the names of their weights, tokenizers come as ``vocab.json`` with
``merges.txt`` and as ``tokenizer.json``, and a text encoder's configuration names float32, the type in which diffusers
loads the other networks without one. Nothing names a place on this machine.
"""

from __future__ import annotations

import json
import ntpath
import posixpath
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from orthoplex.errors import BaseModelError, ConfigurationError
from orthoplex.files import read_json, write_json
from orthoplex.models.layer_names import is_text_encoder, portable_path
from orthoplex.models.pipeline_folder import INDEX_NAME, MODULAR_INDEX_NAME, plain_index
from orthoplex.models.weight_files import stem, write_weights

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
"""The types that weights may be written in."""
_WRAPPED = ("base_layer", "lora_A", "lora_B", "_orig_mod")
_LOCAL = frozenset(
    ("_name_or_path", "name_or_path", "tokenizer_file", "vocab_file", "merges_file", "special_tokens_map_file")
    + ("is_local", "local_files_only")
)
"""Keys of configurations that tell where something was loaded from."""


def check_dtype(dtype: torch.dtype | None) -> None:
    """Refuse a type that weights are not written in; None is the type that they have.

    Raises:
        ConfigurationError: If it is none of ``DTYPES``.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ConfigurationError(f"dtype is {dtype}, allowed are {', '.join(map(str, DTYPES))}")


def check_pipeline_content(pipeline: Any, dtype: torch.dtype | None) -> None:  # noqa: ANN401
    """Refuse what no plain pipeline folder can hold.

    Raises:
        ConfigurationError: If the type is none of ``DTYPES``.
        BaseModelError: If a network holds LoRA weights, is compiled, or has weights without numbers.
    """
    check_dtype(dtype)
    for component, network in _networks(pipeline).items():
        for name, values in network.state_dict().items():
            if any(mark in name.split(".") for mark in _WRAPPED):
                raise BaseModelError(
                    f"{component}.{name} is no plain weight; unload LoRAs and save the pipeline that is not compiled"
                )
            if values.is_meta or not (values.is_floating_point() and values.dtype.itemsize > 1) and values.ndim > 1:
                raise BaseModelError(
                    f"{component}.{name} is {values.dtype} on {values.device}; allowed are plain weights of "
                    "16 or 32 bits in memory"
                )


def write_pipeline(
    pipeline: Any,  # noqa: ANN401  (pipelines share no typed parent)
    folder: Path,
    *,
    dtype: torch.dtype | None = None,
    stored_dtypes: Mapping[str, torch.dtype] | None = None,
) -> None:
    """Write the pipeline's files; the pipeline stays as it is.

    Args:
        pipeline: What to write.
        folder: A new folder.
        dtype: The type of all weights in the files.
        stored_dtypes: Without ``dtype``: component to the type of its weights in the files, unless it is wider than
            that of the weights in memory. Components that are not named keep the latter.

    Raises:
        ConfigurationError: If a weight is too large for its type.
        OSError: If a file cannot be written.
    """
    folder.mkdir(exist_ok=True)
    networks, stored = _networks(pipeline), _stored(pipeline)
    for name, component in stored.items():
        place = folder / name
        if name not in networks:
            component.save_pretrained(place)
            continue
        place.mkdir()
        _write_config(component, place)
        written = _stored_dtype(component, (stored_dtypes or {}).get(name)) if dtype is None else dtype
        weights = component.state_dict()
        if is_text_encoder(name):
            weights = {portable_path(path): values for path, values in weights.items()}
        write_weights(weights, place / f"{stem(name)}.safetensors", written)
    pipeline.save_config(folder)
    if pipeline.config_name == MODULAR_INDEX_NAME:
        _complete_index(folder)
    for name, component in stored.items():
        if (folder / name / "tokenizer_config.json").is_file():
            _complete_tokenizer(component, folder / name)
    for path in sorted(folder.rglob("*.json")):
        forget_machine(path)


def _networks(pipeline: Any) -> dict[str, nn.Module]:  # noqa: ANN401
    return {name: network for name, network in pipeline.components.items() if isinstance(network, nn.Module)}


def _stored(pipeline: Any) -> dict[str, Any]:  # noqa: ANN401
    """The components that a folder holds: a modular pipeline makes some itself, which its index does not name."""
    is_modular = pipeline.config_name == MODULAR_INDEX_NAME
    return {
        name: component
        for name, component in pipeline.components.items()
        if component is not None and (not is_modular or name in pipeline.config)
    }


def _complete_index(folder: Path) -> None:
    """Let a modular pipeline's index name the folder's own parts, and add the index that everyone reads."""
    values = read_json(folder / MODULAR_INDEX_NAME)
    for name, entry in values.items():
        if isinstance(entry, list):
            own = {"subfolder": name, "pretrained_model_name_or_path": None, "variant": None, "revision": None}
            entry[2] = {**entry[2], **own, "type_hint": entry[:2]}
    write_config(folder / MODULAR_INDEX_NAME, values)
    write_config(folder / INDEX_NAME, plain_index(values))


def _stored_dtype(network: nn.Module, stored: torch.dtype | None) -> torch.dtype | None:
    own = next(network.parameters()).dtype
    return stored if stored is not None and stored.itemsize <= own.itemsize else None


def _write_config(network: Any, folder: Path) -> None:  # noqa: ANN401  (a network of one of two libraries)
    if not isinstance(network.config, Mapping):  # transformers
        network.config.save_pretrained(folder)
        path = folder / "config.json"
        values = read_json(path)
        values.pop("dtype", None)
        # The older name of the type is the one that all releases read.
        write_config(path, values | {"architectures": [type(network).__name__], "torch_dtype": "float32"})
        return
    network.save_config(folder)


def _complete_tokenizer(tokenizer: Any, folder: Path) -> None:  # noqa: ANN401  (a tokenizer of transformers)
    """Add the files that only older releases read, if newer ones have left them out."""
    fast, config = folder / "tokenizer.json", folder / "tokenizer_config.json"
    model = read_json(fast).get("model", {}) if fast.is_file() else {}
    if model.get("type") == "BPE":
        merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
        numbers = dict(sorted(model["vocab"].items(), key=lambda item: item[1]))
        (folder / "vocab.json").write_text(json.dumps(numbers, ensure_ascii=False) + "\n", "utf-8")
        (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", "utf-8")
    added = {
        str(number): {
            "content": token.content,
            "lstrip": token.lstrip,
            "normalized": token.normalized,
            "rstrip": token.rstrip,
            "single_word": token.single_word,
            "special": token.special,
        }
        for number, token in sorted(tokenizer.added_tokens_decoder.items())
    }
    write_config(config, read_json(config) | {"added_tokens_decoder": added})


def forget_machine(path: Path) -> None:
    """Remove the values of a JSON file that name a place on this machine."""
    values = read_json(path) if path.name not in ("tokenizer.json", "vocab.json") else None
    if not isinstance(values, dict):
        return
    portable = {key: value for key, value in values.items() if key not in _LOCAL and not _is_local_path(value)}
    if portable != values:
        write_config(path, portable)


def _is_local_path(value: object) -> bool:
    return isinstance(value, str) and (posixpath.isabs(value) or ntpath.isabs(value))


def write_config(path: Path, values: Mapping[str, Any], *, sort: bool = True) -> None:
    """Write a JSON file as diffusers and transformers do; schedules may hold infinities."""
    write_json(path, values, sort=sort, indent=2, finite=False)
