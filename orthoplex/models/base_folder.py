"""The folder of a base and its ``model_index.json``; for everything else a line says what it is and what to give."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orthoplex import vignette
from orthoplex.errors import BaseModelError, FileFormatError
from orthoplex.files import is_pointer, read_header, read_json, summary_of
from orthoplex.models.families import FAMILIES
from orthoplex.models.pipeline_folder import INDEX_NAME
from orthoplex.models.versions import EMBEDDED
from orthoplex.models.weight_files import WeightFiles, stem

CHECKPOINTS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf")
"""Endings of files that hold a whole model, or a change of one."""
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_CONVERT = (
    "diffusers makes a folder of it: StableDiffusionPipeline.from_single_file(FILE).save_pretrained(FOLDER); "
    "give that folder"
)
_SINGLE = (".safetensors", ".fp16.safetensors", ".bin", ".fp16.bin")
_OBJECTS = {"config.json", "scheduler_config.json", "tokenizer_config.json", "tokenizer.json", "vocab.json"}
_NUM_SHOWN = 3


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


def check_weight_files(component: str, folder: Path, files: WeightFiles | None) -> None:
    """Refuse a component's folder whose weights are missing, damaged, or pointers to what git-lfs has not fetched.

    Args:
        component: The component's name.
        folder: Its folder.
        files: What ``find_weights`` returned for it.

    Raises:
        BaseModelError: Names the file, or the files that are needed.
    """
    if not folder.is_dir():
        raise BaseModelError(f"its folder '{component}' is missing, which {INDEX_NAME} names")
    check_json_files(component, folder)
    if not (folder / "config.json").is_file():
        raise BaseModelError(f"{component}/config.json is missing, which its network is built by")
    weights = sorted(path.name for path in folder.iterdir() if path.suffix in CHECKPOINTS and path.is_file())
    pickles = stem(component, is_pickle=True)
    single = {f"{name}{mark}" for name in (stem(component), pickles) for mark in _SINGLE}
    if files is None and not single.intersection(weights):
        there = f"; there are {_shown(weights)}" if weights else ""
        raise BaseModelError(
            f"{component} has no weights; allowed are {stem(component)}.safetensors or {pickles}.bin, with .fp16 or "
            f"another variant before the ending, or in shards{there}"
        )
    if files is None:
        return
    for path in files.files:
        if not path.is_file():
            raise BaseModelError(f"{component}/{path.name} is missing, which {files.main.name} names")
        _check_whole(component, path, files)


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


def _check_whole(component: str, path: Path, files: WeightFiles) -> None:
    if not files.is_safetensors:
        return
    try:
        read_header(path).check_whole(path)
    except FileFormatError as error:
        raise BaseModelError(
            f"{component}/{path.name} is damaged: {str(error).removeprefix(f'{path}: ')}; copy or download it again"
        ) from error


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
        return f"a checkpoint file; allowed is a pipeline folder: {_CONVERT}"
    try:
        header = read_header(path)
    except FileFormatError as error:
        return f"a damaged file ({str(error).removeprefix(f'{path}: ')}); allowed is a pipeline folder"
    if "orthoplex" in header.metadata:
        return "a concept file; give it as a concept, with the base that it was trained on"
    if any("lora" in name.lower() for name in header.entries):
        return "a LoRA file, a change of a base; give the pipeline folder of the base that it was trained on"
    return f"a checkpoint file; allowed is a pipeline folder: {_CONVERT}"


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
        return f"; give a folder in it: {_shown([str(item.parent) for item in inner])}"
    if "adapter_config.json" in names or "pytorch_lora_weights.safetensors" in names:
        return "; it holds a LoRA, a change of a base; give the pipeline folder of that base"
    checkpoints = [name for name in names if name.endswith(CHECKPOINTS)]
    if checkpoints:
        return f"; it holds {_shown(checkpoints)}: {_CONVERT}"
    return f"; it holds {_shown(names)}"


def _shown(names: list[str]) -> str:
    return ", ".join(names[:_NUM_SHOWN]) + (", …" if len(names) > _NUM_SHOWN else "")
