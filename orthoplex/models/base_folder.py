"""The folder of a base and its ``model_index.json``; for everything else a line says what it is and what to give."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from orthoplex import vignette
from orthoplex.errors import BaseModelError, FileFormatError
from orthoplex.files import Header, is_pointer, read_header, read_json, summary_of
from orthoplex.models.families import FAMILIES
from orthoplex.models.pipeline_folder import INDEX_NAME
from orthoplex.models.problems import first_of
from orthoplex.models.versions import EMBEDDED
from orthoplex.models.weight_files import WeightFiles, has_single_file, stem

CHECKPOINTS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf")
"""Endings of files that hold a whole model, or a change of one."""
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_FOLDER_OF = (
    "diffusers makes a folder of it: StableDiffusionPipeline.from_single_file(FILE).save_pretrained(FOLDER); "
    "give that folder"
)
_STABLE_DIFFUSION = ("cond_stage_model.", "model.diffusion_model.input_blocks.")
_XL = ("conditioner.embedders.1.", "model.diffusion_model.label_emb.", "conditioner.embedders.0.transformer.")
"""Beginnings of names in the files of Stable Diffusion 1 and 2 as one file, and of Stable Diffusion XL."""
_WHOLE_NUMBERS = {"I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64", "BOOL"}
_OBJECTS = {"config.json", "scheduler_config.json", "tokenizer_config.json", "tokenizer.json", "vocab.json"}


def base_folder(name_or_path: str | Path) -> Path:
    """Return the folder of a base, the embedded one's for its name."""
    return vignette.folder() if str(name_or_path) == EMBEDDED else Path(name_or_path)


