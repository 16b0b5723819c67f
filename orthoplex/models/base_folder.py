"""The folder of a base and its ``model_index.json``; for everything else a line says what it is and what to give."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orthoplex.errors import BaseModelError, FileFormatError
from orthoplex.files import Header, is_pointer, read_header, read_json, summary_of
from orthoplex.models.base_choice import BaseName
from orthoplex.models.base_place import BasePlace, base_place
from orthoplex.models.families import FAMILIES, defaults_of
from orthoplex.models.families.form_of_checkpoints import CHECKPOINTS, checkpoint_class
from orthoplex.models.pipeline_folder import INDEX_NAME, MODULAR_INDEX_NAME, index_path, plain_index
from orthoplex.models.problems import ProblemsError, first_of, problems_of
from orthoplex.models.shards import check_index, check_shards
from orthoplex.models.versions import EMBEDDED
from orthoplex.models.weight_files import CheckpointPart, WeightFiles, has_single_file, stem, variants_of

WEIGHT_SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf")
"""Endings of files that hold a whole model, or a change of one."""
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_WHOLE_NUMBERS = {"I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64", "BOOL"}
_OBJECTS = {"config.json", "scheduler_config.json", "tokenizer_config.json", "tokenizer.json", "vocab.json"}


def read_index(place: BasePlace) -> Mapping[str, Any]:
    """Return the values of the ``model_index.json`` of a base whose class has a family.

    Args:
        place: Where the base is.

    Raises:
        BaseModelError: Says what is there instead, and what to give.
    """
    folder, shown = place.folder, f"base '{place.choice}'"
    if not place.choice.name or not os.path.lexists(folder):
        raise BaseModelError(
            f"{shown} is no folder, allowed are '{EMBEDDED}', pipeline folders, names of the hub as owner/name, and "
            f"checkpoint files{_of_the_net(place.choice.name)}"
        )
    if not folder.is_dir():
        raise BaseModelError(f"{shown} is {_file_kind(folder)}")
    path = index_path(folder)
    try:
        index = plain_index(read_json(path))
        name = index["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        hint = _hint(folder)
        raise BaseModelError(f"{shown} is no pipeline folder: no class name in {path.name}{hint}") from error
    if not isinstance(name, str) or name not in FAMILIES:
        raise BaseModelError(f"{shown} is a {name}, supported are {', '.join(sorted(FAMILIES))}")
    if place.kind is not None and FAMILIES[name] is not FAMILIES[place.kind]:
        raise BaseModelError(
            f"{shown} is a checkpoint file of {CHECKPOINTS[place.kind].title}, and its settings in '{folder}' are of a "
            f"{name}; allowed are those of a {place.kind}"
        )
    return index


def training_defaults(base: BaseName) -> Mapping[str, Any]:
    """Return the training options of a base's family that have other defaults; the embedded base has none.

    Nothing is loaded. What is no base has none either, and ``load_base`` says why.

    Args:
        base: As for ``load_base``.
    """
    try:
        place = base_place(base)
        return {} if place.is_embedded else defaults_of(read_index(place)["_class_name"])
    except BaseModelError:
        return {}


def check_parts_held(place: BasePlace, weight_files: Mapping[str, WeightFiles | None]) -> None:
    """Refuse a variant that no component has, and a checkpoint file of which the folder lacks the other parts.

    Args:
        place: Where the base is.
        weight_files: Component with weights to its files, or None.

    Raises:
        BaseModelError: Names the variant, or the parts that are missing.
    """
    variant = place.choice.variant
    if variant is not None and all(files is None or files.variant != variant for files in weight_files.values()):
        known = sorted({name for part in weight_files for name in variants_of(place.folder / part, part)})
        raise BaseModelError(
            f"variant is '{variant}', allowed are {', '.join(known) or 'none: the weights have one form'}"
        )
    if not place.held:
        return
    absent = [part for part, files in weight_files.items() if files is None]
    if absent:
        raise BaseModelError(
            f"the file holds {', '.join(place.held)} alone, and the folder of its settings, '{place.folder}', no "
            f"weights of {', '.join(absent)}; give a pipeline folder that has them as --base-config FOLDER "
            "(config=FOLDER)"
        )


@contextmanager
def hub_advised(place: BasePlace) -> Iterator[None]:
    """Inside, errors about files that the hub's cache lacks say how they are fetched.

    Args:
        place: Where the base is.
    """
    try:
        yield
    except BaseModelError as error:
        if not place.is_of_hub or place.choice.download:
            raise
        lacking = (" is missing", " has no weights")
        cure = "; --download (download=True) fetches what the hub's cache lacks"
        lines = [line + cure if any(text in line for text in lacking) else line for line in problems_of(error)]
        raise ProblemsError(lines) from error


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
    if files is not None and files.part is not None:
        return checkpoint_header(files.part)
    if files is None and not has_single_file(folder, component):
        weights = sorted(path.name for path in folder.iterdir() if path.suffix in WEIGHT_SUFFIXES and path.is_file())
        there = f"; there are {first_of(weights)}" if weights else ""
        pickle = stem(component, is_pickle=True)
        raise BaseModelError(
            f"{component} has no weights; allowed are {stem(component)}.safetensors or {pickle}.bin, with .fp16 or "
            f"another variant before the ending, or in shards{there}"
        )
    if files is None:
        return None
    if files.has_index:
        check_index(component, files.main)
    for path in files.files:
        if not path.is_file():
            raise BaseModelError(f"{component}/{path.name} is missing, which {files.main.name} names")
    if not files.is_safetensors:
        return None
    headers = {path: _whole_header(f"{component}/{path.name}", path) for path in files.files}
    if files.has_index:
        check_shards(component, files.main, headers)
    return headers


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


def checkpoint_header(part: CheckpointPart) -> dict[Path, Header]:
    """Return the header of a checkpoint file with the tensors of one component alone.

    Raises:
        BaseModelError: If the file is damaged, or holds whole numbers in the place of weights.
    """
    return {part.path: part.of(_whole_header(part.path.name, part.path))}


def _whole_header(shown: str, path: Path) -> Header:
    try:
        header = read_header(path)
        header.check_whole(path)
    except FileFormatError as error:
        raise BaseModelError(
            f"{shown} is damaged: {str(error).removeprefix(f'{path}: ')}; copy or download it again"
        ) from error
    if quantised_form(path.parent) is not None:
        return header
    whole = [name for name, entry in header.entries.items() if entry.dtype in _WHOLE_NUMBERS and _is_weight(name)]
    if whole:
        raise BaseModelError(
            f"{shown} holds whole numbers in the place of weights: {first_of(whole)}; allowed are "
            "plain weights of 16 or 32 bits, not quantised ones"
        )
    return header


def _is_weight(name: str) -> bool:
    return name.endswith((".weight", ".bias"))


def _of_the_net(name: str) -> str:
    return "; an address is not read: download what it names first" if _ADDRESS.match(name) else ""


def _file_kind(path: Path) -> str:
    """Return what a file is that was given as a base and is none, and what to do."""
    if path.name in (INDEX_NAME, MODULAR_INDEX_NAME):
        return f"a file; give its folder '{path.parent}'"
    if is_pointer(path):
        return "a git-lfs pointer to a file that was not fetched; 'git lfs pull' in its folder fetches it"
    if path.suffix not in WEIGHT_SUFFIXES:
        return f"a file; allowed are '{EMBEDDED}', pipeline folders and checkpoint files"
    if path.suffix != ".safetensors":
        return "a file of weights of another form; allowed are pipeline folders and .safetensors checkpoint files"
    try:
        header = read_header(path)
    except FileFormatError as error:
        return f"a damaged file ({str(error).removeprefix(f'{path}: ')}); allowed is a whole one"
    if "orthoplex" in header.metadata:
        return "a concept file; give it as a concept, with the base that it was trained on"
    if any("lora" in name.lower() for name in header.entries):
        return "a LoRA file, a change of a base; give the base that it was trained on"
    kind = checkpoint_class(header.entries)
    known = ", ".join(CHECKPOINTS[name].title for name in FAMILIES if name in CHECKPOINTS)
    if kind is None:
        return f"a file of weights, but of no known base; allowed are checkpoint files of {known}"
    if kind in FAMILIES:
        return f"a file of weights of {CHECKPOINTS[kind].title} without its denoiser; allowed is a file that holds it"
    return f"a checkpoint file of {CHECKPOINTS[kind].title}, which is not supported; allowed are those of {known}"


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
    if index_path(folder.resolve().parent).is_file():
        return f"; it is one part of a pipeline, give '{folder.parent}'"
    inside = (*folder.glob("*"), *folder.glob("snapshots/*"))
    inner = sorted({index_path(item) for item in inside if index_path(item).is_file()})
    if inner:
        return f"; give a folder in it: {first_of([str(item.parent) for item in inner])}"
    if "adapter_config.json" in names or "pytorch_lora_weights.safetensors" in names:
        return "; it holds a LoRA, a change of a base; give the pipeline folder of that base"
    checkpoints = [name for name in names if name.endswith(WEIGHT_SUFFIXES)]
    if checkpoints:
        return f"; it holds {first_of(checkpoints)}; {checkpoints[0]} is {_file_kind(folder / checkpoints[0])}"
    return f"; it holds {first_of(names)}"
