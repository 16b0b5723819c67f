"""``orthoplex check``: what a training would read of a folder of pictures, or what a base is made of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orthoplex.cli.console import ERROR_EXIT, errors_shown
from orthoplex.cli.streams import note, say, say_json
from orthoplex.concepts import kind_of, token_names
from orthoplex.errors import ConfigurationError, DatasetError

if TYPE_CHECKING:
    from orthoplex.training import DataFolder, FolderPicture

_EMBEDDED, _PIPELINE = "vignette", "model_index.json"
_PARTS = ("unet", "transformer", "vae", "text_encoder")
_ANY_TOKEN = "<name>"
"""Stands for the concept where no name is given."""


def check(
    folder: Annotated[Path, typer.Argument(help="Folder of pictures; or a base: vignette, or a pipeline folder.")],
    name: Annotated[
        str | None, typer.Option(help="Name of the concept; captions are shown as they are learned.")
    ] = None,
    class_word: Annotated[str | None, typer.Option(help="The ordinary word for what it is; goes with --name.")] = None,
    base: Annotated[
        str | None, typer.Option(help="vignette, or a pipeline folder: its resolution and its limit of words.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Say what a training would read of a folder of pictures, or what a base is made of; exit code 2 if nothing."""
    with errors_shown():
        if _is_base(folder):
            _check_base(folder, {"--name": name, "--class-word": class_word, "--base": base}, as_json=as_json)
            return
        from orthoplex.files import read_picture
        from orthoplex.training import DataFolder

        report = DataFolder.scan(folder)
        captions = _captions(report, name, class_word)
        errors, broken = list(report.errors), set[str]()
        for picture in report.pictures:
            try:
                read_picture(picture.path)
            except DatasetError as error:
                errors.append(str(error))
                broken.add(picture.file_name)
        warnings = [*report.warnings, *_warnings(report, captions, name, base)]
        pictures = [item for item in report.pictures if item.file_name not in broken]
        if as_json:
            listing = _as_json(report, pictures, captions)
            listing |= {"trains": not errors, "errors": errors, "warnings": warnings}
            say_json(listing)
        else:
            _show(report, pictures, captions, warnings)
            for error in errors:
                note(f"Error: {error}")
        if errors:
            raise typer.Exit(ERROR_EXIT)


def _is_base(path: Path) -> bool:
    """Return True for what may have been meant as a base: its name, a file, or a folder with parts of a pipeline."""
    parts = (path / _PIPELINE, path / "config.json", *(path / part for part in _PARTS))
    return str(path) == _EMBEDDED or path.is_file() or any(part.exists() for part in parts)


def _check_base(base: Path, options: Mapping[str, str | None], *, as_json: bool) -> None:
    given = [f"{name} {value}" for name, value in options.items() if value is not None]
    if given:
        raise ConfigurationError(f"{given[0]} is given with the base {base}; allowed with a folder of pictures")
    from orthoplex.models import base_report

    report = base_report(str(base))
    if as_json:
        say_json(report.to_json())
    else:
        for line in report.lines():
            say(line)
    if report.hash is None:
        raise typer.Exit(ERROR_EXIT)


def _captions(report: DataFolder, name: str | None, class_word: str | None) -> dict[str, tuple[str, ...]]:
    """The captions of each picture: as they are learned if the concept has a name and a class word, else as written."""
    if (name is None) != (class_word is None):
        raise ConfigurationError("one of --name and --class-word is given; allowed are both or none")
    if name is None or class_word is None:
        return {item.file_name: item.captions for item in report.pictures}
    from orthoplex.training.dataset_words import captions_of, check_arguments

    token, kind = token_names(name)[0], kind_of(class_word)
    check_arguments(token, class_word, kind, 1)
    return {
        item.file_name: captions_of(
            item, token=token, class_word=class_word, trigger=f"{token} {class_word}", kind=kind
        )
        for item in report.pictures
    }


def _warnings(
    report: DataFolder, captions: dict[str, tuple[str, ...]], name: str | None, base: str | None
) -> list[str]:
    from orthoplex.activations import insert_trigger
    from orthoplex.training.dataset_words import caption_warnings

    token = _ANY_TOKEN if name is None else token_names(name)[0]
    if name is None:  # placeholders are no foreign syntax
        words = {"token": token, "class_word": token, "trigger": token}
        captions = {file: tuple(insert_trigger(text, **words) for text in texts) for file, texts in captions.items()}
    warnings = list(caption_warnings(captions, None if name is None else token))
    if base is not None:
        from orthoplex.models import load_base
        from orthoplex.training.text import cut_captions

        model = load_base(base)
        warnings += report.size_warnings(model.family.resolution)
        warnings += cut_captions(model, captions, token)
    return warnings


def _show(
    report: DataFolder, pictures: list[FolderPicture], captions: dict[str, tuple[str, ...]], warnings: list[str]
) -> None:
    say(report.summary)
    for item in pictures:
        texts = " | ".join(captions[item.file_name])
        source = f"{item.source}: {texts}" if texts else item.source
        say(f"  {item.file_name} {item.size.width}×{item.size.height}, {source}")
    for file in report.unread:
        say(f"Not read: {file.name}: {file.reason}")
    for remark in report.notes:
        say(f"Note: {remark}")
    for warning in warnings:
        say(f"Warning: {warning}")


def _as_json(report: DataFolder, pictures: list[FolderPicture], captions: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    return {
        "folder": str(report.folder),
        "summary": report.summary,
        "pictures": [
            {
                "file": item.file_name,
                "width": item.size.width,
                "height": item.size.height,
                "source": item.source,
                "captions": list(captions[item.file_name]),
                "copies": list(item.copies),
            }
            for item in pictures
        ],
        "unread": [{"file": file.name, "reason": file.reason} for file in report.unread],
        "notes": list(report.notes),
    }