def read_index(name_or_path: str | Path) -> Mapping[str, Any]:
    """Return the values of the ``model_index.json`` of a base whose class has a family.

    Args:
        name_or_path: ``"vignette"`` or a pipeline folder.

    Raises:
        BaseModelError: Says what is there instead, and what to give.
    """
    folder, shown = base_folder(name_or_path), f"base '{name_or_path}'"
    if not str(name_or_path) or not os.path.lexists(folder):
        raise BaseModelError(
            f"{shown} is no folder, allowed are '{EMBEDDED}' and pipeline folders{_of_the_hub(str(name_or_path))}"
        )
    if not folder.is_dir():
        raise BaseModelError(f"{shown} is {_file_kind(folder)}")
    path = folder / INDEX_NAME
    try:
        index = read_json(path)
        name = index["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        hint = _hint(folder)
        raise BaseModelError(f"{shown} is no pipeline folder: no class name in {path.name}{hint}") from error
    if not isinstance(name, str) or name not in FAMILIES:
        raise BaseModelError(f"{shown} is a {name}, supported are {', '.join(sorted(FAMILIES))}")
    return index


def check_weight_files(component: str, folder: Path, files: WeightFiles | None) -> dict[Path, Header] | None:
    """Return the headers of a component's weights; refuse weights that are missing, damaged, or not fetched by git-lfs.

    Args:
        component: The component's name.
        folder: Its folder.
        files: What ``find_weights`` returned for it.

    Returns:
        File to header; None for pickles, and where only the library knows the files.

    Raises:
        BaseModelError: Names the file, or the files that are needed.
    """
    if not folder.is_dir():
        raise BaseModelError(f"its folder '{component}' is missing, which {INDEX_NAME} names")
    check_json_files(component, folder)
    if not (folder / "config.json").is_file():
        raise BaseModelError(f"{component}/config.json is missing, which its network is built by")
    if files is None and not has_single_file(folder, component):
        weights = sorted(path.name for path in folder.iterdir() if path.suffix in CHECKPOINTS and path.is_file())
        there = f"; there are {first_of(weights)}" if weights else ""
        pickle = stem(component, is_pickle=True)
        raise BaseModelError(
            f"{component} has no weights; allowed are {stem(component)}.safetensors or {pickle}.bin, with .fp16 or "
            f"another variant before the ending, or in shards{there}"
        )
    if files is None:
        return None
    for path in files.files:
        if not path.is_file():
            raise BaseModelError(f"{component}/{path.name} is missing, which {files.main.name} names")
    return {path: _whole_header(component, path) for path in files.files} if files.is_safetensors else None


def quantised_form(folder: Path) -> str | None:
    """Return the method by which the weights in a component's folder are quantised; None for plain ones.

    Args:
        folder: The component's folder, with ``config.json`` as diffusers writes it.
    """
    try:
        values = read_json(folder / "config.json")
        method = values["quantization_config"]["quant_method"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(method)


def check_json_files(component: str, folder: Path) -> None:
    """Refuse files of a component that are pointers of git-lfs, or JSON files of anything but an object.

    The libraries take a text in the place of an object for a name, and ask the net for it.

    Raises:
        BaseModelError: Names the file.
    """
    for path in sorted(folder.iterdir()):
        if is_pointer(path):
            raise BaseModelError(
                f"{component}/{path.name} is a git-lfs pointer, not the file itself; 'git lfs pull' in the folder "
                "fetches it"
            )
        if path.name not in _OBJECTS:
            continue
        try:
            values = read_json(path)
        except (OSError, ValueError) as error:
            raise BaseModelError(f"{component}/{path.name} is damaged: {summary_of(error)}") from error
        if not isinstance(values, dict):
            raise BaseModelError(f"{component}/{path.name} holds {str(values)[:20]!r}; allowed is a JSON object")


def _whole_header(component: str, path: Path) -> Header:
    try:
        header = read_header(path)
        header.check_whole(path)
    except FileFormatError as error:
        raise BaseModelError(
            f"{component}/{path.name} is damaged: {str(error).removeprefix(f'{path}: ')}; copy or download it again"
        ) from error
    if quantised_form(path.parent) is not None:
        return header
    whole = [name for name, entry in header.entries.items() if entry.dtype in _WHOLE_NUMBERS and _is_weight(name)]
    if whole:
        raise BaseModelError(
            f"{component}/{path.name} holds whole numbers in the place of weights: {first_of(whole)}; allowed are "
            "plain weights of 16 or 32 bits, not quantised ones"
        )
    return header


def _is_weight(name: str) -> bool:
    return name.endswith((".weight", ".bias"))


def _of_the_hub(name: str) -> str:
    if _ADDRESS.match(name):
        return "; an address is not read: download the folder first, and give it"
    if not _HUB_NAME.fullmatch(name):
        return ""
    return f"; Orthoplex downloads nothing: 'hf download {name} --local-dir FOLDER' does; give FOLDER"


def _file_kind(path: Path) -> str:
    """Return what a file is that was given as a base, and what to do."""
    if path.name == INDEX_NAME:
        return f"a file; give its folder '{path.parent}'"
    if is_pointer(path):
        return "a git-lfs pointer to a file that was not fetched; allowed is a pipeline folder"
    if path.suffix not in CHECKPOINTS:
        return f"a file; allowed are '{EMBEDDED}' and pipeline folders"
    if path.suffix != ".safetensors":
        return f"a checkpoint file; allowed is a pipeline folder: if it is Stable Diffusion 1 or 2, {_FOLDER_OF}"
    try:
        header = read_header(path)
    except FileFormatError as error:
        return f"a damaged file ({str(error).removeprefix(f'{path}: ')}); allowed is a pipeline folder"
    if "orthoplex" in header.metadata:
        return "a concept file; give it as a concept, with the base that it was trained on"
    if any("lora" in name.lower() for name in header.entries):
        return "a LoRA file, a change of a base; give the pipeline folder of the base that it was trained on"
    return _checkpoint_kind(header.entries)


def _checkpoint_kind(names: Iterable[str]) -> str:
    """Return the model of which a file holds the weights, by their names, and what to do."""
    if any(name.startswith(_XL) for name in names):
        return (
            "a checkpoint file of Stable Diffusion XL, which is not supported yet; allowed are Stable Diffusion 1 and 2"
        )
    if any(name.startswith(_STABLE_DIFFUSION) for name in names):
        return f"a checkpoint file of Stable Diffusion; allowed is a pipeline folder: {_FOLDER_OF}"
    return "a file of weights, but of no Stable Diffusion 1 or 2; allowed is a pipeline folder of one of them"


def _hint(folder: Path) -> str:
    """Return what a folder without a usable ``model_index.json`` is, and which to give."""
    path = folder / INDEX_NAME
    if is_pointer(path):
        return ", which is a git-lfs pointer; 'git lfs pull' in the folder fetches it"
    if path.is_file():
        return ""
    names = sorted(item.name for item in folder.iterdir())
    if not names:
        return "; the folder is empty"
    if (folder.resolve().parent / INDEX_NAME).is_file():
        return f"; it is one part of a pipeline, give '{folder.parent}'"
    inner = sorted({*folder.glob(f"*/{INDEX_NAME}"), *folder.glob(f"snapshots/*/{INDEX_NAME}")})
    if inner:
        return f"; give a folder in it: {first_of([str(item.parent) for item in inner])}"
    if "adapter_config.json" in names or "pytorch_lora_weights.safetensors" in names:
        return "; it holds a LoRA, a change of a base; give the pipeline folder of that base"
    checkpoints = [name for name in names if name.endswith(CHECKPOINTS)]
    if checkpoints:
        return f"; it holds {first_of(checkpoints)}; {checkpoints[0]} is {_file_kind(folder / checkpoints[0])}"
    return f"; it holds {first_of(names)}"
