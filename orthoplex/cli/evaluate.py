"""``orthoplex evaluate``: how much a folder of pictures looks like a concept."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orthoplex.cli.console import errors_shown
from orthoplex.errors import ConfigurationError
from orthoplex.evaluation import Encoder, FolderEvaluation, evaluate_folder


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
    picture_size: Annotated[int, typer.Option(help="Pixels to which pictures are brought before encoding.")] = 224,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Measure pictures against real pictures of a concept: alignment, recognition, identity."""
    with errors_shown():
        others = _named_folders(other or [])
        encoder = Encoder(picture_size=picture_size)
        found = evaluate_folder(pictures, references, encoder=encoder, others=others, impostors=impostors or [])
        if as_json:
            typer.echo(json.dumps(asdict(found), indent=2, ensure_ascii=False))
            return
        title = f"{pictures}: {found.num_pictures} pictures against {found.num_references}, {found.encoder}"
        table = Table(title=Text(title), show_header=False, title_justify="left")
        for row in _rows(found):
            table.add_row(*map(Text, row))
        Console().print(table)


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


def _rows(found: FolderEvaluation) -> list[tuple[str, str]]:
    rows = [("image alignment", str(found.alignment))]
    if found.alignment_of_references is not None:
        rows.append(("among the references", f"{found.alignment_of_references:.3f}"))
    if found.recognised is not None:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in found.recognised_as.items())
        rows += [("recognised", str(found.recognised)), ("recognised as", shares)]
    if found.identity is not None:
        rows.append(("identity at 5 % false positives", str(found.identity)))
    return rows
