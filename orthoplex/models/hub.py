"""Pipelines of the hub: its cache on this machine, and what is fetched into it when that is asked for.

Cache, tokens and the switch to stay offline are those of ``huggingface_hub``, which reads its own settings.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, final

from orthoplex.errors import BaseModelError
from orthoplex.files import read_json, summary_of
from orthoplex.models.families import FAMILIES, family_of
from orthoplex.models.pipeline_folder import INDEX_NAME, MODULAR_INDEX_NAME, SETTINGS_SUFFIXES, index_path
from orthoplex.models.weight_files import find_weights, needed_weights

_LOG = logging.getLogger(__name__)
_NAME = re.compile(r"([A-Za-z0-9][\w.-]*/[\w-][\w.-]*)(?:@([\w./+-]+))?")
_GB = 1e9
_T = TypeVar("_T")


@final
@dataclass(frozen=True)
class HubName:
    """A pipeline on the hub.

    Attributes:
        owner_and_name: ``owner/name``.
        revision: A branch, a tag or a commit; None is the main branch.
    """

    owner_and_name: str
    revision: str | None = None

    @staticmethod
    def of(text: str) -> HubName | None:
        """Return the name that a text is, with or without ``@revision``; None for other texts."""
        match = _NAME.fullmatch(text)
        return None if match is None else HubName(match[1], match[2])

    def __str__(self) -> str:
        """As users write it."""
        return self.owner_and_name if self.revision is None else f"{self.owner_and_name}@{self.revision}"


def cached_pipeline(name: HubName) -> Path | None:
    """Return the folder of a pipeline in the hub's cache, whole or not; None if the cache has none. No net is used."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        folder = snapshot_download(
            name.owner_and_name,
            revision=name.revision,
            local_files_only=True,
            allow_patterns=[INDEX_NAME, MODULAR_INDEX_NAME],
        )
    except (OSError, ValueError, HFValidationError):
        return None
    return Path(folder) if index_path(Path(folder)).is_file() else None


def fetched_pipeline(name: HubName, *, variant: str | None = None, without: Collection[str] = ()) -> Path:
    """Return the folder of a pipeline in the hub's cache, after fetching the files that are needed and are not there.

    Weights are safetensors where there are any; code is never fetched.

    Args:
        name: The pipeline.
        variant: See ``BaseChoice``.
        without: Parts whose weights are not needed.

    Raises:
        BaseModelError: If the name is unknown or not open to this user, the pipeline is of no family, or the net is
            off; says what to do.
    """
    folder = cached_pipeline(name)
    if folder is not None and _is_whole(folder, variant, without):
        return folder
    from huggingface_hub import HfApi, snapshot_download

    where = {"repo_id": name.owner_and_name, "revision": name.revision}
    index = Path(_asked(name, lambda: _fetched_index(where)))
    kind = _class_name(index)
    if kind not in FAMILIES:
        raise BaseModelError(f"base '{name}' is a {kind}, supported are {', '.join(sorted(FAMILIES))}")
    siblings = _asked(name, lambda: HfApi().model_info(**where, files_metadata=True)).siblings or ()
    sizes = {item.rfilename: item.size or 0 for item in siblings}
    family = family_of(kind)
    files = needed_files(sizes, family.parts(), [part for part in family.weighed if part not in without], variant)
    _LOG.info(
        "fetching %s from the hub: %d files, %.2f GB, into its cache",
        name,
        len(files),
        sum(sizes[file] for file in files if file in sizes) / _GB,
    )
    return Path(_asked(name, lambda: snapshot_download(**where, allow_patterns=list(files))))


def needed_files(
    names: Collection[str], parts: Iterable[str], weighed: Collection[str], variant: str | None = None
) -> list[str]:
    """Return which files of a pipeline on the hub are fetched: its index, the settings of its parts, and weights.

    Args:
        names: All files, with ``/`` between folder and file.
        parts: The components that are read.
        weighed: Those of them whose weights are fetched.
        variant: See ``BaseChoice``.
    """
    chosen = [INDEX_NAME, *(name for name in names if name == MODULAR_INDEX_NAME)]
    for part in parts:
        own = {name.removeprefix(f"{part}/") for name in names if name.startswith(f"{part}/")}
        weights = needed_weights(own, part, variant) if part in weighed else []
        settings = sorted(name for name in own if name.endswith(SETTINGS_SUFFIXES) and ".index." not in name)
        chosen += [f"{part}/{name}" for name in (*settings, *weights)]
    return chosen


def _is_whole(folder: Path, variant: str | None, without: Collection[str]) -> bool:
    """Return True if nothing that is needed of a pipeline is missing in its folder."""
    kind = _class_name(index_path(folder))
    if kind not in FAMILIES:
        return True  # which the loader refuses better
    family = family_of(kind)
    if any(not (folder / part).is_dir() for part in family.parts()):
        return False
    files = [find_weights(folder / part, part, variant) for part in family.weighed if part not in without]
    fits = variant is None or any(item is not None and item.variant == variant for item in files)
    return fits and all(item is not None and all(path.is_file() for path in item.files) for item in files)


def _fetched_index(where: Mapping[str, Any]) -> str:
    from huggingface_hub import errors, hf_hub_download

    try:
        return hf_hub_download(**where, filename=INDEX_NAME)
    except errors.RemoteEntryNotFoundError:
        return hf_hub_download(**where, filename=MODULAR_INDEX_NAME)


def _class_name(index: Path) -> str:
    try:
        return str(read_json(index)["_class_name"])
    except (OSError, ValueError, KeyError, TypeError):
        return "pipeline without a class name"


def _asked(name: HubName, call: Callable[[], _T]) -> _T:
    """Return what the hub answers.

    Raises:
        BaseModelError: Says in one line why it does not, and what to do.
    """
    from huggingface_hub import errors

    kinds: Sequence[tuple[type[Exception], str]] = (
        (errors.GatedRepoError, "is open to those alone who accepted its terms: accept them on its page, and log in"),
        (errors.RepositoryNotFoundError, "is not on the hub, or not open to you; check the name, or 'hf auth login'"),
        (errors.RevisionNotFoundError, "has no such revision on the hub; allowed are its branches, tags and commits"),
        (
            errors.RemoteEntryNotFoundError,
            f"is no pipeline: the hub has no {INDEX_NAME} of it; give its checkpoint file",
        ),
        (errors.OfflineModeIsEnabled, "is not whole in the hub's cache, and HF_HUB_OFFLINE forbids to fetch it"),
        (errors.LocalEntryNotFoundError, "is not whole in the hub's cache, and the hub cannot be reached"),
    )
    try:
        return call()
    except Exception as error:  # noqa: BLE001  (the net raises anything)
        causes = [error, error.__cause__]
        for kind, line in kinds:
            if any(isinstance(cause, kind) for cause in causes):
                raise BaseModelError(f"base '{name}' {line}") from error
        raise BaseModelError(f"base '{name}' cannot be fetched from the hub: {summary_of(error)}") from error
