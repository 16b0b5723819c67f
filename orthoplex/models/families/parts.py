"""The parts of a pipeline folder that a family loads itself: their classes, as ``model_index.json`` names them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from orthoplex.errors import BaseModelError
from orthoplex.files import summary_of
from orthoplex.models.base_folder import check_json_files
from orthoplex.models.networks import load_network
from orthoplex.models.pipeline_folder import INDEX_NAME
from orthoplex.models.problems import all_done
from orthoplex.models.quiet import quiet
from orthoplex.models.weight_files import WeightFiles

with quiet():
    import diffusers
    import transformers
    from diffusers.schedulers.scheduling_utils import SchedulerMixin
    from diffusers.utils.import_utils import DummyObject
    from transformers import PreTrainedTokenizerBase

_LIBRARIES = {"diffusers": diffusers, "transformers": transformers}
_VOCABULARIES = (("tokenizer.json",), ("vocab.json", "merges.txt"))
"""The files of a tokenizer, either of them."""


def network_class(index: Mapping[str, Any], component: str, allowed: Sequence[Any]) -> Any:  # noqa: ANN401
    """Return the class of a network.

    Args:
        index: The values of ``model_index.json``.
        component: The component's name.
        allowed: The classes that the family knows how to use.

    Raises:
        BaseModelError: If the index names none, or another; names the classes that are allowed.
    """
    library, name = named_class(index, component)
    kind = getattr(_LIBRARIES.get(library), name, None)
    if kind not in allowed:
        names = ", ".join(item.__name__ for item in allowed)
        raise BaseModelError(f"{component} is {_shown(library, name)}, allowed are {names}")
    return kind


def named_class(index: Mapping[str, Any], component: str) -> tuple[str, str]:
    """Return the library and the class that ``model_index.json`` names for a component.

    Raises:
        BaseModelError: If it names none.
    """
    entry = index.get(component)
    match entry:
        case [str(library), str(name)]:
            return library, name
        case None | [None, None]:
            raise BaseModelError(f"{INDEX_NAME} names no {component}; a base needs it")
        case _:
            raise BaseModelError(f"{INDEX_NAME} says {entry!r} for {component}; allowed is [library, class]")


def check_part(index: Mapping[str, Any], component: str, folder: Path) -> None:
    """Refuse a tokenizer or a scheduler of another class, or whose folder is not whole.

    Args:
        index: The values of ``model_index.json``.
        component: The component's name; those of tokenizers end with ``tokenizer``, ``tokenizer_2`` or ``tokenizer_3``.
        folder: The component's folder.

    Raises:
        BaseModelError: Says what is wrong, and what is allowed.
    """
    library, name = named_class(index, component)
    kind: Any = getattr(_LIBRARIES.get(library), name, None)
    if not component.endswith(("tokenizer", "tokenizer_2", "tokenizer_3")):
        is_scheduler = inspect.isclass(kind) and (issubclass(kind, SchedulerMixin) or isinstance(kind, DummyObject))
        if library != "diffusers" or not is_scheduler:
            raise BaseModelError(f"{component} is {_shown(library, name)}, allowed are schedulers of diffusers")
        if not (folder / "scheduler_config.json").is_file():
            raise BaseModelError(f"{component}/scheduler_config.json is missing, which a {name} needs")
        check_json_files(component, folder)
        return
    if not (inspect.isclass(kind) and issubclass(kind, PreTrainedTokenizerBase)):
        raise BaseModelError(f"{component} is {_shown(library, name)}, allowed are tokenizers of transformers")
    if not folder.is_dir():
        raise BaseModelError(f"its folder '{component}' is missing, which {INDEX_NAME} names")
    check_json_files(component, folder)
    if not any(all((folder / file).is_file() for file in files) for files in _VOCABULARIES):
        raise BaseModelError(
            f"{component} has no words; allowed are {' or '.join(' with '.join(files) for files in _VOCABULARIES)}"
        )


def load_part(index: Mapping[str, Any], component: str, folder: Path) -> Any:  # noqa: ANN401
    """Load a tokenizer or a scheduler, which ``check_part`` has checked.

    Args:
        index: The values of ``model_index.json``.
        component: The component's name.
        folder: The component's folder.

    Raises:
        BaseModelError: If it cannot be read, or needs a package that is not installed.
    """
    library, name = named_class(index, component)
    try:
        return getattr(_LIBRARIES[library], name).from_pretrained(folder, local_files_only=True)
    except Exception as error:  # noqa: BLE001  (a damaged folder makes the libraries raise anything)
        raise BaseModelError(f"{component} cannot be read: {summary_of(error)}") from error


def load_parts(
    parts: Sequence[str],
    folder: Path,
    index: Mapping[str, Any],
    files: Mapping[str, WeightFiles | None],
    dtype: torch.dtype,
    networks: Mapping[str, Sequence[Any]],
) -> dict[str, Any]:
    """Load every component of a pipeline.

    Args:
        parts: The components.
        folder: The pipeline folder.
        index: The values of ``model_index.json``.
        files: Component with weights to its files, or None to let the library search.
        dtype: Data type of the weights.
        networks: Component with weights to the classes that it may have.

    Raises:
        BaseModelError: See ``load_network`` and ``load_part``; a ``ProblemsError`` where several are wrong.
    """

    def load(part: str) -> Any:  # noqa: ANN401  (parts share no typed parent)
        if part not in networks:
            return load_part(index, part, folder / part)
        return load_network(network_class(index, part, networks[part]), folder / part, files[part], dtype)

    return all_done({part: partial(load, part) for part in parts})


def without_bars(pipeline: Any, folder: Path) -> Any:  # noqa: ANN401  (pipelines share no typed parent)
    """Return a pipeline that draws no bars and says where it comes from, as those that the library loads do."""
    pipeline.register_to_config(_name_or_path=str(folder))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _shown(library: str, name: str) -> str:
    if library in _LIBRARIES:
        return f"a {name}"
    return f"'{library}.{name}', which is code of its own and is not run"
