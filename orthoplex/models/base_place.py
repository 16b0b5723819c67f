"""Where a base is: a folder, the hub's cache, or a checkpoint file beside the settings of its family."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from orthoplex import vignette
from orthoplex.errors import BaseModelError, FileFormatError
from orthoplex.files import read_header
from orthoplex.models.base_choice import BaseChoice, BaseName, choice_of
from orthoplex.models.families import FAMILIES
from orthoplex.models.families.form_of_checkpoints import (
    CHECKPOINTS,
    OTHER_SCHEDULE,
    SCHEDULE_MARKS,
    CheckpointForm,
    checkpoint_class,
)
from orthoplex.models.hub import HubName, cached_pipeline, fetched_pipeline
from orthoplex.models.pipeline_folder import index_path
from orthoplex.models.versions import EMBEDDED
from orthoplex.models.weight_files import CheckpointPart, WeightFiles, find_weights


@final
@dataclass(frozen=True)
class BasePlace:
    """Where the files of a base are.

    Attributes:
        choice: What was asked for.
        name: The name of the base, as concepts say it.
        folder: Its pipeline folder; that of the settings for a checkpoint file.
        held: For a checkpoint file: component to its weights; components that are not named are read from the folder.
        kind: For a checkpoint file: the pipeline class of its family.
        schedule: Settings of the scheduler that a checkpoint file holds itself, whatever its folder says.
        is_of_hub: True for a folder in the hub's cache.
    """

    choice: BaseChoice
    name: str
    folder: Path
    held: Mapping[str, CheckpointPart] = field(default_factory=dict)
    kind: str | None = None
    schedule: Mapping[str, object] = field(default_factory=dict)
    is_of_hub: bool = False

    @property
    def is_embedded(self) -> bool:
        """True for the embedded base."""
        return self.choice.name == EMBEDDED

    def weights(self, component: str) -> WeightFiles | None:
        """Return the files of a component's weights, as ``find_weights`` does."""
        part = self.held.get(component)
        if part is not None:
            return WeightFiles((part.path,), part.path, part=part)
        return find_weights(self.folder / component, component, self.choice.variant)


def base_place(base: BaseName) -> BasePlace:
    """Return where a base is; whether a base is there is what ``read_index`` says.

    Args:
        base: As for ``load_base``.

    Raises:
        BaseModelError: If it is a name on the hub that its cache lacks, or a checkpoint file that lacks settings.
    """
    choice = choice_of(base)
    if choice.name == EMBEDDED:
        return BasePlace(choice, EMBEDDED, vignette.folder())
    path = Path(choice.name)
    if choice.name and not os.path.lexists(path) and (name := HubName.of(choice.name)) is not None:
        folder = _pipeline_of(name, choice)
        if folder is None:
            raise BaseModelError(
                f"base '{choice}' is no folder, nor in the hub's cache, and Orthoplex fetches nothing unasked; "
                f"give --download (download=True), or run 'hf download {name.owner_and_name}'"
            )
        return BasePlace(choice, name.owner_and_name, folder, is_of_hub=True)
    if path.is_file() and path.suffix.lower() == ".safetensors":
        return _checkpoint_place(choice, path) or BasePlace(choice, path.stem, path)
    if choice.config is not None:
        raise BaseModelError(f"config is '{choice.config}' and base '{choice}' is no checkpoint file; allowed is none")
    return BasePlace(choice, path.resolve().name, path)


def _pipeline_of(name: HubName, choice: BaseChoice, without: Collection[str] = ()) -> Path | None:
    if choice.download:
        return fetched_pipeline(name, variant=choice.variant, without=without)
    return cached_pipeline(name)


def _checkpoint_place(choice: BaseChoice, path: Path) -> BasePlace | None:
    """Return the place of a checkpoint file; None for other files, which ``read_index`` names."""
    try:
        header = read_header(path)
    except FileFormatError:
        return None
    kind = checkpoint_class(header.entries)
    if kind is None or kind not in FAMILIES or "orthoplex" in header.metadata:
        return None
    held = CHECKPOINTS[kind].held(header.entries)
    if next(iter(CHECKPOINTS[kind].parts)) not in held:
        return None
    if choice.variant is not None:
        raise BaseModelError(f"variant is '{choice.variant}' and base '{choice}' is a checkpoint file; allowed is none")
    if others := sorted(name for name in header.entries if name.startswith(OTHER_SCHEDULE)):
        raise BaseModelError(
            f"base '{choice}' holds {', '.join(others)}: its denoiser was trained on the schedule of EDM, which is not "
            "supported; allowed are files whose denoiser predicts epsilon or v"
        )
    schedule = {
        key: value for mark in SCHEDULE_MARKS if mark in header.entries for key, value in SCHEDULE_MARKS[mark].items()
    }
    folder = _settings_folder(choice, CHECKPOINTS[kind], held)
    parts = {component: CheckpointPart(path, names) for component, names in held.items()}
    return BasePlace(choice, path.stem, folder, parts, kind, schedule)


def _settings_folder(choice: BaseChoice, form: CheckpointForm, held: Collection[str]) -> Path:
    """Return the pipeline folder whose settings a checkpoint file takes, and whose weights for what it does not hold.

    Raises:
        BaseModelError: If there is none; says what is missing, and what to give.
    """
    if choice.config is not None:
        name = None if os.path.lexists(choice.config) else HubName.of(choice.config)
        folder = Path(choice.config) if name is None else _pipeline_of(name, choice, held)
        if folder is None or not index_path(folder).is_file():
            raise BaseModelError(
                f"config is '{choice.config}'; allowed is a pipeline folder of {form.title}, or the name of one in the "
                "hub's cache"
            )
        return folder
    names = [HubName(name) for name in form.configs]
    name = next((name for name in names if cached_pipeline(name) is not None), names[0] if names else None)
    folder = None if name is None else _pipeline_of(name, choice, held)
    if folder is None:
        fetch = f", or let --download fetch those of {names[0]} once" if names else ""
        raise BaseModelError(
            f"base '{choice}' is a checkpoint file of {form.title}, which holds no settings and no tokenizer; give "
            f"--base-config FOLDER (config=FOLDER), the pipeline folder of the {form.title} that it was made from"
            f"{fetch}"
        )
    return folder
