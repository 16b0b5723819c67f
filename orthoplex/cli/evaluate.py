"""``orthoplex evaluate``: how much a folder of pictures looks like a concept."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orthoplex.cli.console import completing, errors_shown
from orthoplex.cli.encoder_arguments import ENCODER_FORM, ENCODER_HELP, encoder_settings
from orthoplex.cli.streams import say_json, say_table
from orthoplex.errors import ConfigurationError
from orthoplex.options import ENCODERS, MOBILENET

if TYPE_CHECKING:
    from orthoplex.evaluation import Encoder, FolderEvaluation

_PICTURE_SIZE = 224


def evaluate(
    pictures: Annotated[Path, typer.Argument(help="Folder of pictures, made by any tool.")],
    references: Annotated[Path, typer.Option(help="Folder of real pictures of the concept they should show.")],
    other: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FOLDER", help="Real pictures of another concept of the kind; may be repeated."),
    ] = None,
    impostors: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of pictures that do not show the concept, for the identity rate; may be repeated."),
    ] = None,
    encoder: Annotated[
        str,
        typer.Option(
            metavar=ENCODER_FORM,
            help=f"{ENCODER_HELP}.",
            autocompletion=completing(ENCODERS),
        ),
    ] = MOBILENET,
    prompt: Annotated[
        str | None,
        typer.Option(help="What the pictures should show, with a plain word for the concept; with --encoder clip."),
    ] = None,
    picture_size: Annotated[
        int | None,
        typer.Option(
            help="Pixels to which pictures are brought before encoding; mobilenet only.",
            show_default=str(_PICTURE_SIZE),
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Measure pictures against real pictures of a concept: alignment, recognition, identity."""
    with errors_shown():
        from orthoplex.evaluation import evaluate_folder

        others = _named_folders(other or [])
        evaluation = evaluate_folder(
            pictures,
            references,
            encoder=_encoder(encoder, picture_size),
            others=others,
            impostors=impostors or [],
            prompt=prompt,
        )
        if as_json:
            say_json(asdict(evaluation))
            return
        title = (
            f"{pictures}: {evaluation.num_pictures} pictures against {evaluation.num_references}, {evaluation.encoder}"
        )
        say_table(title, _rows(evaluation, bool(impostors)))


def _encoder(text: str, picture_size: int | None) -> "Encoder":
    usual = _PICTURE_SIZE if text == MOBILENET else None
    return encoder_settings(text, picture_size=usual if picture_size is None else picture_size).build()


def _named_folders(texts: list[str]) -> dict[str, Path]:
    folders: dict[str, Path] = {}
    for text in texts:
        name, separator, folder = text.partition("=")
        if not separator or not name or not folder:
            raise ConfigurationError(f"other is {text!r}; allowed is NAME=FOLDER, as in rex=pictures/rex")
        if name in folders:
            raise ConfigurationError(f"other {name!r} is given twice; allowed: once")
        folders[name] = Path(folder)
    return folders


def _rows(evaluation: "FolderEvaluation", impostors: bool) -> list[tuple[str, str]]:
    rows = [("image alignment", str(evaluation.alignment))]
    if evaluation.alignment_of_references is not None:
        rows.append(("among the references", f"{evaluation.alignment_of_references:.3f}"))
    if evaluation.recognised is not None:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in evaluation.recognised_as.items())
        rows += [("recognised", str(evaluation.recognised)), ("recognised as", shares)]
    if evaluation.identity is not None:
        threshold = "5 % false positives" if impostors else f"a cosine of {evaluation.identity_cosine:.2f}"
        rows.append((f"identity at {threshold}", str(evaluation.identity)))
    if evaluation.text is not None:
        rows.append(("text alignment", str(evaluation.text)))
    return rows
