"""``orthoplex check``: the account of a folder of pictures, or of a base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orthoplex.cli.base_arguments import BASE_HELP, BaseConfigOption, DownloadOption, VariantOption, chosen_base
from orthoplex.cli.console import ERROR_EXIT, argument_folder, errors_shown
from orthoplex.cli.streams import note, say, say_json
from orthoplex.concepts import kind_of, token_names
from orthoplex.errors import ConfigurationError
from orthoplex.files import one_line

if TYPE_CHECKING:
    from orthoplex.models import BaseChoice
    from orthoplex.training import DataFolder

_EMBEDDED, _PIPELINES = "vignette", ("model_index.json", "modular_model_index.json")
_PARTS = ("unet", "transformer", "vae", "text_encoder")


def check(
    folder: Annotated[
        Path,
        typer.Argument(
            parser=argument_folder,
            metavar="FOLDER",
            help=f"Folder of pictures; or a base: {BASE_HELP}.",
        ),
    ],
    name: Annotated[
        str | None, typer.Option(help="Name of the concept; captions are shown as they are learned.")
    ] = None,
    class_word: Annotated[str | None, typer.Option(help="The ordinary word for what it is; goes with --name.")] = None,
    base: Annotated[str | None, typer.Option(help=f"{BASE_HELP}: its resolution and its limit of words.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    variant: VariantOption = None,
    base_config: BaseConfigOption = None,
    download: DownloadOption = False,
) -> None:
    """Show what a training would read of a folder, or the parts of a base; exit code 2 if it would be refused."""
    with errors_shown():
        if str(folder) == _EMBEDDED and folder.is_dir():
            folder = folder.resolve()
            note(f"{_EMBEDDED} is taken for the folder {folder}; elsewhere it is the embedded base")
        if _is_base(folder, download=download):
            chosen = chosen_base(str(folder), variant, base_config, download)
            _check_base(chosen, {"--name": name, "--class-word": class_word, "--base": base}, as_json=as_json)
            return
        chosen = None if base is None else chosen_base(base, variant, base_config, download)
        account = _checked(folder, name, class_word, chosen)
        if as_json:
            say_json(account.to_json())
        else:
            for line in replace(account, errors=()).lines():
                say(line)
            for error in account.errors:
                note(f"Error: {one_line(error)}")
        if account.errors:
            raise typer.Exit(ERROR_EXIT)


def _is_base(path: Path, *, download: bool) -> bool:
    """Return True for a base, or what may have been meant as one: its name, a file, a folder with parts of a pipeline.

    A folder of pictures is none, whatever else is in it, unless a pipeline's index is there.
    """
    from orthoplex.files import PICTURE_SUFFIXES

    if not path.is_dir():
        is_file = path.is_file() and path.suffix.lower() not in PICTURE_SUFFIXES
        return str(path) == _EMBEDDED or is_file or (not path.exists() and (download or _is_cached(path)))
    if any((path / name).is_file() for name in _PIPELINES):
        return True
    from orthoplex.training import holds_pictures

    has_part = any((path / part).exists() for part in ("config.json", *_PARTS))
    return has_part and not holds_pictures(path)


def _is_cached(path: Path) -> bool:
    """Return True for the name of a pipeline that the hub's cache has."""
    from orthoplex.models.hub import HubName, cached_pipeline

    name = HubName.of(path.as_posix())
    return name is not None and cached_pipeline(name) is not None


def _check_base(base: BaseChoice, options: Mapping[str, str | None], *, as_json: bool) -> None:
    given = [f"{name} {value}" for name, value in options.items() if value is not None]
    if given:
        raise ConfigurationError(f"{given[0]} is given with the base {base}; allowed with a folder of pictures")
    from orthoplex.models import base_report

    report = base_report(base)
    if as_json:
        say_json(report.to_json())
    else:
        for line in report.lines():
            say(line)
    if report.hash is None:
        raise typer.Exit(ERROR_EXIT)


def _checked(folder: Path, name: str | None, class_word: str | None, base: BaseChoice | None) -> DataFolder:
    """Return the account of a folder, for a concept where its name is given, and on a base where one is."""
    from orthoplex.training import DataFolder, checked_folder

    account = DataFolder.scan(folder)
    if (name is None) != (class_word is None):
        raise ConfigurationError("one of --name and --class-word is given; allowed are both or none")
    token = None
    if name is not None and class_word is not None:
        from orthoplex.training.dataset import check_arguments

        token = token_names(name)[0]
        check_arguments(token, class_word, kind_of(class_word), 1)
    if base is None:
        return checked_folder(account, token=token, class_word=class_word)
    from orthoplex.models import load_base, training_defaults
    from orthoplex.training import TrainingConfig

    settings = TrainingConfig.from_toml(None, defaults=training_defaults(base))
    return checked_folder(
        account, token=token, class_word=class_word, base=load_base(base), num_vectors=settings.num_vectors
    )
